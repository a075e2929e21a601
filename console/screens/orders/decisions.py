"""What is done with an order: accepted, rejected, held, cancelled, a procedure added. Whether it may be, the operations say."""

from starlette.responses import Response

from console.asking import Argument
from console.screens.orders import catalogue, history
from console.screens.orders.compare import moment
from console.visit import Visit
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource

DECISIONS = ("accept", "reject", "hold", "cancel")
# What an order that takes the place of another has of it.
_KEPT = (
    "subject", "encounter", "priority", "requester", "reasonCode", "reasonReference", "occurrenceDateTime", "occurrencePeriod",
    "insurance", "supportingInfo", "note",
)  # fmt: skip


async def decide(visit: Visit) -> Response:
    """The operation that the address names, on the order as the page showed it."""
    form, name = visit.form, visit.request.url.path.rpartition("/")[2]
    group = True if form.get("group") else None
    to, version, instead = f"ServiceRequest/{visit.id()}/${name}", form.get("version"), await _instead(visit)
    try:
        answer = await visit.desk.operation(to, if_match=version, reason=form.get("reason"), group=group, replacement=instead)
    except FhirError as error:
        raise await told(visit, error) from None
    if instead:
        made = next(p["valueReference"]["reference"] for p in answer["parameter"] if p["name"] == "replacement")
        return visit.to(f"/orders/{made.partition('/')[2]}", "orders-replaced")
    place = {"list": "/orders", "duplicates": f"/orders/{form.text('from')}"}.get(form.text("back"))
    return visit.to(place or f"/orders/{visit.id()}", f"orders-{name}")


async def _instead(visit: Visit) -> Resource | None:
    """The order that takes the place of one that is cancelled: another examination, all else as it was ordered."""
    if not (chosen := visit.form.get("examination")):
        return None
    order, entry = await visit.desk.together(
        visit.desk.read(f"ServiceRequest/{visit.id()}"), visit.desk.read(f"ActivityDefinition/{chosen}")
    )
    kept = {e: order[e] for e in _KEPT if e in order}
    new = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": entry["code"]}
    return new | {"authoredOn": visit.now.isoformat(timespec="seconds")} | kept


async def add_procedure(visit: Visit) -> Response:
    """What is needed too."""
    entry = await catalogue.entry(visit, visit.form.text("examination"))
    try:
        await visit.desk.operation(
            f"ServiceRequest/{visit.id()}/$add-procedure",
            if_match=visit.form.get("version"),
            code={"valueCodeableConcept": entry["code"]},
            bodySite=_site(visit),
            reason=visit.form.get("reason"),
        )
    except FhirError as error:
        raise await told(visit, error) from None
    return visit.to(f"/orders/{visit.id()}", "orders-added")


def _site(visit: Visit) -> Argument:
    site = catalogue.side(visit.form.text("side"), visit.t)
    return {"valueCodeableConcept": site} if site else None


async def told(visit: Visit, error: FhirError) -> FhirError:
    """The refusal; where somebody was faster, it says who, and what became of the order."""
    if error.status != 412:
        return error
    order = await visit.desk.read(f"ServiceRequest/{visit.id()}")
    state = visit.t.code("state.order", order["status"])
    who, at = await history.first(visit, order)
    if who:
        text = visit.t("orders.somebody-was-first", who=who, at=moment(visit, at), state=state)
    else:
        text = visit.t("orders.changed-meanwhile", state=state)
    return fail("conflict", text, status=412)
