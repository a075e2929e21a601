"""Changes after the fact: what may still change in an accepted order or a booking, and what then follows."""

import asyncio

import pytest

from tests.department import Department, booking, unused, v2


def test_what_a_booking_is_for_cannot_be_changed_so_that_no_step_is_left_behind(ris: Department) -> None:
    async def scenario() -> None:
        scanner, order, other = await ris.scanner(), await ris.order(), await ris.order()
        appointment = await ris.book(order, scanner)
        patient = {"actor": other["subject"], "status": "accepted"}
        device = {"actor": {"reference": f"Device/{scanner['id']}"}, "status": "accepted"}
        swapped = ris.update(appointment, basedOn=[{"reference": f"ServiceRequest/{other['id']}"}], participant=[patient, device])
        assert (await ris.refused(swapped)).issues[0].expression == "Appointment.basedOn"
        for status in ("booked", "cancelled", "entered-in-error"):
            without = {k: v for k, v in appointment.items() if k != "basedOn"} | {"status": status}
            assert (await ris.refused(ris.update(without))).code == "business-rule"
        assert (await ris.step(order))["status"] == "accepted"
        await ris.become(appointment, "cancelled")
        assert (await ris.step(order))["status"] == "requested"

    ris.run(scenario())


def test_a_booked_station_has_not_declined(ris: Department) -> None:
    async def scenario() -> None:
        scanner, order = await ris.scanner(), await ris.order()
        appointment = await ris.book(order, scanner)
        declined = [p | {"status": "declined"} for p in appointment["participant"]]
        error = await ris.refused(ris.update(appointment, participant=declined))
        assert error.code == "business-rule"
        assert str(error.issues[0].expression).startswith("Appointment.participant[")

    ris.run(scenario())


def test_a_version_of_a_station_is_that_station(ris: Department) -> None:
    async def scenario() -> None:
        scanner = await ris.scanner()
        attempts = []
        for n in range(6):
            attempt = booking(await ris.order(), scanner)
            for participant in attempt["participant"] if n % 2 else ():
                if participant["actor"]["reference"].startswith("Device/"):
                    participant["actor"] = {"reference": participant["actor"]["reference"] + "/_history/1"}
            attempts.append(ris.create(attempt))
        done = await asyncio.gather(*attempts, return_exceptions=True)
        assert len([d for d in done if isinstance(d, dict)]) == 1

    ris.run(scenario())


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-12:00"])
def test_nobody_is_booked_at_the_end_of_time(ris: Department, start: str) -> None:
    async def scenario() -> None:
        attempt = booking(await ris.order(), await ris.scanner()) | {"start": start, "end": start}
        error = await ris.refused(ris.create(attempt))
        assert (error.code, error.issues[0].expression) == ("value", "Appointment.start")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("code", {"coding": [{"system": "http://loinc.org", "code": "24725-4", "display": "CT Head"}]}),
        ("bodySite", [{"text": "head"}]),
        ("orderDetail", [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"}]}]),
    ],
)
def test_what_is_examined_cannot_be_changed_in_an_accepted_order(ris: Department, element: str, value: object) -> None:
    async def scenario() -> None:
        order = await ris.order()
        error = await ris.refused(ris.update(order, **{element: value}))
        assert (error.code, error.issues[0].expression) == ("business-rule", f"ServiceRequest.{element}")
        draft = await ris.order(status="draft")
        await ris.update(draft, **{element: value})

    ris.run(scenario())


def test_a_new_urgency_and_reason_reach_the_procedure_and_what_has_not_begun(ris: Department) -> None:
    async def scenario() -> None:
        order = await ris.order()
        await ris.book(order, await ris.scanner())
        await ris.update(await ris.read(order), priority="stat", reasonCode=[{"text": "trauma"}])
        procedure, step = await ris.procedure(order), await ris.step(order)
        assert (procedure["priority"], procedure["reasonCode"]) == ("stat", [{"text": "trauma"}])
        assert (step["priority"], step["status"]) == ("stat", "accepted")

    ris.run(scenario())


def test_an_urgency_that_comes_after_the_start_leaves_the_step_alone(ris: Department) -> None:
    async def scenario() -> None:
        order = await ris.order()
        await ris.book(order, await ris.scanner())
        await ris.perform(order, "in-progress")
        await ris.update(await ris.read(order), priority="stat")
        assert (await ris.step(order)).get("priority", "routine") == "routine"
        assert (await ris.procedure(order))["priority"] == "stat"

    ris.run(scenario())


def test_an_order_number_that_no_scanner_could_show_is_refused(ris: Department) -> None:
    async def scenario() -> None:
        plac = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}
        for length, good in ((64, True), (65, False)):
            attempt = ris.order(
                identifier=[{"type": plac, "system": "urn:example:placer", "value": unused("L").ljust(length, "x")}]
            )
            if good:
                await attempt
            else:
                assert (await ris.refused(attempt)).issues[0].expression == "ServiceRequest.identifier[0].value"

    ris.run(scenario())


@pytest.mark.parametrize("field", [3, 5])
def test_a_field_that_repeats_without_end_is_refused_at_once(ris: Department, field: int) -> None:
    async def scenario() -> None:
        many = "~".join(["Aa^Bb"] * 400_000)
        pid = f"PID|1||{unused('P')}^^^EXAMPLEHOSP||{many}" if field == 5 else f"PID|1||{many}||Aa^Bb"
        message = v2("MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ADT^A04^ADT_A01|{id}|P|2.5.1", pid)
        ack = await ris.receive(message)
        assert ack.all("MSA")[0].field(1) == "AE"
        assert ack.all("ERR")[0].raw(2) == f"PID^1^{field}"

    ris.run(scenario())
