"""What one day holds: read past transactions, by the indexes of dates and references, in portions of ids."""

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import Final

from fhir_server import clock, outbox
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from fhir_server.store import Document, Store, version
from resources.charging import catalogue

MOST: Final = 20_000  # of one kind on one day
_PORTION: Final = 1_000


class Reader:
    """Reads a day from `first` to before `last`. FhirError `too-costly` where there is more of a kind than MOST."""

    def __init__(self, store: Store, first: datetime, last: datetime) -> None:
        self._store = store
        self._first, self._last = clock.naive(first), clock.naive(last)

    async def of_day(self, resource_type: str, date: str) -> AsyncIterator[Resource]:
        """Those whose date (a search parameter) begins on the day."""
        begins = {f"search.d.{date}.s": {"$gte": self._first, "$lt": self._last}}
        async for found in self._read(resource_type, begins):
            yield found

    async def steps(self) -> AsyncIterator[Resource]:
        """The scheduled steps that began or ended on the day; those that say neither, if they were changed last on it."""
        during = {"$gte": self._first, "$lt": self._last}
        told: list[Document] = [{"search.d.period.e": {"$gt": self._first, "$lte": self._last}}, {"search.d.period.s": during}]
        silent: Document = {"updated": during, "resource.executionPeriod": {"$exists": False}}
        for where in [{"$or": told}, silent]:
            async for found in self._read("Task", where):
                if found.get("intent") == "plan":
                    yield found

    async def by_id(self, resource_type: str, ids: Iterable[str]) -> AsyncIterator[Resource]:
        for portion in _portions(ids):
            async for found in self._read(resource_type, {"_id": {"$in": portion}}):
                yield found

    async def referring(self, resource_type: str, ids: Iterable[str], to: str = "ServiceRequest") -> AsyncIterator[Resource]:
        """Those that refer to one of these (ids of resources of the type `to`)."""
        for portion in _portions(ids):
            keys = [f">{to}/{id_}" for id_ in portion]
            async for found in self._read(resource_type, {"search.t": {"$in": keys}}):
                yield found

    async def procedures_of(self, requests: set[str]) -> set[str]:
        """These requested procedures, and those of these orders."""
        found = set(requests)
        async for request in self.referring("ServiceRequest", requests):
            if request.get("intent") == "filler-order":
                found.add(request["id"])
        return found

    async def catalogue(self, procedures: Iterable[Resource]) -> dict[str, Resource]:
        """The active catalogue entries of requested procedures, by the ids of these."""
        wanted = {p["id"]: catalogue.keys(p.get("code", {})) for p in procedures}
        values = {code for keys in wanted.values() for _, code in keys}
        entries: dict[tuple[str, str], Resource] = {}
        for portion in _portions(values):
            keys = [f"identifier={value}" for value in portion]
            async for entry in self._read("ActivityDefinition", {"search.t": {"$in": keys}}):
                if entry.get("status") == "active":
                    entries |= {(i.get("system", ""), i.get("value", "")): entry for i in entry.get("identifier", ())}
        known = {id_: next((entries[k] for k in sorted(keys) if k in entries), None) for id_, keys in wanted.items()}
        return {id_: entry for id_, entry in known.items() if entry is not None}

    async def messages(self, kind: str) -> AsyncIterator[Document]:
        """The messages of this kind that were made on the day."""
        keys = {"$gte": _nanoseconds(self._first), "$lt": _nanoseconds(self._last)}
        shown = {"about": 1, "state": 1, "destination": 1}
        async for row in self._store.db[outbox.COLLECTION].find({"type": kind, "key": keys}, shown):
            yield row

    async def told_about(self, kind: str, about: Iterable[str]) -> set[str]:
        """Those of these references that a message of this kind is about, whenever it was made."""
        found: set[str] = set()
        for portion in _portions(about):
            async for row in self._store.db[outbox.COLLECTION].find({"about": {"$in": portion}, "type": kind}, {"about": 1}):
                found.update(row["about"])
        return found

    async def is_wanted(self, kind: str) -> bool:
        """Whether an active Endpoint wants messages of this kind."""
        async for endpoint in self._read("Endpoint", {"search.t": f"payload-type={kind}"}):
            if endpoint.get("status") == "active":
                return True
        return False

    async def _read(self, resource_type: str, where: Document) -> AsyncIterator[Resource]:
        count = 0
        async for row in self._store.current(resource_type).find(where, {"search": 0}):
            count += 1
            if count > MOST:
                raise fail("too-costly", f"more than {MOST} {resource_type} resources are of that day")
            if (found := version(row, row["_id"]).resource) is not None:
                yield found


def _portions(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(values)
    for i in range(0, len(ordered), _PORTION):
        yield ordered[i : i + _PORTION]


def _nanoseconds(moment: datetime) -> int:
    """A moment (UTC without zone) as the outbox counts it."""
    return int((moment - datetime(1970, 1, 1)).total_seconds()) * 1_000_000_000  # noqa: DTZ001 - UTC
