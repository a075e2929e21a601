"""Orders that meet: two at once under one number, a cancel against a start, and messages that wait for their order."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from bridges.v2 import order_parked, parked_sweep
from bridges.v2.inbound import Inbound
from bridges.v2.message import parse
from bridges.v2.partners import Partners
from fhir_server import clock
from tests.department import PEER, ZONE, Department, booking, code, condition, place, unused, v2


def order(
    sender: str, patient: str, placer: str, control: str = "NW", *, priority: str = "", procedure: str = "24627-2"
) -> bytes:
    return v2(
        f"MSH|^~\\&|{sender}|NORDKLINIK|FHIR_RIS|RAD|20270107081500||OMG^O19^OMG_O19|{{id}}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||{patient}^^^NORDKLINIK^MR||Muster^Mara||19700131|F",
        f"ORC|{control}|{placer}^NORD",
        f"TQ1|1||||||||{priority}",
        f"OBR|1|{placer}^NORD||{procedure}^CT^LN||||||||||||||||||||CT",
    )


@asynccontextmanager
async def partner(ris: Department, *headers: str, payload: list[dict] | None = None):
    """The name (MSH-3) of a sender with these rules; `payload` is what it wants to be sent."""
    name = unused("NORD")
    endpoint = await ris.create(
        {
            "resourceType": "Endpoint",
            "status": "active",
            "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
            "payloadType": payload or [{"text": "none"}],
            "address": "mllp://127.0.0.1:9",
            "header": [f"accept-application: {name}", *headers],
        }
    )
    try:
        yield name
    finally:
        await ris.update(endpoint, status="off")


async def message(ris: Department, frame: bytes):
    return await ris.db["messages"].find_one({"raw": frame})


def test_two_new_orders_at_once_under_one_number_make_one(ris):
    async def scenario():
        async with partner(ris) as sender:
            patient, placer = unused("P"), unused("L")
            await ris.accepted(order(sender, patient, unused("L"), procedure="36801-9"))
            wanted = [order(sender, patient, placer, procedure=p) for p in ("24627-2", "30799-1", "24725-4")]
            acks = await asyncio.gather(*(ris.receive(m) for m in wanted))
            assert sorted(code(a) for a in acks) == ["AA", "AE", "AE"]
            assert {(place(a), condition(a)) for a in acks if code(a) == "AE"} == {("ORC-2", "205")}
            made = await ris.one("ServiceRequest", identifier=placer, intent="order")
            assert len(await ris.steps(made)) == 1

    ris.run(scenario())


def test_two_alike_orders_at_once_are_one_where_duplicates_are_refused(ris):
    async def scenario():
        async with partner(ris, "accept-duplicate-order: refuse") as sender:
            for _ in range(5):
                patient = unused("P")
                await ris.accepted(order(sender, patient, unused("L"), procedure="36801-9"))
                acks = await asyncio.gather(*(ris.receive(order(sender, patient, unused("L"))) for _ in range(3)))
                assert sorted(code(a) for a in acks) == ["AA", "AE", "AE"]

    ris.run(scenario())


def test_a_cancel_and_a_start_at_once_have_one_winner(ris):
    async def scenario():
        won = set()
        async with partner(ris) as sender:
            for round_ in range(8):
                patient, placer = unused("P"), unused("L")
                await ris.accepted(order(sender, patient, placer))
                made = await ris.one("ServiceRequest", identifier=placer, intent="order")
                await ris.create(booking(made, await ris.scanner(), f"2027-01-{round_ + 10}T08:00:00Z"))
                step = await ris.step(made)
                cancel = ris.receive(order(sender, patient, placer, "CA"))
                start = ris.update(step, status="in-progress")
                ack, started = await asyncio.gather(cancel, start, return_exceptions=True)
                now, after = await ris.step(made), await ris.read(made)
                if code(ack) == "AA":
                    assert isinstance(started, Exception)
                    assert (after["status"], now["status"]) == ("revoked", "cancelled")
                else:
                    assert not isinstance(started, Exception)
                    assert (after["status"], now["status"], place(ack)) == ("active", "in-progress", "ORC-1")
                won.add(code(ack))
        assert won <= {"AA", "AE"}

    ris.run(scenario())


def test_a_discontinue_and_a_finish_at_once_never_lose_the_images(ris):
    async def scenario():
        async with partner(ris) as sender:
            for _ in range(6):
                patient, placer = unused("P"), unused("L")
                await ris.accepted(order(sender, patient, placer))
                made = await ris.one("ServiceRequest", identifier=placer, intent="order")
                performed = await ris.perform(made, "in-progress")
                ack, done = await asyncio.gather(
                    ris.receive(order(sender, patient, placer, "DC")),
                    ris.update(performed, status="completed"),
                    return_exceptions=True,
                )
                step, after = await ris.step(made), await ris.read(made)
                if code(ack) == "AA":
                    assert (after["status"], step["status"]) == ("revoked", "failed")
                    assert isinstance(done, Exception)
                else:
                    assert (after["status"], step["status"]) == ("active", "completed")
                    assert len(await ris.readings(made)) == 1

    ris.run(scenario())


def test_a_change_and_its_order_at_once_both_count_whoever_is_first(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            for _ in range(8):
                patient, placer = unused("P"), unused("L")
                frames = [order(sender, patient, placer, "XO", priority="S"), order(sender, patient, placer, priority="R")]
                acks = await asyncio.gather(*(ris.receive(f) for f in frames))
                assert [code(a) for a in acks] == ["AA", "AA"]
                assert (await ris.one("ServiceRequest", identifier=placer, intent="order"))["priority"] == "stat"
        assert await ris.db[order_parked.COLLECTION].count_documents({"placer": {"$regex": "^L"}}) == 0

    ris.run(scenario())


def test_the_store_says_that_a_message_waits_and_then_that_it_was_played(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer = unused("P"), unused("L")
            change = order(sender, patient, placer, "XO", priority="S")
            first = await ris.answer(change)
            kept = await message(ris, change)
            assert (kept["outcome"], kept["state"], kept["about"]) == ("AA", "parked", [])
            assert await ris.answer(change) == first
            assert await ris.db[order_parked.COLLECTION].count_documents({"placer": placer}) == 1
            await ris.accepted(order(sender, patient, placer))
            made = await ris.one("ServiceRequest", identifier=placer, intent="order")
            kept = await message(ris, change)
            assert (kept["outcome"], kept["state"]) == ("AA", "played")
            assert kept["about"] == [f"ServiceRequest/{made['id']}", made["subject"]["reference"]]
            assert kept["patient"] == made["subject"]["reference"]
            assert [s["state"] for s in kept["states"]] == ["parked", "played"]
            assert await ris.answer(change) == first

    ris.run(scenario())


def test_a_message_about_two_orders_waits_until_both_are_here(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, first, second = unused("P"), unused("L"), unused("L")
            both = order(sender, patient, first, "HD") + f"ORC|HD|{second}^NORD\rOBR|1|{second}^NORD||30799-1^CT^LN\r".encode()
            await ris.accepted(both)
            await ris.accepted(order(sender, patient, first))
            assert (await message(ris, both))["state"] == "parked"
            await ris.accepted(order(sender, patient, second, procedure="30799-1"))
            assert (await message(ris, both))["state"] == "played"
            for placer in (first, second):
                assert (await ris.one("ServiceRequest", identifier=placer, intent="order"))["status"] == "on-hold"

    ris.run(scenario())


def test_a_change_that_is_refused_later_leaves_nothing_behind(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer = unused("P"), unused("L")
            await ris.accepted(order(sender, patient, placer, "CA"))
            await ris.accepted(order(sender, patient, placer, "XO") + b"OBX|1|ST|ASK^Asked^L||yes||||||F\r")
            await ris.accepted(order(sender, patient, placer))
            made = await ris.one("ServiceRequest", identifier=placer, intent="order")
            assert made["status"] == "revoked"
            assert await ris.search("Observation", patient=made["subject"]["reference"]) == []
            assert len(await ris.work_items("parked-message-refused", focus=f"ServiceRequest/{made['id']}")) == 1

    ris.run(scenario())


def test_what_waits_too_long_becomes_a_work_item_and_is_not_played_any_more(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park", "accept-unknown-order-hours: 2") as sender:
            patient, placer = unused("P"), unused("L")
            cancel = order(sender, patient, placer, "CA")
            await ris.accepted(cancel)
            waiting = ris.db[order_parked.COLLECTION]
            (document,) = await waiting.find({"placer": placer}).to_list()
            assert document["until"] - document["received"] == timedelta(hours=2)
            await order_parked.expire(ris.interactions)
            assert await waiting.count_documents({"placer": placer}) == 1
            await waiting.update_one({"placer": placer}, {"$set": {"until": clock.naive(clock.now()) - timedelta(seconds=1)}})
            assert await asyncio.gather(*(order_parked.expire(ris.interactions) for _ in range(3)))
            assert await waiting.count_documents({"placer": placer}) == 0
            items = [i for i in await ris.work_items("unknown-order") if f" {placer}," in i["description"]]
            assert len(items) == 1
            assert sender in items[0]["description"]
            assert (await message(ris, cancel))["state"] == "given-up"
            await ris.accepted(order(sender, patient, placer))
            assert (await ris.one("ServiceRequest", identifier=placer, intent="order"))["status"] == "active"

    ris.run(scenario())


def report(sender: str, patient: str, placer: str) -> bytes:
    return v2(
        f"MSH|^~\\&|{sender}|NORDKLINIK|FHIR_RIS|RAD|20270107091500||ORU^R01^ORU_R01|{{id}}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||{patient}^^^NORDKLINIK^MR||Muster^Mara||19700131|F",
        f"ORC|RE|{placer}^NORD",
        f"OBR|1|{placer}^NORD||24627-2^CT^LN|||20270107081500|||||||||||||||20270107091500||CT|F",
        "OBX|1|TX|19005-8^Impression^LN||No embolism.||||||F",
    )


class Dying(Inbound):
    """A process that dies once an order is committed, before it does what waited for that."""

    async def _afterwards(self, received, what) -> None:
        pass


def test_a_report_that_waited_is_received_though_the_process_died_when_its_order_came(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer = unused("P"), unused("L")
            early, late = report(sender, patient, placer), report(sender, patient, unused("L"))
            await ris.accepted(early)
            await ris.accepted(late)
            dying = Dying(ris.interactions, ZONE, Partners(ris.store, max_age=0))
            assert code(parse(await dying.handle(order(sender, patient, placer), PEER))) == "AA"
            made = await ris.one("ServiceRequest", identifier=placer, intent="order")
            assert (await message(ris, early))["state"] == "parked"
            # Its time is over, too: it isn't given to a person as one whose order never came.
            past = clock.naive(clock.now()) - timedelta(seconds=1)
            await ris.db[order_parked.COLLECTION].update_one({"numbers": placer}, {"$set": {"until": past}})
            await parked_sweep.sweep(ris.interactions)
            kept = await message(ris, early)
            assert (kept["state"], kept["about"][0]) == ("played", f"ServiceRequest/{made['id']}")
            assert len(await ris.search("DiagnosticReport", based_on=f"ServiceRequest/{made['id']}")) == 1
            assert [i for i in await ris.work_items("unknown-order") if placer in i["description"]] == []
            assert (await message(ris, late))["state"] == "parked"

    ris.run(scenario())


def test_a_report_waits_on_where_only_the_number_is_the_same_and_no_longer_than_was_agreed(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer = unused("P"), unused("L")
            early = report(sender, patient, placer)
            await ris.accepted(early)
            until = (await ris.db[order_parked.COLLECTION].find_one({"numbers": placer}))["until"]
            await ris.accepted(order(sender, patient, placer).replace(b"^NORD", b"^SUED"))
            await parked_sweep.sweep(ris.interactions)
            assert (await message(ris, early))["state"] == "parked"
            assert (await ris.db[order_parked.COLLECTION].find_one({"numbers": placer}))["until"] == until

    ris.run(scenario())


async def by_fhir(ris: Department, patient: str, placer: str, *more: dict) -> dict:
    """An order like the patient's others, made over FHIR under a placer order number that messages have waited for."""
    waiting = await ris.db[order_parked.COLLECTION].find_one({"placer": placer})
    known = await ris.one("ServiceRequest", identifier=(await numbers(ris, patient))[0], intent="order")
    order_ = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": known["subject"]}
    return await ris.create(order_ | {"code": known["code"], "identifier": [waiting["identifier"], *more]})


