"""Two records that may be of one patient, beside each other; one can take the place of the other, and that be taken back."""

from starlette.responses import Response

from console import picking
from console.screens.orders.compare import of_patients
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource


async def show(visit: Visit) -> Response:
    """The records `one` and `other`; while there is no other one, a search for it. `item` is the work item that led here."""
    ids = [visit.asked(name) or visit.form.text(name) for name in ("one", "other")]
    records = await visit.desk.together(*(visit.desk.read(f"Patient/{i}") for i in dict.fromkeys(ids) if i))
    return _page(visit, records)


def _page(visit: Visit, records: list[Resource], typed: str = "", found: list[Resource] | None = None) -> Response:
    compared = of_patients(visit, records) if records else []
    item = visit.asked("item") or visit.form.text("item")
    return visit.page("orders/records.html", records=records, compared=compared, item=item, typed=typed, found=found)


async def look_for(visit: Visit) -> Response:
    """Other records, for the one that is there."""
    one, typed = visit.form.text("one"), visit.form.text("q")
    records = [await visit.desk.read(f"Patient/{one}")] if one else []
    found = [p for p in await picking.patients(visit, typed) if p["id"] != one]
    return _page(visit, records, typed, found)


async def merge(visit: Visit) -> Response:
    """`keep` takes the place of the other one."""
    one, other, keep = (visit.form.text(name) for name in ("one", "other", "keep"))
    if keep not in {one, other} or not one or not other:
        raise fail("required", visit.t("orders.no-record"), status=422)
    prior = other if keep == one else one
    await visit.desk.operation(f"Patient/{keep}/$merge", prior=prior)
    return _after(visit, keep, "orders-merged")


async def unmerge(visit: Visit) -> Response:
    """The record `prior` stands for itself again."""
    await visit.desk.operation(f"Patient/{visit.form.text('prior')}/$unmerge")
    return _after(visit, visit.form.text("one"), "orders-unmerged")


def _after(visit: Visit, record: str, done: str) -> Response:
    """Back to the work item, for it to be settled; else to the record."""
    if item := visit.form.get("item"):
        return visit.to(f"/orders/items/{item}", done)
    return visit.to("/orders/records", done, one=record)
