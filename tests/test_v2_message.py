r"""The v2 codec: what is tolerated in a message that comes, and what goes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.v2.charset import DEFAULT, Separators, codec_of, escape, read_separators, restate, unescape
from bridges.v2.datatypes import CWE, CX, EI, HD, XCN, XPN
from bridges.v2.message import MAX_SEGMENTS, NULL, Comp, MessageError, Raw, Seg, Sub, encode, is_null, parse

MSH = "MSH|^~\\&|APP|FAC|RIS|RAD|20260907||ORM^O01^ORM_O01|C1|P|2.5.1||||||{}"
ODD = Separators("#", "$", "%", "!", "*")


def message(*lines: str, charset: str = "", codec: str = "utf-8") -> bytes:
    return "\r".join([MSH.format(charset), *lines, ""]).encode(codec)


# Reading


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\r\n\r\n"])
def test_segments_are_found_whatever_ends_them(end):
    read = parse(end.join([MSH, "PID|1||42", "ZZZ|own"]).encode())
    assert [s.name for s in read.segments] == ["MSH", "PID", "ZZZ"]
    assert read.first("PID").field(3) == "42"
    assert read.first("ZZZ").field(1) == "own"
    assert read.first("PV1") is None


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"  \r\n\t", b"\x0b", b"\xef\xbb\xbf \n"])
def test_what_stands_before_msh_is_skipped(before):
    data = before + message("PID|1||42")
    read = parse(data)
    assert read.control_id == "C1"
    assert read.raw == data


def test_a_raw_line_break_inside_a_field_stays_in_the_field():
    read = parse(message("OBX|1|TX|||first", "second: a|b", "", "third||||||F", "", "NTE|1||x"))
    assert read.first("OBX").raw(5) == "first\nsecond: a"
    assert read.first("OBX").raw(6) == "b\n\nthird"
    assert read.first("NTE").field(3) == "x"


def test_many_continuation_lines_are_read_in_linear_time():
    lines = ["A0K9+/" * 12] * 100_000
    read = parse(message("OBX|1|ED|||^AP^PDF^Base64^" + lines[0], *lines))
    assert len(read.first("OBX").get(5, 5)) > 7_000_000


def test_msh_is_numbered_as_in_the_standard():
    read = parse(message())
    assert [read.msh.field(n) for n in (1, 2, 3, 10, 12)] == ["|", "^~\\&", "APP", "C1", "2.5.1"]
    assert read.msh.get(2, 2) == ""
    assert read.type == ("ORM", "O01", "ORM_O01")
    assert read.version == "2.5.1"


def test_repetitions_components_and_subcomponents_are_reached_by_number():
    pid = parse(message("PID|||1^^^A&1.2&ISO^MR~2^^^B^PI~||")).first("PID")
    assert pid.field(3) == "1"
    assert pid.get(3, 4, 2) == "1.2"
    assert pid.get(3, 4, repetition=1) == "B"
    assert [f.get() for f in pid.repetitions(3)] == ["1", "2", ""]
    assert pid.repetitions(3)[0].components() == ["1", "", "", "A", "MR"]
    assert pid.raw(3) == "1^^^A&1.2&ISO^MR~2^^^B^PI~"


@pytest.mark.parametrize(
    "place", [(99, 1, 1, 0), (3, 99, 1, 0), (3, 1, 99, 0), (3, 1, 1, 99), (3, 0, 1, 0), (-1, 1, 1, 0), (3, 1, 1, -1)]
)
def test_absent_parts_are_empty(place):
    pid = parse(message("PID|||1^^^A")).first("PID")
    assert pid.get(*place) == ""
    assert pid.repetitions(9) == []


def test_two_quotes_ask_to_delete_and_are_no_text():
    pid = parse(message('PID|||""|""^x|')).first("PID")
    assert is_null(pid, 3)
    assert pid.field(3) == ""
    assert pid.raw(3) == '""'
    assert pid.repetitions(3)[0].is_null
    assert not is_null(pid, 4)
    assert not is_null(pid, 5)
    assert pid.get(4, 1) == ""


def test_unescaped_separators_in_a_free_text_are_kept_by_text():
    obx = parse(message("OBX|1|TX|||T1 & T2, 5^3|")).first("OBX")
    assert obx.text(5) == obx.repetitions(5)[0].text == "T1 & T2, 5^3"
    assert obx.field(5) == "T1 "


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f\P\g", "a|b^c&d~e\\f#g"),
        (r"schwerh\XC3\\XB6\rig \XC3B6\ ", "schwerhörig ö "),
        (r"\XC7\\XC3\O", "ÇÃO"),
        (r"one\.br\two\.sp\three\.sp2\four", "one\ntwo\nthree\n\nfour"),
        (r"\H\bold\N\ \.in+4\plain\.fi\ ", "bold plain "),
        (r"C:\temp\file \Zown\F\C2842\ \.br", r"C:\temp\file \Zown\F\C2842\ \.br"),
        (r"3\10 and\.br\next \X4\ ", "3\\10 and\nnext \\X4\\ "),
    ],
)
def test_escape_sequences(raw, text):
    assert parse(message(f"NTE|1||{raw}")).first("NTE").text(3) == text


def test_a_fifth_character_in_msh_2_is_the_truncation_character():
    read = parse(b"MSH|^~\\&#|APP\rNTE|1||a\\P\\b")
    assert read.separators.truncation == "#"
    assert read.msh.field(3) == "APP"
    assert read.first("NTE").field(3) == "a#b"


def test_odd_separators_are_honoured():
    read = parse(b"MSH#$%!*#APP\rPID###1$$$A*1.2%2#a!F!b!S!c!.br!d")
    assert read.first("PID").get(3, 4, 2) == "1.2"
    assert read.first("PID").get(3, repetition=1) == "2"
    assert read.first("PID").field(4) == "a#b$c\nd"


def test_separators_that_msh_2_leaves_out_are_the_usual_ones():
    assert parse(b"MSH|^|APP\rPID|||1^2~3").first("PID").get(3, repetition=1) == "3"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"PID|1",
        b"MSH",
        b"MSHA^~\\&|",
        b"MSH|^^~\\|A",
        b"MSH|ab&|",
        b"MSH|.~\\&|",
        b"junk\rMSH|^~\\&|",
        b"MSH\r|^~\\&",
    ],
)
def test_what_has_no_readable_msh_is_refused(data):
    with pytest.raises(MessageError):
        parse(data)


def test_two_messages_in_one_frame_are_refused():
    with pytest.raises(MessageError, match="more than one MSH"):
        parse(message("PID|||1") + message("PID|||2"))


def test_a_message_of_too_many_segments_is_refused():
    with pytest.raises(MessageError, match=str(MAX_SEGMENTS)):
        parse(message(*["NTE|"] * MAX_SEGMENTS))


# Character sets


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("UNICODE UTF-8", "utf-8", "Müller Łódź"),
        ("8859/1", "latin-1", "Müller"),
        ("8859/2", "iso8859-2", "Łódź"),
        ("8859/15", "iso8859-15", "10 €"),
        ("ISO_IR 100", "latin-1", "Müller"),
        ("8859/5", "iso8859-5", "Иванов"),
        ("GB 18030-2000", "gb18030", "模范 张"),
        ("BIG-5", "big5", "許功蓋"),  # second bytes are backslash and bar
        ("KS X 1001", "euc_kr", "홍길동"),
        ("~ISO IR87", "iso2022_jp", "山田 ABC"),
        ("ISO IR14~ISO IR87", "iso2022_jp", "山田"),
        ("", "utf-8", "Müller"),
        ("", "latin-1", "Müller"),
        ("8859/1", "utf-8", "Müller Łódź"),  # declared but false
        ("8859/1", "cp1252", "Škoda O’Neil 10 €"),
        ("ISO_IR 100", "cp1252", "Müller ‘œuvre’"),
        ("", "cp1252", "Škoda"),
        ("8859/2", "iso8859-2", "Łódź \x93"),
        ("ASCII", "latin-1", "Müller"),
        ("UNICODE UTF-8", "latin-1", "Müller"),
        ("UNICODE UTF-16", "utf-8", "Müller"),
        ("nonsense", "utf-8", "Müller"),
    ],
)
def test_text_is_read_in_the_declared_or_else_the_likeliest_charset(charset, codec, text):
    assert parse(message(f"PID|1||||{text}^x", charset=charset, codec=codec)).first("PID").field(5) == text


def test_what_windows_1252_has_no_character_for_is_kept_and_answered():
    read = parse(message("PID|1||||a\x81b \x93", charset="8859/1", codec="latin-1"))
    assert read.first("PID").field(5) == "a\x81b \x93"
    windows = parse(message("PID|1||||Škoda", charset="8859/1", codec="cp1252"))
    assert encode([Seg("NTE", {1: windows.first("PID").field(5)})], windows.codec) == "NTE|Škoda\r".encode("cp1252")
    assert parse(message(r"NTE|1||\X8A\koda", charset="8859/1")).first("NTE").text(3) == "Škoda"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_wide_message_of_nothing_but_ascii_is_read_and_acknowledged(codec):
    message = parse("MSH|^~\\&|HIS|||||||M1|P|2.5.1\rPID|||42\r".encode(codec))
    assert message.first("PID").field(3) == "42"
    answer = encode([Seg("MSH", {10: "1"}), Seg("MSA", {1: "AA", 2: message.control_id})], message.codec)
    assert parse(answer).first("MSA").field(2) == "M1"


@pytest.mark.parametrize("name", ["ISO IR87", "~ISO IR87", "KS X 1001", "GB 18030-2000", "BIG-5"])
def test_an_answer_is_written_in_the_codec_that_its_message_was_read_in(name):
    message = parse(f"MSH|^~\\&|HIS|||||||M1|P|2.5.1||||||{name}\r".encode())
    assert encode([Seg("MSH", {10: "1"})], message.codec).startswith(b"MSH|")


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_wide_unicode_is_recognised(codec):
    read = parse(message("PID|1||||Łódź", codec=codec))
    assert read.first("PID").field(5) == "Łódź"
    assert read.control_id == "C1"


def test_the_guess_can_be_switched_off_and_the_default_set_per_partner():
    data = message("PID|1||||Müller", charset="8859/1", codec="utf-8")
    assert parse(data, guess_charset=False).first("PID").field(5) == "MÃ¼ller"
    assert parse(message("PID|1||||Łódź", codec="iso8859-2"), default_charset="8859/2").first("PID").field(5) == "Łódź"
    with pytest.raises(ValueError, match="nonsense"):
        parse(data, default_charset="nonsense")


@pytest.mark.parametrize("name", ["cp037", "unicode_escape", "utf-7", "hex", "punycode", "", " "])
def test_codecs_that_are_no_v2_charset_are_unknown(name):
    assert codec_of(name) is None


def test_hex_escapes_are_bytes_of_the_charset():
    assert parse(message(r"NTE|1||\XF6\ ", charset="8859/1")).first("NTE").text(3) == "ö "
    assert parse(message(r"NTE|1||\XE8\ ", charset="8859/2")).first("NTE").text(3) == "č "
    assert parse(message(r"NTE|1||\XC4A3\ ", charset="GB 18030-2000")).first("NTE").text(3) == "模 "


# Writing


def test_a_message_is_written_as_its_table_reads():
    segments = [
        Seg("MSH", {3: "RIS", 9: Comp("ORU", "R01", "ORU_R01"), 12: "2.5.1"}),
        Seg(
            "PID",
            {1: 1, 3: [CX("1", HD("A", "1.2", "ISO"), "MR"), CX("2")], 5: XPN("Doe", "Jane", prefix="Dr."), 8: None, 30: ""},
        ),
        Seg("OBX", {5: "a|b^c&d~e\\f\ng", 6: NULL, 7: Raw("x^y&z"), 8: ["", "b", ""], 9: Comp(Sub("a", "", "c"), "", None)}),
    ]
    assert encode(segments).decode().split("\r") == [
        "MSH|^~\\&|RIS||||||ORU^R01^ORU_R01|||2.5.1",
        "PID|1||1^^^A&1.2&ISO^MR~2||Doe^Jane^^^Dr.",
        'OBX|||||a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\.br\\g|""|x^y&z|~b|a&&c',
        "",
    ]


def test_other_separators_are_written_and_escaped():
    assert (
        encode([Seg("MSH", {3: "R#S"}), Seg("NTE", {3: Comp("a|b", "c!")})], separators=ODD)
        == b"MSH#$%!*#R!F!S\rNTE###a|b$c!E!\r"
    )
    with_truncation = read_separators("|", "^~\\&#")
    assert encode([Seg("NTE", {1: "a#b"})], separators=with_truncation) == b"NTE|a\\P\\b\r"


def test_nothing_that_is_written_breaks_a_segment_or_a_frame():
    value = "a\r\nb\rc\x0bd\x1ce\x00\ud800"
    assert encode([Seg("NTE", {1: value})]).decode() == "NTE|a\\.br\\b\\X0D\\c\\X0B\\d\\X1C\\e\\X00\\\ufffd\r"
    assert encode([Seg("NTE", {1: Raw("a\r\nb\rc\x0b\x1c")})]) == b"NTE|a\\.br\\b\\.br\\c\\X0B\\\\X1C\\\r"


def test_characters_that_the_charset_lacks_become_question_marks_and_are_logged(caplog):
    assert encode([Seg("NTE", {1: "Łódź ö"})], charset="8859/1") == b"NTE|?\xf3d? \xf6\r"
    assert "2 characters" in caplog.text
    assert "dz" not in caplog.text
    with pytest.raises(ValueError, match="nonsense"):
        encode([], charset="nonsense")


@pytest.mark.parametrize(("name", "fields"), [("pid", {}), ("PI", {}), ("PID", {0: "x"}), ("MSH", {2: "x"})])
def test_a_segment_that_can_not_be_is_a_mistake_of_ours(name, fields):
    with pytest.raises(ValueError, match=name):
        Seg(name, fields)


# Data types


def test_data_types_are_read_and_written_alike():
    read = parse(
        message(
            "PID|||70^^^ALPHA&1.2.3&ISO^MR^FAC^2020^2030||Muster^Eva^Ann^III^Dr.^PhD^L^A",
            "ORC|NW|PL-1^EHR^1.2^ISO^more||||||||||12^Ref^Rita^^^Dr.^MD^^AUTH&1.9&ISO^L^^^NPI",
            r"OBR|1||||242^CT \T\ more^LN^X^y^L^1^2^orig",
        )
    )
    cx = CX.from_field(read.first("PID").repetitions(3)[0])
    assert (cx.id, cx.authority.namespace, cx.authority.oid, cx.type) == ("70", "ALPHA", "1.2.3", "MR")
    xpn = XPN.from_field(read.first("PID").repetitions(5)[0])
    assert (xpn.family, xpn.suffix, xpn.prefix, xpn.type) == ("Muster", "III", "Dr.", "L")
    xcn = XCN.from_field(read.first("ORC").repetitions(12)[0])
    assert (xcn.id, xcn.family, xcn.authority.namespace, xcn.id_type) == ("12", "Ref", "AUTH", "NPI")
    ei = EI.from_field(read.first("ORC").repetitions(2)[0])
    assert (ei.id, ei.namespace, ei.universal_id, ei.universal_id_type) == ("PL-1", "EHR", "1.2", "ISO")
    cwe = CWE.from_field(read.first("OBR").repetitions(5)[0])
    assert (cwe.code, cwe.text, cwe.alternate_code, cwe.original_text) == ("242", "CT & more", "X", "orig")
    written = encode([Seg("ZZZ", {1: cx, 2: xpn, 3: xcn, 4: ei, 5: cwe, 6: EI("9", "RIS")})]).decode()
    assert written == (
        "ZZZ|70^^^ALPHA&1.2.3&ISO^MR^FAC^2020^2030|Muster^Eva^Ann^III^Dr.^PhD^L^A"
        "|12^Ref^Rita^^^Dr.^MD^^AUTH&1.9&ISO^L^^^NPI|PL-1^EHR^1.2^ISO^more"
        "|242^CT \\T\\ more^LN^X^y^L^1^2^orig|9^RIS\r"
    )


def test_a_name_within_a_component_is_read_as_in_obr_32():
    obr = parse(message("OBR|99001&Reader&Rosa&&&Dr.&&&AUTH&1.9&ISO^2026")).first("OBR")
    xcn = XCN.from_component(obr.repetitions(1)[0])
    assert (xcn.id, xcn.family, xcn.given, xcn.prefix, xcn.authority.oid) == ("99001", "Reader", "Rosa", "Dr.", "1.9")


def test_an_identifier_from_a_message_with_odd_separators_is_echoed_in_the_usual_ones():
    field = parse(b"MSH#$%!*#APP\rORC##A!F!|^1$EHR*x$\\").first("ORC").repetitions(2)[0]
    assert EI.from_field(field).id == "A#|^1"
    echoed = encode([Seg("MSH", {}), Seg("ORC", {2: EI.from_field(field)})])
    assert EI.from_field(parse(echoed).first("ORC").repetitions(2)[0]).id == "A#|^1"
    assert parse(echoed).first("ORC").get(2, 2, 2) == "x"
    assert parse(echoed).first("ORC").get(2, 3) == "\\"


# Properties

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SEPARATORS = st.sampled_from([DEFAULT, ODD, read_separators("|", "^~\\&#"), read_separators("'", "-+*,")])


@given(TEXT | st.text("|^~\\&#FSTREHNX.br0\n\"'", max_size=20), SEPARATORS)
def test_unescape_undoes_escape(text, separators):
    escaped = escape(text, separators)
    assert not set(escaped) & {"\r", "\n", separators.field, separators.component, separators.subcomponent, separators.repetition}
    assert unescape(escaped, separators, "utf-8") == text.replace("\r\n", "\n")


@given(st.lists(st.lists(st.lists(TEXT, min_size=1, max_size=3), min_size=1, max_size=3), max_size=4), SEPARATORS)
@settings(max_examples=60)
def test_what_is_built_is_read_back(fields, separators):
    segment = Seg("ZZZ", {n: [Comp(*parts) for parts in field] for n, field in enumerate(fields, 1)})
    read = parse(encode([Seg("MSH", {10: "1"}), segment], separators=separators)).first("ZZZ")
    for n, field in enumerate(fields, 1):
        for r, parts in enumerate(field):
            for c, text in enumerate(parts, 1):
                got = read.get(n, c, 1, r) if read else ""
                assert got == (text.replace("\r\n", "\n") if text.strip(" ") else "")


@given(TEXT, SEPARATORS, SEPARATORS)
@settings(max_examples=60)
def test_restating_in_other_separators_keeps_the_text(text, source, target):
    assert unescape(restate(escape(text, source), source, target), target, "utf-8") == text.replace("\r\n", "\n")


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"MSH|^~\\&|", b"MSH|^~\\&|||||||||||||||ISO IR87\r", b"\xff\xfeM\0S\0H\0|\0"])
)
@settings(max_examples=300)
def test_malformed_input_raises_nothing_but_message_error(data, start):
    try:
        read = parse(start + data)
    except MessageError:
        return
    for segment in read.segments:
        for field in range(25):
            for repetition in segment.repetitions(field):
                repetition.components()
                EI.from_field(repetition)
