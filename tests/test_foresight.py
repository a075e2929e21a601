"""What a transaction looks for ahead (`View.foresee`) is what it would find when it asks; and the rules do ask for it."""

import asyncio

import pytest

from fhir_server.audit import Act
from fhir_server.foresight import asked
from fhir_server.outcome import FhirError
from fhir_server.references import Target
from tests.department import ACCESS, CT_CHEST, unused, v2


async def transact(ris, work):
    return await ris.interactions.transact(ACCESS, Act("test"), work)


def patient(family: str, **more: object) -> dict:
    return {"resourceType": "Patient", "name": [{"family": family}]} | more


async def found(unit, *families: str) -> list[list[str]]:
    return [[p["id"] for p in await unit.search("Patient", family=f)] for f in families]


def test_what_was_foreseen_is_what_is_found(ris):
    async def scenario():
        none, one, many, large = (unused(f"Foreseen{i}x") for i in range(4))
        stored = [await ris.create(patient(family)) for family in [one, *[many] * 12]]
        stored.append(await ris.create(patient(large, photo=[{"title": "x" * 200_000}])))
        gone = await ris.create(patient(one))
        await ris.delete(gone)
        late, early = unused("ForeseenZ"), unused("ForeseenA")  # found in the order of their ids, not of their names
        stored += [await ris.create(patient(family)) for family in (late, early)]
        families = none, one, many, large, f"{early},{late}"

        async def plain(unit):
            return await found(unit, *families), await unit.some("Patient", 2, family=many)

        async def foreseen(unit):
            searches = [asked("Patient", {"family": f}) for f in families]
            newest = asked("Patient", {"family": many}, newest=2)
            await unit.foresee(*searches, newest, Target("Patient", stored[0]["id"]), Target("Patient", gone["id"]))
            assert await unit.read("Patient", stored[0]["id"]) == stored[0]
            assert await unit.read("Patient", gone["id"]) is None
            assert await unit.is_gone("Patient", gone["id"])
            return await plain(unit)

        expected = await transact(ris, plain)
        assert [len(ids) for ids in expected[0]] == [0, 1, 12, 1, 2]
        assert await transact(ris, foreseen) == expected

    ris.run(scenario())


def test_own_changes_count_after_foreseeing_too(ris):
    async def scenario():
        family, other = unused("Own"), unused("Other")
        known = await ris.create(patient(family))
        leaves = await ris.create(patient(family))

        async def work(unit):
            await unit.foresee(asked("Patient", {"family": family}), asked("Patient", {"family": other}))
            await unit.update(leaves | {"name": [{"family": other}]})
            made = await unit.create(patient(family))
            assert await found(unit, family, other) == [sorted([known["id"], made["id"]]), [leaves["id"]]]
            await unit.flush()
            await unit.delete("Patient", known["id"])
            assert await found(unit, family, other) == [[made["id"]], [leaves["id"]]]

        await transact(ris, work)

    ris.run(scenario())


def test_what_refers_to_a_resource_of_the_transaction_is_found_before_and_after_it_is_written(ris):
    async def scenario():
        async def visits(unit, of):
            return [e["id"] for e in await unit.search("Encounter", patient=f"Patient/{of['id']}")]

        async def work(unit):
            made = await unit.create(patient(unused("New")))
            assert await visits(unit, made) == []
            visit = {
                "resourceType": "Encounter",
                "status": "planned",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                "subject": {"reference": f"Patient/{made['id']}"},
            }
            first = await unit.create(visit)
            assert await visits(unit, made) == [first["id"]]
            await unit.flush()
            second = await unit.create(visit)
            assert sorted(await visits(unit, made)) == sorted([first["id"], second["id"]])

        await transact(ris, work)

    ris.run(scenario())


def test_a_new_order_is_looked_into_at_once(ris):
    """What an order asks of the database is known from the message: one look for all of it, and one for its new numbers."""

    async def scenario():
        await ris.create(
            {"resourceType": "ActivityDefinition", "status": "active", "code": CT_CHEST}
            | {"identifier": [{"system": CT_CHEST["coding"][0]["system"], "value": "24627-2"}]}
        )
        await ris.accepted(order(unused("P")))  # what is made once is there
        await ris.db.command("profile", 2)
        await ris.accepted(order(unused("P")))
        await ris.db.command("profile", 0)
        looks = await ris.db["system.profile"].find({"op": {"$in": ["query", "command"]}}).to_list()
        sought = [d["command"]["find"] for d in looks if "find" in d["command"]]
        at_once = [d for d in looks if d["command"].get("aggregate") == "catalog"]
        assert len(at_once) == 2
        assert not {"Patient", "Practitioner", "ServiceRequest", "Task", "ActivityDefinition", "NamingSystem"} & {*sought}, sought

    ris.run(scenario())


def order(patient_id: str) -> bytes:
    number = unused("L")
    return v2(
        "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||{patient_id}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
        f"PV1|1|O|RAD^1||||815^Referrer^Rolf||||||||||||V{patient_id}",
        f"ORC|NW|{number}^EHR|||||^^^20260907140000^^R||20260907081500|||815^Referrer^Rolf^^^Dr.",
        f"OBR|1|{number}^EHR||24627-2^CT Chest^LN|||||||||cough|||||||||||CT",
    )


@pytest.mark.parametrize("made_for", ["an order", "an observation"])
def test_what_comes_together_looks_for_its_patients_at_once(ris, made_for):
    """Twelve creates, one of which names a record that was merged into another, and one a patient that isn't there."""

    async def scenario():
        patients = [await ris.create(patient(unused("Together"))) for _ in range(12)]
        merged = patients[3] | {"active": False, "link": [{"other": {"reference": "Patient/other"}, "type": "replaced-by"}]}
        other = await ris.create(patient(unused("Survivor")))
        merged["link"][0]["other"]["reference"] = f"Patient/{other['id']}"
        await ris.interactions.update(ACCESS, merged)
        patients[5] = {"id": "nobody"}
        make = laboratory_order if made_for == "an order" else blood_count
        await ris.create(make(patients[0]))  # what is made once is there
        await ris.db["system.profile"].drop()
        await ris.db.command("profile", 2)
        made = await asyncio.gather(*(ris.create(make(p)) for p in patients), return_exceptions=True)
        await ris.db.command("profile", 0)
        refused = {i: str(r) for i, r in enumerate(made) if isinstance(r, FhirError)}
        assert refused.keys() == {3, 5}
        assert "was merged into" in refused[3]
        assert all(
            r["subject"]["reference"].endswith(p["id"]) for r, p in zip(made, patients, strict=True) if isinstance(r, dict)
        )
        looks = await ris.db["system.profile"].find({"op": "query", "command.find": "Patient"}).to_list()
        assert len(looks) <= 2  # the first, which comes alone, and what is done again alone

    ris.run(scenario())


def laboratory_order(subject: dict) -> dict:
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "code": {"text": "blood count"},
        "subject": {"reference": f"Patient/{subject['id']}"},
    }


def blood_count(subject: dict) -> dict:
    whose = {"reference": f"Patient/{subject['id']}"}
    return {"resourceType": "Observation", "status": "final", "code": {"text": "blood count"}, "subject": whose}
