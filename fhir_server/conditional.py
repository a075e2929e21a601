"""Conditional interactions (FHIR R4 3.1.0.8.1, 3.1.0.4.3, 3.1.0.5.1, 3.1.0.6.1): a search, not an id, says which resource it is.

The search is judged inside the transaction that writes. Whoever may create on the outcome of a search takes a lock on that
search first, so that of many at once one creates and the others find what it has created. A condition is locked by its text, in a
canonical order: two that are written differently but mean the same are two conditions.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

from fhir_server.audit import Act
from fhir_server.exchange import Parameters, Patch, meant
from fhir_server.interactions import Interactions, delete_in, known_type, patch_in, update_in
from fhir_server.outcome import Issue, fail, operation_outcome
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

T = TypeVar("T")

MAX_DELETED = 500
"""Resources that one conditional delete can take away."""

# Parameters that say how results are shown, not which there are (FHIR R4 3.1.1.5).
_RESULT = frozenset(
    "_sort _count _total _summary _elements _include _revinclude _contained _containedType _page _explain".split()
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """A search that finds the resource which an interaction is about. `criteria` is its canonical text: `a=1&b=2`."""

    type: str
    criteria: str

    @property
    def key(self) -> str:
        """What is locked. It names no patient."""
        return f"condition:{hashlib.sha256(str(self).encode()).hexdigest()}"

    def __str__(self) -> str:
        return f"{self.type}?{self.criteria}"


def condition(resource_type: str, parameters: Parameters, base_url: str = "") -> Condition:
    """The condition of these search parameters; our own base in their values is dropped. FhirError (400) when it has none."""
    given = [(name, value.removeprefix(f"{base_url}/") if base_url else value) for name, value in meant(parameters)]
    for name, _ in given:
        if name.partition(":")[0] in _RESULT:
            raise fail("invalid", f"{name[:64]} has no meaning in a condition", status=400)
    if not given:
        raise fail("invalid", "a condition needs at least one search parameter", status=400)
    return Condition(resource_type, urlencode(sorted(given)))


def parsed(resource_type: str, text: str, base_url: str = "") -> Condition:
    """The same from the text of a header or an element: `identifier=urn:x|1`, or `?identifier=...`, or `Type?identifier=...`."""
    _, mark, query = text.partition("?")
    try:
        parameters = parse_qsl(query if mark else text, keep_blank_values=True, errors="strict", separator="&")
    except ValueError:
        raise fail("invalid", "the condition is not valid UTF-8", status=400) from None
    return condition(resource_type, parameters, base_url)


async def the_match(unit: UnitOfWork, where: Condition) -> Resource | None:
    """The one resource that a condition finds in a transaction; None when there is none. FhirError (412) for several."""
    unit.access.require(where.type, "s")
    found = await unit.matching(where.type, where.criteria)
    if len(found) > 1:
        raise fail("multiple-matches", f"more than one {where.type} matches the condition")
    return found[0] if found else None


def target_id(where: Condition, match: Resource | None, resource: Resource) -> str | None:
    """The id of what a conditional update is about; None when it is to be created under an id of ours (FHIR R4 3.1.0.4.3)."""
    given = resource.get("id")
    if match is None:
        return given if isinstance(given, str) else None
    if given is not None and given != match["id"]:
        raise fail("value", f"the {where.type} that matches has another id than the one sent", f"{where.type}.id", status=400)
    return str(match["id"])


async def refuse_taken(unit: UnitOfWork, resource_type: str, id_: str) -> None:
    """Refuse (409) an id that is in use by something that the condition does not match."""
    if await unit.seen(resource_type, id_, "u", copy=False):
        text = f"there is a {resource_type} with this id, and it does not match the condition"
        raise fail("conflict", text, f"{resource_type}.id")


async def create(
    interactions: Interactions, access: Access, resource: Resource, where: Condition, act: Act
) -> tuple[Resource, bool]:
    """Create a resource unless there is one that matches; the resource, and whether it was created."""
    known_type(resource)

    async def work(unit: UnitOfWork) -> Callable[[], tuple[Resource, bool]]:
        access.require(where.type, "c")
        await unit.lock(where.key)
        match = await the_match(unit, where)
        if match is not None:
            unit.shown.append(f"{where.type}/{match['id']}")
            return lambda: (match, False)
        created = await unit.create(resource, copy=False)
        return lambda: (unit.final(created), True)

    return (await _locked(interactions, access, where, act, work))()


async def update(
    interactions: Interactions,
    access: Access,
    resource: Resource,
    where: Condition,
    act: Act,
    *,
    if_match: str | None = None,
    only_new: bool = False,
) -> tuple[Resource, bool]:
    """Update the resource that matches, or create it; the resource, and whether it was created."""
    known_type(resource)

    async def work(unit: UnitOfWork) -> Callable[[], tuple[Resource, bool]]:
        access.require(where.type, "u")
        await unit.lock(where.key)
        match = await the_match(unit, where)
        if match is not None and only_new:
            raise fail("conflict", f"there is a {where.type} that matches already", status=412)
        id_ = target_id(where, match, resource)
        if id_ is None:
            stored, created = await create_in(unit, resource, if_match), True
        else:
            if match is None:
                await refuse_taken(unit, where.type, id_)
            stored, created = await update_in(unit, access, resource | {"id": id_}, if_match)
        return lambda: (unit.final(stored), created)

    return (await _locked(interactions, access, where, act, work))()


async def create_in(unit: UnitOfWork, resource: Resource, if_match: str | None, id_: str | None = None) -> Resource:
    """What a conditional update does where nothing matches. FhirError (412) when it was to be done to a certain version."""
    if if_match is not None:
        raise fail("conflict", "nothing matches the condition, and If-Match asks for a version", status=412)
    unit.access.require(resource["resourceType"], "c")
    return await unit.create(resource, id_)


async def patch(
    interactions: Interactions, access: Access, changes: Patch, where: Condition, act: Act, *, if_match: str | None = None
) -> Resource:
    """Patch the resource that matches. FhirError `not-found` when there is none."""

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        access.require(where.type, "u")
        match = await the_match(unit, where)
        if match is None:
            raise fail("not-found", f"no {where.type} matches the condition")
        stored = await patch_in(unit, access, where.type, match["id"], changes, if_match)
        return lambda: unit.final(stored)

    return (await interactions.transact(access, act, work))()


async def delete(
    interactions: Interactions,
    access: Access,
    where: Condition,
    act: Act,
    *,
    if_match: str | None = None,
    most: int | None = None,
) -> tuple[int, bool]:
    """Delete what matches: the only match or, with `most`, up to so many. How many were deleted, and whether more match."""

    async def work(unit: UnitOfWork) -> tuple[int, bool]:
        access.require(where.type, "d")
        found, more = await delete_where(unit, where, if_match, most)
        return len(found), more

    return await interactions.transact(access, act, work)


async def delete_where(unit: UnitOfWork, where: Condition, if_match: str | None, most: int | None) -> tuple[list[Resource], bool]:
    """The same inside a transaction: what was deleted, and whether more match."""
    found: list[Resource]
    if most is None:
        match = await the_match(unit, where)
        found, more = [] if match is None else [match], False
    else:
        unit.access.require(where.type, "s")
        found = await unit.matching(where.type, where.criteria, most + 1)
        found, more = found[:most], len(found) > most
    for resource in found:
        await delete_in(unit, where.type, resource["id"], if_match)
    return found, more


async def _locked(
    interactions: Interactions, access: Access, where: Condition, act: Act, work: Callable[[UnitOfWork], Awaitable[T]]
) -> T:
    async with interactions.turns.taken([where.key]):
        return await interactions.transact(access, act, work)


def most(parameters: Parameters) -> int | None:
    """How many a conditional delete may take away (`_count`); None when it is to be one. FhirError (400)."""
    asked = [value for name, value in parameters if name == "_count"]
    if not asked:
        return None
    value = asked[0]
    if len(asked) > 1 or not (value.isascii() and value.isdecimal() and len(value) <= 9 and 1 <= int(value) <= MAX_DELETED):
        raise fail("invalid", f"_count says how many may be deleted, 1 to {MAX_DELETED}", status=400)
    return int(value)


def deleted(resource_type: str, done: int, *, more: bool) -> Resource:
    """What is told of a conditional delete of several."""
    rest = "; more match: ask again" if more else ""
    return operation_outcome(Issue("informational", f"{done} {resource_type} deleted{rest}", severity="information"))
