"""Random events over all doors: whatever is taken and whatever is refused, nothing contradicts (tests/consistency.py)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from bridges.dicom import dimse, study_arrival, worklist_rows
from bridges.dicom.callers import Caller
from bridges.dicom.mpps import PerformedSteps
from bridges.dicom.study_arrival import Arrived
from bridges.dicom.worklist_rows import WorklistRows
from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.outcome import FhirError
from fhir_server.references import ref
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, reconciliation, terms
from resources.imaging_series import ArrivedSeries
from tests import dicom_client
from tests.consistency import case, contradictions
from tests.department import ACCESS, ZONE, Department, Resource, booking, code, unused

CALLER = Caller("CT1", "127.0.0.1")
CPT = "http://www.ama-assn.org/go/cpt"
WALKS, LENGTH = 8, 14


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.registry.projection(WorklistRows(ZONE).project)
        department.run(_furnish(department))
        yield department
        department.run(department.close())


async def _furnish(ris: Department) -> None:
    await worklist_rows.ensure_indexes(ris.db)
    charges = [
        {
            "url": "urn:fhir-ris:charge",
            "extension": [
                {"url": "code", "valueCodeableConcept": {"coding": [{"system": CPT, "code": component[0].upper()}]}},
                {"url": "component", "valueCode": component},
            ],
        }
        for component in ("technical", "professional")
    ]
    await ris.create(
        {
            "resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest", "extension": charges,
            "identifier": [{"system": "http://loinc.org", "value": "24627-2"}],
        }
    )  # fmt: skip


class Walk:
    """One patient's two orders, one by HL7 v2 and one by FHIR, and all that can happen to them.

    An event takes the first order or the second; it ends with a FhirError, a refusal by the scanner's door or an error
    acknowledgement where it can't be, and has then changed nothing.
    """

    def __init__(self, ris: Department) -> None:
        self.ris = ris
        self.orders: list[Resource] = []
        self.mpps = PerformedSteps(ris.interactions, ZONE)
        self.running: list[str] = []  # MPPS SOP Instance UIDs

    async def begin(self) -> None:
        ris = self.ris
        number = unused("L")
        self.placer = number
        self.station = await ris.scanner()
        await ris.accepted(*self._message("ORM^O01", f"ORC|NW|{number}^EHR", self._obr()))
        first = await ris.one("ServiceRequest", identifier=number, intent="order")
        patient = await ris.read(first["subject"]["reference"])
        self.orders = [first, await ris.order(patient)]

    def _message(self, kind: str, *segments: str) -> tuple[str, ...]:
        return (
            f"MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||{kind}|{{id}}|P|2.5.1||||||UNICODE UTF-8",
            f"PID|||P{self.placer}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
            *segments,
        )

    def _obr(self) -> str:
        return f"OBR|1|{self.placer}^EHR||24627-2^CT Chest^LN||||||||||||||||||||CT"

    # By HL7 v2: only the first order is the hospital's

    async def control(self, which: int, control: str) -> None:
        if which == 0:
            await self._received(self._message("ORM^O01", f"ORC|{control}|{self.placer}^EHR", self._obr()))

    async def result(self, which: int, status: str) -> None:
        if which == 0:
            obr = f"OBR|1|{self.placer}^EHR||24627-2^CT Chest^LN||||||||||||||||||20260907101500||RAD|{status}"
            obx = f"OBX|1|TX|59776-5^Findings^LN||Clear {unused()}||||||{status}"
            await self._received(self._message("ORU^R01^ORU_R01", f"ORC|RE|{self.placer}^EHR", obr, obx))

    async def _received(self, message: tuple[str, ...]) -> None:
        if code(await self.ris.receive(*message)) not in {"AA", "AE", "AR"}:
            raise AssertionError(message)

    # By FHIR

    async def order(self, which: int, status: str) -> None:
        await self.ris.become(self.orders[which], status)

    async def requested(self, which: int, status: str) -> None:
        await self._become((await self.ris.procedures(self.orders[which]))[:1], status)

    async def book(self, which: int, status: str) -> None:
        start = clock.now() + timedelta(days=1 + int(unused("")), hours=which)
        made = booking(self.orders[which], self.station, start.isoformat(timespec="seconds"))
        await self.ris.create(made | {"status": status})

    async def appointment(self, which: int, status: str) -> None:
        await self._become(
            await self.ris.search("Appointment", based_on=ref(self.orders[which])["reference"], _sort="-date"), status
        )

    async def step(self, which: int, status: str) -> None:
        await self._become(await self.ris.steps(self.orders[which]), status)

    async def walk_in(self, which: int, status: str) -> None:
        """Station and time without an appointment."""
        steps = await self.ris.steps(self.orders[which])
        period = {"start": clock.instant(clock.now())}
        for step in steps[-1:]:
            await self.ris.become(step, status, owner=ref(self.station), restriction={"period": period})

    async def repeat(self, which: int, _: str) -> None:
        """Another step for the same requested procedure."""
        for one in (await self.ris.steps(self.orders[which]))[-1:]:
            again = {k: one[k] for k in ("resourceType", "intent", "basedOn", "focus", "for", "code")}
            await self.ris.create(
                again | {"status": "requested", "input": [i for i in one.get("input", ()) if "valueReference" not in i]}
            )

    async def perform(self, which: int, status: str) -> None:
        """A technologist says what was done, for a scanner without MPPS."""
        steps = [s for s in await self.ris.steps(self.orders[which]) if s["status"] not in {"cancelled", "entered-in-error"}]
        if steps:
            await self.ris.perform(self.orders[which], status, steps[-1])

    async def performed(self, which: int, status: str) -> None:
        found = [p for one in await self.ris.procedures(self.orders[which]) for p in await self._performed(one)]
        await self._become(found, status)

    async def _performed(self, requested: Resource) -> list[Resource]:
        return await self.ris.search("Procedure", based_on=ref(requested)["reference"])

    async def report(self, which: int, status: str) -> None:
        """One of each order: begun, and then brought on."""
        found = await self.ris.search("DiagnosticReport", based_on=ref(self.orders[which])["reference"])
        if found:
            await self._become(found, status)
        else:
            await self.ris.report(self.orders[which], status)

    async def reading(self, which: int, status: str) -> None:
        await self._become(await self.ris.readings(self.orders[which]), status)

    async def _become(self, found: list[Resource], status: str) -> None:
        if found:
            await self.ris.become(found[-1], status)

    # By DICOM

    async def scan(self, which: int, _: str) -> None:
        """The scanner begins the step that it took from the worklist."""
        steps = await self.ris.steps(self.orders[which])
        if not steps:
            return
        requested = await self.ris.read(steps[-1]["focus"]["reference"])
        studies = await self.ris.search("ImagingStudy", basedon=ref(requested)["reference"])
        scheduled = dicom_client.Scheduled(self.orders[which], requested, steps[-1], studies[-1], None, f"P{self.placer}")
        data = dicom_client.mpps(scheduled)
        data.PatientName, data.PatientBirthDate = "Muster^Mara", "19700131"
        uid = str(generate_uid(prefix=None))
        await self.mpps.create(uid, data.to_json_dict(), CALLER)
        self.running.append(uid)

    async def scanned(self, _: int, status: str) -> None:
        """The scanner ends what it began last; `WRONG`: the entry was selected by mistake."""
        if not self.running:
            return
        data = dicom_client.mpps_end("DISCONTINUED" if status == "WRONG" else status, images=2)
        if status == "WRONG":
            reason = dicom_client.Dataset()
            reason.CodeValue, reason.CodingSchemeDesignator, reason.CodeMeaning = terms.WRONG_ENTRY, "DCM", "wrong entry"
            data.PerformedProcedureStepDiscontinuationReasonCodeSequence = [reason]
            data.PerformedSeriesSequence = []
        await self.mpps.update(self.running.pop(), data.to_json_dict(), CALLER)

    async def arrive(self, which: int, availability: str) -> None:
        """The PACS says what it has of the study."""
        requests = await self.ris.procedures(self.orders[which])
        studies = [s for one in requests for s in await self.ris.search("ImagingStudy", basedon=ref(one)["reference"])]
        if not studies:
            return
        uid = imaging_study.study_uid(studies[-1]) or ""
        known = studies[-1].get("series", ())
        series = known[0]["uid"] if known else f"{uid}.1"[:64]
        arrived = Arrived(uid, [ArrivedSeries(series, "CT", count=2, availability=availability)], stable_for=3600.0)
        await self._transact(lambda unit: study_arrival.settle(unit, arrived, ZONE))

    # By an operation

    async def reconcile(self, which: int, _: str) -> None:
        """What was performed for one order belongs to the other."""
        requests = await self.ris.procedures(self.orders[which])
        done = [p for one in requests for p in await self._performed(one)]
        if done:
            other = await self.ris.read(self.orders[1 - which])
            await self._transact(lambda unit: reconciliation.settle(unit, done[-1], other, None, None))

    async def _transact(self, work: Callable[[UnitOfWork], Awaitable[Any]]) -> None:
        await self.ris.interactions.transact(ACCESS, Act("walk", "rest"), work)


# Event -> what it may bring about.
EVENTS: dict[str, str] = {
    "control": "CA DC HD RL",
    "order": "active on-hold revoked completed entered-in-error",
    "requested": "active on-hold revoked completed entered-in-error",
    "book": "booked arrived pending",
    "appointment": "booked arrived checked-in fulfilled cancelled noshow entered-in-error",
    "step": "requested accepted ready in-progress completed failed cancelled on-hold entered-in-error",
    "walk_in": "accepted ready",
    "repeat": "new",
    "perform": "in-progress completed stopped not-done",
    "performed": "completed stopped not-done on-hold in-progress entered-in-error",
    "scan": "new",
    "scanned": "COMPLETED DISCONTINUED WRONG",
    "arrive": "ONLINE UNAVAILABLE",
    "report": "preliminary final corrected cancelled entered-in-error",
    "result": "P F C X",
    "reading": "in-progress completed cancelled",
    "reconcile": "other",
}
# What happens on most days comes more often than by chance.
USUAL = [("book", "booked"), ("appointment", "arrived"), ("scan", "new"), ("scanned", "COMPLETED"), ("report", "final")]
ALL = [(event, status) for event, statuses in EVENTS.items() for status in statuses.split()]
EVENT = st.tuples(st.one_of(st.sampled_from(USUAL), st.sampled_from(ALL)), st.sampled_from((0, 0, 0, 1)))


@settings(
    max_examples=WALKS, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(events=st.lists(EVENT, min_size=LENGTH, max_size=LENGTH))
def test_whatever_happens_in_whatever_order_nothing_contradicts(
    ris: Department, events: list[tuple[tuple[str, str], int]]
) -> None:
    ris.run(walk(ris, events))


async def walk(ris: Department, events: list[tuple[tuple[str, str], int]]) -> None:
    """AssertionError with the events so far and what contradicts after the last of them."""
    taken = Walk(ris)
    await taken.begin()
    told = []
    for (event, status), which in events:
        try:
            await getattr(taken, event)(which, status)
            told.append(f"order {which}: {event} {status}")
        except (FhirError, dimse.Refused) as refusal:
            told.append(f"order {which}: {event} {status} is refused: {refusal}")
        for number, order in enumerate(taken.orders):
            found = contradictions(await case(ris, order["id"]))
            assert not found, "\n".join([*told, f"order {number}:", *found])
