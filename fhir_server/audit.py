"""AuditEvents (FHIR R4; IHE ITI Basic Audit Log Patterns): who did what, written with what was done.

An event of a change is inserted in the change's own transaction. Those of reads are stored in groups, and each answer
waits until its group is.
"""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial

import orjson
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, WriteError

from fhir_server import clock, definitions
from fhir_server.audit_chain import Lane
from fhir_server.ids import new_id
from fhir_server.references import target
from fhir_server.registry import Change
from fhir_server.search.index import index, looks_at, parameters
from fhir_server.store import Document, Store, Version
from fhir_server.together import Together
from smart_auth.access import Access

_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_REST = {"system": _TYPE, "code": "rest", "display": "RESTful Operation"}
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_SOURCE_ROLE = {"coding": [{"system": _DCM, "code": "110153", "display": "Source Role ID"}]}
_SOURCE = {
    "observer": {"display": "fhir-ris"},
    "type": [{"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"}],
}
_RECIPIENT = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
            "code": "IRCP",
            "display": "information recipient",
        }
    ]
}
_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_TOKEN_SHOWN = 32  # characters of a token's hash, as many as IHE shows of a token
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
OWN = "urn:fhir-ris:audit"
_ACTION = {
    "create": "C", "read": "R", "vread": "R", "history-instance": "R", "history-type": "R", "history-system": "R",
    "search-type": "E", "search-system": "E", "update": "U", "patch": "U", "delete": "D", "transaction": "E", "batch": "E",
}  # fmt: skip
_LARGEST_GROUP = 500
_ALIKE = ("type", "subtype", "action", "outcome", "agent", "source")


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
    event: Document = {
        "resourceType": "AuditEvent",
        "id": new_id(),
        "type": _REST if rest else {"system": OWN, "code": act.source},
        "subtype": [{"system": _INTERACTION if rest else OWN, "code": act.event}],
        "action": _ACTION.get(act.event, "E"),
        "recorded": clock.instant(clock.now()),
        "outcome": "4" if failed else "0",
        "agent": agents(access, act.peer),
        "source": _SOURCE,
    }
    if failed or act.detail:
        event["outcomeDesc"] = (failed or act.detail or "")[:1000]
    what = list(entities)
    if act.query is not None:
        what.append({"query": _base64(act.query)})
    if what:
        event["entity"] = what
    event["meta"] = {"versionId": "1", "lastUpdated": event["recorded"]}
    return event


def agents(access: Access, peer: str | None = None) -> list[Document]:
    """Who did it (IHE Basic Audit Log Patterns): the person, if one is behind it, then the client, with its token and address."""
    who = (access.client_id, access.token_id, access.user, access.user_name, access.role, access.purpose)
    return [dict(agent) for agent in _agents(*who, peer)]


@lru_cache(4096)
def _agents(
    client_id: str,
    token_id: str,
    user: str | None,
    user_name: str | None,
    role: str | None,
    purpose: str | None,
    peer: str | None,
) -> tuple[Document, ...]:
    person: Document = {}
    if user_name:
        person |= {"identifier": {"system": "urn:fhir-ris:user", "value": user_name}, "display": user_name}
    if user:
        person["reference"] = user
    client: Document = {
        "type": _SOURCE_ROLE,
        "who": {"identifier": {"system": "urn:fhir-ris:client", "value": client_id}, "display": client_id},
        "requestor": not person,
    }
    if token_id:
        client["policy"] = [f"urn:fhir-ris:token:{token_id[:_TOKEN_SHOWN]}"]
    if peer:
        client["network"] = {"address": peer, "type": "2"}
    if not person:
        return (client,)
    human: Document = {"type": _RECIPIENT, "who": person, "requestor": True}
    if user_name:
        human["name"] = user_name
    if role:
        human["role"] = [{"coding": [{"system": "urn:fhir-ris:role", "code": role}]}]
    if purpose:
        human["purposeOfUse"] = [{"coding": [{"system": _REASON, "code": purpose}]}]
    return human, client


def changed(changes: Iterable[Change], beside: Iterable[str] = ()) -> list[Document]:
    """The entities of a set of changes: what was created, updated or deleted, whose it is, and what else was shown."""
    verbs: dict[str, str] = {}
    patients: dict[str, str] = {}
    for change in changes:
        verb = "created" if change.before is None else "deleted" if change.after is None else "updated"
        verbs[f"{change.type}/{change.id}"] = verb
        patients |= dict.fromkeys(_patients(change.after or change.before or {}), "patient")
    entities = [{"what": {"reference": r}, "description": d} for r, d in (patients | verbs).items()]
    return entities + seen(r for r in dict.fromkeys(beside) if r not in verbs)


