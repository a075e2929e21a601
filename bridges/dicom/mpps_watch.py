"""Performed steps that nobody ends: after some hours in progress somebody is asked (PS3.4 F leaves it to the SCP).

The step stays as it is: a scanner may still end it. How many hours, is a preference of the scanner.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import structlog

from fhir_server import clock, fhir_json
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.watching import looking
from resources import scanner_preferences, terms, work_items
from smart_auth.access import Access

log = structlog.get_logger()
ABANDONED: Final = "performed-step-abandoned"
_EVERY_SECONDS: Final = 60.0
_LEASE_SECONDS: Final = 60.0
_ACCESS: Final = Access.system("mpps-watch")
_SHORTEST: Final = timedelta(hours=1)


@contextlib.asynccontextmanager
async def watching(interactions: Interactions) -> AsyncIterator[None]:
    """Look every minute while inside; of several processes one does it."""

    async def look() -> None:
        await ask_about_abandoned(interactions)

    async with looking(interactions.store.db, "mpps-watch", look, every=_EVERY_SECONDS, lease=_LEASE_SECONDS, at_once=True):
        yield


async def ask_about_abandoned(interactions: Interactions) -> int:
    """Open a work item for each performed step that has been in progress for too long, once; how many there were."""
    store = interactions.store
    await store.ensure("Procedure")
    before = clock.instant(clock.now() - _SHORTEST)
    query = compile_query("Procedure", [("status", "in-progress"), ("_lastUpdated", f"lt{before}")])
    hours: dict[str, int] = {}
    asked = 0
    async for document in store.current("Procedure").find(query.filter, {"resource": 1}):
        performed = fhir_json.from_bson(document["resource"])
        station = next((p["actor"]["reference"] for p in performed.get("performer", ()) if "reference" in p["actor"]), "")
        if station not in hours:
            hours[station] = await _hours(interactions, station)
        silent = clock.now() - datetime.fromisoformat(performed["meta"]["lastUpdated"])
        if silent > timedelta(hours=hours[station]) and not await _is_asked_about(interactions, performed):
            asked += await _ask(interactions, performed, hours[station])
    return asked


async def _hours(interactions: Interactions, station: str) -> int:
    to = target(station)
    found = await interactions.store.read(to.type, to.id) if to and to.type == "Device" else None
    return scanner_preferences.of(found.resource if found else None).abandoned_after_hours


async def _is_asked_about(interactions: Interactions, performed: Resource) -> bool:
    query = compile_query("Task", [("focus", f"Procedure/{performed['id']}"), ("code", f"{terms.TASK_CODE}|{ABANDONED}")])
    return bool(await interactions.store.find_ids(query, 1))


async def _ask(interactions: Interactions, performed: Resource, hours: int) -> bool:
    """Whether a work item was opened."""
    about = f"Procedure/{performed['id']}"

    async def work(unit: UnitOfWork) -> bool:
        await unit.lock(f"abandoned:{about}")
        now = await unit.read("Procedure", performed["id"])
        if now is None or now["meta"]["versionId"] != performed["meta"]["versionId"]:
            return False
        if await unit.search("Task", focus=about, code=f"{terms.TASK_CODE}|{ABANDONED}"):
            return False
        text = f"A scanner began an examination and has said nothing for {hours} hours: has it ended?"
        await work_items.open_work_item(unit, ABANDONED, text, about, now["subject"].get("reference"))
        return True

    try:
        return await interactions.transact(_ACCESS, Act("mpps-abandoned", "dicom", about), work)
    except FhirError as error:
        log.warning("mpps.not_asked_about", procedure=performed["id"], code=error.code)
        return False
