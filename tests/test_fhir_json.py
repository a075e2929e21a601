"""The JSON and BSON codec keeps what it is given, and refuses what JSON does not allow."""

from datetime import UTC, datetime
from decimal import Decimal

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir_json import MAX_NESTING, decimal_text, dumps, from_bson, loads, to_bson
from fhir_server.outcome import FhirError


def refusal(data):
    with pytest.raises(FhirError) as caught:
        loads(data)
    assert (caught.value.code, caught.value.status) == ("structure", 400)
    return str(caught.value)


@pytest.mark.parametrize(
    "number",
    """
    1.50 0.0100 1e3 0.0000001 123456789012345678 1234567890.123456789012345678 -0.0 -0 0 7
    9223372036854775808 123456789012345678901234 1.000000000000000000e245
    """.split(),
)
def test_a_number_comes_back_with_every_digit_through_json_and_bson(number):
    data = f'{{"value":{number}}}'.encode()
    assert dumps(loads(data)) == data
    assert dumps(from_bson(bson.decode(bson.encode(to_bson(loads(data)))))) == data


@given(st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: len(d.as_tuple().digits) <= 34))
def test_every_decimal_keeps_its_value_and_its_precision(number):
    again = loads(dumps({"value": number}))["value"]
    again = again if isinstance(again, Decimal) else Decimal(again)
    assert again.as_tuple() == number.as_tuple()


texts = st.text('ab09é日\U0001f600 "\\/{}[]:,\n\x00\x7f')
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, json_values))
def test_what_is_written_is_read_back_in_the_same_order(value):
    for pretty in (False, True):
        again = loads(dumps(value, pretty=pretty))
        assert again == value
        assert list(again) == list(value)


def test_only_pretty_json_is_indented():
    assert dumps({"a": [1]}) == b'{"a":[1]}'
    assert dumps({"a": Decimal("1.0")}, pretty=True) == b'{\n  "a": 1.0\n}'


def test_a_property_given_twice_is_refused_at_any_level():
    assert "'status' stands twice" in refusal('{"a":[{"status":"draft","x":1,"status":"active"}]}')


@given(st.dictionaries(texts, json_values, min_size=1), st.data())
def test_a_property_given_twice_is_refused_whatever_else_is_there(value, data):
    name, other = data.draw(st.sampled_from(sorted(value))), data.draw(json_values)
    twice = dumps(value)[:-1] + b", " + dumps(name) + b" : " + dumps(other) + b"}"
    assert "stands twice" in refusal(twice)
    assert "stands twice" in refusal(b'{"a": [1, ' + twice + b"]}")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e99999999999999999999", "01", "+1", ".5", "1."])
def test_what_is_not_a_json_number_is_refused(number):
    refusal(f'{{"value":{number}}}')


@pytest.mark.parametrize("data", ["[]", '"text"', "1", "null", "", "{", "{} {}", "{'a':1}", '{"a":1,}', "\x00"])
def test_what_is_not_one_json_object_is_refused(data):
    refusal(data)


def test_an_integer_of_too_many_digits_is_refused_or_kept_but_never_an_error_of_ours():
    assert loads('{"a":' + "9" * 10_000 + "}")["a"] == Decimal("9" * 10_000)
    assert "digits" in refusal('{"a":' + "9" * 5_000_000 + "}")


def test_a_byte_order_mark_is_refused():
    assert "byte order mark" in refusal(b'\xef\xbb\xbf{"a":1}')
    assert "byte order mark" in refusal('\ufeff{"a":1}')


@pytest.mark.parametrize("data", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', '{"a":"\ud800"}', '{"a":1}'.encode("utf-16")])
def test_invalid_utf8_is_refused(data):
    refusal(data)


def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_kept():
    assert "surrogate" in refusal(r'{"a":"\ud83d"}')
    assert "surrogate" in refusal(r'{"\udc00":1}')
    assert loads(r'{"a":"\ud83d\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('{"a":[', "]}")])
def test_nesting_is_limited_before_it_can_do_harm(opening, closing):
    for levels in (MAX_NESTING, 1000, 100_000):
        assert "nests deeper" in refusal('{"a":' + opening * levels + "1" + closing * levels + "}")
        assert "nests deeper" in refusal(b'{"a":' + opening.encode() * levels)
    allowed = (MAX_NESTING - 1) // (opening.count("{") + opening.count("["))
    loads('{"a":' + opening * allowed + "1" + closing * allowed + "}")


def test_brackets_in_strings_are_not_nesting():
    text = '[{"' * 200 + "\\"
    assert loads(dumps({"a": text, "b": '\\"['})) == {"a": text, "b": '\\"['}


def test_a_refusal_names_the_place_and_not_the_content():
    text = refusal('{"name":"Secret", "x" 1}')
    assert "line 1, column 23" in text
    assert "Secret" not in text


def test_to_bson_leaves_its_argument_alone_and_shares_it_when_there_is_no_decimal():
    resource = {"a": [{"b": Decimal("1.50"), "c": "x"}], "d": {"e": 1}}
    stored = to_bson(resource)
    assert stored["a"][0]["b"] == bson.Decimal128("1.50")
    assert resource["a"][0]["b"] == Decimal("1.50")
    assert list(stored["a"][0]) == ["b", "c"]
    assert stored["d"] is resource["d"]
    plain = {"a": [1, "x", None, True]}
    assert to_bson(plain) is plain


def test_from_bson_gives_decimals_and_plain_ints():
    document = from_bson(bson.decode(bson.encode({"a": bson.Decimal128("1.50"), "b": [2**40]})))
    assert document == {"a": Decimal("1.50"), "b": [2**40]}
    assert type(document["b"][0]) is int


@pytest.mark.parametrize("text", ["1" * 35, "0." + "1" * 35, "1e6112", "1e-6177"])
def test_a_decimal_that_bson_cannot_hold_exactly_is_refused(text):
    with pytest.raises(FhirError) as caught:
        to_bson({"value": Decimal(text)})
    assert caught.value.code == "value"


def test_a_bson_decimal_can_be_written_as_json():
    assert dumps({"a": bson.Decimal128("0.0100")}) == b'{"a":0.0100}'


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), {1}, b"x", Decimal("NaN"), Decimal("Infinity")])
def test_what_fhir_has_no_form_for_is_not_written(value):
    with pytest.raises(TypeError):
        dumps({"a": value})


def test_very_small_numbers_are_not_written_out_endlessly():
    assert decimal_text(Decimal("1e-6000")) == "1e-6000"