def test_what_waited_is_done_when_its_order_comes_by_fhir(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer, elsewhere, broken = unused("P"), unused("L"), unused("L"), unused("L")
            await ris.accepted(order(sender, patient, unused("L")))
            await ris.accepted(order(sender, patient, broken, "HD"))
            await ris.db[order_parked.COLLECTION].update_one(
                {"placer": broken}, {"$set": {"number": 9}}
            )  # it can't be read again
            early, other = order(sender, patient, placer, "HD"), order(sender, patient, elsewhere, "HD")
            await ris.accepted(early)
            await ris.accepted(other)
            await by_fhir(ris, patient, broken)
            made = await by_fhir(ris, patient, placer, {"system": "urn:example:other", "value": elsewhere})
            await parked_sweep.sweep(ris.interactions)
            assert (await ris.read(made))["status"] == "on-hold"
            assert (await message(ris, early))["state"] == "played"
            assert (await message(ris, other))["state"] == "parked"  # the number of something else is none of the placer's
            before = await ris.db["AuditEvent"].count_documents({"search.t": "subtype=parked-order"})
            await parked_sweep.sweep(ris.interactions)  # nothing is done, and nothing is said to be
            assert await ris.db["AuditEvent"].count_documents({"search.t": "subtype=parked-order"}) == before
            await ris.db[order_parked.COLLECTION].delete_one({"placer": broken})

    ris.run(scenario())


def test_what_waited_is_done_before_what_is_said_later_and_told_as_if_it_came_now(ris):
    async def scenario():
        kinds = [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "OMG^O19"}]}]
        async with partner(ris, "accept-unknown-order: park", payload=kinds) as sender:
            patient, placer, cancelled = unused("P"), unused("L"), unused("L")
            await ris.accepted(order(sender, patient, unused("L")))
            await ris.accepted(order(sender, patient, placer, "XO", priority="S"))
            made = await by_fhir(ris, patient, placer)
            await ris.accepted(order(sender, patient, placer, "XO", priority="R"))
            assert (await ris.read(made))["priority"] == "routine"
            await parked_sweep.sweep(ris.interactions)
            assert (await ris.read(made))["priority"] == "routine"
            await ris.accepted(order(sender, patient, cancelled, "CA"))
            await by_fhir(ris, patient, cancelled)
            await parked_sweep.sweep(ris.interactions)
            sent = await ris.db["outbox"].find({"message": {"$exists": True}}).to_list()
            told = [m for m in (parse(bytes(one["message"])) for one in sent) if m.first("ORC").field(2) == cancelled]
            assert [(m.first("ORC").field(1), m.first("ORC").field(5)) for m in told] == [("SC", "CA")]  # not OC: they said it

    ris.run(scenario())


