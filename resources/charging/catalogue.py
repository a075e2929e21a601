"""What the procedure catalogue says of charges.

A catalogue entry (ActivityDefinition) has an extension `urn:fhir-ris:charge` for each charge:
    {"url": "urn:fhir-ris:charge", "extension": [
        {"url": "component", "valueCode": "technical" | "professional"},
        {"url": "code", "valueCodeableConcept": ...},               the charge code: CPT, HCPCS, OPS, the house's own
        {"url": "modifier", "valueCodeableConcept": ...},           any number
        {"url": "quantity", "valueDecimal": 1},
        {"url": "per", "valueCode": "examination" | "step"},        step: the quantity is of each step that was done
        {"url": "maximum", "valueDecimal": 3}]}                     more than that is looked at by somebody first
and one `urn:fhir-ris:charge-review` (valueCode) for each thing without which a charge doesn't go out unseen: `diagnosis`,
`coverage`; where it has none, that is `diagnosis`. `urn:fhir-ris:not-charged` (valueBoolean): there is nothing to charge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_server.elements import codings, extension
from fhir_server.registry import Resource
from resources.charge_item import CHARGE, PROFESSIONAL, TECHNICAL

REVIEW: Final = "urn:fhir-ris:charge-review"  # also the system of the tags of a charge that is held
NOT_CHARGED: Final = "urn:fhir-ris:not-charged"
_COMPONENTS: Final = (TECHNICAL, PROFESSIONAL)
_USUAL: Final = frozenset({"diagnosis"})


@dataclass(frozen=True, slots=True)
class Said:
    """A charge of the catalogue. `split`: its code is charged in both components, so that a modifier must tell which."""

    component: str
    code: Resource
    modifiers: Sequence[Resource] = ()
    quantity: Any = 1
    per_step: bool = False
    maximum: Any = None
    split: bool = False


def keys(concept: Resource) -> set[tuple[str, str]]:
    """The codes of a concept, each with its system."""
    return {(c.get("system", ""), c["code"]) for c in codings(concept) if "code" in c}


def charges(entry: Resource | None) -> list[Said]:
    """All charges of an entry. One that says nothing of charges has one without a code for each component: people must look."""
    if entry is None or (extension(entry, NOT_CHARGED) or {}).get("valueBoolean") is True:
        return []
    said = [_said(e) for e in entry.get("extension", ()) if e.get("url") == CHARGE]
    if not said:
        return [Said(component, {}) for component in _COMPONENTS]
    return [_split(one, said) for one in said]


def of_component(entry: Resource | None, component: str) -> list[Said]:
    return [one for one in charges(entry) if one.component == component]


def looked_at(entry: Resource | None) -> frozenset[str]:
    """What is looked at before a charge of this procedure goes out."""
    said = {str(e.get("valueCode")) for e in (entry or {}).get("extension", ()) if e.get("url") == REVIEW}
    return frozenset(said) or _USUAL


def _said(element: Resource) -> Said:
    parts = element.get("extension", ())
    value = {p["url"]: next((v for k, v in p.items() if k.startswith("value")), None) for p in parts}
    return Said(
        component=value.get("component") or TECHNICAL,
        code=value.get("code") or {},
        modifiers=[p["valueCodeableConcept"] for p in parts if p["url"] == "modifier"],
        quantity=1 if value.get("quantity") is None else value["quantity"],
        per_step=value.get("per") == "step",
        maximum=value.get("maximum"),
    )


def _split(one: Said, all_of_them: Sequence[Said]) -> Said:
    other = any(keys(one.code) & keys(s.code) for s in all_of_them if s.component != one.component)
    return Said(one.component, one.code, one.modifiers, one.quantity, one.per_step, one.maximum, split=other)


def is_unusual(said: Said | None, quantity: Any) -> bool:
    """Whether so many units are to be looked at: none, more than the maximum, or where there is none, not what is usual."""
    units = Decimal(str(quantity))
    if units <= 0:
        return True
    if said is None:
        return False
    if said.maximum is not None:
        return units > Decimal(str(said.maximum))
    return not said.per_step and units != Decimal(str(said.quantity))
