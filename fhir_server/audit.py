"""AuditEvents (FHIR R4; IHE ITI Basic Audit Log Patterns): who did what, written with what was done.

An event of a change is inserted in the change's own transaction. Those of reads are committed in groups:
each answer waits the few milliseconds until its group is stored.
"""

import asyncio
import base64
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server import clock
from fhir_server.registry import Change
from fhir_server.search.index import index
from fhir_server.store import Document, Store
from smart_auth.access import Access

_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_REST = {"system": _TYPE, "code": "rest", "display": "RESTful Operation"}
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
OWN = "urn:fhir-ris:audit"
_ACTION = {
    "create": "C", "read": "R", "vread": "R", "history-instance": "R", "search-type": "E", "search-system": "E",
    "update": "U", "patch": "U", "delete": "D", "transaction": "E", "batch": "E",
}  # fmt: skip
_GROUP_SECONDS = 0.002
_MAX_ENTITIES = 200


@dataclass(frozen=True, slots=True)
class Act:
    """What is being done, for the audit. `query` is the search as asked; `detail` a short text without patient data."""

    event: str
    source: str = "rest"
    detail: str | None = None
    query: str | None = None
    peer: str | None = None


def audit_event(act: Act, access: Access, entities: Iterable[Document], *, failed: str | None = None) -> Document:
    """The AuditEvent resource of an act. `failed` says why it was refused."""
    rest = act.source == "rest"
    agent: Document = {
        "type": {"coding": [{"system": _DCM, "code": "110153", "display": "Source Role ID"}]},
        "who": {"identifier": {"system": "urn:fhir-ris:client", "value": access.client_id}, "display": access.client_id},
        "requestor": True,
    }
    if act.peer:
        agent["network"] = {"address": act.peer, "type": "2"}
    event: Document = {
        "resourceType": "AuditEvent",
        "id": uuid.uuid4().hex,
        "type": _REST if rest else {"system": OWN, "code": act.source},
        "subtype": [{"system": _INTERACTION if rest else OWN, "code": act.event}],
        "action": _ACTION.get(act.event, "E"),
        "recorded": clock.instant(clock.now()),
        "outcome": "4" if failed else "0",
        "agent": [agent],
        "source": {
            "observer": {"display": "fhir-ris"},
            "type": [{"system": f"{_TYPE.rsplit('/', 1)[0]}/security-source-type", "code": "4"}],
        },
    }
    if failed or act.detail:
        event["outcomeDesc"] = (failed or act.detail or "")[:1000]
    what = list(entities)[:_MAX_ENTITIES]
    if act.query is not None:
        what.append({"query": _base64(act.query)})
    if what:
        event["entity"] = what
    event["meta"] = {"versionId": "1", "lastUpdated": event["recorded"]}
    return event


def changed(changes: Iterable[Change]) -> list[Document]:
    """The entities of a set of changes: what was created, updated or deleted."""
    entities: list[Document] = []
    patients: set[str] = set()
    for change in changes:
        verb = "created" if change.before is None else "deleted" if change.after is None else "updated"
        entities.append({"what": {"reference": f"{change.type}/{change.id}"}, "description": verb})
        patient = _patient(change.after or change.before or {})
        if patient and patient not in patients:
            patients.add(patient)
            entities.append({"what": {"reference": patient}, "description": "patient"})
    return entities


def seen(references: Iterable[str]) -> list[Document]:
    """The entities of what was shown."""
    return [{"what": {"reference": r}} for r in references]


def document(event: Document) -> Document:
    """The stored form of an AuditEvent."""
    return {
        "_id": event["id"],
        "version": 1,
        "method": "POST",
        "updated": clock.naive(clock.now()),
        "resource": event,
        "search": index(event),
    }


async def record(store: Store, event: Document, session: AsyncClientSession) -> None:
    """Insert an AuditEvent in a transaction."""
    await store.current("AuditEvent").insert_one(document(event), session=session)


class GroupCommit:
    """Collects AuditEvents for a moment and stores them with one insert; `write` returns when its event is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Document, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, event: Document) -> None:
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((document(event), stored))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit())
        await stored

    async def _commit(self) -> None:
        await asyncio.sleep(_GROUP_SECONDS)
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._store.current("AuditEvent").insert_many([d for d, _ in group], ordered=False)
            except Exception as error:  # noqa: BLE001 - every waiter must hear of it
                for _, stored in group:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            for _, stored in group:
                if not stored.done():
                    stored.set_result(None)


def _patient(resource: Document) -> str | None:
    for element in ("subject", "patient", "for"):
        reference = resource.get(element)
        if isinstance(reference, dict) and str(reference.get("reference", "")).startswith("Patient/"):
            return str(reference["reference"])
    return None


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
