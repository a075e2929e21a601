"""Profiles, value sets and code systems that are loaded: StructureDefinition, ValueSet and CodeSystem resources in the store."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from fhir_server import fhir_json
from fhir_server.definitions import kind
from fhir_server.operations import Resource
from fhir_server.search.conditions import keyed
from fhir_server.store import Store
from fhir_server.validation.profiles.definitions import STRUCTURE

_TYPES = ("StructureDefinition", "ValueSet", "CodeSystem")
_MOST = 500  # canonicals that one profile may lead to
_VERSIONS = 20  # of one canonical that are looked at
_ROUNDS = 20
# Where one of these names another, by JSON name.
_LINKS = frozenset({"baseDefinition", "profile", "targetProfile", "valueSet", "system"})


class Loaded:
    """What has been fetched of them, for a validation that can't wait. `lookup` answers by canonical URL."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[str, Resource | None] = {}

    def lookup(self, canonical: str) -> Resource | None:
        """The resource with this canonical URL, without its version or with it."""
        return self._found.get(canonical)

    async def fetch(self, canonicals: Iterable[str]) -> None:
        """Fetch these (`url` or `url|version`), and what they name in turn, as far as it is loaded."""
        wanted = [c for c in dict.fromkeys(canonicals) if c not in self._found]
        for _ in range(_ROUNDS):
            wanted = wanted[: _MOST - len(self._found)]
            if not wanted:
                return
            await self._fetch(wanted)
            named = (link for c in wanted if (found := self._found[c]) is not None for link in _links(found))
            wanted = [c for c in dict.fromkeys(named) if c not in self._found]

    async def _fetch(self, canonicals: list[str]) -> None:
        urls = list(dict.fromkeys(c.partition("|")[0] for c in canonicals))
        by_url: dict[str, list[Resource]] = {}
        for resource_type in _TYPES:
            cursor = self._store.current(resource_type).find(
                keyed([f"url={url}" for url in urls], negated=False), {"resource": 1}, limit=_VERSIONS * len(urls)
            )
            async for document in cursor:
                found = fhir_json.from_bson(document["resource"])
                by_url.setdefault(found["url"], []).append(found)
        for canonical in canonicals:
            url, _, version = canonical.partition("|")
            of_url = [r for r in by_url.get(url, ()) if not version or r.get("version") == version]
            self._found[canonical] = max(of_url, key=_rank, default=None)


def is_base(canonical: str) -> bool:
    """Whether this is one of R4's own definitions of a type, which `validate` knows by heart."""
    url = canonical.partition("|")[0]
    return url.startswith(STRUCTURE) and kind(url.removeprefix(STRUCTURE)) is not None


def _rank(resource: Resource) -> tuple[bool, list[tuple[int, str]], str]:
    """An active one before others, then the latest version (numbers by their value), then the latest change."""
    parts = re.findall(r"[0-9]+|[^0-9.]+", resource.get("version", ""))
    version = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return resource.get("status") == "active", version, resource["meta"]["lastUpdated"]


def _links(value: Any) -> Iterator[str]:
    """The canonicals that a definition names, without their versions."""
    if isinstance(value, list):
        for item in value:
            yield from _links(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _LINKS:
                for link in item if isinstance(item, list) else [item]:
                    if isinstance(link, str) and not is_base(link):
                        yield link.partition("|")[0]
            if isinstance(item, (dict, list)):
                yield from _links(item)
