"""`fhir-ris audit ...` on the trail of a real server: whole after kill -9, faulty after tampering, exported and pruned."""

import asyncio
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pymongo import AsyncMongoClient

from benchmarks.stand import embedded_uri
from demo.apps import App
from demo.server import Server
from tests import quick_command


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`fhir-ris audit ...` with the server's settings."""
    return quick_command.run("audit", *arguments, env=server._environment(), cwd=server.directory)


async def busy(server: Server, app: App, count: int) -> None:
    made = await asyncio.gather(*(app.ok("POST", "Patient", {"resourceType": "Patient"}) for _ in range(count)))
    await asyncio.gather(*(app.ok("GET", f"Patient/{p['id']}") for p in made))


def test_the_trail_of_a_server_can_be_checked_exported_and_pruned(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(tmp_path, RIS_HTTP_WORKERS="2")
        await server.start_somewhere()
        try:
            async with App("checks", "system/*.cruds", server.base_url) as app:
                await server.command(
                    "client", "add", "checks", "--scope", "system/*.cruds", "--jwks", str(app.write_jwks(tmp_path))
                )
                await busy(server, app, 20)
                await server.kill()
                await server.start()
                await busy(server, app, 20)

                whole = await asyncio.to_thread(command, server, "verify")
                assert (whole.returncode, whole.stderr) == (0, "")
                assert "no faults" in whole.stdout

                file = tmp_path / "trail.ndjson"
                exported = await asyncio.to_thread(command, server, "export", str(file))
                events = [json.loads(line) for line in file.read_text().splitlines()]
                assert exported.stderr == f"{len(events)} events\n"
                assert {e["resourceType"] for e in events} == {"AuditEvent"}
                assert sum(e["subtype"][0]["code"] == "read" for e in events) == 40

                tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
                assert (await asyncio.to_thread(command, server, "prune", "--before", tomorrow, "--yes")).returncode == 2
                moment = f"{datetime.now(UTC) + timedelta(seconds=-1):%Y-%m-%dT%H:%M:%S}"
                pruned = await asyncio.to_thread(command, server, "prune", "--before", moment, "--yes")
                assert pruned.returncode == 0, pruned.stderr
                await busy(server, app, 5)
                assert (await asyncio.to_thread(command, server, "verify")).returncode == 0

                client = AsyncMongoClient(embedded_uri(tmp_path))
                trail = client["ris"]["AuditEvent"]
                [pruning] = await trail.find({"resource.subtype.code": "audit-prune"}).to_list()
                assert moment in pruning["resource"]["outcomeDesc"]
                [victim] = await trail.find({"resource.subtype.code": "create"}, limit=1).to_list()
                await trail.update_one({"_id": victim["_id"]}, {"$set": {"resource.agent.0.who.display": "nobody"}})
                await client.close()
                faulty = await asyncio.to_thread(command, server, "verify")
                assert faulty.returncode == 1
                assert f"AuditEvent/{victim['_id']} was changed" in faulty.stdout
        finally:
            assert await server.stop() == 0

    asyncio.run(scenario())
