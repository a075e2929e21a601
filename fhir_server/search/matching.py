"""Whether one resource meets a condition on the index: what MongoDB would say, for resources that are not in its collections.

A version of the past has no index stored with it, and a resource that is about to be written is nowhere yet. Only what
conditions of text keys are made of is known here (`keyed`, ranges of keys, `_id`, and their joining); anything else is refused
with NotImplementedError, so that nothing is ever taken for met that wasn't looked at.
"""

import re
from collections.abc import Collection
from typing import Any

from fhir_server.search.conditions import Condition
from fhir_server.search.index import index

_KEYS = "search.t"


def matches(condition: Condition, id_: str, keys: Collection[str]) -> bool:
    """Whether a resource with this id and these text keys (`search.t`) meets the condition."""
    return all(_meets(path, test, id_, keys) for path, test in condition.items())


def resource_matches(condition: Condition, resource: dict[str, Any], indexed: dict[str, Any] | None = None) -> bool:
    """The same for a valid resource, whose index may be given."""
    return matches(condition, resource["id"], (indexed or index(resource))["t"])


def _meets(path: str, test: Any, id_: str, keys: Collection[str]) -> bool:
    match path:
        case "$and":
            return all(matches(part, id_, keys) for part in test)
        case "$or":
            return any(matches(part, id_, keys) for part in test)
        case "$nor":
            return not any(matches(part, id_, keys) for part in test)
        case "_id":
            return _one_of((id_,), test)
        case "search.t":
            return _one_of(keys, test)
    raise NotImplementedError(path)


def _one_of(values: Collection[str], test: Any) -> bool:
    """MongoDB's comparison of a list of texts: true when it is for one of them, and when negated for none."""
    if isinstance(test, str):
        return test in values
    if isinstance(test, re.Pattern):
        return any(test.search(value) for value in values)
    if isinstance(test, dict) and len(test) == 1:
        (operator, operand), *_ = test.items()
        if operator in {"$in", "$nin"}:
            return any(_one_of(values, one) for one in operand) is (operator == "$in")
        if operator == "$ne":
            return not _one_of(values, operand)
        if operator == "$not":
            return not _one_of(values, operand)
        if operator == "$elemMatch" and operand.keys() == {"$gte", "$lt"}:
            low, high = str(operand["$gte"]), str(operand["$lt"])
            return any(low <= value < high for value in values)
    raise NotImplementedError(str(test)[:100])
