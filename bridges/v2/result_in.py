"""ORU^R01 -> DiagnosticReport: the report of an outside dictation or reading service (IHE RAD-28, RAD-128)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridges.v2 import times
from bridges.v2.codes import RESULT_STATUS_IN
from bridges.v2.datatypes import CWE, EI, XCN
from bridges.v2.mapping import Row, table
from bridges.v2.message import Field, Segment, readable
from bridges.v2.order_lookup import Found, OrderNames, all_of, find_orders, of_patient, refuse_or_park, said
from bridges.v2.parked_messages import RECEIVERS
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply, date_time
from bridges.v2.refused import missing, no_segment, wrong
from bridges.v2.report_content import Content, content_of
from bridges.v2.report_store import Arrival, find_report, store_report
from bridges.v2.result_groups import ResultGroup, is_study_uid, result_groups
from bridges.v2.result_procedures import chosen
from bridges.v2.result_status import Older
from bridges.v2.systems import concept, entity_identifier
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import diagnostic_report, imaging_study, service_request, terms, work_items

_SERVICE_SECTION: Final = "http://terminology.hl7.org/CodeSystem/v2-0074"
INSTANCE: Final = "observation instance"  # what OBR-51 identifies
TRANSCRIBER: Final = "urn:fhir-ris:transcriptionist"
_NO_ORDER: Final = {"Y": "no order on record for this result", "Z": "no record of this patient"}


@dataclass(frozen=True, slots=True)
class Result:
    """An OBR being mapped, with what the whole message has to say of it."""

    reception: Reception
    group: ResultGroup
    people: People

    @property
    def obr(self) -> Segment:
        return self.group.obr

    @property
    def authority(self) -> str:
        return self.reception.sender.authority


async def receive_result(reception: Reception) -> Reply | None:
    """Each report of the message: a new one, or the next state of one that we have. All of the message or nothing."""
    people = People(reception.unit, reception.sender)
    replies = [await _receive(Result(reception, group, people)) for group in result_groups(reception.message)]
    return next((r for r in replies if r), None)


async def _receive(result: Result) -> Reply | None:
    status = _status(result)
    instance = _instance(result)
    known = await find_report(result.reception.unit, instance) if instance else None
    each = [(g, await find_orders(result.reception, _names(g), g.pid)) for g in result.group.groups]
    picked = [await chosen(result.reception.unit, g, _names(g), f) for g, f in each if f]
    found, unnamed = all_of([f for f, _ in picked]), any(u for _, u in picked)
    if found is None and known is not None:
        found = await _of_report(result, known)
        unnamed = True
    unknown = next((g for g, f in each if f is None and (found is None or _names(g).all)), None)
    if not status:
        await _show_unknown(result, found)
    elif unknown is not None and not (found and known):
        return await refuse_or_park(result.reception, _names(unknown), unknown.obr, 3)
    elif found is not None:
        await _report(result, status, found, known, instance, unnamed=unnamed)
    return None


async def _report(
    result: Result, status: str, found: Found, known: Resource | None, instance: Resource | None, *, unnamed: bool
) -> None:
    unit = result.reception.unit
    if known is not None and not _is_of(known, found):
        raise wrong(result.obr, 51, "the report with this identifier is of another order", code=205)
    await unit.lock(*(f"report:{o['id']}" for o in found.orders))
    built = await OBR.build(result)
    content = await content_of(result.group, result.reception.sender, result.people, status)
    if content.is_empty and status not in {"registered", "cancelled"}:
        raise no_segment("OBX", "what the report says (OBX)")
    report = built | await _links(result, found) | {"code": built.get("code") or found.orders[0]["code"]}
    if unnamed and known is not None:
        report["basedOn"] = known["basedOn"]
        unnamed = diagnostic_report.is_unnamed(known)
    if unnamed:
        report["extension"] = [*report.get("extension", ()), diagnostic_report.UNNAMED]
    arrival = Arrival(report, content, _moment(result), instance)
    try:
        stored = await store_report(unit, arrival, known)
    except Older as older:
        raise wrong(result.obr, 25, str(older), code=207) from None
    if stored is None:
        return
    if unnamed:
        text = f"{result.reception.sender.application} reports on an order of several procedures, and doesn't say on which"
        await _open_once(result, stored, "unnamed-procedure", text)
    if content.urgent:
        await _tell(result, stored, content)
    for order in found.orders:
        if order["status"] == "revoked":
            text = f"A result of {result.reception.sender.application} has come for this order, which is revoked"
            patient = found.patient
            await work_items.open_work_item(
                unit, "result-for-revoked-order", text, f"DiagnosticReport/{stored['id']}", f"Patient/{patient['id']}"
            )


def _is_of(report: Resource, found: Found) -> bool:
    requests = {f"ServiceRequest/{r['id']}" for r in (*found.orders, *found.procedures)}
    return report["subject"].get("reference") == f"Patient/{found.patient['id']}" and any(
        r.get("reference") in requests for r in report.get("basedOn", ())
    )


def _status(result: Result) -> str:
    """OBR-25; empty where it says that there is no such order or patient (Y, Z)."""
    if not result.group.status:
        raise missing(result.obr, 25, "the status of the result")
    if result.group.status in _NO_ORDER:
        return ""
    status = RESULT_STATUS_IN.fhir(result.group.status)
    if status is None:
        raise wrong(result.obr, 25, "the status is none of table 0123", code=103)
    return status


def _names(group: ResultGroup) -> OrderNames:
    """Accession OBR-18; filler ORC-3, OBR-3; placer ORC-2, OBR-2; the study OBX 113014, ZDS-1; the procedure OBR-19."""
    uids = [line.obx for line in group.lines if is_study_uid(line.obx)]
    return OrderNames(
        accessions=said((group.obr, 18)),
        fillers=said((group.orc, 3), (group.obr, 3)),
        placers=said((group.orc, 2), (group.obr, 2)),
        studies=said((group.study, 1), *((obx, 5) for obx in uids)),
        procedures=said((group.obr, 19)),
    )


async def _links(result: Result, found: Found) -> Resource:
    """Whose report it is, and of what. A study that we don't know stays as its UID."""
    unit = result.reception.unit
    meant = {p["id"] for p in found.procedures}
    based = []
    for order in found.orders:
        own = await service_request.procedures_of(unit, order["id"])
        part = [p for p in own if p["id"] in meant]
        based += [ref(order)] if len(part) == len(own) else [ref(p) for p in part]
    studies = [ref(s) for s in found.studies]
    known = {imaging_study.study_uid(s) for s in found.studies}
    for place in (p for g in result.group.groups for p in _names(g).studies):
        uid = place.field.get(1).strip()
        if not imaging_study.is_uid(uid):
            raise wrong(place.segment, place.number, "the Study Instance UID is no UID", code=102)
        if uid not in known:
            known.add(uid)
            studies.append({"identifier": {"system": terms.DICOM_UID, "value": f"urn:oid:{uid}"}})
    encounters = [o["encounter"] for o in found.orders if "encounter" in o]
    return {"subject": ref(found.patient), "basedOn": based, "imagingStudy": studies} | (
        {"encounter": encounters[0]} if encounters else {}
    )


