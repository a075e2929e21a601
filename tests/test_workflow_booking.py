"""Booking: an Appointment schedules the order's steps, takes its station's time and its slots, and gives them back."""

import asyncio

import pytest

from tests.department import Department, Resource, booking, unused


def sps_status(step: Resource) -> str | None:
    return step["businessStatus"]["coding"][0]["code"] if "businessStatus" in step else None


def station(step: Resource) -> str | None:
    return step.get("owner", {}).get("reference")


async def slot(ris: Department, status: str = "free") -> Resource:
    schedule = await ris.create({"resourceType": "Schedule", "actor": [{"display": "CT"}]})
    return await ris.create(
        {
            "resourceType": "Slot",
            "schedule": {"reference": f"Schedule/{schedule['id']}"},
            "status": status,
            "start": "2026-09-08T08:00:00Z",
            "end": "2026-09-08T08:30:00Z",
        }
    )


def at(*slots: Resource) -> list[Resource]:
    return [{"reference": f"Slot/{s['id']}"} for s in slots]


# What a booking does


def test_a_booking_schedules_the_step_on_its_station_at_its_time(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        appointment = await ris.book(order, scanner)
        step = await ris.step(order)
        assert (step["status"], sps_status(step), station(step)) == ("accepted", "SCHEDULED", f"Device/{scanner['id']}")
        assert step["restriction"]["period"] == {"start": appointment["start"], "end": appointment["end"]}

    ris.run(scenario())


def test_a_proposed_appointment_schedules_nothing_until_it_is_booked(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        proposed = await ris.book(order, scanner, status="proposed")
        assert (await ris.step(order))["status"] == "requested"
        await ris.become(proposed, "booked")
        assert (await ris.step(order))["status"] == "accepted"

    ris.run(scenario())


def test_a_pending_appointment_keeps_its_time_but_schedules_nothing(ris):
    async def scenario():
        scanner = await ris.scanner()
        order = await ris.order()
        pending = await ris.book(order, scanner, status="pending")
        assert (await ris.step(order))["status"] == "requested"
        assert (await ris.refused(ris.book(await ris.order(), scanner))).status == 409
        await ris.become(pending, "booked")
        assert (await ris.step(order))["status"] == "accepted"

    ris.run(scenario())


@pytest.mark.parametrize("status", ["arrived", "checked-in"])
def test_a_walk_in_who_is_there_when_booked_is_ready(ris, status):
    async def scenario():
        order = await ris.order()
        await ris.book(order, await ris.scanner(), status=status)
        step = await ris.step(order)
        assert (step["status"], sps_status(step)) == ("ready", "ARRIVED")

    ris.run(scenario())


def test_the_patient_arrives_and_the_step_is_ready_and_a_mistake_is_taken_back(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.become(appointment, "arrived")
        assert sps_status(await ris.step(order)) == "ARRIVED"
        await ris.become(appointment, "booked")
        assert sps_status(await ris.step(order)) == "SCHEDULED"
        await ris.become(appointment, "checked-in")
        assert (await ris.step(order))["status"] == "ready"

    ris.run(scenario())


def test_of_two_steps_each_gets_the_station_that_does_its_modality(ris):
    async def scenario():
        order, ct, pet = await ris.order(), await ris.scanner("CT"), await ris.scanner("PT")
        procedure = await ris.procedure(order)
        await ris.create(
            {
                "resourceType": "Task",
                "status": "requested",
                "intent": "plan",
                "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
                "input": [
                    {
                        "type": {"coding": [{"system": "urn:fhir-ris:task-detail", "code": "modality"}]},
                        "valueCodeableConcept": {
                            "coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "PT"}]
                        },
                    }
                ],
            }
        )
        appointment = booking(order, pet)
        appointment["participant"].append({"actor": {"reference": f"Device/{ct['id']}"}, "status": "accepted"})
        await ris.create(appointment)
        assert {station(s) for s in await ris.steps(order)} == {f"Device/{ct['id']}", f"Device/{pet['id']}"}

    ris.run(scenario())


def test_two_examinations_of_one_order_may_be_booked_one_after_the_other(ris):
    async def scenario():
        order, ct, mr = await ris.order(), await ris.scanner("CT"), await ris.scanner("MR")
        await ris.create(
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "filler-order",
                "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
                "code": {"text": "MRI"},
                "subject": order["subject"],
                "orderDetail": [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"}]}],
            }
        )
        await ris.book(order, mr)
        assert sorted(s["status"] for s in await ris.steps(order)) == ["accepted", "requested"]
        await ris.book(order, ct, "2026-09-09T08:00:00Z")
        assert {station(s) for s in await ris.steps(order)} == {f"Device/{ct['id']}", f"Device/{mr['id']}"}

    ris.run(scenario())


def test_a_requested_procedure_can_be_booked_itself(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        await ris.book(await ris.procedure(order) | {"subject": order["subject"]}, scanner)
        assert (await ris.step(order))["status"] == "accepted"

    ris.run(scenario())


# What is refused


def test_a_taken_time_is_refused_and_nothing_is_written(ris):
    async def scenario():
        scanner, order = await ris.scanner(), await ris.order()
        await ris.book(await ris.order(), scanner)
        before = await ris.counts()
        for start, minutes in (("07:45", 30), ("08:15", 30), ("08:10", 5), ("07:00", 180), ("08:00", 30)):
            attempt = ris.create(booking(order, scanner, f"2026-09-08T{start}:00Z", minutes))
            error = await ris.refused(attempt)
            assert (error.status, error.code) == (409, "conflict")
        # The same in another zone's words.
        assert (await ris.refused(ris.book(order, scanner, "2026-09-08T10:15:00+02:00"))).status == 409
        assert await ris.counts() == before
        assert (await ris.step(order))["status"] == "requested"

    ris.run(scenario())


def test_touching_times_and_other_stations_are_free(ris):
    async def scenario():
        scanner = await ris.scanner()
        await ris.book(await ris.order(), scanner)
        for start in ("07:30", "08:30"):
            await ris.book(await ris.order(), scanner, f"2026-09-08T{start}:00Z")
        await ris.book(await ris.order(), await ris.scanner())

    ris.run(scenario())


def test_twenty_bookings_of_one_time_at_once_give_exactly_one(ris):
    async def scenario():
        scanner = await ris.scanner()
        orders = [await ris.order() for _ in range(20)]
        results = await asyncio.gather(*(ris.book(o, scanner) for o in orders), return_exceptions=True)
        assert sum(isinstance(r, dict) for r in results) == 1
        assert {r.status for r in results if not isinstance(r, dict)} == {409}
        booked = await ris.search("Appointment", actor=f"Device/{scanner['id']}")
        assert len(booked) == 1
        assert [(await ris.step(o))["status"] for o in orders].count("accepted") == 1

    ris.run(scenario())


def test_one_order_can_t_be_booked_twice(ris):
    async def scenario():
        order = await ris.order()
        scanners = [await ris.scanner() for _ in range(5)]
        results = await asyncio.gather(*(ris.book(order, s) for s in scanners), return_exceptions=True)
        assert sum(isinstance(r, dict) for r in results) == 1
        assert {r.status for r in results if not isinstance(r, dict)} == {409}

    ris.run(scenario())


def test_what_makes_no_sense_is_refused(ris):
    async def scenario():
        order, scanner, other = await ris.order(), await ris.scanner(), await ris.patient()
        good = booking(order, scanner)
        somebody_else = [{"actor": {"reference": f"Patient/{other['id']}"}, "status": "accepted"}, good["participant"][1]]
        mr = await ris.scanner("MR")
        broken = await ris.scanner(status="inactive")
        before = await ris.counts()
        for wrong in (
            {"participant": somebody_else},
            {"participant": [good["participant"][0], {"actor": {"reference": f"Device/{mr['id']}"}, "status": "accepted"}]},
            {"participant": [good["participant"][0], {"actor": {"reference": f"Device/{broken['id']}"}, "status": "accepted"}]},
            {"participant": [good["participant"][0], {"actor": {"reference": "Device/none"}, "status": "accepted"}]},
            {"end": "2026-09-08T08:00:00Z"},
            {"end": "2026-09-08T07:00:00Z"},
            {"end": "2026-09-10T08:30:00Z"},
            {"basedOn": [{"reference": "ServiceRequest/none"}]},
        ):
            assert (await ris.refused(ris.create(good | wrong))).status == 422, wrong
        for missing in ("start", "end"):
            error = await ris.refused(ris.create({k: v for k, v in good.items() if k != missing}))
            assert error.status == 422
        assert await ris.counts() == before

    ris.run(scenario())


@pytest.mark.parametrize("status", ["draft", "on-hold", "revoked"])
def test_only_an_active_order_is_booked(ris, status):
    async def scenario():
        order = await ris.order(**({"status": "draft"} if status == "draft" else {}))
        if status != "draft":
            await ris.become(order, status)
        assert (await ris.refused(ris.book(order, await ris.scanner()))).status == 422

    ris.run(scenario())


def test_a_booking_can_t_be_deleted_only_cancelled(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        assert (await ris.refused(ris.delete(appointment))).status == 422
        assert (await ris.step(order))["status"] == "accepted"

    ris.run(scenario())


# Changes


def test_a_rescheduled_appointment_takes_its_step_along(ris):
    async def scenario():
        order, one, two = await ris.order(), await ris.scanner(), await ris.scanner()
        appointment = await ris.book(order, one)
        later = booking(order, two, "2026-09-08T12:00:00Z")
        await ris.update(appointment, start=later["start"], end=later["end"], participant=later["participant"])
        step = await ris.step(order)
        assert (step["status"], station(step)) == ("accepted", f"Device/{two['id']}")
        assert step["restriction"]["period"]["start"] == later["start"]
        await ris.book(await ris.order(), one)
        assert (await ris.refused(ris.book(await ris.order(), two, later["start"]))).status == 409

    ris.run(scenario())


def test_a_patient_who_is_there_stays_so_when_moved_to_another_time(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        arrived = await ris.become(appointment, "arrived")
        await ris.update(arrived, start="2026-09-08T08:05:00Z")
        assert (await ris.step(order))["status"] == "ready"

    ris.run(scenario())


def test_an_appointment_can_t_be_moved_into_a_taken_time_but_may_overlap_itself(ris):
    async def scenario():
        scanner = await ris.scanner()
        await ris.book(await ris.order(), scanner)
        order = await ris.order()
        mine = await ris.book(order, scanner, "2026-09-08T09:00:00Z")
        error = await ris.refused(ris.update(mine, start="2026-09-08T08:15:00Z", end="2026-09-08T08:45:00Z"))
        assert error.status == 409
        await ris.update(mine, start="2026-09-08T08:45:00Z", end="2026-09-08T09:15:00Z")
        assert (await ris.step(order))["restriction"]["period"]["start"] == "2026-09-08T08:45:00Z"

    ris.run(scenario())


@pytest.mark.parametrize("status", ["cancelled", "noshow", "entered-in-error"])
def test_a_cancelled_appointment_gives_step_and_time_back(ris, status):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        appointment = await ris.book(order, scanner)
        await ris.become(appointment, status)
        step = await ris.step(order)
        assert (step["status"], station(step), sps_status(step)) == ("requested", None, None)
        assert "restriction" not in step
        assert (await ris.read(order))["status"] == "active"
        await ris.book(await ris.order(), scanner)
        await ris.book(order, scanner, "2026-09-08T09:00:00Z")
        assert (await ris.step(order))["status"] == "accepted"

    ris.run(scenario())


def test_an_appointment_that_loses_its_station_lets_the_step_wait(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.update(appointment, participant=appointment["participant"][:1])
        step = await ris.step(order)
        assert (step["status"], station(step)) == ("requested", None)

    ris.run(scenario())


# On hold


def test_the_appointment_of_a_held_order_may_move_be_cancelled_and_arrive(ris):
    async def scenario():
        held = []
        for _ in range(3):
            order = await ris.order()
            held.append((order, await ris.book(order, await ris.scanner())))
            await ris.become(order, "on-hold")
        await ris.update(held[0][1], start="2026-09-08T08:10:00Z")
        await ris.become(held[1][1], "cancelled")
        await ris.become(held[2][1], "arrived")
        for order, _ in held:
            assert (await ris.step(order))["status"] == "on-hold"
            await ris.become(order, "active")
        moved, cancelled, arrived = [await ris.step(order) for order, _ in held]
        assert (moved["status"], moved["restriction"]["period"]["start"]) == ("accepted", "2026-09-08T08:10:00Z")
        assert (cancelled["status"], station(cancelled)) == ("requested", None)
        assert arrived["status"] == "ready"

    ris.run(scenario())


# Slots


def test_slots_are_busy_while_an_appointment_has_them(ris):
    async def scenario():
        one, two = await slot(ris), await slot(ris)
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner(), slot=at(one))
        assert (await ris.read(one))["status"] == "busy"
        await ris.update(appointment, slot=at(two))
        assert [(await ris.read(s))["status"] for s in (one, two)] == ["free", "busy"]
        await ris.become(appointment, "cancelled")
        assert (await ris.read(two))["status"] == "free"

    ris.run(scenario())


def test_a_slot_is_had_by_one(ris):
    async def scenario():
        wanted = await slot(ris)
        orders = [await ris.order() for _ in range(5)]
        results = await asyncio.gather(*(ris.book(o, None, slot=at(wanted)) for o in orders), return_exceptions=True)
        assert sum(isinstance(r, dict) for r in results) == 1
        assert {r.status for r in results if not isinstance(r, dict)} == {409}
        blocked = await slot(ris, "busy-unavailable")
        assert (await ris.refused(ris.book(orders[0], None, slot=at(blocked)))).status == 409

    ris.run(scenario())


def test_what_has_taken_place_keeps_its_slot(ris):
    async def scenario():
        taken, order = await slot(ris), await ris.order()
        appointment = await ris.book(order, await ris.scanner(), slot=at(taken))
        await ris.perform(order)
        assert (await ris.read(appointment))["status"] == "fulfilled"
        assert (await ris.read(taken))["status"] == "busy"

    ris.run(scenario())


# Without an appointment


def scheduled(step: Resource, scanner: Resource, start: str = "2026-09-08T08:00:00Z") -> Resource:
    return step | {
        "status": "accepted",
        "owner": {"reference": f"Device/{scanner['id']}"},
        "restriction": {"period": {"start": start}},
    }


def test_an_urgent_step_is_scheduled_directly(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        await ris.update(scheduled(await ris.step(order), scanner))
        step = await ris.step(order)
        assert (step["status"], sps_status(step)) == ("accepted", "SCHEDULED")
        assert (await ris.refused(ris.book(order, scanner))).status == 409

    ris.run(scenario())


def test_a_step_is_not_scheduled_without_time_and_a_fitting_station(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        step = await ris.step(order)
        good = scheduled(step, scanner)
        for wrong in (
            {k: v for k, v in good.items() if k != "owner"},
            {k: v for k, v in good.items() if k != "restriction"},
            scheduled(step, await ris.scanner("MR")),
            scheduled(step, await ris.scanner(status="inactive")),
            scheduled(step, {"id": "none"}),
            good | {"owner": order["subject"]},
        ):
            assert (await ris.refused(ris.update(wrong))).status == 422
        assert await ris.step(order) == step

    ris.run(scenario())


# Stations


def test_an_ae_title_belongs_to_one_station_in_use(ris):
    async def scenario():
        title = unused("AE $,|")
        named = {"identifier": [{"system": "urn:fhir-ris:ae-title", "value": title}]}
        first = await ris.scanner(**named)
        error = await ris.refused(ris.scanner(**named))
        assert (error.status, error.code) == (409, "duplicate")
        await ris.update(first, status="inactive")
        second = await ris.scanner(**named)
        assert (await ris.refused(ris.update(first, status="active"))).status == 409
        await ris.update(second, deviceName=[{"name": "renamed", "type": "other"}])
        named = {"identifier": [{"system": "urn:fhir-ris:ae-title", "value": unused("AE")}]}
        results = await asyncio.gather(*(ris.scanner(**named) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(r, dict) for r in results) == 1

    ris.run(scenario())


@pytest.mark.parametrize("title", ["", " CT1", "CT1 ", "SEVENTEEN_LETTERS", "A\\B", "CT\n", "Ä"])
def test_an_ae_title_that_dicom_can_t_carry_is_refused(ris, title):
    async def scenario():
        error = await ris.refused(ris.scanner(identifier=[{"system": "urn:fhir-ris:ae-title", "value": title}]))
        assert error.status in {400, 422}

    ris.run(scenario())


# Who takes part, and for what order


@pytest.mark.parametrize("status", ["booked", "pending", "waitlist"])
def test_an_order_that_ends_while_it_is_booked_leaves_nobody_expected(ris, status):
    async def scenario():
        for _ in range(3):
            order = await ris.order()
            wanted = booking(order, None, "2026-09-10T08:00:00Z") | {"status": status}
            await asyncio.gather(ris.create(wanted), ris.become(order, "revoked"), return_exceptions=True)
            found = await ris.search("Appointment", based_on=f"ServiceRequest/{order['id']}")
            assert (await ris.read(order))["status"] == "revoked"
            assert {a["status"] for a in found} <= {"cancelled"}
        assert "revoked" in str(await ris.refused(ris.create(wanted)))

    ris.run(scenario())


def test_only_the_scanner_that_is_taken_gets_the_step(ris):
    async def scenario():
        scanner, order = await ris.scanner(), await ris.order()
        injector = await ris.create({"resourceType": "Device", "status": "active"})
        beside = {"type": [{"coding": [{"system": "urn:fhir-ris:participant", "code": "equipment"}]}], "status": "accepted"}
        beside["actor"] = {"reference": f"Device/{injector['id']}", "display": "Injector 1"}
        with_injector = booking(order, scanner, "2026-09-10T10:00:00Z")
        with_injector["participant"].insert(1, beside)
        await ris.create(with_injector)
        assert station(await ris.step(order)) == f"Device/{scanner['id']}"
        # Who is told of a booking is not had by it.
        other = await ris.order()
        told = booking(other, scanner, "2026-09-10T10:00:00Z")
        told["participant"][1]["required"] = "information-only"
        await ris.create(told)
        assert (await ris.step(other))["status"] == "requested"

    ris.run(scenario())


def test_a_person_is_not_had_twice_by_whatever_role_they_are_named(ris):
    async def scenario():
        person = await ris.create({"resourceType": "Practitioner", "active": True})
        whose = {"practitioner": {"reference": f"Practitioner/{person['id']}"}, "active": True}
        roles = [await ris.create({"resourceType": "PractitionerRole"} | whose) for _ in range(2)]

        async def book(one: dict[str, object], hour: int) -> None:
            wanted = booking(await ris.order(), None, f"2026-09-10T{hour:02d}:00:00Z")
            named = {"actor": {"reference": f"{one['resourceType']}/{one['id']}"}, "status": "accepted"}
            await ris.create(wanted | {"participant": [*wanted["participant"], named]})

        for hour, (first, then) in enumerate([(person, roles[0]), (roles[0], person), (roles[0], roles[1])], 12):
            await book(first, hour)
            assert (await ris.refused(book(then, hour))).status == 409

    ris.run(scenario())


def test_an_appointment_is_not_moved_while_its_patient_is_on_the_table(ris):
    async def scenario():
        order, scanner, other = await ris.order(), await ris.scanner(), await ris.scanner()
        booked = await ris.book(order, scanner, "2026-09-10T15:00:00Z")
        await ris.perform(order, "in-progress")
        there = await ris.read(booked)
        elsewhere = [there["participant"][0], {"actor": {"reference": f"Device/{other['id']}"}, "status": "accepted"}]
        for change in ({"participant": elsewhere}, {"end": "2026-09-10T16:00:00Z"}):
            assert "has begun" in str(await ris.refused(ris.update(there, **change)))
        await ris.update(there, comment="contrast was given")

    ris.run(scenario())
