"""A partner's own codes in ours, by the ConceptMap that was agreed with it (`accept-concept-map`)."""

from collections.abc import Iterator

from bridges.v2.partner import Partner
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork

_NONE = frozenset({"unmatched", "disjoint"})


async def translated(unit: UnitOfWork, partner: Partner, concept: Resource) -> Resource:
    """The concept with our coding first and the partner's behind; as it is without a map, or where that says nothing of it."""
    concept_map = await unit.get({"reference": partner.concept_map}) if partner.concept_map else None
    if concept_map is None:
        return concept
    codings = concept.get("coding", [])
    ours = [new for coding in codings for new in _targets(concept_map, coding) if new not in codings]
    return concept | {"coding": [*ours, *codings]} if ours else concept


def _targets(concept_map: Resource, coding: Resource) -> Iterator[Resource]:
    """What one coding means in ours. A group without a source is for any system."""
    for group in concept_map.get("group", ()):
        if group.get("source") not in {None, coding.get("system")}:
            continue
        for element in group.get("element", ()):
            for target in element.get("target", ()) if element.get("code") == coding.get("code") else ():
                if "code" in target and target.get("equivalence") not in _NONE:
                    said = {"system": group.get("target"), "code": target["code"], "display": target.get("display")}
                    yield {k: v for k, v in said.items() if v}
