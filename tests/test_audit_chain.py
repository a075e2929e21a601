"""The audit trail is whole, or shows that it is not: every kind of tampering is found, and nothing else is."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server import clock
from fhir_server.audit_chain import CHAINS
from fhir_server.audit_retention import prune
from fhir_server.audit_verify import CHECKS, Verdict, check, faults, last_checks, state_of
from fhir_server.database import Document, connect
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry
from fhir_server.store import Store
from smart_auth.access import Access
from smart_auth.scopes import parse_scopes
from tests.fhir_app import unused

KEY = secrets.token_bytes(32)
ME = Access("tester", parse_scopes("system/*.cruds"), "t")
Db = AsyncDatabase[Document]


async def work(db: Db, key: bytes = KEY, rounds: int = 6) -> Interactions:
    """A server that writes, reads, is refused and meets conflicts, all at once."""
    server = Interactions(Store(db, audit_key=key), Registry())
    made = await asyncio.gather(*(server.create(ME, {"resourceType": "Patient"}) for _ in range(rounds)))
    for _ in range(2):
        await asyncio.gather(
            *(server.read(ME, "Patient", p["id"]) for p in made),
            *(server.update(ME, {**made[0], "birthDate": f"19{n:02d}"}) for n in range(10, 10 + rounds)),
            *(server.create(ME, {"resourceType": "Patient", "gender": "unheard-of"}) for _ in range(3)),
            server.read(Access("nobody", (), "t"), "Patient", made[0]["id"]),
            return_exceptions=True,
        )
    await server.store.trail.note_heads()
    return server


async def found(db: Db, key: bytes = KEY) -> tuple[list[str], Verdict]:
    verdict = Verdict()
    return [str(fault) async for fault in faults(db, key, verdict)], verdict


def in_a_database(mongodb_uri: str, scenario: Callable[[Db], Awaitable[None]]) -> None:
    async def run() -> None:
        db = await connect(mongodb_uri, f"test_{unused('trail')}")
        try:
            await scenario(db)
        finally:
            await db.client.drop_database(db.name)
            await db.client.close()

    asyncio.run(run())


def test_what_several_servers_write_at_once_is_whole(mongodb_uri: str) -> None:
    async def scenario(db: Db) -> None:
        servers = await asyncio.gather(*(work(db) for _ in range(3)))
        problems, verdict = await found(db)
        assert problems == []
        assert verdict.events == await db["AuditEvent"].count_documents({})
        assert verdict.events > 60
        assert verdict.others == 0
        assert verdict.chains <= 3 * 8, "a chain goes on from one transaction to the next"
        event = {"resourceType": "AuditEvent", "type": {"code": "x"}, "recorded": "2026-01-01T00:00:00Z"}
        event |= {"agent": [{"requestor": True}], "source": {"observer": {"display": "elsewhere"}}}
        await servers[0].create(ME, event)
        problems, verdict = await found(db)
        assert (problems, verdict.others) == ([], 1)

    in_a_database(mongodb_uri, scenario)


async def _longest(db: Db) -> int:
    """A chain that has some events."""
    counted = [{"$group": {"_id": "$chain.of", "count": {"$sum": 1}}}, {"$sort": {"count": -1, "_id": 1}}, {"$limit": 1}]
    (longest,) = await (await db["AuditEvent"].aggregate(counted)).to_list()
    assert longest["count"] > 4
    return int(longest["_id"])


async def _event(db: Db, n: int) -> Document:
    """The n-th of its events; of less than 1 the last."""
    where = {"chain.of": await _longest(db), **({"chain.n": n} if n > 0 else {})}
    found = await db["AuditEvent"].find_one(where, sort=[("chain.n", -1)])
    assert found is not None
    return found


async def _change(db: Db) -> None:
    changed = {"$set": {"resource.agent.0.who.display": "somebody else"}}
    await db["AuditEvent"].update_one({"_id": (await _event(db, 3))["_id"]}, changed)


async def _change_time(db: Db) -> None:
    changed = {"$set": {"resource.recorded": "2020-01-01T00:00:00.000Z"}}
    await db["AuditEvent"].update_one({"_id": (await _event(db, 3))["_id"]}, changed)


async def _remove_one(db: Db) -> None:
    await db["AuditEvent"].delete_one({"_id": (await _event(db, 3))["_id"]})


async def _remove_first(db: Db) -> None:
    await db["AuditEvent"].delete_one({"_id": (await _event(db, 1))["_id"]})


async def _remove_end(db: Db) -> None:
    await db["AuditEvent"].delete_one({"_id": (await _event(db, 0))["_id"]})


async def _remove_end_with_head(db: Db) -> None:
    last, number = await _event(db, 0), await _longest(db)
    await db["AuditEvent"].delete_one({"_id": last["_id"]})
    before = await db["AuditEvent"].find_one({"chain.of": number, "chain.n": last["chain"]["n"] - 1})
    assert before is not None
    await db[CHAINS].update_one({"_id": number}, {"$set": {k: before["chain"][k] for k in ("n", "seal")}})


async def _remove_chain(db: Db) -> None:
    number = await _longest(db)
    await db["AuditEvent"].delete_many({"chain.of": number})
    await db[CHAINS].delete_one({"_id": number})


async def _remove_head(db: Db) -> None:
    await db[CHAINS].delete_one({"_id": await _longest(db)})


async def _remove_newest(db: Db) -> None:
    newest = await db[CHAINS].find_one(sort=[("_id", -1)])
    assert newest is not None
    await db["AuditEvent"].delete_many({"chain.of": newest["_id"]})
    await db[CHAINS].delete_one({"_id": newest["_id"]})


async def _backdate(db: Db) -> None:
    await db["AuditEvent"].update_one({"_id": (await _event(db, 3))["_id"]}, {"$set": {"updated": datetime(2001, 1, 1)}})  # noqa: DTZ001


async def _hide(db: Db) -> None:
    await db["AuditEvent"].update_one({"_id": (await _event(db, 3))["_id"]}, {"$set": {"search.t": []}})


async def _add(db: Db) -> None:
    event = await _event(db, 3)
    del event["chain"]
    await db["AuditEvent"].insert_one({**event, "_id": "added", "resource": {**event["resource"], "id": "added"}})


async def _swap(db: Db) -> None:
    one, other = await _event(db, 1), await _event(db, 2)
    await db["AuditEvent"].update_one({"_id": one["_id"]}, {"$set": {"resource": other["resource"]}})
    await db["AuditEvent"].update_one({"_id": other["_id"]}, {"$set": {"resource": one["resource"]}})


async def _forge(db: Db) -> None:
    last = await _event(db, 0)
    await db["AuditEvent"].insert_one({**last, "_id": "forged", "chain": {**last["chain"], "n": last["chain"]["n"] + 1}})


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_change, "was changed"),
        (_change_time, "was changed"),
        (_swap, "was changed"),
        (_forge, "was changed"),
        (_backdate, "how it is found was changed"),
        (_hide, "how it is found was changed"),
        (_add, "is in no chain"),
        (_remove_one, "before it are missing"),
        (_remove_first, "before it are missing"),
        (_remove_end, "at its end are missing"),
        (_remove_end_with_head, "of its end was changed"),
        (_remove_chain, "the chain is missing"),
        (_remove_head, "the chain is missing"),
        (_remove_newest, "the chain is missing"),
    ],
)
def test_tampering_shows(mongodb_uri: str, tamper: Callable[[Db], Awaitable[None]], said: str) -> None:
    async def scenario(db: Db) -> None:
        await work(db)
        assert (await found(db))[0] == []
        await tamper(db)
        problems, _ = await found(db)
        assert any(said in problem for problem in problems), problems

    in_a_database(mongodb_uri, scenario)


def test_seals_are_worth_nothing_without_the_key(mongodb_uri: str) -> None:
    async def scenario(db: Db) -> None:
        await work(db)
        problems, _ = await found(db, secrets.token_bytes(32))
        assert problems

    in_a_database(mongodb_uri, scenario)


def test_a_transaction_that_fails_leaves_no_gap(mongodb_uri: str) -> None:
    async def scenario(db: Db) -> None:
        server = await work(db, rounds=2)
        for _ in range(5):
            with pytest.raises(FhirError):
                await server.create(
                    ME, {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/none"}}
                )
            await server.create(ME, {"resourceType": "Patient"})
        assert (await found(db))[0] == []

    in_a_database(mongodb_uri, scenario)


def test_what_is_old_goes_and_the_rest_can_still_be_checked(mongodb_uri: str) -> None:
    async def scenario(db: Db) -> None:
        await work(db)
        await asyncio.sleep(0.01)
        moment = clock.naive(clock.now())
        await asyncio.sleep(0.01)
        old = await db["AuditEvent"].count_documents({"updated": {"$lt": moment}})
        await work(db)
        new = await db["AuditEvent"].count_documents({"updated": {"$gte": moment}})
        assert await prune(db, KEY, moment) == old
        assert await prune(db, KEY, moment) == 0
        problems, verdict = await found(db)
        assert (problems, verdict.events) == ([], new)
        await db["AuditEvent"].delete_one({})
        assert (await found(db))[0]

    in_a_database(mongodb_uri, scenario)


def test_the_newest_events_are_checked_alone_and_the_result_is_sealed(mongodb_uri: str) -> None:
    async def scenario(db: Db) -> None:
        await work(db, rounds=8)
        total = await db["AuditEvent"].count_documents({})
        some = await check(db, KEY, "me", 10)
        assert (some.count, some.all_of_it) == (0, False)
        assert 10 <= some.events < total
        assert (await check(db, KEY, "me", 10 * total)).events == total
        assert (await check(db, KEY, "me")).count == 0

        last, first = await _event(db, 0), await _event(db, 1)
        assert await state_of(db, KEY, last["_id"]) == "sealed"
        assert await state_of(db, KEY, first["_id"]) == "sealed"
        changed = {"$set": {"resource.outcome": "8"}}
        await db["AuditEvent"].update_one({"_id": last["_id"]}, changed)
        assert await state_of(db, KEY, last["_id"]) == "changed"
        found = await check(db, KEY, "me", 10 * total)
        assert found.faults == (f"chain {last['chain']['of']}, event {last['chain']['n']}: AuditEvent/{last['_id']} was changed",)

        kept = await last_checks(db, KEY, 9)
        assert [(k.count, k.sealed) for k in kept] == [(1, True), (0, True), (0, True), (0, True)]
        assert kept[0] == found
        await db[CHECKS].update_one({"count": 1}, {"$set": {"count": 0, "faults": []}})
        assert (await last_checks(db, KEY, 1))[0].sealed is False

    in_a_database(mongodb_uri, scenario)
