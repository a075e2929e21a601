"""AL1, DG1, OBX, PV1-15, IN1, NK1, GT1 of an order message: what is known of the patient, and what of it the order refers to.

The mappings are those of ADT (`clinical_in.py`, `coverage_in.py`) and of results (`observation_in.py`).
"""

from dataclasses import dataclass, field

from bridges.v2.clinical_in import Clinical, allergies, conditions, measure, measures, pregnancy
from bridges.v2.coverage_in import insurances, related_people
from bridges.v2.message import Segment
from bridges.v2.observation_in import OBX, Obx
from bridges.v2.order_groups import Details, Order
from bridges.v2.reception import date_time
from fhir_server.references import ref
from fhir_server.registry import Resource


@dataclass(slots=True)
class Whose:
    """The patient and visit of a message, and what all of its orders refer to; read once a message."""

    patient: Resource
    encounter: Resource | None = None
    insurance: list[Resource] = field(default_factory=list)
    pregnancy: Resource | None = None


async def around(order: Order, patient: Resource, encounter: Resource | None) -> Whose:
    """What the segments around PID say: allergies, insurances, people, pregnancy (PV1-15)."""
    unit, message, sender = order.unit, order.message, order.sender
    await allergies(unit, [_clinical(order, s, patient, encounter) for s in message.all("AL1")])
    await related_people(unit, message, sender, patient)
    pv1 = message.first("PV1")
    pregnant = await pregnancy(unit, _clinical(order, pv1, patient, encounter)) if pv1 else None
    return Whose(patient, encounter, await insurance(order, patient), pregnant)


async def insurance(order: Order, patient: Resource) -> list[Resource]:
    """References to the coverages of the message (IN1), and to what payers have authorized (IN1-14, IN3)."""
    insured = await insurances(order.unit, order.message, order.sender, patient)
    return [ref(r) for one in insured for r in (one.coverage, one.authorization) if r]


def _clinical(order: Order, segment: Segment, patient: Resource, encounter: Resource | None) -> Clinical:
    return Clinical(segment, order.sender, patient, encounter, order.people, date_time(order.sender, order.message.msh, 7))


async def facts(order: Order, whose: Whose) -> Resource:
    """Elements of the ServiceRequest: reasonReference (DG1), supportingInfo (OBX, pregnancy), insurance (IN1)."""
    found: Resource = {}
    details = order.group.details
    diagnoses = [_clinical(order, s, whose.patient, whose.encounter) for d in details for s in d.diagnoses]
    if reasons := [ref(c) for c in await conditions(order.unit, diagnoses)]:
        found["reasonReference"] = reasons
    observed = [ref(o) for d in details for o in await _observations(order, d, whose)]
    if whose.pregnancy:
        observed.append(ref(whose.pregnancy))
    if observed:
        found["supportingInfo"] = observed
    if whose.insurance:
        found["insurance"] = whose.insurance
    return found


async def _observations(order: Order, details: Details, whose: Whose) -> list[Resource]:
    """Weight and height in kg and m; any other OBX, such as a question at order entry, as it is. One without OBX-3 is a note."""
    made = await measures(
        order.unit, [_clinical(order, s, whose.patient, whose.encounter) for s, _ in details.observations if measure(s)]
    )
    when = date_time(order.sender, order.message.msh, 7)
    for obx, notes in details.observations:
        if measure(obx) or not obx.raw(3):
            continue
        for value in range(max(1, len(obx.repetitions(5)))):
            said = await OBX.build(Obx(obx, value, order.sender, order.people, "final", notes))
            said |= {"subject": ref(whose.patient)} | ({"encounter": ref(whose.encounter)} if whose.encounter else {})
            if when:
                said.setdefault("effectiveDateTime", when)
            made.append(await order.unit.create(said))
    return made
