"""ORC, OBR, TQ1, NTE -> ServiceRequest, the order (HL7 v2-to-FHIR guide, ORC and OBR; IHE RAD-2)."""

from collections.abc import Awaitable
from typing import Any, Final

from bridges.v2.codes import ORDER_CONFIDENTIALITY, ORDER_STATUS, PRIORITY, SECTION
from bridges.v2.datatypes import CWE, CX, EI, XCN
from bridges.v2.local_codes import translated
from bridges.v2.mapping import Row, table
from bridges.v2.message import Segment
from bridges.v2.order_groups import Order
from bridges.v2.pid_in import telecoms
from bridges.v2.reception import Sender, date_time
from bridges.v2.refused import missing, wrong
from bridges.v2.systems import concept, entity_identifier, identifier
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import order_numbers, terms

# Modalities (DICOM CID 33, those that are ordered).
MODALITIES: Final = frozenset("BMD CR CT DX ECG EPS ES GM IO IVUS MG MR NM OCT OP OPT PT PX RF RG US XA XC".split())
V2: Final = "http://terminology.hl7.org/CodeSystem/v2-"


# Numbers


def placer_segment(order: Order) -> Segment:
    """Where the placer order number is: in ORC-2, else OBR-2. Refused without either."""
    for segment in order.numbered:
        if segment.field(2).strip():
            return segment
    raise missing(order.orc, 2, "the placer order number")


def placer_number(order: Order) -> Resource:
    segment = placer_segment(order)
    return _fitting(segment, 2, entity_identifier(EI.from_field(segment.repetitions(2)[0]), "PLAC", order.sender.authority))


def _fitting(segment: Segment, field: int, number: Resource) -> Resource:
    """An order number that scanners have room for."""
    if len(number["value"]) > terms.LONG_STRING:
        raise wrong(segment, field, f"order numbers have at most {terms.LONG_STRING} characters", code=102)
    return number


def has_placer(order: Order) -> bool:
    return any(segment.field(2).strip() for segment in order.numbered)


def filler_ei(order: Order) -> tuple[Segment, EI] | None:
    """The filler order number, and where it stands: ORC-3, else OBR-3."""
    for segment in order.numbered:
        if segment.field(3).strip():
            return segment, EI.from_field(segment.repetitions(3)[0])
    return None


def _filler_number(order: Order) -> Resource | None:
    found = filler_ei(order)
    return _fitting(found[0], 3, entity_identifier(found[1], "FILL", order.sender.authority)) if found else None


def entity(segment: Segment, field: int, code: str, sender: Sender) -> Resource | None:
    """The Identifier of an EI; None when it is empty."""
    if not segment.field(field).strip():
        return None
    return entity_identifier(EI.from_field(segment.repetitions(field)[0]), code, sender.authority)


def short(segment: Segment, field: int) -> str:
    """An id that scanners get as DICOM SH (PS3.5 6.2)."""
    text = segment.field(field).strip()
    if len(text) > terms.SHORT_STRING or "\\" in text or not text.isprintable():
        raise wrong(segment, field, f"at most {terms.SHORT_STRING} characters, and no backslash, fit on the worklist", code=102)
    return text


def accession_identifier(number: str) -> Resource:
    return {"type": coded(terms.V2_0203, "ACSN"), "system": terms.ACCESSION_NUMBER, "value": number}


def accession(obr: Segment | None, steps: list[Segment]) -> str:
    """OBR-18, else the first IPC-1."""
    places = [(obr, 18)] if obr else []
    return next((found for segment, field in [*places, *((s, 1) for s in steps)] if (found := short(segment, field))), "")


def _accession_number(order: Order) -> Resource | None:
    found = accession(next(iter(order.obrs), None), order.group.details[0].steps)
    return accession_identifier(found) if found else None


def _alternates(order: Order) -> list[Resource]:
    places = [(order.orc, 33), (order.orc, 38), *((obr, 53) for obr in order.obrs[:1])]
    found = [f for segment, field in places for f in segment.repetitions(field) if f.get(1).strip()]
    return [identifier(CX.from_field(f), order.sender.authority) for f in found]


