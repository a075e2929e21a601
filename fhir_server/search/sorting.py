"""`_sort`: the keys, and how each is had from an index or from the resource's own keys (FHIR R4 Search, "Sorting").

A single key with an index of its own (`_id`, `_lastUpdated`, dates, numbers, `priority`) is served in that index's order.
Anything else is sorted in memory, which is bounded. What lacks a value comes last, in both directions.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from fhir_server.outcome import fail
from fhir_server.search.index import ranked, searchable, unions

_SIGNS = {"string": ("~", "\x7f"), "token": ("=", ">"), "uri": ("=", ">"), "reference": (">", "?")}


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key: a parameter, its type, and 1 or -1."""

    name: str
    kind: str
    direction: int
    listed: bool = False  # had from the index of lists, which has the date beside what they are narrowed by (index.LISTED)

    @property
    def path(self) -> str | None:
        """Where an index has it; None where it is worked out."""
        if self.name in _OWN:
            return _OWN[self.name]
        if self.kind == "rank":
            return "search.rank"
        if self.listed:
            return "search.to"
        if self.kind == "date":
            return f"search.d.{self.name}.{'s' if self.direction == 1 else 'e'}"
        if self.kind == "number":
            return f"search.n.{self.name}.{'l' if self.direction == 1 else 'h'}"
        return None

    @property
    def expression(self) -> Any:
        """What MongoDB works it out by: of several values the least when ascending, the greatest when descending."""
        extreme = "$min" if self.direction == 1 else "$max"
        if self.path is not None:
            return f"${self.path}" if self.name in _OWN or self.kind == "rank" else {extreme: f"${self.path}"}
        start, end = (self.name + sign for sign in _SIGNS[self.kind])
        mine = {"$and": [{"$gte": ["$$this", start]}, {"$lt": ["$$this", end]}]}
        return {extreme: {"$filter": {"input": "$search.t", "cond": mine}}}


_OWN = {"_id": "_id", "_lastUpdated": "updated"}


@cache
def sortable(resource_type: str) -> dict[str, str]:
    """The parameters that `_sort` takes for a type: name -> type."""
    kinds = {*_SIGNS, "date", "number"}
    return {n: k for n, k in searchable(resource_type).items() if k in kinds and n not in unions(resource_type)}


def sort_keys(resource_type: str, value: str) -> list[SortKey]:
    """The keys of a `_sort`. FhirError for what can't be sorted by."""
    keys = [_key(resource_type, part.strip()) for part in value.split(",")]
    if len({key.name for key in keys}) != len(keys):
        raise fail("invalid", "_sort names a parameter twice", status=400)
    # Ids are unique: what comes after one has nothing left to order.
    last = next((i for i, key in enumerate(keys) if key.name == "_id"), len(keys))
    return keys[: last + 1]


def _key(resource_type: str, part: str) -> SortKey:
    name = part.removeprefix("-")
    known = sortable(resource_type)
    if name not in known:
        raise fail(
            "invalid", f"{resource_type} can't be sorted by {name[:64]!r}; it can by {', '.join(sorted(known))}", status=400
        )
    kind = known[name]
    if name == "priority" and ranked(resource_type):
        kind = "rank"
    return SortKey(name, kind, -1 if part.startswith("-") else 1)
