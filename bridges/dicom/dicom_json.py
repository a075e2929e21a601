"""Data sets in the DICOM JSON model (PS3.18 Annex F), and their way from and to bytes.

`{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Roe^Jane"}]}, "00400100": {"vr": "SQ", "Value": [{...}]}}`

All values but those of binary VRs are text here (PS3.18 F.2.3 allows it for IS and DS), so that `1.00` stays `1.00`, a wrong
date is kept as it came, and one character set or another is chosen only when the answer is encoded.
"""

import base64
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

Element = dict[str, Any]
Attributes = dict[str, Element]

CHARACTER_SET = "00080005"
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # VRs that the character set applies to (PS3.5 6.1.2.3)
_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_ONE_VALUE = frozenset({"LT", "ST", "UT", "UR"})
_LONG_LENGTH = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})  # PS3.5 7.1.2
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_MAX_DEPTH = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # as of ISO 2022 without its Specific Character Set
# The character sets of our answers, the most widely understood first: (defined term, codec).
_ANSWER_CHARACTER_SETS = (("", "ascii"), ("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8"))


@cache
def tag(keyword: str) -> str:
    """`PatientName` -> `00100010`."""
    number = tag_for_keyword(keyword)
    assert number is not None, keyword
    return f"{number:08X}"


@cache
def vr_of(tag_: str) -> str:
    """The VR of a standard attribute; `UN` for others. Of an ambiguous one the first."""
    try:
        return dictionary_VR(int(tag_, 16))[:2]
    except KeyError:
        return "UN"


def put(attributes: Attributes, keyword: str, *values: Any) -> None:
    """Set an attribute. Empty values are left out; without any it is there with no value."""
    attributes[tag(keyword)] = element(tag(keyword), *values)


def element(tag_: str, *values: Any) -> Element:
    """An element with these values (none: zero length)."""
    vr = vr_of(tag_)
    kept = [name_groups(v) if vr == "PN" and isinstance(v, str) else v for v in values if v not in (None, "", {})]
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}


def values(attributes: Attributes, keyword: str) -> list[Any]:
    found: list[Any] = attributes.get(tag(keyword), {}).get("Value", [])
    return found


def texts_of(one: Element) -> list[str]:
    """The values of an element as text, person names in their DICOM form."""
    return [name_text(v) if isinstance(v, dict) else str(v) for v in one.get("Value", ())]


def texts(attributes: Attributes, keyword: str) -> list[str]:
    """The values as text of one line, as a resource may hold it: control characters are blanks (the data set keeps them)."""
    return [t if t.isprintable() else _CONTROL.sub(" ", t).strip() for t in texts_of(attributes.get(tag(keyword), {}))]


def text(attributes: Attributes, keyword: str) -> str:
    """The first value, or an empty string."""
    found = texts(attributes, keyword)
    return found[0] if found else ""


def items(attributes: Attributes, keyword: str) -> list[Attributes]:
    """The items of a sequence."""
    return [v for v in values(attributes, keyword) if isinstance(v, dict)]


def name_text(name: dict[str, str]) -> str:
    """`{"Alphabetic": "Roe^Jane"}` -> `Roe^Jane`."""
    return "=".join(name.get(g, "") for g in _GROUPS).rstrip("=")


def name_groups(value: str) -> dict[str, str]:
    """The reverse: the component groups that a name has."""
    return {g: part for g, part in zip(_GROUPS, value.split("="), strict=False) if part}


# Reading


