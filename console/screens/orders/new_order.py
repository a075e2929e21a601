"""An order taken by hand, as by telephone: find the patient, choose the examination, say how urgent it is and why.

A form makes one order, however often it is sent (a double click, a reload, two at once): it carries a random key, and the
order an identifier made of that and of what was filled in.
"""

import hashlib
import uuid
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from console import picking
from console.screens.orders import catalogue
from console.screens.orders.facts import name_of
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms

_FORM: Final = "urn:fhir-ris:form"  # system of the identifier
_MOST_PEOPLE = "300"
_PHYSICIANS = frozenset({"referrer", "radiologist"})  # who takes an order by hand, orders it


async def show(visit: Visit) -> Response:
    """Without `patient`, the search for one; with it, the order's form."""
    chosen = visit.asked("patient") or visit.form.text("patient")
    if not chosen:
        return visit.page("orders/pick.html", purpose="new", typed="", found=None)
    patient = await visit.desk.read(f"Patient/{chosen}")
    entries, people = await visit.desk.together(
        catalogue.entries(visit),
        visit.desk.search("Practitioner", _sort="family", _count=_MOST_PEOPLE, _elements="name"),
    )
    called = [(p["id"], name_of({"reference": f"Practitioner/{p['id']}"}, people)) for p in people]
    return visit.page(
        "orders/new.html", patient=patient, entries=entries, people=[(i, n) for i, n in called if n],
        priorities=terms.PRIORITIES[::-1],
        sides=catalogue.SIDES, form_key=visit.form.get("key") or uuid.uuid4(),
        mine=visit.me.partition("/")[2] if visit.role in _PHYSICIANS else "",
    )  # fmt: skip


async def look_for(visit: Visit) -> Response:
    """The patients that what was typed may mean."""
    typed = visit.form.text("q")
    return visit.page("orders/pick.html", purpose="new", typed=typed, found=await picking.patients(visit, typed))


async def create(visit: Visit) -> Response:
    """Take it, of a known patient."""
    form = visit.form
    if not form.get("patient"):
        raise fail("required", visit.t("orders.no-patient"), status=422)
    entry = await catalogue.entry(visit, form.text("examination"))
    # Of the fields too: a form that was changed after "back" is another order.
    filled_in = hashlib.sha256(urlencode(sorted(form.fields.items()), doseq=True).encode()).hexdigest()
    order: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": [{"use": "secondary", "system": _FORM, "value": filled_in}],
        "status": "active",
        "intent": "order",
        "code": entry["code"],
        "priority": form.get("priority") or "routine",
        "subject": {"reference": f"Patient/{form.text('patient')}"},
        "authoredOn": visit.now.isoformat(timespec="seconds"),
    }
    if reason := form.get("reason"):
        order["reasonCode"] = [{"text": reason}]
    if wanted := form.get("wanted"):
        order["occurrenceDateTime"] = wanted
    if site := catalogue.side(form.text("side"), visit.t):
        order["bodySite"] = [site]
    if by := form.get("by"):
        order["requester"] = {"reference": f"Practitioner/{by}"}
    if note := form.get("note"):
        order["note"] = [{"text": note}]
    made = await visit.desk.create(order, unless=f"identifier={_FORM}|{filled_in}")
    return visit.to(f"/orders/{made['id']}", "orders-created")
