"""HL7 v2 messages as rows of segments and fields, for a page."""

from console.v2_view import Part, SegmentRow, view

_MESSAGE = "\r".join(
    [
        r"MSH|^~\&|EHR|HOSP|RIS|HOSP|20261129080000||ORU^R01^ORU_R01|17|P|2.5.1||||||UNICODE UTF-8",
        r"PID|1||4711^^^HOSP&1.2.3&ISO^MR~99^^^KK^NI||Muster^Ida||19700131|F|||\"\"",
        r"OBX|1|FT|24627-2^CT Chest^LN||Lungs clear.\.br\No effusion \T\ no ^ mass.",
        r"OBX|2|ED|PDF||^APPLICATION^PDF^Base64^" + "QUJD" * 2000,
        r"NTE|1|| ",
        r"ZXY|1|free^text",
    ]
).replace('\\"', '"')


def _segments(**how: object) -> dict[str, SegmentRow]:
    made = view(_MESSAGE.encode(), **how)  # type: ignore[arg-type]
    return {f"{s.name}{s.number}": s for s in made.segments}


def test_fields_have_their_numbers_names_and_parts() -> None:
    pid = _segments()["PID1"]
    fields = {field.number: field for field in pid.fields}
    assert fields[3].name == "Patient identifier list"
    first, second = fields[3].repetitions
    assert [(p.number, p.text) for p in first] == [("1", "4711"), ("4.1", "HOSP"), ("4.2", "1.2.3"), ("4.3", "ISO"), ("5", "MR")]
    assert [p.text for p in second] == ["99", "KK", "NI"]
    assert fields[7].repetitions == ((Part("", "19700131"),),)
    assert fields[11].deletes
    assert set(fields) == {1, 3, 5, 7, 8, 11}
    assert pid.raw == _MESSAGE.split("\r")[1]


def test_the_header_counts_its_separator_and_stands_as_it_came() -> None:
    msh = _segments()["MSH1"]
    assert [f.repetitions[0][0].text for f in msh.fields[:3]] == ["|", r"^~\&", "EHR"]
    assert msh.raw == _MESSAGE.split("\r")[0]


def test_text_is_decoded_and_keeps_what_looks_like_components() -> None:
    (text,) = _segments()["OBX1"].fields[-1].repetitions
    assert text == (Part("", "Lungs clear.\nNo effusion & no ^ mass."),)


def test_what_is_long_is_cut_and_says_so() -> None:
    obx = _segments()["OBX2"]
    data = obx.fields[-1].repetitions[0][-1]
    assert (data.number, len(data.text), data.cut) == ("5", 2000, 6000)
    assert len(obx.raw) == 2000
    assert obx.cut > 6000


def test_what_nothing_uses_is_marked_and_names_can_be_left_out() -> None:
    found = _segments(unmapped=["ZXY", "PID-8"], names=False)
    assert found["ZXY1"].unread
    assert [f.number for f in found["PID1"].fields if f.unread] == [8]
    assert not any(f.name for s in found.values() for f in s.fields)


def test_what_is_no_message_is_shown_as_bytes_and_nothing_as_nothing() -> None:
    made = view(b"GET / HTTP/1.1\r\n\x1b[2J")
    assert made.unreadable
    assert made.raw == r"b'GET / HTTP/1.1\r\n\x1b[2J'"
    assert not view(b"").unreadable


def test_what_is_hidden_says_only_that_it_is_there_and_a_note_goes_with_its_segment() -> None:
    found = _segments(hides=lambda name, owner: "OBX" in (name, owner))
    assert [name for name, s in found.items() if s.hidden] == ["OBX1", "OBX2", "NTE1"]
    assert not any(s.fields or s.raw for s in found.values() if s.hidden)
    unreadable = view(b"MSHX", hides=lambda name, owner: False)
    assert unreadable.unreadable
    assert unreadable.raw == ""


def test_control_characters_do_nothing_on_a_terminal_or_page() -> None:
    made = view(b"MSH|^~\\&|A|B|C|D|||ADT^A04|1|P|2.5.1\rPID|1||\x1b[2J\x00")
    assert made.segments[1].fields[-1].repetitions[0][0].text == r"\x1b[2J\x00"
    assert "\x1b" not in made.segments[1].raw


def test_a_message_of_too_many_parts_is_shown_in_part() -> None:
    many = _MESSAGE.encode() + b"".join(b"\rNTE|1||" + b"~".join([b"a^b"] * 60) for _ in range(400))
    made = view(many)
    assert made.left_off
    assert len(made.segments) + made.left_off == 406
