"""Orders of several procedures: catalogue entries that are panels, and orders that name several entries.

A panel is an ActivityDefinition with relatedArtifact `composed-of` (FHIR R4 2.1.28.9), whose `resource` is the canonical of
another entry. An order names further entries by instantiatesCanonical. Each becomes a requested procedure of its own.
"""

from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

from fhir_server.elements import codes
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, terms
from resources.identifiers import escaped

_DEEPEST: Final = 4  # panels of panels


_known: "WeakKeyDictionary[UnitOfWork, dict[str, list[Resource]]]" = WeakKeyDictionary()


async def entries(unit: UnitOfWork, request: Resource) -> list[Resource]:
    """The active catalogue entries that a request names: by instantiatesCanonical, else the one of its code.

    An order is judged and then planned by them: in one transaction they are looked up once, unless it writes the catalogue.
    """
    if any(change.type == "ActivityDefinition" for change in unit.changes()):
        return await _entries(unit, request)
    known, key = _known.setdefault(unit, {}), repr([request.get("instantiatesCanonical"), request.get("code")])
    if key not in known:
        known[key] = await _entries(unit, request)
    return known[key]


async def _entries(unit: UnitOfWork, request: Resource) -> list[Resource]:
    named = await _by_canonical(unit, request.get("instantiatesCanonical", ()))
    if named:
        return named
    entry = await activity_definition.catalogue_entry(unit, request)
    return [entry] if entry else []


async def parts(unit: UnitOfWork, request: Resource) -> list[Resource]:
    """What each requested procedure has of its own where a request is for several; empty where it is for one."""
    named = await entries(unit, request)
    single = [e for entry in named for e in await _singles(unit, entry, _DEEPEST)]
    found = list({e["id"]: e for e in single}.values())
    if len(found) < 2:
        return []
    return [_elements(request, entry) for entry in found]


async def _singles(unit: UnitOfWork, entry: Resource, deepest: int) -> list[Resource]:
    """The entries that an entry is composed of; itself, when it is no panel."""
    composed = [a["resource"] for a in entry.get("relatedArtifact", ()) if a.get("type") == "composed-of" and "resource" in a]
    members = await _by_canonical(unit, composed) if deepest else []
    return [e for member in members for e in await _singles(unit, member, deepest - 1)] or [entry]


async def _by_canonical(unit: UnitOfWork, canonicals: Iterable[str]) -> list[Resource]:
    """The active entries with these canonicals, in their order. What isn't in the catalogue (a guideline) is none."""
    wanted = [c.partition("|")[0] for c in canonicals]
    if not wanted:
        return []
    found = await unit.search("ActivityDefinition", url=",".join(escaped(w) for w in wanted), status="active")
    by_url = {e.get("url"): e for e in found}
    return [by_url[w] for w in wanted if w in by_url]


def names_modality(concept: Resource) -> bool:
    """Whether a concept of an order is the modality that it wants."""
    return bool(codes(concept, terms.DCM))


def _elements(request: Resource, entry: Resource) -> Resource:
    """Code and body site are the entry's, the modality too: that of the order is not that of each of its procedures."""
    details = [d for d in request.get("orderDetail", ()) if not names_modality(d)]
    category = [c for c in request.get("category", ()) if not names_modality(c)]
    return {
        "code": entry.get("code") or request["code"],
        "instantiatesCanonical": [entry["url"]] if "url" in entry else None,
        "orderDetail": details or None,
        "bodySite": entry.get("bodySite"),
        "category": category or request.get("category"),
    }
