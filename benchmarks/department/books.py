"""Whether the books balance when the day is over: each order in exactly one right state, everything told, nothing twice."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.department.exam import Exam
from benchmarks.department.lives import Life
from benchmarks.department.stage import Resource, Stage
from benchmarks.stand import embedded_uri

_TYPES = "ServiceRequest Task Appointment ImagingStudy Procedure DiagnosticReport ChargeItem".split()


class Books:
    """Everything that is stored about the day's orders, by what it belongs to."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._by_id: dict[str, Resource] = {}
        self._under: dict[tuple[str, str], list[Resource]] = defaultdict(list)
        self.faults: list[str] = []

    async def read(self) -> None:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(embedded_uri(self._stage.server.directory))
        try:
            db = client["ris"]
            for kind in _TYPES:
                async for document in db[kind].find({"deleted": {"$ne": True}}):
                    if (resource := document.get("resource")) is not None:
                        self._note(kind, resource | {"id": document["_id"], "resourceType": kind})
            self.undelivered = await db["outbox"].count_documents({"state": {"$ne": "delivered"}})
            self.sent = Counter([d["destination"] async for d in db["outbox"].find({}, {"destination": 1})])
        finally:
            await client.close()

    def _note(self, kind: str, resource: Resource) -> None:
        self._by_id[f"{kind}/{resource['id']}"] = resource
        above = [*resource.get("basedOn", ()), resource.get("service", [{}])[0] if kind == "ChargeItem" else {}]
        for reference in above:
            self._under[reference.get("reference", ""), kind].append(resource)

    def check(self, life: Life, exam: Exam) -> None:
        """Note what is not as this life ends."""
        for fault in self._faults(life, exam):
            self.faults.append(f"{exam.placer} ({life.name}): {fault}")

    def _faults(self, life: Life, exam: Exam) -> Iterator[str]:
        end, order = life.end, f"ServiceRequest/{exam.order['id']}"
        yield from _differs("order", [self._by_id[order]["status"]], end.order)
        procedures = [p for p in self._under[order, "ServiceRequest"] if p["intent"] == "filler-order"]
        if len(procedures) != 1:
            yield f"{len(procedures)} requested procedures"
            return
        procedure = f"ServiceRequest/{procedures[0]['id']}"
        tasks = self._under[procedure, "Task"]
        steps, readings = [t for t in tasks if t["intent"] == "plan"], [t for t in tasks if t["intent"] != "plan"]
        yield from _differs("step", [s["status"] for s in steps], end.step)
        yield from _differs("appointment", [a["status"] for a in self._under[order, "Appointment"]], end.appointment)
        yield from _differs("report", [r["status"] for r in self._under[order, "DiagnosticReport"]], end.report)
        studies = [s for s in self._under[procedure, "ImagingStudy"] if s["status"] != "cancelled" or end.order == "revoked"]
        if len({s["id"] for s in studies}) != 1:
            yield f"{len(studies)} studies"
            return
        if end.report and any(r["status"] not in {"completed", "requested"} for r in readings):
            yield f"reading is {[r['status'] for r in readings]}"
        whose = {self._by_id[order]["subject"]["reference"]}
        whose |= {s["for"]["reference"] for s in tasks} | {s["subject"]["reference"] for s in studies}
        if len(whose) != 1:
            yield f"it belongs to {len(whose)} patients"
        yield from self._charges(f"ImagingStudy/{studies[0]['id']}", end.charges, end.credited)
        yield from self._told(exam, end.told)

    def _charges(self, study: str, stand: tuple[str, ...], credited: tuple[str, ...]) -> Iterator[str]:
        found: dict[str, list[str]] = defaultdict(list)
        for charge in self._under[study, "ChargeItem"]:
            component = next(e["valueCode"] for e in charge["extension"] if e["url"] == "urn:fhir-ris:charge-component")
            found[charge["status"]].append(component)
        if tuple(sorted(found["billable"])) != stand or tuple(sorted(found["aborted"])) != credited:
            yield f"charges are {dict(found)}"

    def _told(self, exam: Exam, told: str | None) -> Iterator[str]:
        results = {m.control_id: m for m in self._stage.listeners["ehr"].of_type("ORU^R01", exam.placer)}
        last = [m.all("OBR")[0].field(25) for m in results.values()][-1:]
        if told and last != [told]:
            yield f"the EHR was told {last}, not {told}"

    def check_messages(self) -> None:
        """All that was to be sent, has come, and nothing else."""
        if self.undelivered:
            self.faults.append(f"{self.undelivered} messages are not delivered")
        for name, listener in self._stage.listeners.items():
            came, sent = len({m.control_id for m in listener.received}), self.sent[f"Endpoint/{name}"]
            if came != sent:
                self.faults.append(f"{name} got {came} messages of {sent}")


def _differs(what: str, found: list[str], expected: str | None) -> Iterator[str]:
    if found != ([expected] if expected else []):
        yield f"{what} is {found}, not {expected}"
