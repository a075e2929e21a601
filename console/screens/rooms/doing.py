"""What is done at the page of an examination: each form is one operation, judged by that."""

from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.responses import Response

from console.asking import reference
from console.formats import concept
from console.screens.rooms import coded, step
from console.visit import Visit
from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import task
from smart_auth.page_forms import internal_path

_UCUM = "http://unitsofmeasure.org"


async def move(visit: Visit) -> Response:
    """`$track` or `$start`: where the patient is. `at` is a time before now; `next` the page to go on with."""
    state, said = visit.form.text("state"), {"at": _moment(visit, "at")}
    if state == "start":
        await _do(visit, "start", **said)
    else:
        await _do(visit, "track", state=state, **said)
    path = internal_path(visit.form.get("next"), _page(visit))
    return visit.to(path, "rooms-started" if state == "start" else "rooms-moved")


async def complete(visit: Visit) -> Response:
    """`$complete`."""
    await _do(visit, "complete", **await _done(visit))
    return visit.to(_page(visit), "rooms-completed")


async def stop(visit: Visit) -> Response:
    """`$stop`; with `repeat`, to the step that is made for that."""
    reason = _chosen(visit, coded.STOPS, "reason")
    answer = await _do(visit, "stop", reason=reason, repeat=visit.form.get("repeat") == "yes" or None, **await _done(visit))
    return visit.to(_new_step(visit, answer), "rooms-stopped")


async def repeat(visit: Visit) -> Response:
    """`$repeat`: images that were rejected, or all anew."""
    anew = visit.form.get("new-step") == "yes" or None
    reason = _chosen(visit, coded.REJECTS, "reason")
    answer = await _do(visit, "repeat", reason=reason, images=_number(visit, "images"), new_step=anew)
    return visit.to(_new_step(visit, answer), "rooms-repeated")


async def give_contrast(visit: Visit) -> Response:
    """`$give-contrast`."""
    picture = await step.read(visit)
    chosen = visit.form.get("agent")
    route = coded.of_table(visit, coded.ROUTES, "route")
    await _do(
        visit,
        "give-contrast",
        agent={"valueCodeableConcept": coded.agent(chosen, picture.agents)} if chosen else None,
        dose=_dose(visit),
        route={"valueCodeableConcept": route} if route else None,
        at=_moment(visit, "at"),
        override_reason=visit.form.get("override-reason"),
    )
    return visit.to(_page(visit), "rooms-given")


async def decide_protocol(visit: Visit) -> Response:
    """`$protocol` of the requested procedure, or of this step alone."""
    picture = await step.read(visit)
    known = {coded.key(c): c for c in (*picture.protocols, *picture.proposed)}
    protocols = [known[k] for k in visit.form.all("protocol") if k in known]
    protocols += [{"text": t} for t in visit.form.all("other-protocol")]
    agents = [coded.agent(k, picture.agents) for k in dict.fromkeys(visit.form.all("contrast"))]
    only = visit.form.get("only-this") == "yes"
    await visit.desk.operation(
        f"{_requested(picture)}/$protocol",
        if_match=visit.form.get("requested-version"),
        protocol=[{"valueCodeableConcept": p} for p in protocols],
        contrast=[{"valueCodeableConcept": a} for a in agents],
        pre_medication=[{"valueCodeableConcept": m} for m in _before(visit, picture)],
        preparation=visit.form.get("preparation"),
        note=visit.form.get("note"),
        step=reference(f"Task/{visit.id()}") if only else None,
    )
    return visit.to(_page(visit), "rooms-protocolled")


def _before(visit: Visit, picture: step.Picture) -> list[Resource]:
    """What is given before: what there was, unless that was changed."""
    text = visit.form.text("pre-medication")
    if text == ", ".join(concept(m) for m in picture.pre_medication):
        return picture.pre_medication
    return [{"text": text}] if text else []


async def clear(visit: Visit) -> Response:
    """`$clear-safety` for the issues that are ticked."""
    picture = await step.read(visit)
    named = [reference(f"DetectedIssue/{i}") for i in visit.form.all("issue")]
    if not named:
        raise fail("required", visit.t("rooms.tick-one"), status=422)
    await visit.desk.operation(f"{_requested(picture)}/$clear-safety", reason=visit.form.get("reason"), issue=named)
    return visit.to(_page(visit), "rooms-cleared")


async def check_in(visit: Visit) -> Response:
    """`$check-in` of the appointment."""
    await visit.desk.operation(f"{await _appointment(visit)}/$check-in")
    return visit.to(_page(visit), "rooms-checked-in")


async def no_show(visit: Visit) -> Response:
    """`$no-show` of the appointment."""
    await visit.desk.operation(f"{await _appointment(visit)}/$no-show")
    return visit.to(_page(visit), "rooms-no-show")


def _page(visit: Visit) -> str:
    return f"/rooms/steps/{visit.id()}"


async def _do(visit: Visit, operation: str, **arguments: Any) -> Any:
    """An operation on the step, in the version that the page showed."""
    return await visit.desk.operation(f"Task/{visit.id()}/${operation}", if_match=visit.form.get("version"), **arguments)


async def _done(visit: Visit) -> dict[str, Any]:
    """What `$complete` and `$stop` take of what was done."""
    protocols = [await _known(visit, text) for text in visit.form.all("protocol")]
    return {
        "start": _moment(visit, "start"),
        "end": _moment(visit, "end"),
        "protocol": [{"valueCodeableConcept": p} for p in protocols],
        "series": _number(visit, "series"),
        "images": _number(visit, "images"),
        "note": visit.form.get("note"),
    }


async def _known(visit: Visit, text: str) -> Resource:
    """The protocol of the step that is called so, or else the words."""
    picture = await step.read(visit)
    return next((p for p in (*picture.protocols, *picture.proposed) if concept(p) == text), {"text": text})


async def _appointment(visit: Visit) -> str:
    booked = task.appointment_of(await visit.desk.read(f"Task/{visit.id()}"))
    if booked is None:
        raise fail("business-rule", visit.t("rooms.not-booked"), status=422)
    return booked


def _requested(picture: step.Picture) -> str:
    return str(picture.step.get("focus", {}).get("reference", ""))


def _moment(visit: Visit, field: str) -> dict[str, str] | None:
    text = visit.form.get(field)
    return {"valueDateTime": clock.instant(visit.moment(text))} if text else None


def _number(visit: Visit, field: str) -> int | None:
    text = visit.form.get(field)
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise fail("value", visit.t("rooms.not-a-number", text=text[:20]), status=422)
    return None if text is None else int(text)


def _dose(visit: Visit) -> dict[str, Any] | None:
    text = visit.form.text("dose")
    try:
        value = Decimal(text.replace(",", ".")) if text and len(text) < 10 else Decimal(0)
    except InvalidOperation:
        value = Decimal(0)
    if not (value.is_finite() and value > 0):
        raise fail("value", visit.t("rooms.not-a-number", text=text[:20]), status=422)
    return {"valueQuantity": {"value": value, "unit": "mL", "system": _UCUM, "code": "mL"}}


def _chosen(visit: Visit, table: coded.Table, field: str) -> dict[str, Any] | None:
    found = coded.of_table(visit, table, field)
    return {"valueCodeableConcept": found} if found else None


def _new_step(visit: Visit, answer: Any) -> str:
    """The page of the step that was made, if one was."""
    rows = {p["name"]: p.get("valueReference", {}).get("reference", "") for p in answer.get("parameter", ())}
    return f"/rooms/steps/{rows['new-step'].rpartition('/')[2]}" if "new-step" in rows else _page(visit)
