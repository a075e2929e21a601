"""ORC/OBR (ORM^O01) -> the imaging order (ServiceRequest) and what the placer has assigned for it (IHE RAD-2)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridges.v2.ack import AckError
from bridges.v2.datatypes import CWE, EI, XCN
from bridges.v2.message import Message, Segment
from bridges.v2.patient_in import Sender, date_time, map_patient, named, practitioner, visit
from bridges.v2.refused import Refused, missing, required
from bridges.v2.systems import concept, entity_identifier
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import patient as patients
from resources import service_request, task, terms

# TQ-6 and table 0485 -> request-priority.
_PRIORITY = {"S": "stat", "A": "asap", "R": "routine", "P": "urgent", "C": "urgent", "T": "urgent"}
# Modalities (DICOM CID 33, those that are ordered); other section codes of OBR-24, such as RAD, name no modality.
MODALITIES = frozenset("BMD CR CT DX ECG EPS ES GM IO IVUS MG MR NM OCT OP OPT PT PX RF RG US XA XC".split())


@dataclass(slots=True)
class OrderGroup:
    """An ORC with the OBR and the notes that follow it."""

    number: int
    orc: Segment
    obr: Segment | None = None
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)


def order_groups(message: Message) -> list[OrderGroup]:
    """The order groups, segments in their order, whatever the grammar says."""
    groups: list[OrderGroup] = []
    for segment in message.segments:
        if segment.name == "ORC":
            groups.append(OrderGroup(len(groups) + 1, segment))
        elif groups and segment.name == "OBR" and groups[-1].obr is None:
            groups[-1].obr = segment
        elif groups and segment.name == "NTE":
            groups[-1].notes.append(segment)
        elif groups and segment.name == "DG1":
            groups[-1].diagnoses.append(segment)
    if not groups:
        raise missing("ORC", None, "the order (ORC)")
    return groups


async def receive_order(unit: UnitOfWork, message: Message, sender: Sender) -> None:
    """Do what each order group asks. All of the message or nothing."""
    pid = message.first("PID")
    for group in order_groups(message):
        control = required(group.orc, 1, "the order control code", group.number)
        act = _ACTS.get(control)
        if act is None:
            raise Refused(AckError("ORC", group.number, 1, code=103, text=f"order control {control} is not supported"))
        await act(unit, message, group, sender, pid)


# NW


async def _new(unit: UnitOfWork, message: Message, group: OrderGroup, sender: Sender, pid: Segment | None) -> None:
    placer = placer_number(group)
    if group.obr is None:
        raise missing("OBR", None, "the procedure ordered (OBR)", group.number)
    code = concept(CWE.from_field(group.obr.repetitions(4)[0]), sender.authority) if group.obr.raw(4) else None
    if code is None or "coding" not in code:
        raise missing("OBR", 4, "the procedure ordered", group.number)
    patient = await named(unit, pid, sender)
    encounter = await visit(unit, message.first("PV1"), patient, sender)
    order: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": _identifiers(group, placer, sender),
        "status": "active",
        "intent": "order",
        "category": [coded(terms.SNOMED, terms.IMAGING, "Imaging")],
        "code": code,
        "subject": ref(patient),
    }
    if group.orc.raw(4):
        order["requisition"] = entity_identifier(EI.from_field(group.orc.repetitions(4)[0]), "PGN", sender.authority)
    if encounter is not None:
        order["encounter"] = ref(encounter)
    order |= await _details(unit, message, group, sender)
    stored = await unit.create(order)
    await service_request.plan(unit, stored, _assigned(message, group))


def placer_number(group: OrderGroup) -> EI:
    """ORC-2, else OBR-2. Refused without either."""
    for segment in (group.orc, group.obr):
        if segment is not None and segment.field(2).strip():
            return EI.from_field(segment.repetitions(2)[0])
    raise missing("ORC", 2, "the placer order number", group.number)


def _identifiers(group: OrderGroup, placer: EI, sender: Sender) -> list[Resource]:
    found = [entity_identifier(placer, "PLAC", sender.authority)]
    obr = group.obr
    assert obr is not None
    for segment in (group.orc, obr):
        if segment.field(3).strip():
            found.append(entity_identifier(EI.from_field(segment.repetitions(3)[0]), "FILL", sender.authority))
            break
    if obr.field(18).strip():
        accession = {"type": coded(terms.V2_0203, "ACSN"), "system": terms.ACCESSION_NUMBER, "value": obr.field(18).strip()}
        found.append(accession)
    return found


def _assigned(message: Message, group: OrderGroup) -> service_request.Assigned:
    """Requested procedure id, step id and Study Instance UID where the placer has given them (OBR-19, OBR-20, ZDS-1)."""
    assert group.obr is not None
    studies = message.all("ZDS")
    study = studies[group.number - 1].field(1).strip() if len(studies) >= group.number else ""
    if len(studies) == 1 and group.number == 1:
        study = studies[0].field(1).strip()
    return service_request.Assigned(group.obr.field(19).strip(), study, group.obr.field(20).strip())


async def _details(unit: UnitOfWork, message: Message, group: OrderGroup, sender: Sender) -> Resource:
    """What is known of the order beyond its numbers: who, when, how urgent, why."""
    orc, obr = group.orc, group.obr
    assert obr is not None
    details: Resource = {}
    if orc.field(9):
        details["authoredOn"] = date_time(sender, orc, 9, orc.field(9))
    if priority := _priority(message, group):
        details["priority"] = priority
    timing = _first_timing(message, group)
    if timing is not None:
        details["occurrenceDateTime"] = date_time(sender, timing[0], timing[1], timing[2])
    for segment, number in ((orc, 12), (obr, 16)):
        if segment.raw(number):
            who = await practitioner(unit, XCN.from_field(segment.repetitions(number)[0]), sender)
            if who:
                details["requester"] = who
                break
    reasons = [c for f in obr.repetitions(31) if (c := concept(CWE.from_field(f), sender.authority))]
    reasons += [c for d in group.diagnoses if d.raw(3) and (c := concept(CWE.from_field(d.repetitions(3)[0]), sender.authority))]
    if reasons:
        details["reasonCode"] = [r for i, r in enumerate(reasons) if r not in reasons[:i]]
    notes = [obr.text(13)] if obr.field(13) else []
    notes += ["\n".join(f.text for f in n.repetitions(3)) for n in group.notes]
    if any(notes):
        details["note"] = [{"text": n} for n in notes if n.strip()]
    modality = obr.field(24).strip().upper()
    if modality in MODALITIES:
        details["orderDetail"] = [coded(terms.DCM, modality)]
    return details


def _priority(message: Message, group: OrderGroup) -> str | None:
    """ORC-7.6, else OBR-27.6, else TQ1-9, else OBR-5. Unknown codes are refused: a wrong urgency harms."""
    assert group.obr is not None
    timings = message.all("TQ1")
    timing = timings[group.number - 1] if len(timings) >= group.number else None
    for segment, number, component in ((group.orc, 7, 6), (group.obr, 27, 6), (timing, 9, 1), (group.obr, 5, 1)):
        code = segment.get(number, component).strip().upper() if segment is not None else ""
        if code:
            if code not in _PRIORITY:
                raise Refused(
                    AckError(
                        segment.name if segment else "",
                        group.number,
                        number,
                        component,
                        code=103,
                        text=f"unknown priority {code}",
                    )
                )
            return _PRIORITY[code]
    return None


def _first_timing(message: Message, group: OrderGroup) -> tuple[Segment, int, str] | None:
    """When it is wanted: TQ1-7, else ORC-7.4, OBR-27.4, OBR-36, OBR-6."""
    assert group.obr is not None
    timings = message.all("TQ1")
    places: list[tuple[Segment, int, int]] = []
    if len(timings) >= group.number:
        places.append((timings[group.number - 1], 7, 1))
    places += [(group.orc, 7, 4), (group.obr, 27, 4), (group.obr, 36, 1), (group.obr, 6, 1)]
    for segment, number, component in places:
        if text := segment.get(number, component).strip():
            return segment, number, text
    return None


# CA, DC, HD, RL: the order exists


async def _existing(unit: UnitOfWork, group: OrderGroup, sender: Sender, pid: Segment | None) -> Resource:
    """The order of this placer number, for this patient."""
    placer = entity_identifier(placer_number(group), "PLAC", sender.authority)
    found = await unit.search("ServiceRequest", identifier=f"{placer['system']}|{placer['value']}", intent="order")
    order = next((o for o in found if o["status"] != "entered-in-error"), None)
    if order is None:
        raise Refused(AckError("ORC", group.number, 2, code=204, text="no order has this placer order number"))
    if pid is None:
        raise missing("PID", None, "the patient (PID)")
    patient = await unit.get(order["subject"])
    said = [f for f in pid.repetitions(3) if f.get(1).strip()]
    if not said:
        raise missing("PID", 3, "the patient identifier")
    if patient is None or not _names(patient, pid, sender):
        raise Refused(AckError("PID", 1, 3, code=205, text="the order with this placer order number is for a different patient"))
    return order


def _names(patient: Resource, pid: Segment, sender: Sender) -> bool:
    said = map_patient(pid, sender)["identifier"]
    return any(patients.same_identifier(a, b) for a in said for b in patient.get("identifier", ()))


def _becomes(status: str, *, only_from: tuple[str, ...]) -> "Act":
    async def act(unit: UnitOfWork, _message: Message, group: OrderGroup, sender: Sender, pid: Segment | None) -> None:
        order = await _existing(unit, group, sender, pid)
        if order["status"] == status:
            return
        if order["status"] not in only_from:
            text = f"the order is {order['status']} and can't become {status}"
            raise Refused(AckError("ORC", group.number, 1, code=207, text=text))
        await unit.update(order | {"status": status})

    return act


Act = Callable[[UnitOfWork, Message, OrderGroup, Sender, Segment | None], Awaitable[None]]
# Order control codes (table 0119) that are understood.
_ACTS: dict[str, Act] = {
    "NW": _new,
    "CA": _becomes("revoked", only_from=("draft", "active", "on-hold")),
    "HD": _becomes("on-hold", only_from=("draft", "active")),
    "RL": _becomes("active", only_from=("on-hold",)),
}


async def show_mismatch(unit: UnitOfWork, message: Message, sender: Sender) -> None:
    """A work item for an order that was refused because its placer number is another patient's."""
    group = order_groups(message)[0]
    placer = entity_identifier(placer_number(group), "PLAC", sender.authority)
    found = await unit.search("ServiceRequest", identifier=f"{placer['system']}|{placer['value']}", intent="order")
    about = found[0] if found else None
    text = (
        f"Refused: message {message.control_id} of {sender.application} uses the placer order number of this order "
        "for a different patient"
    )
    await task.open_work_item(
        unit,
        "patient-mismatch",
        text,
        about=f"ServiceRequest/{about['id']}" if about else None,
        patient=about["subject"]["reference"] if about else None,
    )
