"""Worklist answers as bytes, in the character set and the shape that the scanner can take."""

import struct
from dataclasses import dataclass
from typing import Final

from bridges.dicom.character_sets import ASCII, LATIN_1, UTF_8, CharacterSet, transliterated
from bridges.dicom.dicom_json import CHARACTER_SET, Attributes, Element, elements, item, tag, texts_of

_TEXT: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # VRs that the character set applies to (PS3.5 6.1.2.3)
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
# What people and machines are told apart by: never written in other letters than their own.
IDENTIFIERS: Final = frozenset(
    tag(k)
    for k in (
        "PatientID IssuerOfPatientID AccessionNumber RequestedProcedureID ScheduledProcedureStepID AdmissionID "
        "PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest CodeValue LongCodeValue "
        "CodingSchemeDesignator UniversalEntityID LocalNamespaceEntityID"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a scanner wants its answers.

    character_set: what it can read; None: the plainest of ASCII, ISO_IR 100 and ISO_IR 192 that is enough
    groups: how many component groups of person names it takes
    name_length: characters of each of them
    empty_sequences: whether a sequence without items is sent (with zero length), or left out
    """

    character_set: CharacterSet | None = None
    groups: int = 3
    name_length: int = 64
    empty_sequences: bool = True


def encode(attributes: Attributes, style: Style, *, explicit: bool) -> bytes:
    """The data set in little endian. What the scanner's set hasn't is transliterated; an identifier never is: an answer with one
    that the set can't hold is in ISO_IR 192.
    """
    if style.groups < len(_GROUPS) or style.name_length < 64 or not style.empty_sequences:
        attributes = _fitted(attributes, style)
    if style.character_set is None:
        ways = [(ASCII, False), (LATIN_1, False), (UTF_8, False)]
    else:
        ways = [(ASCII, False), (style.character_set, False), (style.character_set, True), (UTF_8, False)]
    for to, transliterate in ways:
        try:
            return _encode(_declared(attributes, to), explicit, to, transliterate)
        except UnicodeEncodeError:
            continue
    raise ValueError("the data set holds text that is no Unicode")


def _declared(attributes: Attributes, to: CharacterSet) -> Attributes:
    """With the Specific Character Set, but for ASCII."""
    return attributes if to == ASCII else attributes | {CHARACTER_SET: {"vr": "CS", "Value": list(to.terms)}}


def _fitted(attributes: Attributes, style: Style) -> Attributes:
    found = {}
    for name, one in attributes.items():
        if one["vr"] == "SQ":
            items = [_fitted(i, style) for i in one.get("Value", ())]
            if items or style.empty_sequences:
                found[name] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        elif one["vr"] == "PN":
            kept = _GROUPS[: style.groups]
            short = [
                {g: t[: style.name_length].rstrip("^ ") for g, t in value.items() if g in kept} for value in one.get("Value", ())
            ]
            found[name] = {"vr": "PN", "Value": short} if any(short) else {"vr": "PN"}
        else:
            found[name] = one
    return found


def _encode(attributes: Attributes, explicit: bool, to: CharacterSet, transliterate: bool) -> bytes:
    return elements(attributes, explicit, lambda name, one: _value(name, one, explicit, to, transliterate))


def _value(name: str, one: Element, explicit: bool, to: CharacterSet, transliterate: bool) -> bytes:
    vr = one["vr"]
    if vr == "SQ":
        return b"".join(item(_encode(i, explicit, to, transliterate)) for i in one.get("Value", ()))
    if vr == "US":
        return b"".join(struct.pack("<H", int(v)) for v in one.get("Value", ()))
    if vr == "PN":
        data = "\\".join(_name(v, to, transliterate) for v in one.get("Value", ()))
        encoded = to.encode(data, is_name=True)
    elif vr in _TEXT:
        text = "\\".join(texts_of(one))
        if transliterate and name not in IDENTIFIERS:
            text = transliterated(text, to)
        encoded = to.encode(text)
    else:
        encoded = "\\".join(texts_of(one)).encode("ascii")
    return encoded + (b"\0" if vr == "UI" else b" ") * (len(encoded) % 2)


def _name(value: dict[str, str], to: CharacterSet, transliterate: bool) -> str:
    """A person's name. Where the set hasn't the letters: the alphabetic group in others, the other groups not at all."""
    groups = [value.get(g, "") for g in _GROUPS]
    if transliterate:
        others = [g if all(map(to.has, set(g))) else "" for g in groups[1:]]
        groups = [transliterated(groups[0], to), *others]
    return "=".join(groups).rstrip("=")
