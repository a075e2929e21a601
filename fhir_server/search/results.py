"""Running a compiled search: one page of matches, what is included with them, and how many there are."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fhir_server import fhir_json
from fhir_server.outcome import fail
from fhir_server.references import Target, target
from fhir_server.search import paging
from fhir_server.search.conditions import keyed
from fhir_server.search.index import parameters
from fhir_server.search.query import Chain, Include, Query, compile_query
from smart_auth.access import Access

if TYPE_CHECKING:
    from fhir_server.store import Store

Resource = dict[str, Any]

CHAIN_LIMIT = 1000
INCLUDE_LIMIT = 1000


@dataclass(slots=True)
class Found:
    """A page of a search: the matches, what was included, the number of all matches if asked, and where the next page starts.

    `truncated`: not everything that was to be included is there.
    """

    matches: list[Resource] = field(default_factory=list)
    included: list[Resource] = field(default_factory=list)
    total: int | None = None
    cursor: str | None = None
    truncated: bool = False


async def search(store: "Store", access: Access, query: Query) -> Found:
    """A page of what the query finds among what `access` may see. FhirError `too-costly` for a chain that matches too much."""
    await _resolve_chains(store, access, query)
    if (restriction := access.filter(query.type, "s")) is not None:
        query.filters.append(restriction)
    found = Found()
    if query.total or query.only_count:
        found.total = await store.count(query)
    if query.only_count:
        return found
    documents = await store.find(query, limit=query.count + 1, after=paging.after(query))
    if len(documents) > query.count:
        documents = documents[: query.count]
        found.cursor = paging.cursor(query, documents[-1])
    found.matches = [fhir_json.from_bson(d["resource"]) for d in documents]
    if found.matches:
        await _Includes(store, access, found).add(query)
    return found


async def _resolve_chains(store: "Store", access: Access, query: Query) -> None:
    """Turn chains into conditions on the references."""
    for chain in query.chains:
        ids = await _chained(store, access, chain, query.base_url)
        query.filters.append(keyed([f"{chain.parameter}>{chain.target}/{id_}" for id_ in ids], negated=False))
    query.chains = []


async def _chained(store: "Store", access: Access, chain: Chain, base_url: str) -> list[str]:
    restriction = access.filter(chain.target, "s")
    inner = compile_query(chain.target, chain.inner, base_url)
    if restriction is not None:
        inner.filters.append(restriction)
    await _resolve_chains(store, access, inner)
    documents = await store.find(inner, limit=CHAIN_LIMIT + 1, projection={"_id": 1})
    if len(documents) > CHAIN_LIMIT:
        raise fail("too-costly", f"more than {CHAIN_LIMIT} {chain.target} resources match {chain.inner[0][0]}: narrow the search")
    return [d["_id"] for d in documents]


class _Includes:
    """Adds what `_include` and `_revinclude` ask for, each resource once."""

    def __init__(self, store: "Store", access: Access, found: Found) -> None:
        self._store = store
        self._access = access
        self._found = found
        self._have = {Target(r["resourceType"], r["id"]) for r in found.matches}

    async def add(self, query: Query) -> None:
        for include in query.includes:
            wanted: dict[str, list[str]] = {}
            for to in dict.fromkeys(t for r in self._found.matches for t in pointed_at(r, include)):
                if to not in self._have and include.target in {None, to.type}:
                    wanted.setdefault(to.type, []).append(to.id)
            for resource_type, ids in wanted.items():
                await self._fetch(resource_type, {"_id": {"$in": ids}})
        for include in query.revincludes:
            keys = [f"{include.parameter}>{r['resourceType']}/{r['id']}" for r in self._found.matches]
            await self._fetch(include.source, keyed(keys, negated=False))

    async def _fetch(self, resource_type: str, where: dict[str, Any]) -> None:
        restriction = self._access.filter(resource_type, "s")
        query = Query(resource_type, filters=[where] if restriction is None else [where, restriction])
        documents = await self._store.find(query, limit=INCLUDE_LIMIT + 1)
        self._found.truncated |= len(documents) > INCLUDE_LIMIT
        for document in documents[:INCLUDE_LIMIT]:
            to = Target(resource_type, document["_id"])
            if to not in self._have:
                self._have.add(to)
                self._found.included.append(fhir_json.from_bson(document["resource"]))


def pointed_at(resource: Resource, include: Include) -> Iterable[Target]:
    """The local targets of a reference parameter of this resource."""
    _, extract = parameters(include.source)[include.parameter]
    return (to for _, value in extract(resource) if (to := target(value)) is not None)
