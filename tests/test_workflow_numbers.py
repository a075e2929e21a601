"""Figures: rows follow the resources whatever happens, and what managers read is what happened."""

import asyncio
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from bridges.v2.ack import Ack
from bridges.v2.settlement import Settled, Settlement
from fhir_server import clock
from fhir_server.outcome import FhirError
from resources import patient_merge
from resources.numbers import bookings, exam_projection, exam_rows
from resources.numbers.measures import FIGURES
from resources.numbers.question import Figure, Question
from resources.numbers.turn_around import SPANS, percentile
from tests.department import ZONE, Department, Resource

READER = "Practitioner/reader"


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        for name in ("reader", "tech"):
            department.run(department.update({"resourceType": "Practitioner", "id": name}))
        yield department
        department.run(department.close())


async def exam(ris: Department, order: Resource) -> dict[str, Any]:
    """The row of an order's examination."""
    found = await ris.db[exam_rows.COLLECTION].find_one({"_id": (await ris.procedure(order))["id"]})
    assert found is not None
    return found


def reached(row: dict[str, Any]) -> set[str]:
    return {m for m in (*exam_rows.MILESTONES, "cancelled") if m in row}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)


async def deliver(ris: Department, *kinds: str) -> None:
    """What waits in the outbox reaches its receivers."""
    settlement = Settlement(ris.interactions)
    async for message in ris.db["outbox"].find({"state": "pending", "type": {"$in": kinds}}):
        await settlement.add(Settled(message, "delivered", Ack("AA", message["control_id"], "")))
    await settlement.done()


async def perform(ris: Department, step: Resource, start: str, end: str) -> None:
    """A step is done from start to end."""
    performed = {"resourceType": "Procedure", "status": "completed", "subject": step["for"], "basedOn": [step["focus"]]}
    of = {"url": "urn:fhir-ris:scheduled-procedure-step", "valueReference": {"reference": f"Task/{step['id']}"}}
    await ris.create(performed | {"extension": [of], "performedPeriod": {"start": start, "end": end}})


async def available(ris: Department, order: Resource) -> None:
    await ris.become(await ris.study(order), "available")


async def ask(ris: Department, name: str, start: str = "2000-01-01", end: str = "2100-01-01", **more: Any) -> list[Figure]:
    asked = Question(
        utc(start), utc(end), clock.naive(clock.now()), ZONE, **({"spans": SPANS, "basis": FIGURES[name].basis} | more)
    )
    return await FIGURES[name].evaluate(ris.db, asked)


def number(figures: list[Figure], group: str, statistic: str = "count", **stratum: str | None) -> float | None:
    found = [f.value for f in figures if (f.group, f.statistic, f.strata) == (group, statistic, tuple(stratum.items()))]
    assert len(found) == 1, found
    return found[0]


# What becomes of an examination's row


def test_a_plain_examination_reaches_one_milestone_after_the_other(ris):
    async def scenario():
        await ris.destination("ORU^R01")
        order = await ris.order(authoredOn="2026-09-07T10:00:00+02:00", requester={"reference": "Practitioner/tech"})
        scanner = await ris.scanner()
        assert reached(await exam(ris, order)) == {"ordered", "accepted"}
        appointment = await ris.book(order, scanner)
        assert (await exam(ris, order))["waiting"] == "arrival"
        await ris.become(appointment, "arrived")
        performed = await ris.perform(order, "in-progress")
        assert (await exam(ris, order))["waiting"] == "end"
        ended = {"start": "2026-09-08T08:05:00Z", "end": "2026-09-08T08:20:30Z"}
        await ris.become(performed, "completed", performedPeriod=ended)
        await available(ris, order)
        (reading,) = await ris.readings(order)
        assert (await exam(ris, order))["waiting"] == "reading"
        await ris.become(reading, "accepted", owner={"reference": READER})
        report = await ris.report(order, "preliminary", resultsInterpreter=[{"reference": READER}])
        assert (await exam(ris, order))["waiting"] == "signature"
        await ris.become(report, "final", issued="2026-09-08T10:00:00Z")
        row = await exam(ris, order)
        assert reached(row) == set(exam_rows.MILESTONES) - {"delivered", "charged"}
        assert "waiting" not in row
        await deliver(ris, "ORU^R01")
        row = await exam(ris, order)
        assert "delivered" in row
        assert (row["ordered"], row["ended"], row["final"]) == tuple(
            utc(t) for t in ("2026-09-07T08:00", "2026-09-08T08:20:30", "2026-09-08T10:00")
        )
        assert (row["modality"], row["scanner"], row["reader"]) == ("CT", f"Device/{scanner['id']}", READER)
        assert row["referrer"] == "Practitioner/tech"
        assert not [k for k in row if "atient" in k or "name" in k]

    ris.run(scenario())


