"""What placers and image managers are told when orders and their steps change (IHE RAD-3, RAD-4, RAD-13)."""

from collections.abc import Callable, Sequence
from typing import Final

from bridges.v2.codes import STEP_STATUS
from bridges.v2.destination import IMAGE_MANAGER, ORDER_KINDS, PLACER, Destination
from bridges.v2.due import Context, Due
from bridges.v2.order_facts import OrderFacts, facts_of, modality
from bridges.v2.order_out import (
    CANCELLED,
    CANCELLED_HERE,
    CHANGED,
    DISCONTINUED,
    DISCONTINUED_HERE,
    DONE,
    HELD,
    NUMBER_WANTED,
    SCHEDULED,
    WAITS,
    Told,
    to_image_manager,
    to_placer,
)
from bridges.v2.order_segments_out import Step
from fhir_server import outbox
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_numbers, service_request, task

# Steps that an image manager knows of.
_PLANNED: Final = frozenset({"accepted", "ready", "in-progress"})
# What of a planned step it is told again.
_TOLD: Final = ("restriction", "owner", "priority", "code", "identifier", "input")


def _to_placers(destination: Destination) -> bool:
    return bool(destination.order_kinds(PLACER))


def _for_role(kind: str, role: str, also: Callable[[Destination], bool] | None = None) -> Callable[[Destination], bool]:
    return lambda d: kind in d.order_kinds(role) and (also is None or also(d))


def placers_told(
    context: Context, told: Told, steps: Sequence[Step], facts: OrderFacts, also: Callable[[Destination], bool] | None = None
) -> list[Due]:
    """The message in each form in which a placer wants it."""
    kinds = [k for k in ORDER_KINDS if any(k in d.order_kinds(PLACER) for d in context.destinations)]
    now = context.unit.now
    return [Due.of(k, to_placer(told, steps, facts, k, now), facts, _for_role(k, PLACER, also)) for k in kinds]


# What a placer is told (RAD-3)


async def of_step(context: Context, change: Change) -> list[Due]:
    """The status of a step that has changed, or the new time of a scheduled one."""
    step, before = change.after, change.before or {}
    if step is None or not task.is_step(step) or not any(map(_to_placers, context.destinations)):
        return []
    status, was = STEP_STATUS.v2(step["status"]), STEP_STATUS.v2(before.get("status", ""))
    moved = status == "SC" and before.get("restriction") != step.get("restriction")
    waits = step["status"] == "requested" and was != ""
    if not (status or waits) or (status == was and not moved):
        return []
    facts = await facts_of(context.unit, await context.unit.get(step.get("focus")))
    if facts is None or (status == "CA" and _cancelled_here(context, facts.order)):
        return []  # OC says it
    steps = (Step(step) if modality(step) else await _detailed(context.unit, step),)
    if waits:
        return placers_told(context, WAITS, steps, facts) if facts.order["status"] == "active" else []
    if status != "A":
        return placers_told(context, Told("SC", status), steps, facts)
    at_exam = await _all_examined(context.unit, facts.order)
    early = placers_told(context, Told("SC", "CM"), steps, facts, lambda d: at_exam and d.says("completed-at") == "exam")
    late = placers_told(context, Told("SC", "A"), steps, facts, lambda d: not (at_exam and d.says("completed-at") == "exam"))
    return [*early, *late]


async def _all_examined(unit: UnitOfWork, order: Resource) -> bool:
    """Whether no step of an order is still to be done."""
    return not {s["status"] for s in await service_request.steps_of(unit, order["id"])} & task.OPEN


def _cancelled_here(context: Context, order: Resource) -> bool:
    """Whether this transaction cancels an order that has a placer, by ourselves and not because we were told."""
    return (
        not _told_to_us(context.unit)
        and order_numbers.placer_number(order) is not None
        and any(c.id == order["id"] and c.became("status", "revoked", "entered-in-error") for c in context.changes)
    )


def _told_to_us(unit: UnitOfWork) -> bool:
    """Whether a received message is what is being done."""
    return unit.origin is not None or unit.access.client_id.startswith("v2:")


