"""What a query must look up before it can run: chains, `_has`, lists, value sets and hierarchies, each turned into a condition.

Everything found on the way is bounded by CHAIN_LIMIT; a search that needs more is refused, never answered in part.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server import fhir_json
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.search import terminology
from fhir_server.search.conditions import NOTHING, Beginning, Condition, any_of, keyed
from fhir_server.search.query import Chain, Has, Hierarchy, InValueSet, Members, Pending, Query
from fhir_server.search.values import implied_systems
from smart_auth.access import Access

if TYPE_CHECKING:
    from fhir_server.store import Store

CHAIN_LIMIT = 10_000
_EMPTY: tuple[Condition, ...] = (NOTHING, {"_id": {"$in": []}})


@dataclass(frozen=True, slots=True)
class Look:
    """Who looks, and where: in the database as it is, or inside a transaction."""

    store: "Store"
    access: Access
    session: AsyncClientSession | None = None


async def resolve(look: Look, query: Query) -> None:
    """Turn what is pending into conditions, and add what the caller may not see past. FhirError `too-costly`, `forbidden`.

    Whatever no scope covers on the way is refused before anything is looked at.
    """
    _require(look.access, query)
    for pending in query.pending:
        query.filters.append(await _condition(look, query, pending))
        if query.filters[-1] in _EMPTY:
            break  # nothing can match: what else is asked need not be looked up
    query.pending = []
    if (restriction := look.access.filter(query.type, "s")) is not None:
        query.filters.append(restriction)


def _require(access: Access, query: Query) -> None:
    access.require(query.type, "s")
    for pending in query.pending:
        match pending:
            case Chain() | Has():
                _require(access, pending.inner)
            case Members():
                access.require("List", "r")
            case InValueSet():
                access.require("ValueSet", "r")
            case Hierarchy(kind="token"):
                access.require("CodeSystem", "r")


async def _condition(look: Look, query: Query, pending: Pending) -> Condition:
    match pending:
        case Chain():
            ids = await _ids(look, pending.inner)
            return _any_key(f"{pending.parameter}>{pending.inner.type}/{id_}" for id_ in ids)
        case Has():
            return {"_id": {"$in": await _referred_to(look, query, pending)}}
        case Members():
            return {"_id": {"$in": await _members(look, query.type, pending)}}
        case InValueSet():
            systems = await terminology.codes_in(look.store, look.access, pending.value_set)
            return _coded(pending.parameters, query.type, systems, negated=pending.negated)
        case Hierarchy(kind="token"):
            system, code = pending.value.split("|")
            codes = await terminology.related(look.store, look.access, system, code, down=pending.down)
            return _coded(pending.parameters, query.type, {system: codes}, negated=False)
        case Hierarchy():
            return await _hierarchy(look, query, pending)


def _any_key(keys: Iterable[str]) -> Condition:
    return keyed(list(keys))


def _coded(parameters: Iterable[str], resource_type: str, systems: terminology.Codes, *, negated: bool) -> Condition:
    """That a token is one of these. A `code` element has no system of its own: its binding implies one."""
    keys: list[str] = []
    for parameter in parameters:
        plain = implied_systems(resource_type, parameter)
        for system, codes in systems.items():
            if system in plain:
                keys += [f"{parameter}={code}" for code in (plain[system] if codes is None else codes & plain[system])]
            elif codes is None:
                keys.append(Beginning(f"{parameter}@{system}|"))
            else:
                keys += [f"{parameter}@{system}|{code}" for code in codes]
    return keyed(keys, negated=negated)


async def _ids(look: Look, query: Query) -> list[str]:
    """The ids of what matches the rest of a chain."""
    await resolve(look, query)
    found = await look.store.find_ids(query, CHAIN_LIMIT + 1, look.session)
    if len(found) > CHAIN_LIMIT:
        raise _too_many(query.type, query.used[0][0])
    return found


async def _referred_to(look: Look, query: Query, has: Has) -> list[str]:
    """The ids of what matching resources refer to."""
    await resolve(look, has.inner)
    prefix = f"{has.parameter}>{query.type}/"
    mine = {"$and": [{"$gte": ["$$this", prefix]}, {"$lt": ["$$this", prefix[:-1] + "0"]}]}  # "0" follows "/"
    pipeline: list[dict[str, Any]] = [
        {"$match": has.inner.filter},
        {"$project": {"k": {"$filter": {"input": "$search.t", "cond": mine}}}},
        {"$unwind": "$k"},
        {"$group": {"_id": "$k"}},
        {"$limit": CHAIN_LIMIT + 1},
    ]
    rows = await look.store.current(has.inner.type).aggregate(pipeline, session=look.session)
    found = [row["_id"].removeprefix(prefix) async for row in rows]
    if len(found) > CHAIN_LIMIT:
        raise _too_many(query.type, has.inner.used[0][0])
    return found


async def _members(look: Look, resource_type: str, members: Members) -> list[str]:
    """The ids of this type that Lists name, deleted entries left out."""
    look.access.require("List", "r")
    lists = Query("List", filters=[{"_id": {"$in": list(members.lists)}}])
    if (restriction := look.access.filter("List", "r")) is not None:
        lists.filters.append(restriction)
    ids: dict[str, None] = {}
    for document in await look.store.find(lists, limit=len(members.lists), session=look.session):
        for entry in fhir_json.from_bson(document["resource"]).get("entry", ()):
            to = target(entry.get("item"))
            if to is not None and to.type == resource_type and not entry.get("deleted"):
                ids[to.id] = None
    if len(ids) > CHAIN_LIMIT:
        raise _too_many(resource_type, "_list")
    return list(ids)


async def _hierarchy(look: Look, query: Query, pending: Hierarchy) -> Condition:
    """`:below`: refers to this resource or to one below it; `:above`: to this one or to one above it."""
    (parameter,) = pending.parameters
    start = target(pending.value, query.base_url) or target(f"{query.type}/{pending.value}")
    if start is None or start.type != query.type:
        raise fail("invalid", f"{parameter}: {pending.value[:64]!r} is no {query.type}", status=400)
    known, level = {start.id: None}, [start.id]
    while level:
        filters = [keyed([f"{parameter}>{query.type}/{i}" for i in level])] if pending.down else [{"_id": {"$in": level}}]
        step = Query(query.type, filters=filters)
        await resolve(look, step)
        documents = await look.store.find(step, limit=CHAIN_LIMIT + 1, projection={"search.t": 1}, session=look.session)
        found = [d["_id"] for d in documents] if pending.down else _parents(documents, f"{parameter}>{query.type}/")
        level = [i for i in dict.fromkeys(found) if i not in known]
        known |= dict.fromkeys(level)
        if len(known) > CHAIN_LIMIT:
            raise _too_many(query.type, parameter)
    return any_of([_any_key(f"{parameter}>{query.type}/{i}" for i in known)]) if known else NOTHING


def _parents(documents: list[dict[str, Any]], prefix: str) -> list[str]:
    return [k.removeprefix(prefix) for d in documents for k in d["search"]["t"] if k.startswith(prefix)]


def _too_many(resource_type: str, parameter: str) -> Exception:
    return fail("too-costly", f"more than {CHAIN_LIMIT} {resource_type} resources match {parameter[:100]}: narrow the search")