async def parent(order: Order) -> list[Resource]:
    """ORC-8 (EIP): the parent order by its placer number, else by its filler number; one that we don't have is kept by number."""
    if not order.orc.raw(8).strip():
        return []
    eip = order.orc.repetitions(8)[0]
    for component, code in ((1, "PLAC"), (2, "FILL")):
        part = eip.component(component)
        if not part.get(1).strip():
            continue
        number = entity_identifier(EI.from_field(part), code, order.sender.authority)
        found = await order_numbers.by_placer_number(order.unit, number) if code == "PLAC" else None
        if code == "FILL":
            found = await order_numbers.by_filler_number(order.unit, number, own=True)
        return [ref(found) if found else {"type": "ServiceRequest", "identifier": number}]
    return []


# Urgency and time


def priority(order: Order) -> str | None:
    """The most urgent of what is said in the first of its places. Unknown codes are refused: a wrong urgency harms."""
    for field, component, segments in (
        (9, 1, order.timings), (7, 6, [order.orc]), (27, 6, order.obrs), (5, 1, order.obrs),
    ):  # fmt: skip
        said = [_urgency(s, field, component, code) for s in segments for f in s.repetitions(field) if (code := f.get(component))]
        if found := [p for p in said if p]:
            return min(found, key=terms.PRIORITIES.index)
    return None


def _urgency(segment: Segment, field: int, component: int, code: str) -> str | None:
    plain = code.strip().upper()
    if not plain:
        return None
    if (found := PRIORITY.fhir(plain)) is None:
        raise wrong(segment, field, "unknown priority", code=103, component=component if component > 1 else None)
    return found


def _starts(order: Order) -> list[str]:
    """When it is wanted: the times of the first of the places that has any, each once."""
    for field, component, segments in (
        (7, 1, order.timings), (7, 4, [order.orc]), (27, 4, order.obrs), (36, 1, order.obrs), (6, 1, order.obrs),
    ):  # fmt: skip
        if found := [when for s in segments for when in _times(order.sender, s, field, component)]:
            return list(dict.fromkeys(found))
    return []


def _times(sender: Sender, segment: Segment, field: int, component: int) -> list[str]:
    """The times in all repetitions of a field."""
    number = len(segment.repetitions(field))
    return [when for n in range(number) if (when := date_time(sender, segment, field, component, n))]


def _end(order: Order) -> str | None:
    found = [when for t in order.timings if (when := date_time(order.sender, t, 8))]
    return found[0] if found and len(_starts(order)) == 1 else None


def _at(order: Order) -> str | None:
    starts = _starts(order)
    return starts[0] if len(starts) == 1 and not _end(order) else None


def _within(order: Order) -> Resource | None:
    end = _end(order)
    return {"start": _starts(order)[0], "end": end} if end else None


def _repeatedly(order: Order) -> list[str]:
    starts = _starts(order)
    return starts if len(starts) > 1 else []


# What, why, by whom


async def ordered_code(order: Order, obr: Segment, field: int = 4) -> Resource | None:
    """A procedure code, translated to ours where the partner has a map; without 4.4-6 where those are its protocol code."""
    if not obr.raw(field):
        return None
    element = CWE.from_field(obr.repetitions(field)[0])
    if field == 4 and order.sender.partner.protocol_field:
        element = CWE(element.code, element.text, element.system)
    found = concept(element, order.sender.authority)
    return await translated(order.unit, order.sender.partner, found) if found else None


def modality(code: str) -> str:
    """The DICOM modality of a modality or section code; empty for one that names none (RAD)."""
    plain = code.strip().upper()
    return plain if plain in MODALITIES else SECTION.fhir(plain) or ""


def modality_detail(obr: Segment, sender: Sender) -> list[Resource]:
    """The modality; a section that names none is kept as the sender's code, but for RAD, which says nothing."""
    code = obr.field(24).strip()
    if found := modality(code):
        return [coded(terms.DCM, found)]
    kept = concept(CWE(code), sender.authority) if code.upper() not in {"", "RAD", '""'} else None
    return [kept] if kept else []


def concepts(segment: Segment, field: int, sender: Sender) -> list[Resource]:
    """All repetitions of a coded field."""
    return [c for f in segment.repetitions(field) if (c := concept(CWE.from_field(f), sender.authority))]


