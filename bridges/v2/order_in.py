"""ORC/OBR (ORM^O01) -> the imaging order (ServiceRequest) and what the placer has assigned for it (IHE RAD-2)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridges.v2.codes import PRIORITY
from bridges.v2.datatypes import CWE, EI, XCN
from bridges.v2.message import Message, Segment, readable
from bridges.v2.patient_in import named, patient_identifiers
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply, Sender, date_time
from bridges.v2.refused import Refused, missing, no_segment, required, wrong
from bridges.v2.systems import concept, entity_identifier
from bridges.v2.visit_in import visit
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers, imaging_study, service_request, task, terms

# Modalities (DICOM CID 33, those that are ordered); other section codes of OBR-24, such as RAD, name no modality.
MODALITIES = frozenset("BMD CR CT DX ECG EPS ES GM IO IVUS MG MR NM OCT OP OPT PT PX RF RG US XA XC".split())


@dataclass(slots=True)
class OrderGroup:
    """An ORC with what follows it up to the next: OBR, TQ1, ZDS, notes and diagnoses."""

    orc: Segment
    obr: Segment | None = None
    timing: Segment | None = None
    study: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)

    def add(self, segment: Segment) -> None:
        if segment.name == "OBR" and self.obr is None:
            self.obr = segment
        elif segment.name == "TQ1" and self.timing is None:
            self.timing = segment
        elif segment.name == "ZDS" and self.study is None:
            self.study = segment
        elif segment.name == "NTE":
            self.notes.append(segment)
        elif segment.name == "DG1":
            self.diagnoses.append(segment)


@dataclass(frozen=True, slots=True)
class Order:
    """What is being done: one order group of a message, and the transaction for it."""

    unit: UnitOfWork
    sender: Sender
    message: Message
    people: People
    group: OrderGroup

    @property
    def orc(self) -> Segment:
        return self.group.orc

    @property
    def obr(self) -> Segment:
        """Refused when there is none: what is ordered?"""
        if self.group.obr is None:
            raise no_segment("OBR", "the procedure ordered (OBR)", self.orc.number)
        return self.group.obr


def order_groups(message: Message) -> list[OrderGroup]:
    """The order groups: segments in their order, grouped by the last ORC, whatever the grammar says."""
    groups: list[OrderGroup] = []
    for segment in message.segments:
        if segment.name == "ORC":
            groups.append(OrderGroup(segment))
        elif groups:
            groups[-1].add(segment)
    if not groups:
        raise no_segment("ORC", "the order (ORC)")
    return groups


async def receive_order(reception: Reception) -> Reply | None:
    """Do what each order group asks. All of the message or nothing."""
    people = People(reception.unit, reception.sender)
    for group in order_groups(reception.message):
        control = required(group.orc, 1, "the order control code").upper()
        act = _ACTS.get(control)
        if act is None:
            raise wrong(group.orc, 1, f"order control {control[:10]} is not supported", code=103)
        await act(Order(reception.unit, reception.sender, reception.message, people, group))
    return None


# NW: a new order


async def _new(order: Order) -> None:
    placer = _placer(order)
    code = concept(CWE.from_field(order.obr.repetitions(4)[0]), order.sender.authority) if order.obr.raw(4) else None
    if code is None or "coding" not in code:
        raise missing(order.obr, 4, "the procedure ordered")
    patient = await named(order.unit, order.message.first("PID"), order.sender)
    encounter = await visit(order.unit, order.message.first("PV1"), patient, order.sender, order.people)
    request: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": [placer, *_numbers(order)],
        "requisition": _identifier(order, order.orc, 4, "PGN"),
        "status": "active",
        "intent": "order",
        "priority": _priority(order),
        "category": [coded(terms.SNOMED, terms.IMAGING, "Imaging")],
        "code": code,
        "orderDetail": _modality(order),
        "subject": ref(patient),
        "encounter": ref(encounter) if encounter else None,
        "occurrenceDateTime": _wanted_at(order),
        "authoredOn": date_time(order.sender, order.orc, 9),
        "requester": await _requester(order),
        "reasonCode": _reasons(order),
        "note": _notes(order),
    }
    assigned = _assigned(order)
    try:
        stored = await order.unit.create({k: v for k, v in request.items() if v})
    except service_request.PlacerNumberTaken as taken:
        refusal = wrong(_placer_segment(order), 2, str(taken), code=205)
        raise Refused(*refusal.errors, mixed_up=None if taken.same_patient else taken.order) from None
    await service_request.plan(order.unit, stored, assigned)


def _placer_segment(order: Order) -> Segment:
    """Where the placer order number is: in ORC-2, else OBR-2. Refused without either."""
    for segment in (order.orc, order.group.obr):
        if segment is not None and segment.field(2).strip():
            return segment
    raise missing(order.orc, 2, "the placer order number")


def _placer(order: Order) -> Resource:
    return entity_identifier(EI.from_field(_placer_segment(order).repetitions(2)[0]), "PLAC", order.sender.authority)


def _identifier(order: Order, segment: Segment, number: int, code: str) -> Resource | None:
    if not segment.field(number).strip():
        return None
    return entity_identifier(EI.from_field(segment.repetitions(number)[0]), code, order.sender.authority)


def _numbers(order: Order) -> list[Resource]:
    """Filler order number (ORC-3, else OBR-3) and accession number (OBR-18), where they are assigned already."""
    filler = _identifier(order, order.orc, 3, "FILL") or _identifier(order, order.obr, 3, "FILL")
    accession = _short(order.obr, 18)
    numbers = [filler] if filler else []
    if accession:
        numbers.append({"type": coded(terms.V2_0203, "ACSN"), "system": terms.ACCESSION_NUMBER, "value": accession})
    return numbers


def _assigned(order: Order) -> service_request.Assigned:
    """Requested procedure id, step id and Study Instance UID where the placer has given them (OBR-19, OBR-20, ZDS-1)."""
    zds = order.group.study
    uid = zds.field(1).strip() if zds else ""
    if zds and uid and not imaging_study.is_uid(uid):
        raise wrong(zds, 1, "the Study Instance UID is no UID", code=102)
    return service_request.Assigned(_short(order.obr, 19), uid, _short(order.obr, 20))


def _short(segment: Segment, number: int) -> str:
    """An id that scanners get as DICOM SH (PS3.5 6.2)."""
    text = segment.field(number).strip()
    if len(text) > terms.SHORT_STRING or "\\" in text or not text.isprintable():
        raise wrong(segment, number, f"at most {terms.SHORT_STRING} characters, and no backslash, fit on the worklist", code=102)
    return text


def _priority(order: Order) -> str | None:
    """TQ1-9, else ORC-7.6, OBR-27.6, OBR-5. Unknown codes are refused: a wrong urgency harms."""
    places = ((order.group.timing, 9, 1), (order.orc, 7, 6), (order.obr, 27, 6), (order.obr, 5, 1))
    for segment, number, component in places:
        code = segment.get(number, component).strip().upper() if segment else ""
        if segment and code:
            if (priority := PRIORITY.fhir(code)) is None:
                raise wrong(segment, number, "unknown priority", code=103, component=component if component > 1 else None)
            return priority
    return None


def _wanted_at(order: Order) -> str | None:
    """When it is wanted: TQ1-7, else ORC-7.4, OBR-27.4, OBR-36, OBR-6."""
    places = ((order.group.timing, 7, 1), (order.orc, 7, 4), (order.obr, 27, 4), (order.obr, 36, 1), (order.obr, 6, 1))
    found = (date_time(order.sender, segment, number, component) for segment, number, component in places if segment)
    return next((when for when in found if when), None)


async def _requester(order: Order) -> Resource | None:
    """ORC-12, else OBR-16."""
    for segment, number in ((order.orc, 12), (order.obr, 16)):
        for person in segment.repetitions(number):
            if who := await order.people.reference(XCN.from_field(person)):
                return who
    return None


def _reasons(order: Order) -> list[Resource]:
    """OBR-31 and DG1-3, each once."""
    places = [*order.obr.repetitions(31), *(r for dg1 in order.group.diagnoses for r in dg1.repetitions(3))]
    reasons = [c for place in places if (c := concept(CWE.from_field(place), order.sender.authority))]
    return [r for i, r in enumerate(reasons) if r not in reasons[:i]]


def _notes(order: Order) -> list[Resource]:
    """OBR-12 (danger code), OBR-13 (clinical information) and NTE-3."""
    danger = concept(CWE.from_field(order.obr.repetitions(12)[0]), "") if order.obr.raw(12) else None
    texts = [f"Danger: {danger.get('text') or danger['coding'][0]['code']}"] if danger else []
    texts += [f.text for f in order.obr.repetitions(13)]
    texts += ["\n".join(line.text for line in nte.repetitions(3)) for nte in order.group.notes]
    return [{"text": t} for t in texts if t.strip()]


def _modality(order: Order) -> list[Resource]:
    modality = order.obr.field(24).strip().upper()
    return [coded(terms.DCM, modality)] if modality in MODALITIES else []


# CA, DC, HD, RL: the order exists


async def _existing(order: Order) -> Resource:
    """The order of this placer number, which must be the patient's of PID."""
    found = await service_request.by_placer_number(order.unit, _placer(order))
    if found is None:
        raise wrong(_placer_segment(order), 2, "no order has this placer order number", code=204)
    pid = order.message.first("PID")
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    patient = await order.unit.get(found["subject"])
    if patient is None or not identifiers.carries(patient, patient_identifiers(pid, order.sender)):
        refusal = wrong(pid, 3, "the order with this placer order number is for a different patient", code=205)
        raise Refused(*refusal.errors, mixed_up=found)
    return found


