"""A department for tests: the rules, the HL7 v2 bridge and the store on a real MongoDB, without the doors of HTTP and DICOM.

One department serves all tests of a module (making a database takes most of a second), so tests take their names for patients,
orders and scanners from `unused`.
"""

import asyncio
import itertools
import re
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from bridges.v2 import destinations, message_log, order_parked, outbound
from bridges.v2.inbound import Inbound
from bridges.v2.message import Message, parse
from bridges.v2.mllp import Peer
from bridges.v2.partners import Partners
from fhir_server import outbox
from fhir_server.database import connect
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry
from fhir_server.store import Store
from resources import numbers, patient_merge, registration
from resources.scheduling import operations as scheduling_operations
from smart_auth.access import Access
from tests import databases

T = TypeVar("T")
Resource = dict[str, Any]
ZONE = ZoneInfo("Europe/Berlin")
ACCESS = Access.system("test")
PEER = Peer("127.0.0.1", 40000)
DCM = "http://dicom.nema.org/resources/ontology/DCM"
LOINC = "http://loinc.org"
CT_CHEST = {"coding": [{"system": LOINC, "code": "24627-2", "display": "CT Chest"}]}
_numbers = itertools.count(1)


def unused(prefix: str = "X") -> str:
    """A name that no other test uses."""
    return f"{prefix}{next(_numbers)}"


def v2(*segments: str, charset: str = "utf-8") -> bytes:
    """A message of these segments. `{id}` in the first stands for an unused control id."""
    return "".join(s + "\r" for s in segments).replace("{id}", unused("M")).encode(charset)


