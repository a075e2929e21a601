"""Delivery over real sockets: in order, until acknowledged, under one control id, one sender a destination."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bridges.v2.delivery import Delivery, Timing
from bridges.v2.operations import Operator
from demo.ehr import Listener
from demo.server import free_port
from fhir_server import outbox
from fhir_server.leases import Lease, give_back
from tests.department import ACCESS, ZONE, Department, Resource, unused, v2

QUICK = Timing(
    lease=0.9, look=0.05, first_pause=0.02, longest_pause=0.1, connect=0.5, ack=0.25, refusals=3, rejections=6
)  # fmt: skip


async def until(condition, seconds: float = 60) -> None:
    """Wait until an (async) condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def listening(port: int = 0, answer: str | None = "AA") -> AsyncIterator[Listener]:
    listener = Listener(port)
    listener.answer = answer
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


class Line:
    """A destination, and what is sent to it."""

    def __init__(self, ris: Department, endpoint: Resource) -> None:
        self.ris = ris
        self.endpoint = endpoint
        self.reference = f"Endpoint/{endpoint['id']}"

    async def post(self, count: int = 1) -> list[str]:
        """Put messages into the outbox; their control ids."""
        ids = [unused("C") for _ in range(count)]
        for control_id in ids:
            message = v2(f"MSH|^~\\&|RIS|RAD|EHR|HOSP|20260907||ORU^R01|{control_id}|P|2.5.1", "PID|1||1")
            sent = outbox.Outbound(self.reference, "ORU^R01", control_id, message, about=("ServiceRequest/1",))
            await self.ris.db["outbox"].insert_one(outbox.document(sent))
        self.ris.interactions.outbox_filled.set()
        return ids

    async def documents(self) -> list[dict[str, Any]]:
        return [d async for d in self.ris.db["outbox"].find({"destination": self.reference}, sort=[("key", 1)])]

    async def states(self) -> list[str]:
        return [d["state"] for d in await self.documents()]

    async def settled(self) -> bool:
        return "pending" not in await self.states()

    async def point_to(self, port: int, **changes: Any) -> None:
        await self.ris.update(await self.ris.read(self.endpoint), address=f"mllp://127.0.0.1:{port}", **changes)


async def line(ris: Department, port: int) -> Line:
    made = Line(ris, await ris.destination("ORU^R01"))
    await made.point_to(port)
    return made


def ids(listener: Listener) -> list[str]:
    return [m.control_id for m in listener.received]


def test_messages_arrive_in_their_order_each_once_and_are_audited(ris):
    async def scenario():
        async with listening() as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            posted = await to.post(20)
            await until(to.settled)
            assert ids(ehr) == posted
            assert await to.states() == ["delivered"] * 20
            sent = (await to.documents())[0]
            assert sent["message"] == ehr.received[0].raw
            assert sent["attempts"] == 1
            assert sent["answer"] == "AA"
            assert sent["delivered"]
        found = await ris.db["AuditEvent"].find({"resource.type.code": "v2-out"}).to_list()
        told = [e["resource"]["outcomeDesc"] for e in found if to.reference in e["resource"]["outcomeDesc"]]
        assert sorted(told) == sorted(f"delivered {c} {to.reference}" for c in posted)

    ris.run(scenario())


def test_a_listener_that_is_away_gets_everything_when_it_comes_back(ris):
    async def scenario():
        port = free_port()
        async with Delivery(ris.interactions, QUICK).running():
            to = await line(ris, port)
            posted = await to.post(3)

            async def tried() -> bool:
                return (await to.documents())[0]["attempts"] >= 3

            await until(tried)
            first, second, _ = await to.documents()
            assert "no connection" in first["error"]
            assert second["attempts"] == 0
            async with listening(port) as ehr:
                await until(to.settled)
                assert ids(ehr) == posted

    ris.run(scenario())


def test_a_receiver_that_refuses_is_asked_a_few_times_then_the_next_message_goes_on(ris):
    operator = Operator(ris.interactions, ACCESS, ZONE)

    async def scenario():
        async with listening(answer="AE") as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            (first,) = await to.post()
            await until(to.settled)
            (refused,) = await to.documents()
            assert (refused["state"], refused["attempts"]) == ("refused", QUICK.refusals)
            assert refused["error"].startswith("AE")
            assert "delivered" not in refused
            assert ids(ehr) == [first] * QUICK.refusals
            ehr.answer = "AA"
            (second,) = await to.post()
            await until(to.settled)
            assert await to.states() == ["refused", "delivered"]
            (item,) = await ris.search("Task", code="urn:fhir-ris:task|message-refused", status="requested")
            assert first in item["description"]
            # An operator mends the receiver's trouble and replays.
            assert await operator.replay(str(refused["_id"])) == "it will be sent again"
            await until(to.settled)
            assert await to.states() == ["delivered", "delivered"]
            assert ids(ehr)[-2:] == [second, first]
            (item,) = await ris.search("Task", code="urn:fhir-ris:task|message-refused")
            assert (item["status"], item["statusReason"]["text"]) == ("completed", "delivered")

    ris.run(scenario())


def test_a_receiver_in_trouble_itself_gets_more_time(ris):
    async def scenario():
        async with listening(answer="AR") as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            await to.post()

            async def asked() -> bool:
                return len(ehr.received) > QUICK.refusals

            await until(asked)
            ehr.answer = "AA"
            await until(to.settled)
            assert await to.states() == ["delivered"]
            ehr.answer = "AR"
            await to.post()
            await until(to.settled)
            assert await to.states() == ["delivered", "refused"]

    ris.run(scenario())


