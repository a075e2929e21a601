"""What must not break: killed servers, receivers that are away, refuse or never answer, messages sent twice. Real processes."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from bridges.v2.message import Message
from demo import ehr
from demo.ehr import Listener
from demo.play import Play
from demo.server import Server
from tests.quick_command import QuickServer


@contextlib.asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Play]:
    """A server, an EHR and apps, ready for the first step."""
    server, listener = QuickServer(directory), Listener()
    await listener.start()
    play = Play(server, listener)
    try:
        await server.start()
        await play.prepare()
        yield play
    finally:
        await play.close()
        await listener.stop()
        if server.process is not None:
            assert await server.stop() == 0


async def power_cut(server: Server) -> None:
    """kill -9 to server and mongod, and start again."""
    await server.kill()
    await server.start()


def told(play: Play) -> Counter[tuple[str, str]]:
    """How many different messages (by control id) the EHR got of each kind and status for the play's order."""
    distinct: dict[str, Message] = {m.control_id: m for m in play.listener.received if play.placer.encode() in m.raw}
    kinds: Counter[tuple[str, str]] = Counter()
    for message in distinct.values():
        kind = "^".join(message.type[:2])
        status = {"ORM^O01": ("ORC", 5), "ORU^R01": ("OBR", 25), "SIU^S12": ("SCH", 25), "SIU^S14": ("SCH", 25)}[kind]
        kinds[kind, message.all(status[0])[0].field(status[1])] += 1
    return kinds


EVERYTHING_ONCE = Counter(
    {
        ("SIU^S12", "Booked"): 1,
        ("ORM^O01", "SC"): 1,
        ("SIU^S14", "Started"): 1,
        ("SIU^S14", "Complete"): 1,
        ("ORM^O01", "IP"): 1,
        ("ORM^O01", "A"): 1,
        ("ORU^R01", "P"): 1,
        ("ORU^R01", "F"): 1,
        ("ORM^O01", "CM"): 1,
    }
)


