"""Which AE titles may call: those of the active Devices, once any is registered (DESIGN.md section 2.5)."""

import time

from fhir_server import fhir_json
from fhir_server.search.query import compile_query
from fhir_server.store import Store
from resources import device, terms

_CACHE_SECONDS = 1.0
_LIMIT = 10_000


class Stations:
    """The registered AE titles. Scanners call every few seconds, so what was read serves for a second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._titles: frozenset[str] = frozenset()
        self._read_at = float("-inf")

    async def admits(self, ae_title: str) -> bool:
        """Whether this caller is known; everybody is while no station is registered."""
        if time.monotonic() - self._read_at > _CACHE_SECONDS:
            self._titles = await self._read()
            self._read_at = time.monotonic()
        return not self._titles or ae_title in self._titles

    async def _read(self) -> frozenset[str]:
        await self._store.ensure("Device")
        query = compile_query("Device", [("identifier", f"{terms.AE_TITLE}|")])
        found = [fhir_json.from_bson(d["resource"]) for d in await self._store.find(query, limit=_LIMIT)]
        return frozenset(t for d in found if d.get("status", "active") == "active" and (t := device.ae_title(d)))
