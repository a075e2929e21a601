"""What leaves by HL7 v2 when resources change: a projection that writes messages into the outbox of the same transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo

from bridges.v2.destination import Destination
from bridges.v2.endpoint_check import check_alone, check_endpoint
from bridges.v2.message import Seg, encode
from bridges.v2.oru_out import oru_r01
from bridges.v2.schedule_out import FILLER_STATUS, orm_o01, siu
from bridges.v2.segments_out import OrderFacts, new_control_id
from fhir_server import outbox
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import appointment, diagnostic_report, service_request, task

# Appointment.status -> SIU event when one that was booked gets there (HL7 v2.5.1 chapter 10).
_SIU = {
    "booked": "S14",
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

Render = Callable[[Destination, str], list[Seg]]


@dataclass(frozen=True, slots=True)
class Due:
    """A message that is due to whoever wants its kind, such as `SIU^S12`."""

    kind: str
    render: Render
    facts: OrderFacts


@dataclass(frozen=True, slots=True)
class Outbound:
    """The projection. `zone` is the department's, for destinations that don't name theirs."""

    zone: tzinfo

    async def project(self, unit: UnitOfWork, changes: list[Change]) -> None:
        """Messages for the net changes of a transaction: schedule before status before result before the end of the order."""
        due: list[Due] = []
        for resource_type, messages in _MESSAGES:
            for change in changes:
                if change.type == resource_type:
                    due += await messages(unit, change)
        if due:
            await self._send(unit, due)

    async def _send(self, unit: UnitOfWork, due: list[Due]) -> None:
        endpoints = await unit.search("Endpoint", status="active", connection_type="hl7v2-mllp")
        for endpoint in sorted(endpoints, key=lambda e: str(e["id"])):
            to = Destination.of(endpoint, self.zone)
            for message in due:
                if message.kind in to.wants and (to.reference != unit.origin or message.kind[:3] not in {"ORU", "SIU"}):
                    control_id = new_control_id()
                    unit.send(
                        outbox.Outbound(
                            destination=to.reference,
                            type=message.kind,
                            control_id=control_id,
                            message=encode(message.render(to, control_id), to.charset),
                            about=(f"ServiceRequest/{message.facts.order['id']}",),
                            patient=f"Patient/{message.facts.patient['id']}",
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
    requester = await unit.get(order.get("requester"))
    if requester is not None and requester["resourceType"] == "PractitionerRole":
        requester = await unit.get(requester.get("practitioner"))
    return OrderFacts(order, procedure, patient, await unit.get(order.get("encounter")), requester)


async def _of_appointment(unit: UnitOfWork, change: Change) -> list[Due]:
    now, event = change.after, _siu_event(change)
    if now is None or event is None:
        return []
    due: list[Due] = []
    for order_id in appointment.orders(now):
        facts = await facts_of(unit, await unit.read("ServiceRequest", order_id))
        if facts is not None:
            resources = [r for p in now.get("participant", ()) if (r := await unit.get(p.get("actor")))]
            due.append(Due(f"SIU^{event}", siu(event, now, resources, facts, unit.now), facts))
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
    changed = FILLER_STATUS[before["status"]] != FILLER_STATUS.get(now["status"])
    return _SIU.get(now["status"]) if changed or before.get("participant") != now.get("participant") else None


async def _of_step(unit: UnitOfWork, change: Change) -> list[Due]:
    """The status of a step that has changed, or the new time of a scheduled one."""
    step, before = change.after, change.before or {}
    if step is None or not task.is_step(step):
        return []
    status, was = _ORDER_STATUS.get(step["status"]), _ORDER_STATUS.get(before.get("status", ""))
    moved = status == "SC" and before.get("restriction") != step.get("restriction")
    if status is None or (status == was and not moved):
        return []
    facts = await facts_of(unit, await unit.get(step.get("focus")))
    return [Due("ORM^O01", orm_o01(status, step, facts, unit.now), facts)] if facts else []


async def _of_order(unit: UnitOfWork, change: Change) -> list[Due]:
    """CM when the last report is final."""
    order = change.after
    if order is None or not service_request.is_order(order) or not change.became("status", "completed"):
        return []
    facts = await facts_of(unit, order)
    return [Due("ORM^O01", orm_o01("CM", None, facts, unit.now), facts)] if facts else []


async def _of_report(unit: UnitOfWork, change: Change) -> list[Due]:
    """The report as it stands, once for each order that it is of."""
    report = change.after
    if report is None or report["status"] not in _REPORTED or _content(report) == _content(change.before):
        return []
    results = [r for x in report.get("result", ()) if (r := await unit.get(x))]
    studies = [r for x in report.get("imagingStudy", ()) if (r := await unit.get(x))]
    readers = [(x, await unit.get(x)) for x in report.get("resultsInterpreter", ())]
    due: dict[str, Due] = {}
    for procedure in await diagnostic_report.procedures(unit, report):
        facts = await facts_of(unit, procedure)
        if facts is not None and facts.order["id"] not in due:
            due[facts.order["id"]] = Due("ORU^R01", oru_r01(report, results, studies, readers, facts, unit.now), facts)
    return list(due.values())


def _content(report: Resource | None) -> Resource:
    return {k: v for k, v in (report or {}).items() if k != "meta"}


async def _of_endpoint(unit: UnitOfWork, change: Change) -> list[Due]:
    """No message; but an Endpoint that no message could be written for, or whose sender can't be told, is refused."""
    if change.after is not None:
        check_endpoint(change.after)
        await check_alone(unit, change.after)
    return []


_MESSAGES = (
    ("Endpoint", _of_endpoint),
    ("Appointment", _of_appointment),
    ("Task", _of_step),
    ("DiagnosticReport", _of_report),
    ("ServiceRequest", _of_order),
)
