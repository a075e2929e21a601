"""Authorization: what the payer must authorize is booked with a valid one only, by whatever door, and people are told in time."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from bridges.payer import outbound as payer_outbound
from bridges.payer.client import Payers
from bridges.payer.delivery import PayerDelivery, Timing
from fhir_server.audit import Act
from fhir_server.unit_of_work import UnitOfWork
from resources.coverage import submission
from resources.coverage.watch import AuthorizationWatch
from tests.department import ACCESS, Department, Resource, booking, code, place, text, unused

LOINC = "http://loinc.org"
CPT = "urn:example:cpt"
MISSING, EXPIRING, EXHAUSTED = "authorization-missing", "authorization-expiring", "authorization-exhausted"


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.registry.projection(payer_outbound.project)
        runner.run(catalogue(department))
        yield department
        department.run(department.close())


PET = {"coding": [{"system": LOINC, "code": "44139-4", "display": "PET/CT whole body"}]}


async def catalogue(ris: Department) -> None:
    """PET needs the payer's authorization; payers know it by what is charged for it."""
    charged = {"url": "code", "valueCodeableConcept": {"coding": [{"system": CPT, "code": "78816"}]}}
    await ris.create(
        {
            "resourceType": "ActivityDefinition",
            "status": "active",
            "identifier": [{"system": LOINC, "value": "44139-4"}],
            "code": PET,
            "extension": [
                {"url": "urn:fhir-ris:authorization-required", "valueBoolean": True},
                {"url": "urn:fhir-ris:charge", "extension": [{"url": "component", "valueCode": "technical"}, charged]},
            ],
        }
    )


async def insured(ris: Department) -> tuple[Resource, Resource]:
    """A patient and the Coverage."""
    patient = await ris.patient()
    payor = await ris.create({"resourceType": "Organization", "name": unused("Payer ")})
    whose = {"reference": f"Patient/{patient['id']}"}
    coverage = {"resourceType": "Coverage", "status": "active", "beneficiary": whose}
    return patient, await ris.create(coverage | {"payor": [{"reference": f"Organization/{payor['id']}"}]})


async def authorization(ris: Department, coverage: Resource, **elements: object) -> Resource:
    """A preauthorization of September 2026."""
    said = {
        "resourceType": "ClaimResponse",
        "status": "active",
        "type": {"text": "institutional"},
        "use": "preauthorization",
        "patient": coverage["beneficiary"],
        "created": "2026-08-20",
        "insurer": coverage["payor"][0],
        "outcome": "complete",
        "preAuthRef": unused("AUTH"),
        "preAuthPeriod": {"start": "2026-09-01", "end": "2026-09-30"},
        "insurance": [{"sequence": 1, "focal": True, "coverage": to(coverage)}],
    }
    return await ris.create({k: v for k, v in (said | elements).items() if v is not None})


