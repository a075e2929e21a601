"""What a transaction holds of each resource before it is written, and how that becomes documents of MongoDB."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import DeleteOne, ReplaceOne, UpdateOne

from fhir_server import clock, fhir_json
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target
from fhir_server.registry import Resource
from fhir_server.search.index import index
from fhir_server.store import Document, Version
from fhir_server.subset import is_part
from fhir_server.validation import validate
from smart_auth.access import Access


@dataclass(slots=True)
class Part:
    """One of the requests that share a transaction: its rights, its number, and what it has shown beside its changes."""

    access: Access
    number: int
    shown: list[str]
    origin: str | None = None  # the partner whose message it is
    wrote: bool = False  # whether it may have left something beside staged resources


class Entry:
    """A resource in this transaction: as it was found, as it is now, and what of that is already written."""

    __slots__ = (
        "_index",
        "after",
        "before",
        "fresh",
        "large",
        "method",
        "new_version",
        "part",
        "reacted",
        "redirected",
        "written",
    )

    def __init__(self, before: Version | None, method: str = "PUT") -> None:
        self.before = before
        self.method = method
        self.after: Resource | None = before.resource if before else None
        # The number of the version that this transaction makes, once it writes one.
        self.new_version: int | None = None
        self.fresh = False  # its id was drawn for it: nothing that is stored refers to it
        self.large = False
        self.part: int | None = None  # the request that changed it
        self.redirected = False  # that only its references were redirected
        self.reacted: Resource | None = self.after
        self.written: Resource | None = self.after
        self._index: tuple[Resource, Document] | None = None  # of this state of `after`

    def index(self) -> Document:
        """The search index of the present state, made once."""
        assert self.after is not None
        if self._index is None or self._index[0] is not self.after:
            self._index = self.after, index(self.after)
        return self._index[1]

    @property
    def was(self) -> Resource | None:
        """The resource when the transaction began."""
        return self.before.resource if self.before else None

    @property
    def next_version(self) -> int:
        return self.before.version + 1 if self.before else 1

    def state(self, to: Target, resource: Resource, now: datetime) -> Resource:
        """Make this what the resource is now, under the number and time of its next version."""
        meta = {k: v for k, v in resource.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
        stamped = {"versionId": str(self.next_version), "lastUpdated": clock.instant(self.moment(now)), **meta}
        rest = {k: v for k, v in resource.items() if k not in {"resourceType", "id", "meta"}}
        self.after = after = {"resourceType": to.type, "id": to.id, "meta": stamped} | rest
        return after

    def moment(self, now: datetime) -> datetime:
        """When this version is made, in UTC without tzinfo: never before the last one, whatever another machine's clock said."""
        present = clock.naive(now)
        return max(present, self.before.updated) if self.before else present


@dataclass(slots=True)
class Writes:
    """What is to be written to one collection."""

    inserts: list[Document] = field(default_factory=list)
    others: list[ReplaceOne[Document] | UpdateOne | DeleteOne] = field(default_factory=list)


async def aside(entry: Entry, work: Callable[..., None], *arguments: Any) -> None:
    """Do what takes long for a large resource in a thread, so that the others of this process are served meanwhile."""
    if entry.large:
        await asyncio.to_thread(work, *arguments)
    else:
        work(*arguments)


def write(to: Target, entry: Entry, now: datetime, current: Writes, history: Writes) -> None:
    """The writes that bring the collections to the present state of an entry."""
    if entry.after is entry.was and entry.new_version is not None:
        _restore(to, entry, current, history)
        return
    number, before = entry.next_version, entry.before
    first = entry.new_version is None
    entry.new_version = number
    if first and before is not None and before.resource is not None:
        history.inserts.append(history_document(before))
    if entry.written is None and not first and before is not None:
        history.others.append(DeleteOne({"_id": f"{to.id}/{number}"}))  # our tombstone, before somebody thought better of it
    found_version = before.version if first and before is not None else number
    if entry.after is None:
        current.others.append(DeleteOne({"_id": to.id, "version": found_version}))
        if before is not None:
            history.inserts.append(history_document(Version(to.id, number, entry.moment(now), "DELETE", None)))
        return
    document = {
        "_id": to.id,
        "version": number,
        "method": entry.method,
        "updated": entry.moment(now),
        "resource": fhir_json.to_bson(entry.after),
        "search": entry.index(),
    }
    if entry.written is None:
        current.inserts.append(document)
    else:
        current.others.append(ReplaceOne({"_id": to.id, "version": found_version}, document))


def _restore(to: Target, entry: Entry, current: Writes, history: Writes) -> None:
    """The writes that take back what this transaction has written of a resource (`UnitOfWork.attempt`)."""
    number, before = entry.new_version, entry.before
    entry.new_version = None
    if before is None or before.resource is None:
        current.others.append(DeleteOne({"_id": to.id, "version": number}))
        return
    document = {
        "_id": to.id,
        "version": before.version,
        "method": before.method,
        "updated": before.updated,
        "resource": fhir_json.to_bson(before.resource),
        "search": entry.index(),
    }
    history.others.append(DeleteOne({"_id": f"{to.id}/{before.version}"}))
    if entry.written is None:
        current.inserts.append(document)
        history.others.append(DeleteOne({"_id": f"{to.id}/{number}"}))
    else:
        current.others.append(ReplaceOne({"_id": to.id, "version": number}, document))


def refuse_invalid(resource: Resource) -> None:
    """Raises FhirError for a resource that breaks R4's rules, or is only part of one."""
    if is_part(_tags(resource)):
        raise fail("business-rule", "this is part of a resource (SUBSETTED): what it lacks would be lost", status=422)
    issues = [i for i in validate(resource) if i.severity in {"error", "fatal"}]
    if issues:
        raise FhirError(*issues)


def _tags(resource: Resource) -> list[Resource]:
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    return [t for t in tags if isinstance(t, dict)] if isinstance(tags, list) else []


def content(resource: Resource) -> Resource:
    """A resource without what the server itself sets, for telling whether an update changes anything."""
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in {"versionId", "lastUpdated"}}
    rest = {k: v for k, v in resource.items() if k != "meta"}
    return rest | {"meta": meta} if meta else rest


def history_document(found: Version) -> Document:
    return {
        "_id": f"{found.id}/{found.version}",
        "id": found.id,
        "version": found.version,
        "method": found.method,
        "updated": found.updated,
        **({"resource": fhir_json.to_bson(found.resource)} if found.resource is not None else {}),
    }
