"""Keyset paging: a page link holds the sort keys of the last match, and the next page begins after them.

Nothing is kept on the server, and no page costs more than the first. The order is total, `_id` being its last key, so whoever
walks through all pages sees each resource that stays as it is exactly once, whatever is written meanwhile.
"""

import base64
import binascii
import json
from datetime import datetime
from typing import Any

from fhir_server.outcome import FhirError, fail
from fhir_server.search.query import Query

Document = dict[str, Any]


def order(query: Query) -> list[tuple[str, int]]:
    """The sort keys, MongoDB's way. `_id` goes the way of the key before it, so that one index serves both directions."""
    if any(path == "_id" for path, _ in query.sort):
        return query.sort
    return [*query.sort, ("_id", query.sort[-1][1] if query.sort else 1)]


def cursor(query: Query, last: Document) -> str:
    """The place after `last`, the last match of a page, for the link to the next one."""
    keys = [_signature(query), *(_at(last, path, direction) for path, direction in order(query))]
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def after(query: Query) -> Document | None:
    """The condition that a document comes after the query's cursor; None when it has none."""
    if query.cursor is None:
        return None
    keys = order(query)
    values = _values(query, len(keys))
    branches = []
    for i, ((path, direction), value) in enumerate(zip(keys, values, strict=True)):
        beyond = _beyond(path, direction, value)
        if beyond is not None:
            level = [_equal(p, d, v) for (p, d), v in zip(keys[:i], values[:i], strict=True)]
            branches.append({"$and": [*level, beyond]} if level else beyond)
    return {"$or": branches} if branches else {"_id": {"$in": []}}


def _values(query: Query, count: int) -> list[Any]:
    text = query.cursor or ""
    try:
        signature, *values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        values = [datetime.fromisoformat(v["$date"]) if isinstance(v, dict) else v for v in values]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise _not_ours() from None
    if any(isinstance(v, (list, float)) for v in values) or len(values) != count:
        raise _not_ours()
    if signature != _signature(query):
        raise fail("invalid", "this page link belongs to another search", status=400)
    return values


def _not_ours() -> FhirError:
    return fail("invalid", "this page link is not one of ours", status=400)


def _signature(query: Query) -> str:
    return f"{query.type} {' '.join(f'{path} {direction}' for path, direction in query.sort)}"


def _at(document: Document, path: str, direction: int) -> Any:
    """What MongoDB sorts a document by: of several values the least when ascending, the greatest when descending."""
    value: Any = document
    for name in path.split("."):
        value = [v.get(name) for v in value] if isinstance(value, list) else (value or {}).get(name)
    if isinstance(value, list):
        value = min(value) if direction == 1 else max(value)
    return {"$date": value.isoformat()} if isinstance(value, datetime) else value


# With several values in a document, a comparison is true when it is for one of them; the `$not` says that none lies before.


def _equal(path: str, direction: int, value: Any) -> Document:
    if value is None or not path.startswith("search.d."):
        return {path: value}
    return {path: {"$eq": value, "$not": {"$lt" if direction == 1 else "$gt": value}}}


def _beyond(path: str, direction: int, value: Any) -> Document | None:
    """What comes after this value; None when nothing does. MongoDB sorts what is missing before all else."""
    if value is None:
        return {path: {"$ne": None}} if direction == 1 else None
    beyond: Document = {"$gt" if direction == 1 else "$lt": value}
    if path.startswith("search.d."):
        beyond["$not"] = {"$lte" if direction == 1 else "$gte": value}
    return {path: beyond} if direction == 1 or path in {"_id", "updated"} else {"$or": [{path: beyond}, {path: None}]}
