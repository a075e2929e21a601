"""Keyset paging: a page link holds the sort keys of the last match, and the next page begins after them.

Nothing is kept on the server, and no page costs more than the first. The order is total, `_id` being its last key, so whoever
walks through all pages sees each resource that stays as it is exactly once, whatever is written meanwhile.
A place is a list: one value a sort key (None where the match has none) and the id.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from fhir_server.outcome import fail
from fhir_server.search.query import Query
from fhir_server.search.sorting import SortKey

Document = dict[str, Any]
Place = list[Any]

# Below every date, number and rank: what a key that is there compares to.
_LEAST = {"date": datetime(1, 1, 1), "number": Decimal128("-Infinity"), "rank": 0}  # noqa: DTZ001 - UTC, as MongoDB keeps it


def id_direction(query: Query) -> int:
    """`_id` goes the way of the key before it, so that one index serves both directions."""
    return query.sort[-1].direction if query.sort else 1


def is_in_memory(query: Query) -> bool:
    """Whether the matches must be sorted after they are found."""
    return len([k for k in query.sort if k.name != "_id"]) > 1 or any(k.path is None for k in query.sort)


# In the order of an index


def order(query: Query) -> list[tuple[str, int]]:
    """The sort keys, MongoDB's way."""
    keys = [(k.path, k.direction) for k in query.sort if k.path is not None]
    return keys if any(path == "_id" for path, _ in keys) else [*keys, ("_id", id_direction(query))]


def phases(query: Query, place: Place | None, *, inclusive: bool = False) -> list[list[Document]]:
    """The conditions of each step: what has the sort key comes first, then what lacks it."""
    key = query.sort[0] if query.sort else None
    own = query.filters
    beyond = [] if place is None else [_after(query, key, place, inclusive=inclusive)]
    if key is None or key.kind not in _LEAST or key.name == "_lastUpdated":
        return [[*own, *beyond]]
    absent: Document = {str(key.path): None}
    if place is not None and place[0] is None:
        return [[*own, absent, *beyond]]
    if query.walks is None:
        return [[*own, {str(key.path): {"$gte": _LEAST[key.kind]}}, *beyond], [*own, absent]]
    walks = query.walks.condition() if place is None else query.walks.condition(place[0])
    return [[*(c for c in own if c is not query.walks.narrowed), walks, *beyond], [*own, absent]]


def _after(query: Query, key: SortKey | None, place: Place, *, inclusive: bool) -> Document:
    """The condition that a document with (or, if the place has no value, without) the sort key comes after a place."""
    beyond_id = {"_id": {("$gt" if id_direction(query) == 1 else "$lt") + ("e" if inclusive else ""): place[-1]}}
    if key is None or key.name == "_id" or place[0] is None:
        return beyond_id
    path, value = str(key.path), place[0]
    if key.listed:  # one value, at which the walks begin
        return {"$or": [{path: {"$lt": value}}, beyond_id]}
    beyond: Document = {"$gt" if key.direction == 1 else "$lt": value}
    equal: Document = {"$eq": value}
    if path.startswith(("search.d.", "search.n.")):
        # Several values: a comparison is true when it is for one of them; the `$not` says that none lies before.
        beyond["$not"] = {"$lte" if key.direction == 1 else "$gte": value}
        equal["$not"] = {"$lt" if key.direction == 1 else "$gt": value}
    return {"$or": [{path: beyond}, {path: equal, **beyond_id}]}


def place(query: Query, document: Document) -> Place:
    """The place of a match."""
    keys = [k for k in query.sort if k.name != "_id"]
    if is_in_memory(query):
        return [*(document["_s"][f"k{i}"] for i in range(len(keys))), document["_id"]]
    return [*(_value(document, str(k.path), k.direction) for k in keys), document["_id"]]


def _value(document: Document, path: str, direction: int) -> Any:
    """What MongoDB sorts a document by: of several values the least when ascending, the greatest when descending."""
    value: Any = document
    for name in path.split("."):
        value = [v.get(name) for v in value] if isinstance(value, list) else (value or {}).get(name)
    if isinstance(value, list):
        extreme = min if direction == 1 else max
        return extreme(value, key=_comparable)
    return value


def _comparable(value: Any) -> Any:
    return value.to_decimal() if isinstance(value, Decimal128) else value


# In memory


def pipeline(query: Query, place: Place | None, limit: int) -> list[Document]:
    """The aggregation that sorts the matches of a query and gives those after a place; `_s` holds their keys."""
    keys = [k for k in query.sort if k.name != "_id"]
    values = {f"k{i}": {"$ifNull": [k.expression, None]} for i, k in enumerate(keys)}
    lacking = {f"m{i}": {"$cond": [{"$eq": [f"$_s.k{i}", None]}, 1, 0]} for i in range(len(keys))}
    sort = {f"_s.{c}{i}": 1 if c == "m" else k.direction for i, k in enumerate(keys) for c in "mk"}
    stages: list[Document] = [{"$match": query.filter}, {"$set": {"_s": values}}, {"$set": {"_s": lacking}}]
    if place is not None:
        stages.append({"$match": _after_in_memory(query, keys, place)})
    stages += [{"$sort": {**sort, "_id": id_direction(query)}}, {"$limit": limit}, {"$project": {"search": 0}}]
    return stages


def _after_in_memory(query: Query, keys: list[SortKey], place: Place) -> Document:
    branches: list[Document] = []
    equal: list[Document] = []
    for i, (key, value) in enumerate(zip(keys, place, strict=False)):
        path = f"_s.k{i}"
        if value is not None:
            branches.append({"$and": [*equal, {path: {"$gt" if key.direction == 1 else "$lt": value, "$ne": None}}]})
            branches.append({"$and": [*equal, {path: None}]})
        equal.append({path: value})
    branches.append({"$and": [*equal, {"_id": {"$gt" if id_direction(query) == 1 else "$lt": place[-1]}}]})
    return {"$or": branches}


# As text


def written(place: Place) -> list[Any]:
    """A place as JSON holds it."""
    return [{"d": v.isoformat()} if isinstance(v, datetime) else {"n": str(v)} if isinstance(v, Decimal128) else v for v in place]


def read(query: Query, place: list[Any]) -> Place:
    """The inverse. FhirError `invalid` when it is of another order."""
    if len(place) != len([k for k in query.sort if k.name != "_id"]) + 1:
        raise fail("invalid", "this page link belongs to another search", status=400)
    return [_read(v) for v in place]


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return datetime.fromisoformat(value["d"]) if "d" in value else Decimal128(Decimal(value["n"]))
    return value
