"""What leaves by HL7 v2 when resources change: a projection that writes messages into the outbox of the same transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

from bridges.v2.message import Seg, encode
from bridges.v2.oru_out import oru_r01
from bridges.v2.schedule_out import FILLER_STATUS, orm_o01, siu
from bridges.v2.segments_out import Destination, new_control_id
from fhir_server import outbox
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, diagnostic_report, service_request, task

# Appointment.status -> SIU event when a change brings it there (HL7 v2.5.1 chapter 10; table 2.4 of the workflow).
_SIU = {
    "booked": "S12",
    "arrived": "S14",
    "checked-in": "S14",
    "fulfilled": "S14",
    "cancelled": "S15",
    "noshow": "S26",
    "entered-in-error": "S17",
}
# Task.status of a step -> order status (table 0038) told to the placer (DESIGN.md section 3).
_ORDER_STATUS = {
    "accepted": "SC",
    "ready": "SC",
    "in-progress": "IP",
    "completed": "A",
    "cancelled": "CA",
    "failed": "DC",
    "on-hold": "HD",
}
_REPORTED = frozenset({"partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled", "entered-in-error"})


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What every message about an order tells: read once, used for each destination."""

    order: Resource
    procedure: Resource | None
    patient: Resource
    encounter: Resource | None
    requester: Resource | None


Render = Callable[[Destination, str], list[Seg]]


@dataclass(frozen=True, slots=True)
class Outbound:
    """The projection. `zone` is the department's, for destinations that don't name theirs."""

    zone: tzinfo

    async def project(self, unit: UnitOfWork, changes: list[Change]) -> None:
        """Messages for the net changes of a transaction, schedule before status before result."""
        due: list[tuple[str, Render, OrderFacts]] = []
        for change in changes:
            if change.type == "Appointment":
                due += await _of_appointment(unit, change)
        for change in changes:
            if change.type == "Task":
                due += await _of_step(unit, change)
        for change in changes:
            if change.type == "DiagnosticReport":
                due += await _of_report(unit, change)
        for change in changes:
            if change.type == "ServiceRequest":
                due += await _of_order(unit, change)
        if due:
            await self._send(unit, due)

    async def _send(self, unit: UnitOfWork, due: list[tuple[str, Render, OrderFacts]]) -> None:
        endpoints = await unit.search("Endpoint", status="active", connection_type="hl7v2-mllp")
        for endpoint in sorted(endpoints, key=lambda e: str(e["id"])):
            to = Destination.of(endpoint, self.zone)
            for kind, render, facts in due:
                if kind not in to.wants:
                    continue
                control_id = new_control_id()
                about = (f"ServiceRequest/{facts.order['id']}",)
                unit.send(
                    outbox.Outbound(
                        destination=to.reference,
                        type=kind,
                        control_id=control_id,
                        message=encode(render(to, control_id), to.charset),
                        about=about,
                        patient=f"Patient/{facts.patient['id']}",
                    )
                )


async def facts_of(unit: UnitOfWork, request: Resource | None) -> OrderFacts | None:
    """The facts of an order, from it or one of its requested procedures; None where there is no order or patient."""
    order = await service_request.order_of(unit, request)
    if order is None or request is None:
        return None
    patient = await unit.get(order["subject"])
    if patient is None:
        return None
    procedure = request if service_request.is_procedure(request) else None
    return OrderFacts(order, procedure, patient, await unit.get(order.get("encounter")), await unit.get(order.get("requester")))


async def _of_appointment(unit: UnitOfWork, change: Change) -> list[tuple[str, Render, OrderFacts]]:
    now = change.after
    if now is None:
        return []
    told = FILLER_STATUS.get(change.before["status"]) if change.before else None
    event = _SIU.get(now["status"]) if FILLER_STATUS.get(now["status"]) != told else None
    was_booked = change.before is not None and change.before.get("status") in {"booked", "arrived", "checked-in"}
    if event in {"S15", "S26", "S17", "S14"} and not was_booked:
        return []
    if event is None and change.before is not None and now["status"] == "booked":
        moved = any(change.before.get(e) != now.get(e) for e in ("start", "end"))
        event = "S13" if moved else "S14" if change.before.get("participant") != now.get("participant") else None
    if event is None:
        return []
    due: list[tuple[str, Render, OrderFacts]] = []
    for order_id in appointment.orders(now):
        facts = await facts_of(unit, await unit.read("ServiceRequest", order_id))
        if facts is not None:
            resources = [r for p in now.get("participant", ()) if (r := await unit.get(p.get("actor")))]
            due.append((f"SIU^{event}", siu(event, now, resources, facts, unit.now), facts))
    return due


async def _of_step(unit: UnitOfWork, change: Change) -> list[tuple[str, Render, OrderFacts]]:
    step = change.after
    if step is None or not task.is_step(step):
        return []
    was = _ORDER_STATUS.get(change.before["status"]) if change.before else None
    status = _ORDER_STATUS.get(step["status"])
    moved = change.before is not None and change.before.get("restriction") != step.get("restriction")
    if status is None or (status == was and not (moved and status == "SC")):
        return []
    procedure = await unit.get(step.get("focus"))
    facts = await facts_of(unit, procedure)
    return [("ORM^O01", orm_o01(status, step, facts, unit.now), facts)] if facts else []


async def _of_order(unit: UnitOfWork, change: Change) -> list[tuple[str, Render, OrderFacts]]:
    """CM when the last report is final."""
    order = change.after
    if order is None or not service_request.is_order(order) or not change.became("status", "completed"):
        return []
    facts = await facts_of(unit, order)
    return [("ORM^O01", orm_o01("CM", None, facts, unit.now), facts)] if facts else []


async def _of_report(unit: UnitOfWork, change: Change) -> list[tuple[str, Render, OrderFacts]]:
    report = change.after
    if report is None or report["status"] not in _REPORTED:
        return []
    due: list[tuple[str, Render, OrderFacts]] = []
    for procedure in await diagnostic_report.procedures(unit, report):
        facts = await facts_of(unit, procedure)
        if facts is not None:
            results = [r for x in report.get("result", ()) if (r := await unit.get(x))]
            studies = [r for x in report.get("imagingStudy", ()) if (r := await unit.get(x))]
            readers = [(x, await unit.get(x)) for x in report.get("resultsInterpreter", ())]
            due.append(("ORU^R01", oru_r01(report, results, studies, readers, facts, unit.now), facts))
    return due
