"""Merging patients under load, in portions, across a crash, on the worklist, and taking a merge back."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridges.dicom import worklist_rows
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.redirection import redirect
from fhir_server.references import Target
from fhir_server.registry import Change
from fhir_server.unit_of_work import UnitOfWork
from resources import patient_merge
from tests.department import ACCESS, ZONE, Department, code, condition, place, text, unused, v2

MANY = 2000


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.registry.projection(worklist_rows.WorklistRows(ZONE).project)
        runner.run(worklist_rows.ensure_indexes(department.db))
        yield department
        department.run(department.close())


def adt(event: str, *segments: str) -> bytes:
    return v2(f"MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ADT^{event}|{{id}}|P|2.5.1", *segments)


def pid(number: str, name: str = "Muster^Mara") -> str:
    return f"PID|||{number}^^^EXAMPLEHOSP^MR||{name}||19700131|F"


def mrg(number: str) -> str:
    return f"MRG|{number}^^^EXAMPLEHOSP^MR"


def order(patient: str, placer: str) -> bytes:
    return v2(
        "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1",
        pid(patient), f"ORC|NW|{placer}^EHR", f"OBR|1|{placer}^EHR||24627-2^CT Chest^LN|||||||||||||||||||||CT",
    )  # fmt: skip


async def registered(ris: Department, *numbers: str) -> list[dict[str, Any]]:
    """The Patients of these numbers, made by the master."""
    for number in numbers:
        await ris.accepted(adt("A28", pid(number)))
    return [await ris.one("Patient", identifier=number) for number in numbers]


async def referring(ris: Department, patient: dict[str, Any]) -> list[str]:
    """Everything stored that refers to a patient, but for the other record of a merge."""
    found = []
    for name in await ris.db.list_collection_names():
        if name[0].isupper() and not name.endswith("_history") and name not in {"Patient", "AuditEvent", "Provenance"}:
            documents = await ris.db[name].find({"search.t": f">Patient/{patient['id']}"}, {"_id": 1}).to_list()
            found += [f"{name}/{document['_id']}" for document in documents]
    return found


def test_orders_that_race_with_a_merge_are_the_survivor_s_or_refused(ris):
    """Real concurrency: whoever is first, no order stays with the record that was merged."""

    async def scenario():
        for _ in range(4):
            stays, goes = unused("S"), unused("G")
            survivor, prior = await registered(ris, stays, goes)
            orders = [order(goes, unused("L")) for _ in range(10)]
            answers = await asyncio.gather(
                *(ris.receive(o) for o in orders[:5]), ris.receive(adt("A40", pid(stays), mrg(goes))),
                *(ris.receive(o) for o in orders[5:]),
            )  # fmt: skip
            codes = [code(a) for a in answers]
            assert codes[5] == "AA", answers[5].raw
            assert set(codes) <= {"AA", "AE"}
            for refused in (a for a in answers if code(a) == "AE"):
                assert condition(refused) == "204"
                assert "merged" in text(refused)
            assert await referring(ris, prior) == []
            kept = await ris.search("ServiceRequest", subject=f"Patient/{survivor['id']}", intent="order")
            assert len(kept) == codes.count("AA") - 1

    ris.run(scenario())


@pytest.mark.parametrize("strict", [True, False])
def test_orders_over_fhir_that_race_with_a_merge_are_the_survivor_s_or_refused(ris, strict):
    """However references are checked (RIS_REFERENTIAL_INTEGRITY)."""

    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        door = Interactions(ris.store, ris.registry, strict_references=strict)
        asked = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "CT"}}
        asked |= {"subject": {"reference": f"Patient/{prior['id']}"}}
        attempts = [door.create(ACCESS, asked) for _ in range(8)]
        done = await asyncio.gather(
            *attempts[:4], ris.receive(adt("A40", pid(stays), mrg(goes))), *attempts[4:], return_exceptions=True
        )
        assert code(done[4]) == "AA"
        made = [d for d in done if isinstance(d, dict)]
        assert await referring(ris, prior) == []
        assert len(await ris.search("ServiceRequest", subject=f"Patient/{survivor['id']}", intent="order")) == len(made)

    ris.run(scenario())


def test_nothing_is_ordered_booked_or_admitted_for_a_merged_record_by_any_door(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        before = await ris.order(prior)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        reference = {"reference": f"Patient/{prior['id']}"}
        visit = {"resourceType": "Encounter", "status": "planned", "class": {"code": "AMB"}, "subject": reference}
        booking = {
            "resourceType": "Appointment",
            "status": "proposed",
            "participant": [{"actor": reference, "status": "accepted"}],
        }
        for attempt in (ris.order(prior), ris.create(visit), ris.create(booking)):
            error = await ris.refused(attempt)
            assert f"Patient/{survivor['id']}" in str(error)
        # what was there before goes on
        moved = await ris.become(before, "on-hold")
        assert moved["subject"]["reference"] == f"Patient/{survivor['id']}"

    ris.run(scenario())


ACTIVE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}
FILED = (
    {"resourceType": "AllergyIntolerance", "patient": {}, "code": {"text": "iodinated contrast"}, "clinicalStatus": ACTIVE},
    {"resourceType": "Observation", "status": "final", "code": {"text": "creatinine"}, "subject": {}},
    {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}, "subject": {}, "conclusion": "x"},
    {"resourceType": "Coverage", "status": "active", "beneficiary": {}, "payor": [{"display": "Payer"}]},
    {"resourceType": "Account", "status": "active", "subject": [{}]},
    {"resourceType": "Communication", "status": "completed", "subject": {}},
    {"resourceType": "Flag", "status": "active", "code": {"text": "MRSA"}, "subject": {}},
    {"resourceType": "AppointmentResponse", "participantStatus": "accepted", "actor": {}, "appointment": {"display": "x"}},
)


def of(resource: dict[str, Any], patient: dict[str, Any]) -> dict[str, Any]:
    """The same, of a patient, where it says whose it is."""
    whose = {"reference": f"Patient/{patient['id']}"}
    return {k: whose if v == {} else [whose] if v == [{}] else v for k, v in resource.items()}


@pytest.mark.parametrize("filed", FILED, ids=lambda filed: filed["resourceType"])
def test_nothing_new_is_filed_under_a_merged_record_where_no_rule_would_see_it(ris, filed):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        known = await ris.create(of(filed, prior))
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        error = await ris.refused(ris.create(of(filed, prior)))
        assert error.status == 422
        assert f"was merged into Patient/{survivor['id']}" in str(error)
        now = await ris.update(await ris.read(known), language="en")
        assert of(filed, survivor).items() <= {k: v for k, v in now.items() if k != "issued"}.items()

    ris.run(scenario())


def test_what_is_the_survivor_s_does_not_become_the_merged_record_s(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        flag = {"resourceType": "Flag", "status": "active", "code": {"text": "MRSA"}, "subject": {}}
        error = await ris.refused(ris.update(await ris.create(of(flag, survivor)), **of({"subject": {}}, prior)))
        assert (error.status, error.issues[0].expression) == (422, "Flag.subject")

    ris.run(scenario())


def test_what_happened_is_told_of_a_merged_record_too(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        _, prior = await registered(ris, stays, goes)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        whose = {"reference": f"Patient/{prior['id']}"}
        told = {"target": [whose], "recorded": "2026-09-07T08:15:00Z", "agent": [{"who": {"display": "x"}}]}
        await ris.create({"resourceType": "Provenance"} | told)
        await ris.create({"resourceType": "Task", "status": "requested", "intent": "order", "focus": whose, "for": whose})

    ris.run(scenario())


def test_an_examination_of_a_record_that_a_system_has_linked_goes_on(ris):
    """Such a link moves nothing: what was there stays with the record, and what comes of it too."""

    async def scenario():
        survivor, prior = await registered(ris, unused("S"), unused("G"))
        placed = await ris.order(prior)
        await ris.book(placed, await ris.scanner())
        replaced = {"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}
        await ris.update(await ris.read(prior), active=False, link=[replaced])
        performed = await ris.perform(placed)
        assert performed["subject"] == placed["subject"]
        await ris.report(placed)
        await ris.refused(ris.order(prior))

    ris.run(scenario())


def test_two_merges_at_once_that_would_make_a_ring_make_none(ris):
    async def scenario():
        for _ in range(3):
            one, other = unused("S"), unused("G")
            patients = await registered(ris, one, other)
            answers = await asyncio.gather(
                ris.receive(adt("A40", pid(one), mrg(other))), ris.receive(adt("A40", pid(other), mrg(one)))
            )
            assert sorted(code(a) for a in answers) == ["AA", "AE"]
            stored = [await ris.read(p) for p in patients]
            assert sorted(p["active"] for p in stored) == [False, True]

    ris.run(scenario())


def test_the_subject_of_an_order_still_can_t_be_changed_by_anybody(ris):
    async def scenario():
        one, other = await registered(ris, unused("S"), unused("G"))
        placed = await ris.order(one)
        error = await ris.refused(ris.update(placed, subject={"reference": f"Patient/{other['id']}"}))
        assert "can't be changed" in str(error)

        async def by_force(unit: UnitOfWork) -> None:
            await redirect(unit, Target("Patient", one["id"]), Target("Patient", other["id"]), limit=10)

        with pytest.raises(ValueError, match="replaces"):
            await ris.interactions.transact(ACCESS, Act("test"), by_force)
        assert (await ris.read(placed))["subject"] == placed["subject"]

    ris.run(scenario())


def test_the_worklist_has_the_survivor_s_name_and_number_at_once_and_a_running_examination_goes_on(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        await ris.accepted(adt("A28", pid(stays, "Survivor^Sara")))
        await ris.accepted(adt("A28", pid(goes, "Survivor^S")))
        survivor, prior = [await ris.one("Patient", identifier=n) for n in (stays, goes)]
        scanner = await ris.scanner()
        waiting, running = await ris.order(prior), await ris.order(prior)
        await ris.book(waiting, scanner)
        await ris.book(running, scanner, "2026-09-08T09:00:00Z")
        performed = await ris.perform(running, "in-progress")
        step = await ris.step(waiting)
        assert (await ris.db["worklist"].find_one({"_id": step["id"]}))["patient_ids"] == [goes]
        await ris.accepted(adt("A40", pid(stays, "Survivor^Sara"), mrg(goes)))
        row = await ris.db["worklist"].find_one({"_id": step["id"]})
        assert row["patient_ids"] == [stays]
        assert row["names"] == ["survivor^sara"]
        assert f"Patient/{prior['id']}" not in row["of"]
        finished = await ris.become(performed, "completed")
        assert finished["subject"]["reference"] == f"Patient/{survivor['id']}"
        (reading,) = await ris.readings(running)
        assert reading["for"]["reference"] == f"Patient/{survivor['id']}"

    ris.run(scenario())


def test_a_merge_sends_no_appointments_and_reports_anew(ris):
    """Whoever has them hears of the merge by A40; that they are said again, would say that something in them is new."""

    async def scenario():
        stays, goes = unused("S"), unused("G")
        _, prior = await registered(ris, stays, goes)
        scanner, placed = await ris.scanner(), await ris.order(prior)
        await ris.book(placed, scanner)
        await ris.perform(placed)
        await ris.report(placed)
        ehr = await ris.destination("SIU^S12", "SIU^S13", "SIU^S14", "ORU^R01", "ORM^O01", "ADT^A40")
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        assert [m.type[1] for m in await ris.sent(ehr)] == ["A40"]
        await ris.update(ehr, status="off")

    ris.run(scenario())


def test_what_refers_to_the_prior_record_is_found_wherever_it_is(ris):
    """By the index of references, not by a list of types: deep inside, in types that no department knows, in versioned form."""

    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        old = {"reference": f"Patient/{prior['id']}"}
        made = [
            await ris.create(r)
            for r in (
                {"resourceType": "Group", "type": "person", "actual": True, "member": [{"entity": old}]},
                {"resourceType": "List", "status": "current", "mode": "working", "subject": old, "entry": [{"item": old}]},
                {"resourceType": "Communication", "status": "completed", "subject": old, "recipient": [old]},
                {"resourceType": "ChargeItem", "status": "billable", "code": {"text": "CT"}, "subject": old},
                {"resourceType": "Account", "status": "active", "subject": [old]},
                {"resourceType": "Flag", "status": "active", "code": {"text": "MRSA"}, "subject": old},
                {"resourceType": "Observation", "status": "final", "code": {"text": "x"},
                 "subject": {"reference": f"Patient/{prior['id']}/_history/1"}},
                {"resourceType": "Basic", "code": {"text": "x"}, "extension": [{"url": "urn:example:x", "valueReference": old}]},
            )
        ]  # fmt: skip
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        for resource in made:
            stored = await ris.read(resource)
            assert f"Patient/{survivor['id']}" in str(stored)
            assert prior["id"] not in str(stored)
            assert stored["meta"]["versionId"] == "2"
        assert await referring(ris, prior) == []

    ris.run(scenario())


def test_every_moved_resource_has_its_version_history_and_the_audit_names_it(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        _, prior = await registered(ris, stays, goes)
        placed = await ris.order(prior)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        earlier = await ris.store.vread("ServiceRequest", placed["id"], 1)
        assert earlier.resource["subject"]["reference"] == f"Patient/{prior['id']}"
        events = await ris.search("AuditEvent", entity=f"ServiceRequest/{placed['id']}")
        assert any(e["action"] in {"E", "U"} for e in events)

    ris.run(scenario())


# Large


async def with_many(ris: Department, prior: dict[str, Any], count: int) -> None:
    """Give a patient so many Observations."""
    subject = {"reference": f"Patient/{prior['id']}"}

    for first in range(0, count, 500):
        number = min(500, count - first)

        async def some(unit: UnitOfWork, number: int = number) -> None:
            for _ in range(number):
                await unit.create({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": subject})

        await ris.interactions.transact(ACCESS, Act("test"), some)


def test_a_large_merge_is_finished_before_its_answer(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        placed = await ris.order(prior)
        await with_many(ris, prior, 2 * patient_merge.PORTION + 10)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        assert await referring(ris, prior) == []
        assert (await ris.read(placed))["subject"]["reference"] == f"Patient/{survivor['id']}"
        assert (await ris.db["merges"].find_one({"_id": prior["id"]}))["state"] == "done"
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))

    ris.run(scenario())


def test_the_first_transaction_takes_what_is_worked_on(ris):
    """However much there is: the steps, orders and bookings of a patient are the survivor's with the answer's very commit."""

    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        placed = await ris.order(prior)
        await with_many(ris, prior, patient_merge.PORTION + 10)

        async def begin(unit: UnitOfWork) -> bool:
            return await patient_merge.merge(unit, survivor, prior, [])

        assert await ris.interactions.transact(ACCESS, Act("test"), begin)
        assert await referring(ris, prior) != []
        for resource in (placed, await ris.procedure(placed), await ris.study(placed)):
            assert (await ris.read(resource))["subject"]["reference"] == f"Patient/{survivor['id']}"
        assert (await ris.step(placed))["for"]["reference"] == f"Patient/{survivor['id']}"
        await patient_merge.finish(ris.interactions)
        assert await referring(ris, prior) == []

    ris.run(scenario())


def test_a_record_that_is_merged_while_another_is_still_coming_in_takes_that_along(ris):
    async def scenario():
        numbers = [unused("C"), unused("B"), unused("A")]
        first, second, third = await registered(ris, *numbers)
        await with_many(ris, first, patient_merge.PORTION + 10)

        async def begin(unit: UnitOfWork) -> bool:
            return await patient_merge.merge(unit, second, first, [])

        assert await ris.interactions.transact(ACCESS, Act("test"), begin)
        await ris.accepted(adt("A40", pid(numbers[2]), mrg(numbers[1])))
        await patient_merge.finish(ris.interactions)
        assert await referring(ris, first) == []
        assert await referring(ris, second) == []
        kept = await ris.db["Observation"].count_documents({"search.t": f">Patient/{third['id']}"})
        assert kept == patient_merge.PORTION + 10

    ris.run(scenario())


_CHILD = """
import asyncio, sys
from bridges.v2.inbound import Inbound
from tests.department import PEER, ZONE
from resources import registration
from fhir_server.database import connect
from fhir_server.interactions import Interactions
from fhir_server.registry import Registry
from fhir_server.store import Store

