"""Is a message built as HL7 v2.5.1 says? Grammar, required fields and repetitions, by `definitions.py`.

For partners that want it (accept-validation). Z segments are nobody's business, and may stand anywhere. Segments that an older
or newer version allows are judged by 2.5.1 all the same: that is what the interface specification describes.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from bridges.v2 import definitions
from bridges.v2.ack import AckError
from bridges.v2.message import Message, Segment

# What 2.5.1 requires of segments but real senders of other versions, and IHE's use of them, can't give.
_LEFT_OUT: Final = frozenset({("EVN", 2), ("SCH", 6), ("SCH", 16), ("SCH", 20), ("MSH", 12)})
_MARK: Final = re.compile(r"[A-Z][A-Z0-9]{2}|[\[\]{}()]")
_REST: Final = frozenset({"DSC", "ADD"})


class _Grammar:
    """A structure as an automaton over the names of segments. States are numbered as the structure is written."""

    def __init__(self, text: str) -> None:
        self.steps: list[list[tuple[str, int]]] = []  # from each state: (name, or empty for none) and the state after it
        self.start = self._state()
        self.end = self._sequence(iter(_MARK.findall(text)), self.start, "")

    def _state(self) -> int:
        self.steps.append([])
        return len(self.steps) - 1

    def _step(self, name: str, here: int) -> int:
        after = self._state()
        self.steps[here].append((name, after))
        return after

    def _sequence(self, marks: Iterator[str], here: int, close: str) -> int:
        for mark in marks:
            if mark == close:
                return here
            if mark == "[":
                inner = self._sequence(marks, begin := self._step("", here), "]")
                here = self._step("", inner)
                self.steps[begin].append(("", here))
            elif mark == "{":
                inner = self._sequence(marks, begin := self._step("", here), "}")
                self.steps[inner].append(("", begin))
                here = self._step("", inner)
            elif mark == "(":
                ends = [self._step(name, here) for name in iter(marks.__next__, ")")]
                here = self._state()
                for end in ends:
                    self.steps[end].append(("", here))
            else:
                here = self._step(mark, here)
        return here

    def reached(self, states: set[int]) -> set[int]:
        """These states and those that follow without a segment."""
        todo, all_ = list(states), set(states)
        while todo:
            for name, after in self.steps[todo.pop()]:
                if not name and after not in all_:
                    all_.add(after)
                    todo.append(after)
        return all_

    def after(self, states: set[int], name: str) -> set[int]:
        """The states after a segment; none where it can't stand."""
        return self.reached({after for state in states for wanted, after in self.steps[state] if wanted == name})

    def required(self, states: set[int]) -> str:
        """The segment that must come, sooner or later, before anything else can; empty where the message may end.

        What is optional comes before it, and nothing after it can be reached: it is the last that could come.
        """
        if self.end in states:
            return ""
        return max((after, name) for state in states for name, after in self.steps[state] if name)[1]


def faults(message: Message) -> list[AckError]:
    """What is wrong, in the order of the message; nothing for a structure that we have no definition of."""
    kind, event, _ = message.type
    grammar = _grammar(definitions.structure(kind, event))
    if grammar is None:
        return []
    return [*_order(message, grammar), *(fault for s in message.segments for fault in _fields(s))]


def _order(message: Message, grammar: _Grammar) -> Iterator[AckError]:
    """The first segment that can't stand where it does, or the required one that is missing."""
    states = grammar.reached({grammar.start})
    for segment in message.segments:
        if segment.name.startswith("Z") or segment.name in _REST:
            continue
        after = grammar.after(states, segment.name)
        if not after:
            if missing := grammar.required(states):
                yield AckError(missing, 1, code=100, text=f"{missing} is missing before {segment.name}")
            else:
                yield AckError(segment.name, segment.number, code=100, text=f"{segment.name} can't stand where it does")
            return
        states = after
    if missing := grammar.required(states):
        yield AckError(missing, 1, code=100, text=f"{missing} is missing")


def _fields(segment: Segment) -> Iterator[AckError]:
    known = definitions.fields(segment.name)
    values = segment.values() if known else []
    repetition = segment.repetition
    for number, definition in known.items():
        value = values[number] if number < len(values) else ""
        if definition.required and not value.strip() and (segment.name, number) not in _LEFT_OUT:
            yield AckError(segment.name, segment.number, number, code=101, text=f"{definition.name} is missing")
        elif not definition.repeats and repetition in value and (segment.name, number) not in {("MSH", 2), ("OBX", 5)}:
            yield AckError(segment.name, segment.number, number, code=102, text=f"{definition.name} doesn't repeat")


@cache
def _grammar(structure: str) -> _Grammar | None:
    text = definitions.structures().get(structure)
    return _Grammar(text) if text else None
