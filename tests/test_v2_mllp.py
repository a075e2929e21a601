"""MLLP over real sockets: frames however they are cut, order, limits, a graceful end, and acknowledgements that fit."""

import asyncio
import datetime as dt
import ipaddress
import logging
import socket
import ssl

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from bridges.v2.mllp import FrameError, FrameReader, MllpServer, Peer, frame
from bridges.v2.mllp_client import AckTimeout, ConnectError, ConnectionLost, MllpClient

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(coroutine, loop=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 20))


def order(control_id: str, text: str = "x") -> bytes:
    return f"MSH|^~\\&|A|B|C|D|2026||ORM^O01|{control_id}|P|2.5.1\rNTE|1||{text}\r".encode()


def ack(control_id: str, code: str = "AA") -> bytes:
    return f"MSH|^~\\&|C|D|A|B|2026||ACK|R|P|2.5.1\rMSA|{code}|{control_id}\r".encode()


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


async def acknowledging(message: bytes, peer: Peer) -> bytes:
    return ack(message.split(b"|")[9].decode())


class Listening:
    """A server on a free port, and raw connections to it."""

    def __init__(self, handler=acknowledging, **options):
        self.server = MllpServer("127.0.0.1", 0, handler, **options)

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *_):
        await self.server.stop(1)

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.server.port)


class Scripted:
    """A receiver that answers each message with what `answers` gives: bytes, or None for closing the connection."""

    def __init__(self, answers):
        self.answers = answers
        self.received = []
        self.accepted = 0
        self.writers = []

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.converse, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)

    async def converse(self, reader, writer):
        self.accepted += 1
        self.writers.append(writer)
        frames = FrameReader()
        while data := await reader.read(65536):
            for message in frames.feed(data):
                self.received.append(message)
                for piece in self.answers(message):
                    if piece is None:
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)
        writer.close()


# Frames

MESSAGES = st.lists(st.binary(max_size=30).filter(lambda b: b"\x1c" not in b and b"\x0bMSH" not in b), max_size=5)


@given(
    MESSAGES, st.lists(st.integers(1, 20), min_size=1, max_size=20), st.binary(max_size=10).map(lambda b: b.replace(b"\x0b", b""))
)
def test_frames_are_found_wherever_the_stream_is_cut(messages, cuts, junk):
    stream = b"".join(junk + frame(m) for m in messages)
    reader, found, turn = FrameReader(), [], 0
    while stream:
        cut = cuts[turn % len(cuts)]
        found += reader.feed(stream[:cut])
        stream, turn = stream[cut:], turn + 1
    assert found == messages
    assert reader.junk == len(junk.translate(None, b"\r\n")) * len(messages)
    assert not reader.inside


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\x0b", b"\x1c", b"\x1c\r", b"\x0bMSH", b"\x1c\x0b"]), max_size=12))
def test_any_stream_gives_the_same_frames_whole_or_byte_by_byte(pieces):
    stream = b"".join(pieces)
    whole, by_byte = FrameReader(), FrameReader()
    expected = whole.feed(stream)
    assert [m for i in range(len(stream)) for m in by_byte.feed(stream[i : i + 1])] == expected
    assert (by_byte.junk, by_byte.inside, by_byte.finish()) == (whole.junk, whole.inside, whole.finish())


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        (b"\x0bone\x1c\x0btwo\x1c\r", [b"one", b"two"]),  # no 0D
        (b"\x0bone\x1c\n\x0btwo\x1c\r", [b"one", b"two"]),
        (b"\x0bo\x1cne\x0b\x1c\r", [b"o\x1cne\x0b"]),  # both bytes may be text
        (b"\x0bMSH|broken off\x0bMSH|again\x1c\r", [b"MSH|again"]),
        (b"\x0bMSH|broken\x0bMSH|off\x0bMSH|again\x1c\r", [b"MSH|again"]),
        (b"\x0bMSH|whole\rNTE|1||text \x0bMSH|more text\x1c\r", [b"MSH|whole\rNTE|1||text \x0bMSH|more text"]),
        (b"\x0bMSH|off\x0bMSH|whole\rNTE|\x0bMSH|x\rPID|\x1c\r", [b"MSH|whole\rNTE|\x0bMSH|x\rPID|"]),
        (b"\r\n\x0b\x1c\r\r\n", [b""]),
    ],
)
def test_habits_of_senders(stream, messages):
    assert FrameReader().feed(stream) == messages


def test_a_frame_end_without_its_0d_ends_the_frame_when_nothing_follows():
    reader = FrameReader()
    assert reader.feed(b"\x0bone\x1c") == []
    assert reader.waits_for_cr
    assert reader.finish() == [b"one"]
    assert reader.feed(b"\r\x0btwo\x1c\r") == [b"two"]
    assert reader.junk == 0


