"""Scheduling as a department lives it: slots from hours, free times found, held and booked, and what becomes of bookings."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.operations import Answer, Call
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Registry
from fhir_server.store import Store
from resources.scheduling import book_operations, find_operation, finding, generation
from resources.scheduling import operations as scheduling_operations
from resources.scheduling.placing import FreeTime, Option, Placed, Wanted, visits
from resources.scheduling.question import Question
from resources.scheduling.watch import ScheduleWatch
from tests.department import ACCESS, DCM, ZONE, Department, Resource, booking, unused

ROLE = {"coding": [{"system": "urn:example:role", "code": "contrast-nurse"}]}
ALL_DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# The next Monday but tomorrow, at midnight of the department.
_WEEKDAY = datetime.now(ZONE).weekday()
MONDAY = (datetime.now(ZONE) + timedelta(days=7 - _WEEKDAY if _WEEKDAY < 6 else 8)).replace(
    hour=0, minute=0, second=0, microsecond=0
)


def at(hour: int, minute: int = 0, day: int = 0) -> str:
    """That time of Monday, or some days later, as an instant."""
    moment = (MONDAY + timedelta(days=day)).replace(hour=hour, minute=minute)
    return clock.instant(moment)


def hours(start: str = "08:00:00", end: str = "10:00:00", **elements: Any) -> Resource:
    open_ = {"daysOfWeek": ALL_DAYS, "availableStartTime": start, "availableEndTime": end}
    return {"resourceType": "HealthcareService", "name": unused("hours"), "availableTime": [open_]} | elements


async def open_(
    ris: Department, actor: Resource, *services: Resource, minutes: int = 30, days: int = 14, **more: Any
) -> Resource:
    """A Schedule of a scanner or a person, with its slots."""
    actors = [actor, *[await ris.create(s) for s in services or (hours(),)]]
    made = {"url": "minutes", "valuePositiveInt": minutes}, {"url": "days", "valuePositiveInt": days}
    schedule = {
        "resourceType": "Schedule",
        "actor": [{"reference": f"{a['resourceType']}/{a['id']}"} for a in actors],
        "extension": [{"url": "urn:fhir-ris:slot-generation", "extension": list(made)}, *more.get("extension", ())],
    }
    stored = await ris.create(schedule)
    await generation.keep(ris.interactions, stored["id"], ZONE, clock.now())
    return stored


async def slots(ris: Department, schedule: Resource, day: int = 0) -> dict[str, str]:
    """Local start to status, of one day."""
    found = await ris.search("Slot", schedule=f"Schedule/{schedule['id']}", start=f"ge{at(0, day=day)}")
    local = {datetime.fromisoformat(s["start"]).astimezone(ZONE): s["status"] for s in found}
    wanted = (MONDAY + timedelta(days=day)).date()
    return {f"{moment:%H:%M}": status for moment, status in sorted(local.items()) if moment.date() == wanted}


async def procedure(ris: Department, minutes: int = 30, modality: str = "CT", **elements: Any) -> Resource:
    """A procedure of the catalogue; the code to order it by."""
    code = {"system": "urn:example:procedures", "code": unused("PROC")}
    entry = {
        "resourceType": "ActivityDefinition",
        "status": "active",
        "identifier": [{"system": code["system"], "value": code["code"]}],
        "code": {"coding": [code]},
        "topic": [{"coding": [{"system": DCM, "code": modality}]}],
        "timingDuration": {"value": minutes, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"},
    }
    await ris.create(entry | elements)
    return {"coding": [code], "text": code["code"]}


async def ordered(ris: Department, code: Resource, patient: Resource | None = None, **elements: Any) -> Resource:
    """An order for a procedure of the catalogue, which alone says its modality."""
    whose = patient or await ris.patient()
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": code}
    return await ris.create(order | {"subject": {"reference": f"Patient/{whose['id']}"}} | elements)


async def find(ris: Department, *orders: Resource, **asked: Any) -> list[list[Resource]]:
    question = Question(
        datetime.fromisoformat(at(0)), datetime.fromisoformat(at(0, day=7)), tuple(o["id"] for o in orders), **asked
    )
    return (await ris.interactions.transact(ACCESS, Act("find"), lambda unit: finding.find(unit, question))).visits


def starts(visits: list[list[Resource]]) -> list[str]:
    return [f"{datetime.fromisoformat(v[0]['start']).astimezone(ZONE):%a %H:%M}" for v in visits]


def device(appointment: Resource) -> list[str]:
    return [p["actor"]["reference"] for p in appointment["participant"] if p["actor"]["reference"].startswith("Device/")]


# Slots


def test_slots_follow_hours_holidays_and_maintenance_and_leave_what_is_booked(ris):
    async def scenario():
        scanner, order = await ris.scanner(), await ris.order()
        holidays = {"resourceType": "HealthcareService", "notAvailable": [{"description": "holiday", "during": _day(1)}]}
        repairs = [{"description": "service", "during": {"start": at(9, day=2), "end": at(9, 20, day=2)}}]
        schedule = await open_(ris, scanner, hours(notAvailable=repairs), holidays)
        grid = ["08:00", "08:30", "09:00", "09:30"]
        assert await slots(ris, schedule) == dict.fromkeys(grid, "free")
        assert await slots(ris, schedule, day=1) == {}
        assert list(await slots(ris, schedule, day=2)) == ["08:00", "08:30", "09:30"]
        taken = await ris.book(order, scanner, at(8, 30))  # without naming a slot, as an EHR may
        assert (await slots(ris, schedule))["08:30"] == "busy"

        service = await ris.read(schedule["actor"][1]["reference"])
        await ris.update(service, availableTime=hours("09:00:00", "11:00:00")["availableTime"])
        assert await generation.keep(ris.interactions, schedule["id"], ZONE, clock.now()) > 0
        later = await slots(ris, schedule)
        assert {t: s for t, s in later.items() if s == "free"} == dict.fromkeys(["09:00", "09:30", "10:00", "10:30"], "free")
        assert (later["08:00"], later["08:30"]) == ("busy-unavailable", "busy")
        assert (await ris.read(taken))["start"] == taken["start"]
        before = await ris.counts()
        assert await generation.keep(ris.interactions, schedule["id"], ZONE, clock.now()) == 0
        assert await ris.counts() == before

    ris.run(scenario())


def _day(day: int) -> dict[str, str]:
    date = (MONDAY + timedelta(days=day)).date().isoformat()
    return {"start": date, "end": date}


def test_the_horizon_rolls_and_a_booking_in_hours_that_close_is_a_work_item(ris):
    async def scenario():
        scanner, order = await ris.scanner(), await ris.order()
        early = await ris.book(order, scanner, at(8))  # booked before there are slots
        schedule = await open_(ris, scanner)
        assert (await slots(ris, schedule))["08:00"] == "busy"
        tomorrow = clock.now() + timedelta(days=1)
        assert await generation.keep(ris.interactions, schedule["id"], ZONE, tomorrow) == 4
        horizon = (await ris.read(schedule))["planningHorizon"]["end"]
        assert datetime.fromisoformat(horizon).astimezone(ZONE).date() == (tomorrow + timedelta(days=14)).astimezone(ZONE).date()

        slot = (await ris.search("Slot", schedule=f"Schedule/{schedule['id']}", start=f"eq{at(8)}"))[0]
        await ris.update(await ris.read(early), slot=[{"reference": f"Slot/{slot['id']}"}])
        service = await ris.read(schedule["actor"][1]["reference"])
        await ris.update(service, notAvailable=[{"description": "strike", "during": _day(0)}])
        await generation.keep(ris.interactions, schedule["id"], ZONE, clock.now())
        (item,) = await ris.work_items("booked-outside-hours")
        assert item["focus"]["reference"] == f"Appointment/{early['id']}"
        await ris.become(early, "cancelled")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("extension", "refused"),
    [
        ({"url": "urn:fhir-ris:slot-generation", "extension": [{"url": "minutes", "valuePositiveInt": 1}]}, "minutes"),
        ({"url": "urn:fhir-ris:slot-generation", "extension": [{"url": "days", "valuePositiveInt": 10}]}, "minutes"),
        ({"url": "urn:fhir-ris:overbooking", "extension": [{"url": "count", "valuePositiveInt": 1}]}, "roles"),
    ],
)
def test_a_schedule_that_cant_be_followed_is_refused(ris, extension, refused):
    schedule = {"resourceType": "Schedule", "actor": [{"display": "CT"}], "extension": [extension]}
    error = ris.run(ris.refused(ris.create(schedule)))
    assert refused in str(error)


# Finding


def test_the_first_free_time_has_scanner_room_nurse_and_injector(ris):
    async def scenario():
        site = await ris.create({"resourceType": "Location", "name": "North"})
        room = await ris.create({"resourceType": "Location", "partOf": {"reference": f"Location/{site['id']}"}})
        inside, outside = await ris.scanner(location={"reference": f"Location/{room['id']}"}), await ris.scanner()
        await open_(ris, inside)
        await open_(ris, outside)
        nurse = await ris.create({"resourceType": "Practitioner", "name": [{"family": "Sommer"}]})
        role = {
            "resourceType": "PractitionerRole",
            "practitioner": {"reference": f"Practitioner/{nurse['id']}"},
            "code": [ROLE],
            "availableTime": hours("08:30:00", "12:00:00")["availableTime"],
        }
        injector_kind = {"coding": [{"system": "urn:example:kind", "code": unused("injector")}]}
        injector = await ris.scanner(type=injector_kind)
        await open_(ris, injector)
        made = {"url": "urn:fhir-ris:slot-generation", "extension": [{"url": "minutes", "valuePositiveInt": 15}]}
        role = await ris.create(role)
        of_nurse = await ris.create(
            {"resourceType": "Schedule", "actor": [{"reference": f"PractitionerRole/{role['id']}"}], "extension": [made]}
        )
        await generation.keep(ris.interactions, of_nurse["id"], ZONE, clock.now())
        code = await procedure(
            ris,
            40,
            location={"reference": f"Location/{site['id']}"},
            participant=[{"type": "practitioner", "role": ROLE}, {"type": "device", "role": injector_kind}],
            extension=[{"url": "urn:fhir-ris:preparation", "valueString": "Nothing to eat for four hours."}],
        )
        order = await ordered(ris, code)
        found = await find(ris, order)
        assert starts(found)[:3] == ["Mon 08:30", "Mon 09:00", "Tue 08:30"]  # 40 minutes from 09:30 are too long
        first = found[0][0]
        assert device(first) == [f"Device/{inside['id']}", f"Device/{injector['id']}"]
        assert f"Practitioner/{nurse['id']}" in str(first["participant"])
        assert f"Location/{room['id']}" in str(first["participant"])
        assert first["end"] == at(9, 10)

        booked = await ris.create({k: v for k, v in first.items() if k != "id"} | {"status": "booked"})
        assert booked["patientInstruction"] == "Nothing to eat for four hours."
        assert (await ris.step(order))["owner"]["reference"] == f"Device/{inside['id']}"
        assert starts(await find(ris, await ordered(ris, code)))[0] == "Tue 08:30"
        # The nurse is not had twice, whichever door asks for her.
        other = booking(await ris.order(), outside, at(9))
        other["participant"].append({"actor": {"reference": f"Practitioner/{nurse['id']}"}, "status": "accepted"})
        refusal = await ris.refused(ris.create(other))
        assert (refusal.status, f"Practitioner/{nurse['id']} is taken" in str(refusal)) == (409, True)

    ris.run(scenario())


def test_several_examinations_in_one_visit_and_steps_in_parallel(ris):
    async def scenario():
        patient = await ris.patient()
        mri, xray = await ris.scanner(unused("M")), await ris.scanner(unused("X"))
        await open_(ris, mri, hours("09:00:00", "10:00:00"))
        await open_(ris, xray, hours("08:00:00", "10:00:00"))
        kinds = [d["type"]["coding"][0]["code"] for d in (mri, xray)]
        orders = [await ordered(ris, await procedure(ris, 30, kind), patient) for kind in kinds]
        (visit, *_) = await find(ris, *orders, wait=15)
        assert [device(a)[0] for a in visit] == [f"Device/{xray['id']}", f"Device/{mri['id']}"]
        assert [a["start"] for a in visit] == [at(8, 30), at(9)]
        assert visit[0]["identifier"] == visit[1]["identifier"]
        # While the patient is elsewhere, there is no time.
        await ris.create({k: v for k, v in visit[1].items() if k != "id"} | {"status": "booked"})
        assert [v[0]["start"] for v in await find(ris, orders[1])][:3] == [at(8), at(8, 30), at(9, 30)]
        another = await ris.order()
        assert (await ris.refused(find(ris, orders[1], another))).status == 422

    ris.run(scenario())


def test_what_the_catalogue_doesnt_say_must_be_said(ris):
    async def scenario():
        scanner = await ris.scanner("MG")
        await open_(ris, scanner)
        order = await ris.order(modality="MG", code={"text": "Mammography"})
        assert "how long" in str(await ris.refused(find(ris, order)))
        assert starts(await find(ris, order, minutes=60))[:3] == ["Mon 08:00", "Mon 08:30", "Mon 09:00"]
        assert starts(await find(ris, modalities=("MG",), minutes=120))[:2] == ["Mon 08:00", "Tue 08:00"]

    ris.run(scenario())


def test_free_times_come_from_an_index(ris):
    async def scenario():
        when = (datetime.fromisoformat(at(0)), datetime.fromisoformat(at(0, day=30)))
        plan = await ris.db["Slot"].find(finding.slots_in([f"Schedule/{n}" for n in range(12)], when)).explain()
        text = str(plan["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in text
        assert finding.SLOTS in text
        assert "COLLSCAN" not in text

    ris.run(scenario())


# No slot is had twice


def call(ris: Department, door: Interactions, name: str, **parameters: Any) -> Call:
    """A call of an operation on Appointment. Values are references, or texts."""
    rows = [{"name": n[0] + n[1:].replace("_", "-")} | v for n, v in parameters.items()]
    body = {"resourceType": "Parameters", "parameter": rows}
    return Call(door, ACCESS, Act(f"${name}"), "http://x/fhir", "Appointment", body=body)


def test_of_64_bookers_over_four_processes_one_gets_the_time_and_the_others_the_next_ones(ris):
    async def scenario():
        scanner = await ris.scanner(unused("S"))
        kind = scanner["type"]["coding"][0]["code"]
        await open_(ris, scanner)
        code = await procedure(ris, 30, kind)
        orders = await asyncio.gather(*(ordered(ris, code) for _ in range(64)))
        doors = [ris.interactions, *(Interactions(Store(ris.db), ris.registry) for _ in range(3))]
        for door in doors[1:]:
            await door.store.ensure(*sorted(ris.registry.core_types))
        start, one = {"valueDateTime": at(0)}, {"valueInteger": 1}
        attempts: list[Any] = []
        for i, order in enumerate(orders):
            door = doors[i % 4]
            if i % 3:  # some come by another door, and want a part of that time
                attempts.append(door.create(ACCESS, booking(order, scanner, at(8, 15))))
                continue
            wanted = {"valueReference": {"reference": f"ServiceRequest/{order['id']}"}}
            found = (await find_operation.find(call(ris, door, "find", order=wanted, start=start, _count=one))).resource
            proposed = found["entry"][0]["resource"]
            assert (found["total"], proposed["start"]) == (1, at(8))
            named = {"valueReference": {"reference": f"Appointment/{proposed['id']}"}}
            attempts.append(book_operations.book(call(ris, door, "book", appointment_reference=named)))
        results = await asyncio.gather(*attempts, return_exceptions=True)

        told = [r for r in results if isinstance(r, Answer)]
        won = [r for r in results if isinstance(r, dict) or (isinstance(r, Answer) and r.status == 200)]
        assert len(won) == 1
        assert (
            sum(isinstance(r, FhirError) and r.status == 409 for r in results)
            + len(told)
            + sum(isinstance(r, dict) for r in results)
            == 64
        )
        held = await ris.search("Appointment", actor=f"Device/{scanner['id']}", status="booked")
        assert len(held) == 1
        for answer in (a for a in told if a.status != 200):
            assert answer.status == 409
            issues = answer.resource["issue"]
            assert issues[0]["code"] in ("conflict", "lock-error")  # who came last on a busy machine has waited for too long
            assert (issues[1]["severity"], issues[1]["code"]) == ("fatal", "not-found")
            offered = [i["diagnostics"] for i in issues if i["severity"] == "information"]
            assert offered[0].startswith(f"free: {at(8, 30) if held[0]['start'] == at(8) else at(9)} to ")

    ris.run(scenario())


def test_a_hold_ends_by_itself_and_gives_its_slots_back(ris):
    async def scenario():
        scanner = await ris.scanner()
        schedule = await open_(ris, scanner)
        past = clock.instant(clock.now() - timedelta(minutes=1))
        hold = booking(await ris.order(), scanner, at(8)) | {
            "status": "pending",
            "extension": [{"url": "urn:fhir-ris:hold-until", "valueInstant": past}],
        }
        one = await ris.create(hold)
        assert (await slots(ris, schedule))["08:00"] == "busy-tentative"
        await ScheduleWatch(ris.interactions, ZONE).look()
        assert (await ris.read(one))["status"] == "cancelled"
        assert (await slots(ris, schedule))["08:00"] == "free"
        # Nobody need wait for the watch: who wants the time, gets it.
        two = await ris.create(
            hold
            | {"basedOn": [{"reference": f"ServiceRequest/{(await ris.order())['id']}"}], "participant": hold["participant"][1:]}
        )
        await ris.book(await ris.order(), scanner, at(8))
        assert (await ris.read(two))["status"] == "cancelled"
        assert (await slots(ris, schedule))["08:00"] == "busy"

    ris.run(scenario())


def test_what_people_have_closed_is_closed(ris):
    async def scenario():
        scanner = await ris.scanner()
        schedule = await open_(ris, scanner)
        block = {"resourceType": "Slot", "schedule": {"reference": f"Schedule/{schedule['id']}"}, "status": "busy-unavailable"}
        await ris.create(block | {"start": at(12), "end": at(13)})
        assert (await ris.refused(ris.book(await ris.order(), scanner, at(12, 15)))).status == 409
        await ris.book(await ris.order(), scanner, at(13))

    ris.run(scenario())


def test_what_people_have_closed_is_not_proposed_though_its_slots_are_free(ris):
    async def scenario():
        scanner = await ris.scanner()
        schedule, there = await open_(ris, scanner), (f"Device/{scanner['id']}",)
        order = await ordered(ris, await procedure(ris))
        block = {"resourceType": "Slot", "schedule": {"reference": f"Schedule/{schedule['id']}"}, "status": "busy-unavailable"}
        closed = await ris.create(block | {"start": at(7), "end": at(9)})
        assert (await slots(ris, schedule))["08:30"] == "free"
        assert starts(await find(ris, order, devices=there))[:2] == ["Mon 09:00", "Mon 09:30"]
        await ris.update(closed, status="entered-in-error")
        assert starts(await find(ris, order, devices=there))[:2] == ["Mon 08:00", "Mon 08:30"]

    ris.run(scenario())


# What is asked for by operations


async def ask(ris: Department, name: str, on: Resource | None = None, **parameters: Any) -> Resource:
    """Call an operation and get what it answers; FhirError and 409 are refused as FhirError."""
    runs: dict[str, Any] = {o.name: o.run for m in _REGISTERED for o in m}
    asked = call(ris, ris.interactions, name, **parameters)
    answer = await runs[name](asked if on is None else replace(asked, id=on["id"]))
    if answer.status != 200:
        raise fail("conflict", answer.resource["issue"][0]["diagnostics"])
    resource: Resource = answer.resource
    return resource


def operations() -> list[Any]:
    registry = Registry()
    scheduling_operations.register(registry, ZONE)
    return list(registry.operations.values())


_REGISTERED = operations()


def to(resource: Resource) -> Resource:
    return {"valueReference": {"reference": f"{resource['resourceType']}/{resource['id']}"}}


def shown(bundle: Resource) -> list[Resource]:
    return [e["resource"] for e in bundle.get("entry", ()) if e["search"]["mode"] == "match"]


async def proposed(ris: Department, order: Resource, n: int = 0, **asked: Any) -> Resource:
    return shown(await ask(ris, "find", order=to(order), start={"valueDateTime": at(0)}, **asked))[n]


async def stage(ris: Department) -> tuple[Resource, Resource, Resource, Resource]:
    """A scanner with its Schedule, a procedure that it alone does, and an order for that."""
    scanner = await ris.scanner(unused("S"))
    schedule = await open_(ris, scanner)
    code = await procedure(ris, 30, scanner["type"]["coding"][0]["code"])
    return scanner, schedule, code, await ordered(ris, code)


def test_a_time_is_held_then_booked_moved_checked_in_or_missed(ris):
    async def scenario():
        _, schedule, code, order = await stage(ris)
        first = await proposed(ris, order)
        held = shown(await ask(ris, "hold", appointment_reference=to(first)))[0]
        assert (held["id"], held["status"]) == (first["id"], "pending")
        assert (await slots(ris, schedule))["08:00"] == "busy-tentative"
        assert (await proposed(ris, await ordered(ris, code)))["start"] == at(8, 30)  # what is held isn't offered
        booked = shown(await ask(ris, "book", appointment_reference=to(first), comment={"valueString": "by telephone"}))[0]
        assert (booked["status"], booked["comment"], "extension" in booked) == ("booked", "by telephone", False)
        assert {p["status"] for p in booked["participant"]} == {"accepted"}
        assert (await ris.refused(ask(ris, "book", appointment_reference=to(first)))).status == 409
        assert (await slots(ris, schedule))["08:00"] == "busy"

        other = await proposed(ris, order, 1, appointment=to(booked))
        moved = await ask(ris, "reschedule", booked, appointment_reference=to(other), reason={"valueString": "a train"})
        assert (moved["id"], moved["start"], (await ris.step(order))["restriction"]["period"]["start"]) == (
            booked["id"], at(9), at(9),
        )  # fmt: skip
        assert list((await slots(ris, schedule)).values()) == ["free", "free", "busy", "free"]
        again = await ask(ris, "reschedule", booked, start={"valueDateTime": at(9, 30)})
        assert (again["start"], again["end"]) == (at(9, 30), at(10))
        assert "yet to come" in str(await ris.refused(ask(ris, "no-show", booked)))
        assert "later day" in str(await ris.refused(ask(ris, "check-in", booked)))
        now = await ask(ris, "reschedule", booked, start={"valueDateTime": clock.instant(clock.now())})
        missed = await ask(ris, "no-show", now)
        assert (missed["status"], (await ris.step(order))["status"]) == ("noshow", "requested")

        walk_in = await ordered(ris, code)
        soon = booking(walk_in, None, clock.instant(clock.now())) | {"status": "pending", "participant": now["participant"][1:]}
        there = shown(await ask(ris, "book", appointment_resource={"resource": {k: v for k, v in soon.items() if k != "end"}}))[0]
        assert (await ask(ris, "check-in", there))["status"] == "checked-in"
        assert (await ris.step(walk_in))["status"] == "ready"
        assert (await ris.refused(ask(ris, "book", appointment_reference=to(order)))).status == 400

    ris.run(scenario())


def test_who_gives_a_time_back_may_wait_for_another(ris):
    async def scenario():
        scanner, schedule, code, order = await stage(ris)
        booked = shown(await ask(ris, "book", appointment_reference=to(await proposed(ris, order))))[0]
        assert (await ris.refused(ask(ris, "cancel", booked))).status == 400
        done = await ask(
            ris,
            "cancel",
            booked,
            reason={"valueString": "ill"},
            code={"valueCode": "patient"},
            waiting_list={"valueBoolean": True},
        )
        ended, entry = (p["resource"] for p in done["parameter"])
        assert (ended["status"], entry["status"], (await slots(ris, schedule))["08:00"]) == ("cancelled", "waitlist", "free")
        assert entry["id"] in [a["id"] for a in await ris.search("Appointment", status="waitlist")]
        await ask(ris, "book", appointment_reference=to(await proposed(ris, order)))
        assert (await ris.read(entry))["status"] == "cancelled"
        # A visit is booked as a whole or not at all.
        patient = await ris.patient()
        two = [await ordered(ris, code, patient) for _ in range(2)]
        asked = call(ris, ris.interactions, "find", start={"valueDateTime": at(0)}, _count={"valueInteger": 1})
        asked.body["parameter"] += [{"name": "order"} | to(order) for order in two]
        visit = shown((await find_operation.find(asked)).resource)
        assert [a["start"] for a in visit] == [at(8, 30), at(9)]
        await ris.book(await ordered(ris, code), scanner, at(9))
        assert (await ris.refused(ask(ris, "book", appointment_reference=to(visit[0])))).status == 409
        assert (await slots(ris, schedule))["08:30"] == "free"
        assert await ris.search("Appointment", patient=f"Patient/{patient['id']}") == []

    ris.run(scenario())


def test_an_urgent_order_takes_the_time_of_a_routine_one_and_its_ehr_is_told(ris):
    async def scenario():
        ehr = await ris.destination("SIU^S12", "SIU^S15")
        scanner, _, code, routine = await stage(ris)
        booked = shown(await ask(ris, "book", appointment_reference=to(await proposed(ris, routine))))[0]
        urgent = await ordered(ris, code, priority="stat")
        wanted = booking(urgent, scanner, booked["start"]) | {"status": "pending"}
        resource, why = {"resource": wanted}, {"valueString": "polytrauma"}
        assert (await ris.refused(ask(ris, "book", appointment_resource=resource))).status == 409
        (won,) = shown(await ask(ris, "book", appointment_resource=resource, displace=why))
        assert (won["status"], (await ris.step(urgent))["status"]) == ("booked", "accepted")
        assert (await ris.read(booked))["status"] == "cancelled"
        assert (await ris.step(routine))["status"] == "requested"
        entry = await ris.one("Appointment", based_on=f"ServiceRequest/{routine['id']}", status="waitlist")
        (item,) = await ris.work_items("displaced-booking", focus=f"Appointment/{entry['id']}")
        assert sorted(s.get(6) for m in await ris.sent(ehr) if (s := m.first("SCH"))) == ["S12", "S12", "S15"]
        # Nobody displaces what is as urgent.
        also = booking(await ordered(ris, code, priority="stat"), scanner, booked["start"]) | {"status": "pending"}
        assert (await ris.refused(ask(ris, "book", appointment_resource={"resource": also}, displace=why))).status == 409
        await ask(ris, "book", appointment_reference=to(await proposed(ris, routine)))
        assert (await ris.read(item))["status"] == "completed"

    ris.run(scenario())


def test_overbooking_needs_a_rule_and_a_reason_and_slots_stay_busy_until_the_last_has_left(ris):
    async def scenario():
        scanner = await ris.scanner()
        rule = {"url": "count", "valuePositiveInt": 1}, {"url": "role", "valueCode": "system"}
        schedule = await open_(ris, scanner, extension=[{"url": "urn:fhir-ris:overbooking", "extension": list(rule)}])
        one = await ris.book(await ris.order(), scanner, at(8))
        assert (await ris.refused(ris.book(await ris.order(), scanner, at(8)))).status == 409
        why = [{"url": "urn:fhir-ris:overbooked", "valueString": "inpatient before discharge"}]
        two = await ris.book(await ris.order(), scanner, at(8), extension=why)
        assert (await ris.refused(ris.book(await ris.order(), scanner, at(8), extension=why))).status == 409
        await ris.become(one, "cancelled")
        assert (await slots(ris, schedule))["08:00"] == "busy"
        await ris.become(two, "cancelled")
        assert (await slots(ris, schedule))["08:00"] == "free"
        # Where the rule names another role, the reason doesn't help.
        radiologist = {"url": "count", "valuePositiveInt": 1}, {"url": "role", "valueCode": "radiologist"}
        other = await ris.scanner()
        await open_(ris, other, extension=[{"url": "urn:fhir-ris:overbooking", "extension": list(radiologist)}])
        await ris.book(await ris.order(), other, at(8))
        assert (await ris.refused(ris.book(await ris.order(), other, at(8), extension=why))).status == 403

    ris.run(scenario())


def test_an_inpatient_is_put_on_the_worklist_without_an_appointment(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        step = await ris.step(order)
        period = {"period": {"start": clock.instant(clock.now())}}
        await ris.update(step, status="accepted", owner={"reference": f"Device/{scanner['id']}"}, restriction=period)
        assert (await ris.step(order))["businessStatus"]["coding"][0]["code"] == "SCHEDULED"
        assert await ris.search("Appointment", based_on=f"ServiceRequest/{order['id']}") == []

    ris.run(scenario())


def test_a_booking_is_moved_to_what_was_proposed_for_it_and_keeps_who_takes_part(ris):
    async def scenario():
        scanner, _, code, order = await stage(ris)
        booked = shown(await ask(ris, "book", appointment_reference=to(await proposed(ris, order))))[0]
        relative = await ris.create({"resourceType": "RelatedPerson", "patient": to(await ris.patient())["valueReference"]})
        guest = {"actor": to(relative)["valueReference"], "status": "accepted"}
        booked = await ris.update(booked, participant=[*booked["participant"], guest])
        for something in ({"order": to(await ordered(ris, code))}, {"modality": {"valueCode": modality_of(scanner)}}):
            asked = await ask(ris, "find", start={"valueDateTime": at(0)}, minutes={"valuePositiveInt": 5}, **something)
            wrong = shown(asked)[-1]
            assert (await ris.refused(ask(ris, "reschedule", booked, appointment_reference=to(wrong)))).status == 422
        right = await proposed(ris, order, 1, appointment=to(booked))
        moved = await ask(ris, "reschedule", booked, appointment_reference=to(right))
        assert moved["start"] == right["start"]
        assert sorted(p["actor"]["reference"] for p in moved["participant"]) == sorted(
            p["actor"]["reference"] for p in booked["participant"]
        )

    ris.run(scenario())


def modality_of(scanner: Resource) -> str:
    return str(scanner["type"]["coding"][0]["code"])


def test_a_booking_without_an_end_is_as_long_as_all_that_it_is_for(ris):
    async def scenario():
        scanner, _, _, order = await stage(ris)
        more = {"status": "active", "intent": "filler-order", "basedOn": [to(order)["valueReference"]]}
        second = await procedure(ris, 20, modality_of(scanner))
        await ris.create({"resourceType": "ServiceRequest", "code": second, "subject": order["subject"]} | more)
        await ris.create(  # at another scanner, some other time
            {"resourceType": "ServiceRequest", "code": await procedure(ris, 45, "MR"), "subject": order["subject"]} | more
        )
        wanted = {k: v for k, v in booking(order, scanner, at(12)).items() if k != "end"} | {"status": "pending"}
        (booked,) = shown(await ask(ris, "book", appointment_resource={"resource": wanted}))
        assert (booked["start"], booked["end"]) == (at(12), at(12, 50))
        assert sorted(s["status"] for s in await ris.steps(order)) == ["accepted", "accepted", "requested"]
        changed = {"resource": booked | {"start": at(13), "end": at(14)}}
        (booked,) = shown(await ask(ris, "book", appointment_resource=changed, comment={"valueString": "by telephone"}))
        assert (booked["start"], booked["comment"]) == (at(13), "by telephone")

    ris.run(scenario())


def test_a_leap_second_and_hours_without_end_stop_nobody(ris):
    async def scenario():
        scanner, gone = await ris.scanner(), await ris.scanner()
        hold_until = [{"url": "urn:fhir-ris:hold-until", "valueInstant": "2026-01-01T00:00:60Z"}]
        hold = await ris.create(booking(await ris.order(), scanner, at(12)) | {"status": "pending", "extension": hold_until})
        await ris.create(booking(await ris.order(), scanner, at(13)) | {"status": "pending", "end": at(13)[:17] + "60Z"})
        by_hand = await ris.create({"resourceType": "Schedule", "actor": [to(scanner)["valueReference"]]})
        of = {"resourceType": "Slot", "schedule": to(by_hand)["valueReference"], "status": "free"}
        await ris.create(of | {"start": at(14), "end": at(14)[:17] + "60Z"})
        # Its hours end with the scanner; those of others go on.
        over = {"description": "Taken out of use", "during": {"start": clock.instant(clock.now())[:10], "end": "9999-12-31"}}
        ended = await open_(ris, gone, hours(notAvailable=[over]))
        other = await open_(ris, await ris.scanner(), days=15)
        await ris.db["schedules_kept"].delete_one({"_id": other["id"]})
        await ScheduleWatch(ris.interactions, ZONE).look()
        assert (await ris.read(hold))["status"] == "cancelled"
        assert set((await slots(ris, ended)).values()) <= {"busy-unavailable"}
        assert len(await slots(ris, other)) == 4
        await ris.book(await ris.order(), scanner, at(14))

    ris.run(scenario())


def test_time_that_another_schedule_of_the_scanner_has_open_is_open(ris):
    async def scenario():
        scanner = await ris.scanner(unused("S"))
        code = await procedure(ris, 30, modality_of(scanner))
        morning = await open_(ris, scanner, hours("08:00:00", "09:00:00"))
        afternoon = hours("13:00:00", "14:00:00")
        later = await open_(ris, scanner, afternoon)
        order = await ordered(ris, code)
        booked = shown(await ask(ris, "book", appointment_reference=to(await proposed(ris, order, 2))))[0]
        assert booked["start"] == at(13)

        async def items() -> list[str]:
            await generation.keep(ris.interactions, morning["id"], ZONE, clock.now())
            await generation.keep(ris.interactions, later["id"], ZONE, clock.now())
            return [i["status"] for i in await ris.work_items("booked-outside-hours", focus=f"Appointment/{booked['id']}")]

        await ris.db["schedules_kept"].delete_many({"_id": {"$in": [morning["id"], later["id"]]}})
        assert await items() == []
        service = next(a for a in later["actor"] if a["reference"].startswith("HealthcareService"))["reference"].split("/")[1]
        stored = await ris.one("HealthcareService", _id=service)
        await ris.update(stored, availableTime=hours("15:00:00", "16:00:00")["availableTime"])
        assert await items() == ["requested"]
        await ris.become(booked, "cancelled")
        assert await items() == ["completed"]

    ris.run(scenario())


def test_what_can_be_overbooked_and_what_an_urgent_booking_passes(ris):
    async def scenario():
        scanner = await ris.scanner()
        rule = {"url": "count", "valuePositiveInt": 1}, {"url": "role", "valueCode": "system"}
        schedule = await open_(ris, scanner, extension=[{"url": "urn:fhir-ris:overbooking", "extension": list(rule)}])
        why = [{"url": "urn:fhir-ris:overbooked", "valueString": "before discharge"}]
        closed = {"resourceType": "Slot", "schedule": to(schedule)["valueReference"], "status": "busy-unavailable"}
        await ris.create(closed | {"start": at(12), "end": at(13)})
        assert (await ris.refused(ris.book(await ris.order(), scanner, at(12), extension=why))).status == 409
        # Two that follow each other are one at a time.
        for start in (at(14), at(14, 30)):
            await ris.book(await ris.order(), scanner, start)
        await ris.create(booking(await ris.order(), scanner, at(14), 60) | {"extension": why})
        # A hold whose time is over is in nobody's way, however urgent it was.
        over = [{"url": "urn:fhir-ris:hold-until", "valueInstant": "2026-01-01T00:00:00Z"}]
        stat = await ris.order(priority="stat")
        hold = await ris.create(booking(stat, scanner, at(16)) | {"status": "pending", "extension": over})
        wanted = {"resource": booking(await ris.order(priority="stat"), scanner, at(16)) | {"status": "pending"}}
        (won,) = shown(await ask(ris, "book", appointment_resource=wanted, displace={"valueString": "polytrauma"}))
        assert (won["status"], (await ris.read(hold))["status"]) == ("booked", "cancelled")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("find", {"start": {"valueDateTime": "2026-12-01T10:00"}}),
        ("find", {"start": {"valueDateTime": "9999-12-31T23:59:59-12:00"}}),
        ("find", {"end": {"valueDateTime": "9999-12-31T23:59:59-12:00"}}),
        ("find", {"end": {"valueDateTime": "0001-01-01T00:00:00+14:00"}}),
        *[("find", {"referral_identifier": {"valueIdentifier": v}}) for v in ("x", ["x"], {}, {"system": 5, "value": "5"})],
        ("reschedule", {"start": {"valueDateTime": "2031-12-01T10:00"}}),
        ("reschedule", {"start": {"valueDateTime": "0001-01-01T00:00:00+14:00"}}),
        ("reschedule", {"start": {"valueDateTime": "9999-12-31T23:50:00Z"}}),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(ris, name, parameters):
    async def scenario():
        booked = await ris.book(await ris.order(), await ris.scanner(), at(20)) if name == "reschedule" else None
        what = {"modality": {"valueCode": "CT"}, "minutes": {"valuePositiveInt": 30}} if name == "find" else {}
        assert (await ris.refused(ask(ris, name, booked, **what | parameters))).status in {400, 422}

    ris.run(scenario())


def test_orders_of_a_visit_are_not_tried_where_one_of_them_cant_be():
    class Counting(FreeTime):
        tries = 0

        def place(self, *asked: Any) -> Placed | None:
            self.tries += 1
            return super().place(*asked)

    start, quarter = MONDAY.astimezone(UTC), timedelta(minutes=15)
    day = [(start + n * quarter, start + (n + 1) * quarter) for n in range(32)]
    evening = [(start + timedelta(hours=18), start + timedelta(hours=19))]
    free = Counting({"Device/day": day, "Device/evening": evening})
    wanted = [Wanted(quarter, start, [Option(("Device/day",))]) for _ in range(4)]
    wanted.append(Wanted(quarter, start, [Option(("Device/evening",))]))
    assert list(visits(free, wanted, start, start + timedelta(days=1), timedelta(minutes=30))) == []
    assert free.tries < len(day) * 20


# Times that become free


async def waits(ris: Department, order: Resource) -> Resource:
    """An entry of the waiting list."""
    whose = [{"actor": order["subject"], "status": "needs-action"}]
    entry = {"resourceType": "Appointment", "status": "waitlist", "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}]}
    return await ris.create(entry | {"participant": whose, "created": clock.instant(clock.now())})


async def freed(ris: Department, scanner: Resource) -> list[Resource]:
    """The open work items about times of a scanner."""
    found = await ris.work_items("freed-time")
    return [i for i in found if f"Device/{scanner['id']} " in i["identifier"][0]["value"] and i["status"] == "requested"]


def test_a_time_that_becomes_free_is_offered_to_who_waits_until_it_is_taken(ris):
    async def scenario():
        scanner, _, code, order = await stage(ris)
        urgent, routine = await ordered(ris, code, priority="urgent"), await ordered(ris, code)
        booked = await ris.book(order, scanner, at(8))
        await ris.become(booked, "cancelled")
        assert await freed(ris, scanner) == []  # nobody waits
        elsewhere = await waits(ris, await ordered(ris, await procedure(ris, 30, "US")))
        second, first = await waits(ris, routine), await waits(ris, urgent)
        booked = await ris.book(order, scanner, at(8))
        held = shown(await ask(ris, "hold", appointment_reference=to(await proposed(ris, routine))))[0]
        await ris.become(held, "cancelled")
        assert await freed(ris, scanner) == []  # it was only held
        await ris.become(booked, "cancelled")
        (item,) = await freed(ris, scanner)
        assert item["focus"] == {"reference": f"Appointment/{first['id']}"}
        assert " has become free" in item["description"]
        assert " 2 that could" in item["description"]
        # Who came first gets another time: the next one does.
        other = await ris.book(urgent, scanner, at(9))
        (item,) = await freed(ris, scanner)
        assert (item["focus"], " 1 that could" in item["description"]) == ({"reference": f"Appointment/{second['id']}"}, True)
        # A booking that moves leaves its time free and takes the one that was.
        await ris.update(await ris.read(other), start=at(8), end=at(8, 30))
        (item,) = await freed(ris, scanner)
        assert item["identifier"][0]["value"].endswith(f"Device/{scanner['id']} {utc(at(9))}")
        assert (await ris.read(elsewhere))["status"] == "waitlist"
        # When it begins, nobody need fill it any more; nor when nobody waits.
        await ScheduleWatch(ris.interactions, ZONE, now=lambda: datetime.fromisoformat(at(9, 1))).end_freed_times()
        assert await freed(ris, scanner) == []
        await ris.become(other, "cancelled")
        assert len(await freed(ris, scanner)) == 1
        await ris.book(routine, scanner, at(9, 30))
        assert await freed(ris, scanner) == []

    ris.run(scenario())


def utc(moment: str) -> str:
    return clock.instant(datetime.fromisoformat(moment).astimezone(UTC))


def test_a_time_that_an_urgent_order_takes_is_not_offered(ris):
    async def scenario():
        scanner, _, code, order = await stage(ris)
        await waits(ris, await ordered(ris, code))
        booked = await ris.book(order, scanner, at(8))
        urgent = await ordered(ris, code, priority="stat")
        wanted = {"resource": booking(urgent, scanner, booked["start"]) | {"status": "pending"}}
        await ask(ris, "book", appointment_resource=wanted, displace={"valueString": "polytrauma"})
        assert await freed(ris, scanner) == []

    ris.run(scenario())
