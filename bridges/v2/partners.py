"""Who may send us HL7 v2 now: the partners among the active Endpoints, as they were a second ago at most."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import structlog
from pymongo.errors import PyMongoError

from bridges.v2.ack import AckError
from bridges.v2.endpoint_check import CONNECTION_TYPE
from bridges.v2.message import Message
from bridges.v2.mllp import Peer
from bridges.v2.partner import Partner, address_of
from bridges.v2.refused import Refused
from fhir_server.search.query import compile_query
from fhir_server.store import Store

log = structlog.get_logger()

MAX_AGE = 1.0  # seconds
_LIMIT = 10_000
_NOBODY = Partner()
_NO_SENDER = 103  # MSH-3 and MSH-4 are of tables 0361 and 0362: a value that isn't in ours


@dataclass(frozen=True, slots=True)
class Directory:
    """The partners that are registered, the most closely described first."""

    partners: Sequence[Partner] = ()

    def admits(self, host: str) -> bool:
        """Whether a connection from this address may stay: some partner's, or with none registered this machine's."""
        if not self.partners:
            return is_loopback(address_of(host))
        return any(partner.may_come_from(host) for partner in self.partners)

    def sender(self, message: Message, peer: Peer) -> Partner:
        """The partner that sent a message. Refused (AR) when it is nobody's, or doesn't come as agreed."""
        if not self.partners:
            if is_loopback(address_of(peer.host)):
                return _NOBODY
            raise _refused(message, "no sender is registered here")
        application, facility = message.msh.field(3).strip(), message.msh.field(4).strip()
        called = [p for p in self.partners if p.is_called(application, facility)]
        here = [p for p in called if p.may_come_from(peer.host)]
        if not here:
            raise _refused(message, "this sender is not known here" if not called else "this sender is not known at its address")
        known = next((p for p in here if p.shows(peer.names)), None)
        if known is None:
            raise _refused(message, "this sender doesn't show the certificate that was agreed")
        return known


def is_loopback(address: IPv4Address | IPv6Address | None) -> bool:
    return address is not None and address.is_loopback


def _refused(message: Message, text: str) -> Refused:
    field_ = 3 if message.msh.field(3).strip() or not message.msh.field(4).strip() else 4
    return Refused(AckError("MSH", 1, field_, code=_NO_SENDER, text=text), code="AR", stranger=True)


@dataclass(slots=True)
class Partners:
    """The directory of one process, read from the store when it is older than `max_age` seconds.

    While the database is away the last one serves: nothing can be processed then, but known senders are told so.
    """

    store: Store
    max_age: float = MAX_AGE
    _directory: Directory = field(default_factory=Directory)
    _read: float = float("-inf")

    async def directory(self) -> Directory:
        now = time.monotonic()
        if now - self._read > self.max_age:
            try:
                self._directory = Directory(tuple(await self._look()))
                self._read = now
            except PyMongoError as error:
                log.warning("the partners can't be read", reason=type(error).__name__)
        return self._directory

    async def _look(self) -> list[Partner]:
        await self.store.ensure("Endpoint")
        query = compile_query("Endpoint", [("status", "active"), ("connection-type", CONNECTION_TYPE)])
        partners = []
        for document in await self.store.find(query, limit=_LIMIT):
            try:
                partner = Partner.of(document["resource"])
            except ValueError:  # it was stored before its headers were checked, or past us
                log.error("an Endpoint describes no sender", endpoint=document["_id"])  # noqa: TRY400 - no news in the traceback
                continue
            if partner is not None:
                partners.append(partner)
        return sorted(partners, key=lambda p: (*(not s for s in p.specificity), p.reference))
