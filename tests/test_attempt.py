"""What a transaction tries and takes back (`UnitOfWork.attempt`) has never been, written or not."""

import pytest

from fhir_server.audit import Act
from fhir_server.outcome import FhirError, fail
from tests.department import ACCESS, unused


async def transact(ris, work):
    return await ris.interactions.transact(ACCESS, Act("test"), work)


def patient(family: str) -> dict:
    return {"resourceType": "Patient", "name": [{"family": family}]}


@pytest.mark.parametrize("written", [False, True])
def test_what_was_created_changed_and_deleted_is_as_it_was(ris, written):
    async def scenario():
        family = unused("Attempt")
        kept, gone = await ris.create(patient(family)), await ris.create(patient(family))
        made = []

        async def work(unit):
            first = await unit.create(patient(family + "First"))
            try:
                with unit.attempt():
                    made.append(await unit.create(patient(family + "Never")))
                    await unit.update(kept | {"gender": "female"})
                    await unit.update(first | {"gender": "male"})
                    await unit.delete("Patient", gone["id"])
                    if written:
                        await unit.flush()
                        assert len(await unit.search("Patient", family=family)) == 3
                    raise fail("business-rule", "no")
            except FhirError:
                pass
            return await unit.search("Patient", family=family)

        seen = await transact(ris, work)
        stored = await ris.search("Patient", family=family)
        assert {p["id"] for p in seen} == {p["id"] for p in stored}
        assert sorted(p["name"][0]["family"] for p in stored) == [family, family, family + "First"]
        assert all("gender" not in p and p["meta"]["versionId"] == "1" for p in stored)
        for untouched in (kept, gone):
            assert await ris.db["Patient_history"].count_documents({"id": untouched["id"]}) == 0
            changed = await ris.update(untouched, gender="other")
            assert changed["meta"]["versionId"] == "2"
        assert await ris.db["Patient"].count_documents({"_id": made[0]["id"]}) == 0

    ris.run(scenario())


def test_what_was_done_before_and_after_an_attempt_stays(ris):
    async def scenario():
        family = unused("Around")
        known = await ris.create(patient(family))

        async def work(unit):
            await unit.update(known | {"gender": "female"})
            try:
                with unit.attempt():
                    await unit.update(known | {"gender": "male"})
                    raise fail("business-rule", "no")
            except FhirError:
                pass
            await unit.update((await unit.read("Patient", known["id"])) | {"birthDate": "1970-01-31"})

        await transact(ris, work)
        now = await ris.read(known)
        assert (now["gender"], now["birthDate"], now["meta"]["versionId"]) == ("female", "1970-01-31", "2")

    ris.run(scenario())
