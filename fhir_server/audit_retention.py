"""Taking AuditEvents away that are older than they must be kept, so that the rest of the trail can still be checked."""

from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.audit_chain import CHAINS, head_mac

Document = dict[str, Any]


async def prune(db: AsyncDatabase[Document], key: bytes, before: datetime) -> int:
    """Remove the events stored before a moment (UTC without tzinfo); how many there were.

    Of a chain its beginning goes: what was its last event is written down first, so that the trail is whole at any time.
    """
    removed = 0
    async for head in db[CHAINS].find():
        removed += await _beginning(db, key, head, before)
    others = await db["AuditEvent"].delete_many({"updated": {"$lt": before}, "chain": {"$exists": False}})
    return removed + others.deleted_count


async def _beginning(db: AsyncDatabase[Document], key: bytes, head: Document, before: datetime) -> int:
    number, events = head["_id"], db["AuditEvent"]
    gone = head.get("pruned", {}).get("n", 0)
    where: Document = {"chain.of": number, "chain.n": {"$gt": gone}}
    young = {"resource.recorded": {"$gte": clock.instant(before)}}  # which is sealed
    kept = await events.find_one({**where, **young}, {"chain": 1}, sort=[("chain.n", 1)])
    old = {**where, "chain.n": {"$gt": gone, "$lt": kept["chain"]["n"]}} if kept else where
    last = await events.find_one(old, {"chain": 1}, sort=[("chain.n", -1)])
    if last is None:
        return 0
    n, seal = last["chain"]["n"], last["chain"]["seal"]
    await db[CHAINS].update_one(
        {"_id": number}, {"$set": {"pruned": {"n": n, "seal": seal, "mac": head_mac(key, number, n, seal)}}}
    )
    return (await events.delete_many({"chain.of": number, "chain.n": {"$lte": n}})).deleted_count