async def _of_report(result: Result, known: Resource) -> Found | None:
    """The orders of the report that OBR-51 names, where the message says nothing else of them."""
    reception = result.reception
    orders = []
    for reference in known.get("basedOn", ()):
        order = await service_request.order_of(reception.unit, await reception.unit.get(reference))
        if order is not None and order not in orders:
            orders.append(order)
    return await of_patient(reception, _names(result.group), orders, result.group.pid) if orders else None


async def _show_unknown(result: Result, found: Found | None) -> None:
    """Y, Z: the service found no order, or no patient; a person sees to it."""
    reception = result.reception
    text = f"{reception.sender.application} has answered message {readable(reception.message.control_id, 50)}: "
    about = f"ServiceRequest/{found.orders[0]['id']}" if found else None
    patient = f"Patient/{found.patient['id']}" if found else None
    await work_items.open_work_item(reception.unit, "unknown-order", text + _NO_ORDER[result.group.status], about, patient)


async def _tell(result: Result, report: Resource, content: Content) -> None:
    """A critical result is a person's business at once; the same one again is none."""
    text = f"{result.reception.sender.application} reports a critical result: {'; '.join(content.urgent)}"
    await _open_once(result, report, "critical-result", text)


async def _open_once(result: Result, report: Resource, kind: str, text: str) -> None:
    unit, about = result.reception.unit, f"DiagnosticReport/{report['id']}"
    known = await unit.search("Task", focus=about, code=f"{terms.TASK_CODE}|{kind}")
    if all(t.get("description") != text for t in known):
        await work_items.open_work_item(unit, kind, text, about, report["subject"]["reference"])


RECEIVERS["ORU"] = receive_result


# The table


