"""Whether the audit trail is whole: every chain from its first event (or what retention left of it) to its last, unchanged."""

import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import fhir_json
from fhir_server.audit import search_index
from fhir_server.audit_chain import CHAINS, head_mac, seal

Document = dict[str, Any]
_DELAY = timedelta(minutes=2)  # between the making of an event and its storing: transactions are tried again


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be: in which chain, at which of its events, and what."""

    chain: int
    n: int
    what: str

    def __str__(self) -> str:
        return f"chain {self.chain}, event {self.n}: {self.what}"


@dataclass(slots=True)
class Verdict:
    """What was looked at. `others` are AuditEvents that clients have created, which no chain holds."""

    events: int = 0
    chains: int = 0
    others: int = 0


async def faults(db: AsyncDatabase[Document], key: bytes, verdict: Verdict) -> AsyncIterator[Fault]:
    """Everything that is wrong with the trail; counts in `verdict` what it looks at. Reads each event once, in order."""
    heads = [head async for head in db[CHAINS].find(sort=[("_id", 1)])]
    newest = max((max(head["_id"], head["newest"]) for head in heads), default=0)
    for number in sorted(set(range(1, newest + 1)) - {head["_id"] for head in heads}):
        yield Fault(number, 0, "the chain is missing")
    for head in heads:
        verdict.chains += 1
        async for fault in _of_chain(db, key, head, verdict):
            yield fault
    async for event in db["AuditEvent"].find({"chain.of": {"$exists": False}}, {"_id": 1}):
        verdict.others += 1
        made = {"search.t": f"entity>AuditEvent/{event['_id']}", "chain.of": {"$exists": True}}
        if await db["AuditEvent"].find_one(made, {"_id": 1}) is None:
            yield Fault(0, 0, f"AuditEvent/{event['_id']} is in no chain, and no event tells of its making")
    async for stray in _without_head(db, {head["_id"] for head in heads}):
        yield stray


async def _of_chain(db: AsyncDatabase[Document], key: bytes, head: Document, verdict: Verdict) -> AsyncIterator[Fault]:
    number = head["_id"]
    # The head is read before the events: what it says of them must hold, and more may have come.
    if not hmac.compare_digest(head_mac(key, number, head["n"], head["seal"], head["newest"]), head["mac"]):
        yield Fault(number, head["n"], "what was written down of its end was changed (or another key was used)")
    n, last = 0, ""
    if pruned := head.get("pruned"):
        n, last = pruned["n"], pruned["seal"]
        if not hmac.compare_digest(head_mac(key, number, n, last), pruned["mac"]):
            yield Fault(number, n, "what was written down of its beginning was changed (or another key was used)")
    where = {"chain.of": number, "chain.n": {"$gt": n}}  # those before may just be on their way out
    events = db["AuditEvent"].find(where, sort=[("chain.n", 1)])
    async for event in events:
        verdict.events += 1
        chain = event["chain"]
        if chain["n"] != n + 1:
            missing = f"{chain['n'] - n - 1} events before it are missing" if chain["n"] > n else "it is there twice"
            yield Fault(number, chain["n"], missing)
        elif not hmac.compare_digest(seal(key, number, n + 1, last, fhir_json.from_bson(event["resource"])), chain["seal"]):
            yield Fault(number, chain["n"], f"AuditEvent/{event['_id']} was changed")
        elif not _is_found_as_sealed(event):
            yield Fault(number, chain["n"], f"AuditEvent/{event['_id']}: how it is found was changed")
        n, last = chain["n"], chain["seal"]
    if n < head["n"]:
        yield Fault(number, head["n"], f"{head['n'] - n} events at its end are missing")


def _is_found_as_sealed(event: Document) -> bool:
    """Whether id, index and time of storing are those of the event that was sealed."""
    resource = event["resource"]
    recorded = datetime.fromisoformat(resource["recorded"]).replace(tzinfo=None)
    in_time = abs(event["updated"] - recorded) < _DELAY
    return bool(event["_id"] == resource["id"] and in_time and event["search"] == search_index(resource))


async def _without_head(db: AsyncDatabase[Document], known: set[int]) -> AsyncIterator[Fault]:
    for number in sorted(set(await db["AuditEvent"].distinct("chain.of")) - known):
        head = await db[CHAINS].find_one({"_id": number})  # it may have begun meanwhile
        if head is None:
            yield Fault(number, 0, "nothing is written down of its beginning")