def seen(references: Iterable[str]) -> list[Document]:
    """The entities of what was shown."""
    return [{"what": {"reference": r}} for r in references]


def shown_resources(resources: Iterable[Document]) -> list[Document]:
    """The entities of resources that were shown, and whose they are."""
    shown: dict[str, None] = {}
    patients: dict[str, None] = {}
    for resource in resources:
        shown[f"{resource['resourceType']}/{resource['id']}"] = None
        patients |= dict.fromkeys(_patients(resource))
    owners = [{"what": {"reference": p}, "description": "patient"} for p in patients if p not in shown]
    return seen(shown) + owners


def shown(resource_type: str, version: Version) -> list[Document]:
    """The same for a version, which may be a tombstone."""
    return shown_resources([version.resource]) if version.resource else seen([f"{resource_type}/{version.id}"])


def shown_versions(versions: Iterable[tuple[str, Version]]) -> list[Document]:
    """The same for versions of any resources, each resource once."""
    entities: dict[str, Document] = {}
    for resource_type, version in versions:
        entities |= {e["what"]["reference"]: e for e in shown(resource_type, version)}
    return list(entities.values())


def document(event: Document) -> Document:
    """The stored form of an AuditEvent."""
    return {
        "_id": event["id"],
        "version": 1,
        "method": "POST",
        "updated": clock.naive(clock.now()),
        "resource": event,
        "search": search_index(event),
    }


def search_index(event: Document) -> Document:
    """What `index` makes of an AuditEvent of ours, in a tenth of the time: but for entities and time, most are alike."""
    alike = _keys_alike(orjson.dumps({name: event[name] for name in _ALIKE}))
    keys = set(alike)
    for entity in event.get("entity", ()):
        if "what" in entity:
            reference = entity["what"]["reference"]
            keys.add(f"entity>{reference}")
            if reference.startswith("Patient/"):
                keys.add(f"patient>{reference}")
    moment = datetime.fromisoformat(event["recorded"]).replace(tzinfo=None)
    return {"t": sorted(keys), "d": {"date": {"s": moment, "e": moment + timedelta(milliseconds=1)}}}


@lru_cache(4096)
def _keys_alike(event: bytes) -> frozenset[str]:
    return frozenset(index({"resourceType": "AuditEvent", **orjson.loads(event)})["t"])


async def record(store: Store, lane: Lane, events: list[Document], session: AsyncClientSession) -> None:
    """Insert AuditEvents in a transaction, as the next of a chain (`Trail.lane`)."""
    if events:
        await _insert(store, lane, [document(event) for event in events], session)


async def _insert(store: Store, lane: Lane, documents: list[Document], session: AsyncClientSession | None = None) -> None:
    lane.chained(documents)
    collection = store.current("AuditEvent")
    if len(documents) == 1:  # which takes the driver half the time
        await collection.insert_one(documents[0], session=session)
    else:
        await collection.insert_many(documents, session=session)  # ordered: of a chain a beginning is stored, or all


async def _insert_alone(store: Store, documents: list[Document]) -> None:
    async with store.trail.lane() as lane:
        lane.committing()
        try:
            await _insert(store, lane, documents)
        except (WriteError, BulkWriteError) as refused:
            lane.in_doubt = isinstance(refused, BulkWriteError) and refused.details["nInserted"] > 0
            raise
        lane.committed()


class GroupCommit:
    """Stores AuditEvents in groups: those that come while one insert is under way share the next one.

    `write` returns when its event is stored, and raises what kept it from being so.
    """

    def __init__(self, store: Store) -> None:
        self._together = Together[Document](partial(_insert_alone, store), lambda _: (), largest=_LARGEST_GROUP, in_flight=1)

    async def write(self, event: Document) -> None:
        await self._together.do(document(event))


def _patients(resource: Document) -> Iterator[str]:
    """The patients in whose compartment a resource is (FHIR R4 CompartmentDefinition/patient)."""
    resource_type = resource.get("resourceType", "")
    known = parameters(resource_type) if resource_type else {}
    for name in definitions.compartment("Patient").get(resource_type, ()):
        if name in known and not looks_at(resource_type, name).isdisjoint(resource):
            for _, value in known[name][1](resource):
                to = target(value)
                if to is not None and to.type == "Patient":
                    yield str(to)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