def test_what_is_taken_back_was_not_reached(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.become(appointment, "arrived")
        assert "arrived" in await exam(ris, order)
        await ris.become(appointment, "booked")
        assert reached(await exam(ris, order)) == {"ordered", "accepted", "scheduled"}
        await ris.become(appointment, "cancelled")
        row = await exam(ris, order)
        assert (reached(row), row["waiting"]) == ({"ordered", "accepted"}, "booking")
        await ris.become(order, "revoked")
        row = await exam(ris, order)
        assert (reached(row), row.get("waiting")) == ({"ordered", "accepted", "cancelled"}, None)

    ris.run(scenario())


def test_a_stopped_examination_counts_when_its_repeat_is_done_and_a_withdrawn_report_is_none(ris):
    async def scenario():
        order, scanner = await ris.order(), await ris.scanner()
        await ris.book(order, scanner)
        await ris.perform(order, "stopped")
        row = await exam(ris, order)
        assert "ended" not in row
        procedure = await ris.procedure(order)
        first = await ris.step(order)
        again = {k: v for k, v in first.items() if k in {"resourceType", "intent", "basedOn", "focus", "for", "input", "code"}}
        again = await ris.create(again | {"status": "requested", "input": first["input"][:1]})
        await ris.book(order, scanner, "2026-09-09T08:00:00Z")
        await perform(ris, again, "2026-09-09T08:05:00Z", "2026-09-09T08:10:00Z")
        row = await exam(ris, order)
        assert (row["started"], row["ended"]) == (utc("2026-09-09T08:05"), utc("2026-09-09T08:10"))
        assert len(row["runs"]) == 2
        report = await ris.report(order)
        assert "final" in await exam(ris, order)
        await ris.become(report, "cancelled")
        assert "final" not in await exam(ris, order)
        await ris.become(procedure, "entered-in-error")
        assert not reached(await exam(ris, order))

    ris.run(scenario())


# Whatever happens, the rows say what the resources say


class NothingThere(Exception):
    """There is none that it could happen to."""


async def _anything(ris: Department, chance: random.Random, orders: list[Resource], scanners: list[Resource], n: int) -> None:
    """One random event; what the rules refuse, doesn't happen."""
    order = chance.choice(orders)
    hour = f"2026-09-{8 + n // 40:02d}T{n % 20:02d}:{chance.choice(('00', '30'))}:00Z"

    async def some(kind: str, **where: str) -> Resource:
        if not (found := await ris.search(kind, **where)):
            raise NothingThere
        return chance.choice(found)

    here = f"ServiceRequest/{order['id']}"
    procedure = f"ServiceRequest/{chance.choice(await ris.procedures(order) or [order])['id']}"
    event = chance.randrange(14)
    if event == 0:
        orders.append(await ris.order(priority=chance.choice(("routine", "stat")), status=chance.choice(("active", "on-hold"))))
    elif event == 1:
        await ris.book(order, chance.choice(scanners), hour)
    elif event in {2, 3}:
        status = chance.choice("booked arrived checked-in fulfilled cancelled noshow".split())
        await ris.become(await some("Appointment", based_on=here), status)
    elif event == 4:
        step = await some("Task", based_on=procedure, intent="plan")
        await ris.perform(order, chance.choice("in-progress completed stopped".split()), step)
    elif event == 5:
        performed = await some("Procedure", based_on=procedure)
        await ris.become(performed, chance.choice("completed stopped entered-in-error".split()))
    elif event == 6:
        step = await some("Task", based_on=procedure, intent="plan")
        await ris.become(step, chance.choice("requested accepted ready in-progress completed failed cancelled".split()))
    elif event == 7:
        reading = await some("Task", based_on=procedure, code="interpretation")
        await ris.become(reading, chance.choice(("requested", "accepted", "cancelled")), owner={"reference": READER})
    elif event == 8:
        of = [{"reference": chance.choice((here, procedure))}]
        await ris.report(order, chance.choice("registered preliminary final".split()), basedOn=of)
    elif event == 9:
        report = await some("DiagnosticReport", subject=order["subject"]["reference"])
        await ris.become(report, chance.choice("preliminary final corrected cancelled entered-in-error".split()))
    elif event == 10:
        await ris.become(order, chance.choice("active on-hold revoked".split()))
    elif event == 11:
        await ris.become(await some("ImagingStudy", basedon=procedure), chance.choice(("available", "registered", "cancelled")))
    else:
        await _added_or_delivered(ris, order, adds=event == 12)


async def _added_or_delivered(ris: Department, order: Resource, *, adds: bool) -> None:
    if not adds:
        await deliver(ris, "ORU^R01", "DFT^P03")
        return
    added = {k: order[k] for k in ("resourceType", "subject", "category", "code")}
    of = [{"reference": f"ServiceRequest/{order['id']}"}]
    await ris.create(added | {"status": "active", "intent": "filler-order", "basedOn": of})


async def _rows(ris: Department) -> dict[str, list[dict[str, Any]]]:
    return {c: [d async for d in ris.db[c].find(sort=[("_id", 1)])] for c in (exam_rows.COLLECTION, bookings.COLLECTION)}


async def _rebuild(ris: Department) -> None:
    for rows in (exam_projection.rebuild, bookings.rebuild):
        async for _ in rows(ris.interactions):
            pass


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_made_anew_from_resources_and_history_are_those_that_were_kept(ris, seed):
    async def scenario():
        chance = random.Random(seed)
        orders, scanners = [await ris.order() for _ in range(4)], [await ris.scanner() for _ in range(2)]
        happened = 0
        for n in range(80):
            try:
                await _anything(ris, chance, orders, scanners, n)
                happened += 1
            except (FhirError, NothingThere):
                continue
        assert happened > 20
        survivor, prior = await ris.patient(), await ris.read(orders[0]["subject"]["reference"])

        async def merge(unit):
            await patient_merge.merge(unit, survivor, prior, ())

        await ris.interactions.transact(exam_projection._ACCESS, exam_projection._ACT, merge)
        kept = await _rows(ris)
        for collection, rows in kept.items():
            assert rows
            await ris.db[collection].delete_many({})
        await _rebuild(ris)
        assert await _rows(ris) == kept
        await ris.db[exam_rows.COLLECTION].insert_one({"_id": "nobody", "parts": []})
        await _rebuild(ris)
        assert await _rows(ris) == kept

    ris.run(scenario())


def test_a_row_that_is_missing_is_made_whole_by_the_next_change(ris):
    async def scenario():
        order = await ris.order()
        appointment = await ris.book(order, await ris.scanner())
        await ris.db[exam_rows.COLLECTION].delete_many({"_id": (await ris.procedure(order))["id"]})
        await ris.become(appointment, "arrived")
        assert reached(await exam(ris, order)) == {"ordered", "accepted", "scheduled", "arrived"}

    ris.run(scenario())


# What managers read


def test_percentiles_are_by_nearest_rank():
    assert [percentile([10, 20, 30, 40], p) for p in (50, 90, 100)] == [20, 40, 40]
    assert [percentile([7], p) for p in (1, 50, 90)] == [7, 7, 7]
    assert percentile(list(range(1, 101)), 90) == 90


async def _performed(ris: Department, scanner: Resource, start: str, end: str, **elements: Any) -> Resource:
    order = await ris.order(**elements)
    await ris.book(order, scanner, start)
    await perform(ris, await ris.step(order), start, end)
    return order


def test_turn_around_times_and_volumes_of_the_departments_day(ris):
    async def scenario():
        mr = await ris.scanner("MR")
        # In Berlin, 22:30 in UTC is half past midnight of the next day.
        for start, end, priority in (
            ("2031-03-01T08:00:00Z", "2031-03-01T08:10:00Z", "stat"),
            ("2031-03-01T09:00:00Z", "2031-03-01T09:30:00Z", "routine"),
            ("2031-03-01T23:20:00Z", "2031-03-01T23:30:00Z", "routine"),
        ):
            await _performed(ris, mr, start, end, modality="MR", priority=priority)
        by = {"stratifiers": (("day",), ("modality", "priority")), "spans": (("started", "ended"),)}
        day = await ask(ris, "turn-around", "2031-02-28T23:00", "2031-03-01T23:00", **by)
        assert number(day, "started-ended", "median") == 10
        assert number(day, "started-ended", "p90") == 30
        assert [f.count for f in day if not f.strata] == [2, 2]
        assert number(day, "started-ended", "p90", modality="MR", priority="stat") == 10
        both = await ask(ris, "volumes", "2031-02-28T23:00", "2031-03-02T23:00", stratifiers=(("day",),))
        assert number(both, "performed", day="2031-03-01") == 2
        assert number(both, "performed", day="2031-03-02") == 1
        assert number(both, "performed") == 3
        few = await ask(ris, "turn-around", "2031-02-28T23:00", "2031-03-02T23:00", every_cell=False, **by)
        assert {f.value for f in few} == {None}
        assert {f.count for f in few} == {1, 2, 3}

    ris.run(scenario())


def test_scanners_used_time_and_patients_who_did_not_come(ris):
    async def scenario():
        place = await ris.create({"resourceType": "Location", "name": "East"})
        us = await ris.scanner("US", location={"reference": f"Location/{place['id']}"})
        device = {"reference": f"Device/{us['id']}"}
        schedule = await ris.create({"resourceType": "Schedule", "actor": [device]})
        for hour, status in ((8, "free"), (9, "busy"), (10, "busy-unavailable")):
            slot = {"start": f"2032-05-03T{hour:02d}:00:00+02:00", "end": f"2032-05-03T{hour + 1:02d}:00:00+02:00"}
            whose = {"schedule": {"reference": f"Schedule/{schedule['id']}"}}
            await ris.create({"resourceType": "Slot", "status": status} | slot | whose)
        await _performed(ris, us, "2032-05-03T06:00:00Z", "2032-05-03T06:30:00Z", modality="US")
        missed = await ris.book(await ris.order(modality="US"), us, "2032-05-03T07:00:00Z")
        await ris.become(missed, "noshow")
        called_off = await ris.book(await ris.order(modality="US"), us, "2032-05-03T07:30:00Z")
        await ris.become(called_off, "cancelled")
        places = {f"Device/{us['id']}": f"Location/{place['id']}"}
        for name, value in (("scanner", f"Device/{us['id']}"), ("location", f"Location/{place['id']}")):
            found = await ask(ris, "scanners", "2032-05-03", "2032-05-04", stratifiers=((name,),), locations=places)
            said = {f.group: f.value for f in found if f.strata == ((name, value),)}
            assert said == {
                "offered": 120, "booked": 60, "busy": 30, "utilisation": 25, "no-show-rate": 50, "bookings": 2, "no-shows": 1,
                "cancellations": 1,
            }  # fmt: skip

    ris.run(scenario())


def test_backlog_by_what_it_waits_for_and_how_long(ris):
    async def scenario():
        await ris.become(await ris.order(authoredOn="2033-01-01T10:00:00Z"), "on-hold")
        found = await ask(ris, "backlog", "2033-01-01", "2033-01-02", now=utc("2033-01-03T12:00"), stratifiers=(("age",),))
        assert number(found, "release") == 1
        assert number(found, "release", age="1 to 3 days") == 1
        assert number(found, "reading") == 0

    async def ask(department, name, start, end, now, stratifiers):
        return await FIGURES[name].evaluate(department.db, Question(utc(start), utc(end), now, ZONE, stratifiers=stratifiers))

    ris.run(scenario())


def test_critical_results_and_interfaces(ris):
    async def scenario():
        order = await ris.order()
        report = await ris.report(order)
        about = {
            "resourceType": "CommunicationRequest",
            "subject": order["subject"],
            "about": [{"reference": f"DiagnosticReport/{report['id']}"}],
            "category": [
                {"coding": [{"system": "urn:fhir-ris:communication", "code": "critical-result"}]},
                {"coding": [{"system": "http://radlex.org", "code": "RID49480"}]},
            ],
            "authoredOn": "2034-01-01T08:00:00Z",
        }
        await ris.create(about | {"status": "active", "priority": "stat", "occurrenceDateTime": "2020-01-01T09:00:00Z"})
        await ris.create(about | {"status": "active", "priority": "stat", "occurrenceDateTime": "2090-01-01T09:00:00Z"})
        await ris.create(about | {"status": "completed", "priority": "asap", "occurrenceDateTime": "2090-01-01T09:00:00Z"})
        found = await ask(ris, "critical-results", "2034-01-01", "2034-01-02", stratifiers=(("priority",),))
        assert [number(found, g) for g in ("opened", "open", "overdue")] == [3, 2, 1]
        assert number(found, "open", priority="asap") == 0
        ehr = await ris.destination("SIU^S12")
        await ris.receive("MSH|^~\\&|LAB|X|RIS|X|20260901||ADT^A04|{id}|P|2.5.1", "EVN|A04")
        await ris.book(await ris.order(), await ris.scanner("CT"))
        found = await ask(ris, "interfaces", stratifiers=(("partner",),))
        own = {f.group: f.value for f in found if f.strata == (("partner", f"Endpoint/{ehr['id']}"),)}
        assert (own["sent"], own["queued"], own["delivered"]) == (1, 1, 0)
        assert own["oldest"] is not None
        await deliver(ris, "SIU^S12")
        found = await ask(ris, "interfaces", stratifiers=(("partner",),))
        assert number(found, "delivered", partner=f"Endpoint/{ehr['id']}") == 1
        assert number(found, "queued", partner=f"Endpoint/{ehr['id']}") == 0
        assert (number(found, "failed") or 0) >= 1

    ris.run(scenario())
