"""Interface health by partner, and critical results that nobody has acknowledged yet."""

import asyncio
from typing import Any, Final

from fhir_server import outbox
from fhir_server.search.dates import of_text
from resources.numbers.question import Cell, Db, Figure, Question

PARTNER: Final = "partner"
PRIORITY: Final = "priority"
_RECEIVED: Final = "messages"  # the v2 bridge's store of what came in
INTERFACE: Final = ("received", "failed", "sent", "delivered", "set-aside", "queued", "oldest")
CRITICAL: Final = ("opened", "open", "overdue")
# CommunicationRequest.category of the obligation to tell of a critical result.
_CRITICAL: Final = "category@urn:fhir-ris:communication|critical-result"
_ASIDE: Final = ("refused", "dead", "invalid")
Sums = dict[Cell, dict[str, float]]
RECEIVED_INDEX: Final = [("received", 1), ("partner", 1), ("outcome", 1)]
SENT_INDEX: Final = [("created", 1), ("destination", 1), ("state", 1)]


async def ensure_indexes(db: Db) -> None:
    """A period's messages, with all that is asked of them."""
    await db[_RECEIVED].create_index(RECEIVED_INDEX)
    await db[outbox.COLLECTION].create_index(SENT_INDEX)


async def health(db: Db, asked: Question) -> list[Figure]:
    """Messages of the period by partner: received and failed, sent and what became of them; and what is queued now."""
    sums: Sums = {}

    def add(partner: str | None, **amounts: float) -> None:
        own = sums.setdefault(asked.cell({PARTNER: partner or None}), {})
        for name, amount in amounts.items():
            name = name.replace("_", "-")
            own[name] = max(own.get(name, 0), amount) if name == "oldest" else own.get(name, 0) + amount

    counted: dict[str, Any] = {"n": {"$sum": 1}}

    async def come() -> None:
        stages = [{"$match": asked.period("received")}, {"$group": {"_id": {"p": "$partner", "s": "$outcome"}} | counted}]
        async for row in await db[_RECEIVED].aggregate(stages, hint=dict(RECEIVED_INDEX)):
            partner, n = row["_id"].get("p"), row["n"]
            add(partner, received=n, failed=n if row["_id"].get("s") in {"AE", "AR"} else 0)

    async def gone() -> None:
        stages = [{"$match": asked.period("created")}, {"$group": {"_id": {"p": "$destination", "s": "$state"}} | counted}]
        async for row in await db[outbox.COLLECTION].aggregate(stages, hint=dict(SENT_INDEX)):
            partner, state, n = _partner(row["_id"]["p"]), row["_id"]["s"], row["n"]
            add(partner, sent=n, delivered=n if state == "delivered" else 0, set_aside=n if state in _ASIDE else 0)

    async def queued() -> None:
        waits = {"_id": "$destination", "oldest": {"$min": "$created"}} | counted
        async for row in await db[outbox.COLLECTION].aggregate(
            [{"$match": {"state": "pending"}}, {"$group": waits}], hint={"state": 1, "key": 1}
        ):
            minutes = round((asked.now - row["oldest"]).total_seconds() / 60, 2)
            add(_partner(row["_id"]), queued=row["n"], oldest=minutes)

    await asyncio.gather(come(), gone(), queued())
    return _figures(asked, sums, INTERFACE)


def _partner(destination: str) -> str:
    """The Endpoint: what the DICOM bridge delivers has a mark before it."""
    return destination.removeprefix(outbox.DICOM)


async def critical(db: Db, asked: Question) -> list[Figure]:
    """Critical results of the period: how many there were, how many are open still, and how many of these are overdue."""
    sums: Sums = {}
    stages = [
        {"$match": {"search.t": _CRITICAL} | asked.period("search.d.authored.s")},
        {"$project": {"status": "$resource.status", "priority": "$resource.priority", "due": "$resource.occurrenceDateTime"}},
    ]
    async for row in await db["CommunicationRequest"].aggregate(stages):
        own = sums.setdefault(asked.cell({PRIORITY: row.get("priority", "routine")}), dict.fromkeys(CRITICAL, 0))
        is_open = row.get("status") == "active"
        own["opened"] += row.get("status") not in {"entered-in-error", "revoked"}
        own["open"] += is_open
        own["overdue"] += is_open and _is_past(row.get("due"), asked)
    return _figures(asked, sums, CRITICAL)


def _is_past(due: str | None, asked: Question) -> bool:
    return due is not None and of_text(due)[0] < asked.now


def _figures(asked: Question, sums: Sums, names: tuple[str, ...]) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        for stratum, own in asked.strata(list(sums)).items():
            values = [sums[c].get(name, 0) for c in own]
            if name == "oldest":
                oldest = max(values, default=0)
                queued = sum(int(sums[c].get("queued", 0)) for c in own)
                figures.append(Figure(name, "age", oldest if queued else None, "min", queued, stratum))
            else:
                figures.append(Figure(name, "count", sum(values), "1", int(sum(values)), stratum))
    return figures
