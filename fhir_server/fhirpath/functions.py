"""FHIRPath's functions on collections, and FHIR's own (FHIRPath N1 5.1 to 5.4, 5.8; FHIR R4 FHIRPath page).

A function takes the collection that it is called on. What takes a condition or a projection (`where`, `select`) gets it compiled
and calls it with each item as `$this`; other arguments come evaluated.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES, value_set
from fhir_server.fhirpath import strings
from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.items import Items, distinct, frozen, number, plain, single, text, truth
from fhir_server.fhirpath.nodes import Node
from fhir_server.fhirpath.tokens import FhirPathError

Compiled = Callable[[Items, Context], Items]

_ID = r"[A-Za-z0-9\-.]{1,64}"
_LITERAL = re.compile(rf"(?:https?://[^?#]+/)?([A-Z][A-Za-z]+)/({_ID})(?:/_history/{_ID})?").fullmatch


class Function(NamedTuple):
    run: Callable[..., Items]
    least: int
    most: int
    lazy: bool = False  # arguments come compiled


# --- existence --------------------------------------------------------------------------------------------------------


def _empty(items: Items, _context: Context) -> Items:
    return [not items]


def _exists(items: Items, context: Context, criteria: Compiled | None = None) -> Items:
    return [bool(items if criteria is None else _where(items, context, criteria))]


def _all(items: Items, context: Context, criteria: Compiled) -> Items:
    return [all(truth(result) is True for result in _each(items, context, criteria))]


def _booleans(items: Items) -> list[bool]:
    return [plain(item) is True for item in items]


def _subset(items: Items, _context: Context, other: Items) -> Items:
    return [{frozen(i) for i in items} <= {frozen(i) for i in other}]


def _is_distinct(items: Items, _context: Context) -> Items:
    return [len({frozen(item) for item in items}) == len(items)]


def _not(items: Items, _context: Context) -> Items:
    value = truth(items)
    return [] if value is None else [not value]


# --- filtering and projection -----------------------------------------------------------------------------------------


def _each(items: Items, context: Context, projection: Compiled) -> Iterable[Items]:
    outer = context.index
    context.spend(len(items))
    for context.index, item in enumerate(items):
        found = projection([item], context)
        context.spend(len(found))
        yield found
    context.index = outer


def _where(items: Items, context: Context, criteria: Compiled) -> Items:
    results = _each(items, context, criteria)
    return [item for item, result in zip(items, results, strict=True) if truth(result) is True]


def _select(items: Items, context: Context, projection: Compiled) -> Items:
    return [found for result in _each(items, context, projection) for found in result]


def _repeat(items: Items, context: Context, projection: Compiled) -> Items:
    found: Items = []
    seen: set[Any] = set()
    level = items
    while level:
        level = [item for item in _select(level, context, projection) if _first_seen(item, seen)]
        found += level
    return found


def _first_seen(item: Any, seen: set[Any]) -> bool:
    """Whether the item is new: a node by its place in the resource, a value by itself."""
    key = ("node", *item.location) if type(item) is Node else frozen(item)
    if key in seen:
        return False
    seen.add(key)
    return True


def _iif(items: Items, context: Context, criterion: Compiled, then: Compiled, otherwise: Compiled | None = None) -> Items:
    if truth(criterion(items, context)) is True:
        return then(items, context)
    return otherwise(items, context) if otherwise else []


# --- parts of collections ---------------------------------------------------------------------------------------------


def _whole(items: Items, what: str) -> int:
    count = number(items, what)
    if type(count) is not int:
        raise FhirPathError(f"{what} takes a whole number")
    return count


def _single(items: Items, _context: Context) -> Items:
    single(items, "single()")
    return items


def _intersect(items: Items, _context: Context, other: Items) -> Items:
    wanted = {frozen(item) for item in other}
    return distinct([item for item in items if frozen(item) in wanted])


def _exclude(items: Items, _context: Context, other: Items) -> Items:
    unwanted = {frozen(item) for item in other}
    return [item for item in items if frozen(item) not in unwanted]


# --- the tree ---------------------------------------------------------------------------------------------------------


def _children(items: Items, context: Context) -> Items:
    found = [child for item in items if type(item) is Node for child in item.children()]
    context.spend(len(found))
    return found


def descendants(items: Items, context: Context) -> Items:
    found: Items = []
    level = _children(items, context)
    while level:
        found += level
        level = _children(level, context)
    return found


# --- FHIR's own -------------------------------------------------------------------------------------------------------


def _extension(items: Items, _context: Context, url: Items) -> Items:
    wanted = text(url, "extension()")
    extensions = [e for item in items if type(item) is Node for e in item.child("extension")]
    return [e for e in extensions if type(e.value) is dict and e.value.get("url") == wanted]


def _has_value(items: Items, _context: Context) -> Items:
    return [len(items) == 1 and plain(items[0]) is not None and type(plain(items[0])) not in {dict, list}]


def _get_value(items: Items, context: Context) -> Items:
    return [plain(items[0])] if _has_value(items, context)[0] else []


def _resolve(items: Items, context: Context) -> Items:
    return [found for item in items if (found := resolved(item, context.root)) is not None]


def resolved(item: Any, root: Node) -> Node | None:
    """A contained resource; for a literal reference, which is not followed, a resource of that type and id and nothing else."""
    value = plain(item)
    literal = value.get("reference") if type(value) is dict else value
    if type(literal) is not str:
        return None
    if literal.startswith("#"):
        if literal == "#":
            return root
        return next((node for node in root.child("contained") if node.value.get("id") == literal[1:]), None)
    match = _LITERAL(literal)
    if match is None or match[1] not in RESOURCE_TYPES:
        return None
    return Node({"resourceType": match[1], "id": match[2]}, match[1])


def _member_of(items: Items, _context: Context, canonical: Items) -> Items:
    """Of a code, Coding or CodeableConcept, for value sets whose codes are in our tables."""
    url = text(canonical, "memberOf()")
    systems = value_set((url or "").split("|")[0])
    if systems is None:
        raise FhirPathError(f"the codes of the value set {url} are not known here")
    value = plain(single(items, "memberOf()"))
    if type(value) is str:
        return [any(value in codes for codes in systems.values())]
    codings = value.get("coding", [value]) if type(value) is dict else []
    return [any(coding.get("code") in systems.get(coding.get("system"), ()) for coding in codings)] if value else []


COLLECTIONS: dict[str, Function] = {
    "empty": Function(_empty, 0, 0),
    "exists": Function(_exists, 0, 1, lazy=True),
    "all": Function(_all, 1, 1, lazy=True),
    "allTrue": Function(lambda items, _: [all(_booleans(items))], 0, 0),
    "anyTrue": Function(lambda items, _: [any(_booleans(items))], 0, 0),
    "allFalse": Function(lambda items, _: [not any(_booleans(items))], 0, 0),
    "anyFalse": Function(lambda items, _: [not all(_booleans(items))], 0, 0),
    "subsetOf": Function(_subset, 1, 1),
    "supersetOf": Function(lambda items, context, other: _subset(other, context, items), 1, 1),
    "count": Function(lambda items, _: [len(items)], 0, 0),
    "distinct": Function(lambda items, _: distinct(items), 0, 0),
    "isDistinct": Function(_is_distinct, 0, 0),
    "not": Function(_not, 0, 0),
    "where": Function(_where, 1, 1, lazy=True),
    "select": Function(_select, 1, 1, lazy=True),
    "repeat": Function(_repeat, 1, 1, lazy=True),
    "iif": Function(_iif, 2, 3, lazy=True),
    "single": Function(_single, 0, 0),
    "first": Function(lambda items, _: items[:1], 0, 0),
    "last": Function(lambda items, _: items[-1:], 0, 0),
    "tail": Function(lambda items, _: items[1:], 0, 0),
    "skip": Function(lambda items, _, count: items[max(_whole(count, "skip()"), 0) :], 1, 1),
    "take": Function(lambda items, _, count: items[: max(_whole(count, "take()"), 0)], 1, 1),
    "intersect": Function(_intersect, 1, 1),
    "exclude": Function(_exclude, 1, 1),
    "union": Function(lambda items, _, other: distinct(items + other), 1, 1),
    "combine": Function(lambda items, _, other: items + other, 1, 1),
    "children": Function(_children, 0, 0),
    "descendants": Function(descendants, 0, 0),
    "extension": Function(_extension, 1, 1),
    "hasValue": Function(_has_value, 0, 0),
    "getValue": Function(_get_value, 0, 0),
    "resolve": Function(_resolve, 0, 0),
    "memberOf": Function(_member_of, 1, 1),
    "trace": Function(lambda items, *_: items, 1, 2, lazy=True),
}

FUNCTIONS: dict[str, Function] = COLLECTIONS | {name: Function(*row) for name, row in strings.FUNCTIONS.items()}
