"""Who is told when appointments, reports and charges change (IHE RAD-48, RAD-28, RAD-128, RAD-35)."""

from typing import Final

from bridges.v2.codes import APPOINTMENT_STATUS
from bridges.v2.dft_out import dft_p03, transaction_type
from bridges.v2.due import Context, Due
from bridges.v2.order_facts import OrderFacts, facts_of
from bridges.v2.oru_out import Reader, Report, oru_r01
from bridges.v2.report_told import REPORTED, pdf_is_old, told_results
from bridges.v2.schedule_out import siu
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, charge_item, diagnostic_report, observation, service_request
from resources.reading import critical_request

# Appointment.status -> SIU event when one that was booked gets there (HL7 v2.5.1 chapter 10).
_SIU: Final = {
    "booked": "S14",
    "arrived": "S14",
    "checked-in": "S14",
    "fulfilled": "S14",
    "cancelled": "S15",
    "noshow": "S26",
    "entered-in-error": "S17",
}
# A charge that changes in one of these is taken back and charged anew.
_CHARGED: Final = ("code", "quantity", "priceOverride", "extension", "occurrenceDateTime", "reason")


# Appointments


async def of_appointment(context: Context, change: Change) -> list[Due]:
    """The event, for each order that is booked. Who told us of it isn't told."""
    now, event = change.after, _siu_event(change)
    if now is None or event is None or not context.wanted(f"SIU^{event}"):
        return []
    unit, due = context.unit, list[Due]()
    for order_id in appointment.orders(now):
        facts = await facts_of(unit, await unit.read("ServiceRequest", order_id))
        if facts is not None:
            resources = [r for p in now.get("participant", ()) if (r := await unit.get(p.get("actor")))]
            render = siu(event, now, resources, facts, unit.now)
            due.append(Due.of(f"SIU^{event}", render, facts, context.unless_told_by()))
    return due


def _siu_event(change: Change) -> str | None:
    """S12 what is newly booked, S13 another time, S14 another change, S15, S17 and S26 the end. None: nothing to tell."""
    before, now = change.before, change.after
    if now is None:
        return None
    if before is None or not appointment.is_booked(before):
        return "S12" if appointment.is_booked(now) else None
    if appointment.is_booked(now) and any(before.get(e) != now.get(e) for e in ("start", "end")):
        return "S13"
    changed = APPOINTMENT_STATUS.v2(before["status"]) != APPOINTMENT_STATUS.v2(now["status"])
    return _SIU.get(now["status"]) if changed or before.get("participant") != now.get("participant") else None


# Reports


async def of_report(context: Context, change: Change) -> list[Due]:
    """The report as it stands, once for each order that it is of. The service that sent it to us doesn't get it back."""
    report, unit = change.after, context.unit
    if report is None or report["status"] not in REPORTED or _content(report) == _content(change.before):
        return []
    if not context.wanted("ORU^R01"):
        return []
    versions = await unit.earlier("DiagnosticReport", report["id"])
    told, is_old = await told_results(unit, report, versions), await pdf_is_old(unit, report, versions)
    studies = [r for x in report.get("imagingStudy", ()) if (r := await unit.get(x))]
    readers = [await reader(unit, x) for x in report.get("resultsInterpreter", ())]
    due: dict[str, Due] = {}
    of_orders: dict[str, list[Resource]] = {}
    for procedure in await diagnostic_report.procedures(unit, report):
        order = await service_request.order_of(unit, procedure)
        if order is not None:
            of_orders.setdefault(order["id"], []).append(procedure)
    for order_id, procedures in of_orders.items():
        # A report of several procedures, or of nobody knows which, is of the order.
        one = procedures[0] if len(procedures) == 1 and not diagnostic_report.is_unnamed(report) else None
        facts = await facts_of(unit, one or await unit.read("ServiceRequest", order_id))
        if facts is not None:
            based_on = ",".join(f"ServiceRequest/{p['id']}" for p in procedures)
            own = studies or await unit.search("ImagingStudy", basedon=based_on)
            leaves_open = await _leaves_open(unit, report, order_id, procedures)
            render = oru_r01(Report(report, told, own, readers, facts, is_old, leaves_open), unit.now)
            due[order_id] = Due.of("ORU^R01", render, facts, context.unless_told_by(), more=[report])
    return list(due.values())