def to(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


async def pet(ris: Department, patient: Resource, *insurance: Resource) -> Resource:
    """An order for what needs an authorization."""
    named = {"insurance": [to(i) for i in insurance]} if insurance else {}
    return await ris.order(patient, "PT", code=PET, **named)


async def mark(ris: Department, order: Resource, url: str = "urn:fhir-ris:authorization") -> Resource | None:
    extensions = (await ris.procedure(order)).get("extension", ())
    return next((e["valueReference"] for e in extensions if e["url"] == url), None)


async def watch(ris: Department, now: str = "2026-09-02T12:00:00+00:00") -> None:
    """Look at all that is due, as the worker does."""
    moment = datetime.fromisoformat(now)
    await ris.db["authorization_watch"].update_many({}, {"$min": {"due": moment.astimezone(UTC).replace(tzinfo=None)}})
    await AuthorizationWatch(ris.interactions, UTC, lambda: moment).look()


async def items(ris: Department, kind: str, about: Resource) -> list[str]:
    """The open work items of a kind about a resource: what they say."""
    found = await ris.work_items(kind, focus=to(about)["reference"], status="requested")
    return [i["description"] for i in found]


# Booking


def test_what_needs_an_authorization_is_booked_by_no_door_without_one(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        order, scanner = await pet(ris, patient, coverage), await ris.scanner("PT")
        for attempt in (
            ris.book(order, scanner),
            ris.book(order, None),
            ris.update(
                await ris.step(order),
                status="accepted",
                owner=to(scanner),
                restriction={"period": {"start": "2026-09-08T08:00:00Z", "end": "2026-09-08T08:30:00Z"}},
            ),
        ):
            refusal = await ris.refused(attempt)
            assert (refusal.status, refusal.code) == (422, "business-rule")
            assert "PET/CT whole body needs the payer's authorization" in str(refusal)
        assert (await ris.step(order))["status"] == "requested"
        time = {"period": {"start": "2026-09-08T08:00:00Z", "end": "2026-09-08T08:30:00Z"}}
        held = await ris.update(await ris.step(order), status="on-hold", owner=to(scanner), restriction=time)
        for status in ("accepted", "ready"):  # nor by a detour
            assert (await ris.refused(ris.become(held, status))).code == "business-rule"
        await ris.become(held, "requested")
        assert (await ris.book(order, scanner, status="proposed"))["status"] == "proposed"
        await ris.book(await ris.order(patient), await ris.scanner())  # a CT of the chest needs none

    ris.run(scenario())


def test_with_an_authorization_it_is_booked_and_shows_which_one(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        granted = await authorization(ris, coverage)
        order = await pet(ris, patient, coverage, granted)
        await ris.book(order, await ris.scanner("PT"))
        assert (await ris.step(order))["status"] == "accepted"
        assert await mark(ris, order) == to(granted)

    ris.run(scenario())


@pytest.mark.parametrize(
    ("elements", "why"),
    [
        ({"preAuthPeriod": {"end": "2026-09-07"}}, "ends on 2026-09-07"),
        ({"preAuthPeriod": {"start": "2026-09-09"}}, "begins on 2026-09-09"),
        ({"status": "cancelled"}, ""),
        ({"use": "claim"}, ""),
        ({"preAuthRef": None}, ""),
        ({"outcome": "error"}, ""),
        ({"addItem": [{"productOrService": {"coding": [{"system": CPT, "code": "71250"}]}, "adjudication": []}]}, ""),
    ],
)
def test_an_authorization_that_does_not_hold_is_none(ris, elements, why):
    async def scenario():
        patient, coverage = await insured(ris)
        if "addItem" in elements:
            elements["addItem"][0]["adjudication"] = [{"category": {"text": "submitted"}}]
        order = await pet(ris, patient, coverage, await authorization(ris, coverage, **elements))
        refusal = await ris.refused(ris.book(order, await ris.scanner("PT")))
        assert why in str(refusal)
        assert "AUTH" not in str(refusal)

    ris.run(scenario())


def test_the_last_day_is_one_of_the_department_s_and_a_move_beyond_it_is_refused(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        order = await pet(ris, patient, await authorization(ris, coverage, preAuthPeriod={"end": "2026-09-08"}))
        appointment = await ris.book(order, await ris.scanner("PT"), "2026-09-08T23:00:00Z")
        moved = {"start": "2026-09-09T08:00:00Z", "end": "2026-09-09T08:30:00Z"}
        assert (await ris.refused(ris.update(await ris.read(appointment), **moved))).status == 422
        earlier = {"start": "2026-09-07T08:00:00Z", "end": "2026-09-07T08:30:00Z"}
        await ris.update(await ris.read(appointment), **earlier)
        assert (await ris.step(order))["restriction"]["period"]["start"] == earlier["start"]

    ris.run(scenario())


def test_an_authorization_for_two_is_used_up_after_two_and_given_back_by_a_revoked_order(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        listed = {"productOrService": {"coding": [{"system": CPT, "code": "78816"}]}, "quantity": {"value": 2}}
        granted = await authorization(ris, coverage, addItem=[listed | {"adjudication": [{"category": {"text": "submitted"}}]}])
        orders = [await pet(ris, patient, coverage) for _ in range(3)]
        scanners = [await ris.scanner("PT") for _ in range(3)]
        await ris.book(orders[0], scanners[0])
        # Two people book the last one at once: one of them is told that it is used up.
        outcomes = await asyncio.gather(*(ris.book(orders[i], scanners[i]) for i in (1, 2)), return_exceptions=True)
        (refusal,) = (o for o in outcomes if isinstance(o, Exception))
        assert "for 2, is used up" in str(refusal)
        loser = next(i for i in (1, 2) if outcomes[i - 1] is refusal)
        await watch(ris)
        (told,) = await items(ris, EXHAUSTED, granted)
        assert (await ris.procedure(orders[loser]))["identifier"][0]["value"] in told
        await watch(ris)
        assert len(await items(ris, EXHAUSTED, granted)) == 1
        await ris.become(orders[0], "revoked")
        await ris.book(orders[loser], scanners[loser])
        await watch(ris)
        assert await items(ris, EXHAUSTED, granted) == []

    ris.run(scenario())


@pytest.mark.parametrize(
    ("insurance", "extra", "booked"),
    [
        ({"inforce": True}, {"preAuthRef": "A1"}, True),
        ({"inforce": True}, {}, False),
        ({"inforce": False}, {"preAuthRef": "A1"}, False),
        ({"inforce": True, "benefitPeriod": {"end": "2026-09-07"}}, {"preAuthRef": "A1"}, False),
        ({"inforce": True, "item": [{"productOrService": PET, "authorizationRequired": False}]}, {}, True),
        ({"inforce": True, "item": [{"productOrService": PET, "excluded": True}]}, {"preAuthRef": "A1"}, False),
        ({"inforce": True}, {"preAuthRef": "A1", "outcome": "queued"}, False),
    ],
)
def test_what_a_payer_answered_about_eligibility_authorizes_or_does_not(ris, insurance, extra, booked):
    async def scenario():
        patient, coverage = await insured(ris)
        order = await pet(ris, patient, coverage)
        base = {"status": "active", "purpose": ["auth-requirements"], "patient": to(patient), "created": "2026-08-30"}
        base |= {"insurer": coverage["payor"][0]}
        request = await ris.create(
            {"resourceType": "CoverageEligibilityRequest", "insurance": [{"coverage": to(coverage)}]}
            | base
            | {"item": [{"detail": [to(order)]}]}
        )
        answer = {"resourceType": "CoverageEligibilityResponse", "request": to(request), "outcome": "complete"}
        await ris.create(answer | base | {"insurance": [{"coverage": to(coverage)} | insurance]} | extra)
        if booked:
            await ris.book(order, await ris.scanner("PT"))
        else:
            assert (await ris.refused(ris.book(order, await ris.scanner("PT")))).status == 422
        # It is for that order; another one of the patient, which it doesn't list, has no part in it.
        other = await pet(ris, patient, coverage)
        listed = any("productOrService" in i for i in insurance.get("item", ()))
        if not listed:
            assert (await ris.refused(ris.book(other, await ris.scanner("PT")))).status == 422

    ris.run(scenario())


def test_nobody_is_booked_on_somebody_else_s_insurance(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        _, foreign = await insured(ris)
        for named in (foreign, await authorization(ris, foreign)):
            refusal = await ris.refused(pet(ris, patient, coverage, named))
            assert (refusal.status, refusal.issues[0].expression) == (422, "ServiceRequest.insurance[1]")

    ris.run(scenario())


@pytest.mark.parametrize("url", ["urn:fhir-ris:authorization", "urn:fhir-ris:authorization-override"])
def test_whoever_writes_the_order_can_not_write_the_department_s_marks(ris, url):
    async def scenario():
        patient, coverage = await insured(ris)
        granted = await authorization(ris, coverage)
        order = await pet(ris, patient, granted)
        forged = {"url": url, "valueReference": to(granted)}
        assert (await ris.refused(ris.update(await ris.procedure(order), extension=[forged]))).status == 422
        assert (await ris.refused(pet_with(ris, patient, forged))).status == 422
        await ris.book(order, await ris.scanner("PT"))
        procedure = await ris.update(await ris.procedure(order), extension=None)
        assert procedure["extension"] == [{"url": "urn:fhir-ris:authorization", "valueReference": to(granted)}]

    async def pet_with(ris, patient, extension):
        await ris.order(patient, "PT", code=PET, extension=[extension])

    ris.run(scenario())


def test_who_is_examined_unbooked_is_not_stopped_but_shown(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        order = await pet(ris, patient, coverage)
        await ris.perform(order)
        assert (await ris.step(order))["status"] == "completed"
        assert len(await items(ris, MISSING, order)) == 1

    ris.run(scenario())


# By HL7 v2


def order_message(number: str, *insurance: str) -> tuple[str, ...]:
    return (
        "MSH|^~\\&|HIS|EXAMPLEHOSP|RIS|EXAMPLEHOSP|20260901080000||ORM^O01|{id}|P|2.5.1",
        f"PID|1||{number}^^^HIS^MR||Muster^Anna||19700131|F",
        *insurance,
        f"ORC|NW|{number}^HIS",
        f"OBR|1|{number}^HIS||44139-4^PET/CT whole body^LN|||||||||||||||||||||PT",
    )


def schedule_message(number: str, scanner: Resource, start: str = "20260908080000") -> tuple[str, ...]:
    title = scanner["identifier"][0]["value"]
    return (
        "MSH|^~\\&|SCHED|EXAMPLEHOSP|RIS|EXAMPLEHOSP|20260901080000||SIU^S12|{id}|P|2.5.1",
        f"SCH||S{number}^SCHED|||||||30|MIN|^^^{start}|||||||||||||||{number}^HIS",
        f"PID|1||{number}^^^HIS^MR||Muster^Anna||19700131|F",
        "RGS|1",
        f"AIG|1||{title}",
    )


def test_an_outside_scheduler_is_told_and_so_are_people_until_the_authorization_is_there(ris):
    async def scenario():
        number, scanner = unused("N"), await ris.scanner("PT")
        insurance = "IN1|1|PLAN|PAY1^^^HIS|Example Health||||||||||||||SEL|||||||||||||||||||POL-9"
        await ris.accepted(*order_message(number, insurance))
        order = await ris.one("ServiceRequest", identifier=number, intent="order")
        for _ in range(2):
            ack = await ris.receive(*schedule_message(number, scanner))
            assert (code(ack), "needs the payer's authorization" in ack.raw.decode()) == ("AE", True), text(ack)
            assert place(ack) == "SCH-26"
        assert len(await items(ris, MISSING, order)) == 1
        # The certification comes with a change of the order, in IN3.
        changed = list(order_message(number, insurance, "IN3|1|CERT-77|||||||20260901|20260930"))
        changed[-2] = changed[-2].replace("NW", "XO")
        await ris.accepted(*changed)
        await ris.accepted(*schedule_message(number, scanner))
        granted = await ris.read((await mark(ris, order))["reference"])
        assert (granted["preAuthRef"], granted["preAuthPeriod"]) == ("CERT-77", {"start": "2026-09-01", "end": "2026-09-30"})
        assert await items(ris, MISSING, order) == []

    ris.run(scenario())


# Watching


def test_a_booking_beyond_what_is_left_of_its_authorization_is_shown_until_one_of_them_is_mended(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        granted = await authorization(ris, coverage)
        order = await pet(ris, patient, granted)
        appointment = await ris.book(order, await ris.scanner("PT"), "2026-09-20T08:00:00Z")
        await watch(ris)
        assert await items(ris, EXPIRING, granted) == []
        await ris.update(await ris.read(granted), preAuthPeriod={"start": "2026-09-01", "end": "2026-09-10"})
        for _ in range(2):
            await watch(ris)
            (told,) = await items(ris, EXPIRING, granted)
            assert (await ris.procedure(order))["identifier"][0]["value"] in told
        moved = {"start": "2026-09-10T08:00:00Z", "end": "2026-09-10T08:30:00Z"}
        await ris.update(await ris.read(appointment), **moved)
        await watch(ris)
        assert await items(ris, EXPIRING, granted) == []
        await ris.become(granted, "cancelled")
        await watch(ris)
        assert len(await items(ris, EXPIRING, granted)) == 1
        await ris.become(order, "revoked")
        await watch(ris)
        assert await items(ris, EXPIRING, granted) == []

    ris.run(scenario())


def test_an_order_that_waits_is_shown_a_week_before_its_authorization_ends(ris):
    async def scenario():
        patient, coverage = await insured(ris)
        granted = await authorization(ris, coverage)
        order = await pet(ris, patient, granted)
        await watch(ris, "2026-09-02T12:00:00+00:00")
        assert await items(ris, EXPIRING, granted) == []
        due = await ris.db["authorization_watch"].find_one({"_id": to(granted)["reference"]})
        assert due["due"] == datetime(2026, 9, 24)  # noqa: DTZ001 - as MongoDB keeps it
        await AuthorizationWatch(ris.interactions, UTC, lambda: datetime(2026, 9, 24, 1, tzinfo=UTC)).look()
        (told,) = await items(ris, EXPIRING, granted)
        assert "ends on 2026-09-30" in told
        await ris.create(booking(order, await ris.scanner("PT"), "2026-09-28T08:00:00Z"))
        await watch(ris, "2026-09-24T02:00:00+00:00")
        assert await items(ris, EXPIRING, granted) == []

    ris.run(scenario())


# What waits for a payer


async def asked(ris: Department) -> tuple[Resource, Resource]:
    """A request to a payer, and the response that waits; nobody sends in here."""
    patient, coverage = await insured(ris)
    kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest"}
    endpoint = await ris.create(
        {"resourceType": "Endpoint", "status": "active", "connectionType": kind, "address": "http://127.0.0.1:9/fhir"}
        | {"payloadType": [{"text": "eligibility"}]}
    )
    insurer = await ris.create({"resourceType": "Organization", "name": "Example Health", "endpoint": [to(endpoint)]})
    request = await ris.create(
        {"resourceType": "CoverageEligibilityRequest", "status": "active", "purpose": ["benefits"], "created": "2026-08-30"}
        | {"patient": to(patient), "insurer": to(insurer), "insurance": [{"coverage": to(coverage)}]}
    )
    return request, await ask(ris, request)


async def ask(ris: Department, request: Resource) -> Resource:
    async def work(unit: UnitOfWork) -> Resource:
        return await submission.ask(unit, request)

    return await ris.interactions.transact(ACCESS, Act("test"), work)


def test_a_request_that_was_cancelled_is_not_sent(ris):
    async def scenario():
        request, waiting = await asked(ris)
        await ris.become(request, "cancelled")
        assert (await ris.refused(ask(ris, await ris.read(request)))).status == 422
        async with PayerDelivery(ris.interactions, Payers(seconds=1), Timing(look=0.02)).running():
            while (response := await ris.read(waiting))["outcome"] == "queued":
                await asyncio.sleep(0.02)
        assert response["error"][0]["code"]["coding"][0]["code"] == "cancelled"
        assert await items(ris, "eligibility-failed", request) == []

    ris.run(scenario())


def test_a_request_whose_message_an_operator_has_cancelled_can_be_sent_anew(ris):
    async def scenario():
        request, waiting = await asked(ris)
        assert (await ask(ris, request))["id"] == waiting["id"]
        await ris.db["outbox"].update_one({"control_id": waiting["id"]}, {"$set": {"state": "cancelled"}})
        assert (await ask(ris, request))["id"] != waiting["id"]
        assert (await ris.read(waiting))["outcome"] == "error"

    ris.run(scenario())
