"""The code maps of the HL7 v2 bridge as ConceptMaps (FHIR R4 10.5), stored like any resource so that they can be searched."""

from typing import Any

from bridges.v2.codes import CODE_MAPS, CodeMap
from capability.v2_specification import SOURCES
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.references import Target
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

assert SOURCES  # their import fills CODE_MAPS


def concept_map(codes: CodeMap) -> dict[str, Any]:
    """A code map as a resource: one group each way."""
    return {
        "resourceType": "ConceptMap",
        "id": codes.id,
        "url": f"urn:fhir-ris:concept-map:{codes.id}",
        "name": "".join(word.capitalize() for word in codes.id.split("-")),
        "title": f"{codes.title}: HL7 v2 table {codes.table} and FHIR",
        "status": "active",
        "group": [_group(codes.source, codes.target, codes.codes), _group(codes.target, codes.source, codes.back)],
    }


def _group(source: str, target: str, codes: Any) -> dict[str, Any]:
    elements = [{"code": one, "target": [{"code": other, "equivalence": "equivalent"}]} for one, other in codes.items() if other]
    return {"source": source, "target": target, "element": elements}


async def publish(interactions: Interactions) -> int:
    """Store the maps that are new or have changed since the last start; how many that were."""
    maps = {Target("ConceptMap", codes.id): concept_map(codes) for codes in CODE_MAPS.values()}
    await interactions.store.ensure("ConceptMap")
    stored = await interactions.store.read_many(maps)
    due = [wanted for to, wanted in maps.items() if to not in stored or _content(stored[to].resource) != wanted]

    async def work(unit: UnitOfWork) -> None:
        for wanted in due:
            await unit.update(wanted)

    if due:
        await interactions.transact(Access.system("fhir-ris"), Act("publish-concept-maps"), work)
    return len(due)


def _content(resource: dict[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (resource or {}).items() if k != "meta"}
