"""The upper layer of our own: against pynetdicom in both roles, and byte by byte where pynetdicom would not misbehave."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import islice
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.fsm import TRANSITION_TABLE

from bridges.dicom.upper_layer import command, pdu, requestor
from bridges.dicom.upper_layer.acceptor import Acceptor, Limits, negotiate
from bridges.dicom.upper_layer.association import Times
from bridges.dicom.upper_layer.items import MalformedPdu, Role, UserInformation, split
from bridges.dicom.upper_layer.messages import Assembler, BrokenMessage
from bridges.dicom.upper_layer.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    DataValue,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
)
from bridges.dicom.upper_layer.requestor import CallFailed, Remote
from bridges.dicom.upper_layer.services import Admission, Operation, Peer, Rejection, Request, Response, Service
from bridges.dicom.upper_layer.state import EVENTS, TABLE
from tests.dicom_wire import ELE, ILLE, MPPS, VERIFICATION, WORKLIST, Wire, encoded, status

BIG_ENDIAN = "1.2.840.10008.1.2.2"


async def _echo(_: Request) -> Response:
    return Response()


async def _find(request: Request) -> Response:
    """As many answers as the key's text has letters; `slow` waits for a C-CANCEL."""
    if request.data.find(b"slow") >= 0:
        while not request.cancelled:
            await asyncio.sleep(0.005)
        return Response(0xFE00)
    await request.pending(0xFF00, [request.data] * 3)
    return Response()


async def _create(request: Request) -> Response:
    if b"refuse" in request.data:
        return Response(0x0110, "not now", error_id=0xA710)
    if b"crash" in request.data:
        raise ZeroDivisionError
    return Response(sop_instance=request.sop_instance or "2.25.99")


async def _set(request: Request) -> Response:
    return Response(0x0112 if request.sop_instance == "2.25.404" else 0)


SERVICES = (
    Service(VERIFICATION, {Operation.C_ECHO: _echo}),
    Service(WORKLIST, {Operation.C_FIND: _find}, extended=lambda asked: bytes(len(asked))),
    Service(MPPS, {Operation.N_CREATE: _create, Operation.N_SET: _set}),
)


