"""The destinations that are active, known without a search for each message, in every process the same.

A transaction that changes an HL7 v2 Endpoint or a ConceptMap counts up a number, in the same transaction. Whoever writes messages
reads that number (one document by its id, in the snapshot of its transaction) and uses what it knows if it is still the same. So
a message is written for exactly those destinations, in exactly the dialect, that its transaction sees.
"""

from datetime import tzinfo
from typing import Any, Final
from weakref import WeakKeyDictionary

from bridges.v2.destination import Destination, is_v2
from bridges.v2.partner import headers
from fhir_server.foresight import Lookup
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork

COLLECTION: Final = "counters"
_GENERATION: Final = "v2-destinations"
# What each transaction asks for, for `View.foresee`.
ASKED: Final = Lookup(COLLECTION, {"_id": _GENERATION})
_APART: Final = frozenset({"unmatched", "disjoint", "narrower"})  # equivalences that are no translation


class Destinations:
    """The active destinations, in the order of their ids. `zone` is the department's."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._generation = -1
        self._known: tuple[Destination, ...] = ()
        self._seen: WeakKeyDictionary[UnitOfWork, tuple[Destination, ...]] = WeakKeyDictionary()  # by its parts so far

    async def active(self, unit: UnitOfWork, changes: list[Change]) -> tuple[Destination, ...]:
        """Those that this transaction sees, its own changes included."""
        if any(_counts(change) for change in changes):
            await unit.db[COLLECTION].update_one({"_id": _GENERATION}, {"$inc": {"n": 1}}, upsert=True, session=unit.session)
            self._seen[unit] = await self._read(unit)
        elif unit not in self._seen:
            self._seen[unit] = await self._present(unit)
        return self._seen[unit]

    async def _present(self, unit: UnitOfWork) -> tuple[Destination, ...]:
        found = await unit.beside(ASKED)
        generation = int(found[0]["n"]) if found else 0
        if generation == self._generation:
            return self._known
        known = await self._read(unit)
        if generation > self._generation:  # another transaction may be looking at an older state
            self._generation, self._known = generation, known
        return known

    async def _read(self, unit: UnitOfWork) -> tuple[Destination, ...]:
        endpoints = await unit.search("Endpoint", status="active", connection_type="hl7v2-mllp")
        found = sorted(endpoints, key=lambda e: str(e["id"]))
        return tuple([Destination.of(e, self._zone, await self._translations(unit, e)) for e in found])

    async def _translations(self, unit: UnitOfWork, endpoint: Resource) -> dict[tuple[str, str], dict[str, Any]]:
        reference = headers(endpoint).get("concept-map")
        concept_map = await unit.get(reference) if reference else None
        return translations(concept_map) if concept_map else {}


def _counts(change: Change) -> bool:
    """Whether a change may change who is told, or how."""
    return change.type == "ConceptMap" or (change.type == "Endpoint" and (is_v2(change.before) or is_v2(change.after)))


def translations(concept_map: Resource) -> dict[tuple[str, str], dict[str, Any]]:
    """(system, code) of ours -> the receiver's coding; of several targets the first that means the same or more."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for group in concept_map.get("group", ()):
        for element in group.get("element", ()):
            for target in element.get("target", ()):
                if target.get("equivalence") not in _APART and "code" in target and "code" in element:
                    coding = {"system": group.get("target", ""), "code": target["code"], "display": target.get("display", "")}
                    found.setdefault((group.get("source", ""), element["code"]), {k: v for k, v in coding.items() if v})
    return found
