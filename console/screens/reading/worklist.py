"""The worklist: what waits to be read, the most urgent first, and who takes what."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from console.asking import Found, reference
from console.formats import concept, moment
from console.screens.reading import editor
from console.visit import Visit
from fhir_server.elements import codes, codings
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from resources import terms
from resources.reading.worklist import OPEN, OVERDUE, PRELIMINARY

MOST: Final = 500  # rows on the page
_LOOKED_AT: Final = 1000
_TRIED: Final = 20  # readings that others may have claimed meanwhile
FILTERS: Final = ("modality", "site", "subspecialty")
_CATALOGUED: Final = 100  # codes that the catalogue is asked for


@dataclass(frozen=True, slots=True)
class Row:
    """A reading. `reader`: who has claimed it; `due`: until when it should be reported; `state`: by businessStatus."""

    id: str
    patient: Resource | None
    examination: str
    modality: str
    site: str
    subspecialty: str
    priority: str
    since: datetime | None
    due: datetime | None
    state: str
    overdue: bool
    owner: str
    reader: Resource | None
    mine: bool


# The lists of the page: those of its tabs.
VIEWS: Final[dict[str, Callable[[Row], bool]]] = {
    "unread": lambda row: row.state != PRELIMINARY and not row.owner,
    "mine": lambda row: row.mine,
    "preliminary": lambda row: row.state == PRELIMINARY,
    "all": lambda _: True,
}


async def show(visit: Visit) -> Response:
    """The page. In its address: `view`, and the filters."""
    rows, complete = await _rows(visit)
    chosen = {name: visit.asked(name) for name in FILTERS if visit.asked(name)}
    view = visit.asked("view") if visit.asked("view") in VIEWS else "unread"
    fitting = [r for r in rows if all(getattr(r, name) == value for name, value in chosen.items())]
    listed = [r for r in fitting if VIEWS[view](r)]
    values: dict[str, Any] = {
        "rows": listed[:MOST],
        "more": len(listed) > MOST or not complete,
        "view": view,
        "views": {name: sum(map(fits, fitting)) for name, fits in VIEWS.items()},
        "chosen": chosen,
        "kept": urlencode(chosen),
        "choices": {name: sorted({v for r in rows if (v := getattr(r, name))}) for name in FILTERS},
        "now": visit.now,
        "first": next((r.reader for r in rows if r.id == visit.request.path_params.get("id") and r.owner and not r.mine), None),
    }
    return visit.page("reading/index.html", **values)


async def _rows(visit: Visit) -> tuple[list[Row], bool]:
    """What is open, and whether that is all of it."""
    found = await visit.desk.search(
        "Task",
        business_status=OPEN,
        _sort="-priority,due",
        _include=["Task:patient", "Task:based-on", "Task:owner"],
        _count=str(_LOOKED_AT),
        _total="none",
    )
    places = await _places(visit, found)
    return [_row(visit, found, places, reading) for reading in found], found.next is None


def _row(visit: Visit, found: Found, places: dict[str, tuple[str, str]], reading: Resource) -> Row:
    procedure = next((p for r in reading.get("basedOn", ()) if (p := found.of(r)) is not None), {})
    modality, site = places.get(procedure.get("id", ""), ("", ""))
    states = codes(reading.get("businessStatus"), terms.READING_STATUS)
    owner = str(reading.get("owner", {}).get("reference", ""))
    due = moment(reading.get("restriction", {}).get("period", {}).get("end"))
    return Row(
        id=reading["id"],
        patient=found.of(reading.get("for")),
        examination=reading.get("description") or concept(procedure.get("code")),
        modality=modality,
        site=site,
        subspecialty=next((concept(c) for c in reading.get("performerType", ())), ""),
        priority=reading.get("priority", "routine"),
        since=moment(reading.get("authoredOn")),
        due=due,
        state=next((s for s in states if s != OVERDUE), ""),
        overdue=due is not None and due < visit.now,
        owner=owner,
        reader=found.of(owner),
        mine=bool(owner) and owner == visit.me,
    )


async def _places(visit: Visit, found: Found) -> dict[str, tuple[str, str]]:
    """Modality and body site of each procedure, by its id: as it says itself, else as the catalogue does."""
    said = {p["id"]: (_modality(p), _site(p)) for p in found.included("ServiceRequest")}
    silent = [p for p in found.included("ServiceRequest") if not all(said[p["id"]])]
    of_code = await _catalogue(visit, silent)
    for procedure in silent:
        modality, site = said[procedure["id"]]
        entry = next((of_code[c] for c in _tokens(procedure) if c in of_code), ("", ""))
        said[procedure["id"]] = modality or entry[0], site or entry[1]
    return said


def _modality(of: Resource) -> str:
    said = (of.get("orderDetail"), of.get("category"), of.get("topic"))
    return next((c for element in said for c in codes(element, terms.DCM)), "")


def _site(of: Resource) -> str:
    return next((concept(site) for site in of.get("bodySite", ())), "")


def _tokens(procedure: Resource) -> list[str]:
    return [f"{c.get('system', '')}|{c['code']}" for c in codings(procedure.get("code")) if "code" in c]


async def _catalogue(visit: Visit, procedures: Iterable[Resource]) -> dict[str, tuple[str, str]]:
    """Modality and body site by the catalogue's codes."""
    wanted = list(dict.fromkeys(token for p in procedures for token in _tokens(p)))[:_CATALOGUED]
    if not wanted:
        return {}
    entries = await visit.desk.search(
        "ActivityDefinition", identifier=",".join(wanted), status="active", _elements="identifier,topic,bodySite"
    )
    return {f"{i.get('system', '')}|{i.get('value')}": (_modality(e), _site(e)) for e in entries for i in e.get("identifier", ())}


