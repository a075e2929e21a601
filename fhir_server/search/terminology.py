"""Value sets and code system hierarchies for `:in`, `:not-in`, `:below` and `:above` (FHIR R4 Search, "Modifiers").

What is known are the ValueSets and CodeSystems stored here, and R4's own that required bindings name. A value set that can't be
worked out in full (filters, a code system that isn't here) is refused: part of it would be a wrong answer.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fhir_server import definitions, fhir_json
from fhir_server.outcome import FhirError, fail
from fhir_server.references import target
from fhir_server.search.conditions import keyed
from fhir_server.search.query import Query
from smart_auth.access import Access

if TYPE_CHECKING:
    from fhir_server.store import Store

Codes = dict[str, frozenset[str] | None]
"""Code system -> its codes; None for all of them."""

Resource = dict[str, Any]
_MAX_SETS = 50  # value sets that one includes, directly or not
_MAX_CODES = 10_000


async def codes_in(store: "Store", access: Access, value_set: str) -> Codes:
    """The codes of a value set, by canonical URL or ValueSet/id. FhirError `not-found`, `not-supported`, `too-costly`."""
    access.require("ValueSet", "r")
    codes = await _Expansion(store, access).of(value_set)
    if sum(len(c or ()) for c in codes.values()) > _MAX_CODES:
        raise fail("too-costly", f"the value set has more than {_MAX_CODES} codes")
    return codes


async def related(store: "Store", access: Access, system: str, code: str, *, down: bool) -> frozenset[str]:
    """A code with those below it (`down`) or above it in its code system's hierarchy."""
    access.require("CodeSystem", "r")
    code_system = await _by_url(store, access, "CodeSystem", system)
    if code_system is None or code_system.get("content") != "complete":
        raise fail("not-supported", f"the hierarchy of code system {system[:200]} is not known here", status=400)
    paths = list(_paths(code_system.get("concept", ()), ()))
    if down:
        return frozenset(path[-1] for path in paths if code in path) | {code}
    return frozenset(c for path in paths if path[-1] == code for c in path) | {code}


def _paths(concepts: Iterable[Resource], above: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """Each concept as the path that leads to it."""
    for concept in concepts:
        path = (*above, concept["code"])
        yield path
        yield from _paths(concept.get("concept", ()), path)


class _Expansion:
    """One value set worked out, with those that it includes."""

    def __init__(self, store: "Store", access: Access) -> None:
        self._store, self._access = store, access
        self._visited: set[str] = set()

    async def of(self, canonical: str) -> Codes:
        if canonical in self._visited or len(self._visited) >= _MAX_SETS:
            raise fail("too-costly", f"value set {canonical[:200]} includes itself, or too many others")
        self._visited.add(canonical)
        found = await self._stored(canonical)
        if found is None:
            own = definitions.value_set(canonical.partition("|")[0])
            if own is None:
                raise fail("not-found", f"value set {canonical[:200]} is not known here", status=400)
            return dict(own)
        if "contains" in found.get("expansion", {}):
            return _contained(found["expansion"]["contains"])
        return await self._composed(found.get("compose", {}), canonical)

    async def _stored(self, canonical: str) -> Resource | None:
        to = target(canonical)
        if to is not None and to.type == "ValueSet":
            documents = await self._store.find(_restricted(self._access, "ValueSet", {"_id": to.id}), limit=1)
            return fhir_json.from_bson(documents[0]["resource"]) if documents else None
        return await _by_url(self._store, self._access, "ValueSet", canonical)

    async def _composed(self, compose: Resource, canonical: str) -> Codes:
        found: Codes = {}
        for part in compose.get("include", ()):
            for system, codes in (await self._part(part, canonical)).items():
                have = found.get(system, frozenset())
                found[system] = None if codes is None or have is None else have | codes
        for part in compose.get("exclude", ()):
            for system, codes in (await self._part(part, canonical)).items():
                have = found.get(system, frozenset())
                if have is None:
                    raise _unknown(canonical, "it excludes codes of a whole code system")
                found[system] = frozenset() if codes is None else have - codes
        return found

    async def _part(self, part: Resource, canonical: str) -> Codes:
        """One include or exclude: the codes of a system, limited to those in each of the value sets it names."""
        if "filter" in part:
            raise _unknown(canonical, "it is defined by filters")
        own: Codes | None = None
        if "system" in part:
            listed = frozenset(c["code"] for c in part["concept"]) if "concept" in part else None
            own = {part["system"]: listed}
        for imported in part.get("valueSet", ()):
            other = await self.of(imported)
            own = other if own is None else _common(own, other)
        return own or {}


def _common(one: Codes, other: Codes) -> Codes:
    found: Codes = {}
    for system in one.keys() & other.keys():
        a, b = one[system], other[system]
        found[system] = b if a is None else a if b is None else a & b
    return found


def _contained(contains: Iterable[Resource]) -> Codes:
    found: dict[str, set[str]] = {}
    pending = list(contains)
    while pending:
        entry = pending.pop()
        if "code" in entry and not entry.get("abstract"):
            found.setdefault(entry.get("system", ""), set()).add(entry["code"])
        pending += entry.get("contains", ())
    return {system: frozenset(codes) for system, codes in found.items()}


def _unknown(canonical: str, why: str) -> FhirError:
    return fail("not-supported", f"value set {canonical[:200]} can't be worked out here: {why}", status=400)


def _restricted(access: Access, resource_type: str, where: dict[str, Any]) -> Query:
    restriction = access.filter(resource_type, "r")
    return Query(resource_type, filters=[where] if restriction is None else [where, restriction])


async def _by_url(store: "Store", access: Access, resource_type: str, canonical: str) -> Resource | None:
    """A stored definition by its canonical URL, the latest of its versions unless `|version` names one."""
    url, _, wanted = canonical.partition("|")
    query = _restricted(access, resource_type, keyed([f"url={url}"]))
    found = [fhir_json.from_bson(d["resource"]) for d in await store.find(query, limit=100)]
    found = [r for r in found if not wanted or r.get("version") == wanted]
    return max(found, key=lambda r: str(r.get("version", "")), default=None)