def _instance(result: Result) -> Resource | None:
    """OBR-51, which names one report for good (v2.8; sent in older versions as well)."""
    if not result.obr.field(51).strip():
        return None
    made = entity_identifier(EI.from_field(result.obr.repetitions(51)[0]), "", result.authority)
    return made | {"type": {"text": INSTANCE}}


def _identifiers(result: Result) -> list[Resource]:
    """OBR-51, and the numbers of ORC and OBR as they came."""
    found = [i for i in (_instance(result),) if i]
    for kind, number in (("PLAC", 2), ("FILL", 3)):
        for segment in (result.group.orc, result.obr):
            if segment is not None and segment.field(number).strip():
                found.append(entity_identifier(EI.from_field(segment.repetitions(number)[0]), kind, result.authority))
                break
    return found


def _code(result: Result) -> Resource | None:
    return concept(CWE.from_field(result.obr.repetitions(4)[0]), result.authority) if result.obr.raw(4) else None


def _examined(result: Result, *, period: bool) -> Any:
    """OBR-7, or from OBR-7 to OBR-8."""
    start, end = (date_time(result.reception.sender, result.obr, n) for n in (7, 8))
    if period:
        return {"start": start, "end": end} if start and end and start != end else None
    return start if not end or start == end else None


def _moment(result: Result) -> datetime | None:
    """OBR-22, where it has a time of day: what tells a newer result from an older one."""
    text = result.obr.field(22).strip()
    if date_time(result.reception.sender, result.obr, 22) is None or not times.parse_ts(text).has_time:
        return None
    return times.to_aware(text, result.reception.sender.zone)


def _issued(result: Result) -> str | None:
    """OBR-22, else MSH-7; a date alone is no instant."""
    zone = result.reception.sender.zone
    for segment, number in ((result.obr, 22), (result.reception.message.msh, 7)):
        text = segment.field(number).strip()
        try:
            if text and times.parse_ts(text).has_time:
                return times.to_instant(text, zone)
        except ValueError as error:
            if segment is result.obr:
                raise wrong(segment, number, str(error), code=102) from None
    return None


def _category(result: Result) -> list[Resource]:
    """Radiology, and the section of OBR-24 beside it."""
    section = " ".join(result.obr.field(24).split()).upper()
    return [coded(_SERVICE_SECTION, code) for code in dict.fromkeys(("RAD", section)) if code]


async def _person(result: Result, field: Field) -> Resource | None:
    """An NDL (its first component is a person), or what many send instead, an XCN."""
    is_ndl = field.get(1, 2) or not field.get(2)
    return await result.people.reference(XCN.from_component(field) if is_ndl else XCN.from_field(field))


async def _people(result: Result, *numbers: int) -> list[Resource]:
    found = [await _person(result, f) for n in numbers for f in result.obr.repetitions(n)]
    return [who for i, who in enumerate(found) if who and who not in found[:i]]


async def _readers(result: Result) -> list[Resource]:
    """OBR-32 and OBR-33; where both are empty, who is named with the text (OBX-16)."""
    if found := await _people(result, 32, 33):
        return found
    named = [await result.people.reference(XCN.from_field(f)) for line in result.group.lines for f in line.obx.repetitions(16)]
    return [who for i, who in enumerate(named) if who and who not in named[:i]]


async def _transcribers(result: Result) -> list[Resource]:
    return [{"url": TRANSCRIBER, "valueReference": who} for who in await _people(result, 35)]


OBR = table(
    "OBR -> DiagnosticReport",
    "DiagnosticReport",
    Row("OBR-25", "status", _status,
        "F is amended where the report was final; C is appended where only an addendum is new; Y and Z open a work item", "R"),
    Row("OBR-51, ORC-2, OBR-2, ORC-3, OBR-3", "identifier", _identifiers, "the numbers of ORC before those of OBR"),
    Row("OBR-4", "code", _code, "the order's where it is empty"),
    Row("OBR-24", "category", _category, "always RAD as well"),
    Row("OBR-7, OBR-8", "effectivePeriod", lambda of: _examined(of, period=True)),
    Row("OBR-7, OBR-8", "effectiveDateTime", lambda of: _examined(of, period=False)),
    Row("OBR-22, MSH-7", "issued", _issued, "a result with an older OBR-22 than the report's is refused"),
    Row("OBR-32, OBR-33, OBX-16", "resultsInterpreter", _readers, "OBX-16 where the first two are empty"),
    Row("OBR-34", "performer", lambda of: _people(of, 34)),
    Row("OBR-35", "extension", _transcribers),
)  # fmt: skip
