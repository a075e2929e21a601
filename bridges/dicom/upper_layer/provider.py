"""One connection under the state machine: bytes to PDUs to events, and the actions of PS3.8 tables 9-6 to 9-9."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol, cast

from bridges.dicom.upper_layer import pdu
from bridges.dicom.upper_layer.items import MalformedPdu
from bridges.dicom.upper_layer.pdu import Abort, AssociateAccept, AssociateReject, AssociateRequest, DataTransfer, DataValue
from bridges.dicom.upper_layer.state import TABLE, Event, State

# What is read of a PDU, in bytes, whatever its sender announces. A P-DATA-TF longer than was negotiated is let pass up to here.
MAX_DATA_PDU: Final = 1024 * 1024
MAX_ASSOCIATE_PDU: Final = 256 * 1024
_MAX_OTHER_PDU: Final = 64
_AFTER_ABORT: Final = 2.0  # seconds for an aborted peer to close the connection
_WRITE_BUFFER: Final = 64 * 1024  # bytes that wait to be sent before a sender has to wait

_EVENT_OF: Final[dict[int, Event]] = {
    pdu.ASSOCIATE_RQ: "associate-rq",
    pdu.ASSOCIATE_AC: "associate-ac",
    pdu.ASSOCIATE_RJ: "associate-rj",
    pdu.DATA_TF: "data",
    pdu.RELEASE_RQ: "release-rq",
    pdu.RELEASE_RP: "release-rp",
    pdu.ABORT: "abort",
}
_PROTOCOL_VERSION_NOT_SUPPORTED: Final = AssociateReject(1, 2, 2)


class AssociationEnded(Exception):
    """What was to be sent can't be: the association is being released or is gone."""


class User(Protocol):
    """Who uses the provider: its indications and confirmations (PS3.8 7)."""

    def connected(self) -> None: ...
    def requested(self, request: AssociateRequest) -> None: ...
    def accepted(self, accept: AssociateAccept) -> None: ...
    def rejected(self, reject: AssociateReject) -> None: ...
    def received(self, values: tuple[DataValue, ...]) -> None: ...
    def release_requested(self) -> None: ...
    def released(self) -> None: ...
    def aborted(self, reason: str) -> None: ...
    def closed(self) -> None: ...


