"""How it stands with each scanner (Device with an AE title): does it ask for its worklist as usual, and what does it get.

up          it has asked, and nothing is unusual
silent      it has not asked for longer than usual (`bridges/dicom/habits.py`)
empty       it has got empty lists for longer than usual
refused     it was turned away when it last called
quiet       it has not called yet
off         its Device isn't active
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from bridges import contacts
from bridges.contacts import Contact
from bridges.dicom import habits
from fhir_server import clock
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.store import Store
from resources import device

DAYS: Final = 14
_STEPS: Final = 1000
_WORST: Final = {"scanner-silent": "silent", "scanner-refused": "refused", "scanner-empty": "empty"}


@dataclass(frozen=True, slots=True)
class ScannerState:
    """One scanner. `usual`: within which time it usually asks again; `days`: its queries of the last 14 days, the oldest first;
    `unusual`: what is said of it. `refused_times`: since it is known."""

    title: str
    device: Resource | None = None
    state: str = "quiet"
    unusual: tuple[str, ...] = ()
    asked: datetime | None = None
    filled: datetime | None = None
    answers: int | None = None
    usual: timedelta | None = None
    days: list[int] = field(default_factory=lambda: [0] * DAYS)
    refused: datetime | None = None
    refused_times: int = 0
    why: str = ""
    contact: Contact | None = None

    @property
    def name(self) -> str:
        return device.name(self.device) or self.title

    @property
    def modalities(self) -> str:
        return ", ".join(device.modalities(self.device)) if self.device else ""


async def of(db: AsyncDatabase[dict[str, Any]], devices: Sequence[Resource]) -> list[ScannerState]:
    """How it stands with these, in their order."""
    titles = [device.ae_title(d) or "" for d in devices]
    known = {d["_id"]: d async for d in db[habits.COLLECTION].find({"_id": {"$in": titles}})}
    met = await contacts.last(db, [f"Device/{d['id']}" for d in devices])
    return [
        _state(title, known.get(title, {}), one, met.get(f"Device/{one['id']}"))
        for title, one in zip(titles, devices, strict=True)
    ]


async def strangers(db: AsyncDatabase[dict[str, Any]], titles: Sequence[str]) -> list[ScannerState]:
    """AE titles that called within the last day and are none of these, the newest first."""
    since = clock.naive(clock.now() - timedelta(days=1))
    found = db[habits.COLLECTION].find(
        {"_id": {"$nin": list(titles)}, "refused": {"$gt": since}}, sort=[("refused", -1)], limit=20
    )
    return [_state(d["_id"], d, None, None) async for d in found]


@dataclass(frozen=True, slots=True)
class Performed:
    """The performed steps of a scanner in the last 7 days, by status, and when the last one changed."""

    by_status: dict[str, int]
    last: datetime | None = None


async def performed(store: Store, reference: str) -> Performed:
    """The performed steps (MPPS) of a Device: counts alone, nobody's examination."""
    await store.ensure("Procedure")
    since = clock.instant(clock.now() - timedelta(days=7))
    query = compile_query("Procedure", [("performer", reference), ("_lastUpdated", f"gt{since}")])
    fields = {"resource.status": 1, "resource.meta.lastUpdated": 1}
    found = [d["resource"] for d in await store.current("Procedure").find(query.filter, fields, limit=_STEPS).to_list()]
    by_status: dict[str, int] = {}
    for one in found:
        by_status[one["status"]] = by_status.get(one["status"], 0) + 1
    last = max((str(one["meta"]["lastUpdated"]) for one in found), default=None)
    return Performed(by_status, datetime.fromisoformat(last) if last else None)


def _state(title: str, known: dict[str, Any], one: Resource | None, contact: Contact | None) -> ScannerState:
    now = clock.naive(clock.now())
    unusual = habits.findings(known, now) if known else []
    asked, accepted, refused = known.get("asked"), known.get("accepted"), known.get("refused")
    state = next((_WORST[what] for what, _ in unusual), "up" if asked else "quiet")
    if refused is not None and (accepted is None or refused > accepted):
        state = "refused"
    if one is not None and one.get("status", "active") != "active":
        state = "off"
    days = known.get("days", {})
    counts = [days.get(f"{now - timedelta(days=DAYS - 1 - n):%Y%m%d}", {}).get("n", 0) for n in range(DAYS)]
    return ScannerState(
        title, one, state, tuple(text for _, text in unusual), asked, known.get("filled"), known.get("answers"),
        habits.usual_pause(known, now), counts, refused, known.get("refused_times", 0), known.get("why", ""), contact,
    )  # fmt: skip
