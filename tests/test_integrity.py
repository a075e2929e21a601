"""Referential integrity when several processes change things at the same moment."""

import asyncio
from typing import Any

import pytest

from fhir_server.database import connect
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry
from fhir_server.store import Store
from smart_auth.access import Access
from tests.fhir_app import patient, unused

ME = Access.system("test")


def test_nothing_is_left_referring_to_what_is_deleted_at_the_same_moment(mongodb_uri: str) -> None:
    async def work() -> None:
        db = await connect(mongodb_uri, f"test_{unused('skew')}")
        one, other = (Interactions(Store(db), Registry()) for _ in range(2))  # as in two processes
        await one.store.ensure("Patient", "Observation", "AuditEvent")
        for n in range(60):
            who = f"p{n}"
            await one.update(ME, patient(id=who))
            observation = {
                "resourceType": "Observation",
                "id": f"o{n}",
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": f"Patient/{who}"},
            }
            await asyncio.gather(one.update(ME, observation), other.delete(ME, "Patient", who), return_exceptions=True)
            left = await db["Observation"].find_one({"_id": f"o{n}"})
            there = await db["Patient"].find_one({"_id": who})
            assert there or not left, n
        assert await db["locks"].count_documents({}) > 0
        await db.client.drop_database(db.name)
        await db.client.close()

    asyncio.run(work())


def test_many_refer_to_the_same_patient_at_once(mongodb_uri: str) -> None:
    async def work() -> None:
        db = await connect(mongodb_uri, f"test_{unused('popular')}")
        servers = [Interactions(Store(db), Registry()) for _ in range(3)]
        await servers[0].update(ME, patient(id="p"))

        def observation(n: int) -> dict[str, Any]:
            about = {"status": "final", "code": {"text": str(n)}, "subject": {"reference": "Patient/p"}}
            return {"resourceType": "Observation", **about}

        made = await asyncio.gather(*(servers[n % 3].create(ME, observation(n)) for n in range(90)), return_exceptions=True)
        assert [m for m in made if isinstance(m, BaseException)] == []
        assert await db["Observation"].count_documents({}) == 90
        with pytest.raises(FhirError) as refused:
            await servers[1].delete(ME, "Patient", "p")
        assert refused.value.status == 409
        await db.client.drop_database(db.name)
        await db.client.close()

    asyncio.run(work())
