"""An order or a study on the wrong patient goes to the right one; records that are merged become one with all their things."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from bridges.dicom import worklist_rows
from fhir_server.audit import Act
from fhir_server.references import Target
from fhir_server.unit_of_work import UnitOfWork
from resources import patient_merge
from resources.moving import move as moving
from resources.moving.move import move
from smart_auth.access import Access
from smart_auth.scopes import parse_scopes
from tests.department import ACCESS, ZONE, Department, Resource, booking, unused

CPT = "http://www.ama-assn.org/go/cpt"
HOUSE = "urn:example:procedures"
COUGH = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05"}]}


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.registry.projection(worklist_rows.WorklistRows(ZONE).project)
        runner.run(worklist_rows.ensure_indexes(department.db))
        yield department
        department.run(department.close())


async def charged_order(ris: Department, patient: Resource, **elements: object) -> Resource:
    parts = [
        {"url": "component", "valueCode": "technical"},
        {"url": "code", "valueCodeableConcept": {"coding": [{"system": CPT, "code": "T1"}]}},
    ]
    code = unused("X")
    await ris.create(
        {
            "resourceType": "ActivityDefinition",
            "status": "active",
            "kind": "ServiceRequest",
            "identifier": [{"system": HOUSE, "value": code}],
            "extension": [{"url": "urn:fhir-ris:charge", "extension": parts}],
        }
    )
    coded = {"coding": [{"system": HOUSE, "code": code}]}
    return await ris.order(patient, code=coded, reasonCode=[COUGH], **elements)


async def moved(ris: Department, what: Resource, to: Resource, *, correct_reports: bool = False) -> list[str]:
    async def work(unit: UnitOfWork) -> list[Target]:
        resource = await unit.read(what["resourceType"], what["id"])
        patient = await unit.read("Patient", to["id"])
        assert resource
        assert patient
        return await move(unit, resource, patient, "ordered on the wrong patient", correct_reports=correct_reports)

    return [str(one) for one in await ris.interactions.transact(ACCESS, Act("test"), work)]


async def referring(ris: Department, patient: Resource) -> set[str]:
    """The types of what refers to a patient."""
    quiet = {"Patient", "AuditEvent", "Provenance"}
    names = [n for n in await ris.db.list_collection_names() if n[0].isupper() and not n.endswith("_history") and n not in quiet]
    return {n for n in names if await ris.db[n].find_one({"search.t": f">Patient/{patient['id']}"})}


async def surroundings(ris: Department, order: Resource, performed: Resource) -> None:
    """What others put around an order: questionnaire, contrast, a critical result, an authorization, ..."""
    subject = order["subject"]
    procedure, study = await ris.procedure(order), await ris.study(order)
    of_order, of_procedure = ({"reference": f"ServiceRequest/{r['id']}"} for r in (order, procedure))
    about = {"reference": f"ImagingStudy/{study['id']}"}
    done = {"reference": f"Procedure/{performed['id']}"}
    for resource in (
        {"resourceType": "QuestionnaireResponse", "status": "completed", "subject": subject, "basedOn": [of_order]},
        {
            "resourceType": "MedicationAdministration", "status": "completed", "subject": subject, "partOf": [done],
            "medicationCodeableConcept": {"text": "contrast"}, "effectiveDateTime": "2026-09-08T08:10:00Z",
        },
        {"resourceType": "Communication", "status": "completed", "subject": subject, "about": [about]},
        {"resourceType": "CommunicationRequest", "status": "active", "subject": subject, "basedOn": [of_procedure]},
        {"resourceType": "Media", "status": "completed", "subject": subject, "partOf": [done], "content": {"title": "x"}},
    ):  # fmt: skip
        await ris.create(resource)


HANGS = {
    "ServiceRequest", "Task", "Appointment", "Procedure", "ImagingStudy", "DiagnosticReport", "ChargeItem", "Communication",
    "CommunicationRequest", "MedicationAdministration", "QuestionnaireResponse", "Media",
}  # fmt: skip


def test_a_reported_order_on_the_wrong_patient_goes_to_the_right_one_with_all_that_hangs_on_it_and_all_are_told(ris):
    async def scenario():
        wrong, right = await ris.patient(), await ris.patient()
        other = await ris.order(wrong)
        order = await charged_order(ris, wrong)
        await ris.book(order, await ris.scanner())
        everybody = await ris.destination("ORU^R01", "DFT^P03")
        performed = await ris.perform(order)
        await surroundings(ris, order, performed)
        report = await ris.report(order)
        assert (await ris.refused(moved(ris, order, right))).status == 409
        await moved(ris, order, right, correct_reports=True)
        assert await referring(ris, right) >= HANGS
        assert await referring(ris, wrong) == {"ServiceRequest", "Task", "ImagingStudy"}
        assert (await ris.read(other))["subject"]["reference"] == f"Patient/{wrong['id']}"
        assert (await ris.read(report))["status"] == "corrected"
        number = {p["id"]: p["identifier"][0]["value"] for p in (wrong, right)}
        told = [(m.first("PID").get(3), m) for m in await ris.sent(everybody)]
        results = [(whose, m.first("OBR").field(25)) for whose, m in told if m.first("OBR")]
        charges = [(whose, m.first("FT1").field(6)) for whose, m in told if m.first("FT1")]
        assert results[-2:] == [(number[wrong["id"]], "X"), (number[right["id"]], "C")] or results[-2:] == [
            (number[wrong["id"]], "D"), (number[right["id"]], "C"),
        ]  # fmt: skip
        assert charges == [(number[wrong["id"]], "CG"), (number[wrong["id"]], "CD"), (number[right["id"]], "CG")]
        (item,) = await ris.work_items("order-moved", focus=f"ServiceRequest/{order['id']}")
        assert item["for"]["reference"] == f"Patient/{right['id']}"
        (provenance,) = await ris.search("Provenance", target=f"ServiceRequest/{order['id']}")
        assert provenance["reason"] == [{"text": "ordered on the wrong patient"}]
        await ris.become(everybody, "off")

    ris.run(scenario())


def test_a_booked_order_that_is_moved_is_on_the_worklist_under_the_right_name(ris):
    async def scenario():
        wrong, right = await ris.patient(name=[{"family": "Falsch"}]), await ris.patient(name=[{"family": "Richtig"}])
        visit = {"resourceType": "Encounter", "status": "planned", "class": {"code": "AMB"}}
        visit = await ris.create(visit | {"subject": {"reference": f"Patient/{wrong['id']}"}})
        order = await ris.order(wrong, encounter={"reference": f"Encounter/{visit['id']}"})
        booked = await ris.book(order, await ris.scanner())
        told = await ris.destination("SIU^S12", "SIU^S15")
        await moved(ris, order, right)
        row = await ris.db["worklist"].find_one({"_id": (await ris.step(order))["id"]})
        assert row["patient"] == f"Patient/{right['id']}"
        assert row["names"][0].startswith("richtig")
        assert "encounter" not in await ris.read(order)
        assert (await ris.read(booked))["participant"][0]["actor"]["reference"] == f"Patient/{right['id']}"
        sent = [(m.first("MSH").get(9, 2), m.first("PID").get(5)) for m in await ris.sent(told)]
        assert sent == [("S15", "Falsch"), ("S12", "Richtig")]
        await ris.become(told, "off")
        # and it goes on as that patient's
        await ris.perform(await ris.read(order))
        assert (await ris.step(order))["status"] == "completed"

    ris.run(scenario())


def test_what_would_contradict_itself_is_not_moved_and_nothing_is_half_moved(ris):
    async def scenario():
        wrong, right = await ris.patient(), await ris.patient()
        one, two = await ris.order(wrong), await ris.order(wrong)
        shared = booking(one, await ris.scanner())
        await ris.create(shared | {"basedOn": [*shared["basedOn"], {"reference": f"ServiceRequest/{two['id']}"}]})
        gone = await ris.patient(active=False)
        before = await ris.counts()
        refused = await ris.refused(moved(ris, one, right))
        assert refused.status == 409
        assert "also of" in str(refused)
        assert (await ris.refused(moved(ris, one, wrong))).status == 422
        assert (await ris.refused(moved(ris, one, gone))).status == 422
        assert (await ris.refused(moved(ris, await ris.study(one), right))).status == 409
        assert await ris.counts() == before
        assert (await ris.read(one))["subject"]["reference"] == f"Patient/{wrong['id']}"

    ris.run(scenario())


def test_a_study_made_under_the_order_of_another_patient_goes_and_that_order_waits_again(ris):
    async def scenario():
        wrong, right = await ris.patient(), await ris.patient()
        order = await charged_order(ris, wrong)
        await ris.book(order, await ris.scanner())
        study = await ris.study(order)
        uid = study["identifier"][0]["value"]
        performed = await ris.perform(order)
        await ris.update(await ris.read(performed), identifier=[{"system": "urn:fhir-ris:study-instance-uid", "value": uid}])
        dcm = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}
        study = await ris.update(await ris.read(study), series=[{"uid": "1.2.3", "modality": dcm}])
        await moved(ris, study, right)
        study, performed = await ris.read(study), await ris.read(performed)
        assert study["subject"] == performed["subject"] == {"reference": f"Patient/{right['id']}"}
        assert "basedOn" not in study
        assert "basedOn" not in performed
        assert (await ris.step(order))["status"] == "accepted"
        assert (await ris.study(order))["id"] != study["id"]
        charges = await ris.search("ChargeItem", subject=f"Patient/{wrong['id']}")
        assert [c["status"] for c in charges] == ["aborted"]
        assert {r["status"] for r in await ris.readings(order)} == {"cancelled"}
        assert len(await ris.work_items("study-without-order", focus=f"ImagingStudy/{study['id']}")) == 1

    ris.run(scenario())


async def merge(ris: Department, survivor: Resource, prior: Resource) -> None:

    async def work(unit: UnitOfWork) -> None:
        records = [await unit.read("Patient", p["id"]) for p in (survivor, prior)]
        assert all(records)
        await patient_merge.merge(unit, records[0] or {}, records[1] or {}, [])

    await ris.interactions.transact(ACCESS, Act("test"), work)
    await patient_merge.finish(ris.interactions)


def test_a_patient_who_is_merged_while_on_the_table_stays_one_with_everything_to_the_report(ris):
    async def scenario():
        prior, survivor = await ris.patient(), await ris.patient()
        order = await charged_order(ris, prior)
        await ris.book(order, await ris.scanner())
        performed = await ris.perform(order, "in-progress")
        await surroundings(ris, order, performed)
        whose = {"reference": f"Patient/{prior['id']}"}
        await ris.create({"resourceType": "Coverage", "status": "active", "beneficiary": whose, "payor": [whose]})
        await merge(ris, survivor, prior)
        assert await referring(ris, prior) == set()
        assert await referring(ris, survivor) == (HANGS | {"Coverage"}) - {"ChargeItem", "DiagnosticReport"}
        await ris.become(performed, "completed")
        order = await ris.read(order)
        await ris.report(order)
        assert (await ris.read(order))["status"] == "completed"
        assert await referring(ris, prior) == set()
        (item,) = await ris.search("ChargeItem", subject=f"Patient/{survivor['id']}")
        assert item["status"] == "billable"
        # An order that was merged and then moved stays where it was moved to when the merge is taken back.
        third = await ris.patient()
        await moved(ris, order, third, correct_reports=True)

        async def back(unit: UnitOfWork) -> None:
            await patient_merge.unmerge(unit, await unit.read("Patient", prior["id"]) or {})

        await ris.interactions.transact(ACCESS, Act("test"), back)
        assert await referring(ris, prior) == {"Coverage"}
        assert (await ris.read(order))["subject"]["reference"] == f"Patient/{third['id']}"

    ris.run(scenario())


def test_what_is_written_for_an_order_while_it_moves_goes_along_or_is_refused(ris, monkeypatch):
    async def scenario():
        wrong, right = await ris.patient(), await ris.patient()
        order = await ris.order(wrong)
        procedure = await ris.procedure(order)
        reached, go_on, record = asyncio.Event(), asyncio.Event(), moving._record

        async def paused(*given: Any) -> None:
            reached.set()
            await go_on.wait()
            await record(*given)

        monkeypatch.setattr(moving, "_record", paused)
        moves = asyncio.create_task(moved(ris, order, right))
        await reached.wait()
        based = {"subject": order["subject"], "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}]}
        writes = asyncio.create_task(ris.create({"resourceType": "Communication", "status": "completed"} | based))
        late = based | {"supportingInformation": based["basedOn"], "code": COUGH}
        charges = asyncio.create_task(ris.create({"resourceType": "ChargeItem", "status": "billable"} | late))
        await asyncio.wait([writes, charges], timeout=0.3)
        go_on.set()
        await moves
        written = await asyncio.gather(writes, charges, return_exceptions=True)
        subjects = [(await ris.read(w))["subject"]["reference"] for w in written if not isinstance(w, BaseException)]
        assert set(subjects) <= {f"Patient/{right['id']}"}

    ris.run(scenario())


def test_what_a_patient_denied_is_denied_all_the_while_that_a_large_merge_lasts(ris, monkeypatch):
    monkeypatch.setattr(patient_merge, "PORTION", 3)

    async def scenario():
        prior, survivor = await ris.patient(), await ris.patient()
        whose = {"reference": f"Patient/{prior['id']}"}
        await ris.create({
            "resourceType": "Consent", "status": "active", "patient": whose, "policy": [{"uri": "http://example.org/policy"}],
            "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}], "provision": {"type": "deny"},
        })  # fmt: skip
        for _ in range(3):
            await ris.order(prior)
        scopes = parse_scopes("user/*.rs")
        reader = Access("client", scopes, "t", user="Practitioner/rad", user_name="rad", role="radiologist")

        async def shown() -> int:
            both = ",".join(f"Patient/{p['id']}" for p in (prior, survivor))
            query = [("subject", both)]
            return len((await ris.interactions.search(await reader.settled(ris.db), "ServiceRequest", query)).matches)

        async def first(unit: UnitOfWork) -> bool:
            records = [await unit.read("Patient", p["id"]) or {} for p in (survivor, prior)]
            return await patient_merge.merge(unit, *records, [])

        assert await ris.interactions.transact(ACCESS, Act("test"), first)
        assert await shown() == 0
        await patient_merge.finish(ris.interactions)
        assert await shown() == 0
        assert {"Consent", "ServiceRequest"} <= await referring(ris, survivor)

    ris.run(scenario())
