"""HL7 v2 conformance profiles (HL7 v2.5 2.12, "static definition"), from the tables that the bridge runs.

A profile tells for one message and one direction which segments and fields are read or written, and how.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final
from xml.etree import ElementTree as ET

from bridges.v2 import definitions
from bridges.v2.destination import KINDS
from bridges.v2.receivers import MESSAGES
from capability.v2_specification import layouts_out, named_fields, tables_in

VERSION: Final = "2.5.1"


@dataclass(slots=True)
class Part:
    """A segment (with its name) or a group (with parts) of a message structure."""

    name: str = ""
    parts: list["Part"] = field(default_factory=list)
    required: bool = True
    repeats: bool = False


def parsed(grammar: str) -> list[Part]:
    """The parts of a grammar such as `MSH [{NTE}] {ORC [OBR]}`."""
    tokens = re.findall(r"[\[\]{}()]|\w+", grammar)
    return _parts(iter(tokens), "")


def _parts(tokens: Iterator[str], end: str) -> list[Part]:
    parts: list[Part] = []
    for sign in tokens:
        if sign == end:
            break
        match sign:
            case "[" | "{" | "(":
                inner = _parts(tokens, {"[": "]", "{": "}", "(": ")"}[sign])
                part = inner[0] if len(inner) == 1 else Part(parts=inner)
                part.required = part.required and sign != "["
                part.repeats = part.repeats or sign == "{"
                parts.append(part)
            case _:
                parts.append(Part(sign))
    return parts


@cache
def _usages(direction: str) -> dict[tuple[str, int], str]:
    """Field -> R, C or O, of those that the tables read (in) or the layouts write (out)."""
    found: dict[tuple[str, int], str] = {("MSH", n): "R" for n in (1, 2, 3, 9, 10, 12)} | {
        ("MSH", n): "O" for n in (4, 7, 11, 18)
    }
    rows = (
        [(place, row.usage) for table in tables_in() for row in table.rows for place in named_fields(row.fields)]
        if direction == "in"
        else [((layout.segment, f.field), f.usage) for layout in layouts_out() for f in layout.fields]
    )
    for place, usage in rows:
        if "RCO".index(usage) < "RCO".index(found.get(place, "O")) or place not in found:
            found[place] = usage
    return found


def profiles() -> list[tuple[str, str, str]]:
    """What there are profiles for: (message type, event, `in` or `out`)."""
    taken = [(kind, event, "in") for kind, event in sorted(MESSAGES)]
    sent = [(*kind.split("^"), "out") for kind in sorted(KINDS)]
    return [
        (kind, event, way)
        for kind, event, way in [*taken, *sent]
        if definitions.structure(kind, event) in definitions.structures()
    ]


def profile(kind: str, event: str, direction: str) -> bytes:
    """The profile as an HL7v2xConformanceProfile document."""
    root = ET.Element("HL7v2xConformanceProfile", HL7Version=VERSION, ProfileType="Implementation")
    ET.SubElement(root, "MetaData", Name=f"fhir-ris {kind}^{event}", OrgName="fhir-ris", Version="1", Status="ACTIVE")
    encodings = ET.SubElement(root, "Encodings")
    ET.SubElement(encodings, "Encoding").text = "ER7"
    ET.SubElement(root, "DynamicDef", AccAck="NE", AppAck="AL", MsgAckMode="Immediate")
    name = definitions.structure(kind, event)
    static = ET.SubElement(
        root,
        "HL7v2xStaticDef",
        MsgType=kind,
        EventType=event,
        MsgStructID=name,
        Role="Receiver" if direction == "in" else "Sender",
    )
    ET.SubElement(static, "MetaData", Name=f"{kind}^{event}", OrgName="fhir-ris")
    for part in parsed(definitions.structures()[name]):
        _add(static, part, _usages(direction))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ET.Element, part: Part, usages: dict[tuple[str, int], str]) -> None:
    high = "*" if part.repeats else "1"
    if part.parts:
        names = [p.name for p in part.parts if p.name]
        group = ET.SubElement(
            parent, "SegGroup", Name="_".join(names[:3]) or "GROUP", Usage="R" if part.required else "O",
            Min="1" if part.required else "0", Max=high,
        )  # fmt: skip
        for inner in part.parts:
            _add(group, inner, usages)
        return
    used = any(segment == part.name for segment, _ in usages)
    segment = ET.SubElement(
        parent, "Segment", Name=part.name, Usage="R" if part.required and used else "O" if used else "X",
        Min="1" if part.required and used else "0", Max=high,
    )  # fmt: skip
    for number, defined in definitions.fields(part.name).items() if used else ():
        usage = usages.get((part.name, number), "X")
        attributes = {
            "Name": defined.name, "Usage": usage, "Min": "1" if usage == "R" else "0", "Max": "*" if defined.repeats else "1",
            "Datatype": defined.kind,
        }  # fmt: skip
        ET.SubElement(segment, "Field", attributes | ({"Table": defined.table} if defined.table else {}))