async def of_order(context: Context, change: Change) -> list[Due]:
    """SN for an order born here, OC for one that we cancel, CM when the last report is final.

    HD, and that it is no more so, for one that has no steps yet, which else would say so (`of_step`).
    """
    order = change.after
    if order is None or not service_request.is_order(order) or not any(map(_to_placers, context.destinations)):
        return []
    cancelled = _cancelled_here(context, order)
    born_here = change.became("status", "active") and order_numbers.placer_number(order) is None
    completed = change.became("status", "completed")
    held, let_go = _waits_here(context, change, order)
    if not (cancelled or born_here or completed or held or let_go):
        return []
    facts = await facts_of(context.unit, order)
    if facts is None:
        return []
    if cancelled:
        begun = any(s["status"] == "failed" for s in await service_request.steps_of(context.unit, order["id"]))
        return placers_told(context, DISCONTINUED_HERE if begun else CANCELLED_HERE, (), facts)
    if completed:
        return placers_told(context, Told("SC", "CM"), (), facts, lambda d: d.says("completed-at") == "report")
    if held and not await service_request.steps_of(context.unit, order["id"]):
        return placers_told(context, HELD, (), facts)
    if let_go and all(_is_new(context, s) for s in await service_request.steps_of(context.unit, order["id"])):
        return placers_told(context, WAITS, (), facts)
    if not born_here or (change.before and change.before.get("status") == "on-hold"):
        return []
    return placers_told(context, NUMBER_WANTED, (), facts, lambda d: d.says("assigns-placer-numbers") == "yes")


def _waits_here(context: Context, change: Change, order: Resource) -> tuple[bool, bool]:
    """Whether an order that has a placer, which didn't say so itself, is held by this change, and whether it is let go on."""
    if _told_to_us(context.unit) or order_numbers.placer_number(order) is None or change.before is None:
        return False, False
    return change.became("status", "on-hold"), (change.before["status"], order["status"]) == ("on-hold", "active")


def _is_new(context: Context, step: Resource) -> bool:
    """Whether a step was made by this transaction, and waits to be scheduled: then nothing else is said of it."""
    return step["status"] == "requested" and any(
        c.type == "Task" and c.id == step["id"] and c.before is None for c in context.changes
    )


# What an image manager is told (RAD-4, RAD-13)


async def of_steps_for_images(context: Context) -> list[Due]:
    """What has become of the steps of this transaction, a message a requested procedure and kind of change."""
    managers = [d for d in context.destinations if d.order_kinds(IMAGE_MANAGER)]
    if not managers:
        return []
    said: dict[tuple[str, Told], list[Resource]] = {}
    for change in context.changes:
        step = change.after
        if change.type == "Task" and step is not None and task.is_step(step):
            told = await _told(context.unit, change, step)
            if told is not None:
                said.setdefault((str(step.get("focus", {}).get("reference")), told), []).append(step)
    due: list[Due] = []
    for (procedure, told), steps in said.items():
        due += await managers_told(context, managers, procedure, told, steps)
    return due


async def _told(unit: UnitOfWork, change: Change, step: Resource) -> Told | None:
    """What an image manager is told of a step's change; None for nothing."""
    before: Resource = change.before or {}
    status, was = step["status"], before.get("status")
    if status in _PLANNED and (was not in _PLANNED or any(before.get(e) != step.get(e) for e in _TOLD)):
        return CHANGED
    if status == was:
        return None
    if status == "cancelled":
        return CANCELLED
    if status == "failed":
        return DISCONTINUED
    if status == "completed":
        of = str(step.get("focus", {}).get("reference", "")).partition("/")[2]
        return None if {s["status"] for s in await task.steps_of(unit, of)} & task.OPEN else DONE
    return None


async def managers_told(
    context: Context, managers: list[Destination], procedure: str, told: Told, steps: list[Resource]
) -> list[Due]:
    """To whoever has never been told of the procedure, a change is news (NW), and its cancellation is nothing."""
    unit = context.unit
    facts = await facts_of(unit, await unit.get(procedure), study=True)
    if facts is None:
        return []
    detailed = [await _detailed(unit, s) for s in steps]
    due: list[Due] = []
    for manager in managers:
        kinds = manager.order_kinds(IMAGE_MANAGER)
        known = await _knows(unit, manager, procedure, kinds)
        if not known and told in {CANCELLED, DISCONTINUED}:
            continue
        said = SCHEDULED if told == CHANGED and not known else told
        for kind in kinds:
            render = to_image_manager(said, detailed, facts, kind, unit.now)
            due.append(Due.of(kind, render, facts, _only(manager)))
    return due


def _only(chosen: Destination) -> Callable[[Destination], bool]:
    return lambda d: d.reference == chosen.reference


async def _knows(unit: UnitOfWork, manager: Destination, procedure: str, kinds: list[str]) -> bool:
    """Whether it was ever sent something about a requested procedure (served by the outbox's index on `about`)."""
    where = {"about": procedure, "destination": manager.reference, "type": {"$in": kinds}}
    return await unit.db[outbox.COLLECTION].find_one(where, {"_id": 1}, session=unit.session) is not None


async def _detailed(unit: UnitOfWork, step: Resource) -> Step:
    station = await unit.get(step.get("owner"))
    place = await unit.get(station.get("location")) if station else None
    return Step(step, station, place)