class Hall:
    """An acceptor in an event loop of its own thread, open to everybody but NOBODY."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.port = 0
        self.acceptor: Acceptor | None = None

    async def admit(self, request: AssociateRequest, _: Peer) -> Admission | Rejection:
        if request.calling == "NOBODY":
            return Rejection(1, 1, 3, "unknown")
        return Admission(most_associations=1 if request.calling == "ONCE" else 0)

    @contextmanager
    def open(self) -> Iterator["Hall"]:
        loop, stop = asyncio.new_event_loop(), threading.Event()
        ready = threading.Event()

        async def serve() -> None:
            self.acceptor = Acceptor(SERVICES, self.admit, **self.options)
            self.port = await self.acceptor.listen("127.0.0.1", 0)
            ready.set()
            await asyncio.to_thread(stop.wait)
            await self.acceptor.stop(0.2)

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        try:
            assert ready.wait(60)
            yield self
        finally:
            stop.set()
            thread.join(20)
            loop.close()


@pytest.fixture(scope="module")
def hall() -> Iterator[Hall]:
    with Hall().open() as opened:
        yield opened


# The state machine


def test_the_state_table_is_the_standards() -> None:
    ours = {(f"Evt{n}", state): action for n, event in enumerate(EVENTS, 1) for state, action in TABLE[event].items()}
    theirs = {key: action.replace("_", "-") for key, action in TRANSITION_TABLE.items()}
    assert ours == theirs


# We accept, pynetdicom requests


@contextmanager
def pynetdicom_association(port: int, **more: Any) -> Iterator[Any]:
    entity = AE(ae_title="CT1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    entity.maximum_pdu_size = more.get("max_pdu", 16382)
    for sop_class in more.get("classes", (VERIFICATION, WORKLIST, MPPS)):
        entity.add_requested_context(sop_class, more.get("syntaxes", [ILLE, ELE]))
    association = entity.associate("127.0.0.1", port, max_pdu=more.get("max_pdu", 16382))
    assert association.is_established
    try:
        yield association
    finally:
        association.release()
        assert association.is_released


def keys(text: str = "key") -> Dataset:
    data = Dataset()
    data.PatientName = text
    return data


def test_pynetdicom_echoes_finds_creates_and_sets(hall: Hall) -> None:
    with pynetdicom_association(hall.port) as association:
        assert association.send_c_echo().Status == 0
        answers = list(association.send_c_find(keys(), WORKLIST))
        assert [s.Status for s, _ in answers] == [0xFF00] * 3 + [0]
        assert answers[0][1].PatientName == "key"
        assert association.send_n_create(keys(), MPPS, "2.25.1")[0].Status == 0
        refused, _ = association.send_n_create(keys("refuse"), MPPS, "2.25.1")
        assert (refused.Status, refused.ErrorComment, refused.ErrorID) == (0x0110, "not now", 0xA710)
        assert association.send_n_set(keys(), MPPS, "2.25.404")[0].Status == 0x0112


@pytest.mark.parametrize(("given", "told"), [("2.25.1", "2.25.1"), ("", "2.25.99")])
def test_the_response_names_the_instance_which_we_may_have_chosen(hall: Hall, given: str, told: str) -> None:
    asked: dict[int, Any] = {command.COMMAND_FIELD: command.N_CREATE, command.MESSAGE_ID: 1, command.AFFECTED_SOP_CLASS: MPPS}
    if given:
        asked[command.AFFECTED_SOP_INSTANCE] = given
    with Wire(hall.port) as wire:
        wire.established()
        wire.say(3, asked, encoded(keys()))
        response = next(wire.messages()).command
    assert command.text(response, command.AFFECTED_SOP_INSTANCE) == told
    assert command.number(response, command.COMMAND_FIELD) == 0x8140


def test_a_handler_that_fails_costs_a_status_and_nothing_else(hall: Hall) -> None:
    with pynetdicom_association(hall.port) as association:
        assert association.send_n_create(keys("crash"), MPPS, "2.25.1")[0].Status == 0x0110
        assert association.send_c_echo().Status == 0


@pytest.mark.parametrize("max_pdu", [0, 4096, 16382, 131072])
def test_messages_of_a_megabyte_pass_in_pdus_of_any_size(hall: Hall, max_pdu: int) -> None:
    with pynetdicom_association(hall.port, max_pdu=max_pdu) as association:
        data = keys()
        data.ImageComments = "x" * 10240
        data.PixelData = b"\1\2" * 500_000
        data["PixelData"].VR = "OW"
        answers = [d for _, d in association.send_c_find(data, WORKLIST) if d is not None]
        assert len(answers) == 3
        assert answers[2].PixelData == data.PixelData


def test_the_peers_pdu_limit_is_kept(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established(user=UserInformation(1000, "2.25.1"))
        data = keys()
        data.ImageComments = "y" * 5001
        wire.ask_worklist(data)
        seen = []
        while isinstance(got := wire.read(), pdu.DataTransfer):
            seen += [len(v.data) + pdu.PDV_OVERHEAD for v in got.values]
            if got.values[0].control == 3 and len(seen) > 20:
                break
        assert max(seen) <= 1000


def test_a_pdu_may_hold_command_and_data_set_and_a_fragment_may_be_empty(hall: Hall) -> None:
    told: dict[int, Any] = {
        command.AFFECTED_SOP_CLASS: WORKLIST, command.COMMAND_FIELD: command.C_FIND, command.MESSAGE_ID: 1,
        command.PRIORITY: 0, command.DATA_SET_TYPE: 0,
    }  # fmt: skip
    first, data = command.encode(told), encoded(keys())
    values = [(1, 1, first[:10]), (1, 1, b""), (1, 3, first[10:]), (1, 0, data[:4]), (1, 2, data[4:])]
    body = b"".join(struct.pack(">IBB", len(d) + 2, c, k) + d for c, k, d in values)
    with Wire(hall.port) as wire:
        wire.established()
        wire.send(struct.pack(">BBI", 4, 0, len(body)) + body)
        assert status(next(wire.messages())) == 0xFF00


def test_a_message_that_comes_byte_by_byte_is_the_same(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        contexts = (ProposedContext(5, VERIFICATION, (ILLE,)),)
        for byte in AssociateRequest("FHIR_RIS", "CT1", contexts).encode():
            wire.send(bytes((byte,)))
        assert isinstance(wire.read(), AssociateAccept)
        assert wire.echo() == 0


def test_cancel_reaches_the_request_that_is_under_way(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established()
        wire.ask_worklist(keys("slow"), message_id=77)
        wire.say(1, {command.COMMAND_FIELD: command.C_CANCEL, command.RESPONDED_TO: 76})
        wire.say(1, {command.COMMAND_FIELD: command.C_CANCEL, command.RESPONDED_TO: 77})
        response = next(wire.messages())
        assert (status(response), command.number(response.command, command.RESPONDED_TO)) == (0xFE00, 77)


def test_a_release_is_answered_when_the_request_under_way_is(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established()
        wire.ask_worklist(keys())
        wire.send(ReleaseRequest().encode())
        assert [status(m) for m in _until_released(wire)] == [0xFF00, 0xFF00, 0xFF00, 0]


def _until_released(wire: Wire) -> Iterator[Any]:
    assembler = Assembler()
    while not isinstance(got := wire.read(), ReleaseResponse):
        assert isinstance(got, pdu.DataTransfer)
        yield from filter(None, map(assembler.add, got.values))


def test_an_operation_that_a_sop_class_does_not_have_is_told_so(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established()
        wire.say(5, {command.COMMAND_FIELD: command.N_GET, command.MESSAGE_ID: 1, command.REQUESTED_SOP_CLASS: VERIFICATION})
        assert status(next(wire.messages())) == 0x0211
        assert wire.echo() == 0


# Negotiation


def test_each_context_is_answered_for_itself(hall: Hall) -> None:
    contexts = (
        ProposedContext(1, WORKLIST, (ILLE, ELE)),
        ProposedContext(3, WORKLIST, (ILLE,)),
        ProposedContext(5, MPPS, (BIG_ENDIAN,)),
        ProposedContext(255, "1.2.840.10008.5.1.4.1.1.2", (ILLE,)),
    )
    with Wire(hall.port) as wire:
        accept = wire.established(contexts=contexts)
    assert [(c.id, c.result, c.transfer_syntax) for c in accept.contexts if c.result == 0] == [(1, 0, ELE), (3, 0, ILLE)]
    assert {c.id: c.result for c in accept.contexts} == {1: 0, 3: 0, 5: 4, 255: 3}
    assert accept.user.max_length == 131072
    assert accept.user.implementation_class.startswith("2.25.")
    assert accept.user.implementation_version == "FHIR_RIS_1"


def test_roles_extended_negotiation_window_and_identity_are_answered_as_the_standard_has_it(hall: Hall) -> None:
    asked = UserInformation(
        16384, "2.25.1", "TEST", (Role(WORKLIST, scu=True, scp=True), Role("1.2.3", scu=True, scp=False)), {WORKLIST: b"\1\1\1"}
    )
    encoded_user = asked.encode()
    body = encoded_user[4:] + b"\x53\0\0\4\0\5\0\5" + b"\x58\0\0\x0a\1\1\0\4user\0\0" + b"\x99\0\0\1x"
    request = AssociateRequest("FHIR_RIS", "CT1", (ProposedContext(1, WORKLIST, (ILLE,)),))
    whole = request.encode()[6:]
    whole = whole[: whole.rindex(b"\x50\0")] + b"\x50\0" + struct.pack(">H", len(body)) + body
    with Wire(hall.port) as wire:
        wire.send(struct.pack(">BBI", 1, 0, len(whole)) + whole)
        accept = wire.read()
    assert isinstance(accept, AssociateAccept)
    assert accept.user.roles == (Role(WORKLIST, scu=True, scp=False),)
    assert accept.user.extended == {WORKLIST: b"\0\0\0"}
    assert (accept.user.operations_window, accept.user.identity) == (None, False)


def test_an_association_without_an_accepted_context_is_accepted_all_the_same() -> None:
    request = AssociateRequest("A", "B", (ProposedContext(1, "1.2.3", (ILLE,)),))
    accept, contexts = negotiate(request, {})
    assert ([c.result for c in accept.contexts], contexts) == ([3], {})


# Refusals (PS3.8 9.3.4)


@pytest.mark.parametrize(
    ("calling", "more", "refusal"),
    [
        ("NOBODY", {}, (1, 1, 3)),
        ("CT1", {"application_context": "1.2.3"}, (1, 1, 2)),
        ("CT1", {"protocol_version": 2}, (1, 2, 2)),
    ],
)
def test_a_refusal_names_its_reason(hall: Hall, calling: str, more: dict[str, Any], refusal: tuple[int, int, int]) -> None:
    with Wire(hall.port) as wire:
        answer = wire.associate(calling, **more)
    assert answer == AssociateReject(*refusal)


def test_limits_per_title_per_address_and_in_all_are_kept() -> None:
    contexts = (ProposedContext(1, VERIFICATION, (ILLE,)),)
    with (
        Hall(limits=Limits(total=3, per_title=2, per_address=50)).open() as hall,
        Wire(hall.port) as one,
        Wire(hall.port) as two,
        Wire(hall.port) as three,
    ):
        one.established("ONCE", contexts=contexts)
        assert two.associate("ONCE") == AssociateReject(2, 3, 2)
        with Wire(hall.port) as again:
            again.established("CT1", contexts=contexts)
            three.established("CT1", contexts=contexts)
            with Wire(hall.port) as fourth:
                assert fourth.associate("CT2") == AssociateReject(2, 3, 2)
    with Hall(limits=Limits(per_address=1)).open() as hall, Wire(hall.port) as one, Wire(hall.port) as two:
        one.established("CT1")
        assert two.associate("CT2") == AssociateReject(2, 3, 2)


def test_silent_connections_of_one_address_do_not_keep_others_out() -> None:
    with ExitStack() as stack:
        hall = stack.enter_context(Hall(limits=Limits(total=10, connecting=3)).open())
        known = stack.enter_context(Wire(hall.port))
        known.established("CT1")
        silent = [stack.enter_context(Wire(hall.port)) for _ in range(20)]
        assert silent[3].read() is None
        with Wire(hall.port, source="127.0.0.2") as other:
            other.established("CT2")
        assert known.echo() == 0


# The protocol broken


REQUEST = AssociateRequest("FHIR_RIS", "CT1", (ProposedContext(1, VERIFICATION, (ILLE,)),)).encode()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(ReleaseRequest().encode(), id="release first"),
        pytest.param(pdu.fragments(1, pdu.COMMAND, b"x" * 20, 0), id="data first"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(struct.pack(">BBI", 1, 0, 2**31), id="endless"),
        pytest.param(struct.pack(">BBI", 1, 0, 4) + b"abcd", id="too short"),
        pytest.param(REQUEST[:-6] + b"\xff" * 6, id="wrong items"),
        pytest.param(AssociateRequest("A", "B", ()).encode(), id="no contexts"),
    ],
)
def test_what_is_no_association_request_is_aborted(hall: Hall, sent: bytes) -> None:
    with Wire(hall.port) as wire:
        wire.send(sent)
        assert isinstance(wire.read(), Abort)


@pytest.mark.parametrize(
    ("sent", "source", "reason"),
    [
        pytest.param(REQUEST, 2, 2, id="a second request"),
        pytest.param(ReleaseResponse().encode(), 2, 2, id="a release response"),
        pytest.param(struct.pack(">BBI", 9, 0, 4) + b"abcd", 2, 1, id="an unknown pdu"),
        pytest.param(struct.pack(">BBI", 4, 0, 2 * 1024 * 1024), 2, 6, id="a pdu too long"),
        pytest.param(struct.pack(">BBIIBB", 4, 0, 6, 99, 1, 3), 2, 6, id="a wrong value length"),
        pytest.param(pdu.fragments(7, pdu.COMMAND, b"x" * 20, 0), 0, 0, id="a context that was not accepted"),
        pytest.param(pdu.fragments(5, 0, b"x" * 20, 0), 0, 0, id="a data set without a command"),
        pytest.param(pdu.fragments(5, pdu.COMMAND, b"x" * 20, 0), 0, 0, id="a command that is none"),
    ],
)
def test_what_breaks_the_protocol_ends_the_association(hall: Hall, sent: bytes, source: int, reason: int) -> None:
    with Wire(hall.port) as wire:
        wire.established()
        wire.send(sent)
        assert wire.read() == Abort(source, reason)
    with Wire(hall.port) as wire:
        wire.established()
        assert wire.echo() == 0


def test_a_message_without_end_is_cut_off(hall: Hall) -> None:
    told: dict[int, Any] = {
        command.COMMAND_FIELD: command.N_CREATE, command.MESSAGE_ID: 1, command.AFFECTED_SOP_CLASS: MPPS,
        command.DATA_SET_TYPE: 0,
    }  # fmt: skip
    with Wire(hall.port) as wire:
        wire.established()
        wire.send(pdu.fragments(3, pdu.COMMAND, command.encode(told), 0))
        piece = struct.pack(">BBIIBB", 4, 0, 100_006, 100_002, 3, 0) + bytes(100_000)
        with pytest.raises(OSError, match=r"reset|pipe"):
            wire.send(piece * 1000)


def test_requests_without_waiting_for_answers_are_served_in_turn_and_bounded(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established()
        for number in range(5):
            wire.ask_worklist(keys(), message_id=number + 1)
        got = [(status(m), command.number(m.command, command.RESPONDED_TO)) for m in islice(wire.messages(), 20)]
        assert got == [(s, n) for n in range(1, 6) for s in (0xFF00, 0xFF00, 0xFF00, 0)]
    with Wire(hall.port) as wire:
        wire.established()
        for number in range(40):
            wire.ask_worklist(keys("slow"), message_id=number + 1)
        assert isinstance(wire.read(), Abort)


def test_a_silent_connection_and_an_idle_association_are_ended() -> None:
    with Hall(times=Times(negotiation=0.3, idle=1, total=60)).open() as hall:
        with Wire(hall.port) as silent:
            assert silent.read() is None
        with Wire(hall.port) as idle:
            idle.established()
            assert idle.echo() == 0
            assert isinstance(idle.read(), Abort)


def test_an_association_has_an_end_even_if_it_is_never_idle() -> None:
    with Hall(times=Times(negotiation=5, idle=60, total=1)).open() as hall, Wire(hall.port) as wire:
        wire.established()
        with pytest.raises((StopIteration, OSError)):
            _echo_for_ever(wire)


def test_an_association_has_an_end_even_while_a_request_is_under_way() -> None:
    with Hall(times=Times(total=1, write=1)).open() as hall, Wire(hall.port) as wire:
        wire.established()
        wire.ask_worklist(keys("slow"))
        assert isinstance(wire.read(), Abort)


def test_a_peer_that_does_not_read_its_answers_loses_its_association() -> None:
    with Hall(times=Times(write=0.5)).open() as hall, Wire(hall.port, receive_buffer=2048) as wire:
        wire.established("DEAF")
        assert hall.acceptor is not None
        long = keys()
        long.TextValue = "x" * 400_000
        for number in range(3):
            wire.ask_worklist(long, message_id=number + 1)
        _until(lambda: "DEAF" not in [a.calling for a in hall.acceptor.associations] if hall.acceptor else True)


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it does not come")


def _echo_for_ever(wire: Wire) -> None:
    while True:
        wire.echo()


def test_a_peer_that_is_gone_ends_its_request(hall: Hall) -> None:
    with Wire(hall.port) as wire:
        wire.established("GONE")
        wire.ask_worklist(keys("slow"))
    assert hall.acceptor is not None
    for _ in range(200):
        if not any(a.calling == "GONE" for a in hall.acceptor.associations):
            break
        threading.Event().wait(0.05)
    assert not any(a.calling == "GONE" for a in hall.acceptor.associations)


def test_random_bytes_harm_nobody(hall: Hall) -> None:
    chance = random.Random(20)
    for _ in range(60):
        with Wire(hall.port) as wire:
            data = bytearray(REQUEST + pdu.fragments(1, 1, bytes(40), 0) + ReleaseRequest().encode())
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            wire.send(bytes(data[: chance.randrange(1, len(data))]) if chance.random() < 0.3 else bytes(data))
            wire.connection.shutdown(socket.SHUT_WR)
            while wire.read() is not None:
                pass
    with Wire(hall.port) as wire:
        wire.established()
        assert wire.echo() == 0


def test_random_bytes_are_read_or_malformed_and_nothing_else() -> None:
    chance = random.Random(21)
    for _ in range(3000):
        body = bytes(chance.randrange(256) for _ in range(chance.randrange(0, 120)))
        with suppress(MalformedPdu):
            pdu.decode(chance.randrange(0, 10), body)
        with suppress(command.MalformedCommand):
            command.decode(body)
    with pytest.raises(MalformedPdu):
        list(split(b"\x10\0\0\x05abc"))
    with pytest.raises(BrokenMessage):
        Assembler().add(DataValue(1, 0, b""))


# pynetdicom accepts, we request


@asynccontextmanager
async def pynetdicom_scp(handlers: list[Any], **more: Any) -> AsyncIterator[Remote]:
    entity = AE(ae_title="PACS")
    entity.require_called_aet = True
    entity.maximum_pdu_size = more.get("max_pdu", 16382)
    for sop_class in more.get("classes", (VERIFICATION, WORKLIST, MPPS)):
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield Remote("127.0.0.1", server.server_address[1], "PACS", "FHIR_RIS")
    finally:
        await asyncio.to_thread(server.shutdown)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))  # type: ignore[arg-type]


def test_we_echo_create_set_and_find_at_pynetdicom() -> None:
    got: list[Any] = []

    def create(event: Any) -> tuple[int, None]:
        got.append(("create", event.request.AffectedSOPInstanceUID, str(event.attribute_list.PatientName)))
        return 0x0000, None

    def update(event: Any) -> tuple[Dataset, None]:
        got.append(("set", event.request.RequestedSOPInstanceUID, len(event.modification_list.PixelData)))
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0x0110, "too late"
        return answer, None

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, event.identifier
        yield 0xFF00, event.identifier

    handlers = [(evt.EVT_N_CREATE, create), (evt.EVT_N_SET, update), (evt.EVT_C_FIND, find)]

    async def scenario() -> None:
        async with pynetdicom_scp(handlers) as remote:
            big = keys()
            big.PixelData = b"\1\2" * 100_000
            big["PixelData"].VR = "OW"
            async with requestor.associate(remote, [VERIFICATION, WORKLIST, MPPS]) as client:
                assert await client.echo() == 0
                data, large = (_written(d, client.context(MPPS).explicit) for d in (keys(), big))
                assert requestor.status(await client.n_create(MPPS, "2.25.7", data)) == 0
                refused = await client.n_set(MPPS, "2.25.7", large)
                assert (requestor.status(refused), requestor.comment(refused)) == (0x0110, "too late")
                found = [requestor.status(m) async for m in client.c_find(WORKLIST, data)]
                assert found == [0xFF00, 0xFF00, 0]

    run(scenario)
    assert got == [("create", "2.25.7", "key"), ("set", "2.25.7", 200_000)]


def _written(data: Dataset, explicit: bool) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    to = DicomBytesIO()
    to.is_little_endian, to.is_implicit_VR = True, not explicit
    write_dataset(to, data)
    return bytes(to.getvalue())


def test_a_refusal_by_pynetdicom_is_told_and_is_permanent() -> None:
    async def scenario() -> None:
        async with pynetdicom_scp([]) as remote:
            wrong = Remote(remote.host, remote.port, "OTHER", "FHIR_RIS")
            with pytest.raises(CallFailed, match="result 1, source 1, reason 7") as failed:
                await requestor.associate(wrong, [VERIFICATION]).__aenter__()
            assert failed.value.permanent

    run(scenario)


def test_nobody_there_a_silent_peer_and_a_class_that_is_not_supported_fail_in_one_line() -> None:
    async def scenario() -> None:
        async with (
            pynetdicom_scp([], classes=(VERIFICATION,)) as remote,
            requestor.associate(remote, [VERIFICATION, MPPS]) as client,
        ):
            assert await client.echo() == 0
            with pytest.raises(CallFailed, match="does not support"):
                await client.n_create(MPPS, "2.25.7", b"")
        with pytest.raises(CallFailed, match="no connection"):
            await requestor.associate(remote, [VERIFICATION]).__aenter__()
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            silent = Remote("127.0.0.1", deaf.getsockname()[1], "PACS", "FHIR_RIS")
            with pytest.raises(CallFailed, match="no answer in time"):
                await requestor.associate(silent, [VERIFICATION], timeout=0.5).__aenter__()

    run(scenario)


def test_a_peer_that_aborts_ends_the_call(hall: Hall) -> None:
    async def scenario() -> None:
        async with pynetdicom_scp([(evt.EVT_C_ECHO, lambda e: (e.assoc.abort(), 0)[1])]) as remote:
            client = requestor.associate(remote, [VERIFICATION], timeout=10)
            with pytest.raises(CallFailed, match="aborted"):
                await (await client.__aenter__()).echo()

    run(scenario)


def test_our_two_roles_fit_each_other(hall: Hall) -> None:
    async def scenario() -> None:
        remote = Remote("127.0.0.1", hall.port, "ANY", "FHIR_RIS")
        async with requestor.associate(remote, [VERIFICATION, MPPS]) as client:
            assert await client.echo() == 0
            assert requestor.status(await client.n_set(MPPS, "2.25.404", b"")) == 0x0112
        assert client.association.end_reason == "released"

    run(scenario)
