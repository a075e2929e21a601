"""Names in all scripts through all character sets, in answers and in queries; and what never changes on the way."""

import io
from typing import Any

import pytest
from pydicom.filereader import read_dataset

from bridges.dicom import values
from bridges.dicom.answer_encoding import Style, encode
from bridges.dicom.character_sets import ASCII, character_set, teach_pydicom, terms, transliterated
from bridges.dicom.dicom_json import Attributes, of_dataset, put
from resources.worklist_preferences import EXTENSIONS

teach_pydicom()

# Name -> the sets that have its letters.
NAMES = {
    "Müller^Zoë": ["ISO_IR 100", "ISO_IR 192", "ISO_IR 148", "ISO_IR 203", "GB18030", "\\ISO 2022 IR 100"],
    "Łukasiewicz^Żaneta": ["ISO_IR 101", "ISO_IR 192", "\\ISO 2022 IR 101"],
    "Ġużè^Ħ": ["ISO_IR 109", "\\ISO 2022 IR 109"],
    "Ķeguma^Ļena": ["ISO_IR 110", "\\ISO 2022 IR 110"],
    "Люксембург": ["ISO_IR 144", "ISO_IR 192", "\\ISO 2022 IR 144"],
    "قباني^لنزار": ["ISO_IR 127", "ISO_IR 192", "\\ISO 2022 IR 127"],
    "Διονυσιος": ["ISO_IR 126", "ISO_IR 192", "\\ISO 2022 IR 126"],
    "שרון^דבורה": ["ISO_IR 138", "ISO_IR 192", "\\ISO 2022 IR 138"],
    "Çavuşoğlu": ["ISO_IR 148", "\\ISO 2022 IR 148"],
    "Œuvré€": ["ISO_IR 203", "\\ISO 2022 IR 203"],
    "นามสกุล": ["ISO_IR 166", "ISO_IR 192", "\\ISO 2022 IR 166"],
    "ﾔﾏﾀﾞ^ﾀﾛｳ": ["ISO_IR 13", "ISO 2022 IR 13\\ISO 2022 IR 87"],
    "Yamada^Tarou=山田^太郎=やまだ^たろう": ["\\ISO 2022 IR 87", "ISO_IR 192", "GB18030"],
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう": ["ISO 2022 IR 13\\ISO 2022 IR 87"],
    "A^B=丂丄^丅=": ["\\ISO 2022 IR 87\\ISO 2022 IR 159"],
    "Hong^Gildong=洪^吉洞=홍^길동": ["\\ISO 2022 IR 149", "ISO_IR 192"],
    "Zhang^XiaoDong=张^小东=": ["\\ISO 2022 IR 58", "GB18030", "GBK", "ISO_IR 192"],
    "Wang^XiaoDong=王^小东": ["GB18030", "ISO_IR 192"],
}
CASES = [(name, value) for name, sets in NAMES.items() for value in sets]


def answer(**attributes: Any) -> Attributes:
    found: Attributes = {}
    for keyword, value in attributes.items():
        put(found, keyword, value)
    return found


def read(data: bytes) -> Any:
    return read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_name_comes_out_of_each_set_as_it_went_in(name: str, value: str) -> None:
    wanted = character_set(value)
    assert wanted is not None
    data = read(
        encode(answer(PatientName=name, PatientID="1", PatientComments=name.replace("^", " ")), Style(wanted), explicit=True)
    )
    declared = data.SpecificCharacterSet
    assert "\\".join([declared] if isinstance(declared, str) else declared) == value
    assert str(data.PatientName).rstrip("=") == name.rstrip("=")
    assert str(data.PatientComments) == name.replace("^", " ")


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_key_is_understood_in_each_set(name: str, value: str) -> None:
    wanted = character_set(value)
    assert wanted is not None
    sent = read(encode(answer(PatientName=name), Style(wanted), explicit=True))
    assert of_dataset(sent)["00100010"]["Value"] == [
        {g: p for g, p in zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False) if p}
    ]


