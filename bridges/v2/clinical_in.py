"""AL1, DG1 and the OBX of ADT and orders -> what is known of the patient's health (HL7 v2-to-FHIR guide; own choices named).

For ADT and for orders alike: `clinical` takes all of them; `allergies`, `conditions`, `measures` and `pregnancy` each one kind.
What is known is brought up to date, never doubled; what a message leaves out, is not taken away: its absence says nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from bridges.v2.codes import ALLERGY_CATEGORY, ALLERGY_CRITICALITY, ALLERGY_SEVERITY, DIAGNOSIS_VERIFICATION
from bridges.v2.datatypes import CWE, EI, XCN
from bridges.v2.known import Known, concept_kept, concept_wanted
from bridges.v2.mapping import Row, table
from bridges.v2.message import Message, Segment
from bridges.v2.people_in import People
from bridges.v2.reception import Sender, date_time
from bridges.v2.refused import missing, wrong
from bridges.v2.systems import concept, entity_identifier
from bridges.v2.visit_in import PREGNANT
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
_MANY: Final = 500  # allergies or conditions of one patient that are looked at
_LATEST: Final = 50  # Observations of one kind
_UCUM: Final = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Clinical:
    """One segment about the health of a patient, and whose it is."""

    segment: Segment
    sender: Sender
    patient: Resource
    encounter: Resource | None
    people: People | None = None
    when: str | None = None  # of the message or event, for what has no time of its own


async def clinical(
    unit: UnitOfWork, message: Message, sender: Sender, patient: Resource, encounter: Resource | None, when: str | None
) -> None:
    """All of it in a message about one patient."""
    people = People(unit, sender)
    found = [Clinical(s, sender, patient, encounter, people, when) for s in message.segments if s.name in {"AL1", "DG1", "OBX"}]
    await allergies(unit, [c for c in found if c.segment.name == "AL1"])
    await conditions(unit, [c for c in found if c.segment.name == "DG1"])
    await measures(unit, [c for c in found if c.segment.name == "OBX"])
    if pv1 := message.first("PV1"):
        await pregnancy(unit, Clinical(pv1, sender, patient, encounter, people, when))


def _concept(segment: Segment, field: int, sender: Sender) -> dict[str, Any] | None:
    return concept(CWE.from_field(segment.repetitions(field)[0]), sender.authority) if segment.raw(field) else None


def _subject(of: Clinical) -> Resource:
    return ref(of.patient)


def _encounter(of: Clinical) -> Resource | None:
    return ref(of.encounter) if of.encounter else None


async def _stored(unit: UnitOfWork, known: Resource | None, said: Resource) -> Resource:
    return await unit.update(known | said) if known else await unit.create(said)


# AL1


def _reactions(of: Clinical) -> list[Resource]:
    severity = ALLERGY_SEVERITY.fhir(of.segment.field(4))
    shown = [{"text": text} for f in of.segment.repetitions(5) if (text := f.text.strip())]
    return [{"manifestation": shown} | ({"severity": severity} if severity else {})] if shown else []


def _severity_note(of: Clinical) -> list[Resource]:
    """MO fits no criticality, and without a reaction FHIR has no place for a severity."""
    moderate = of.segment.field(4).strip().upper() == "MO" and not of.segment.field(5).strip()
    return [{"text": "Severity: moderate"}] if moderate else []


def _allergy_category(of: Clinical) -> list[str]:
    category = ALLERGY_CATEGORY.fhir(of.segment.field(2))
    return [category] if category else []


AL1 = table(
    "AL1 -> AllergyIntolerance",
    "AllergyIntolerance",
    Row("AL1-3", "code", lambda of: _concept(of.segment, 3, of.sender), "found again by it", "R"),
    Row("AL1-2", "category", _allergy_category, "DA and MA medication, FA food, EA AA PA LA environment; others none"),
    Row("AL1-4", "criticality", lambda of: ALLERGY_CRITICALITY.fhir(of.segment.field(4)), "SV high, MI low, U unable-to-assess"),
    Row("AL1-4, AL1-5", "reaction", _reactions, "each AL1-5 a manifestation; with the severity SV, MO or MI"),
    Row("AL1-4, AL1-5", "note", _severity_note, "MO without a reaction"),
    Row("AL1-6", "onsetDateTime", lambda of: date_time(of.sender, of.segment, 6)),
    Row("PID-3", "patient", _subject, "the patient of the message"),
    clinicalStatus=coded(_TERMINOLOGY + "allergyintolerance-clinical", "active"),
)  # fmt: skip


async def allergies(unit: UnitOfWork, found: Sequence[Clinical]) -> list[Resource]:
    """Each AL1 with something in AL1-3."""
    made: list[Resource] = []
    known: Known | None = None
    for of in found:
        said = await AL1.build(of)
        if "code" not in said:
            continue
        if known is None:
            stored = await unit.matching("AllergyIntolerance", f"patient=Patient/{of.patient['id']}", limit=_MANY)
            known = Known(stored, lambda a: concept_kept(a.get("code")), lambda a: concept_wanted(a.get("code")))
        same = known.same(said)
        if same and "note" in same:
            said["note"] = [*same["note"], *(n for n in said.get("note", ()) if n not in same["note"])]
        if same:  # what people have said of it meanwhile (resolved, refuted) is not for a list to undo
            said = {k: v for k, v in said.items() if k != "clinicalStatus"}
        made.append(await _stored(unit, same, said))
        known.keep(made[-1])
    return made


# DG1


def _diagnosis(of: Clinical) -> dict[str, Any] | None:
    found = _concept(of.segment, 3, of.sender)
    text = of.segment.text(4).strip()
    return (found or {}) | {"text": text} if text else found


async def _asserter(of: Clinical) -> Resource | None:
    for person in of.segment.repetitions(16):
        if of.people and (who := await of.people.reference(XCN.from_field(person))):
            return who
    return None


def _diagnosis_id(of: Clinical) -> list[Resource]:
    if not of.segment.field(20).strip():
        return []
    return [entity_identifier(EI.from_field(of.segment.repetitions(20)[0]), "RI", of.sender.authority)]


def _verification(of: Clinical) -> dict[str, Any] | None:
    if of.segment.field(21).strip().upper() == "D":
        return coded(DIAGNOSIS_VERIFICATION.target, "entered-in-error")
    code = DIAGNOSIS_VERIFICATION.fhir(of.segment.field(6))
    return coded(DIAGNOSIS_VERIFICATION.target, code) if code else None


DG1 = table(
    "DG1 -> Condition",
    "Condition",
    Row("DG1-3, DG1-4", "code", _diagnosis, "DG1-4 is the text; found again by DG1-20, else by the code and the visit", "C"),
    Row("DG1-5", "onsetDateTime", lambda of: date_time(of.sender, of.segment, 5)),
    Row("DG1-6, DG1-21", "verificationStatus", _verification,
        "A and W provisional, F confirmed; D in DG1-21 is entered-in-error"),
    Row("DG1-16", "asserter", _asserter),
    Row("DG1-19", "recordedDate", lambda of: date_time(of.sender, of.segment, 19)),
    Row("DG1-20", "identifier", _diagnosis_id),
    Row("PID-3", "subject", _subject, "the patient of the message"),
    Row("PV1-19", "encounter", _encounter, "the visit of the message"),
    category=[coded(_TERMINOLOGY + "condition-category", "encounter-diagnosis")],
    clinicalStatus=coded(_TERMINOLOGY + "condition-clinical", "active"),
)  # fmt: skip


async def conditions(unit: UnitOfWork, found: Sequence[Clinical]) -> list[Resource]:
    """Each DG1 with a diagnosis."""
    made: list[Resource] = []
    known: Known | None = None
    for of in found:
        said = await DG1.build(of)
        if "code" not in said:
            continue
        if known is None:
            stored = await unit.matching("Condition", f"patient=Patient/{of.patient['id']}", limit=_MANY)
            known = Known(stored, _condition_kept, _condition_wanted)
        same = known.same(said)
        if "entered-in-error" in str(said.get("verificationStatus")):  # FHIR R4 con-5: then no clinical status
            said.pop("clinicalStatus")
            if same is None:
                continue
            same.pop("clinicalStatus", None)
        elif same:
            said.pop("clinicalStatus")
        made.append(await _stored(unit, same, said))
        known.keep(made[-1])
    return made


def _condition_kept(condition: Resource) -> Iterator[tuple[str, ...]]:
    """Its identifiers; its code in its visit, for those that name none, and where it has none itself for all."""
    ids = list(_condition_ids(condition))
    yield from ids
    for key in concept_kept(condition.get("code")):
        yield ("visit", _visit(condition), *key)
        if not ids:
            yield ("unidentified", _visit(condition), *key)


def _condition_wanted(condition: Resource) -> Iterator[tuple[str, ...]]:
    """Two that both have identifiers are the same by these alone; else by code and visit."""
    ids = list(_condition_ids(condition))
    yield from ids
    for key in concept_wanted(condition.get("code")):
        yield ("unidentified" if ids else "visit", _visit(condition), *key)


def _condition_ids(condition: Resource) -> Iterator[tuple[str, ...]]:
    for found in condition.get("identifier", ()):
        yield ("id", str(found.get("system")), str(found.get("value")))


def _visit(condition: Resource) -> str:
    return str(condition.get("encounter", {}).get("reference", ""))


# Weight and height


WEIGHT, HEIGHT = "29463-7", "8302-2"
_KINDS: Final = {
    WEIGHT: (WEIGHT, "Body weight"), "3141-9": (WEIGHT, ""), "3142-7": (WEIGHT, ""), "8350-1": (WEIGHT, ""),
    HEIGHT: (HEIGHT, "Body height"), "3137-7": (HEIGHT, ""), "3138-5": (HEIGHT, ""), "8308-9": (HEIGHT, ""),
}  # fmt: skip
_WORDS: Final = {
    "weight": WEIGHT, "body weight": WEIGHT, "bodyweight": WEIGHT, "gewicht": WEIGHT, "körpergewicht": WEIGHT, "poids": WEIGHT,
    "peso": WEIGHT, "height": HEIGHT, "body height": HEIGHT, "bodyheight": HEIGHT, "grösse": HEIGHT, "größe": HEIGHT,
    "körpergröße": HEIGHT, "taille": HEIGHT, "altezza": HEIGHT,
}  # fmt: skip
# Unit as it is written -> how many kg or m it is.
_KILOGRAMS: Final = {
    "kg": Decimal(1), "g": Decimal("0.001"), "lb": Decimal("0.45359237"), "[lb_av]": Decimal("0.45359237"),
    "lbs": Decimal("0.45359237"), "oz": Decimal("0.028349523125"), "[oz_av]": Decimal("0.028349523125"),
}  # fmt: skip
_METRES: Final = {
    "m": Decimal(1), "cm": Decimal("0.01"), "mm": Decimal("0.001"), "in": Decimal("0.0254"), "[in_i]": Decimal("0.0254"),
    "inch": Decimal("0.0254"), "ft": Decimal("0.3048"), "[ft_i]": Decimal("0.3048"),
}  # fmt: skip
_PLAUSIBLE: Final = {WEIGHT: (Decimal("0.2"), Decimal(650)), HEIGHT: (Decimal("0.15"), Decimal("2.8"))}


def measure(obx: Segment) -> str | None:
    """The LOINC code of weight or height, if an OBX is about one: by its LOINC code, else by the word; else None."""
    for code, text, system in ((1, 2, 3), (4, 5, 6)):
        found = _KINDS.get(obx.get(3, code).strip())
        if found and obx.get(3, system).strip().upper() in {"LN", ""}:
            return found[0]
        for word in (obx.get(3, code), obx.get(3, text)):
            if kind := _WORDS.get(" ".join(word.casefold().split())):
                return kind
    return None


def _quantity(of: Clinical) -> dict[str, Any] | None:
    """In kg or m. Without a number, a unit, or with an impossible result it is refused: doses are reckoned with it."""
    obx, kind = of.segment, measure(of.segment)
    if kind is None or not obx.field(5).strip():
        return None
    try:
        value = Decimal(obx.field(5).strip().replace(",", "."))
    except InvalidOperation:
        raise wrong(obx, 5, "weight and height are numbers", code=102) from None
    unit = obx.field(6).strip()
    if not unit:
        raise missing(obx, 6, "the unit of weight or height")
    factor = (_KILOGRAMS if kind == WEIGHT else _METRES).get(unit.casefold())
    if factor is None:
        raise wrong(obx, 6, "weight is in kg, g, lb or oz; height in m, cm, mm, in or ft", code=103)
    low, high = _PLAUSIBLE[kind]
    if not value.is_finite() or not low <= value * factor <= high:
        raise wrong(obx, 5, f"nobody has this weight or height in {unit[:10]}", code=102)
    converted = value if factor == 1 else (value * factor).quantize(Decimal("0.001")).normalize()
    return {"value": Decimal(f"{converted:f}"), "unit": (code := "kg" if kind == WEIGHT else "m"), "system": _UCUM, "code": code}


def _measure_code(of: Clinical) -> dict[str, Any] | None:
    kind = measure(of.segment)
    return coded(terms.LOINC, kind, _KINDS[kind][1]) if kind else None


OBX = table(
    "OBX -> Observation (weight and height)",
    "Observation",
    Row("OBX-3", "code", _measure_code, "29463-7 weight, 8302-2 height: by a LOINC code of them, or the name; others: not here"),
    Row("OBX-3, OBX-5, OBX-6", "valueQuantity", _quantity,
        "kg or m, converted from g, lb, oz, cm, mm, in, ft. No unit, another one, or an impossible value is refused", "C"),
    Row("OBX-14", "effectiveDateTime", lambda of: date_time(of.sender, of.segment, 14)),
    Row("EVN-6, MSH-7", "effectiveDateTime", lambda of: of.when, "where OBX-14 is empty"),
    Row("PID-3", "subject", _subject, "the patient of the message"),
    Row("PV1-19", "encounter", _encounter, "the visit of the message"),
    status="final",
    category=[coded(_TERMINOLOGY + "observation-category", "vital-signs")],
)  # fmt: skip


async def measures(unit: UnitOfWork, found: Sequence[Clinical]) -> list[Resource]:
    """Weight and height. One that is known with this value and time is not made again."""
    made: list[Resource] = []
    for of in found:
        if measure(of.segment) is None:
            continue
        said = await OBX.build(of)
        if "valueQuantity" not in said:
            continue
        known = await _observations(unit, of, said["code"]["coding"][0]["code"])
        same = _first_alike(known, said, ("valueQuantity", "effectiveDateTime"))
        if same is None and not of.segment.field(14).strip():  # sent along with every message: the same value is nothing new
            same = _first_alike(known[:1], said, ("valueQuantity",))
        made.append(same or await unit.create(said))
    return made


async def _observations(unit: UnitOfWork, of: Clinical, code: str) -> list[Resource]:
    """The patient's latest Observations of a LOINC code, the newest first."""
    criteria = f"patient=Patient/{of.patient['id']}&code={terms.LOINC}|{code}&_sort=-date"
    return await unit.matching("Observation", criteria, limit=_LATEST)