def test_frames_have_a_largest_size_and_junk_a_limit():
    assert FrameReader(max_size=5).feed(b"\x0b12345\x1c\r\x0b12") == [b"12345"]
    with pytest.raises(FrameError, match="5 bytes"):
        FrameReader(max_size=5).feed(b"\x0b123456")
    reader = FrameReader(max_junk=5)
    reader.feed(b"GET /\r\n\r\n\r\n\r\n")
    with pytest.raises(FrameError, match="outside"):
        reader.feed(b"x")


def test_a_message_that_holds_the_end_mark_is_not_framed():
    with pytest.raises(ValueError, match="ends a frame"):
        frame(b"a\x1cb")


# Server


def test_a_message_cut_into_bytes_is_answered():
    async def scenario():
        async with Listening() as listening:
            reader, writer = await listening.connect()
            for byte in frame(order("1")):
                writer.write(bytes([byte]))
                await writer.drain()
            assert await reader.readuntil(b"\x1c\r") == frame(ack("1"))
            writer.close()

    run(scenario())


def test_pipelined_messages_are_handled_one_by_one_and_answered_in_order():
    under_way, most = 0, 0

    async def handler(message, peer):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.002 if b"|1|" in message else 0)
        under_way -= 1
        return await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler) as listening:
            reader, writer = await listening.connect()
            writer.write(b"".join(frame(order(str(n))) for n in range(20)))
            writer.write_eof()
            assert await reader.read(-1) == b"".join(frame(ack(str(n))) for n in range(20))
            writer.close()

    run(scenario())
    assert most == 1


def test_a_large_message_comes_whole_and_one_too_large_costs_the_connection():
    sizes = []

    async def handler(message, peer):
        sizes.append(len(message))
        return await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler, max_size=3_000_000) as listening:
            reader, writer = await listening.connect()
            writer.write(frame(order("1", "x" * 2_900_000)))
            assert b"MSA|AA|1" in await reader.readuntil(b"\x1c\r")
            writer.write(b"\x0b" + b"x" * 3_100_000)
            try:
                await writer.drain()
                ended = await reader.read()
            except ConnectionError:
                ended = b""
            assert ended == b""
            writer.close()

    run(scenario())
    assert len(sizes) == 1


def test_a_handler_that_fails_costs_its_connection_only_and_leaves_no_content_in_the_log(caplog):
    async def handler(message, peer):
        if b"bad" in message:
            raise RuntimeError("Musterfrau")
        return await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler) as listening:
            (bad, bad_writer), (good, good_writer) = await listening.connect(), await listening.connect()
            bad_writer.write(frame(order("1", "bad")) + frame(order("2")))
            assert await bad.read() == b""
            good_writer.write(frame(order("3")))
            assert await good.readuntil(b"\x1c\r") == frame(ack("3"))
            bad_writer.close()
            good_writer.close()

    run(scenario())
    assert "RuntimeError at handler" in caplog.text
    assert "Musterfrau" not in caplog.text


def test_no_answer_is_sent_where_the_handler_has_none():
    async def handler(message, peer):
        return None if b"|1|P" in message else await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler) as listening:
            reader, writer = await listening.connect()
            writer.write(frame(order("1")) + frame(order("2")))
            assert await reader.readuntil(b"\x1c\r") == frame(ack("2"))
            writer.close()

    run(scenario())


def test_a_peer_that_does_not_speak_mllp_is_cut_off(caplog):
    async def scenario():
        async with Listening(max_junk=100) as listening:
            reader, writer = await listening.connect()
            writer.write(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 100)
            assert await reader.read() == b""
            writer.close()

    run(scenario())
    assert "outside of frames" in caplog.text


def test_a_frame_end_without_0d_is_answered_after_a_moment():
    async def scenario():
        async with Listening() as listening:
            reader, writer = await listening.connect()
            writer.write(frame(order("1"))[:-1])
            assert await reader.readuntil(b"\x1c\r") == frame(ack("1"))
            writer.write(b"\r" + frame(order("2")))
            assert await reader.readuntil(b"\x1c\r") == frame(ack("2"))
            writer.close()

    run(scenario())


