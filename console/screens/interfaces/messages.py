"""/interfaces/messages: the messages received and sent, searched and page by page; /interfaces/messages/{id}: one of them."""

import json
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from bridges.traffic import ASIDE, reference_of
from bridges.v2 import message_search, message_show
from bridges.v2.message_search import Wanted
from bridges.v2.operations import NotPossible
from console import v2_view
from console.live import BY_ITSELF
from console.screens.interfaces import rows
from console.visit import Visit
from fhir_server import clock
from fhir_server.outcome import fail

PAGE: Final = 50
STATES_IN: Final = ("CA", "AA", "AE", "AR", "held", "parked", "played", "refused-later", "given-up")
STATES_OUT: Final = ("pending", "delivered", "refused", "dead", "invalid", "cancelled")
_FILTERS: Final = ("partner", "type", "state", "control", "since", "until")
_NUMBERS: Final = ("patient", "order")  # never in an address
_WAITING: Final = frozenset({"pending", "refused", "dead", "invalid"})
_LONGEST_JSON: Final = 100_000


async def show(visit: Visit) -> Response:
    """Those that the address asks for: nothing that tells of a patient."""
    return await _list(
        visit, {name: visit.asked(name)[:200] for name in (*_FILTERS, "way", "place")} | dict.fromkeys(_NUMBERS, "")
    )


async def find(visit: Visit) -> Response:
    """Those of a patient or an order, whose number comes in a form; that it was looked for is on record."""
    asked = {name: visit.form.text(name)[:200] for name in (*_FILTERS, *_NUMBERS, "way", "place")}
    return await _list(visit, asked)


async def _list(visit: Visit, asked: dict[str, str]) -> Response:
    endpoints = await rows.endpoints(visit)
    sent = asked["way"] == "out"
    documents: list[dict[str, Any]] = []
    try:
        documents = await rows.operator(visit).find(_wanted(visit, asked))
    except ValueError:
        visit.failed(fail("value", visit.t("interfaces.no-such-place"), status=422))
    names = rows.names_of(endpoints=endpoints)
    place = message_search.place(documents, asked["place"]) if len(documents) == PAGE else ""
    kept = {name: value for name, value in asked.items() if value and name in (*_FILTERS, "way")}
    by_number = {name: asked[name] for name in _NUMBERS if asked[name]}
    codes = STATES_OUT if sent else STATES_IN
    states = [(code, visit.t.code("interfaces.state", code)) for code in codes]
    return visit.page(
        "interfaces/messages.html",
        sent=sent,
        asked=asked,
        by_number=by_number,
        found=[rows.message_row(d, names) for d in documents],
        partners=[(f"Endpoint/{e['id']}", str(e.get("name") or e["id"])) for e in endpoints],
        states=[*states, (",".join(ASIDE), visit.t("interfaces.set-aside"))] if sent else states,
        older=kept | {"place": place} if place else {},
        older_path=f"/interfaces/messages?{urlencode(kept | {'place': place})}",
        here=urlencode({name: value for name, value in kept.items() if name not in ("way", "state")}),
    )


def _wanted(visit: Visit, asked: dict[str, str]) -> Wanted:
    """What is looked for; ValueError or FhirError for what can't be."""
    return Wanted(
        outbound=asked["way"] == "out",
        patient=asked["patient"],
        order=asked["order"],
        control_id=asked["control"],
        partner=asked["partner"],
        since=_moment(visit, asked["since"]),
        until=_moment(visit, asked["until"]),
        status=asked["state"],
        kind=asked["type"].upper(),
        limit=PAGE,
        place=asked["place"],
    )


def _moment(visit: Visit, text: str) -> datetime | None:
    return clock.naive(visit.moment(text)) if text else None


# One of them


async def show_one(visit: Visit) -> Response:
    """The message, its outcome, and what may be done. Who opens it is on record; what changes while it is open is shown without
    the message itself, so that this is no further look at it.
    """
    try:
        if BY_ITSELF in visit.request.headers:
            document = await message_show.read(visit.console.interactions.store.db, visit.id())
            if document is None:
                raise NotPossible("there is no such message any more")
            shown: dict[str, Any] = {"message": None, "answer": None, "text": "", "about": []}
        else:
            document = await rows.operator(visit).open(visit.id())
            shown = _content(visit, document)
    except NotPossible as error:
        raise fail("not-found", str(error)) from None
    names = rows.names_of(endpoints=await rows.endpoints(visit))
    row = rows.message_row(document, names)
    return visit.page(
        "interfaces/message.html",
        of=row,
        document=document,
        path=row.path,
        partner_path=f"/interfaces/partners/{row.partner.partition('/')[2]}" if row.partner.startswith("Endpoint/") else "",
        can_cancel=row.sent and row.state in _WAITING,
        waits=row.state in {"pending", "CA", "held", "parked"},
        **shown,
    )


def _content(visit: Visit, document: dict[str, Any]) -> dict[str, Any]:
    """The message and its answer by segment and field; or as text, of what is no HL7 v2. And what it is about."""
    sent = "destination" in document
    raw = bytes(document["message" if sent else "raw"])
    about = [(reference, _address(visit, reference)) for reference in document.get("about", ())]
    if sent and reference_of(document["destination"]) != document["destination"]:
        return {"message": None, "answer": None, "text": _json(raw), "about": about}
    return {
        "message": v2_view.view(raw, unmapped=document.get("unmapped", ())),
        "answer": None if sent else v2_view.view(bytes(document["ack"])),
        "text": "",
        "about": about,
    }


def _json(raw: bytes) -> str:
    try:
        text = json.dumps(json.loads(raw), indent=2, ensure_ascii=False)
    except ValueError:
        text = repr(raw)
    return message_show.harmless(text)[:_LONGEST_JSON]


_PAGES: Final = {
    "Patient": "/patients/",
    "ServiceRequest": "/orders/",
    "DiagnosticReport": "/reading/reports/",
    "Task": "/rooms/steps/",
}


def _address(visit: Visit, reference: str) -> str:
    """The page of a resource, for a role that may read it; "" otherwise."""
    kind, _, id_ = reference.partition("/")
    return f"{_PAGES[kind]}{id_}" if kind in _PAGES and visit.allows(kind, "r") else ""


async def replay(visit: Visit) -> Response:
    """Send it again, or process it again."""
    return await _done(visit, rows.operator(visit).replay(visit.id()), "interfaces-replayed")


async def cancel(visit: Visit) -> Response:
    """Don't send it, with a reason."""
    return await _done(visit, rows.operator(visit).cancel(visit.id(), visit.form.text("reason")), "interfaces-cancelled")


async def _done(visit: Visit, work: Any, done: str) -> Response:
    try:
        await work
    except NotPossible as error:
        raise rows.not_possible(error) from None
    return visit.to(rows.back(visit, f"/interfaces/messages/{visit.id()}"), done)
