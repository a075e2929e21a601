"""`$evaluate-measure` (FHIR R4, Measure operations) answers a MeasureReport; `$figures` the same numbers as JSON or CSV.

GET Measure/[id]/$evaluate-measure?periodStart=2026-01&periodEnd=2026-03 with
    periodStart, periodEnd   days, months or years by the department's clock, both included
    measure                  the canonical of the Measure, where it isn't called on one
    reportType               `summary`, nothing else: nothing of a patient is in a figure
    group-by                 a dimension (`modality`), or several taken together (`modality,priority`); repeated
    from, to                 milestones of the one span that is wanted (turn-around)
    modality, priority, scanner, location   only what is of this one (`Device/1`, `Location/1`) or, with commas, one of these;
                             where they make sense (`narrowing.py`)
    basis                    the milestone that puts an examination into the period (turn-around; `ended`)
    format                   of `$figures`: `json` (unless said otherwise) or `csv`
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server import clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Registry
from fhir_server.search.dates import of_text
from resources import department_operation
from resources.numbers import narrowing, rendering
from resources.numbers.measures import FIGURES, MEASURE, Figures
from resources.numbers.milestones import MILESTONES
from resources.numbers.question import ONLY, PERSONS, Db, Figure, Question
from resources.numbers.turn_around import SPANS
from smart_auth.access import Access

_PARAMETERS: Final = {
    "periodStart": "date", "periodEnd": "date", "measure": "string", "reportType": "code", "group-by": "string", "from": "code",
    "to": "code", "basis": "code", **dict.fromkeys(ONLY, "string"),
}  # fmt: skip
_NEEDS: Final = {"Measure": "r", "MeasureReport": "r"}
_MOST: Final = 4  # dimensions, and so cells, that one question takes
_MOST_FIGURES: Final = 50_000


class FigureOperations:
    """Both operations. `zone` is the department's: a day is its day."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone

    def register(self, registry: Registry) -> None:
        levels = frozenset[Level]({"type", "instance"})
        types = frozenset({"Measure"})
        standard = "http://hl7.org/fhir/OperationDefinition/Measure-evaluate-measure"
        own = "urn:fhir-ris:OperationDefinition/figures"
        registry.operation(Operation("evaluate-measure", standard, levels, self.evaluate, types, parameters=_PARAMETERS))
        with_format = _PARAMETERS | {"format": "code"}
        registry.operation(Operation("figures", own, levels, self.figures, types, parameters=with_format))

    async def evaluate(self, call: Call) -> Answer:
        """The MeasureReport. FhirError 400 for what isn't known, 403 for who may not see it, 404 for no such Measure."""
        name, asked, found, names = await self._answered(call, "evaluate-measure", frozenset(_PARAMETERS))
        return Answer(rendering.measure_report(name, asked, found, names))

    async def figures(self, call: Call) -> Answer:
        """The same as JSON or CSV, sent as it is."""
        name, asked, found, names = await self._answered(call, "figures", frozenset(_PARAMETERS) | {"format"})
        wanted = arguments.one(call, "format") or "json"
        if wanted == "csv":
            return Answer(rendering.as_csv(asked, found, names), native=True)
        if wanted != "json":
            raise _wrong("format is json or csv")
        return Answer(rendering.as_json(name, asked, found, names), native=True)

    async def _answered(
        self, call: Call, operation: str, known: frozenset[str]
    ) -> tuple[str, Question, list[Figure], dict[str, str]]:
        arguments.check_body(operation, call.body, known)
        await department_operation.require(call, operation, _NEEDS)
        name = _name(call)
        figures = FIGURES[name]
        asked = replace(self._question(call, figures), only=await narrowing.read(call, figures))
        db = call.interactions.store.db
        if "location" in asked.dimensions or "location" in asked.only:
            asked.locations.update(await _locations(db))
        found = await figures.evaluate(db, asked)
        if len(found) > _MOST_FIGURES:
            raise fail("too-costly", f"that are {len(found)} figures; ask for a shorter period, or for fewer dimensions at once")
        return name, asked, found, await _names(db, found)

    def _question(self, call: Call, figures: Figures) -> Question:
        start, end = self._period(call)
        stratifiers = _stratifiers(call, figures)
        free = _sees_persons(call.access)
        if not free and any(d in PERSONS for s in stratifiers for d in s):
            raise fail("forbidden", "figures of single persons are for administrators")
        basis = arguments.one(call, "basis") or figures.basis
        if basis != figures.basis and (not figures.basis or basis not in MILESTONES):
            raise _wrong(f"basis is one of {', '.join(MILESTONES)}, of turn-around times")
        now = clock.naive(clock.now())
        return Question(start, end, now, self._zone, stratifiers, basis, _spans(call, figures), every_cell=free)

    def _period(self, call: Call) -> tuple[datetime, datetime]:
        """From the first moment of periodStart to the last of periodEnd, by the department's clock."""
        edges: list[datetime] = []
        for place, name in enumerate(("periodStart", "periodEnd")):
            given = arguments.one(call, name)
            if given is None:
                raise fail("required", f"{name} is required: a day, month or year", "Parameters.parameter", status=400)
            if "T" in given:
                raise _wrong(f"{name} is a day, month or year")
            try:
                edge = of_text(given)[place]
            except ValueError as error:
                raise _wrong(f"{name}: {error}") from None
            if not 1970 <= edge.year < 2200:
                raise _wrong(f"{name} is no year of a department")
            edges.append(clock.naive(edge.replace(tzinfo=self._zone)))
        if edges[0] >= edges[1]:
            raise _wrong("periodEnd is not before periodStart")
        return edges[0], edges[1]


