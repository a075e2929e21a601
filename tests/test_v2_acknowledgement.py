"""Original and enhanced acknowledgement, in and out (HL7 v2.5.1 2.9.2, 2.9.3): which answers come, when, and what survives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from hl7.client import MLLPClient

from bridges.v2.ack import acknowledge
from bridges.v2.delivery import Delivery
from bridges.v2.inbound import Inbound
from bridges.v2.message import Message, parse
from bridges.v2.mllp import MllpServer
from bridges.v2.partners import Partners
from tests.department import ZONE, Department, code, unused, v2
from tests.test_delivery import QUICK, Line, line, until
from tests.v2_door import calling, door


def adt(
    accept: str = "", application: str = "", *, number: str | None = None, kind: str = "ADT^A04", name: str = "Muster^Mara"
) -> bytes:
    """A registration that asks for these acknowledgements; `number` empty: one that is refused."""
    head = f"MSH|^~\\&|HIS|HOSP|RIS|RAD|20260907081500||{kind}|{{id}}|P|2.5.1|||{accept}|{application}||UNICODE UTF-8"
    return v2(head, f"PID|1||{unused('P') if number is None else number}||{name}||19700131|F")


def control_id(message: bytes) -> str:
    return message.split(b"|")[9].decode()


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("", "", ["AA"], ["AE"]),
        ("AL", "AL", ["CA", "AA"], ["CA", "AE"]),
        ("AL", "NE", ["CA"], ["CA"]),
        ("AL", "ER", ["CA"], ["CA", "AE"]),
        ("AL", "SU", ["CA", "AA"], ["CA"]),
        ("AL", "", ["CA"], ["CA"]),
        ("NE", "AL", ["AA"], ["AE"]),
        ("", "AL", ["AA"], ["AE"]),
        ("ER", "AL", ["AA"], ["AE"]),
        ("SU", "ER", ["CA"], ["CA", "AE"]),
        ("NE", "NE", [], []),
        # What isn't in table 0155 is no wish for silence.
        ("XX", "", ["AA"], ["AE"]),
        ("", "Y", ["AA"], ["AE"]),
        ("N", "N", ["AA"], ["AE"]),
        ("AL", "XX", ["CA", "AA"], ["CA", "AE"]),
        ("Y", "NE", ["CA"], ["CA"]),
    ],
)
def test_the_answers_are_those_that_the_message_asks_for(ris, accept, application, good, bad):
    async def scenario():
        async with door(ris) as server:
            for number, expected in ((None, good), ("", bad)):
                message = adt(accept, application, number=number)
                async with calling(server) as caller:
                    await caller.send(message)
                    answers = [await caller.answer() for _ in expected]
                    assert [code(a) for a in answers] == expected
                    assert all(a.segments[1].field(2) == control_id(message) for a in answers)
                    assert await caller.quiet()
                stored = await ris.db["messages"].find_one({"control_id": control_id(message)})
                assert (stored["outcome"], stored["final"]) == ("AE" if number == "" else "AA", True)

    ris.run(scenario())


@pytest.mark.parametrize(
    ("kind", "head", "error"),
    [("XYZ^Z99", "", "200"), ("ADT^A99", "", "201"), ("ADT^A04", "|T|", "202"), ("ADT^A04", "|9.9|", "203")],
)
def test_what_is_not_for_us_is_rejected_before_it_is_accepted(ris, kind, head, error):
    async def scenario():
        message = adt("AL", "AL", kind=kind)
        if head == "|T|":
            message = message.replace(b"|P|2.5.1", b"|T|2.5.1")
        elif head == "|9.9|":
            message = message.replace(b"|P|2.5.1", b"|P|9.9")
        async with door(ris) as server, calling(server) as caller:
            ack = await caller.ask(message)
            assert (code(ack), ack.first("ERR").get(3)) == ("CR", error)
            assert await caller.quiet()

    ris.run(scenario())


def test_the_same_message_again_gets_the_same_application_answer_and_changes_nothing(ris):
    async def scenario():
        message = adt("AL", "AL")
        async with door(ris) as server, calling(server) as caller:
            await caller.send(message, message)
            answers = [await caller.answer() for _ in range(4)]
            assert [code(a) for a in answers] == ["CA", "AA", "CA", "AA"]
            assert answers[1].raw == answers[3].raw
        assert await ris.db["messages"].count_documents({"control_id": control_id(message)}) == 1

    ris.run(scenario())


def test_messages_sent_ahead_are_answered_in_their_order_whatever_each_asks_for(ris):
    async def scenario():
        number = unused("P")
        messages = [adt(*mode, number=number) for mode in (("AL", "AL"), ("", ""), ("NE", "AL"), ("AL", "NE"))]
        async with door(ris) as server, calling(server) as caller:
            await caller.send(*messages)
            answers = [await caller.answer() for _ in range(5)]
        told = [(code(a), a.segments[1].field(2)) for a in answers]
        first, second, third, fourth = map(control_id, messages)
        assert told == [("CA", first), ("AA", first), ("AA", second), ("AA", third), ("CA", fourth)]

    ris.run(scenario())


def test_a_message_that_was_accepted_by_a_process_that_died_is_processed_by_another_once(ris):
    async def scenario():
        number = unused("P")
        received = await ris.inbound._receive(adt("AL", "AL", number=f"{number}^^^HOSP"), _peer())
        accepted, ack = await ris.inbound._accept(received)
        assert (accepted, code(parse(ack))) == ("CA", "CA")
        assert await ris.search("Patient", identifier=number) == []
        # Here the process would process it, and dies.
        assert await ris.inbound.take_up(timedelta(minutes=5)) == 0
        assert await ris.inbound.take_up(timedelta()) == 1
        assert await ris.inbound.take_up(timedelta()) == 0
        assert len(await ris.search("Patient", identifier=number)) == 1
        stored = await ris.db["messages"].find_one({"control_id": received.key.control_id})
        assert [s["state"] for s in stored["states"]] == ["CA", "AA"]

    ris.run(scenario())


def test_what_a_dead_process_accepted_is_processed_before_what_its_sender_sends_next(ris):
    async def scenario():
        number, placer = unused("P"), unused("L")
        await ris.accepted(adt(number=f"{number}^^^HOSP"))
        other = another(ris)
        for message in (order(number, placer), adt("AL", "AL", number=f"{number}^^^HOSP", kind="ADT^A08", name="Older^Mara")):
            accepted, _ = await other._accept(await other._receive(message, _peer()))
            assert accepted == "CA"
        # Here that process dies. Its sender comes again, with what happened meanwhile.
        async with door(ris) as server, calling(server) as caller:
            assert code(await caller.ask(order(number, placer, "CA", ""))) == "AA"
            assert code(await caller.ask(adt(number=f"{number}^^^HOSP", kind="ADT^A08", name="Newer^Mara"))) == "AA"
        assert (await ris.one("ServiceRequest", identifier=placer, intent="order"))["status"] == "revoked"
        assert (await ris.one("Patient", identifier=number))["name"][0]["family"] == "Newer"
        assert await ris.db["messages"].count_documents({"outcome": "CA"}) == 0

    ris.run(scenario())


def test_what_a_dead_process_accepted_is_processed_at_the_next_start(ris):
    async def scenario():
        number, other = unused("P"), another(ris)
        async with other.accepted.finishing():
            await other._accept(await other._receive(adt("AL", "NE", number=f"{number}^^^HOSP"), _peer()))
        async with ris.inbound.accepted.finishing():
            assert len(await ris.search("Patient", identifier=number)) == 1

    ris.run(scenario())


def test_a_message_waits_for_the_older_one_that_another_process_is_at(ris):
    async def scenario():
        number, other = unused("P"), another(ris)
        async with other.accepted.finishing():
            older = await other._receive(adt("AL", "AL", number=f"{number}^^^HOSP", name="Older^Mara"), _peer())
            await other._accept(older)
            newer = adt("", "", number=f"{number}^^^HOSP", kind="ADT^A08", name="Newer^Mara")
            asked = asyncio.create_task(another(ris).handle(newer, _peer()))
            await asyncio.sleep(0.3)
            assert not asked.done()
            assert await ris.search("Patient", identifier=number) == []
            assert await other._processed(older, lambda _: True)
            assert code(parse(await asked)) == "AA"
        assert (await ris.one("Patient", identifier=number))["name"][0]["family"] == "Newer"

    ris.run(scenario())


def test_a_message_whose_sender_was_gone_before_it_was_told_is_processed_before_its_next_one(ris):
    async def scenario():
        number = unused("P")
        for name, accept in (("Older^Mara", "AL"), ("Newer^Mara", "")):
            message = adt(accept, accept, number=f"{number}^^^HOSP", name=name)
            if not accept:
                assert code(parse(await ris.answer(message))) == "AA"
                continue
            answers = await ris.inbound.converse(message, _peer())
            assert code(parse(await anext(answers))) == "CA"
            await answers.aclose()  # as when it can't be written
        assert (await ris.one("Patient", identifier=number))["name"][0]["family"] == "Newer"
        assert await ris.db["messages"].count_documents({"outcome": "CA"}) == 0

    ris.run(scenario())


def another(ris: Department) -> Inbound:
    """The bridge of another process over the same database."""
    return Inbound(ris.interactions, ZONE, Partners(ris.store, max_age=0))


def order(number: str, placer: str, control: str = "NW", accept: str = "AL") -> bytes:
    head = f"MSH|^~\\&|HIS|HOSP|RIS|RAD|20260907081500||ORM^O01|{{id}}|P|2.5.1|||{accept}|{accept}||UNICODE UTF-8"
    who = f"PID|1||{number}^^^HOSP||Muster^Mara||19700131|F"
    what = f"OBR|1|{placer}^HIS||24627-2^CT Chest^LN||||||||||||||||||||CT|||^^^^^R||||^cough"
    return v2(head, who, "PV1|1|O", f"ORC|{control}|{placer}^HIS||||||||20260907081500", what)


def test_a_refusal_that_the_sender_does_not_want_to_hear_of_is_for_people(ris):
    async def told(message):
        return [i for i in await ris.work_items("accepted-message-refused") if control_id(message) in i["description"]]

    async def scenario():
        message = adt("AL", "NE", number="")
        async with door(ris) as server, calling(server) as caller:
            assert code(await caller.ask(message)) == "CA"
            assert await caller.quiet()
        (item,) = await told(message)
        assert "HIS|HOSP" in item["description"]
        # Each of them, and also when another process had to do it.
        received = await ris.inbound._receive(adt("AL", "NE", number=""), _peer())
        await ris.inbound._accept(received)
        assert await ris.inbound.take_up(timedelta()) == 1
        assert len(await told(received.frame)) == 1
        assert len(await told(message)) == 1
        # In the transaction of the refusal itself.
        trail = await ris.db["AuditEvent"].find({"resource.outcomeDesc": f"AE {control_id(message)}"}).to_list()
        assert f"Task/{item['id']}" in str(trail)

    ris.run(scenario())


def _peer():
    from bridges.v2.mllp import Peer

    return Peer("127.0.0.1", 40000)


def test_a_client_of_others_making_is_understood(ris):
    def play(port: int) -> list[bytes]:
        with MLLPClient("127.0.0.1", port) as client:
            return [client.send_message(adt()), client.send_message(adt(number="").decode())]

    async def scenario():
        async with door(ris) as server:
            answers = await asyncio.to_thread(play, server.port)
        assert [code(parse(a.strip(b"\x0b\x1c\r"))) for a in answers] == ["AA", "AE"]

    ris.run(scenario())


# Out


@contextlib.asynccontextmanager
async def receiver(*codes: str) -> AsyncIterator[tuple[int, list[Message]]]:
    """A receiver that answers each message with all of these codes, one after the other."""
    received: list[Message] = []

    async def handle(message: bytes, _peer: object) -> AsyncIterator[bytes]:
        received.append(parse(message))

        async def answers() -> AsyncIterator[bytes]:
            for number, one in enumerate(codes):
                yield acknowledge(received[-1], one, control_id=f"R{len(received)}.{number}", when=datetime.now(UTC))
                await asyncio.sleep(0.01)

        return answers()

    server = MllpServer("127.0.0.1", 0, handle)
    await server.start()
    try:
        yield server.port, received
    finally:
        await server.stop(1)


async def sent(ris: Department, codes: tuple[str, ...], *headers: str) -> tuple[Line, list[Message]]:
    async with receiver(*codes) as (port, received), Delivery(ris.interactions, QUICK).running():
        to = await line(ris, port)
        await to.point_to(port, header=[*headers] or ["ack-mode: original"])
        await to.post(2)
        await until(to.settled)
    return to, received


@pytest.mark.parametrize(
    ("codes", "headers", "states"),
    [
        (("AA",), (), ["delivered", "delivered"]),
        (("CA",), (), ["delivered", "delivered"]),
        (("CA", "AA"), (), ["delivered", "delivered"]),
        (("CA", "AA"), ("ack-mode: enhanced",), ["delivered", "delivered"]),
        (("AA",), ("ack-mode: enhanced",), ["delivered", "delivered"]),
        (("CA", "AE"), ("ack-mode: enhanced",), ["refused", "refused"]),
        (("CE",), ("ack-mode: enhanced",), ["refused", "refused"]),
        (("CE",), (), ["refused", "refused"]),
    ],
)
def test_a_receiver_s_two_answers_are_understood(ris, codes, headers, states):
    async def scenario():
        to, _ = await sent(ris, codes, *headers)
        assert await to.states() == states
        answers = {d["answer"].split()[0] for d in await to.documents()}
        assert answers == {codes[-1] if headers else codes[0]}

    ris.run(scenario())


def test_a_refusal_that_follows_the_only_answer_that_was_asked_for_is_not_lost(ris):
    async def scenario():
        async with receiver("CA", "AE") as (port, received), Delivery(ris.interactions, QUICK).running():
            to = await line(ris, port)
            posted = await to.post(2)

            async def set_aside() -> bool:
                return await to.states() == ["refused", "refused"]

            await until(set_aside)
            assert [m.control_id for m in received] == posted
            assert [[s["state"] for s in d["states"]] for d in await to.documents()] == [["delivered", "refused"]] * 2

    ris.run(scenario())


def test_a_receiver_whose_application_never_answers_gets_the_same_message_again(ris):
    async def scenario():
        async with receiver("CA") as (port, received), Delivery(ris.interactions, QUICK).running():
            to = await line(ris, port)
            await to.point_to(port, header=["ack-mode: enhanced"])
            (posted,) = await to.post()

            async def asked() -> bool:
                return len(received) >= 3

            await until(asked)
            assert {m.control_id for m in received} == {posted}
            assert await to.states() == ["pending"]

    ris.run(scenario())


def test_a_message_to_a_receiver_in_enhanced_mode_asks_for_both_answers(ris):
    async def scenario():
        destination = await ris.destination("SIU^S12", ack_mode="enhanced")
        plain = await ris.destination("SIU^S12")
        await ris.book(await ris.order(), None)
        (asking,), (quiet,) = await ris.sent(destination), await ris.sent(plain)
        assert [asking.msh.field(n) for n in (15, 16)] == ["AL", "AL"]
        assert [quiet.msh.field(n) for n in (15, 16)] == ["", ""]

    ris.run(scenario())
