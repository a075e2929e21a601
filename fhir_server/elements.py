"""Small, pure helpers for FHIR elements as plain dicts."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, TypeVar, cast

Resource = dict[str, Any]
T = TypeVar("T")


def duplicate(element: T) -> T:
    """A deep copy of a JSON-like value (several times as fast as `copy.deepcopy`)."""
    if isinstance(element, dict):
        return cast("T", {k: duplicate(v) if isinstance(v, (dict, list)) else v for k, v in element.items()})
    if isinstance(element, list):
        return cast("T", [duplicate(v) if isinstance(v, (dict, list)) else v for v in element])
    return element


def same(one: Any, other: Any) -> bool:
    """Whether two JSON-like values are equal to the last digit: `1.50` is not `1.5`, and 1 is not true."""
    return one == other and _same_leaves(one, other)


def _same_leaves(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same_leaves(value, other[key]) for key, value in one.items() if not isinstance(value, str))
    if isinstance(one, list):
        return all(map(_same_leaves, one, other))
    return type(one) is type(other) and (not isinstance(one, Decimal) or one.as_tuple() == other.as_tuple())


def concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def codings(concepts: Any) -> Iterator[dict[str, Any]]:
    """The codings of a CodeableConcept, or of a list of them."""
    for one in concepts if isinstance(concepts, list) else [concepts]:
        if isinstance(one, dict):
            yield from one.get("coding", ())


def codes(concepts: Any, system: str) -> list[str]:
    """The codes of this system in a CodeableConcept, or in a list of them."""
    return [c["code"] for c in codings(concepts) if c.get("system") == system and "code" in c]


def has_code(concepts: Any, system: str, code: str) -> bool:
    return code in codes(concepts, system)


def identifier_of_type(resource: Resource, system: str, code: str) -> dict[str, Any] | None:
    """The first identifier whose type has this code, such as v2-0203 `ACSN`."""
    found: Iterable[dict[str, Any]] = resource.get("identifier", ())
    return next((i for i in found if has_code(i.get("type"), system, code)), None)


def identifier_value(resource: Resource, system: str) -> str | None:
    """The value of the first identifier of this system."""
    return next((i.get("value") for i in resource.get("identifier", ()) if i.get("system") == system), None)


def extension(element: Resource, url: str) -> dict[str, Any] | None:
    """The first extension with this url."""
    return next((e for e in element.get("extension", ()) if e.get("url") == url), None)
