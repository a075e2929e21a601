"""The structure of a message, judged by hl7apy's tables of the standard: segments in their order, required and repeated fields.

hl7apy's own validation refuses every ORM^O01 and all Z segments, and takes 13 to 40 ms a message; its tables are sound. So they
are read here: the same grammar for all messages, Z segments passed over wherever they stand, fields beyond the last one named.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from bridges.v2 import definitions
from bridges.v2.message import Message, Segment

_VERSIONS: Final = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
_MAX_PROBLEMS: Final = 20


def problems(message: Message) -> list[str]:
    """What doesn't fit, each with its place and nothing of the content; empty when all fits."""
    version = message.version
    if version not in _VERSIONS:
        return [f"HL7 {version[:10]} has no definitions here"]
    name = structure(message)
    grammar = _tables(version, "messages").get(name)
    if grammar is None:
        return [f"HL7 {version} has no message structure {name[:20]}"]
    segments = [s for s in message.segments if not s.name.startswith("Z")]
    names = [s.name for s in segments]
    reached = _longest(grammar, names)
    found = []
    if reached < len(names):
        found.append(f"{names[reached]}[{segments[reached].number}] is out of place in {name}")
    elif not _ends(grammar, names):
        found.append(f"{name} is incomplete")
    for segment in segments:
        found += _segment_problems(segment, version)
    return found[:_MAX_PROBLEMS]


def structure(message: Message) -> str:
    """The structure that MSH-9 names, or that its event has."""
    kind, event, named = message.type
    return named or definitions.structure(kind, event)


@cache
def _tables(version: str, which: str) -> dict[str, Any]:
    module = importlib.import_module(f"hl7apy.v{version.replace('.', '_')}.{which}")
    tables: dict[str, Any] = getattr(module, which.upper())
    return tables


# Segments against the grammar: the set of positions that can be reached, so that no choice has to be undone.


def _ends(grammar: Any, names: Sequence[str]) -> bool:
    return len(names) in _match(grammar, names, {0}, [0])


def _longest(grammar: Any, names: Sequence[str]) -> int:
    """How many segments could be placed: all of them, or up to the first that has no place."""
    furthest = [0]
    ends = _match(grammar, names, {0}, furthest)
    return len(names) if len(names) in ends else min(furthest[0], len(names))


def _match(grammar: Any, names: Sequence[str], starts: set[int], furthest: list[int]) -> set[int]:
    if grammar[0] == "choice":
        one = [(name, definition, (1, 1), kind) for name, definition, _, kind in grammar[1]]
        return {end for child in one for end in _repeated(child, names, starts, furthest)}
    positions = starts
    for child in grammar[1]:
        positions = _repeated(child, names, positions, furthest)
        if not positions:
            break
    return positions


def _repeated(child: Any, names: Sequence[str], starts: set[int], furthest: list[int]) -> set[int]:
    """The positions after a segment or group that stands as often as its cardinality allows."""
    name, definition, (least, most), kind = child
    reached = set(starts) if least == 0 else set()
    current, count = starts, 0
    while current and (most < 0 or count < most):
        if kind == "SEG":
            current = {p + 1 for p in current if p < len(names) and names[p] == name}
            furthest[0] = max(furthest[0], *current, 0) if current else furthest[0]
        else:
            current = {end for p in current for end in _match(definition, names, {p}, furthest) if end > p}
        count += 1
        if count >= least:
            reached |= current
    return reached


# Fields


def _segment_problems(segment: Segment, version: str) -> list[str]:
    definition = _tables(version, "segments").get(segment.name)
    if definition is None:
        return [f"HL7 {version} has no segment {segment.name}"]
    found = []
    fields = {int(name.rpartition("_")[2]): cardinality for name, _, cardinality, _ in definition[1]}
    first = 3 if segment.name == "MSH" else 1
    for number, (least, most) in fields.items():
        if number < first:
            continue
        place = f"{segment.name}[{segment.number}]-{number}"
        if least and not segment.raw(number):
            found.append(f"{place} is required")
        elif 0 <= most < len(segment.repetitions(number)):
            found.append(f"{place} repeats" if most else f"{place} is not to be used")
    last = max(fields)
    if any(segment.raw(n) for n in range(last + 1, last + 30)):
        found.append(f"{segment.name}[{segment.number}] has fields beyond {last}")
    return found