class Department:
    """A running department; `run` runs a coroutine in its event loop."""

    def __init__(self, runner: asyncio.Runner, uri: str) -> None:
        self._runner = runner
        self._uri = uri
        runner.run(self._open())

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(scenario)

    async def _open(self) -> None:
        self.db = await connect(self._uri, databases.take(self._uri))
        self.registry = Registry()
        registration.register(self.registry, uid_root="2.25")
        self.registry.projection(outbound.Outbound(ZONE).project, destinations.ASKED)
        numbers.register(self.registry, ZONE)
        self.store = Store(self.db)
        await outbox.ensure_indexes(self.store)
        await message_log.ensure_indexes(self.db)
        await order_parked.ensure_indexes(self.db)
        await patient_merge.ensure_indexes(self.db)
        await scheduling_operations.ensure_indexes(self.db)
        await numbers.ensure_indexes(self.db)
        self.interactions = Interactions(self.store, self.registry)
        self.inbound = Inbound(self.interactions, ZONE, Partners(self.store, max_age=0))

    async def close(self) -> None:
        await self.db.client.close()
        await asyncio.to_thread(databases.give_back, self._uri, self.db.name)

    # By HL7 v2

    async def answer(self, message: bytes) -> bytes:
        """The acknowledgement as it leaves."""
        return await self.inbound.handle(message, PEER)

    async def receive(self, *message: str | bytes) -> Message:
        """The acknowledgement of a message, given as bytes or as its segments."""
        data = message[0] if isinstance(message[0], bytes) else v2(*(str(s) for s in message))
        return parse(await self.answer(data))

    async def accepted(self, *message: str | bytes) -> None:
        """Receive a message that is acknowledged AA."""
        ack = await self.receive(*message)
        assert code(ack) == "AA", ack.raw

    # By FHIR

    async def create(self, resource: Resource) -> Resource:
        return await self.interactions.create(ACCESS, resource)

    async def update(self, resource: Resource, **changes: Any) -> Resource:
        """Write these elements of a resource (None removes one), on top of its present state when it has an id."""
        changed = {k: v for k, v in (resource | changes).items() if v is not None}
        return (await self.interactions.update(ACCESS, changed))[0]

    async def become(self, resource: Resource, status: str, **changes: Any) -> Resource:
        """The same resource as it is stored now, in another status."""
        return await self.update(await self.read(resource), status=status, **changes)

    async def delete(self, resource: Resource) -> None:
        await self.interactions.delete(ACCESS, resource["resourceType"], resource["id"])

    async def read(self, resource: Resource | str) -> Resource:
        """A resource as it is stored now; of a reference `Patient/1` as well."""
        kind, id_ = resource.split("/") if isinstance(resource, str) else (resource["resourceType"], resource["id"])
        found = await self.store.read(kind, id_)
        assert found is not None
        assert found.resource is not None
        return found.resource

    async def search(self, resource_type: str, **parameters: str) -> list[Resource]:
        query = [(name[0] + name[1:].replace("_", "-"), value) for name, value in parameters.items()]
        return (await self.interactions.search(ACCESS, resource_type, [*query, ("_count", "1000")])).matches

    async def one(self, resource_type: str, **parameters: str) -> Resource:
        found = await self.search(resource_type, **parameters)
        assert len(found) == 1, [f"{r['resourceType']}/{r['id']}" for r in found]
        return found[0]

    async def refused(self, attempt: Coroutine[Any, Any, Any]) -> FhirError:
        """The error that an attempt ends with."""
        try:
            await attempt
        except FhirError as error:
            return error
        raise AssertionError("it was not refused")

    async def counts(self) -> dict[str, int]:
        """How many documents each collection holds, but for audit, messages and locks: what must not change, can be compared."""
        quiet = {"AuditEvent", "audit_chains", "messages", "locks", "counters", "catalog", "outbox"}
        names = await self.db.list_collection_names()
        counted = {n: await self.db[n].count_documents({}) for n in sorted(names) if n not in quiet}
        return {n: count for n, count in counted.items() if count}  # a collection may have been made for a transaction

    # What most tests begin with

    async def patient(self, **elements: Any) -> Resource:
        number = unused("P")
        found = {"resourceType": "Patient", "identifier": [{"system": "urn:example:mrn", "value": number}], "active": True}
        return await self.create(found | elements)

    async def order(self, patient: Resource | None = None, modality: str = "CT", **elements: Any) -> Resource:
        """An accepted imaging order, made over FHIR."""
        whose = patient or await self.patient()
        return await self.create(
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "code": CT_CHEST,
                "subject": {"reference": f"Patient/{whose['id']}"},
                "orderDetail": [{"coding": [{"system": DCM, "code": modality}]}],
            }
            | elements
        )

    async def scanner(self, modality: str = "CT", **elements: Any) -> Resource:
        title = unused("AE")
        return await self.create(
            {
                "resourceType": "Device",
                "status": "active",
                "identifier": [{"system": "urn:fhir-ris:ae-title", "value": title}],
                "deviceName": [{"name": f"Scanner {title}", "type": "user-friendly-name"}],
                "type": {"coding": [{"system": DCM, "code": modality}]},
            }
            | elements
        )

    async def book(
        self, order: Resource, station: Resource | None, start: str = "2026-09-08T08:00:00Z", **elements: Any
    ) -> Resource:
        return await self.create(booking(order, station, start) | elements)

    async def procedures(self, order: Resource) -> list[Resource]:
        return await self.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}", intent="filler-order")

    async def procedure(self, order: Resource) -> Resource:
        return await self.one("ServiceRequest", based_on=f"ServiceRequest/{order['id']}", intent="filler-order")

    async def steps(self, order: Resource) -> list[Resource]:
        procedures = await self.procedures(order)
        return [s for p in procedures for s in await self.search("Task", based_on=f"ServiceRequest/{p['id']}", intent="plan")]

    async def step(self, order: Resource) -> Resource:
        steps = await self.steps(order)
        assert len(steps) == 1
        return steps[0]

    async def study(self, order: Resource) -> Resource:
        return await self.one("ImagingStudy", basedon=f"ServiceRequest/{(await self.procedure(order))['id']}")

    async def readings(self, order: Resource) -> list[Resource]:
        procedures = await self.procedures(order)
        return [
            t for p in procedures for t in await self.search("Task", based_on=f"ServiceRequest/{p['id']}", code="interpretation")
        ]

    async def perform(self, order: Resource, status: str = "completed", step: Resource | None = None) -> Resource:
        """A performed procedure, begun and then brought to `status`."""
        step = step or await self.step(order)
        performed = await self.create(
            {
                "resourceType": "Procedure",
                "status": "in-progress",
                "subject": order["subject"],
                "basedOn": [step["focus"]],
                "performedPeriod": {"start": "2026-09-08T08:05:00Z"},
                "extension": [
                    {"url": "urn:fhir-ris:scheduled-procedure-step", "valueReference": {"reference": f"Task/{step['id']}"}}
                ],
            }
        )
        return performed if status == "in-progress" else await self.become(performed, status)

    async def report(self, order: Resource, status: str = "final", **elements: Any) -> Resource:
        report = {
            "resourceType": "DiagnosticReport",
            "status": status,
            "code": order["code"],
            "subject": order["subject"],
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "conclusion": "No acute finding.",
        }
        return await self.create({k: v for k, v in (report | elements).items() if v is not None})

    async def destination(self, *wants: str, **headers: str) -> Resource:
        """An EHR that wants these messages. Headers: `hl7_version="2.3.1"`."""
        return await self.create(
            {
                "resourceType": "Endpoint",
                "status": "active",
                "connectionType": {
                    "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
                    "code": "hl7v2-mllp",
                },
                "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": w}]} for w in wants or ("none",)],
                "address": "mllp://127.0.0.1:9",
                "header": ["receiving-application: EHR", "receiving-facility: EXAMPLEHOSP"]
                + [f"{n.replace('_', '-')}: {v}" for n, v in headers.items()],
            }
        )

    async def sent(self, destination: Resource, *kinds: str) -> list[Message]:
        """What is in the outbox for a destination, in order."""
        where: dict[str, Any] = {"destination": f"Endpoint/{destination['id']}"} | ({"type": {"$in": kinds}} if kinds else {})
        return [parse(bytes(d["message"])) async for d in self.db["outbox"].find(where, sort=[("key", 1)])]

    async def work_items(self, kind: str, **about: str) -> list[Resource]:
        return await self.search("Task", code=f"urn:fhir-ris:task|{kind}", **about)


