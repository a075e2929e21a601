"""What is different between two versions of a resource, element by element, as rows for a page.

    status                    requested   ->  accepted
    identifier[2].value                   ->  A-4711
    restriction.period.start  08:00       ->  08:30

Items of a list are set beside those that they were, so that one more at its beginning is one row and not a change of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Final

import orjson

from fhir_server.registry import Resource

_LONGEST: Final = 600  # characters of a value
_MOST: Final = 400  # rows
_LEFT_OUT: Final = frozenset({"meta.versionId", "meta.lastUpdated"})  # which differ always
_MOST_ITEMS: Final = 300  # of a list, that are looked for elsewhere in it


class _Missing:
    """What is said of an element that isn't there."""


_MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """An element that is there in one of two versions only, or has another value. None: it isn't there."""

    path: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def differences(before: Resource | None, after: Resource | None) -> tuple[list[Difference], int]:
    """The rows, in the order of the elements, and how many more there are that are left out."""
    rows = list(_compared("", _plain(before), _plain(after)))
    return rows[:_MOST], max(0, len(rows) - _MOST)


def elements(resource: Resource) -> tuple[list[Difference], int]:
    """All of a resource, in the same form."""
    return differences({}, resource)


def changed(before: Resource, after: Resource) -> list[str]:
    """The names of the top elements that differ, in the order of the resource; `meta` only for more than the version."""
    one, other = _plain(before), _plain(after)
    return [name for name in dict.fromkeys([*other, *one]) if one.get(name, _MISSING) != other.get(name, _MISSING)]


def _plain(resource: Resource | None) -> Resource:
    """Without what differs always, and what follows from the rest."""
    kept = {k: v for k, v in (resource or {}).items() if k not in {"resourceType", "id"}}
    meta = {k: v for k, v in kept.pop("meta", {}).items() if f"meta.{k}" not in _LEFT_OUT}
    return kept | ({"meta": meta} if meta else {})


def _compared(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after and type(before) is type(after):
        return
    pair = (before, after)
    if all(isinstance(value, dict | _Missing) for value in pair):
        one, other = (value if isinstance(value, dict) else {} for value in pair)
        for name in dict.fromkeys([*other, *one]):
            yield from _compared(f"{path}.{name}" if path else name, one.get(name, _MISSING), other.get(name, _MISSING))
    elif all(isinstance(value, list | _Missing) for value in pair):
        for n, (left, right) in enumerate(_beside(*(value if isinstance(value, list) else [] for value in pair))):
            yield from _compared(f"{path}[{n}]", left, right)
    elif any(isinstance(value, dict | list) for value in pair):  # another type of element has taken its place
        yield from _compared(path, before, _MISSING)
        yield from _compared(path, _MISSING, after)
    else:
        yield Difference(path, _shown(before), _shown(after))


def _beside(before: list[Any], after: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Items of two lists, each with the one that it was."""
    if max(len(before), len(after)) > _MOST_ITEMS:
        yield from zip_longest(before, after, fillvalue=_MISSING)
        return
    one, other = ([orjson.dumps(item, option=orjson.OPT_SORT_KEYS, default=str) for item in items] for items in (before, after))
    for _, begin, end, start, stop in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        for n in range(max(end - begin, stop - start)):
            left = before[begin + n] if begin + n < end else _MISSING
            right = after[start + n] if start + n < stop else _MISSING
            yield left, right


def _shown(value: Any) -> str | None:
    if isinstance(value, _Missing):
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,})"
