"""A DICOM data set (PS3.18 annex F, as the Binaries of MPPS hold it) as rows for a page: tag, name, VR and value."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pydicom.datadict import dictionary_description

from bridges.dicom.dicom_json import Attributes, texts_of
from bridges.v2.message_show import harmless

_LONGEST: Final = 600
_MOST: Final = 2_000  # rows


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row. `depth`: how many sequences it is in; `item`: the number of the item that begins with it.

    `fresh`: it wasn't there, or not so, before.
    """

    tag: str
    name: str
    vr: str
    value: str
    depth: int = 0
    item: int = 0
    fresh: bool = False


def rows(data: Attributes, before: Attributes | None = None) -> list[Attribute]:
    """The attributes of a data set. `before`: the same at an earlier time, for what is new or different to be marked."""
    return list(islice(_rows(data, before, 0, 0), _MOST))


def _rows(data: Attributes, before: Attributes | None, depth: int, item: int) -> Iterator[Attribute]:
    for tag, element in sorted(data.items()):
        was = before.get(tag) if before is not None else None
        fresh = before is not None and element != was
        vr, values = element.get("vr", ""), element.get("Value", [])
        text = "" if vr == "SQ" else _text(element)
        yield Attribute(f"{tag[:4]},{tag[4:]}", _name(tag), vr, text, depth, item, fresh and vr != "SQ")
        item = 0
        if vr == "SQ":
            earlier = (was or {}).get("Value", []) if before is not None else None
            for number, inner in enumerate(values, 1):
                of_old = earlier[number - 1] if earlier and number <= len(earlier) else {} if earlier is not None else None
                yield from _rows(inner, of_old, depth + 1, number)


def _name(tag: str) -> str:
    try:
        return dictionary_description(int(tag, 16))
    except (KeyError, ValueError):
        return ""


def _text(element: dict[str, Any]) -> str:
    if "InlineBinary" in element:
        return f"({len(element['InlineBinary']) * 3 // 4:,} bytes)"
    text = harmless("\\".join(texts_of(element)))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