def booking(order: Resource, station: Resource | None, start: str = "2026-09-08T08:00:00Z", minutes: int = 30) -> Resource:
    """A booked Appointment for an order on a station."""
    begin = datetime.fromisoformat(start)
    participants = [{"actor": order["subject"], "status": "accepted"}]
    if station is not None:
        participants.append({"actor": {"reference": f"Device/{station['id']}"}, "status": "accepted"})
    return {
        "resourceType": "Appointment",
        "status": "booked",
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
        "start": start,
        "end": (begin + timedelta(minutes=minutes)).astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "participant": participants,
    }


# Looking at acknowledgements


def code(ack: Message) -> str:
    """MSA-1."""
    return ack.segments[1].field(1)


def place(ack: Message) -> str:
    """Where the first error is: `PID-3`, `ORC(2)-7.6`; of ERR-2 or of the old ERR-1."""
    err = ack.first("ERR")
    assert err is not None, ack.raw
    where = err.repetitions(2)[0] if err.raw(2) else err.repetitions(1)[0]
    segment, number, field, component = where.get(1), where.get(2), where.get(3), where.get(5) if err.raw(2) else ""
    shown = segment + (f"({number})" if number not in {"", "1"} else "")
    return "-".join(x for x in (shown, ".".join(x for x in (field, component) if x)) if x)


def condition(ack: Message) -> str:
    """The code of the first error, of table 0357."""
    err = ack.first("ERR")
    assert err is not None, ack.raw
    return err.get(3) if err.raw(3) else err.get(1, 4, 1)


def text(ack: Message) -> str:
    """MSA-3."""
    return ack.segments[1].text(3)


def identifiers(resource: Resource) -> dict[str, str]:
    """Type code (v2-0203) or system to value."""
    return {
        next((c["code"] for c in i.get("type", {}).get("coding", ())), i.get("system", "")): i["value"]
        for i in resource.get("identifier", ())
    }


def lines(message: Message) -> list[str]:
    """The segments as text, without the changing parts of MSH."""
    return [line for line in re.split("[\r\n]", message.raw.decode(message.codec)) if line and not line.startswith("MSH")]