@pytest.mark.parametrize(("options", "sent"), [({"idle_timeout": 0.05}, b""), ({"frame_timeout": 0.05}, b"\x0bMSH")])
def test_silent_connections_and_unfinished_frames_are_closed_in_time(options, sent):
    async def scenario():
        async with Listening(**options) as listening:
            reader, writer = await listening.connect()
            writer.write(sent)
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_a_frame_that_drips_in_does_not_outlive_its_time():
    async def scenario():
        async with Listening(frame_timeout=0.1) as listening:
            reader, writer = await listening.connect()
            ended = asyncio.ensure_future(reader.read())
            writer.write(b"\x0b")
            for _ in range(100):
                writer.write(b"x")
                await asyncio.sleep(0.02)
                if ended.done():
                    break
            assert ended.done()
            writer.close()

    run(scenario())


def test_connections_beyond_the_limit_are_refused_until_one_closes():
    async def scenario():
        async with Listening(max_connections=1) as listening:
            first, first_writer = await listening.connect()
            first_writer.write(frame(order("1")))
            await first.readuntil(b"\x1c\r")
            refused, refused_writer = await listening.connect()
            assert await refused.read() == b""
            refused_writer.close()
            first_writer.close()
            await until(lambda: not listening.server.connections)
            again, again_writer = await listening.connect()
            again_writer.write(frame(order("2")))
            assert await again.readuntil(b"\x1c\r") == frame(ack("2"))
            again_writer.close()

    run(scenario())


def test_one_address_can_t_take_every_connection():
    async def scenario():
        async with Listening(max_connections=5, max_of_one=2) as listening:
            silent = [await listening.connect() for _ in range(4)]
            await until(lambda: listening.server.connections == 2)
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.server.port, local_addr=("127.0.0.2", 0))
            writer.write(frame(order("1")))
            assert await reader.readuntil(b"\x1c\r") == frame(ack("1"))
            for one in (writer, *(w for _, w in silent)):
                one.close()

    run(scenario())


def test_stopping_lets_a_message_in_hand_be_answered_and_takes_no_other():
    started = asyncio.Event()
    handled = []

    async def handler(message, peer):
        started.set()
        await asyncio.sleep(0.1)
        handled.append(message)
        return await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler) as listening:
            idle, idle_writer = await listening.connect()
            reader, writer = await listening.connect()
            writer.write(frame(order("1")) + frame(order("2")))
            await started.wait()
            await listening.server.stop(5)
            assert await reader.read() == frame(ack("1"))
            assert await idle.read() == b""
            with pytest.raises(OSError, match=r"refused|Connect"):
                await listening.connect()
            assert listening.server.connections == 0
            writer.close()
            idle_writer.close()

    run(scenario())
    assert handled == [order("1")]


@pytest.mark.parametrize("loop", LOOPS)
def test_stopping_while_connections_end_is_quiet(loop, caplog):
    async def scenario(ticks):
        async with Listening() as listening:
            clients = [MllpClient("127.0.0.1", listening.server.port) for _ in range(10)]
            await asyncio.gather(*(client.send(order("1"), "1") for client in clients))
            for client in clients:
                await client.close()
            for _ in range(ticks):
                await asyncio.sleep(0)

    for ticks in range(6):
        run(scenario(ticks), loop)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_stopping_does_not_wait_longer_than_its_grace():
    async def handler(message, peer):
        await asyncio.sleep(60)

    async def scenario():
        async with Listening(handler) as listening:
            reader, writer = await listening.connect()
            writer.write(frame(order("1")))
            await asyncio.sleep(0.02)
            await asyncio.wait_for(listening.server.stop(0.05), 5)
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_the_handler_is_told_who_sent_and_the_socket_is_tuned():
    peers = []

    async def handler(message, peer):
        peers.append(peer)

    async def scenario():
        async with Listening(handler) as listening:
            _, writer = await listening.connect()
            writer.write(frame(order("1")))
            await until(lambda: peers)
            assert peers == [Peer("127.0.0.1", writer.get_extra_info("sockname")[1])]
            writer.close()

    run(scenario())


# Client


def test_a_client_keeps_its_connection_and_gets_positive_and_negative_answers():
    async def scenario():
        async with Scripted(lambda m: [frame(ack("2", "AE") if b"|2|" in m else ack("1"))]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port)
            assert (await client.send(order("1"), "1")).positive
            assert (await client.send(order("2"), "2")).code == "AE"
            assert receiver.accepted == 1
            assert receiver.received == [order("1"), order("2")]
            assert client.connected
            sock = client._link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            await client.close()
            assert not client.connected

    run(scenario())


def test_answers_that_come_in_pieces_or_after_strays_are_matched_by_control_id(caplog):
    def answers(message):
        whole = frame(ack("0")) + b"junk" + frame(b"unreadable") + frame(ack("7"))
        return [whole[i : i + 9] for i in range(0, len(whole), 9)]

    async def scenario():
        async with Scripted(answers) as receiver:
            client = MllpClient("127.0.0.1", receiver.port)
            assert (await client.send(order("7"), "7")).control_id == "7"
            assert client.strays == 2
            await client.close()
            assert client.strays == 2

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert caplog.text.count("dropped") == 2