def test_the_escapes_are_those_of_the_standards_examples() -> None:
    """PS3.5 annexes H (Japanese), I (Korean) and K (Chinese)."""
    expected = {
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87"): (
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
        ),
        ("Hong^Gildong=洪^吉洞=홍^길동", "\\ISO 2022 IR 149"): (
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
        ),
        ("Zhang^XiaoDong=张^小东", "\\ISO 2022 IR 58"): b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab",
    }
    for (name, value), encoded in expected.items():
        wanted = character_set(value)
        assert wanted is not None
        assert wanted.encode(name, is_name=True) == encoded


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Müller^Zoë", "Muller^Zoe"),
        ("Łukasiewicz^Żaneta", "Lukasiewicz^Zaneta"),
        ("Straße^Søren", "Strasse^Soren"),
        ("Люксембург^Щука", "Lyuksemburg^Shhuka"),
        ("Παπαδόπουλος^Θάνος", "Papadopoylos^Thanos"),
        ("山田^太郎", "??^??"),
    ],
)
def test_a_scanner_that_reads_ascii_only_gets_plain_letters(name: str, plain: str) -> None:
    assert transliterated(name, ASCII) == plain
    data = read(encode(answer(PatientName=name), Style(ASCII), explicit=True))
    assert (str(data.PatientName), "SpecificCharacterSet" in data) == (plain, False)


def test_groups_that_a_scanner_can_not_read_are_left_out_and_the_romanised_one_stays() -> None:
    japanese = answer(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    assert read(encode(japanese, Style(character_set("ISO_IR 100")), explicit=True)).PatientName == "Yamada^Tarou"
    assert read(encode(japanese, Style(None, groups=1), explicit=True)).PatientName == "Yamada^Tarou"


def test_names_are_shortened_and_empty_sequences_left_out_where_a_scanner_wants_it() -> None:
    long = answer(PatientName="Wolfeschlegelsteinhausen^Hubert", PatientID="1") | {"00081120": {"vr": "SQ"}}
    data = read(encode(long, Style(None, name_length=16, empty_sequences=False), explicit=True))
    assert (str(data.PatientName), "ReferencedPatientSequence" in data) == ("Wolfeschlegelste", False)


def test_an_identifier_is_never_transliterated_nor_shortened() -> None:
    attributes = answer(PatientID="Ä-1", PatientName="Müller", AccessionNumber="A" * 16)
    data = read(encode(attributes, Style(ASCII, name_length=8), explicit=True))
    assert (data.PatientID, data.AccessionNumber, data.SpecificCharacterSet) == ("Ä-1", "A" * 16, "ISO_IR 192")


def test_each_item_of_a_sequence_is_in_the_set_of_the_answer() -> None:
    item = answer(CodeMeaning="Röntgen")
    data = read(encode(answer(RequestedProcedureCodeSequence=item), Style(character_set("ISO_IR 100")), explicit=True))
    assert data.RequestedProcedureCodeSequence[0].CodeMeaning == "Röntgen"


def test_a_device_may_name_each_set_that_is_written_and_no_other() -> None:
    good = EXTENSIONS["character-set"].good
    assert all(good(term) and character_set(term) for term in terms())
    for wrong in ("", "ISO_IR 999", "latin1", "ISO_IR 100\\ISO 2022 IR 87", "ISO 2022 IR 87\\", "\\"):
        assert not good(wrong)
        assert character_set(wrong) is None


def test_control_characters_of_both_ranges_stay_here() -> None:
    """As of a message that declared another character set than it had (PS3.5 6.1.3)."""
    assert values.person_name([{"family": "\x8akoda\x07", "given": ["O\x92Neil"]}]) == {"Alphabetic": "koda^O Neil"}
    assert values.line("CT\x96chest", 64) == "CT chest"
    assert values.paragraph("one\x93\ntwo") == "one \r\ntwo"
    assert values.whole("A\x801", 16) == ""