def test_a_receiver_that_never_answers_gets_the_same_message_again_and_no_other(ris):
    async def scenario():
        async with listening(answer=None) as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            first, second = await to.post(2)

            async def asked() -> bool:
                return len(ehr.received) >= 3

            await until(asked)
            assert set(ids(ehr)) == {first}
            assert "no acknowledgement" in (await to.documents())[0]["error"]
            ehr.answer = "AA"
            await until(to.settled)
            assert ids(ehr)[-1] == second
            assert set(ids(ehr)) == {first, second}

    ris.run(scenario())


def test_an_endpoint_says_how_long_its_receiver_may_take(ris):
    async def scenario():
        async with listening(answer=None) as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            await to.point_to(ehr.port, header=["ack-timeout: 1"])
            await to.post()
            await asyncio.sleep(0.8)
            assert len(ehr.received) == 1

            async def asked_again() -> bool:
                return len(ehr.received) == 2

            await until(asked_again, 2)

    ris.run(scenario())


def test_a_dead_destination_delays_no_other(ris):
    async def scenario():
        async with listening() as ehr, listening(answer=None) as mute, Delivery(ris.interactions, QUICK).running():
            dead = [await line(ris, free_port()), await line(ris, mute.port)]
            alive = await line(ris, ehr.port)
            for to in (*dead, alive):
                await to.post(3)
            await until(alive.settled, 3)
            for to in dead:
                assert await to.states() == ["pending"] * 3

    ris.run(scenario())


def test_two_processes_share_the_work_and_send_nothing_twice(ris):
    async def scenario():
        async with listening() as ehr, listening() as other:
            lines = [await line(ris, ehr.port), await line(ris, other.port)]
            async with Delivery(ris.interactions, QUICK).running(), Delivery(ris.interactions, QUICK).running():
                posted = [[], []]
                for _ in range(10):
                    for i, to in enumerate(lines):
                        posted[i] += await to.post(2)
                for to in lines:
                    await until(to.settled)
            assert [ids(ehr), ids(other)] == posted

    ris.run(scenario())


def test_a_process_that_died_is_followed_by_another_when_its_lease_ends(ris):
    async def scenario():
        async with listening() as ehr:
            to = await line(ris, ehr.port)
            dead = Lease(ris.db, f"delivery:{to.reference}", "a process that is gone", 0.6)
            assert await dead.held()
            async with Delivery(ris.interactions, QUICK).running():
                await to.post()
                await asyncio.sleep(0.3)
                assert ids(ehr) == []
                await until(to.settled)
                assert len(ids(ehr)) == 1

    ris.run(scenario())


def test_a_process_that_ends_hands_over_at_once_and_leaves_what_is_not_acknowledged(ris):
    async def scenario():
        async with listening(answer=None) as ehr:
            to = await line(ris, ehr.port)
            async with Delivery(ris.interactions, QUICK).running():
                (posted,) = await to.post()

                async def asked() -> bool:
                    return bool(ehr.received)

                await until(asked)
            assert await to.states() == ["pending"]
            assert await ris.db["leases"].count_documents({"_id": f"delivery:{to.reference}"}) == 0
            ehr.answer = "AA"
            async with Delivery(ris.interactions, QUICK).running():
                await until(to.settled, 2)
            assert set(ids(ehr)) == {posted}

    ris.run(scenario())


def test_a_changed_address_is_followed_and_an_endpoint_that_is_off_gets_nothing(ris):
    async def scenario():
        async with listening() as old, listening() as new, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, old.port)
            await to.post()
            await until(to.settled)
            await to.point_to(new.port)
            moved = await to.post()
            await until(to.settled)
            await to.point_to(new.port, status="off")
            waiting = await to.post()

            async def explained() -> bool:
                return "not active" in ((await to.documents())[-1].get("error") or "")

            await until(explained)
            assert (await to.documents())[-1]["attempts"] == 0
            assert ids(new) == moved
            await to.point_to(new.port, status="active")
            await until(to.settled)
            assert ids(new) == moved + waiting
            assert len(old.received) == 1

    ris.run(scenario())


def test_a_dead_address_can_be_mended_while_it_is_tried(ris):
    async def scenario():
        async with listening() as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, free_port())
            posted = await to.post()
            await asyncio.sleep(0.1)
            await to.point_to(ehr.port)
            await until(to.settled)
            assert ids(ehr) == posted

    ris.run(scenario())


def test_a_message_that_can_t_be_sent_at_all_is_set_aside(ris):
    async def scenario():
        async with listening() as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            broken = outbox.Outbound(to.reference, "ORU^R01", unused("C"), b"MSH|\x1c|", about=())
            await ris.db["outbox"].insert_one(outbox.document(broken))
            posted = await to.post()
            await until(to.settled)
            assert await to.states() == ["refused", "delivered"]
            assert ids(ehr) == posted

    ris.run(scenario())


def test_a_lease_has_one_holder_at_a_time(ris):
    async def scenario():
        name = unused("lease")
        leases = [Lease(ris.db, name, f"owner {i}", 0.4) for i in range(5)]
        held = await asyncio.gather(*(lease.held() for lease in leases))
        assert sorted(held) == [False] * 4 + [True]
        holder = leases[held.index(True)]
        others = [lease for lease in leases if lease is not holder]
        renewal = asyncio.create_task(holder.keep())
        await asyncio.sleep(0.6)
        assert [await lease.held() for lease in others] == [False] * 4
        renewal.cancel()
        await asyncio.sleep(0.5)
        assert await others[0].held()
        assert not await holder.held()
        await give_back(ris.db, others[0]._owner)
        assert await holder.held()

    ris.run(scenario())


def test_pauses_grow_to_a_limit():
    timing = Timing()
    assert [timing.pause(n) for n in (1, 2, 3, 8, 9, 1000)] == [0.25, 0.5, 1, 30, 30, 30]