async def numbers(ris: Department, patient: str) -> list[str]:
    """The placer order numbers of a patient's orders."""
    whose = await ris.one("Patient", identifier=patient)
    orders = await ris.search("ServiceRequest", subject=f"Patient/{whose['id']}", intent="order")
    return [i["value"] for o in orders for i in o["identifier"] if i["type"]["coding"][0]["code"] == "PLAC"]


def test_the_listener_s_process_gives_up_what_waits_by_itself(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            placer = unused("L")
            await ris.accepted(order(sender, unused("P"), placer, "HD"))
            waiting = ris.db[order_parked.COLLECTION]
            await waiting.update_one({"placer": placer}, {"$set": {"until": clock.naive(clock.now()) - timedelta(seconds=1)}})
            async with asyncio.timeout(60), parked_sweep.sweeping(ris.interactions, every=0.05):
                while await waiting.count_documents({"placer": placer}):
                    await asyncio.sleep(0.05)
        assert len([i for i in await ris.work_items("unknown-order") if f" {placer}," in i["description"]]) == 1

    ris.run(scenario())


def test_a_message_refused_when_it_is_played_does_not_harm_its_order(ris):
    async def scenario():
        async with partner(ris, "accept-unknown-order: park") as sender:
            patient, placer = unused("P"), unused("L")
            foreign = order(sender, unused("P"), placer, "CA")
            mine = order(sender, patient, placer, "HD")
            await ris.accepted(foreign)
            await ris.accepted(mine)
            await ris.accepted(order(sender, patient, placer))
            made = await ris.one("ServiceRequest", identifier=placer, intent="order")
            assert made["status"] == "on-hold"
            assert len(await ris.work_items("parked-message-refused", focus=f"ServiceRequest/{made['id']}")) == 1
            assert [(await message(ris, m))["state"] for m in (foreign, mine)] == ["refused-later", "played"]

    ris.run(scenario())


def test_an_order_that_is_replaced_twice_at_once_has_one_heir(ris):
    async def scenario():
        async with partner(ris) as sender:
            patient, placer = unused("P"), unused("L")
            await ris.accepted(order(sender, patient, placer))
            pairs = []
            for procedure in ("30799-1", "24725-4"):
                heir = unused("L")
                frame = order(sender, patient, placer, "RP").decode()
                pairs.append(f"{frame}ORC|RO|{heir}^NORD\rOBR|1|{heir}^NORD||{procedure}^CT^LN\r".encode())
            acks = await asyncio.gather(*(ris.receive(p) for p in pairs))
            old = await ris.one("ServiceRequest", identifier=placer, intent="order")
            heirs = await ris.search("ServiceRequest", replaces=f"ServiceRequest/{old['id']}")
            assert old["status"] == "revoked"
            assert len(heirs) == len([a for a in acks if code(a) == "AA"]) == 1

    ris.run(scenario())
