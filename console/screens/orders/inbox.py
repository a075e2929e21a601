"""The lists of orders: new, on hold, to be scheduled, all; and the work items. The urgent before the others, then the oldest."""

import asyncio
from typing import Any

from starlette.responses import Response

from console.asking import Found
from console.screens.orders import items
from console.screens.orders.facts import Row, row
from console.visit import Visit
from fhir_server.registry import Resource
from resources import terms

TABS = ("new", "hold", "items", "unscheduled", "all")
STATUSES = ("draft", "active", "on-hold", "completed", "revoked")
_PAGE = "50"
_URGENT_FIRST = "-priority,_lastUpdated"
_WITH = ("ServiceRequest:patient", "ServiceRequest:requester")


async def show(visit: Visit) -> Response:
    """One of the lists, by `tab`; narrowed by `priority`, `status` (of all) or `family` (of work items)."""
    begins = "new" if visit.calls("order-accept") else "all"  # who accepts none looks at what became of them
    tab = _one_of(visit.asked("tab"), TABS) or begins
    counts, (rows, following) = await asyncio.gather(_counts(visit), _listed(visit, tab))
    filters = {
        "priority": _one_of(visit.asked("priority"), terms.PRIORITIES),
        "status": _one_of(visit.asked("status"), STATUSES) if tab == "all" else "",
        "family": _one_of(visit.asked("family"), tuple(items.FAMILIES)) if tab == "items" else "",
    }
    return visit.page(
        "orders/index.html", tab=tab, tabs=TABS, counts=counts, rows=rows, following=following, filters=filters,
        later=bool(visit.asked("page")), statuses=STATUSES, priorities=terms.PRIORITIES, families=tuple(items.FAMILIES),
    )  # fmt: skip


def _one_of(asked: str, known: tuple[str, ...]) -> str:
    return asked if asked in known else ""


async def _counts(visit: Visit) -> dict[str, int | None]:
    """How much waits in each of the lists."""
    new, hold, tasks, steps = await visit.desk.together(
        visit.desk.search("ServiceRequest", intent="order", status="draft", _summary="count"),
        visit.desk.search("ServiceRequest", intent="order", status="on-hold", _summary="count"),
        visit.desk.search("Task", **items.OF_ALL, _summary="count"),
        visit.desk.search("Task", intent="plan", status="requested", _summary="count"),
    )
    return {"new": new.total, "hold": hold.total, "items": tasks.total, "unscheduled": steps.total, "all": None}


async def _listed(visit: Visit, tab: str) -> tuple[list[Any], str | None]:
    """The rows of a list, and where it goes on."""
    kind = "Task" if tab in {"items", "unscheduled"} else "ServiceRequest"
    if page := visit.asked("page"):
        found = await visit.desk.page(kind, page)
    else:
        found = await _searched(visit, tab)
    if tab == "items":
        return items.rows(found), found.next
    if tab == "unscheduled":
        return _of_steps(found), found.next
    about: dict[str, list[Resource]] = {}
    for task in found.included("Task"):
        about.setdefault(task.get("focus", {}).get("reference", ""), []).append(task)
    return [row(order, found, about.get(f"ServiceRequest/{order['id']}", ())) for order in found], found.next


async def _searched(visit: Visit, tab: str) -> Found:
    priority = _one_of(visit.asked("priority"), terms.PRIORITIES) or None
    if tab == "items":
        return await items.search(visit, _one_of(visit.asked("family"), tuple(items.FAMILIES)), priority, _PAGE)
    if tab == "unscheduled":
        # The step, its requested procedure, and the order of that, whose patient and placer it has.
        return await visit.desk.search(
            "Task", ("_include:iterate", "ServiceRequest:based-on"), ("_include:iterate", "ServiceRequest:requester"),
            intent="plan", status="requested", priority=priority, _sort=_URGENT_FIRST, _count=_PAGE,
            _include=("Task:based-on", "Task:patient"),
        )  # fmt: skip
    status = {"new": "draft", "hold": "on-hold"}.get(tab) or _one_of(visit.asked("status"), STATUSES) or None
    return await visit.desk.search(
        "ServiceRequest", intent="order", status=status, priority=priority, _count=_PAGE,
        _include=_WITH, _revinclude="Task:focus",
        _sort=_URGENT_FIRST if tab != "all" else "-_lastUpdated",
    )  # fmt: skip


def _of_steps(found: Found) -> list[Row]:
    """The orders of the steps, each once."""
    rows: dict[str, Row] = {}
    for step in found:
        procedure = next((p for r in step.get("basedOn", ()) if (p := found.of(r))), None)
        order = next((o for r in (procedure or {}).get("basedOn", ()) if (o := found.of(r))), procedure)
        if order is not None:
            rows.setdefault(order["id"], row(order, found))
    return list(rows.values())
