"""The listener of the bridge: who is let in, and what is on record of those who aren't."""

import time
from dataclasses import dataclass, field
from typing import Final

import structlog
from pymongo.errors import PyMongoError

from bridges.v2.inbound import Inbound
from bridges.v2.mllp import MllpServer
from fhir_server import audit, metrics
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.tls_files import TlsFiles
from smart_auth.access import Access

log = structlog.get_logger()

_EVERY: Final = 60.0  # seconds between two AuditEvents about the connections that are refused from one address
_MOST: Final = 1000  # addresses that are remembered for that


@dataclass(slots=True)
class Refusals:
    """Puts refused connections on record: each is counted, and of those from one address one a minute is an AuditEvent."""

    interactions: Interactions
    _since: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)

    async def note(self, host: str, reason: str) -> None:
        """reason: `address`, `connections` (too many are open) or `tls`."""
        metrics.CONNECTIONS_REFUSED.labels(reason).inc()
        now = time.monotonic()
        told, more = self._since.get((host, reason), (float("-inf"), 0))
        if now - told < _EVERY or (len(self._since) >= _MOST and not self._forget(now)):
            self._since[host, reason] = (told, more + 1)
            return
        self._since[host, reason] = (now, 0)
        detail = f"connection refused: {reason}" + (f", and {more} more since the last record" if more else "")
        act = Act("connection", source="v2", detail=detail, peer=host)
        try:
            await self.interactions.store.ensure("AuditEvent")
            await self.interactions.reads.write(audit.audit_event(act, Access.system("v2:unknown"), (), failed=detail))
        except PyMongoError as error:
            log.warning("a refused connection could not be recorded", peer=host, reason=type(error).__name__)

    def _forget(self, now: float) -> bool:
        """Forget addresses that have been quiet; whether there is room again."""
        self._since = {key: (told, more) for key, (told, more) in self._since.items() if now - told < _EVERY}
        return len(self._since) < _MOST


def listener(inbound: Inbound, interactions: Interactions, host: str, port: int, tls: TlsFiles) -> MllpServer:
    """The MLLP listener of the bridge, not yet started."""
    return MllpServer(
        host,
        port,
        inbound.converse,
        ssl=tls.server if tls.listens else None,
        admits=inbound.admits,
        refused=Refusals(interactions).note,
        counted=metrics.CONNECTIONS.set,
    )