def test_the_server_and_its_database_are_killed_after_each_of_the_ten_steps(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            for _, act in play.steps:
                await act()
                await power_cut(play.server)
            await play.list_audit()
            assert told(play) == EVERYTHING_ONCE

    asyncio.run(scenario())


def test_the_server_is_killed_between_the_scanners_beginning_and_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            for act in (play.register, play.place_order, play.book, play.arrive, play.ask_worklist):
                await act()
            (item,) = await play._worklist()
            performed = await play.scanner.begin(item)
            await power_cut(play.server)
            await play.scanner.end(performed)
            assert (await play._step())["status"] == "completed"
            assert (await play._study())["series"][0]["numberOfInstances"] == 3

    asyncio.run(scenario())


def test_the_server_alone_is_killed_and_its_database_is_left_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            await play.register()
            await play.server.kill(mongod=False)
            await play.server.start()
            await play.place_order()

    asyncio.run(scenario())


def test_the_ehr_is_away_while_its_order_goes_through_and_gets_everything_once_it_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            await play.register()
            await play.place_order()
            await play.listener.stop()
            booking = asyncio.create_task(play.book())
            await asyncio.sleep(1.5)
            assert not booking.done()
            await power_cut(play.server)
            await play.listener.start()
            await booking
            for act in (play.arrive, play.ask_worklist, play.examine, play.read_and_sign, play.receive_report):
                await act()
            assert told(play) == EVERYTHING_ONCE

    asyncio.run(scenario())


def test_a_message_that_the_ehr_refuses_is_set_aside_shown_and_sent_again_as_it_was_on_replay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            await play.register()
            await play.place_order()
            play.listener.answer = "AE"
            await play.apps["demo-scheduler"].ok("POST", "Appointment", play.booking())
            refused = await listed(play, "refused", 2)
            before = {m.control_id: m.raw for m in play.listener.received}
            play.listener.answer = "AA"
            for row in refused:
                await play.server.command("messages", "replay", row[0])
            again = {row[3] for row in refused}
            assert {row[3] for row in await listed(play, "delivered", 2, again)} >= again
            assert {m.control_id: m.raw for m in play.listener.received} == before

    asyncio.run(scenario())


def test_an_ehr_that_never_answers_gets_the_same_message_again_and_nothing_overtakes_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            endpoint = await play.apps["demo-admin"].ok("GET", "Endpoint/ehr")
            endpoint["header"].append("ack-timeout: 1")
            await play.apps["demo-admin"].ok("PUT", "Endpoint/ehr", endpoint)
            await play.register()
            await play.place_order()
            await play.listener.expect("ORM^O01")  # of the order that was booked before the play
            earlier = len(play.listener.received)
            play.listener.answer = None
            await play.apps["demo-scheduler"].ok("POST", "Appointment", play.booking())
            while len(play.listener.received) < earlier + 3:
                await asyncio.sleep(0.1)
            assert len({m.control_id for m in play.listener.received[earlier:]}) == 1
            assert len({m.raw for m in play.listener.received[earlier:]}) == 1
            play.listener.answer = "AA"
            await play.listener.expect("ORM^O01", placer=play.placer)
            assert told(play) == Counter({("SIU^S12", "Booked"): 1, ("ORM^O01", "SC"): 1})

    asyncio.run(scenario())


def test_an_order_whose_acknowledgement_was_lost_and_which_comes_again_is_one_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            await play.register()
            message = ehr.order("LOST1", play.placer, play.patient_id)
            _, writer = await asyncio.open_connection("127.0.0.1", play.server.mllp_port)
            writer.write(b"\x0b" + message + b"\x1c\x0d")
            await writer.drain()
            writer.close()  # and never reads the acknowledgement
            await asyncio.sleep(0.5)
            first = await ehr.send(play.server.mllp_port, message)
            await power_cut(play.server)
            second = await ehr.send(play.server.mllp_port, message)
            assert first.raw == second.raw
            assert first.all("MSA")[0].field(1) == "AA"
            orders = await play.apps["demo-admin"].search(f"ServiceRequest?identifier={play.placer}&intent=order")
            assert len(orders) == 1

    asyncio.run(scenario())


def test_every_order_acknowledged_in_a_burst_with_power_cuts_is_there_exactly_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with stage(tmp_path) as play:
            placers = [f"BURST-{n}-{play.run}" for n in range(40)]
            cuts = asyncio.create_task(cut_twice(play.server))
            await asyncio.gather(*(persistent(play, placers[n::4]) for n in range(4)))
            await cuts
            for placer in placers:
                orders = await play.apps["demo-admin"].search(f"ServiceRequest?identifier={placer}&intent=order")
                assert len(orders) == 1, placer
                based = await play.apps["demo-admin"].search(f"ServiceRequest?based-on=ServiceRequest/{orders[0]['id']}")
                assert len(based) == 1, placer

    asyncio.run(scenario())


async def cut_twice(server: Server) -> None:
    for seconds in (0.25, 0.4):
        await asyncio.sleep(seconds)
        await power_cut(server)


async def persistent(play: Play, placers: list[str]) -> None:
    """A sender that repeats each message until it is acknowledged AA."""
    for placer in placers:
        message = ehr.order(f"C{placer}"[:20], placer, f"P-{placer}")
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                ack = await ehr.send(play.server.mllp_port, message)
                if ack.all("MSA")[0].field(1) == "AA":
                    break
            await asyncio.sleep(0.1)


async def listed(play: Play, state: str, count: int, wanted: AbstractSet[str] = frozenset()) -> list[list[str]]:
    """The outbox's messages in a state, once there are this many, and these control ids among them."""
    async with asyncio.timeout(90):
        while True:
            output = await play.server.command("messages", "list", "--out", "--plain", "--state", state)
            rows = [line.split("\t") for line in output.splitlines() if line]
            if len(rows) >= count and wanted <= {row[3] for row in rows}:
                return rows
            await asyncio.sleep(0.3)