def _first_alike(known: Iterable[Resource], said: Resource, elements: Sequence[str]) -> Resource | None:
    return next((o for o in known if all(o.get(e) == said.get(e) for e in elements)), None)


# PV1-15: pregnancy


def _pregnant(of: Clinical) -> dict[str, Any] | None:
    codes = {f.get(1).strip().upper() for f in of.segment.repetitions(15)}
    return coded(terms.SNOMED, "77386006", "Pregnant") if PREGNANT in codes else None


PREGNANCY = table(
    "PV1 -> Observation (pregnancy)",
    "Observation",
    Row("PV1-15", "valueCodeableConcept", _pregnant, "B6 alone; that it is not there, says nothing", "C"),
    Row("EVN-6, MSH-7", "effectiveDateTime", lambda of: of.when),
    Row("PID-3", "subject", _subject, "the patient of the message"),
    Row("PV1-19", "encounter", _encounter, "the visit of the message"),
    status="final",
    code=coded(terms.LOINC, "82810-3", "Pregnancy status"),
)  # fmt: skip


async def pregnancy(unit: UnitOfWork, of: Clinical) -> Resource | None:
    """PV1-15 B6, once for each visit."""
    if _pregnant(of) is None:
        return None
    said = await PREGNANCY.build(of)
    known = await _observations(unit, of, "82810-3")
    of_visit = (o for o in known if o.get("encounter", {}).get("reference") == said.get("encounter", {}).get("reference"))
    if (latest := next(of_visit, None)) and latest.get("valueCodeableConcept") == said["valueCodeableConcept"]:
        return latest
    return await unit.create(said)
