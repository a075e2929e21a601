"""Work items: what a person must look at, all kinds but those of the reading room, of safety and of protocols, which have lists
of their own. What was found about an order is decided on at the order's page, the rest here."""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from console.asking import Found
from console.screens.orders.compare import Compared, of_mismatch
from console.screens.orders.facts import OPEN_STATUSES, kind, people
from console.visit import Visit
from fhir_server.elements import has_code
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from resources import terms
from resources.order_intake import KINDS
from resources.scheduling import freed
from resources.task import OPEN

# The kinds by what they are about, in the order in which they are offered.
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "order": (
        *KINDS, "order-hold", "order-changed", "order-not-taken", "unknown-order", "parked-message-refused", "order-moved",
        "placer-number-refused", "unnamed-procedure", "result-for-revoked-order", "numbers-run-out",
    ),
    "identity": ("patient-mismatch",),
    "coverage": (
        "authorization-missing", "authorization-expiring", "authorization-exhausted", "eligibility-failed", "coverage-denied",
    ),
    "schedule": ("freed-time", "displaced-booking", "booked-outside-hours", "appointment-without-order", "unknown-station"),
    "examination": (
        "unscheduled-procedure-step", "unexpected-procedure-step", "wrong-worklist-entry", "performed-step-incomplete",
        "performed-step-abandoned", "examination-stopped", "study-without-order", "unexpected-study", "study-to-be-split",
        "images-unavailable", "started-despite-stop", "contrast-despite-stop",
    ),
    "message": ("message-refused", "invalid-message", "accepted-message-refused", "unknown-sender", "interface-alert"),
}  # fmt: skip
_NEEDS: Final = {"Endpoint": "Endpoint.u", "Task": "$start", "Appointment": "$appointment-book"}  # what these places are for
_OF_ORDERS: Final = frozenset({*KINDS, terms.ORDER_HOLD})  # settled by a decision on the order


def _codes(family: str) -> str:
    kinds = FAMILIES[family] if family else tuple(k for kinds in FAMILIES.values() for k in kinds)
    return ",".join(f"{terms.TASK_CODE}|{k}" for k in kinds)


OF_ALL: Final = {"code": _codes(""), "status": OPEN_STATUSES}


@dataclass(frozen=True, slots=True)
class Item:
    """A work item in a list. `to` is where it is decided on."""

    id: str
    kind: str
    text: str
    priority: str
    patient: Resource | None
    since: str | None
    to: str


async def search(visit: Visit, family: str, priority: str | None, count: str) -> Found:
    """The open ones: the urgent before the others, then the oldest."""
    return await visit.desk.search(
        "Task", code=_codes(family), status=OPEN_STATUSES, priority=priority, _count=count, _include="Task:patient",
        _sort="-priority,authored-on",
    )  # fmt: skip


def rows(found: Found) -> list[Item]:
    """The work items of a list."""
    return [item(task, found.of(task.get("for"))) for task in found]


def item(task: Resource, patient: Resource | None = None) -> Item:
    """A work item, and whom it is about."""
    text, priority = task.get("description", ""), task.get("priority", "routine")
    return Item(task["id"], kind(task), text, priority, patient, task.get("authoredOn"), _place(task))


def _place(task: Resource) -> str:
    about = str(task.get("focus", {}).get("reference", ""))
    if kind(task) in _OF_ORDERS and about.startswith("ServiceRequest/"):
        return f"/orders/{about.partition('/')[2]}"
    return f"/orders/items/{task['id']}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where what a work item is about is looked after: an address of the console and what it is called (a text's name)."""

    to: str
    text: str


async def show(visit: Visit) -> Response:
    """One work item: what it says, what differs, and what can be done about it."""
    task = await visit.desk.read(f"Task/{visit.id()}")
    if visit.request.method == "GET" and task["status"] in OPEN and _place(task) != f"/orders/items/{task['id']}":
        return visit.to(_place(task))
    whose = str(task.get("for", {}).get("reference", ""))
    patient = await _patient(visit, whose)
    compared: list[Compared] = []
    others: list[Resource] = []
    replaced: list[str] = []
    if kind(task) == "patient-mismatch" and patient is not None:
        compared = of_mismatch(visit, task)
        named = [i["valueReference"]["reference"] for i in task.get("input", ()) if _is_record(i)]
        others = [p for reference in named if (p := await _patient(visit, reference))]
        links = [link["other"] for link in patient.get("link", ()) if link["type"] == "replaces"]
        replaced = [str(other.get("reference")).partition("/")[2] for other in links]
    return visit.page(
        "orders/item.html", task=task, kind=kind(task), patient=patient, compared=compared, others=others, replaced=replaced,
        places=_places(visit, task), open=task["status"] in OPEN,
    )  # fmt: skip


def _is_record(detail: Resource) -> bool:
    to = str(detail.get("valueReference", {}).get("reference", ""))
    return has_code(detail.get("type"), terms.TASK_DETAIL, "candidate") and to.startswith("Patient/")


async def _patient(visit: Visit, reference: str) -> Resource | None:
    if not reference.startswith("Patient/") or not visit.can("Patient.s"):
        return None
    found = await visit.desk.search("Patient", _id=reference.partition("/")[2])
    return next(iter(found), None)


def _places(visit: Visit, task: Resource) -> list[Place]:
    about, of_kind = str(task.get("focus", {}).get("reference", "")), kind(task)
    type_, _, id_ = about.partition("/")
    known = {
        "ServiceRequest": Place(f"/orders/{id_}", "orders.to-order"),
        "Patient": Place(f"/patients/{id_}", "orders.to-patient"),
        "Endpoint": Place(f"/interfaces/partners/{id_}", "orders.to-partner"),
        "Task": Place(f"/rooms/steps/{id_}", "orders.to-step"),
        "Appointment": Place(_waiting_list(visit, task), "orders.to-waiting"),
    }
    if visit.calls("reconcile"):
        known |= {kind: Place(f"/rooms/settle/{about}", "orders.to-settling") for kind in ("Procedure", "ImagingStudy")}
    places = [known[type_]] if type_ in known and (type_ not in _NEEDS or visit.can(_NEEDS[type_])) else []
    if of_kind == "patient-mismatch" and type_ == "ServiceRequest" and visit.calls("move"):
        places.append(Place(f"/exams/{id_}/move", "orders.to-move"))
    return places


def _waiting_list(visit: Visit, task: Resource) -> str:
    """The waiting list beside the schedule, of the day on which a time has become free."""
    _, begins = freed.told(task)
    day = f"&day={begins.astimezone(visit.zone).date().isoformat()}" if begins is not None else ""
    return f"/schedule?list=waiting{day}"


async def settle(visit: Visit) -> Response:
    """Somebody has looked at it: it ends, with what was found or done about it, and who says so."""
    said = {"time": visit.now.isoformat(timespec="seconds"), "text": visit.form.text("reason")}
    task = await visit.desk.read(f"Task/{visit.id()}")
    me = {"reference": visit.me}
    note = {"authorReference": me} if len(await people(visit, [me])) else {"authorString": visit.session.user.name}
    changes = {"status": "completed", "statusReason": {"text": said["text"]}, "note": [*task.get("note", ()), said | note]}
    try:
        adding = ({"op": "add", "path": f"/{element}", "value": value} for element, value in changes.items())
        await visit.desk.patch(f"Task/{visit.id()}", *adding, if_match=visit.form.get("version"))
    except FhirError as error:
        raise fail("conflict", visit.t("orders.item-changed"), status=412) if error.status == 412 else error from None
    return visit.to("/orders", "orders-settled", tab="items")
