"""XCN -> Practitioner (HL7 v2-to-FHIR guide, datatype XCN)."""

from typing import Any

from bridges.v2.datatypes import CX, XCN, XPN
from bridges.v2.person_names import human_name
from bridges.v2.reception import Sender
from bridges.v2.systems import identifier
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import carriers


class People:
    """The practitioners that one message names, each looked up or made once."""

    def __init__(self, unit: UnitOfWork, sender: Sender) -> None:
        self._unit = unit
        self._sender = sender
        self._known: dict[tuple[str, str], Resource] = {}

    async def reference(self, xcn: XCN) -> dict[str, Any] | None:
        """A Reference to the Practitioner of an XCN, found by id and authority, or made; without an id just the name."""
        display = ", ".join(x for x in (xcn.family, xcn.given) if x)
        if not xcn.id.strip():
            return {"display": display} if display else None
        wanted = identifier(CX(xcn.id, xcn.authority), self._sender.authority)
        key = wanted["system"], wanted["value"]
        if key not in self._known:
            self._known[key] = await self._find_or_make(wanted, xcn)
        return ref(self._known[key], display or None)

    async def _find_or_make(self, wanted: Resource, xcn: XCN) -> Resource:
        found = await carriers(self._unit, "Practitioner", [wanted])
        if found:
            return found[0]
        await self._unit.lock(f"practitioner:{wanted['value']}")  # whoever makes the same one meanwhile, makes us start again
        made: Resource = {"resourceType": "Practitioner", "identifier": [wanted], "active": True}
        name = human_name(XPN(xcn.family, xcn.given, xcn.middle, xcn.suffix, xcn.prefix, xcn.degree))
        return await self._unit.create(made | ({"name": [name]} if name else {}))
