"""The department of the day: its server, its partners' listeners, its catalogue and scanners, and who calls it over FHIR."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stand import temporary
from demo.apps import App
from demo.department import rooms
from demo.ehr import Listener
from demo.play import ct_scanner
from demo.scanner import Scanner
from demo.server import Server

Resource = dict[str, Any]

LOINC = "http://loinc.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
CODE = "24627-2"
_EHR = ("SIU^S12", "SIU^S13", "SIU^S14", "SIU^S15", "SIU^S26", "ORM^O01", "ORU^R01")
_WANTS = {"ehr": _EHR, "pacs": ("OMI^O23", "ADT^A08", "ADT^A40"), "billing": ("DFT^P03",)}


@dataclass(slots=True)
class Stage:
    """What the players of the day work with."""

    server: Server
    listeners: dict[str, Listener]
    app: App
    scanners: list[Scanner]

    async def find(self, query: str) -> list[Resource]:
        return await self.app.search(query)

    async def one(self, query: str) -> Resource:
        found = await self.find(query)
        assert len(found) == 1, f"{query} finds {len(found)}"
        return found[0]

    async def write(self, resource: Resource, **changes: Any) -> Resource:
        """Change a resource as it is stored now, again when somebody else was faster."""
        path = f"{resource['resourceType']}/{resource['id']}"
        for _ in range(5):
            current = await self.app.ok("GET", path)
            version = f'W/"{current["meta"]["versionId"]}"'
            answer = await self.app.request("PUT", path, current | changes, If_Match=version)
            if answer.status_code != 412:
                break
        assert answer.status_code < 300, f"PUT {path}: {answer.status_code} {answer.text[:400]}"
        written: Resource = answer.json()
        return written


@asynccontextmanager
async def stage(scanners: int, kind: type[Server] = Server) -> AsyncIterator[Stage]:
    """A server (of this kind) with everything that the day needs, in a temporary directory."""
    listeners = {name: Listener() for name in _WANTS}
    for listener in listeners.values():
        await listener.start()
    try:
        with temporary() as place:
            server = kind(place)
            await server.start_somewhere()
            try:
                async with App("department", "system/*.cruds", server.base_url) as app:
                    await _prepare(server, app, place, listeners, scanners)
                    stations = [Scanner(f"CT{n}", server.dicom_port) for n in range(1, scanners + 1)]
                    yield Stage(server, listeners, app, stations)
            finally:
                await server.stop()
    finally:
        for listener in listeners.values():
            await listener.stop()


async def _prepare(server: Server, app: App, place: Path, listeners: dict[str, Listener], scanners: int) -> None:
    jwks = str(app.write_jwks(place))
    await server.command("client", "add", app.client_id, "--scope", app.scope, "--jwks", jwks)
    there = [_catalogue(), *(ct_scanner(n) for n in range(1, scanners + 1))]
    there += [rooms.endpoint(name, name, listener.port, *_WANTS[name]) for name, listener in listeners.items()]
    await app.put(there)


def _catalogue() -> Resource:
    return {
        "resourceType": "ActivityDefinition",
        "id": "ct-chest",
        "identifier": [{"system": LOINC, "value": CODE}],
        "status": "active",
        "kind": "ServiceRequest",
        "title": "CT chest",
        "code": {"coding": [{"system": LOINC, "code": CODE, "display": "CT Chest"}]},
        "topic": [{"coding": [{"system": DCM, "code": "CT"}]}],
        "timingDuration": {"value": 15, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"},
        "extension": [rooms.charge("technical", "71250"), rooms.charge("professional", "71250")],
    }
