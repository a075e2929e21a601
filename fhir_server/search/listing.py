"""Long lists in order of their date: `Observation?code=x&date=ge2026-01-01&_sort=-date`, of one key out of a large archive.

The index of keys leads to all that have the key, which would then have to be sorted; the index of dates leads through all that
lie in the time, whatever their key. For the lists that people look at (index.LISTED) there is one index of both: what is newest
comes first out of it, beginning at the dates asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from fhir_server.search import conditions, dates
from fhir_server.search.conditions import Condition
from fhir_server.search.index import LISTED, SHORT, lasting
from fhir_server.search.values import split

if TYPE_CHECKING:
    from fhir_server.search.query import Query

_MOST_KEYS = 20  # alternatives, each of which is two walks of its own


@dataclass(frozen=True, slots=True)
class Walks:
    """The walks through the index of lists that find what has one of `keys`: one a key for what is short, one for what lasts.

    `narrowed` is the condition of the query that they stand for. What it finds ends at `first` or later, and begins at `last` or
    before; what is short ends soon after that. Each walk must have all of its bounds for MongoDB to merge them in order.
    """

    keys: Sequence[str]
    narrowed: Condition
    first: datetime
    last: datetime

    def condition(self, until: datetime = dates.LATEST) -> Condition:
        """The condition for what has the date, and ends at `until` or before."""
        short_until = min(until, dates.plus(self.last, SHORT))
        return {"$or": [*(self._walk(k, short_until) for k in self.keys), *(self._walk(lasting(k), until) for k in self.keys)]}

    def _walk(self, key: str, until: datetime) -> Condition:
        return {"search.by": key, "search.to": {"$gte": self.first, "$lte": until}, "search.from": {"$lte": self.last}}


def serve(query: "Query") -> None:
    """Have this query, if it is such a list, go by that index. What it finds, and in which order, stays the same."""
    date, parameters = LISTED.get(query.type, ("", ()))
    if len(query.sort) != 1 or (query.sort[0].name, query.sort[0].direction) != (date, -1):
        return
    found = next((i for name in parameters for i, one in enumerate(query.filters) if _is_by(name, one)), None)
    if found is None:
        return
    query.sort = [replace(query.sort[0], listed=True)]
    keys = _keys(query.filters[found])
    query.filters[found] = {"search.by": {"$in": [*keys, *map(lasting, keys)]}}
    first, last = dates.EARLIEST, dates.LATEST
    for name, value in query.used:
        if name == date and len(split(value, ",")) == 1:
            lowest, highest = conditions.date_limits(date, value)
            first, last = max(first, lowest), min(last, highest)
    query.walks = Walks(keys, query.filters[found], first, last)
    if first > dates.EARLIEST or last < dates.LATEST:
        query.filters += [{"search.to": {"$gte": first}}, {"search.from": {"$lte": last}}]


def _keys(condition: Condition) -> Sequence[str]:
    """The keys of which a resource has one, if the condition says that and no more."""
    test = condition.get("search.t") if len(condition) == 1 else None
    return (test,) if isinstance(test, str) else test.get("$in", ()) if isinstance(test, dict) and len(test) == 1 else ()


def _is_by(parameter: str, condition: Condition) -> bool:
    """Whether a condition is that a resource has one of a few keys of this parameter."""
    keys = _keys(condition)
    begins = tuple(f"{parameter}{sign}" for sign in "=@>")
    return 0 < len(keys) <= _MOST_KEYS and all(isinstance(key, str) and key.startswith(begins) for key in keys)
