"""What a scanner's operator must know of the patient: weight, size, pregnancy, allergies, alerts, needs (PS3.3 C.2.3, C.3.4)."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bridges.dicom import values
from bridges.dicom.dicom_json import Attributes, put
from bridges.dicom.values import LO, line
from fhir_server.elements import codes, codings
from fhir_server.registry import Resource
from resources import terms

WEIGHT, HEIGHT, PREGNANCY = "29463-7", "8302-2", "82810-3"
OBSERVATIONS: Final = frozenset({WEIGHT, HEIGHT, PREGNANCY})
_PREGNANCY_LASTS = timedelta(days=300)
_FLAG_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"
_NOT_SO: Final = frozenset({"entered-in-error", "cancelled"})
# UCUM unit -> kg and m.
_KILOGRAMS: Final = {"kg": Decimal(1), "g": Decimal("0.001"), "[lb_av]": Decimal("0.45359237")}
_METRES: Final = {"m": Decimal(1), "cm": Decimal("0.01"), "mm": Decimal("0.001"), "[in_i]": Decimal("0.0254")}
# SNOMED CT and LOINC answers -> Pregnancy Status: 1 not pregnant, 2 possibly, 3 definitely, 4 unknown.
_PREGNANT: Final = {
    "60001007": 1, "LA26683-5": 1, "146799005": 2, "77386006": 3, "LA15173-0": 3, "261665006": 4, "LA4489-6": 4,
}  # fmt: skip


def put_clinical(found: Attributes, facts: Iterable[Resource], encounter: Resource | None, now: datetime) -> None:
    """The attributes that come of a patient's Observations, AllergyIntolerances and Flags, and of the visit."""
    known = list(facts)
    observations = [r for r in known if r["resourceType"] == "Observation" and r.get("status") not in _NOT_SO]
    put(found, "PatientWeight", _measure(observations, WEIGHT, _KILOGRAMS))
    put(found, "PatientSize", _measure(observations, HEIGHT, _METRES))
    put(found, "PregnancyStatus", _pregnancy(observations, now))
    put(found, "Allergies", *_texts(r.get("code") for r in known if _is_active_allergy(r)))
    flags = [r for r in known if r["resourceType"] == "Flag" and r.get("status") == "active"]
    kinds = [(set(codes(f.get("category"), _FLAG_CATEGORY)), f.get("code")) for f in flags]
    put(found, "PatientState", _joined(code for kind, code in kinds if "contact" in kind))
    alerts = (code for kind, code in kinds if kind.isdisjoint({"contact", "behavioral", "admin"}))
    put(found, "MedicalAlerts", *_texts(alerts))
    arrangements = (encounter or {}).get("hospitalization", {}).get("specialArrangement", ())
    put(found, "SpecialNeeds", _joined([*arrangements, *(code for kind, code in kinds if "behavioral" in kind)]))


def _is_active_allergy(resource: Resource) -> bool:
    if resource["resourceType"] != "AllergyIntolerance":
        return False
    clinical = {c.get("code") for c in codings(resource.get("clinicalStatus"))}
    verified = {c.get("code") for c in codings(resource.get("verificationStatus"))}
    return (not clinical or "active" in clinical) and verified.isdisjoint({"refuted", "entered-in-error"})


def _last(observations: list[Resource], code: str) -> Resource | None:
    mine = [o for o in observations if code in codes(o.get("code"), terms.LOINC)]
    return max(mine, key=_taken, default=None)


def _taken(observation: Resource) -> str:
    """When it was made, so that the last can be told: UTC where a time is given."""
    given = observation.get("effectiveDateTime") or observation.get("effectivePeriod", {}).get("start") or ""
    given = given or observation.get("issued", "")
    moment = _moment(given)
    return moment.isoformat() if moment else ""


def _moment(given: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _measure(observations: list[Resource], code: str, units: dict[str, Decimal]) -> str:
    """The value as DS, to a thousandth; nothing where its unit isn't known."""
    quantity: dict[str, Any] = (_last(observations, code) or {}).get("valueQuantity", {})
    factor = units.get(quantity.get("code") or quantity.get("unit") or "")
    try:
        number = Decimal(str(quantity["value"])) * factor if factor else None
    except (KeyError, InvalidOperation):
        return ""
    if number is None or not 0 < number < 10_000:
        return ""
    return f"{number.quantize(Decimal('0.001')).normalize():f}"


def _pregnancy(observations: list[Resource], now: datetime) -> int | None:
    last = _last(observations, PREGNANCY)
    moment = _moment(_taken(last)) if last else None
    if last is None or moment is None or now - moment > _PREGNANCY_LASTS:
        return None
    return next((_PREGNANT[c["code"]] for c in codings(last.get("valueCodeableConcept")) if c.get("code") in _PREGNANT), None)


def _texts(concepts: Iterable[Any]) -> list[str]:
    """Each concept as a value of an LO, each once."""
    return list(dict.fromkeys(t for c in concepts if (t := line(values.display(c), LO))))


def _joined(concepts: Iterable[Any]) -> str:
    return line("; ".join(_texts(concepts)), LO)
