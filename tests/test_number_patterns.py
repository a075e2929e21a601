"""Patterns of numbers (resources/number_pattern.py): what they give, how long they last, and which are refused."""

from datetime import date

import pytest

from resources.number_pattern import PatternError, check_character, parse

DAY = date(2026, 2, 3)


@pytest.mark.parametrize(
    ("pattern", "n", "number"),
    [
        ("A{n:9}", 7, "A000000007"),
        ("{yy}{n:7}", 12, "260000012"),
        ("{yyyy}-{n:6}", 12, "2026-000012"),
        ("{site:3}{modality}{yy}{n:6}", 1, "WESCT26000001"),
        ("{modality:3}{yy}{ddd}{n:5}", 1, "CT02603400001"),
        ("{n:7}.{yy}{check}", 794, "0000794.26" + check_character("000079426")),
    ],
)
def test_a_number_is_put_together_from_its_parts(pattern, n, number):
    # A site's code is filled up and cut to its width, so that a number's length is always the same.
    assert parse(pattern).number({"site": "WEST", "modality": "CT"}, DAY, n) == number
    assert parse(pattern).width == len(number)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("A{n:16}", "17 characters"),
        ("{site:5}{modality}{yyyy}{n:7}", "18 characters"),
        ("A{n:6}", "30 years"),
        ("A{n:3}{yy}", "of a year"),
        ("{yy}{ddd}{n:3}", "busy day"),
        ("{ddd}{n:8}", "needs the year"),
        ("ABC", "one counter"),
        ("{n:7}{n:7}", "one counter"),
        ("{n}", "needs its width"),
        ("{site}{n:8}", "needs its width"),
        ("{yy:4}{n:8}", "always 2"),
        ("{week}{n:8}", "none of"),
        ("A\\{n:8}", "no part"),
        ("A{n:8", "no part"),
        ("{n:8}{check}{check}", "one check character"),
        ("", "one counter"),
    ],
)
def test_a_pattern_that_gets_too_long_or_runs_out_is_refused(pattern, why):
    with pytest.raises(PatternError, match=why):
        parse(pattern)


def test_a_small_department_needs_fewer_digits():
    assert parse("A{n:5}", per_year=3000).last == 99_999
    with pytest.raises(PatternError, match="last number of the series is 99999"):
        parse("A{n:5}", per_year=3000).number({}, DAY, 100_000)


def test_series_of_one_pattern_never_give_the_same_number():
    pattern = parse("{modality}{yy}{n:7}")
    next_year = date(2027, 1, 1)
    series = {pattern.series({"modality": m}, day) for m in ("CT", "MR") for day in (DAY, next_year)}
    assert len(series) == 4
    assert pattern.series({"modality": "CT"}, DAY) == pattern.series({"modality": "CT"}, date(2026, 12, 31))


def test_check_characters_are_those_of_iso_7064():
    assert check_character("0794") == "5"  # MOD 11,10: the standard's own example
    assert check_character("A12425GABC1234002") == "M"  # MOD 37,36: the example of the Global Release Identifier
    whole = "A26000012"
    wrong = [whole[:i] + c + whole[i + 1 :] for i in range(len(whole)) for c in "0123456789ABC" if c != whole[i]]
    assert check_character(whole) not in {check_character(w) for w in wrong}