# What is done with it


async def claim(visit: Visit) -> Response:
    """Take a reading, and go to its report."""
    await visit.desk.operation(f"Task/{visit.id()}/$claim")
    return visit.to(f"/reading/{visit.id()}", "reading-claimed")


async def release(visit: Visit) -> Response:
    """Give a reading back."""
    await visit.desk.operation(f"Task/{visit.id()}/$release")
    from_list = visit.form.get("from") == "list"
    return visit.to(f"/reading?{visit.form.text('list')}" if from_list else "/reading", "reading-released")


async def reassign(visit: Visit) -> Response:
    """Give a reading to somebody else, or to nobody."""
    to = visit.form.get("owner")
    whom = reference(to) if to else None
    version = visit.form.get("version")
    await visit.desk.operation(f"Task/{visit.id()}/$reassign", if_match=version, owner=whom, reason=visit.form.get("reason"))
    return visit.to("/reading", "reading-reassigned")


async def again(visit: Visit) -> Response:
    """The page that a form came from."""
    from_list = visit.form.get("from") == "list"
    visit.here = visit.with_query("/reading" if from_list else f"/reading/{visit.id()}")
    return await (show(visit) if from_list else editor.show(visit))


async def claim_next(visit: Visit) -> Response:
    """Take the most urgent one that nobody has, of those that the filters show, and go to its report."""
    chosen = {name: text for name in FILTERS if (text := visit.form.get(name))}
    rows, _ = await _rows(visit)
    for row in _next(rows, chosen):
        try:
            await visit.desk.operation(f"Task/{row.id}/$claim")
        except FhirError as error:
            if error.code != "conflict":
                raise
            continue
        return visit.to(f"/reading/{row.id}", "reading-claimed")
    raise fail("not-found", visit.t("reading.none-to-claim"), status=409)


def _next(rows: Iterable[Row], chosen: dict[str, str]) -> list[Row]:
    fits = VIEWS["unread"]
    return [r for r in rows if fits(r) and all(getattr(r, name) == value for name, value in chosen.items())][:_TRIED]