def of_dataset(dataset: Dataset, character_sets: list[str] | None = None, depth: int = 0) -> Attributes:
    """The JSON model of a received data set. What can't be read as its VR says is kept as bytes, never dropped.

    ValueError when it can't be taken apart at all, or nests more than 16 levels.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("the data set nests too deeply")
    raw = dataset.get_item(0x00080005) if 0x00080005 in dataset else None
    if raw is not None and raw.value:
        value = raw.value
        declared = value.decode("ascii", "replace").split("\\") if isinstance(value, bytes) else value
        character_sets = [str(v).strip(" \0") for v in ([declared] if isinstance(declared, str) else declared)]
    found: Attributes = {}
    for key in sorted(dataset.keys()):
        if key.element == 0:
            continue
        name = f"{int(key):08X}"
        found[name] = _read(dataset, key, vr_of(name), character_sets, depth)
    return found


def _read(dataset: Dataset, key: Any, standard_vr: str, character_sets: list[str] | None, depth: int) -> Element:
    raw = dataset.get_item(key)
    vr = standard_vr if standard_vr != "UN" else str(raw.VR or "UN")
    if vr == "SQ":
        read = [of_dataset(item, character_sets, depth + 1) for item in dataset[key].value or ()]
        return {"vr": "SQ", "Value": read} if read else {"vr": "SQ"}
    data = raw.value
    if data in (None, b"", ""):
        return {"vr": vr}
    if not isinstance(data, bytes):
        many = data if isinstance(data, (list, tuple)) else [data]
        return element(f"{int(key):08X}", *(str(v) for v in many)) | {"vr": vr}
    if vr in _TEXT or vr in _PLAIN:
        decoded = _decode(data, character_sets) if vr in _TEXT else data.decode("latin-1")
        parts = [decoded.rstrip(" \0")] if vr in _ONE_VALUE else [p.strip(" \0") for p in decoded.split("\\")]
        if not any(parts):
            return {"vr": vr}
        return {"vr": vr, "Value": [name_groups(p) for p in parts] if vr == "PN" else parts}
    return _read_binary(dataset, key, vr, data)


_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}


def _read_binary(dataset: Dataset, key: Any, vr: str, data: bytes) -> Element:
    code = _NUMBERS.get(vr)
    if code and len(data) % struct.calcsize(code) == 0:
        order = ">" if dataset.get_item(key).is_little_endian is False else "<"
        return {"vr": vr, "Value": list(struct.unpack(f"{order}{len(data) // struct.calcsize(code)}{code}", data))}
    return {"vr": vr if vr in _LONG_LENGTH else "UN", "InlineBinary": base64.b64encode(data).decode()}


def _decode(data: bytes, character_sets: list[str] | None) -> str:
    """Text in the declared character set; where none is declared, UTF-8 if it is that, else Latin-1."""
    if not any(character_sets or ()):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")
    return decode_bytes(data, convert_encodings(character_sets), {0x5C, 0x5E, 0x3D, 0x0D, 0x0A})


# Writing


def encode(attributes: Attributes, *, explicit: bool) -> bytes:
    """The data set in little endian, with the Specific Character Set that it needs: none for ASCII, else ISO_IR 100 or 192."""
    for term, codec in _ANSWER_CHARACTER_SETS:
        with_set = attributes | {CHARACTER_SET: {"vr": "CS", "Value": [term]}} if term else attributes
        try:
            return _encode(with_set, explicit, codec)
        except UnicodeEncodeError:
            continue
    raise ValueError("the data set holds text that is no Unicode")


def _encode(attributes: Attributes, explicit: bool, codec: str) -> bytes:
    def value(_name: str, one: Element) -> bytes:
        if one["vr"] == "SQ":
            return b"".join(item(_encode(i, explicit, codec)) for i in one.get("Value", ()))
        return _value(one["vr"], one, codec)

    return elements(attributes, explicit, value)


def elements(attributes: Attributes, explicit: bool, value: Callable[[str, Element], bytes]) -> bytes:
    """The elements in their order, each with its tag, VR and length (PS3.5 7.1); `value` gives the bytes of one, by its tag."""
    parts: list[bytes] = []
    for name in sorted(attributes):
        vr = attributes[name]["vr"]
        data = value(name, attributes[name])
        group, number = int(name[:4], 16), int(name[4:], 16)
        if not explicit:
            parts.append(struct.pack("<HHI", group, number, len(data)))
        elif vr in _LONG_LENGTH:
            parts.append(struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(data)))
        else:
            parts.append(struct.pack("<HH2sH", group, number, vr.encode(), len(data)))
        parts.append(data)
    return b"".join(parts)


def item(data: bytes) -> bytes:
    """An item of a sequence, of defined length (PS3.5 7.5.2)."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def _value(vr: str, one: Element, codec: str) -> bytes:
    if "InlineBinary" in one:
        data = base64.b64decode(one["InlineBinary"])
    elif code := _NUMBERS.get(vr):
        as_number = float if code in {"f", "d"} else int
        return b"".join(struct.pack(f"<{code}", as_number(v)) for v in one.get("Value", ()))
    else:
        data = "\\".join(texts_of(one)).encode(codec if vr in _TEXT else "ascii")
    if len(data) % 2:
        data += b" " if vr in _TEXT or (vr in _PLAIN and vr != "UI") else b"\0"
    return data


_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")


def is_uid(value: str) -> bool:
    """Whether this can be a UID. Leading zeros in a component are let pass, as scanners send them (PS3.5 9.1)."""
    return _UID.fullmatch(value) is not None