def _wrong(text: str) -> FhirError:
    return fail("invalid", text, "Parameters.parameter", status=400)


def _name(call: Call) -> str:
    given = arguments.one(call, "measure")
    if arguments.one(call, "reportType") not in {None, "summary", "population"}:
        raise _wrong("reportType is summary: figures are of the department, not of a patient")
    if call.id is not None and given is not None:
        raise _wrong("measure is for calls on the type")
    name = call.id if call.id is not None else (given or "").removeprefix(MEASURE).removeprefix("Measure/")
    if not name:
        raise fail("required", "measure says which", "Parameters.parameter", status=400)
    if name not in FIGURES:
        raise fail("not-found", f"there is no such Measure to evaluate; there are: {', '.join(FIGURES)}")
    return name


def _stratifiers(call: Call, figures: Figures) -> tuple[tuple[str, ...], ...]:
    given = [tuple(d.strip() for d in text.split(",")) for text in arguments.given(call, "group-by")]
    unknown = sorted({d for s in given for d in s} - set(figures.by))
    if unknown:
        raise _wrong(f"group-by takes {', '.join(figures.by)} here, not {unknown[0][:64]!r}")
    if any(len(set(s)) != len(s) for s in given) or len({d for s in given for d in s}) > _MOST:
        raise _wrong(f"group-by takes each dimension once, and at most {_MOST} in all")
    return tuple(dict.fromkeys(given)) or tuple((d,) for d in figures.first)


def _spans(call: Call, figures: Figures) -> tuple[tuple[str, str], ...]:
    begin, end = arguments.one(call, "from"), arguments.one(call, "to")
    if begin is None and end is None:
        return SPANS
    if not figures.basis or begin not in MILESTONES or end not in MILESTONES or begin == end:
        raise _wrong(f"from and to are two of {', '.join(MILESTONES)}, of turn-around times")
    return ((str(begin), str(end)),)


def _sees_persons(access: Access) -> bool:
    """Administrators do, and backend clients that may read who works here."""
    return access.role == "admin" if access.person else access.internal or access.allows("Practitioner", "r")


# What people call it


async def _locations(db: Db) -> dict[str, str]:
    """Scanner to the location it stands at now."""
    with_place = {"search.t": {"$regex": "^location>"}}
    found = db["Device"].find(with_place, {"resource.location.reference": 1})
    return {f"Device/{d['_id']}": str(d["resource"]["location"].get("reference", "")) async for d in found}


async def _names(db: Db, figures: Iterable[Figure]) -> dict[str, str]:
    """The names of scanners, locations and partners; people are told by their reference alone."""
    wanted = {v for f in figures for _, v in f.strata if v}
    found: dict[str, str] = {}
    for kind in ("Device", "Location", "Endpoint"):
        ids = [v.partition("/")[2] for v in wanted if v.startswith(f"{kind}/")]
        shown = {"resource.name": 1, "resource.deviceName": 1}
        async for document in db[kind].find({"_id": {"$in": ids}}, shown):
            if name := _name_of(document["resource"]):
                found[f"{kind}/{document['_id']}"] = name
    return found


def _name_of(resource: dict[str, Any]) -> str:
    return str(resource.get("name") or next((n["name"] for n in resource.get("deviceName", ()) if "name" in n), ""))
