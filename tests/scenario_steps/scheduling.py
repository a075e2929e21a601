"""Free times, bookings, the waiting list, and patients who come or don't."""

from datetime import UTC, datetime, timedelta

from benchmarks.department.stage import Resource
from tests.scenario import step
from tests.scenario_steps.staff import Person
from tests.scenario_steps.world import Case, World


@step("the scheduler books it")
async def books(world: World) -> None:
    await _scheduler(world).book(world.exam)


@step("the scheduler moves it to ([0-9:]+)")
async def moves(world: World, time: str) -> None:
    hour, minute = time.split(":")
    exam = world.exam
    exam.start = exam.start.replace(hour=int(hour), minute=int(minute))
    await _scheduler(world).change(exam, "$reschedule", start=exam.start)


@step("the scheduler moves it to the other scanner")
async def moves_scanner(world: World) -> None:
    exam = world.exam
    exam.station = 1
    people = [p for p in exam.appointment["participant"] if not p["actor"]["reference"].startswith("Device/")]
    device = {"actor": {"reference": "Device/ct2"}, "status": "accepted"}
    exam.appointment = await world.stage.write(exam.appointment, participant=[*people, device])


@step("the scheduler tries to book the same time for another patient")
async def books_twice(world: World) -> None:
    other = Case(world.stage, world.exam.number + 20_000, world.exam.station, world.exam.start, world.exam.lock)
    await other.admit()
    await other.ordered()
    try:
        await other.book()
        world.refusal = ""
    except RuntimeError as error:
        world.refusal = str(error)


@step("the scheduler cancels the appointment")
async def cancels_appointment(world: World) -> None:
    await _scheduler(world).change(world.exam, "$cancel", reason="The patient has called")


@step("the patient (arrives|is ready|does not come)")
async def patient(world: World, what: str) -> None:
    # Days ahead, as each scenario has a day of its own: people could not say so at a screen.
    await world.exam.become({"arrives": "arrived", "is ready": "checked-in", "does not come": "noshow"}[what])


@step("the ward sends the patient at once")
async def ward(world: World) -> None:
    await world.exam.call_in()


@step("the scheduler finds a free time for (it|both orders)")
async def finds(world: World, what: str) -> None:
    wanted = [world.exam] if what == "it" else [world.first, world.exam]
    orders = [{"reference": f"ServiceRequest/{one.order['id']}"} for one in wanted]
    day = world.exam.start.replace(hour=0, minute=0)
    found = await _scheduler(world).do("Appointment/$find", order=orders, start=day, end=day + timedelta(days=1))
    assert found.get("entry"), "no time is free"
    world.found = [e["resource"] for e in found["entry"]]


@step("the scheduler (holds|books) the time that was found")
async def keeps(world: World, what: str) -> None:
    chosen = {"reference": f"Appointment/{world.found[0]['id']}"}
    with world.staff.over_the_app():  # a screen shows times, not the proposals' ids
        answer = await _scheduler(world).do(f"Appointment/${what.removesuffix('s')}", appointment_reference=chosen)
    world.found = [e["resource"] for e in answer["entry"]]
    for case in (world.first, world.exam):
        mine = [a for a in world.found if {"reference": f"ServiceRequest/{case.order['id']}"} in a["basedOn"]]
        if mine:
            _is_booked(case, mine[0], world)


def _is_booked(case: Case, appointment: Resource, world: World) -> None:
    case.appointment = appointment
    case.start = datetime.fromisoformat(appointment["start"])
    (device,) = (r for p in appointment["participant"] if (r := p["actor"]["reference"]).startswith("Device/"))
    names = [s.ae_title.lower() for s in world.stage.scanners]
    case.station = names.index(device.removeprefix("Device/"))


@step("the two examinations follow each other")
async def follow(world: World) -> None:
    one, two = sorted((world.first.appointment, world.exam.appointment), key=lambda a: str(a["start"]))
    assert one["end"] <= two["start"], (one["end"], two["start"])
    visits = {i["value"] for a in (one, two) for i in a["identifier"] if i["system"] == "urn:fhir-ris:visit"}
    assert len(visits) == 1, visits


@step("the scheduler gives it the time of the first order, as (.+)")
async def displaces(world: World, why: str) -> None:
    case = world.exam
    wanted = {
        "resourceType": "Appointment",
        "status": "pending",
        "basedOn": [{"reference": f"ServiceRequest/{case.order['id']}"}],
        "start": world.first.appointment["start"],
        "end": world.first.appointment["end"],
        "participant": [
            {"actor": case.order["subject"], "status": "accepted"},
            {"actor": {"reference": world.first.device}, "status": "accepted"},
        ],
    }
    answer = await _scheduler(world).do("Appointment/$book", appointment_resource=wanted, displace=why)
    case.appointment = answer["entry"][0]["resource"]


@step("the scheduler puts the patient on the waiting list, as (.+)")
async def lists(world: World, why: str) -> None:
    said = {"reason": why, "waiting_list": True}
    await _scheduler(world).do(f"Appointment/{world.exam.appointment['id']}/$cancel", **said)


@step("the (?:first )?patient (is|is not) on the waiting list")
async def is_listed(world: World, what: str) -> None:
    found = await world.stage.find(f"Appointment?status=waitlist&based-on=ServiceRequest/{world.first.order['id']}")
    assert len(found) == (what == "is"), f"{len(found)} entries"


@step("the patient walks in")
async def walks_in(world: World) -> None:
    world.exam.start = datetime.now(UTC).replace(second=0, microsecond=0)


@step("the (scheduler|technologist) checks the patient in")
async def checks_in(world: World, who: str) -> None:
    await world.person(f"the {who}").do(f"Appointment/{world.exam.appointment['id']}/$check-in")


def _scheduler(world: World) -> Person:
    return world.person("the scheduler")
