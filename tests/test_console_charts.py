"""Charts: well-formed pictures with a text alternative, whatever the numbers are."""

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from console import charts
from console.charts import Range, Series

_LABELS = ["CT & <MR>", "a scanner whose name is longer than the room that there is for it", "", "US"]
_VALUES = [[], [None, None, None, None], [0, 0, 0, 0], [1, None, -3, 0.01], [1e7, 3, 2, 9]]


def _tell(value: float) -> str:
    return f"{value:g} <min>"


def _bars(label: str, values: list[float | None]) -> Markup:
    return charts.bars(label, _LABELS[: len(values)], [Series("done", values), Series('"x"', values)], _tell)


def _columns(label: str, values: list[float | None]) -> Markup:
    return charts.columns(label, _LABELS[: len(values)], [Series("done", values)], _tell)


def _lines(label: str, values: list[float | None]) -> Markup:
    return charts.lines(label, _LABELS[: len(values)], [Series("a", values), Series("b", values)], _tell, charts.MINUTES)


def _ranges(label: str, values: list[float | None]) -> Markup:
    rows = [Range(name, v, v and v * 2) for name, v in zip(_LABELS, values, strict=False)]
    return charts.ranges(label, rows, _tell, ("median", "most"), charts.MINUTES)


@pytest.mark.parametrize("values", _VALUES, ids=str)
@pytest.mark.parametrize("chart", [_bars, _columns, _lines, _ranges])
def test_a_chart_is_well_formed_and_says_what_it_shows(
    chart: Callable[[str, list[float | None]], Markup], values: list[float | None]
) -> None:
    made = chart('Volumes "of" <today>', values)
    root = ET.fromstring(made)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Volumes "of" <today>'
    width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
    for mark in root.iter("rect"):
        x, y, w, h = (float(mark.attrib[n]) for n in ("x", "y", "width", "height"))
        assert min(x, y, w, h) >= 0
        assert x + w <= width + 0.2
        assert y + h <= height + 0.2
    assert "style" not in {name for mark in root.iter() for name in mark.attrib}


def test_bars_are_as_long_as_their_numbers() -> None:
    root = ET.fromstring(charts.bars("x", ["a", "b"], [Series("n", [200, 50])], str))
    long, short = (float(r.attrib["width"]) for r in root.iter("rect"))
    assert long == pytest.approx(4 * short, abs=0.3)
    assert [t.text for t in root.iter("text") if t.get("class") == "value"] == ["200", "50"]
    assert [t.text for t in root.iter("title")] == ["a: 200", "b: 50"]


def test_a_line_is_broken_where_a_number_is_missing() -> None:
    root = ET.fromstring(charts.lines("x", ["a", "b", "c"], [Series("n", [1, None, 2])], str))
    assert len(list(root.iter("polyline"))) == 2
