"""Finding what `_include` and `_revinclude` ask for: each resource once, at most INCLUDE_LIMIT, and said when that is not all."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from fhir_server import fhir_json
from fhir_server.outcome import Issue
from fhir_server.references import Target, target
from fhir_server.search.conditions import Condition, keyed
from fhir_server.search.includes import Include
from fhir_server.search.index import NO_HOLD, parameters
from fhir_server.search.query import Query
from fhir_server.search.resolve import Look

Resource = dict[str, Any]

INCLUDE_LIMIT = 1000
_ROUNDS = 10  # of `:iterate`


class Includes:
    """Collects what is included with the matches of one page."""

    def __init__(self, look: Look, matches: list[Resource]) -> None:
        self._look = look
        self._matches = matches
        self._have = {Target(r["resourceType"], r["id"]) for r in matches}
        self._found: list[Resource] = []
        self._truncated = False
        self._withheld: set[str] = set()

    async def find(self, includes: list[Include]) -> tuple[list[Resource], list[Issue]]:
        """The included resources, and what is to be said of them."""
        # What only the matches point at is looked for at once.
        plain = [i for i in includes if not (i.reverse or i.iterate)]
        await self._forward(plain, self._matches)
        fresh = self._matches + self._found
        for round_ in range(_ROUNDS):
            begin = len(self._found)
            for include in includes:
                # What an include finds in this round, another one that iterates sees in the same round.
                seen = fresh + self._found[begin:] if include.iterate else self._matches
                if include.iterate or (include.reverse and round_ == 0):
                    await self._add(include, seen)
            fresh = self._found[begin:]
            if not fresh or self._truncated or not any(i.iterate for i in includes):
                break
        else:
            self._truncated = True
        return self._found, self._notes()

    def _notes(self) -> list[Issue]:
        notes = []
        if self._truncated:
            notes.append(Issue("too-costly", f"not all included resources are here, but {len(self._found)}", severity="warning"))
        if self._withheld:
            text = f"the access token does not cover included {', '.join(sorted(self._withheld))}"
            notes.append(Issue("suppressed", text, severity="warning"))
        return notes

    async def _add(self, include: Include, resources: list[Resource]) -> None:
        if include.reverse:
            await self._referring(include, resources)
        else:
            await self._forward([include], resources)

    async def _forward(self, includes: Iterable[Include], resources: list[Resource]) -> None:
        wanted: dict[str, dict[str, None]] = {}
        for include in includes:
            for to in (t for r in resources for t in _pointed_at(r, include)):
                if to not in self._have and include.target in {None, to.type}:
                    wanted.setdefault(to.type, {})[to.id] = None
        await self._fetch_all({resource_type: {"_id": {"$in": [*ids]}} for resource_type, ids in wanted.items()})

    async def _referring(self, include: Include, resources: list[Resource]) -> None:
        mine = [Target(r["resourceType"], r["id"]) for r in resources if include.target in {None, r["resourceType"]}]
        if not mine:
            return
        if include.source is not None and include.parameter is not None:
            await self._fetch(include.source, keyed([f"{include.parameter}>{to}" for to in mine]))
            return
        for source in [include.source] if include.source else await self._look.store.known_types():
            # `*`: AuditEvents and the like are not kept under what they refer to, and come only when named.
            if source not in NO_HOLD and (include.source or self._look.access.allows(source, "s")):
                await self._fetch(source, keyed([f">{to}" for to in mine]))

    async def _fetch(self, resource_type: str, where: Condition) -> None:
        await self._fetch_all({resource_type: where})

    async def _fetch_all(self, wanted: dict[str, Condition]) -> None:
        """Find what is wanted of each type: all at once, but within a transaction, which has one command at a time."""
        self._withheld.update(t for t in wanted if not self._look.access.allows(t, "s"))
        asked = [(t, self._documents(t, where)) for t, where in wanted.items() if t not in self._withheld]
        if self._look.session is None:
            answers = await asyncio.gather(*(documents for _, documents in asked))
        else:
            answers = [await documents for _, documents in asked]
        for (resource_type, _), documents in zip(asked, answers, strict=True):
            self._take(resource_type, documents)

    async def _documents(self, resource_type: str, where: Condition) -> list[dict[str, Any]]:
        query = Query(resource_type, filters=[where])
        if (restriction := self._look.access.filter(resource_type, "s")) is not None:
            query.filters.append(restriction)
        # Those that we have already may come again.
        most = INCLUDE_LIMIT + 1 - len(self._found) + len(self._have)
        return await self._look.store.find(query, limit=most, session=self._look.session)

    def _take(self, resource_type: str, documents: Iterable[dict[str, Any]]) -> None:
        for document in documents:
            to = Target(resource_type, document["_id"])
            if to in self._have:
                continue
            if len(self._found) >= INCLUDE_LIMIT:
                self._truncated = True
                break
            self._have.add(to)
            self._found.append(fhir_json.from_bson(document["resource"]))


def _pointed_at(resource: Resource, include: Include) -> Iterator[Target]:
    """The local targets of the reference parameters that an include names."""
    resource_type = resource["resourceType"]
    if include.source not in {None, resource_type}:
        return
    known = parameters(resource_type)
    names = [include.parameter] if include.parameter else [n for n, (kind, _) in known.items() if kind == "reference"]
    for name in names:
        for _, value in known[name][1](resource):
            if (to := target(value)) is not None:
                yield to