def _details(order: Order) -> list[Resource]:
    return [c for obr in order.obrs[:1] for field in (46, 47) for c in concepts(obr, field, order.sender)]


def _action(order: Order) -> list[Resource]:
    code = order.obrs[0].field(11).strip().upper() if order.obrs else ""
    return [coded(f"{V2}0065", code)] if code else []


async def _requester(order: Order) -> Resource | None:
    for segment, field in ((order.orc, 12), *((obr, 16) for obr in order.obrs[:1])):
        for person in segment.repetitions(field):
            if who := await order.people.reference(XCN.from_field(person)):
                return who
    return None


def _reasons(order: Order) -> list[Resource]:
    found = [c for obr in order.obrs for c in concepts(obr, 31, order.sender)]
    for dg1 in (dg1 for d in order.group.details for dg1 in d.diagnoses):
        found += concepts(dg1, 3, order.sender) or ([{"text": text}] if (text := dg1.text(4)) else [])
    return [r for i, r in enumerate(found) if r not in found[:i]]


# Notes


def _note(*texts: str) -> list[Resource]:
    return [{"text": text} for text in texts if text.strip()]


def _danger(order: Order) -> list[Resource]:
    found = [c for obr in order.obrs for f in obr.repetitions(12)[:1] if (c := concept(CWE.from_field(f), ""))]
    return _note(*(f"Danger: {c.get('text') or c['coding'][0]['code']}" for c in found))


def _clinical(order: Order) -> list[Resource]:
    return _note(*(f.text for obr in order.obrs for f in obr.repetitions(13)))


def _comments(order: Order) -> list[Resource]:
    notes = [nte for d in order.group.details for nte in d.notes]
    nameless = [obx for d in order.group.details for obx, _ in d.observations if not obx.raw(3)]
    places = [(nte, 3) for nte in notes] + [(obx, 5) for obx in nameless]
    return _note(*("\n".join(line.text for line in segment.repetitions(field)) for segment, field in places))


def _timing_text(order: Order) -> list[Resource]:
    return _note(*(t.text(field) for t in order.timings for field in (10, 11)))


# Extensions and labels


def _extension(url: str, kind: str, value: Any) -> list[Resource]:
    return [{"url": url, f"value{kind}": value}] if value else []


def first_concept(segment: Segment, field: int, sender: Sender) -> Resource | None:
    return next(iter(concepts(segment, field, sender)), None)


def _coded_extension(order: Order, field: int, url: str) -> list[Resource]:
    return _extension(url, "CodeableConcept", first_concept(order.orc, field, order.sender))


def _callback(order: Order) -> list[Resource]:
    found = telecoms(order.orc, 14) or [t for obr in order.obrs[:1] for t in telecoms(obr, 17)]
    return [e for t in found for e in _extension(terms.CALLBACK, "ContactPoint", t)]


def _transport(order: Order) -> list[Resource]:
    code = order.obrs[0].field(30).strip().upper() if order.obrs else ""
    return _extension(terms.TRANSPORT, "CodeableConcept", coded(f"{V2}0124", code) if code else None)


def _labels(order: Order) -> list[Resource]:
    code = order.orc.field(28).strip().upper()
    if not code:
        return []
    known = ORDER_CONFIDENTIALITY.fhir(code)
    label = {"system": ORDER_CONFIDENTIALITY.target, "code": known or "R"}
    return [label] if known else [label, {"system": ORDER_CONFIDENTIALITY.source, "code": code}]


def _setting(order: Order) -> list[Resource]:
    code = order.orc.field(29).strip().upper()
    return [coded(f"{V2}0482", code)] if code else []


def status(order: Order) -> str:
    """active, or on hold where ORC-5 says so. Refused for an order that is over before it begins."""
    code = order.orc.field(5).strip().upper()
    found = ORDER_STATUS.fhir(code) if code else "active"
    if found is None:
        raise wrong(order.orc, 5, "the order status is none of table 0038", code=103)
    if found not in {"active", "on-hold"}:
        raise wrong(order.orc, 5, f"a new order can't have the status {code}", code=103)
    return found


