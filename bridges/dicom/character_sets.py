"""Specific Character Sets (PS3.5 6.1.2, PS3.3 C.12.1.1.2): texts as bytes, and what is done where a set hasn't the letters."""

import codecs
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydicom import charset as pydicom_charset

from bridges.dicom.romanisation import LETTERS

# Defined term of a set without code extensions -> codec.
_SINGLE: Final = {
    "ISO_IR 6": "ascii",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 166": "iso8859-11",
    "ISO_IR 192": "utf-8",
    "ISO_IR 203": "iso8859-15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
# Term with code extensions -> (codec, escape sequence, into G0 or G1) (PS3.3 tables C.12-3, C.12-4).
_EXTENSIONS: Final = {
    "ISO 2022 IR 6": ("ascii", b"\x1b(B", 0),
    "ISO 2022 IR 13": ("shift_jis", b"\x1b)I", 1),
    "ISO 2022 IR 58": ("gb2312", b"\x1b$)A", 1),
    "ISO 2022 IR 87": ("iso2022_jp", b"\x1b$B", 0),
    "ISO 2022 IR 100": ("latin-1", b"\x1b-A", 1),
    "ISO 2022 IR 101": ("iso8859-2", b"\x1b-B", 1),
    "ISO 2022 IR 109": ("iso8859-3", b"\x1b-C", 1),
    "ISO 2022 IR 110": ("iso8859-4", b"\x1b-D", 1),
    "ISO 2022 IR 126": ("iso8859-7", b"\x1b-F", 1),
    "ISO 2022 IR 127": ("iso8859-6", b"\x1b-G", 1),
    "ISO 2022 IR 138": ("iso8859-8", b"\x1b-H", 1),
    "ISO 2022 IR 144": ("iso8859-5", b"\x1b-L", 1),
    "ISO 2022 IR 148": ("iso8859-9", b"\x1b-M", 1),
    "ISO 2022 IR 149": ("euc_kr", b"\x1b$)C", 1),
    "ISO 2022 IR 159": ("iso2022_jp_2", b"\x1b$(D", 0),
    "ISO 2022 IR 166": ("iso8859-11", b"\x1b-T", 1),
    "ISO 2022 IR 203": ("iso8859-15", b"\x1b-b", 1),
}
_ASCII_AGAIN: Final = b"\x1b(B"
# Characters before which the initial character sets are to be active again (PS3.5 6.1.2.5.3).
_DELIMITERS: Final = re.compile(r"([\\\r\n\f\t])")
_NAME_DELIMITERS: Final = re.compile(r"([\\^=\r\n\f\t])")


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """A value of Specific Character Set that we can write: `ISO_IR 100`, or several terms of code extensions."""

    terms: tuple[str, ...]

    @property
    def value(self) -> str:
        """As it stands in the attribute: `\\ISO 2022 IR 87`."""
        return "\\".join(self.terms)

    def encode(self, text: str, *, is_name: bool = False) -> bytes:
        """The bytes of a text. UnicodeEncodeError when the set hasn't all its characters."""
        if text.isascii():
            return text.encode("ascii")
        if len(self.terms) == 1 and self.terms[0] in _SINGLE:
            return _in_one(text, _SINGLE[self.terms[0]])
        pieces = (_NAME_DELIMITERS if is_name else _DELIMITERS).split(text)
        return b"".join(self._piece(piece) for piece in pieces)

    def has(self, character: str) -> bool:
        try:
            self.encode(character)
        except UnicodeEncodeError:
            return False
        return True

    def _piece(self, piece: str) -> bytes:
        """A text without delimiters: it begins and ends in the initial state."""
        initial = _EXTENSIONS.get(self.terms[0])
        g1 = self.terms[0] if initial and initial[2] == 1 else ""
        g0, found = "", []
        for character in piece:
            term, data, into = self._character(character)
            if into == 0 and g0 != term:
                found.append(_EXTENSIONS[term][1] if term else _ASCII_AGAIN)
                g0 = term
            elif into == 1 and g1 != term:
                found.append(_EXTENSIONS[term][1])
                g1 = term
            found.append(data)
        if g0:
            found.append(_ASCII_AGAIN)
        return b"".join(found)

    def _character(self, character: str) -> tuple[str, bytes, int]:
        """The term that has this character, its bytes, and the code element: G0 (`""` for ASCII) or G1."""
        if character.isascii():
            return "", character.encode("ascii"), 0
        for term in self.terms:
            if term in _EXTENSIONS:
                codec, escape, into = _EXTENSIONS[term]
                try:
                    data = _in_one(character, codec)
                except UnicodeEncodeError:
                    continue
                if into == 1 and min(data) >= 0x80:
                    return term, data, 1
                if into == 0 and data.startswith(escape):
                    return term, data.removeprefix(escape).removesuffix(_ASCII_AGAIN), 0
        raise UnicodeEncodeError("dicom", character, 0, 1, "in none of the character sets")


ASCII: Final = CharacterSet(("ISO_IR 6",))
LATIN_1: Final = CharacterSet(("ISO_IR 100",))
UTF_8: Final = CharacterSet(("ISO_IR 192",))


@cache
def character_set(value: str) -> CharacterSet | None:
    """The set of this value, such as `ISO_IR 192` or `\\ISO 2022 IR 149`; None when it is none that we can write."""
    terms = tuple(t.strip() for t in value.split("\\"))
    if len(terms) == 1:
        return CharacterSet(terms) if terms[0] in _SINGLE or terms[0] in _EXTENSIONS else None
    known = all(t in _EXTENSIONS for t in terms[1:]) and (terms[0] in _EXTENSIONS or not terms[0])
    return CharacterSet(terms) if known else None


def terms() -> list[str]:
    """The defined terms that we write and read: for the conformance statement."""
    return [*_SINGLE, *_EXTENSIONS]


def transliterated(text: str, to: CharacterSet) -> str:
    """The text in the letters of a set: accents fall, Greek and Cyrillic are romanised, and what has no like is `?`."""
    return "".join(c if to.has(c) else _alike(c, to) for c in unicodedata.normalize("NFC", text))


def _alike(character: str, to: CharacterSet) -> str:
    if (found := LETTERS.get(character)) is None and (lower := LETTERS.get(character.lower())) is not None:
        found = lower.capitalize()
    if found is None:
        found = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return "".join(c if to.has(c) else LETTERS.get(c, "?") for c in found)


def _in_one(text: str, codec: str) -> bytes:
    data = text.encode(codec)
    if codec == "shift_jis" and any(b >= 0xE0 or 0x80 <= b < 0xA0 for b in data):  # JIS X 0201 is single bytes only
        raise UnicodeEncodeError(codec, text, 0, len(text), "not in JIS X 0201")
    return data


def teach_pydicom() -> None:
    """What pydicom's tables lack: ISO_IR 203; and that Python's codec of GB 2312 doesn't take the escape sequence off."""
    codec = codecs.lookup("iso8859-15").name
    for term in ("ISO_IR 203", "ISO 2022 IR 203"):
        pydicom_charset.python_encoding.setdefault(term, codec)
    pydicom_charset.CODES_TO_ENCODINGS.setdefault(_EXTENSIONS["ISO 2022 IR 203"][1], codec)
    handled = tuple(e for e in pydicom_charset.handled_encodings if e != "iso_ir_58")
    pydicom_charset.handled_encodings = handled  # type: ignore[assignment]
