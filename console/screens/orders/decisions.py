"""What is done with an order: accepted, rejected, held, cancelled, a procedure added. Whether it may be, the operations say."""

from starlette.responses import Response

from console.asking import Argument
from console.screens.orders import catalogue, history
from console.screens.orders.compare import moment
from console.visit import Visit
from fhir_server.outcome import FhirError, fail

DECISIONS = ("accept", "reject", "hold", "cancel")


async def decide(visit: Visit) -> Response:
    """The operation that the address names, on the order as the page showed it."""
    name = visit.request.url.path.rpartition("/")[2]
    group = True if visit.form.get("group") else None
    to, version = f"ServiceRequest/{visit.id()}/${name}", visit.form.get("version")
    try:
        await visit.desk.operation(to, if_match=version, reason=visit.form.get("reason"), group=group)
    except FhirError as error:
        raise await told(visit, error) from None
    place = {"list": "/orders", "duplicates": f"/orders/{visit.form.text('from')}"}.get(visit.form.text("back"))
    return visit.to(place or f"/orders/{visit.id()}", f"orders-{name}")


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
