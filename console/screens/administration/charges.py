"""Charges to look at: those that are held, one of them with what can be done, an order's, and a day's reconciliation."""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.responses import Response

from console.asking import Found
from console.formats import concept
from console.screen import Door, does, shows
from console.visit import Visit
from fhir_server.elements import codings
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import charge_item
from resources.charging import catalogue, review

_PATH = "/administration/charges"
_PAGE = "100"


@dataclass(frozen=True, slots=True)
class Row:
    """A charge in a list. `why`: the reasons for which it is held."""

    id: str
    patient: Resource | None
    status: str
    component: str
    code: str
    modifiers: str
    quantity: Any
    performed: str | None
    why: list[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """What `$reconciliation` has found. `link`: to where it is mended; `order`: what can be charged now."""

    kind: str
    text: str
    about: str
    link: str
    order: str


def _row(charge: Resource, found: Found) -> Row:
    code = charge.get("code", {})
    return Row(
        charge["id"],
        found.of(charge.get("subject")),
        charge["status"],
        charge_item.component(charge),
        next((c["code"] for c in codings(code) if "code" in c), concept(code)),
        ", ".join(c["code"] for m in charge_item.modifiers(charge) for c in codings(m) if "code" in c),
        charge.get("quantity", {}).get("value", 1),
        charge.get("occurrenceDateTime") or charge.get("enteredDate"),
        review.held_for(charge),
    )


async def index(visit: Visit) -> Response:
    """What is held."""
    if at := visit.asked("page"):
        found = await visit.desk.page("ChargeItem", at)
    else:
        held = f"{catalogue.REVIEW}|{review.HELD}"
        found = await visit.desk.search("ChargeItem", _tag=held, _count=_PAGE, _include="ChargeItem:subject")
    return visit.page("administration/charges.html", rows=[_row(c, found) for c in found], next=found.next)


async def show(visit: Visit) -> Response:
    """One charge, and what can be done about it."""
    found = await visit.desk.search("ChargeItem", _id=visit.id(), _include="ChargeItem:subject")
    if not found.matches:
        raise fail("not-found", "there is no such charge")
    charge = found.matches[0]
    return visit.page(
        "administration/charge.html",
        row=_row(charge, found),
        charge=charge,
        version=charge["meta"]["versionId"],
        coding=next(codings(charge.get("code")), {}),
        diagnoses=[concept(r) for r in charge.get("reason", ())],
        order=charge_item.procedure_id(charge),
        stands=charge["status"] in charge_item.STANDS,
        held=charge["status"] == "planned",
        voidable=charge["status"] in {*charge_item.STANDS, "not-billable"},
    )


async def _call(visit: Visit, name: str, **arguments: Any) -> Response:
    """Do it to the version that was shown."""
    reason = visit.form.get("reason")
    await _is_as_shown(visit)
    changed = await visit.desk.operation(f"ChargeItem/{visit.id()}/${name}", reason=reason, **arguments)
    return visit.to(f"{_PATH}/{changed['id']}", f"administration-charge-{name}")


async def _is_as_shown(visit: Visit) -> None:
    now = await visit.desk.read(f"ChargeItem/{visit.id()}")
    if now["meta"]["versionId"] != visit.form.text("version"):
        raise fail("conflict", visit.t("administration.charge-changed", status=visit.t.code("state.charge", now["status"])))


async def release(visit: Visit) -> Response:
    return await _call(visit, "release")


async def void(visit: Visit) -> Response:
    return await _call(visit, "void")


async def correct(visit: Visit) -> Response:
    """What was typed differently from what stands there is to be another."""
    form = visit.form
    code, quantity, modifiers = form.get("code"), form.get("quantity"), form.text("modifiers").replace(",", " ").split()
    was = form.named("was-")
    arguments: dict[str, Any] = {}
    if code and (code, form.text("system")) != (was.get("code"), was.get("system", "")):
        arguments["code"] = _concept(code, form.get("system"))
    if quantity and quantity != was.get("quantity"):
        arguments["quantity"] = {"valueDecimal": _decimal(visit, quantity)}
    if modifiers and modifiers != was.get("modifiers", "").replace(",", " ").split():
        arguments["modifier"] = [_concept(m, form.get("system")) for m in modifiers]
    if diagnosis := form.get("diagnosis"):
        arguments["diagnosis"] = _concept(diagnosis, form.get("diagnosis-system"))
    return await _call(visit, "correct", **arguments)


def _concept(code: str, system: str | None) -> dict[str, Any]:
    return {"valueCodeableConcept": {"coding": [{**({"system": system} if system else {}), "code": code}]}}


def _decimal(visit: Visit, text: str) -> Decimal:
    try:
        number = Decimal(text.replace(",", "."))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or len(text) > 12:
        raise fail("value", visit.t("administration.not-a-number", text=text[:40]), "ChargeItem.quantity", status=422)
    return number


async def of_order(visit: Visit) -> Response:
    """All charges of an order or requested procedure."""
    order = f"ServiceRequest/{visit.id()}"
    asked, procedures = await visit.desk.together(
        visit.desk.read(order), visit.desk.search("ServiceRequest", based_on=order, intent="filler-order")
    )
    studies = await visit.desk.search(
        "ImagingStudy", basedon=",".join([order, *(f"ServiceRequest/{p['id']}" for p in procedures)])
    )
    services = ",".join(f"ImagingStudy/{s['id']}" for s in studies)
    rows: list[Row] = []
    if services:
        found = await visit.desk.search("ChargeItem", service=services, _include="ChargeItem:subject")
        rows = [_row(charge, found) for charge in found]
    return visit.page("administration/charges_order.html", order=asked, rows=rows)


async def charge(visit: Visit) -> Response:
    """Charge what is due."""
    made = await visit.desk.operation(f"ServiceRequest/{visit.id()}/$charge")
    done = "administration-charge-charge" if made.get("parameter") else "administration-nothing-due"
    return visit.to(f"{_PATH}/orders/{visit.id()}", done)


async def reconciliation(visit: Visit) -> Response:
    """What of a day is not charged, or not rightly."""
    day = visit.asked("date") or (visit.today - timedelta(days=1)).isoformat()
    findings: list[Finding] = []
    hidden = 0
    try:
        answered = await visit.desk.question("ChargeItem/$reconciliation", date=str(date.fromisoformat(day)))
    except ValueError:
        visit.failed(fail("value", visit.t("administration.not-a-day", text=day[:20])))
    else:
        for row in answered.get("parameter", ()):
            if row["name"] == "finding":
                findings.append(_finding({p["name"]: p for p in row["part"]}))
            elif row["name"] == "hidden":
                hidden = row["valueInteger"]
    return visit.page("administration/reconciliation.html", day=day, findings=findings, hidden=hidden)


def _finding(parts: dict[str, Any]) -> Finding:
    about = parts["about"]["valueReference"]["reference"]
    type_, _, id_ = about.partition("/")
    kind = parts["kind"]["valueCode"]
    order = id_ if type_ == "ServiceRequest" and kind.endswith("-without-charge") else ""
    link = {"ChargeItem": f"{_PATH}/{id_}", "ServiceRequest": f"{_PATH}/orders/{id_}"}.get(type_, "")
    return Finding(kind, parts["text"]["valueString"], about, link, order)


DOORS: list[Door] = [
    shows(_PATH, index, "ChargeItem.s"),
    shows(f"{_PATH}/reconciliation", reconciliation, "$reconciliation"),
    shows(f"{_PATH}/orders/{{id}}", of_order, "ChargeItem.s"),
    does(f"{_PATH}/orders/{{id}}/charge", charge, of_order, "$charge"),
    shows(f"{_PATH}/{{id}}", show, "ChargeItem.s"),
    does(f"{_PATH}/{{id}}/release", release, show, "$release-charge"),
    does(f"{_PATH}/{{id}}/correct", correct, show, "$correct-charge"),
    does(f"{_PATH}/{{id}}/void", void, show, "$void-charge"),
]
