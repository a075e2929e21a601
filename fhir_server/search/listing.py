"""Long lists in order of their date: `Observation?code=x&date=ge2026-01-01&_sort=-date`, of one key out of a large archive.

The index of keys leads to all that have the key, which would then have to be sorted; the index of dates leads through all that
lie in the time, whatever their key. For the lists that people look at (index.LISTED) there is one index of both: what is newest
comes first out of it, and what lies beyond the dates asked for is passed over in it.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fhir_server.search import conditions
from fhir_server.search.index import LISTED
from fhir_server.search.values import split

if TYPE_CHECKING:
    from fhir_server.search.query import Query

_MOST_KEYS = 20  # alternatives, each of which is a walk of its own


def serve(query: "Query") -> None:
    """Have this query, if it is such a list, go by that index. What it finds, and in which order, stays the same."""
    date, parameters = LISTED.get(query.type, ("", ()))
    if len(query.sort) != 1 or (query.sort[0].name, query.sort[0].direction) != (date, -1):
        return
    found = next((i for name in parameters for i, one in enumerate(query.filters) if _is_by(name, one)), None)
    if found is None:
        return
    query.filters[found] = {"search.by": query.filters[found]["search.t"]}
    query.sort = [replace(query.sort[0], listed=True)]
    for name, value in query.used:
        if name == date and len(split(value, ",")) == 1:
            limits = conditions.date_limits(name, value)
            query.filters += [{f"search.{member}": test} for limit in limits for member, test in limit.items()]


def _is_by(parameter: str, condition: dict[str, Any]) -> bool:
    """Whether a condition is that a resource has one of a few keys of this parameter."""
    test = condition.get("search.t") if len(condition) == 1 else None
    keys = [test] if isinstance(test, str) else test.get("$in", ()) if isinstance(test, dict) and len(test) == 1 else ()
    begins = tuple(f"{parameter}{sign}" for sign in "=@>")
    return 0 < len(keys) <= _MOST_KEYS and all(isinstance(key, str) and key.startswith(begins) for key in keys)