async def of_results(context: Context) -> list[Due]:
    """The reports of which just a part has changed in this transaction, or was taken back."""
    if not context.wanted("ORU^R01"):
        return []
    told = {c.id for c in context.changes if c.type == "DiagnosticReport"}
    due = list[Due]()
    for change in context.changes:
        if change.type != "Observation" or not observation.says_else(change):
            continue
        for report in await observation.reports_of(context.unit, change.id):
            if report["status"] in REPORTED and report["id"] not in told:
                told.add(report["id"])
                due += await of_report(context, Change("DiagnosticReport", report["id"], None, report))
    return due


async def _leaves_open(unit: UnitOfWork, report: Resource, order_id: str, reported: list[Resource]) -> bool:
    """Whether other procedures of the order are still to be reported, or it can't be told."""
    others = [p for p in await service_request.procedures_of(unit, order_id) if all(p["id"] != r["id"] for r in reported)]
    return diagnostic_report.is_unnamed(report) or any(p["status"] in {"active", "on-hold"} for p in others)


async def reader(unit: UnitOfWork, reference: Resource) -> Reader:
    """Who read it; of a role, the Practitioner in it."""
    found = await unit.get(reference)
    if found is not None and found["resourceType"] == "PractitionerRole":
        found = await unit.get(found.get("practitioner"))
    return reference, found


def _content(report: Resource | None) -> Resource:
    """What others are told of. That somebody is told of a critical result by other ways is no news to them."""
    told = {k: v for k, v in (report or {}).items() if k != "meta"}
    others = [e for e in told.pop("extension", ()) if e.get("url") != critical_request.ON_REPORT]
    return told | ({"extension": others} if others else {})


# Charges


async def of_charges(context: Context) -> list[Due]:
    """What was charged and taken back in this transaction, a message an order."""
    if not context.wanted("DFT^P03"):
        return []
    unit = context.unit
    orders: dict[str, OrderFacts] = {}
    charges: dict[str, list[tuple[str, Resource]]] = {}
    for change in context.changes:
        if change.type != "ChargeItem":
            continue
        for kind, charge in _transactions(change):
            facts = await facts_of(unit, await charge_item.procedure_of(unit, charge))
            if facts is not None:
                orders.setdefault(facts.order["id"], facts)
                charges.setdefault(facts.order["id"], []).append((kind, charge))
    due = []
    for order_id, said in charges.items():
        people = {k: v for _, c in said for k, v in (await performers(unit, c)).items()}
        message = dft_p03(said, orders[order_id], people, unit.now)
        due.append(Due.of("DFT^P03", message, orders[order_id], more=[c for _, c in said]))
    return due


def _transactions(change: Change) -> list[tuple[str, Resource]]:
    """(CG or CD, charge) for what a change means to whoever has the bill."""
    before, now = change.before, change.after
    was = transaction_type(before) if before else ""
    becomes = transaction_type(now) if now else "CD"
    if was != "CG":
        return [("CG", now)] if now is not None and becomes == "CG" else []
    assert before is not None
    if becomes == "CD":
        return [("CD", now or before)]
    if now is not None and any(before.get(e) != now.get(e) for e in _CHARGED):
        return [("CD", before), ("CG", now)]
    return []


async def performers(unit: UnitOfWork, charge: Resource) -> dict[str, Resource]:
    found: dict[str, Resource] = {}
    for performer in charge.get("performer", ()):
        to = target(performer.get("actor"))
        person = await unit.get(performer.get("actor")) if to and to.type == "Practitioner" else None
        if person is not None:
            found[str(to)] = person
    return found
