"""Who is told when an order goes from the wrong patient to the right one (`resources/moving`).

Under the former patient: the order is off (OC), the booking is cancelled (S15), what was reported is withdrawn (D, IHE RAD-28),
what was charged is credited (CD). Under the right one: the booking (S12), the report (C), the charge (CG), and to image managers
the procedure with its Study Instance UID (XO, IHE RAD-13).
"""

from collections.abc import Iterable
from dataclasses import replace

from bridges.v2.destination import IMAGE_MANAGER, PLACER
from bridges.v2.dft_out import dft_p03, transaction_type
from bridges.v2.due import Context, Due
from bridges.v2.due_orders import managers_told, placers_told
from bridges.v2.due_reports import of_report, performers, reader
from bridges.v2.order_facts import OrderFacts, facts_of
from bridges.v2.order_out import CANCELLED_HERE, CHANGED, DONE
from bridges.v2.oru_out import Report, oru_r01
from bridges.v2.report_told import REPORTED, told_results
from bridges.v2.schedule_out import siu
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, diagnostic_report, order_numbers, service_request, task
from resources.charge_item import procedure_id
from resources.patient import merged_into


async def of_moves(context: Context) -> list[Due]:
    """The messages of each order of this transaction that has gone to another patient."""
    due: list[Due] = []
    for change in context.changes:
        if await _is_move(context.unit, change):
            due += await _of_order(context, change)
    return due


async def _is_move(unit: UnitOfWork, change: Change) -> bool:
    """Whether an order has another patient now, and not because two records became one, or two again."""
    before, after = change.before, change.after
    if change.type != "ServiceRequest" or not before or not after or not service_request.is_order(after):
        return False
    if before["subject"].get("reference") == after["subject"].get("reference"):
        return False
    ends = [await unit.get(before["subject"]), await unit.get(after["subject"])]
    changed = {c.id for c in unit.changes() if c.type == "Patient"}
    return not any(p is not None and (p["id"] in changed or merged_into(p)) for p in ends)


async def _of_order(context: Context, change: Change) -> list[Due]:
    unit, before = context.unit, change.before or {}
    facts = await facts_of(unit, change.after)
    patient = await unit.get(before["subject"])
    if facts is None or patient is None:
        return []
    former = replace(facts, patient=patient, encounter=await unit.get(before.get("encounter")))
    procedures = await service_request.procedures_of(unit, change.id)
    mine = {p["id"] for p in procedures}
    due: list[Due] = []
    if any(d.order_kinds(PLACER) for d in context.destinations) and order_numbers.placer_number(before):
        due += placers_told(context, CANCELLED_HERE, (), former)
    for one in context.changes:
        if one.type == "Appointment" and change.id in appointment.orders(one.after or {}):
            due += await _of_booking(context, one, former, facts)
        elif one.type == "DiagnosticReport" and one.before and one.after:
            of = [p for p in await diagnostic_report.procedures(unit, one.after) if p["id"] in mine]
            due += await _of_report(context, one, former, of) if of else []
    due += await _of_charges(context, [c for c in context.changes if _is_charge(c, mine)], former, facts)
    return due + await _of_images(context, procedures)


async def _of_booking(context: Context, change: Change, former: OrderFacts, facts: OrderFacts) -> list[Due]:
    found: list[Due] = []
    for event, booking, of in (("S15", change.before, former), ("S12", change.after, facts)):
        if booking is not None and appointment.is_booked(booking) and context.wanted(f"SIU^{event}"):
            there = [r for p in booking.get("participant", ()) if (r := await context.unit.get(p.get("actor")))]
            told = booking if event == "S12" else booking | {"status": "cancelled"}
            found.append(Due.of(f"SIU^{event}", siu(event, told, there, of, context.unit.now), of))
    return found


async def _of_report(context: Context, change: Change, former: OrderFacts, of: list[Resource]) -> list[Due]:
    """Withdrawn from the one, told of the other."""
    before, unit = change.before or {}, context.unit
    if before["status"] not in REPORTED or not context.wanted("ORU^R01"):
        return []
    facts = replace(former, procedure=of[0] if len(of) == 1 and not diagnostic_report.is_unnamed(before) else None)
    told = await told_results(unit, before, await unit.earlier("DiagnosticReport", change.id))
    studies = [r for x in before.get("imagingStudy", ()) if (r := await unit.get(x))]
    readers = [await reader(unit, x) for x in before.get("resultsInterpreter", ())]
    withdrawn = Report(before | {"status": "entered-in-error"}, told, studies, readers, facts)
    return [Due.of("ORU^R01", oru_r01(withdrawn, unit.now), facts, more=[before]), *await of_report(context, change)]


def _is_charge(change: Change, procedures: set[str]) -> bool:
    if change.type != "ChargeItem" or change.before is None or change.after is None:
        return False
    return procedure_id(change.after) in procedures and transaction_type(change.before) == "CG"


async def _of_charges(context: Context, changes: Iterable[Change], former: OrderFacts, facts: OrderFacts) -> list[Due]:
    charges = [(c.before, c.after) for c in changes if c.before and c.after]
    if not charges or not context.wanted("DFT^P03"):
        return []
    unit = context.unit
    people = {k: v for _, c in charges for k, v in (await performers(unit, c)).items()}
    credit = dft_p03([("CD", before) for before, _ in charges], former, people, unit.now)
    again = dft_p03([("CG", after) for _, after in charges if transaction_type(after) == "CG"], facts, people, unit.now)
    of = [after for _, after in charges]
    return [Due.of("DFT^P03", credit, former, more=of), Due.of("DFT^P03", again, facts, more=of)]


async def _of_images(context: Context, procedures: list[Resource]) -> list[Due]:
    managers = [d for d in context.destinations if d.order_kinds(IMAGE_MANAGER)]
    due: list[Due] = []
    for procedure in procedures if managers else ():
        steps = await task.steps_of(context.unit, procedure["id"])
        planned = [s for s in steps if s["status"] in {"accepted", "ready", "in-progress"}]
        done = [s for s in steps if s["status"] == "completed"]
        if planned or done:
            told = CHANGED if planned else DONE
            due += await managers_told(context, managers, f"ServiceRequest/{procedure['id']}", told, planned or done)
    return due