class Provider(asyncio.Protocol):
    """The upper layer of one connection. With a `request` it is the requestor's, else the acceptor's.

    artim: seconds of the association request/reject/release timer (PS3.8 9.1.5)
    write: seconds that the peer has to take what is sent
    """

    def __init__(self, user: User, *, artim: float, write: float, request: AssociateRequest | None = None) -> None:
        self._user = user
        self._artim_seconds = artim
        self._write_seconds = write
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._artim: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._lost = False  # where the next PDU begins can't be told
        self._late = 0  # bytes that came while the end of the connection is awaited
        self._writable: asyncio.Future[None] | None = None
        self.state: State = "Sta1" if request is None else "Sta4"
        self.heard = self._loop.time()  # when the peer last sent something
        self.gone = False

    # The user's primitives

    def accept(self, accept: AssociateAccept) -> None:
        self._event("accept", accept)

    def reject(self, reject: AssociateReject) -> None:
        self._event("reject", reject)

    def release(self) -> None:
        self._event("release request")

    def respond_to_release(self) -> None:
        self._event("release response")

    def abort(self) -> None:
        """End the association without ceremony; nothing happens when it has ended."""
        self._event("abort request")

    async def send(self, data: bytes) -> None:
        """Send P-DATA-TF PDUs, and wait while the peer is slow to take them. AssociationEnded when they can't be sent; a peer
        that doesn't take them in time loses the connection.
        """
        if not self._event("data request", data):
            raise AssociationEnded
        if self._writable is not None:
            _, late = await asyncio.wait([self._writable], timeout=self._write_seconds)
            if late:
                self.drop()
                raise AssociationEnded

    def drop(self) -> None:
        """Abort the association and close the connection at once: what the peer hasn't taken is lost."""
        self.abort()
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._user.connected()
        self._event("connected" if self._request else "connection indication")

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self.state == "Sta13" and not self._still_heard(len(data)):
            return
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= pdu.HEADER_LENGTH and self.state != "Sta1":
            kind = self._buffer[at]
            length = int.from_bytes(self._buffer[at + 2 : at + pdu.HEADER_LENGTH], "big")
            if length > _longest(kind):
                at, self._lost = len(self._buffer), True
                self._event("invalid pdu", pdu.INVALID_PARAMETER if kind in pdu.KINDS else pdu.UNRECOGNISED_PDU)
                break
            end = at + pdu.HEADER_LENGTH + length
            if end > len(self._buffer):
                break
            body, at = bytes(self._buffer[at + pdu.HEADER_LENGTH : end]), end
            self._pdu(kind, body)
        if self.state == "Sta1":
            self._buffer.clear()
        else:
            del self._buffer[:at]

    def _still_heard(self, length: int) -> bool:
        """Whether what comes after the end of an association is looked at: as long as PDUs can be told, and it isn't much."""
        self._late += length
        if self._late > MAX_DATA_PDU and self._transport is not None:
            self._transport.abort()
        return not self._lost and self._late <= MAX_DATA_PDU

    def _pdu(self, kind: int, body: bytes) -> None:
        try:
            decoded = pdu.decode(kind, body)
        except MalformedPdu:
            self._event("invalid pdu", pdu.INVALID_PARAMETER)
            return
        self._event(_EVENT_OF[kind], decoded)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.gone = True
        self.resume_writing()
        self._event("connection closed")
        self._stop_artim()
        self._user.closed()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    # The machine

    def _event(self, event: Event, argument: Any = None) -> bool:
        """Run the event's action in this state; whether there is one."""
        action = TABLE[event].get(self.state)
        if action is None:
            return False
        self._ACTIONS[action](self, argument)
        return True

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        self._stop_artim()
        self.state = "Sta1"
        if self._transport is not None:
            self._transport.close()
            # A peer that doesn't take what was written last would hold the connection for ever.
            if not self.gone:
                self._artim = self._loop.call_later(self._artim_seconds, self._transport.abort)

    def _start_artim(self, seconds: float | None = None) -> None:
        self._stop_artim()
        self._artim = self._loop.call_later(seconds or self._artim_seconds, self._event, "artim expired")

    def _stop_artim(self) -> None:
        if self._artim is not None:
            self._artim.cancel()
            self._artim = None

    # Actions

    def _ae_2(self, _: Any) -> None:
        assert self._request is not None
        self.state = "Sta5"
        self._write(self._request.encode())

    def _ae_3(self, accept: AssociateAccept) -> None:
        self.state = "Sta6"
        self._user.accepted(accept)

    def _ae_4(self, reject: AssociateReject) -> None:
        self._close()
        self._user.rejected(reject)

    def _ae_5(self, _: Any) -> None:
        self.state = "Sta2"
        self._start_artim()

    def _ae_6(self, request: AssociateRequest) -> None:
        self._stop_artim()
        if not request.protocol_version & pdu.PROTOCOL_VERSION:
            self._ae_8(_PROTOCOL_VERSION_NOT_SUPPORTED)
            return
        self.state = "Sta3"
        self._user.requested(request)

    def _ae_7(self, accept: AssociateAccept) -> None:
        self.state = "Sta6"
        self._write(accept.encode())

    def _ae_8(self, reject: AssociateReject) -> None:
        self.state = "Sta13"
        self._write(reject.encode())
        self._start_artim()

    def _send_data(self, data: bytes) -> None:
        self._write(data)

    def _indicate_data(self, transfer: DataTransfer) -> None:
        self._user.received(transfer.values)

    def _ar_1(self, _: Any) -> None:
        self.state = "Sta7"
        self._write(pdu.ReleaseRequest().encode())

    def _ar_2(self, _: Any) -> None:
        self.state = "Sta8"
        self._user.release_requested()

    def _ar_3(self, _: Any) -> None:
        self._close()
        self._user.released()

    def _ar_4(self, _: Any) -> None:
        self.state = "Sta13"
        self._write(pdu.ReleaseResponse().encode())
        self._start_artim()
        self._user.released()

    def _ar_5(self, _: Any) -> None:
        self._stop_artim()
        self.state = "Sta1"

    def _ar_8(self, _: Any) -> None:
        self.state = "Sta9" if self._request else "Sta10"
        self._user.release_requested()

    def _ar_9(self, _: Any) -> None:
        self.state = "Sta11"
        self._write(pdu.ReleaseResponse().encode())

    def _ar_10(self, _: Any) -> None:
        self.state = "Sta12"
        self._event("release response")

    def _aa_1(self, _: Any) -> None:
        before, self.state = self.state, "Sta13"
        self._write(Abort(pdu.BY_SERVICE_USER).encode())
        self._start_artim(min(self._artim_seconds, _AFTER_ABORT))
        if before != "Sta2":
            self._user.aborted("aborted by us")

    def _aa_2(self, _: Any) -> None:
        self._close()

    def _aa_3(self, abort: Abort) -> None:
        self._close()
        by_user = abort.source == pdu.BY_SERVICE_USER
        self._user.aborted("aborted by the peer" if by_user else f"aborted by the peer's upper layer (reason {abort.reason})")

    def _aa_4(self, _: Any) -> None:
        self._stop_artim()
        self.state = "Sta1"
        self._user.aborted("the connection was lost")

    def _aa_6(self, _: Any) -> None:
        """A PDU that comes too late to matter."""

    def _aa_7(self, reason: Any) -> None:
        self._write(_provider_abort(reason))

    def _aa_8(self, reason: Any) -> None:
        self.state = "Sta13"
        self._write(_provider_abort(reason))
        self._start_artim(min(self._artim_seconds, _AFTER_ABORT))
        self._user.aborted("the peer broke the protocol")

    _ACTIONS: ClassVar[dict[str, Callable[["Provider", Any], None]]] = {
        "AE-2": _ae_2, "AE-3": _ae_3, "AE-4": _ae_4, "AE-5": _ae_5,
        "AE-6": _ae_6, "AE-7": _ae_7, "AE-8": _ae_8,
        "DT-1": _send_data, "DT-2": _indicate_data,
        "AR-1": _ar_1, "AR-2": _ar_2, "AR-3": _ar_3, "AR-4": _ar_4, "AR-5": _ar_5,
        "AR-6": _indicate_data, "AR-7": _send_data, "AR-8": _ar_8, "AR-9": _ar_9,
        "AR-10": _ar_10,
        "AA-1": _aa_1, "AA-2": _aa_2, "AA-3": _aa_3, "AA-4": _aa_4, "AA-5": _ar_5,
        "AA-6": _aa_6, "AA-7": _aa_7, "AA-8": _aa_8,
    }  # fmt: skip


def _longest(kind: int) -> int:
    if kind == pdu.DATA_TF:
        return MAX_DATA_PDU
    if kind in {pdu.ASSOCIATE_RQ, pdu.ASSOCIATE_AC}:
        return MAX_ASSOCIATE_PDU
    return _MAX_OTHER_PDU if kind in pdu.KINDS else -1


def _provider_abort(reason: Any) -> bytes:
    """The A-ABORT for an event: its argument is the reason of an invalid PDU, or a PDU that was not expected."""
    return Abort(pdu.BY_SERVICE_PROVIDER, reason if isinstance(reason, int) else pdu.UNEXPECTED_PDU).encode()