Act = Callable[[Order], Awaitable[None]]


def _becomes(status: str, *, only_from: tuple[str, ...]) -> Act:
    async def act(order: Order) -> None:
        found = await _existing(order)
        if found["status"] == status:
            return
        if found["status"] not in only_from:
            raise wrong(order.orc, 1, f"the order is {found['status']} and can't become {status}", code=207)
        await order.unit.update(found | {"status": status})

    return act


# Order control codes (table 0119) that are understood.
_ACTS: dict[str, Act] = {
    "NW": _new,
    "CA": _becomes("revoked", only_from=("draft", "active", "on-hold")),
    "DC": _becomes("revoked", only_from=("draft", "active", "on-hold")),
    "HD": _becomes("on-hold", only_from=("draft", "active")),
    "RL": _becomes("active", only_from=("on-hold",)),
}


async def show_mix_up(unit: UnitOfWork, message: Message, sender: Sender, order: Resource) -> None:
    """A work item for a message that was refused because its placer order number is that of another patient's order."""
    text = (
        f"Refused: message {readable(message.control_id, 50)} of {sender.application} uses the placer order number of this order "
        "for a different patient"
    )
    about = f"ServiceRequest/{order['id']}"
    await task.open_work_item(unit, "patient-mismatch", text, about=about, patient=order["subject"].get("reference"))
