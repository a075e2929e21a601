"""References: literal ones by id, type and id, or URL; logical ones by :identifier; canonicals (3.1.1.4.12, 3.1.1.4.13)."""

import re
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES
from tests.search_oracle.asked import Asked, unescaped
from tests.search_oracle.tokens import pair_matches

_LOCAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(/_history/[A-Za-z0-9\-.]{1,64})?")


class Local(NamedTuple):
    """A resource of this server."""

    type: str
    id: str


def local(text: object, base_url: str = "") -> Local | None:
    """What a relative reference, or one that begins with our own base, points to. A version in it does not matter."""
    relative = text.removeprefix(f"{base_url}/") if isinstance(text, str) and base_url else text
    found = _LOCAL.fullmatch(relative) if isinstance(relative, str) else None
    return Local(found[1], found[2]) if found and found[1] in RESOURCE_TYPES else None


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether a Reference, or a canonical, answers the search."""
    if element_type in {"canonical", "uri"}:
        return _canonical_matches(asked, value)
    if asked.modifier == "identifier":
        identifier = value.get("identifier", {})
        return pair_matches(asked.text, (identifier.get("system"), identifier.get("value")))
    return _literal_matches(asked, value.get("reference"))


def _literal_matches(asked: Asked, reference: str | None) -> bool:
    """`id`, `Type/id`, an absolute URL, or `:Type` with an id."""
    wanted, stored = unescaped(asked.text), local(reference, asked.base_url)
    if stored is None:
        return reference == wanted and not asked.modifier
    if asked.modifier:
        return stored == (asked.modifier, wanted)
    return wanted == stored.id or local(wanted, asked.base_url) == stored


def _canonical_matches(asked: Asked, canonical: str) -> bool:
    """The URL with its version; without one in the search any version is meant."""
    return unescaped(asked.text) in {canonical, canonical.partition("|")[0]}
