"""What waits for a time: orders with a step that is not scheduled, and the waiting list."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from console.asking import Found
from console.formats import concept
from console.screens.schedule.asked import ALL, Asked
from console.screens.schedule.board import what
from console.visit import Visit
from fhir_server.references import target
from fhir_server.registry import Resource
from resources import appointment, task

_SHOWN: Final = 60  # orders beside the board, the most urgent and the oldest first


@dataclass(slots=True)
class Waiting:
    """An order that waits, or an entry (`entry`, its id and version) of the waiting list for one; `why` is what that says."""

    order: str
    patient: Resource
    what: list[str]
    modalities: list[str]
    priority: str
    since: str | None
    wish: str | None = None
    entry: str = ""
    version: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Waitings:
    """What waits, as far as it is shown; `more`: there is more."""

    rows: list[Waiting]
    more: bool


async def orders(visit: Visit, asked: Asked) -> Waitings:
    """The orders with a step that waits, the most urgent and the oldest first."""
    steps = await visit.desk.search(
        "Task",
        intent="plan",
        status="requested",
        _sort="-priority,authored-on",
        _count=str(_SHOWN),
        _include=["Task:patient", "Task:focus"],
    )
    by_order: dict[str, Waiting] = {}
    for step in steps:
        procedure = steps.of(step.get("focus")) or {}
        order = next((to.id for r in procedure.get("basedOn", ()) if (to := target(r))), procedure.get("id", ""))
        if not order:
            continue
        row = by_order.setdefault(order, _row(order, step, procedure, steps))
        name, modality = concept(step.get("code")), task.modality(step)
        row.what += [name] if name not in row.what else []
        row.modalities += [modality] if modality and modality not in row.modalities else []
    return Waitings(_suiting(by_order.values(), asked), steps.next is not None)


def _row(order: str, step: Resource, procedure: Resource, steps: Found) -> Waiting:
    patient = steps.of(step.get("for")) or {}
    return Waiting(order, patient, [], [], step.get("priority", "routine"), step.get("authoredOn"), wish(procedure))


def wish(order: Resource) -> str | None:
    """When the order is wanted, if it says so."""
    period = order.get("occurrencePeriod", {})
    found: Any = order.get("occurrenceDateTime") or period.get("start")
    return str(found) if found else None


def _suiting(rows: Iterable[Waiting], asked: Asked) -> list[Waiting]:
    return [r for r in rows if asked.modality in ("", ALL) or not r.modalities or asked.modality in r.modalities]


async def waiting_list(visit: Visit) -> Waitings:
    """The entries of the waiting list, the oldest first."""
    found = await visit.desk.search(
        "Appointment",
        status="waitlist",
        _sort="_lastUpdated",
        _count=str(_SHOWN),
        _include=["Appointment:patient", "Appointment:based-on"],
    )
    return Waitings([_entry(one, found) for one in found], found.next is not None)


def _entry(one: Resource, found: Found) -> Waiting:
    of = [o for r in one.get("basedOn", ()) if (o := found.of(r))]
    patient = next((found.of(p) for p in appointment.participants(one, "Patient")), None) or {}
    order: Resource = of[0] if of else {}
    since = one.get("created") or one["meta"]["lastUpdated"]
    row = Waiting(order.get("id", ""), patient, [what(one, of)], [], order.get("priority", "routine"), since, wish(order))
    row.entry, row.version, row.why = one["id"], one["meta"]["versionId"], one.get("comment", "")
    return row