async def main():
    db = await connect(sys.argv[1], sys.argv[2])
    registry = Registry()
    registration.register(registry, uid_root="2.25")
    inbound = Inbound(Interactions(Store(db), registry), ZONE)
    print("begins", flush=True)
    print(await inbound.handle(sys.argv[3].encode(), PEER), flush=True)

asyncio.run(main())
"""


def test_a_merge_that_a_crash_has_cut_short_is_gone_on_with_and_loses_nothing(ris, mongodb_uri):
    """The process is killed (SIGKILL) in the middle of 2,000 resources; another one finishes, and the sender gets its answer."""

    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        await with_many(ris, prior, MANY)
        message = adt("A40", pid(stays), mrg(goes))
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, mongodb_uri, ris.db.name, message.decode()], cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        try:
            observations = ris.db["Observation"]
            while await observations.count_documents({"search.t": f">Patient/{survivor['id']}"}) == 0:
                assert child.poll() is None
                await asyncio.sleep(0.005)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
        left = await observations.count_documents({"search.t": f">Patient/{prior['id']}"})
        assert 0 < left < MANY
        assert (await ris.db["merges"].find_one({"_id": prior["id"]}))["state"] == "under-way"
        # its transaction under way ends with the session, of which the server may think for a while
        restarted = Interactions(ris.store, ris.registry)
        async with patient_merge.finishing(restarted, every=0.2):
            while (await ris.db["merges"].find_one({"_id": prior["id"]}))["state"] != "done":
                await asyncio.sleep(0.05)
        assert await referring(ris, prior) == []
        assert await observations.count_documents({"search.t": f">Patient/{survivor['id']}"}) == MANY
        assert (
            await ris.db["Observation_history"].count_documents({"resource.subject.reference": f"Patient/{prior['id']}"}) == MANY
        )
        assert code(await ris.receive(message)) == "AA"

    ris.run(scenario())


# Taking it back


def test_a_merge_can_be_taken_back(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        of_prior, of_survivor = await ris.order(prior), await ris.order(survivor)
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        since = await ris.order(survivor)

        async def back(unit: UnitOfWork) -> dict[str, Any]:
            return await patient_merge.unmerge(unit, await unit.read("Patient", prior["id"]) or {})

        await ris.interactions.transact(ACCESS, Act("test"), back)
        stored = [await ris.read(p) for p in (survivor, prior)]
        assert [p["active"] for p in stored] == [True, True]
        assert [p.get("link") for p in stored] == [None, None]
        assert [p["identifier"] for p in stored] == [survivor["identifier"], prior["identifier"]]
        for placed, whose in ((of_prior, prior), (of_survivor, survivor), (since, survivor)):
            assert (await ris.read(placed))["subject"]["reference"] == f"Patient/{whose['id']}"
        assert (await ris.step(of_prior))["for"]["reference"] == f"Patient/{prior['id']}"
        await ris.accepted(order(goes, unused("L")))
        # and it can be done again
        await ris.accepted(adt("A40", pid(stays), mrg(goes)))
        assert await referring(ris, prior) == []

    ris.run(scenario())


def test_a_merge_is_taken_back_after_an_update_has_named_the_old_number(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        await ris.accepted(adt("A28", pid(stays)))
        await ris.accepted(adt("A28", pid(goes).replace("^MR", "")))
        prior = await ris.one("Patient", identifier=goes)
        await ris.accepted(adt("A40", pid(stays), mrg(goes).replace("^MR", "")))
        await ris.accepted(adt("A08", pid(stays).replace("^MR|", f"^MR~{goes}^^^EXAMPLEHOSP^MR|")))

        async def back(unit: UnitOfWork) -> None:
            await patient_merge.unmerge(unit, await unit.read("Patient", prior["id"]) or {})

        await ris.interactions.transact(ACCESS, Act("test"), back)
        (alone,) = await ris.search("Patient", identifier=goes)
        assert alone["id"] == prior["id"]
        await ris.accepted(adt("A08", pid(goes)))
        await ris.accepted(order(goes, unused("L")))

    ris.run(scenario())


def test_what_was_not_merged_is_not_taken_apart(ris):
    async def scenario():
        numbers = [unused("C"), unused("B"), unused("A")]
        first = (await registered(ris, *numbers))[0]

        async def back(unit: UnitOfWork) -> None:
            await patient_merge.unmerge(unit, await unit.read("Patient", first["id"]) or {})

        error = await ris.refused(ris.interactions.transact(ACCESS, Act("test"), back))
        assert "not merged" in str(error)
        await ris.accepted(adt("A40", pid(numbers[1]), mrg(numbers[0])))
        await ris.accepted(adt("A40", pid(numbers[2]), mrg(numbers[1])))
        error = await ris.refused(ris.interactions.transact(ACCESS, Act("test"), back))
        assert "first" in str(error)

    ris.run(scenario())


def test_a_refusal_says_where(ris):
    async def scenario():
        stays = unused("S")
        await registered(ris, stays)
        ack = await ris.receive(adt("A40", pid(stays), mrg(stays)))
        assert (code(ack), condition(ack), place(ack)) == ("AE", "205", "MRG-1")

    ris.run(scenario())


def test_a_change_is_redirected_only_as_long_as_nothing_else_changes(ris):
    async def scenario():
        stays, goes = unused("S"), unused("G")
        survivor, prior = await registered(ris, stays, goes)
        placed = await ris.order(prior)
        seen: list[Change] = []

        async def both(unit: UnitOfWork) -> None:
            await patient_merge.merge(unit, survivor, prior, [])
            request = await unit.read("ServiceRequest", placed["id"]) or {}
            await unit.update(request | {"note": [{"text": "x"}]})
            seen.extend(unit.changes())

        await ris.interactions.transact(ACCESS, Act("test"), both)
        marks = {f"{c.type}/{c.id}": c.redirected for c in seen}
        assert marks[f"ServiceRequest/{placed['id']}"] is False
        assert True in marks.values()

    ris.run(scenario())
