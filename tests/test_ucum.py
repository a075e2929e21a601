"""UCUM units come to the same base units and, for equal quantities, to the same numbers."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fhir_server.ucum
from fhir_server.outcome import FhirError
from fhir_server.ucum import converter
from fhir_server.ucum.units import MAX_LENGTH


def canonical(value, code):
    found = converter(code)
    assert found is not None, code
    return found(Decimal(value)), found.unit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("1", "g/L"), ("1.0", "mg/mL")),
        (("1", "g/L"), ("1", "kg/m3")),
        (("5.40", "mmol/L"), ("5.4", "mol/m3")),
        (("97.2", "mg/dL"), ("0.972", "g/L")),
        (("760", "mm[Hg]"), ("101.32472", "kPa")),
        (("60", "/min"), ("1", "Hz")),
        (("1", "{beats}/min"), ("1", "/min")),
        (("4.5", "10*9/L"), ("4.5", "10*3/uL")),
        (("4.5", "10^12/L"), ("4.5", "10*6/uL")),
        (("1", "[lb_av]"), ("453.59237", "g")),
        (("1", "[in_i]"), ("2.54", "cm")),
        (("3", "[ft_i]"), ("1", "[yd_i]")),
        (("1", "cal"), ("4.184", "J")),
        (("1", "meq/L"), ("1", "mmol/L")),
        (("290", "mosm/kg"), ("0.29", "mol/kg")),
        (("1", "[iU]/L"), ("1", "m[iU]/mL")),
        (("1", "[IU]/L"), ("1", "[iU]/L")),
        (("1", "mGy"), ("0.001", "J/kg")),
        (("450", "mGy.cm"), ("0.45", "Gy.cm")),
        (("450", "mGy.cm"), ("450", "cm.mGy")),
        (("1", "mSv"), ("0.1", "REM")),
        (("10", "mCi"), ("370", "MBq")),
        (("1", "rad/s"), ("1", "s-1.rad")),
        (("50", "%"), ("0.5", "1")),
        (("1", "[ppth]"), ("0.1", "%")),
        (("37", "Cel"), ("98.6", "[degF]")),
        (("37.0", "Cel"), ("310.15", "K")),
        (("-40", "Cel"), ("-40", "[degF]")),
        (("1", "Cel{oral}"), ("1000", "mCel")),
        (("1", "mL/kg/h"), ("1", "mL/(kg.h)")),
        (("1", "mL/kg/h"), ("1", "(mL/kg)/h")),
        (("1", "/kg.mL/h"), ("1", "mL/kg/h")),
        (("7", "d"), ("1", "wk")),
        (("12", "mo"), ("1", "a")),
        (("1", "g/(8.h){shift}"), ("0.125", "g/h")),
        (("3", "/100{WBCs}"), ("3", "%")),
        (("1", "kg.m/s2"), ("1", "N")),
        (("1", "m+2"), ("1", "m2")),
        (("1", "dag"), ("10", "g")),
        (("1", "{score}"), ("1", "1")),
        (("1", "m[H2O]"), ("9.80665", "kPa")),
        (("180", "deg"), ("1", "[pi].rad")),
        (("1", "KiBy"), ("8192", "bit")),
    ],
)
def test_equal_quantities_meet(one, other):
    assert canonical(*one) == canonical(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("G/L", "10*9/L"),
        ("mg", "Mg"),
        ("[iU]", "[arb'U]"),
        ("[iU]/L", "mol/L"),
        ("m", "m2"),
        ("Cel", "[degF]"),
        ("[degF]", "[degR]"),
        ("cal", "[Cal]"),
    ],
)
def test_different_quantities_do_not_meet(one, other):
    assert canonical("1", one) != canonical("1", other)


def test_g_alone_is_gauss_not_giga():
    assert canonical("1", "G/L") == canonical("0.1", "T/m3")


@pytest.mark.parametrize(
    ("code", "unit"),
    [
        ("g/L", "g.m-3"),
        ("m3/kg.s2", "g-1.m3.s2"),
        ("N", "g.m.s-2"),
        ("lm", "cd.rad2"),
        ("V", "C-1.g.m2.s-2"),
        ("[iU]/mL", "[iU].m-3"),
        ("mm/cm", "1"),
        ("m0", "1"),
        ("%", "1"),
        ("{any}", "1"),
        ("[degF]", "K"),
    ],
)
def test_the_canonical_unit_is_in_base_units_in_one_order(code, unit):
    assert canonical("1", code)[1] == unit


@pytest.mark.parametrize(
    "code",
    [
        "",
        " ",
        "mg ",
        "m g",
        "°C",
        "µg",
        "mG/l2x",
        "KG",
        "milligram",
        "mmin",
        "mkg",
        "m2.5.",
        ".m",
        "m/",
        "m//s",
        "m..s",
        "(m",
        "m)",
        "()",
        "(m)2",
        "m{",
        "m}",
        "m{a{b}}",
        "m{a b}",
        "{a}m",
        "m--2",
        "m2+3",
        "1.5e3",
        "-1",
        "0",
        "m/0",
        "100*",
        "[foo]",
        "[lb_av",
        "m١",
        "[pH]",
        "B",
        "dB",
        "Np",
        "B[SPL]",
        "[p'diop]",
        "%[slope]",
        "[hp'_X]",
        "[m/s2/Hz^(1/2)]",
        "J/Cel",
        "Cel2",
        "/Cel",
        "2.Cel",
        "k[degF]",
        "10*100",
        "Ym99.Ym99.Ym99",
        "/Ym99/Ym99/Ym99",
    ],
)
def test_what_is_not_ucum_or_has_no_proportion_to_base_units_has_no_converter(code):
    assert converter(code) is None


def test_codes_are_bounded_in_length_and_nesting():
    half = MAX_LENGTH // 2
    assert converter("m" + ".m" * (half - 1)).unit == f"m{half}"
    assert converter("m" + ".m" * half) is None
    assert converter("(" * (half - 1) + "m" + ")" * (half - 1)) is not None
    assert converter("(" * 1_000_000) is None
    assert converter("[pi]99." * 8 + "[pi]99") is not None
    assert converter("{" * MAX_LENGTH) is None


def test_results_have_34_digits_rounded_once():
    assert canonical("1", "/min") == (Decimal("0.01666666666666666666666666666666667"), "s-1")
    assert str(canonical("1234567890123456789012345678901234", "g")[0]) == "1234567890123456789012345678901234"
    assert canonical("0.1", "mg")[0] == Decimal("0.0001")
    assert canonical("-0", "Cel")[0] == Decimal("273.15")


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6),
    st.sampled_from(
        [("[lb_av]", "[oz_av]", 16), ("/h", "/d", 24), ("[ft_us]", "[in_us]", 12), ("a", "mo", 12), ("kat", "U", 60_000_000)]
    ),
)
def test_a_multiple_of_a_smaller_unit_is_the_same_to_the_last_digit(value, units):
    larger, smaller, times = units
    assert canonical(value, larger) == canonical(value * times, smaller)


def test_values_and_results_that_can_not_be_stored_are_refused():
    for value, code in (("1e7000", "g"), ("1e6130", "Yg"), ("1." + "1" * 34, "g"), ("1e999999", "Cel")):
        with pytest.raises(FhirError) as caught:
            canonical(value, code)
        assert (caught.value.code, caught.value.status) == ("value", 400)
    assert canonical("1e6000", "Cel")[0] == Decimal("1e6000")
    assert canonical("1e-6000", "[degF]") == canonical("0", "[degF]")


def test_every_unit_of_the_table_is_read_but_the_special_ones():
    table = json.loads((Path(fhir_server.ucum.__file__).parent / "units.json").read_text())
    assert table["source"].startswith("ucum-essence.xml 2.2")
    for code, row in table["units"].items():
        is_temperature = code in {"Cel", "[degF]", "[degRe]"}
        assert (converter(code) is not None) == ("special" not in row or is_temperature), code
        if row.get("metric") and converter(code):
            assert converter("m" + code).unit == converter(code).unit
            assert canonical("1000", f"m{code}") == canonical("1", code)
