"""Trouble, and what is so: the statuses, and what the EHR and people are told."""

import asyncio

from tests.scenario import step
from tests.scenario_steps.world import World, until

_WAIT = 60.0  # seconds for a message to arrive


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
    requests = ",".join(f"ServiceRequest/{r['id']}" for r in (world.exam.order, await world.exam.procedure()))
    report = await world.stage.one(f"DiagnosticReport?based-on={requests}")
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


@step("the EHR is told that the (first )?order is (scheduled|on hold|begun|done|reported|cancelled)")
async def told_status(world: World, first: str | None, what: str) -> None:
    code = {"scheduled": "SC", "begun": "IP", "done": "A", "reported": "CM", "cancelled": "CA", "on hold": "HD"}[what]
    case = world.first if first else world.exam
    await until(world, "ORM^O01", case.placer, lambda got: any(m.all("ORC")[0].field(5) == code for m in got))


@step("the EHR is told of a (new|moved|cancelled|missed) appointment( of the first patient)?")
async def told_appointment(world: World, what: str, first: str | None) -> None:
    kinds = {"new": ("S12",), "moved": ("S13", "S14"), "cancelled": ("S15",), "missed": ("S26",)}[what]
    listener, case = world.stage.listeners["ehr"], world.first if first else world.exam
    for _ in range(int(_WAIT / 0.1)):
        if any(listener.of_type(f"SIU^{kind}", case.placer) for kind in kinds):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it was not told")


@step("a person is asked about (.+)")
async def asked(world: World, code: str) -> None:
    whose = world.exam.order["subject"]["reference"]
    found = await world.stage.find(f"Task?code=urn:fhir-ris:task|{code}&status=requested&patient={whose}")
    assert found, "nobody is asked"


@step("there is one order")
async def one_order(world: World) -> None:
    await world.stage.one(f"ServiceRequest?identifier={world.exam.placer}&intent=order")


@step("nobody is asked about (.+)")
async def not_asked(world: World, code: str) -> None:
    whose = world.exam.order["subject"]["reference"]
    found = await world.stage.find(f"Task?code=urn:fhir-ris:task|{code}&status=requested&patient={whose}")
    assert not found, [t["id"] for t in found]


@step("the first appointment is (.+)")
async def first_appointment_is(world: World, status: str) -> None:
    assert (found := (await world.current(world.first.appointment))["status"]) == status, found


@step("the order has gone to the right patient")
async def is_right(world: World) -> None:
    assert world.right is not None
    patient = await world.stage.one(f"Patient?identifier={world.right.patient_id}")
    order = await world.current(world.exam.order)
    assert order["subject"]["reference"] == f"Patient/{patient['id']}", order["subject"]


@step("the order has ([0-9]+) procedures")
async def has_procedures(world: World, count: str) -> None:
    found = await world.stage.find(f"ServiceRequest?based-on=ServiceRequest/{world.exam.order['id']}&intent=filler-order")
    assert len(found) == int(count), len(found)


@step("both orders are read as one study")
async def one_study(world: World) -> None:
    procedures = [(await case.procedure())["id"] for case in (world.first, world.exam)]
    for_both = ",".join(f"ServiceRequest/{p}" for p in procedures)
    await world.stage.one(f"Task?based-on={for_both}&code=interpretation")