def _wrapped(read: Any) -> Any:
    """A list of what is read, for elements that repeat."""
    return lambda of: [found] if (found := read(of)) else []


def _code(of: Order) -> Awaitable[Resource | None] | None:
    return ordered_code(of, of.obrs[0]) if of.obrs else None


ORDER = table(
    "ORC, OBR, TQ1, NTE, DG1 -> ServiceRequest, the order",
    "ServiceRequest",
    Row("ORC-2, OBR-2", "identifier", _wrapped(placer_number),
        "type PLAC; at most 64 characters; kept byte for byte and sent back so", "R"),
    Row("ORC-3, OBR-3", "identifier", _wrapped(_filler_number), "type FILL; assigned (`F` and nine digits) where absent"),
    Row("OBR-18, IPC-1", "identifier", _wrapped(_accession_number),
        "type ACSN; at most 16 characters; assigned (`A` and nine digits) where absent"),
    Row("ORC-33, ORC-38, OBR-53", "identifier", _alternates, "further numbers, all of them"),
    Row("ORC-4", "requisition", lambda of: entity(of.orc, 4, "PGN", of.sender)),
    Row("ORC-5", "status", status, "of a new order: active, or on-hold for HD; CA, CM, DC, ER and RP are refused"),
    Row("ORC-8", "basedOn", parent, "by its placer, else its filler number; one that isn't here is kept as a number"),
    Row("OBR-4", "code", _code,
        "both triplets; translated by `accept-concept-map`, ours first; of several OBR the first", "R"),
    Row("TQ1-9, ORC-7.6, OBR-27.6, OBR-5", "priority", priority,
        "of several the most urgent; a code that isn't known is refused"),
    Row("TQ1-7, TQ1-8, ORC-7.4, OBR-27.4, OBR-36, OBR-6", "occurrenceDateTime", _at, "when it is wanted; not a booking"),
    Row("TQ1-7, TQ1-8", "occurrencePeriod", _within, "with an end (TQ1-8)"),
    Row("TQ1-7, ORC-7.4, OBR-27.4, OBR-36, OBR-6", "occurrenceTiming.event", _repeatedly,
        "of several TQ1, repetitions or OBR that say different times"),
    Row("ORC-9", "authoredOn", lambda of: date_time(of.sender, of.orc, 9), "of a new order"),
    Row("ORC-12, OBR-16", "requester", _requester),
    Row("OBR-31, DG1-3, DG1-4", "reasonCode", _reasons, "all of both, each once; DG1-4 where DG1-3 is empty"),
    Row("OBR-24", "orderDetail", lambda of: [d for obr in of.obrs[:1] for d in modality_detail(obr, of.sender)],
        "the modality; a section that names none is kept as the sender's own code, RAD is not"),
    Row("OBR-46, OBR-47", "orderDetail", _details),
    Row("OBR-11", "orderDetail", _action, "table 0065"),
    Row("OBR-12", "note", _danger, "as `Danger: ...`"),
    Row("OBR-13", "note", _clinical),
    Row("NTE-3, OBX-3, OBX-5", "note", _comments,
        "a note for each NTE behind ORC or OBR, and for each OBX without OBX-3; repetitions are lines"),
    Row("TQ1-10, TQ1-11", "note", _timing_text),
    Row("ORC-14, OBR-17", "extension", _callback, "`urn:fhir-ris:order-callback`"),
    Row("ORC-16", "extension", lambda of: _coded_extension(of, 16, terms.STATUS_REASON),
        "request-statusReason"),
    Row("ORC-25", "extension", lambda of: _coded_extension(of, 25, terms.STATUS_MODIFIER),
        "`urn:fhir-ris:order-status-modifier`"),
    Row("OBR-30", "extension", _transport, "`urn:fhir-ris:transport`, table 0124"),
    Row("ORC-28", "meta.security", _labels, "V, R and U (as N); any other is restricted (R), its own code kept beside"),
    Row("ORC-29", "locationCode", _setting, "table 0482"),
    intent="order",
    category=[coded(terms.SNOMED, terms.IMAGING, "Imaging")],
)  # fmt: skip
