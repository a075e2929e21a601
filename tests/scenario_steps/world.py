"""What a scenario has of its own, its patient and orders; the server, its partners and the staff are everybody's."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from benchmarks.department.exam import Exam
from benchmarks.department.stage import Resource, Stage
from bridges.v2.message import Message
from demo import ehr
from tests.scenario_steps.catalogue import BY_NAME, CT_CHEST, Examination
from tests.scenario_steps.staff import Person, Staff

_WAIT = 60.0  # seconds for a message to arrive


@dataclass(slots=True)
class Case(Exam):
    """An order for any examination of the catalogue, as the EHR says it."""

    examination: Examination = CT_CHEST
    born: str = "19700131"
    priority: str = "R"
    reason: bool = True

    async def admit(self) -> None:
        await self.send(ehr.registration(self.control_id("A"), self.patient_id).replace(b"19700131", self.born.encode()))

    async def ordered(self, control: str = "NW") -> None:
        asked, why = self.examination, "R05^Cough^I10" if self.reason else ""
        message = ehr.order(self.control_id("O"), self.placer, self.patient_id, control=control).decode()
        for was, becomes in (
            ("24627-2^CT Chest^LN", f"{asked.code}^{asked.name}^LN"),
            ("||||||||CT|||||||R05^Cough^I10", f"||||||||{asked.modality}|||||||{why}"),
            ("Cough for six weeks", "Cough for six weeks" if self.reason else ""),
            ("^^^^^R", f"^^^^^{self.priority}"),
            ("19700131", self.born),
        ):
            message = message.replace(was, becomes)
        await self.send(message.encode())
        await self.look()

    async def step(self) -> Resource:
        """The scheduled step; of several, the one that has not ended."""
        found = await self.steps()
        waiting = [s for s in found if s["status"] not in {"completed", "failed", "cancelled"}]
        (step,) = waiting if len(found) > 1 else found
        return step

    async def steps(self) -> list[Resource]:
        return await self.stage.find(f"Task?based-on=ServiceRequest/{(await self.procedure())['id']}&intent=plan")

    async def reading(self) -> Resource:
        procedure = await self.procedure()
        return await self.stage.one(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation")


@dataclass(slots=True)
class World:
    """A scenario's own things. `exam` is the order that is spoken of, `first` the first one."""

    stage: Stage
    staff: Staff
    exam: Case
    first: Case
    refusal: str = ""
    performed: str = ""
    found: list[Resource] = field(default_factory=list)  # times that were proposed or held
    critical: Resource = field(default_factory=dict)
    right: Case | None = None  # the patient that an order should have been of

    @classmethod
    def new(cls, on: Stage, staff: Staff, number: int) -> Self:
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1 + number)
        exam = Case(on, 70_000 + number, 0, day + timedelta(hours=8), asyncio.Lock())
        return cls(on, staff, exam, exam)

    @property
    def scanner(self) -> Any:
        return self.stage.scanners[self.exam.station]

    async def worklist(self) -> list[Any]:
        """What the scanner shows of the patient on the day."""
        modality = self.exam.examination.modality
        found: list[Any] = await self.scanner.worklist(f"{self.exam.start:%Y%m%d}", modality, PatientID=self.exam.patient_id)
        return found

    async def current(self, resource: Resource) -> Resource:
        return await self.stage.app.ok("GET", f"{resource['resourceType']}/{resource['id']}")

    def wants(self, name: str) -> None:
        """The order is for this examination."""
        self.exam.examination = BY_NAME[name]
        self.exam.station = BY_NAME[name].station

    def another(self, *, same_patient: bool) -> Case:
        """Speak of one more order, a quarter of an hour later."""
        was = self.exam
        later = was.start + timedelta(minutes=15)
        self.exam = replace(
            was, number=was.number + 10_000, start=later, order={}, appointment={}, report={}, told=0,
            patient_id=was.patient_id if same_patient else "",
        )  # fmt: skip
        return self.exam

    def person(self, name: str) -> Person:
        return self.staff.people[name]


async def until(world: World, kind: str, about: str, wanted: Callable[[list[Message]], bool]) -> list[Message]:
    """The messages of a kind that the EHR got about an order, once `wanted` is true of them."""
    listener = world.stage.listeners["ehr"]
    for _ in range(int(_WAIT / 0.1)):
        found = listener.of_type(kind, about)
        if wanted(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"the EHR has got {[m.raw for m in listener.of_type(kind, about)]}")
