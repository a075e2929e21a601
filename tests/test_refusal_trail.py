"""Who is turned away at the door (401) is on record, and can't fill the record."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fhir_server import refusal_trail
from fhir_server.app import assemble, http_app
from fhir_server.database import connect
from fhir_server.refusal_trail import EACH, ELSEWHERE, RefusalTrail
from fhir_server.settings import Settings
from fhir_server.validation import validate
from tests import databases
from tests.served import Served

Resource = dict[str, Any]
SECRET = "a-token-that-somebody-stole"


class Door(Served):
    """The whole HTTP application, of which these tests only see the door."""

    def __init__(self, mongodb_uri: str, data_dir: Any) -> None:
        self._uri, self._data_dir = mongodb_uri, data_dir
        super().__init__()

    async def opened(self, port: int) -> Any:
        settings = Settings(http_port=port, data_dir=self._data_dir, mongodb_database=databases.take(self._uri))
        self.db = await connect(self._uri, settings.mongodb_database)
        self.ris = await assemble(settings, self.db)
        self.base = f"http://127.0.0.1:{port}/fhir"
        return http_app(self.ris)

    async def closed(self) -> None:
        await self.db.client.close()
        await asyncio.to_thread(databases.give_back, self._uri, self.db.name)

    @property
    def trail(self) -> RefusalTrail:
        return self.ris.refusals

    def knock(self, path: str = "Patient/4711?name=Muster", **headers: str) -> int:
        return httpx.get(f"{self.base}/{path}", headers=headers).status_code

    def events(self) -> list[Resource]:
        """Those of this kind, the oldest first."""

        async def found() -> list[Resource]:
            kind = {"resource.type.code": "110113"}
            return [d["resource"] async for d in self.db["AuditEvent"].find(kind).sort("_id", 1)]

        return self.run(found())


@pytest.fixture
def door(mongodb_uri: str, tmp_path: Any) -> Iterator[Door]:
    running = Door(mongodb_uri, tmp_path)
    yield running
    running.stop()


def test_each_refusal_is_on_record_with_its_reason_and_without_the_token(door: Door) -> None:
    assert door.knock() == 401
    assert door.knock(Authorization=f"Bearer {SECRET}") == 401
    assert door.knock(f"Patient?access_token={SECRET}") == 401
    assert door.knock("metadata") == 200
    events = door.events()
    assert [e["outcomeDesc"] for e in events] == [
        "an access token is needed: Authorization: Bearer ... (GET Patient)",
        "the access token is unknown, expired or revoked (GET Patient)",
        "an access token must not be sent in the URL (GET Patient)",
    ]
    for event in events:
        assert event["outcome"] == "4"
        assert event["agent"][0]["network"]["address"] == "127.0.0.1"
        assert [text for text in (SECRET, "Muster", "4711") if text in str(event)] == []
        assert validate(event) == []


def test_a_flood_leaves_a_few_events_and_one_that_says_how_many_more(door: Door) -> None:
    for _ in range(EACH + 15):
        assert door.knock() == 401
    assert len(door.events()) == EACH
    door.run(door.trail.close_minute())
    events = door.events()
    assert len(events) == EACH + 1
    assert events[-1]["outcomeDesc"] == "15 more in a minute from 127.0.0.1"
    door.run(door.trail.close_minute())
    assert len(door.events()) == EACH + 1
    door.knock()  # the next minute begins anew
    assert len(door.events()) == EACH + 2


def test_a_flood_from_everywhere_is_counted_as_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_trail, "NETWORKS", 2)
    door.trail._tries = {"192.0.2.1": 1, "192.0.2.2": 1}
    for _ in range(5):
        assert door.knock() == 401
    assert door.events() == []
    door.run(door.trail.close_minute())
    (event,) = door.events()
    assert event["outcomeDesc"] == f"5 more in a minute from {ELSEWHERE}"


def test_what_is_left_at_the_end_is_on_record(door: Door) -> None:
    async def last_minute() -> None:
        async with door.trail.watching():
            door.trail._tries = {"192.0.2.1": EACH + 3}

    door.run(last_minute())
    (event,) = door.events()
    assert event["outcomeDesc"] == "3 more in a minute from 192.0.2.1"
