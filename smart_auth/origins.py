"""Whose scripts may call the token endpoint and the FHIR API: those of the origins that apps are registered with."""

import time
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.clients import Clients
from smart_auth.redirect_uris import any_port

_KNOWN_FOR = 0.9  # seconds; a new client's origin works within one


class RegisteredOrigins:
    """The origins of all clients, remembered for a moment: one object a process."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._clients = Clients(db)
        self._known: frozenset[str] = frozenset()
        self._until = 0.0

    async def __call__(self, origin: str) -> bool:
        """Whether scripts of this origin may call. On a loopback address any port may, as its redirect URI may have any."""
        if time.monotonic() >= self._until:
            registered = await self._clients.origins()
            self._known = frozenset(registered) | {portless for o in registered if (portless := any_port(o))}
            self._until = time.monotonic() + _KNOWN_FOR
        return origin in self._known or any_port(origin) in self._known
