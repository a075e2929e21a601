"""Figures as a MeasureReport (FHIR R4 13.8), as CSV and as JSON."""

import csv
import io
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import concept
from fhir_server.registry import Resource
from resources import terms
from resources.numbers.measures import DIMENSION, FIGURE, MEASURE, code
from resources.numbers.question import Figure, Question, Stratum

_POPULATION: Final = "http://terminology.hl7.org/CodeSystem/measure-population"
_ABSENT: Final = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for one

Names = Mapping[str, str]  # reference -> what people call it


def measure_report(name: str, asked: Question, figures: list[Figure], names: Names) -> Resource:
    """A summary MeasureReport: a group for each number, a stratifier for each breakdown."""
    groups = [list(own) for _, own in groupby(sorted_by_group(figures), key=lambda f: (f.group, f.statistic))]
    return {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": MEASURE + name,
        "date": clock.instant(asked.now),
        "period": {"start": clock.instant(asked.start), "end": clock.instant(asked.end - timedelta(milliseconds=1))},
    } | ({"group": [_group(g, asked, names) for g in groups]} if groups else {})


def sorted_by_group(figures: Iterable[Figure]) -> list[Figure]:
    """In the order in which groups come first, those of one together."""
    places: dict[tuple[str, str], int] = {}
    return sorted(figures, key=lambda f: places.setdefault((f.group, f.statistic), len(places)))


def _group(figures: list[Figure], asked: Question, names: Names) -> Resource:
    whole, strata = [f for f in figures if not f.strata], [f for f in figures if f.strata]
    first = figures[0]
    made: Resource = {"code": concept(FIGURE, code(first.group, first.statistic))}
    for figure in whole:
        made |= _numbers(figure)
    stratifiers = []
    for dimensions in asked.stratifiers:
        own = [f for f in strata if tuple(d for d, _ in f.strata) == dimensions]
        if own:
            codes = [concept(DIMENSION, d) for d in dimensions]
            stratifiers.append({"code": codes, "stratum": [_stratum(f, names) for f in own]})
    return made | ({"stratifier": stratifiers} if stratifiers else {})


def _stratum(figure: Figure, names: Names) -> Resource:
    """One value of a dimension, or a component for each of several."""
    if len(figure.strata) == 1:
        return {"value": _value(figure.strata[0][1], names)} | _numbers(figure)
    parts = [{"code": concept(DIMENSION, d), "value": _value(v, names)} for d, v in figure.strata]
    return {"component": parts} | _numbers(figure)


def _value(value: str | None, names: Names) -> Resource:
    if value is None:
        return _ABSENT
    return {"coding": [{"code": value} | ({"display": names[value]} if value in names else {})], "text": names.get(value, value)}


def _numbers(figure: Figure) -> Resource:
    found: Resource = {"population": [{"code": concept(_POPULATION, "measure-population"), "count": figure.count}]}
    if figure.value is not None:
        unit = {"value": Decimal(str(figure.value)), "unit": figure.unit, "system": terms.UCUM, "code": figure.unit}
        found["measureScore"] = unit
    return found


def rows(asked: Question, figures: list[Figure], names: Names) -> list[dict[str, Any]]:
    """A row for each number: group, statistic, the dimensions (empty: all), value, unit and count."""
    dimensions = asked.dimensions
    return [
        {"group": f.group, "statistic": f.statistic}
        | {d: _shown(dict(f.strata), d, f.strata, names) for d in dimensions}
        | {"value": f.value, "unit": f.unit, "count": f.count}
        for f in figures
    ]


def _shown(strata: dict[str, str | None], dimension: str, whole: Stratum, names: Names) -> str:
    """`all` for what is not broken down by this dimension, `unknown` for what has no value."""
    if dimension not in {d for d, _ in whole}:
        return "all"
    value = strata[dimension]
    return "unknown" if value is None else names.get(value, value)


def as_csv(asked: Question, figures: list[Figure], names: Names) -> Resource:
    """RFC 4180, UTF-8, with a header line; no cell is taken for a formula."""
    out = io.StringIO(newline="")
    header = ["group", "statistic", *asked.dimensions, "value", "unit", "count"]
    writer = csv.DictWriter(out, header)
    writer.writeheader()
    for row in rows(asked, figures, names):
        writer.writerow({k: f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for k, v in row.items()})
    return _binary("text/csv; charset=utf-8", out.getvalue())


def as_json(name: str, asked: Question, figures: list[Figure], names: Names) -> Resource:
    """Figures by reference, with the names that references stand for beside them."""
    said = {
        "measure": name,
        "start": clock.instant(asked.start),
        "end": clock.instant(asked.end),
        "date": clock.instant(asked.now),
        "time-zone": str(asked.zone),
        "names": dict(names),
        "figures": rows(asked, figures, {}),
    }
    return _binary("application/json", json.dumps(said))


def _binary(kind: str, text: str) -> Resource:
    return {"resourceType": "Binary", "contentType": kind, "data": b64encode(text.encode()).decode()}
