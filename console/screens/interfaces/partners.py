"""/interfaces/partners/{id}: one partner: its settings, its queue, what was set aside, the last deliveries and their answers."""

from typing import Any, Final

from starlette.responses import Response

from bridges import connection_tests, partner_states
from bridges.traffic import ASIDE, Traffic
from bridges.v2 import destination, message_search
from bridges.v2.endpoint_check import HEADERS
from bridges.v2.message_search import Wanted
from bridges.v2.operations import NotPossible
from console.screens.interfaces import rows
from console.visit import Visit
from fhir_server import outbox
from fhir_server.elements import codings
from fhir_server.outcome import fail
from fhir_server.registry import Resource

STATUSES: Final = ("active", "suspended", "off", "error", "test")
_FEW: Final = 10
_MOST_ASIDE: Final = 50
_MOST_REPLAYED: Final = 500
_PLAIN: Final = {"message": 0}


async def show(visit: Visit) -> Response:
    """The partner as it is now."""
    endpoint = await rows.read(visit, "Endpoint")
    db = visit.console.interactions.store.db
    (state,), alerts, refusals = await visit.desk.together(
        partner_states.of(db, [endpoint]), rows.alerts(visit, f"Endpoint/{endpoint['id']}"), _refusals(visit, endpoint)
    )
    names = rows.names_of([state])
    sent, aside, waiting, came = await visit.desk.together(
        _sent(visit, state.destination, ["delivered"], _FEW, newest=True),
        _sent(visit, state.destination, list(ASIDE), _MOST_ASIDE),
        _sent(visit, state.destination, ["pending"], _FEW),
        message_search.find(db, Wanted(partner=state.reference, limit=_FEW)),
    )
    return visit.page(
        "interfaces/partner.html",
        of=state,
        path=f"/interfaces/partners/{endpoint['id']}",
        out=rows.rate_chart(visit, state.out),
        came_chart=rows.rate_chart(visit, state.came),
        alerts=alerts,
        refusals=refusals,
        sent=[rows.message_row(d, names) for d in sent],
        aside=[rows.message_row(d, names) for d in aside],
        waiting=[rows.message_row(d, names) for d in waiting],
        received=[rows.message_row(d, names) for d in came],
        testable=connection_tests.can_be_tested(endpoint),
        fields=_fields(visit, endpoint),
        meanwhile=rows.meanwhile(visit, _stored(endpoint)),
        wanted=_wanted(visit, endpoint) if state.kind == partner_states.V2 else [],
        headers=_headers() if state.kind == partner_states.V2 else [],
        statuses=[(s, visit.t.code("interfaces.endpoint", s)) for s in _statuses(endpoint)],
    )


async def _refusals(visit: Visit, endpoint: Resource) -> list[rows.RefusalRow]:
    found = await Traffic(visit.console.interactions.store.db).refusals(f"Endpoint/{endpoint['id']}")
    return [rows.RefusalRow(r, "") for r in found if not r.sent]


async def _sent(visit: Visit, to: str, states: list[str], most: int, *, newest: bool = False) -> list[dict[str, Any]]:
    """Messages of a destination in these states, in the order of their sending or the newest first."""
    if not to:
        return []
    store = visit.console.interactions.store.db[outbox.COLLECTION]
    where = {"destination": to, "state": {"$in": states}}
    return await store.find(where, _PLAIN, sort=[("key", -1 if newest else 1)], limit=most).to_list()


# Settings


_FIELDS: Final = ("name", "status", "address", "header")


def _fields(visit: Visit, endpoint: Resource) -> dict[str, str]:
    """The fields of the form: as they are stored, or as they were typed when that was refused."""
    stored = _stored(endpoint)
    typed = {name: visit.form.text(name) for name in _FIELDS} if rows.is_refused(visit) else stored
    return typed | {"version": str(endpoint["meta"]["versionId"])}


def _stored(endpoint: Resource) -> dict[str, str]:
    header = "\n".join(endpoint.get("header", ()))
    return {name: str(endpoint.get(name, "")) for name in _FIELDS} | {"header": header}


def _wanted(visit: Visit, endpoint: Resource) -> list[tuple[str, bool]]:
    """Each kind of message that there is for a partner, and whether it wants it."""
    wants = {c.get("code") for payload in endpoint.get("payloadType", ()) for c in codings(payload)}
    if rows.is_refused(visit):
        wants = set(visit.form.all("wants"))
    return [(kind, kind in wants) for kind in sorted(destination.KINDS)]


def _headers() -> list[tuple[str, str, str, str]]:
    """The headers that there are: name, default, what it takes, what it means."""
    told = [(h.name, h.default, h.says, h.meaning) for h in destination.HEADERS]
    known = {name for name, *_ in told}
    return told + [(name, "", says.removeprefix("is "), "") for name, (_, says) in HEADERS.items() if name not in known]


def _statuses(endpoint: Resource) -> tuple[str, ...]:
    return STATUSES if endpoint["status"] in STATUSES else (endpoint["status"], *STATUSES)


async def change(visit: Visit) -> Response:
    """The form of the settings: an update of the Endpoint, if it is still the version that was shown."""
    form = visit.form
    endpoint = await rows.read(visit, "Endpoint")
    changed = endpoint | {
        "name": form.text("name"),
        "status": form.text("status"),
        "address": form.text("address"),
        "header": [line.strip() for line in form.text("header").split("\n") if line.strip()],
        "meta": endpoint["meta"] | {"versionId": form.text("version")},
    }
    if form.get("kinds"):
        changed["payloadType"] = _payloads(endpoint, form.all("wants"))
    await visit.desk.update({name: value for name, value in changed.items() if value not in ("", [])})
    return visit.to(f"/interfaces/partners/{endpoint['id']}", "interfaces-changed")


def _payloads(endpoint: Resource, wants: list[str]) -> list[Resource]:
    """The payload types with these kinds of v2 messages; those that aren't of ours stay. `none`, where there is nothing else."""
    kept = [p for p in endpoint["payloadType"] if not any(c.get("code") in {*destination.KINDS, "none"} for c in codings(p))]
    found = [*kept, *({"coding": [{"system": destination.MESSAGE, "code": kind}]} for kind in wants)]
    return found or [{"coding": [{"system": destination.MESSAGE, "code": "none"}]}]


# Tests, and what was set aside


async def test(visit: Visit) -> Response:
    """Send a test message, or test the connection otherwise. The page then shows what came of it."""
    endpoint = await rows.read(visit, "Endpoint")
    if not connection_tests.can_be_tested(endpoint):
        raise fail("not-supported", visit.t("interfaces.no-test"), status=422)
    console = visit.console
    result = await connection_tests.run(console.interactions, visit.access, endpoint, console.settings)
    path = f"/interfaces/partners/{endpoint['id']}"
    return visit.to(path, "interfaces-answered" if result.ok else "interfaces-not-answered")


async def replay_all(visit: Visit) -> Response:
    """Send everything again that its receiver has refused or never answered, in the order in which it was written."""
    endpoint = await rows.read(visit, "Endpoint")
    operator = rows.operator(visit)
    to = partner_states.destination_of(endpoint)
    for document in await _sent(visit, to, ["refused", "dead"], _MOST_REPLAYED):
        try:
            await operator.replay(str(document["_id"]))
        except NotPossible:  # somebody else has seen to it
            continue
    return visit.to(f"/interfaces/partners/{endpoint['id']}", "interfaces-replayed-all")
