"""Values of Observations in words, and documents in letters of many scripts."""

import base64
import re
import zlib
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from resources import zones
from resources.reading.pdf import pdf
from resources.reading.values import Manner, in_words

MM = {"system": "http://unitsofmeasure.org", "code": "mm"}


def quantity(value: str, **more: Any) -> dict[str, Any]:
    return {"value": Decimal(value)} | more


@pytest.fixture
def berlin():
    before = zones.department()
    zones.use(ZoneInfo("Europe/Berlin"))
    yield
    zones.use(before)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"valueQuantity": quantity("8.50", comparator="<", unit="millimetre", **MM)}, "< 8.50 millimetre"),
        ({"valueQuantity": quantity("8", **MM)}, "8 mm"),
        ({"valueQuantity": quantity("0.9", system=MM["system"], code="1")}, "0.9"),
        ({"valueCodeableConcept": {"coding": [{"code": "x", "display": "Round"}]}}, "Round"),
        ({"valueString": "small"}, "small"),
        ({"valueBoolean": True}, "yes"),
        ({"valueBoolean": False}, "no"),
        ({"valueInteger": 0}, "0"),
        ({"valueRange": {"low": quantity("5", unit="mm"), "high": quantity("8", unit="mm")}}, "5 mm – 8 mm"),
        ({"valueRange": {"low": quantity("5", unit="mm")}}, "≥ 5 mm"),
        ({"valueRange": {"high": quantity("8", unit="mm")}}, "≤ 8 mm"),
        ({"valueRatio": {"numerator": quantity("1"), "denominator": quantity("128")}}, "1 : 128"),
        ({"valueTime": "08:15:00"}, "08:15:00"),
        ({"valueDateTime": "2026-09-07T08:15:00Z"}, "2026-09-07 10:15 CEST"),
        ({"valueDateTime": "2026-09"}, "2026-09"),
        ({"valueDateTime": "2016-12-31T23:59:60Z"}, "2016-12-31T23:59:60Z"),
        ({"valuePeriod": {"start": "2026-09-07", "end": "2026-09-08"}}, "2026-09-07 – 2026-09-08"),
        ({"valueSampledData": {"origin": quantity("0", unit="mV"), "data": "1 2 3"}}, "1 2 3 mV"),
        ({"dataAbsentReason": {"text": "not performed"}}, "not performed"),
        ({"_valueString": {"extension": []}}, ""),
        ({
            "valueQuantity": quantity("8", **MM),
            "component": [
                {"code": {"text": "long"}, "valueQuantity": quantity("8", **MM)},
                {"code": {"text": "solid"}, "valueBoolean": True},
                {"code": {"text": "short"}, "dataAbsentReason": {"text": "unknown"}}, {"code": {"text": "none"}},
            ],
        }, "8 mm; long 8 mm; solid yes; short unknown"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("berlin")
def test_each_kind_of_value_is_told_in_words(said, words):
    assert in_words({"resourceType": "Observation", "status": "final", "code": {"text": "x"}} | said, Manner()) == words


def drawn(document: bytes) -> bytes:
    """What the pages of a PDF draw."""
    streams = re.findall(rb"stream\r?\n(.+?)~>\s*endstream", document, re.DOTALL)
    return b"".join(zlib.decompress(base64.a85decode(s)) for s in streams)


@pytest.mark.parametrize(
    ("text", "font"),
    [
        ("王小明", "STSong-Light"), ("やまだ 太郎", "STSong-Light"), ("ﾔﾏﾀﾞ", "HeiseiMin-W3"), ("ﾞ", "HeiseiMin-W3"),
        ("김민수", "HYSMyeongJo-Medium"), ("灣", "STSong-Light"), ("Иванов", "STSong-Light"),
    ],
)  # fmt: skip
def test_a_pdf_writes_letters_of_east_asia_and_russia(text, font):
    document = pdf("Report", [(False, f"Patient: {text}")])
    assert font.encode() in document
    assert b"not shown" not in drawn(document)
    assert b"(Patient: )" in drawn(document)
    assert document == pdf("Report", [(False, f"Patient: {text}")])


def test_a_pdf_says_which_letters_it_does_not_show():
    shown = drawn(pdf("Report", [(True, "Report"), (False, "Patient: محمد (Muhammad), 3 ≥ 2?")]))
    assert b"Patient: [not shown] \\(Muhammad\\), 3 >= 2?" in shown
    assert b"This PDF lacks some letters" in shown
    assert b"(Patient: [not shown])" in drawn(pdf("Report", [(False, "Patient: \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd")]))
    assert b"lacks" not in drawn(pdf("Report", [(True, "Report"), (False, "Really?")]))


def test_long_lines_and_long_words_stay_on_the_page():
    words = drawn(pdf("Report", [(False, "word " * 100), (False, "x" * 300), (False, "王" * 120)]))
    assert words.count(b"Tj") > 6
    assert b"x" * 300 not in words
