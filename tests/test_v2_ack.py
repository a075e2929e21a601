"""Acknowledgements: what senders get from us, and what we make of receivers' answers."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridges.v2.ack import ERROR_CODES, Ack, AckError, acknowledge, read_ack
from bridges.v2.message import Comp, MessageError, Seg, parse

WHEN = datetime(2026, 9, 7, 8, 30, tzinfo=UTC)
ERROR = AckError("PID", 1, 3, 4, 204, "no such authority", diagnostics="PID-3.4")


def order(version: str = "2.5.1", control_id: str = "C1", charset: str = "UNICODE UTF-8") -> bytes:
    return (
        f"MSH|^~\\&|EHR^1.2^ISO|FAC|RIS|RAD|20260907||ORM^O01^ORM_O01|{control_id}|T|{version}||||||{charset}\rPID|1\r".encode()
    )


def answer(data: bytes, code: str = "AA", **options) -> list[str]:
    text = acknowledge(parse(data), code, control_id="R1", when=WHEN, **options).decode()
    assert text.endswith("\r")
    return text[:-1].split("\r")


def test_an_acceptance_goes_back_to_the_sender_in_its_own_terms():
    assert answer(order()) == [
        "MSH|^~\\&|RIS|RAD|EHR^1.2^ISO|FAC|20260907083000+0000||ACK^O01^ACK|R1|T|2.5.1||||||UNICODE UTF-8",
        "MSA|AA|C1",
    ]


@pytest.mark.parametrize(
    ("version", "kind"), [("2.3.1", "ACK"), ("2.2", "ACK"), ("2.4", "ACK^O01^ACK"), ("2.5.1^DEU", "ACK^O01^ACK")]
)
def test_the_message_type_suits_the_version(version, kind):
    fields = answer(order(version))[0].split("|")
    assert fields[8] == kind
    assert fields[11] == version


@pytest.mark.parametrize("control_id", ["", "00042", " x ", "a\\T\\b", "ö-1", "2026^1", "\\XF6\\", '""'])
@pytest.mark.parametrize("codec", ["utf-8", "latin-1"])
def test_msa_2_is_msh_10_byte_for_byte(control_id, codec):
    data = order(control_id=control_id, charset="").decode().encode(codec)
    sent = data.split(b"|")[9]
    assert (
        acknowledge(parse(data), "AA", control_id="R1", when=WHEN).split(b"\rMSA|AA")[1] == (b"|" + sent if sent else b"") + b"\r"
    )


def test_odd_separators_and_a_fifth_character_are_answered_in_kind():
    data = b"MSH#$%!*@#EHR$1#F#RIS#R#2026##ORM$O01#C!F!1#P#2.7"
    assert answer(data)[0].startswith("MSH#$%!*@#RIS#R#EHR$1#F#")
    assert answer(data)[1] == "MSA#AA#C!F!1"


def test_errors_are_err_segments_from_version_2_5_on():
    assert answer(order(), "AE", errors=[ERROR, AckError(code=101, text="PV1 is missing", severity="W")])[1:] == [
        "MSA|AE|C1|no such authority",
        "ERR||PID^1^3^1^4|204^Unknown key identifier^HL70357|E|||PID-3.4|no such authority",
        "ERR|||101^Required field missing^HL70357|W||||PV1 is missing",
    ]


def test_older_versions_get_the_old_err_1():
    assert answer(order("2.3.1"), "AE", errors=[ERROR, AckError("PV1", code=100)], text="refused")[1:] == [
        "MSA|AE|C1|refused",
        "ERR|PID^1^3^204&Unknown key identifier&HL70357~PV1^^^100&Segment sequence error&HL70357",
    ]


def test_a_text_that_names_separators_stays_one_field():
    assert answer(order(), "AR", text="a|b\nc")[1] == "MSA|AR|C1|a\\F\\b\\.br\\c"


def test_an_application_response_has_its_own_type_and_segments():
    lines = answer(order(), response=("ORR", "O02", "ORR_O02"), extra_segments=[Seg("ORC", {1: "OK", 2: Comp("1", "EHR")})])
    assert lines[0].split("|")[8] == "ORR^O02^ORR_O02"
    assert lines[2] == "ORC|OK|1^EHR"


def test_an_unreadable_frame_is_rejected_with_an_empty_msa_2():
    lines = acknowledge(
        None, "AR", control_id="R1", when=WHEN, errors=[AckError(code=207, text="no MSH")], application="RIS"
    ).decode()
    assert lines.split("\r")[:3] == [
        "MSH|^~\\&|RIS||||20260907083000+0000||ACK|R1|P|2.5.1",
        "MSA|AR||no MSH",
        "ERR|||207^Application internal error^HL70357|E||||no MSH",
    ]


def test_an_unknown_code_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="OK"):
        acknowledge(None, "OK", control_id="1", when=WHEN)


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_our_own_answers_are_read_back(version):
    data = acknowledge(parse(order(version, "C\\T\\1")), "AE", control_id="R1", when=WHEN, errors=[ERROR], text="refused")
    ack = read_ack(data)
    assert (ack.code, ack.control_id, ack.text, ack.positive) == ("AE", "C&1", "refused", False)
    (error,) = ack.errors
    assert (error.segment, error.sequence, error.field, error.code) == ("PID", 1, 3, 204)
    if version == "2.5.1":
        assert error == AckError("PID", 1, 3, 4, 204, "no such authority", "E", 1, "PID-3.4")


@pytest.mark.parametrize(
    ("data", "ack"),
    [
        (b"MSH|^~\\&|||||||ACK|9|P|2.3\nMSA|AA|C1", Ack("AA", "C1")),
        (b"\r\nMSA|CA|C1|fine\r", Ack("CA", "C1", "fine")),
        (b"MSH|^~\\&|\rMSA| aa | C1 |", Ack("AA", "C1")),
        (b"MSH|^~\\&|\rMSA|AE|C1\rERR|||x^own^L", Ack("AE", "C1", "", (AckError(code=None, text="own"),))),
        (b"MSH|^~\\&|\rMSA", None),
        (b"MSH|^~\\&|\rPID|1", None),
        (b"200 OK", None),
        (b"", None),
    ],
)
def test_receivers_answers_are_read_with_tolerance(data, ack):
    if ack:
        assert read_ack(data) == ack
    else:
        with pytest.raises(MessageError):
            read_ack(data)


@given(st.binary(max_size=80), st.sampled_from([b"", b"MSA|", b"MSH|^~\\&|||||||||||", b"MSH|^~\\&|\rMSA|AE|1\rERR|"]))
@example(b"9" * 5000, b"MSH|^~\\&||||||||||")
def test_no_bytes_break_the_reader_or_the_writer(data, start):
    with suppress(MessageError):
        read_ack(start + data)
    try:
        message = parse(start + data)
    except MessageError:
        return
    answered = acknowledge(message, "AE", control_id="1", when=WHEN, errors=[AckError()])
    assert b"\x1c" not in answered
    assert read_ack(answered).code == "AE"


def test_table_0357_is_complete():
    assert sorted(ERROR_CODES) == [0, *range(100, 104), *range(200, 208)]
