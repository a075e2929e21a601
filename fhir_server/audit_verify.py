"""Whether the audit trail is whole: every chain from its first event (or what retention left of it) to its last, unchanged.

`faults` looks at all of it, `newest_faults` at the newest events, `state_of` at one. What a check has found is kept, under a seal
of the same key, in `audit_checks`: a `Check`, and its `mac`.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock, fhir_json
from fhir_server.audit import search_index
from fhir_server.audit_chain import CHAINS, check_mac, head_mac, seal

Document = dict[str, Any]
CHECKS = "audit_checks"
_FAULTS_KEPT = 20
_AT_ONCE = 50  # events between which others have their turn
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


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of the trail has found: `all_of_it`, or its newest events. `count` of faults, of which the first are kept.

    `sealed`: this is what was written down then.
    """

    at: datetime
    by: str
    all_of_it: bool
    events: int
    chains: int
    others: int
    count: int
    faults: tuple[str, ...]
    sealed: bool = True


async def faults(db: AsyncDatabase[Document], key: bytes, verdict: Verdict) -> AsyncIterator[Fault]:
    """Everything that is wrong with the trail; counts in `verdict` what it looks at. Reads each event once, in order."""
    heads = [head async for head in db[CHAINS].find(sort=[("_id", 1)])]
    for fault in _missing(heads):
        yield fault
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


def _missing(heads: list[Document]) -> Iterator[Fault]:
    there = {head["_id"] for head in heads}
    newest = max((max(head["_id"], head["newest"]) for head in heads), default=0)
    for number in sorted(set(range(1, newest + 1)) - there):
        yield Fault(number, 0, "the chain is missing")


async def newest_faults(db: AsyncDatabase[Document], key: bytes, verdict: Verdict, most: int) -> AsyncIterator[Fault]:
    """What is wrong with the newest events, of the chains last written to about `most` in all."""
    heads = [head async for head in db[CHAINS].find()]
    for fault in _missing(heads):
        yield fault
    for head in sorted(heads, key=lambda head: head["at"], reverse=True):
        if verdict.events >= most:
            return
        verdict.chains += 1
        async for fault in _of_chain(db, key, head, verdict, most - verdict.events):
            yield fault


async def state_of(db: AsyncDatabase[Document], key: bytes, id_: str) -> str:
    """Of one event: `sealed` as it was stored, `changed`, or `unchained` for one that a client has created."""
    event = await db["AuditEvent"].find_one({"_id": id_})
    if event is None or "chain" not in event:
        return "unchained"
    of, n = event["chain"]["of"], event["chain"]["n"]
    before = await db["AuditEvent"].find_one({"chain.of": of, "chain.n": n - 1}, {"chain": 1})
    head = await db[CHAINS].find_one({"_id": of}) or {}
    pruned = head.get("pruned", {})
    last = before["chain"]["seal"] if before else pruned.get("seal", "") if pruned.get("n", 0) == n - 1 else None
    if last is None:
        return "changed"  # what was before it is gone
    whole = hmac.compare_digest(seal(key, of, n, last, fhir_json.from_bson(event["resource"])), event["chain"]["seal"])
    return "sealed" if whole and _is_found_as_sealed(event) else "changed"


async def check(
    db: AsyncDatabase[Document],
    key: bytes,
    by: str,
    most: int | None = None,
    tell: Callable[[Fault], None] = lambda _: None,
) -> Check:
    """Look at the whole trail, or at the newest `most` events, `tell` each fault, and keep what was found."""
    verdict, count, first = Verdict(), 0, []
    async for fault in faults(db, key, verdict) if most is None else newest_faults(db, key, verdict, most):
        tell(fault)
        count += 1
        if count <= _FAULTS_KEPT:
            first.append(str(fault))
    found = Check(clock.now(), by, most is None, verdict.events, verdict.chains, verdict.others, count, tuple(first))
    await _keep(db, key, found)
    return found


async def _keep(db: AsyncDatabase[Document], key: bytes, found: Check) -> None:
    told = asdict(found) | {"at": clock.instant(found.at), "faults": list(found.faults)}
    del told["sealed"]
    await db[CHECKS].insert_one({**told, "mac": check_mac(key, told)})


async def last_checks(db: AsyncDatabase[Document], key: bytes, limit: int) -> list[Check]:
    """What the last checks have found, the newest first."""
    found = []
    async for stored in db[CHECKS].find(sort=[("_id", -1)], limit=limit):
        told = {name: value for name, value in stored.items() if name not in {"_id", "mac"}}
        sealed = hmac.compare_digest(check_mac(key, told), str(stored.get("mac")))
        found.append(Check(**told | {"at": datetime.fromisoformat(told["at"]), "faults": tuple(told["faults"])}, sealed=sealed))
    return found


async def _of_chain(
    db: AsyncDatabase[Document], key: bytes, head: Document, verdict: Verdict, most: int | None = None
) -> AsyncIterator[Fault]:
    """`most`: of its events the last."""
    number = head["_id"]
    # The head is read before the events: what it says of them must hold, and more may have come.
    if not hmac.compare_digest(head_mac(key, number, head["n"], head["seal"], head["newest"]), head["mac"]):
        yield Fault(number, head["n"], "what was written down of its end was changed (or another key was used)")
    n, last = 0, ""
    if pruned := head.get("pruned"):
        n, last = pruned["n"], pruned["seal"]
        if not hmac.compare_digest(head_mac(key, number, n, last), pruned["mac"]):
            yield Fault(number, n, "what was written down of its beginning was changed (or another key was used)")
    if most is not None and head["n"] - most > n:
        before = await db["AuditEvent"].find_one({"chain.of": number, "chain.n": head["n"] - most}, {"chain": 1})
        n, last = head["n"] - most, before["chain"]["seal"] if before else ""
        if before is None:
            yield Fault(number, n, "the event is missing")
    where = {"chain.of": number, "chain.n": {"$gt": n}}  # those before may just be on their way out
    events = db["AuditEvent"].find(where, sort=[("chain.n", 1)])
    async for event in events:
        verdict.events += 1
        if verdict.events % _AT_ONCE == 0:
            await asyncio.sleep(0)  # a server has others to answer
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
