"""Encoded answers, kept: each is made once for a step, and serves all queries of one shape until the step's row changes.

A row has a new version with each write, so what is kept of an older one is never used.
"""

import itertools
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from bson import ObjectId

from bridges.dicom.answer_encoding import Style, encode
from bridges.dicom.character_sets import character_set
from bridges.dicom.dicom_json import Attributes
from resources.worklist_preferences import Preferences

_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_KINDS: Final = 2_000
_OVERHEAD = 200  # bytes of an entry besides its answer


def style(preferences: Preferences) -> Style:
    """How a scanner wants its answers."""
    return Style(
        character_set(preferences.character_set) if preferences.character_set else None,
        groups=1 if preferences.alphabetic_only else 3,
        name_length=preferences.name_length,
        empty_sequences=not preferences.omit_empty_sequences,
    )


class Answers:
    """All that are kept in this process, bounded in bytes; those that were used least lately go first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kinds: dict[Any, int] = {}
        # Never used again: a query that is under way while the table is cleared keeps its answers under its own.
        self._numbers = itertools.count()
        self.kept: OrderedDict[tuple[int, str], tuple[ObjectId, bytes]] = OrderedDict()
        self._bytes = 0

    def kind(self, shape: tuple[Any, ...], preferences: Preferences, *, explicit: bool) -> "Kind":
        """The answers of queries of this shape, in this scanner's style and transfer syntax."""
        wanted = style(preferences)
        key = (shape, wanted, explicit)
        if key not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:  # somebody makes up shapes
                self._kinds.clear()
                self.kept.clear()
                self._bytes = 0
            self._kinds[key] = next(self._numbers)
        return Kind(self, self._kinds[key], wanted, explicit)

    def keep(self, key: tuple[int, str], version: ObjectId, data: bytes) -> None:
        known = self.kept.pop(key, None)
        self._bytes += len(data) - len(known[1]) if known else len(data) + _OVERHEAD
        self.kept[key] = (version, data)
        while self._bytes > self._most_bytes:
            _, (_, old) = self.kept.popitem(last=False)
            self._bytes -= len(old) + _OVERHEAD


@dataclass(frozen=True, slots=True)
class Kind:
    """Answers that are alike but for the step."""

    answers: Answers
    number: int
    style: Style
    explicit: bool

    def get(self, step: str, version: ObjectId | None) -> bytes | None:
        key = (self.number, step)
        known = self.answers.kept.get(key)
        if known is None or known[0] != version:
            return None
        self.answers.kept.move_to_end(key)
        return known[1]

    def put(self, step: str, version: ObjectId | None, answer: Attributes) -> bytes:
        """The encoded answer, kept where the row has a version."""
        data = encode(answer, self.style, explicit=self.explicit)
        if version is not None:
            self.answers.keep((self.number, step), version, data)
        return data


@dataclass(slots=True)
class _Last:
    at: float
    worklist: Any
    size: int


@dataclass(slots=True)
class LastGood:
    """What each scanner was answered last, by its query: for while the database is away.

    seconds: for how long it still counts; 0 keeps nothing
    """

    seconds: float
    most_bytes: int = _MOST_BYTES
    _kept: OrderedDict[Any, _Last] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def put(self, key: Any, worklist: Any, size: int) -> None:
        if self.seconds <= 0 or size > self.most_bytes:
            return
        if (known := self._kept.pop(key, None)) is not None:
            self._bytes -= known.size
        self._kept[key] = _Last(time.monotonic(), worklist, size + _OVERHEAD)
        self._bytes += size + _OVERHEAD
        while self._bytes > self.most_bytes:
            _, old = self._kept.popitem(last=False)
            self._bytes -= old.size

    def get(self, key: Any) -> tuple[Any, float] | None:
        """The last answer and its age in seconds."""
        known = self._kept.get(key)
        if known is None or (age := time.monotonic() - known.at) > self.seconds:
            return None
        return known.worklist, age