def test_after_a_timeout_the_late_answer_is_not_taken_for_the_next():
    async def scenario():
        async with Scripted(lambda m: [] if b"slow" in m else [frame(ack("1"))]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port, ack_timeout=0.05)
            with pytest.raises(AckTimeout):
                await client.send(order("1", "slow"), "1")
            assert not client.connected
            assert (await client.send(order("1"), "1")).positive
            assert receiver.accepted == 2
            await client.close()

    run(scenario())


def test_a_refusal_without_control_id_answers_the_message_under_way_and_an_acceptance_does_not():
    async def scenario():
        async with Scripted(lambda m: [frame(ack("", "AR" if b"|1|P" in m else "AA"))]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port, ack_timeout=0.1)
            assert (await client.send(order("1"), "1")).code == "AR"
            with pytest.raises(AckTimeout):
                await client.send(order("2"), "2")

    run(scenario())


def test_a_receiver_that_closes_instead_of_answering_is_told_apart_from_one_that_is_not_there():
    async def scenario():
        async with Scripted(lambda m: [None]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port)
            for _ in range(2):
                with pytest.raises(ConnectionLost):
                    await client.send(order("1"), "1")
            assert receiver.accepted == 2
        with pytest.raises(ConnectError):
            await client.send(order("1"), "1")

    run(scenario())


def test_a_connection_that_the_receiver_closed_between_messages_is_opened_again():
    async def scenario():
        async with Scripted(lambda m: [frame(ack("1")), None]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port)
            for _ in range(3):
                assert (await client.send(order("1"), "1")).positive
                await until(lambda: not client.connected)
            assert receiver.accepted == 3

    run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_messages_sent_at_once_go_one_after_the_other(loop):
    async def scenario():
        async with Listening() as listening:
            client = MllpClient("127.0.0.1", listening.server.port)
            acks = await asyncio.gather(*(client.send(order(str(n)), str(n)) for n in range(20)))
            assert [a.control_id for a in acks] == [str(n) for n in range(20)]
            assert client.strays == 0
            await client.close()

    run(scenario(), loop)


def test_a_cancelled_or_closed_send_leaves_no_connection_behind():
    async def scenario():
        async with Scripted(lambda m: []) as receiver:
            client = MllpClient("127.0.0.1", receiver.port)
            sending = asyncio.ensure_future(client.send(order("1"), "1"))
            await until(lambda: receiver.received)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert not client.connected
            sending = asyncio.ensure_future(client.send(order("2"), "2"))
            await until(lambda: len(receiver.received) == 2)
            await client.close()
            with pytest.raises(ConnectionLost):
                await sending

    run(scenario())


def test_an_answer_without_end_costs_the_connection():
    async def scenario():
        async with Scripted(lambda m: [b"\x0b" + b"x" * 2000]) as receiver:
            client = MllpClient("127.0.0.1", receiver.port, max_size=1000)
            with pytest.raises(ConnectionLost, match="1000 bytes"):
                await client.send(order("1"), "1")
            assert not client.connected

    run(scenario())


# TLS


def contexts(folder):
    """Server and client contexts of mutual TLS, both with one self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scanner.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "peer.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=pem)
    for context in (server, client):
        context.load_cert_chain(pem)
    return server, client


def test_mutual_tls_tells_the_handler_the_certificate_and_refuses_who_has_none(tmp_path):
    server_context, client_context = contexts(tmp_path)
    peers = []

    async def handler(message, peer):
        peers.append(peer)
        return await acknowledging(message, peer)

    async def scenario():
        async with Listening(handler, ssl=server_context) as listening:
            client = MllpClient("127.0.0.1", listening.server.port, ssl=client_context)
            assert (await client.send(order("1"), "1")).positive
            await client.close()
            stranger = MllpClient(
                "127.0.0.1", listening.server.port, ssl=ssl.create_default_context(cafile=tmp_path / "peer.pem")
            )
            with pytest.raises((ConnectError, ConnectionLost)):
                await stranger.send(order("2"), "2")
            untrusting = MllpClient("127.0.0.1", listening.server.port, ssl=ssl.create_default_context())
            with pytest.raises(ConnectError):
                await untrusting.send(order("3"), "3")

    run(scenario())
    assert [p.certificate["subject"] for p in peers] == [((("commonName", "scanner.example"),),)]
