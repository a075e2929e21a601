"""The audit trail of who was turned away at the door (401): each try at first, then how many more there were.

A flood must not fill the trail. So of one network, in one minute, the first tries have an AuditEvent each, and the others one
together when the minute is over; and networks beyond a number are counted as one. What is written is the reason, the method and
the resource type: nothing of a token, and nothing of an address, where names and identifiers may be.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from pymongo.errors import PyMongoError
from starlette.requests import Request

from fhir_server import audit, definitions
from fhir_server.audit import Act, GroupCommit
from fhir_server.background import beside
from fhir_server.store import Document, Store
from smart_auth.access import Access
from smart_auth.login_delays import network_of

EACH = 10  # of one network in one minute have an event of their own
NETWORKS = 50  # in one minute; the others are one
ELSEWHERE = "other networks"
UNKNOWN = "unknown"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ALERT = {"system": _DCM, "code": "110113", "display": "Security Alert"}
_NODE_AUTHENTICATION = {"system": _DCM, "code": "110126", "display": "Node Authentication"}
_MINUTE = 60.0  # seconds


class RefusalTrail:
    """One a process."""

    def __init__(self, store: Store, trail: GroupCommit) -> None:
        self._store = store
        self._trail = trail
        self._since = time.monotonic()
        self._tries: dict[str, int] = {}

    async def note(self, request: Request, reason: str) -> None:
        """Put a refusal on record, now or with the others of this minute."""
        if time.monotonic() >= self._since + _MINUTE:
            await self.close_minute()
        network = network_of(request)
        if network not in self._tries and len(self._tries) >= NETWORKS:
            network = ELSEWHERE
        self._tries[network] = self._tries.get(network, 0) + 1
        if network != ELSEWHERE and self._tries[network] <= EACH:
            peer = request.client.host if request.client else None
            await self._write(f"{reason} ({request.method[:16]} {_type(request)})", peer)

    async def close_minute(self) -> None:
        """Put on record how many there were that have no event of their own, and begin to count anew."""
        over, self._tries, self._since = self._tries, {}, time.monotonic()
        for network, tries in over.items():
            if (more := tries - (0 if network == ELSEWHERE else EACH)) > 0:
                await self._write(f"{more} more in a minute from {network}", network)

    async def _write(self, text: str, peer: str | None) -> None:
        act = Act("refused", source="door", peer=peer)
        event: Document = audit.audit_event(act, Access.system(UNKNOWN), (), failed=text)
        await self._store.ensure("AuditEvent")
        await self._trail.write(event | {"type": _ALERT, "subtype": [*event["subtype"], _NODE_AUTHENTICATION]})

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Close each minute, for as long as the block lasts, and the last one at its end."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(_MINUTE)
                with contextlib.suppress(PyMongoError):
                    await self.close_minute()

        try:
            async with beside(watch()):
                yield
        finally:
            with contextlib.suppress(PyMongoError):
                await self.close_minute()


def _type(request: Request) -> str:
    first = request.scope["path"].removeprefix("/fhir").strip("/").partition("/")[0]
    return first if first in definitions.RESOURCE_TYPES else "-"
