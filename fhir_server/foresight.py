"""Several looks into the database as one command: what the rules of a transaction will ask for, known beforehand.

Rules ask for one thing after the other, and the way to the database costs several times what is found there. MongoDB has no
$unionWith in transactions; a $lookup from one document that is always there does the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.references import Target

Document = dict[str, Any]

_ALWAYS_THERE = {"_id": "AuditEvent"}  # in the catalog: no transaction begins without that type
# What all looks find together must fit into one document of 16 MiB: 16 looks of 8 resources of 96 KiB do.
_LOOKS = 16
_MOST = 8
_LARGEST = 96 * 1024
_TOO_LARGE = "too large"


class Asked(NamedTuple):
    """A search that will be asked for; `newest`: that only so many of the newest will be."""

    type: str
    parameters: tuple[tuple[str, str], ...]
    newest: int | None = None


def asked(resource_type: str, parameters: Mapping[str, str], newest: int | None = None) -> Asked:
    """What `View.search` will ask for with these parameters, or `View.some` with `newest`."""
    return Asked(resource_type, tuple((name.replace("_", "-"), value) for name, value in parameters.items()), newest)


class Lookup(NamedTuple):
    """A collection, a filter, how many of the newest are wanted (all, if that isn't said), and else in what order.

    By itself it is of documents beside the current resources (`View.beside`): rows, counters, earlier versions.
    """

    collection: str
    filter: Document
    newest: int | None = None
    sort: str = "_id"


def by_ids(targets: Iterable[Target]) -> dict[str, Lookup]:
    """Looks for these resources, several of a type at once."""
    by_type: dict[str, list[str]] = {}
    for to in targets:
        by_type.setdefault(to.type, []).append(to.id)
    some = [(t, ids[i : i + _MOST]) for t, ids in by_type.items() for i in range(0, len(ids), _MOST)]
    return {f"{t} {ids}": Lookup(t, {"_id": {"$in": ids}}, len(ids)) for t, ids in some}


async def look(
    db: AsyncDatabase[Document], looks: Mapping[str, Lookup], session: AsyncClientSession
) -> dict[str, list[Document]]:
    """What each look finds, in the order of a search. Those that find more than a few, or something large, are left out."""
    found: dict[str, list[Document]] = {}
    keys = list(looks)
    for start in range(0, len(keys), _LOOKS):
        some = keys[start : start + _LOOKS]
        stages = [
            {"$lookup": {"from": looks[k].collection, "pipeline": _stages(looks[k]), "as": str(i)}} for i, k in enumerate(some)
        ]
        cursor = await db["catalog"].aggregate([{"$match": _ALWAYS_THERE}, *stages], session=session)
        for answers in await cursor.to_list():
            found |= {k: answers[str(i)] for i, k in enumerate(some) if _is_whole(looks[k], answers[str(i)])}
    return found


def _stages(one: Lookup) -> list[Document]:
    limit = min(one.newest or _MOST, _MOST)
    fits = {"$lt": [{"$bsonSize": "$resource"}, _LARGEST]}
    return [
        {"$match": one.filter}, {"$sort": {"_id": -1} if one.newest else {one.sort: 1}}, {"$limit": limit},
        {"$set": {"search": "$$REMOVE", "resource": {"$cond": [fits, "$resource", _TOO_LARGE]}}},
    ]  # fmt: skip


def _is_whole(one: Lookup, found: Sequence[Document]) -> bool:
    """Whether that is all that the search would find."""
    return (len(found) < _MOST or one.newest == len(found)) and all(d.get("resource") != _TOO_LARGE for d in found)
