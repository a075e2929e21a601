"""What the lines of scenarios do: through HL7 v2, DICOM and FHIR, as the persons and systems that they name would."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from benchmarks.department.exam import Exam
from benchmarks.department.stage import Resource, Stage
from bridges.v2.message import Message
from demo import ehr
from tests.scenario import step

_WAIT = 30.0  # seconds for a message to arrive
_ORDER_CONTROL = {"orders": "NW", "cancels": "CA", "holds": "HD", "releases": "RL", "discontinues": "DC"}


@dataclass(slots=True)
class World:
    """A scenario's own patient, order and appointment; the server and its partners are everybody's."""

    stage: Stage
    exam: Exam
    first: Exam
    refusal: str = ""
    performed: str = ""
    images: list[Any] = field(default_factory=list)

    @classmethod
    def new(cls, on: Stage, number: int) -> Self:
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1 + number)
        exam = Exam(on, 70_000 + number, 0, day + timedelta(hours=8), asyncio.Lock())
        return cls(on, exam, exam)

    @property
    def scanner(self) -> Any:
        return self.stage.scanners[self.exam.station]

    async def current(self, resource: Resource) -> Resource:
        return await self.stage.app.ok("GET", f"{resource['resourceType']}/{resource['id']}")


async def until(world: World, kind: str, about: str, wanted: Any) -> list[Message]:
    """The messages of a kind that the EHR got about an order, once `wanted` is true of them."""
    listener = world.stage.listeners["ehr"]
    for _ in range(int(_WAIT / 0.1)):
        found = listener.of_type(kind, about)
        if wanted(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"the EHR has got {[m.raw for m in listener.of_type(kind, about)]}")


# The HIS and patients


@step("the HIS registers the patient")
async def registers(world: World) -> None:
    await world.exam.admit()


@step("the HIS registers an unknown patient from an accident")
async def registers_unknown(world: World) -> None:
    exam = world.exam
    await exam.say(
        "HIS|EXAMPLEHOSP", "ADT^A04^ADT_A01", f"EVN|A04|{ehr.stamp()}",
        f"PID|1||{exam.patient_id}^^^EXAMPLEHOSP^MR||Unknown^Alpha^^^^^U",
        f"PV1|1|E|ER^1||||||||||||||||V{exam.patient_id}^^^EXAMPLEHOSP^VN",
    )  # fmt: skip


@step("the HIS corrects the name to (.+)")
async def corrects_name(world: World, family: str) -> None:
    exam = world.exam
    await exam.say(
        "HIS|EXAMPLEHOSP", "ADT^A08^ADT_A01", f"EVN|A08|{ehr.stamp()}",
        f"PID|1||{exam.patient_id}^^^EXAMPLEHOSP^MR||{family}^Mara^^^^^L||19700131|F", "PV1|1|O",
    )  # fmt: skip


@step("the HIS finds out who it is and merges the record")
async def merges(world: World) -> None:
    await world.exam.merge(f"M{world.exam.number}")


# Orders


@step("the EHR (orders|cancels|holds|releases|discontinues) (?:it|a CT of the chest)")
async def orders(world: World, what: str) -> None:
    await world.exam.ordered(_ORDER_CONTROL[what])


@step("the EHR orders a CT of the chest over FHIR")
async def orders_over_fhir(world: World) -> None:
    await world.exam.ordered_over_fhir()


@step("the EHR orders it once more under another number")
async def orders_again(world: World) -> None:
    world.exam = Exam(world.stage, world.exam.number + 10_000, 0, world.exam.start, world.exam.lock, world.exam.patient_id)
    await world.exam.ordered()


@step("the EHR tries to (cancel|hold|discontinue) it")
async def tries(world: World, what: str) -> None:
    message = ehr.order(world.exam.control_id("O"), world.exam.placer, world.exam.patient_id, control=_ORDER_CONTROL[f"{what}s"])
    ack = await ehr.send(world.stage.server.mllp_port, message)
    world.refusal = ack.raw.decode() if ack.all("MSA")[0].field(1) != "AA" else ""


@step("that is refused, as (.+)")
async def refused(world: World, why: str) -> None:
    assert why in world.refusal, world.refusal or "it was not refused"


# Scheduling


@step("the scheduler books it")
async def books(world: World) -> None:
    await world.exam.book()


@step("the scheduler moves it to ([0-9:]+)")
async def moves(world: World, time: str) -> None:
    hour, minute = time.split(":")
    exam = world.exam
    exam.start = exam.start.replace(hour=int(hour), minute=int(minute))
    end = exam.start + timedelta(minutes=15)
    exam.appointment = await world.stage.write(exam.appointment, start=exam.start.isoformat(), end=end.isoformat())


@step("the scheduler moves it to the other scanner")
async def moves_scanner(world: World) -> None:
    exam = world.exam
    exam.station = 1
    people = [p for p in exam.appointment["participant"] if not p["actor"]["reference"].startswith("Device/")]
    device = {"actor": {"reference": "Device/ct2"}, "status": "accepted"}
    exam.appointment = await world.stage.write(exam.appointment, participant=[*people, device])


@step("the scheduler tries to book the same time for another patient")
async def books_twice(world: World) -> None:
    other = Exam(world.stage, world.exam.number + 20_000, world.exam.station, world.exam.start, world.exam.lock)
    await other.admit()
    await other.ordered()
    try:
        await other.book()
        world.refusal = ""
    except RuntimeError as error:
        world.refusal = str(error)


@step("the scheduler cancels the appointment")
async def cancels_appointment(world: World) -> None:
    await world.exam.become("cancelled")


@step("the patient (arrives|is ready|does not come)")
async def patient(world: World, what: str) -> None:
    await world.exam.become({"arrives": "arrived", "is ready": "checked-in", "does not come": "noshow"}[what])


@step("the ward sends the patient at once")
async def ward(world: World) -> None:
    await world.exam.call_in()


# The scanner


@step("the scanner (shows|does not show) the patient")
async def shows(world: World, what: str) -> None:
    items = await world.scanner.worklist(f"{world.exam.start:%Y%m%d}", PatientID=world.exam.patient_id)
    assert len(items) == (1 if what == "shows" else 0), f"{len(items)} entries"


@step("the scanner shows the patient as (.+)")
async def shows_as(world: World, name: str) -> None:
    (item,) = await world.scanner.worklist(f"{world.exam.start:%Y%m%d}", PatientID=world.exam.patient_id)
    assert str(item.PatientName) == name, item.PatientName


@step("the scanner shows the patient at ([0-9]+)")
async def shows_at(world: World, time: str) -> None:
    (item,) = await world.scanner.worklist(f"{world.exam.start:%Y%m%d}", PatientID=world.exam.patient_id)
    assert item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime[:4] == time


@step("the examination begins")
async def begins(world: World) -> None:
    (item,) = await world.scanner.worklist(f"{world.exam.start:%Y%m%d}", PatientID=world.exam.patient_id)
    world.performed = await world.scanner.begin(item)


@step("the examination (ends|is stopped half-way)")
async def ends(world: World, how: str) -> None:
    await world.scanner.end(world.performed, status="COMPLETED" if how == "ends" else "DISCONTINUED")


@step("the patient is scanned without the worklist, and a technologist says which order that was")
async def unscheduled(world: World) -> None:
    await world.exam.scan_unscheduled()


# Reading


@step("a radiologist claims the reading")
async def claims(world: World) -> None:
    await world.exam.claim()


@step("a radiologist (dictates|signs|corrects|adds to|withdraws) the report")
async def dictates(world: World, what: str) -> None:
    said = {"dictates": "preliminary", "signs": "final", "corrects": "corrected", "adds to": "appended"}
    await world.exam.dictate(said.get(what, "entered-in-error"))


@step("an outside service sends the report as (preliminary|final|corrected)")
async def reads_outside(world: World, status: str) -> None:
    await world.exam.result({"preliminary": "P", "final": "F", "corrected": "C"}[status])


# Trouble


@step("the server loses its power and comes back")
async def power(world: World) -> None:
    await world.stage.server.kill(mongod=True)
    await world.stage.server.start()


@step("the EHR goes away")
async def goes_away(world: World) -> None:
    await world.stage.listeners["ehr"].stop()


@step("the EHR is back")
async def is_back(world: World) -> None:
    await world.stage.listeners["ehr"].start()


# What is so


@step("the order is (.+)")
async def order_is(world: World, status: str) -> None:
    assert (found := (await world.current(world.exam.order))["status"]) == status, found


@step("the first order is (.+)")
async def first_is(world: World, status: str) -> None:
    assert (found := (await world.current(world.first.order))["status"]) == status, found


@step("the step is (.+)")
async def step_is(world: World, status: str) -> None:
    assert (found := (await world.exam.step())["status"]) == status, found


@step("the appointment is (.+)")
async def appointment_is(world: World, status: str) -> None:
    assert (found := (await world.current(world.exam.appointment))["status"]) == status, found


@step("the report is (.+)")
async def report_is(world: World, status: str) -> None:
    report = await world.stage.one(f"DiagnosticReport?based-on=ServiceRequest/{world.exam.order['id']}")
    assert report["status"] == status, report["status"]


@step("the reading is (.+)")
async def reading_is(world: World, status: str) -> None:
    procedure = await world.exam.procedure()
    reading = await world.stage.one(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation")
    assert reading["status"] == status, reading["status"]


@step("nobody is asked to read it")
async def no_reading(world: World) -> None:
    procedure = await world.exam.procedure()
    assert not await world.stage.find(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation")


@step("the EHR is told the (preliminary|final|corrected|withdrawn) report")
async def told_report(world: World, status: str) -> None:
    code = {"preliminary": "P", "final": "F", "corrected": "C", "withdrawn": "X"}[status]
    await until(world, "ORU^R01", world.exam.placer, lambda got: any(m.all("OBR")[0].field(25) == code for m in got))


@step("the EHR is told that the order is (scheduled|begun|done|reported|cancelled)")
async def told_status(world: World, what: str) -> None:
    code = {"scheduled": "SC", "begun": "IP", "done": "A", "reported": "CM", "cancelled": "CA"}[what]
    await until(world, "ORM^O01", world.exam.placer, lambda got: any(m.all("ORC")[0].field(5) == code for m in got))


@step("the EHR is told of a (new|moved|cancelled|missed) appointment")
async def told_appointment(world: World, what: str) -> None:
    kinds = {"new": ("S12",), "moved": ("S13", "S14"), "cancelled": ("S15",), "missed": ("S26",)}[what]
    listener = world.stage.listeners["ehr"]
    for _ in range(int(_WAIT / 0.1)):
        if any(listener.of_type(f"SIU^{kind}", world.exam.placer) for kind in kinds):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it was not told")


@step("(technical|professional|technical and professional|nothing) is charged")
async def charged(world: World, what: str) -> None:
    assert await _components(world, "billable") == ([] if what == "nothing" else sorted(what.split(" and ")))


@step("(technical|professional|technical and professional) is credited")
async def credited(world: World, what: str) -> None:
    assert await _components(world, "aborted") == sorted(what.split(" and "))


async def _components(world: World, status: str) -> list[str]:
    procedure = await world.exam.procedure()
    studies = await world.stage.find(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}")
    service = ",".join(f"ImagingStudy/{s['id']}" for s in studies)
    found = await world.stage.find(f"ChargeItem?service={service}")
    parts = [e["valueCode"] for c in found if c["status"] == status for e in c["extension"] if e["url"].endswith("component")]
    return sorted(parts)


@step("a person is asked about (.+)")
async def asked(world: World, code: str) -> None:
    whose = world.exam.order["subject"]["reference"]
    found = await world.stage.find(f"Task?code=urn:fhir-ris:task|{code}&status=requested&patient={whose}")
    assert found, "nobody is asked"


@step("the same message comes again")
async def again(world: World) -> None:
    await world.exam.send(world.exam.sent)


@step("there is one order")
async def one_order(world: World) -> None:
    await world.stage.one(f"ServiceRequest?identifier={world.exam.placer}&intent=order")
