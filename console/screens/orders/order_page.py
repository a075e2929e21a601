"""An order's page: the order and its patient, what was found, who pays, what is to be done, and what was decided."""

from dataclasses import dataclass

from starlette.responses import Response

from console.asking import Found
from console.formats import concept
from console.screens.orders import catalogue, coverage, history
from console.screens.orders.compare import Compared, of_orders
from console.screens.orders.facts import Finding, findings, kind, row
from console.screens.orders.items import item
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import service_request, task, terms
from resources.device import name as device_name
from resources.safety.findings import stands
from resources.task import OPEN

_OPEN_ORDER = frozenset({"draft", "active", "on-hold"})


@dataclass(frozen=True, slots=True)
class Step:
    """A scheduled step: its state, and when and where it is to be."""

    id: str
    status: str
    modality: str
    start: str | None
    scanner: str


@dataclass(frozen=True, slots=True)
class Procedure:
    """A requested procedure with its steps."""

    resource: Resource
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class Double:
    """Orders that may be one ordered twice: this one first, then the others, and what each says."""

    orders: list[Resource]
    compared: list[Compared]


async def show(visit: Visit) -> Response:
    """The page; of a requested procedure, that of its order."""
    order = await visit.desk.read(f"ServiceRequest/{visit.id()}")
    if not service_request.is_order(order):
        of = next((str(r["reference"]) for r in order.get("basedOn", ()) if "reference" in r), "")
        if service_request.is_procedure(order) and of and visit.request.method == "GET":
            return visit.to(f"/orders/{of.rpartition('/')[2]}")
        raise fail("not-found", visit.t("orders.no-imaging-order"))
    about = f"ServiceRequest/{order['id']}"
    came, below, listed = await visit.desk.together(_around(visit, order), _below(visit, about), catalogue.entries(visit))
    items = [t for t in came.included("Task") if t.get("focus", {}).get("reference") == about]
    waiting, procedures = [i for i in items if i["status"] in OPEN], _procedures(below)
    known, cover, decided, double = await visit.desk.together(
        _known(visit, order["subject"]["reference"], below),
        coverage.of_order(visit, order, [p.resource for p in procedures], catalogue.of(order, listed), waiting),
        history.decided(visit, order, items),
        _double(visit, order, came),
    )
    found = findings(waiting)
    return visit.page(
        "orders/order.html", order=order, row=row(order, came, items), found=found, double=double,
        others=[item(i) for i in waiting if not findings([i]) and kind(i) != terms.ORDER_HOLD],
        held=[_why(i) for i in waiting if not findings([i]) and kind(i) == terms.ORDER_HOLD],
        procedures=procedures, known=known, cover=cover, decided=decided, entries=listed, sides=catalogue.SIDES,
        may=_may(visit, order, found, procedures),
    )  # fmt: skip


def _why(held: Resource) -> str:
    """Why the department holds an order."""
    return concept(held["reasonCode"]) if "reasonCode" in held else str(held.get("description", ""))


async def _around(visit: Visit, order: Resource) -> Found:
    """The order with its patient, who ordered it, and the work items that are about it or name it."""
    wanted, items = ("ServiceRequest:patient", "ServiceRequest:requester"), ("Task:focus", "Task:based-on")
    return await visit.desk.search("ServiceRequest", _id=order["id"], _include=wanted, _revinclude=items)


async def _below(visit: Visit, about: str) -> Found:
    """The requested procedures with their steps and the stations of these, and what speaks against an examination."""
    speaks_against = "DetectedIssue:implicated" if visit.can("DetectedIssue.s") else None
    return await visit.desk.search(
        "ServiceRequest", ("_include:iterate", "Task:owner"), based_on=about, intent="filler-order",
        _revinclude=[r for r in ("Task:based-on", speaks_against) if r],
    )  # fmt: skip


async def _known(visit: Visit, patient: str, below: Found) -> dict[str, list[Resource]]:
    """What of the patient's record holds and matters here, as far as the role sees it; what speaks against it first."""
    issues = [i for i in below.included("DetectedIssue") if i["status"] != "cancelled"]
    kinds = [k for k in ("AllergyIntolerance", "Flag") if visit.can(f"{k}.s")]
    found = await visit.desk.together(*(visit.desk.search(k, patient=patient.partition("/")[2], _count="50") for k in kinds))
    return {"DetectedIssue": issues} | {k: [r for r in f if stands(r)] for k, f in zip(kinds, found, strict=True)}


def _procedures(below: Found) -> list[Procedure]:
    steps: dict[str, list[Step]] = {}
    for step in below.included("Task"):
        if task.is_step(step):
            period = step.get("restriction", {}).get("period", {})
            scanner = device_name(below.of(step.get("owner")))
            shown = Step(step["id"], step["status"], task.modality(step) or "", period.get("start"), scanner)
            steps.setdefault(step.get("focus", {}).get("reference", ""), []).append(shown)
    listed = sorted(below, key=lambda p: str(p["id"]))
    return [Procedure(p, steps.get(f"ServiceRequest/{p['id']}", [])) for p in listed]


async def _double(visit: Visit, order: Resource, came: Found) -> Double | None:
    """The other orders that a work item names beside this one."""
    doubts = [t for t in came.included("Task") if kind(t) == "duplicate-order" or findings([t])]
    named = [str(r.get("reference")) for t in doubts if t["status"] in OPEN for r in t.get("basedOn", ())]
    ids = dict.fromkeys(r.partition("/")[2] for r in named if r.startswith("ServiceRequest/"))
    ids.pop(order["id"], None)
    if not ids:
        return None
    both = [order["id"], *ids]
    found = await visit.desk.search("ServiceRequest", _id=",".join(both), _include="ServiceRequest:requester")
    by_id = {o["id"]: o for o in found}
    orders = [by_id[i] for i in both if i in by_id and (i == order["id"] or by_id[i]["status"] in _OPEN_ORDER)]
    return Double(orders, of_orders(visit, orders, found)) if len(orders) > 1 else None


def _may(visit: Visit, order: Resource, found: list[Finding], procedures: list[Procedure]) -> set[str]:
    """What is offered: where the state makes sense of it, and the role calls it."""
    status = order["status"]
    sense = {
        "order-accept": status in {"draft", "on-hold"} or (status == "active" and bool(found)),
        "order-reject": status == "draft" or (status == "on-hold" and (bool(found) or not procedures)),
        "order-hold": status in {"draft", "active"},
        "order-cancel": status in {"active", "on-hold"} or (status == "draft" and not visit.calls("order-reject")),
        "order-add-procedure": status in {"active", "on-hold"},
        "submit": status in _OPEN_ORDER,
        "override-authorization": status in _OPEN_ORDER,
        "appointment-book": status == "active" and any(step.status == "requested" for p in procedures for step in p.steps),
    }
    return {name for name, makes in sense.items() if makes and visit.calls(name)}
