"""A patient's orders with what became of them: steps, bookings, reports."""

from dataclasses import dataclass
from typing import Any, Final

from console.asking import Found
from console.visit import Visit
from fhir_server.registry import Resource

PAGE: Final = "25"
_MOST: Final = "300"
_STEP: Final = "id,status,basedOn,restriction,executionPeriod"


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the page lists it. `steps`: the states of its steps, each once; `at`: when it is or was examined; `reports`:
    those that the reader may see, with an address or ""."""

    order: Resource
    to: str
    steps: list[str]
    at: str | None
    reports: list[tuple[Resource, str]]
    booking: str


def address(visit: Visit, order: str) -> str:
    """Where an order leads this person: those who examine and read to the exam, those who plan to the order."""
    return f"/orders/{order}" if visit.can("$order-cancel") and not visit.can("$start") else f"/exams/{order}"


async def of_patient(visit: Visit, patient: str) -> tuple[list[Order], str | None, list[Resource]]:
    """The orders of the page, where they go on, and reports that belong to none of the patient's orders."""
    about = f"Patient/{patient}"
    if not visit.allows("ServiceRequest", "s"):
        return [], None, []
    page = visit.asked("page")
    found, procedures, steps, reports, bookings = await visit.desk.together(
        visit.desk.page("ServiceRequest", page)
        if page
        else visit.desk.search(
            "ServiceRequest", subject=about, intent="order", _sort="-authored", _count=PAGE, _include="ServiceRequest:requester"
        ),
        _search(visit, "ServiceRequest", subject=about, intent="filler-order", _elements="id,basedOn", _sort="-_id"),
        _search(visit, "Task", patient=about, intent="plan", _elements=_STEP, _sort="-_id"),
        _search(visit, "DiagnosticReport", subject=about, _elements="id,status,basedOn,code,issued", _sort="-_id"),
        _search(visit, "Appointment", patient=about, _elements="id,status,basedOn,start", _sort="-_id"),
    )
    of_order = {f"ServiceRequest/{p['id']}": _references(p) for p in procedures}
    steps_of, reports_of, bookings_of = (_by_order(each, of_order) for each in (steps, reports, bookings))
    rows = [
        _row(visit, order, *(each.get(f"ServiceRequest/{order['id']}", []) for each in (steps_of, reports_of, bookings_of)))
        for order in found
    ]
    known = {reference for references in (*of_order.values(), *of_order) for reference in references} if not page else set()
    known |= {f"ServiceRequest/{order['id']}" for order in found} | of_order.keys()
    loose = [r for r in reports if not known.intersection(_references(r))] if not page and found.next is None else []
    return rows, found.next, loose


def _row(visit: Visit, order: Resource, steps: list[Resource], reports: list[Resource], bookings: list[Resource]) -> Order:
    begun = [s["executionPeriod"]["start"] for s in steps if "start" in s.get("executionPeriod", {})]
    live = [b for b in bookings if b.get("status") not in {"cancelled", "entered-in-error", "noshow", "proposed"}]
    starts = [b["start"] for b in live if "start" in b]
    planned = [s["restriction"]["period"]["start"] for s in steps if "start" in s.get("restriction", {}).get("period", {})]
    at = min(begun, default=None) or min(starts, default=None) or min(planned, default=None)
    states = list(dict.fromkeys(s["status"] for s in steps))
    told = [(r, report_address(visit, r)) for r in reports]
    return Order(order, address(visit, order["id"]), states, at, told, live[0].get("status", "") if live else "")


def report_address(visit: Visit, report: Resource) -> str:
    """Where a report is read."""
    return f"/reading/reports/{report['id']}" if visit.allows("DiagnosticReport", "r") else ""


async def _search(visit: Visit, kind: str, **parameters: Any) -> Found:
    """Nothing for kinds that the role doesn't see."""
    if not visit.allows(kind, "s"):
        return Found([])
    found: Found = await visit.desk.search(kind, **parameters, _count=_MOST)
    return found


def _references(resource: Resource) -> list[str]:
    return [str(r.get("reference", "")) for r in resource.get("basedOn", ())]


def _by_order(found: Found, of_order: dict[str, list[str]]) -> dict[str, list[Resource]]:
    """What is based on an order, or on a requested procedure of it; each once."""
    made: dict[str, list[Resource]] = {}
    for each in found:
        orders = dict.fromkeys(o for r in _references(each) for o in of_order.get(r, [r]))
        for order in orders:
            made.setdefault(order, []).append(each)
    return made
