"""What scanners get while the database is away: the last good worklist for a while, else an error status, and never silence."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from fhir_server.database import connect
from fhir_server.mongod import EmbeddedMongod
from fhir_server.outcome import FhirError
from tests.dicom_client import Department, blocking, department, worklist_keys


async def _step_down(uri: str, seconds: int) -> None:
    """The primary gives up for so many seconds, as in an election; nobody takes its place."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri, directConnection=True)
    try:
        await client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=0, force=True)
    finally:
        await client.close()


async def _live_again(dep: Department) -> None:
    for _ in range(500):
        try:
            await dep.patient("BACK")
        except (PyMongoError, FhirError):
            await asyncio.sleep(0.2)
        else:
            return
    raise AssertionError("the database did not come back")


async def _associations(dep: Department) -> int:
    return len(await dep.search("AuditEvent", subtype="association"))


def test_while_a_primary_is_elected_the_last_good_worklist_serves_and_the_audit_trail_gets_it_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        mongod = EmbeddedMongod(tmp_path)
        uri = await mongod.start()
        try:
            db = await connect(uri, "ris")
            async with department(db) as dep:
                await dep.scheduled("A1", await dep.station("CT1"), "2026-09-07T08:15")
                known, other = worklist_keys(ScheduledStationAETitle="CT1"), worklist_keys(Modality="MR")
                assert (await blocking(dep.scanner().find, known)).patients == ["A1"]
                associations = await _associations(dep)
                await _step_down(uri, 40)
                began = time.monotonic()
                answers = await blocking(dep.scanner().find, known)
                assert (answers.patients, answers.final.Status) == (["A1"], 0)
                assert time.monotonic() - began < 15  # scanners wait for 30
                refused = await blocking(dep.scanner().find, other)
                assert (refused.final.Status, "try again" in refused.final.ErrorComment) == (0xC002, True)
                assert await blocking(dep.scanner().echo) == 0
                await _live_again(dep)
                assert (await blocking(dep.scanner().find, other)).final.Status == 0
                for _ in range(100):
                    events = await dep.search("AuditEvent", subtype="worklist")
                    if any("as they were" in e.get("outcomeDesc", "") for e in events):
                        break
                    await asyncio.sleep(0.2)
                else:
                    raise AssertionError("what was shown from memory is not in the audit trail")
                for _ in range(100):  # known, other, the echo, other again
                    if await _associations(dep) == associations + 4:
                        break
                    await asyncio.sleep(0.2)
                assert await _associations(dep) == associations + 4
            await db.client.close()
        finally:
            await mongod.stop()

    asyncio.run(scenario())


async def _stop(pid: int) -> None:
    """SIGSTOP, and all threads do stop: on a busy machine one may answer for a moment."""
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(60):
        while any(t.read_text().rpartition(")")[2].split()[0] not in "Tt" for t in Path(f"/proc/{pid}/task").glob("*/stat")):
            await asyncio.sleep(0.01)


def test_a_database_that_does_not_answer_keeps_no_scanner_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        mongod = EmbeddedMongod(tmp_path)
        uri = await mongod.start()
        assert mongod.pid is not None
        try:
            db = await connect(uri, "ris")
            async with department(db) as dep:
                await dep.scheduled("A1", await dep.station("CT1"), "2026-09-07T08:15")
                known = worklist_keys(ScheduledStationAETitle="CT1")
                assert (await blocking(dep.scanner().find, known)).patients == ["A1"]
                await _stop(mongod.pid)
                try:
                    assert await blocking(dep.scanner("CT9").refused) == (2, 1)  # try again: it was never seen
                    answers = await blocking(dep.scanner().find, known)
                    assert (answers.patients, answers.final.Status) == (["A1"], 0)
                finally:
                    os.kill(mongod.pid, signal.SIGCONT)
                await _live_again(dep)
                assert await blocking(dep.scanner("CT9").refused) == (1, 3)
            await db.client.close()
        finally:
            await mongod.stop()

    asyncio.run(scenario())


def test_nothing_comes_from_memory_where_that_is_not_wanted(tmp_path: Path) -> None:
    async def scenario() -> None:
        mongod = EmbeddedMongod(tmp_path)
        uri = await mongod.start()
        try:
            db = await connect(uri, "ris")
            async with department(db, last_worklist_seconds=0) as dep:
                await dep.scheduled("A1", await dep.station("CT1"), "2026-09-07T08:15")
                assert (await blocking(dep.scanner().find, worklist_keys())).patients == ["A1"]
                await _step_down(uri, 40)
                refused = await blocking(dep.scanner().find, worklist_keys())
                assert (refused.patients, refused.final.Status) == ([], 0xC002)
            await db.client.close()
        finally:
            await mongod.stop()

    asyncio.run(scenario())
