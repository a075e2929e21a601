"""Random worklists and random queries, against a plain reading of PS3.4 K (`dicom_oracle`)."""

import io
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from bridges.dicom import worklist
from bridges.dicom.callers import Caller, Station
from bridges.dicom.dicom_json import of_dataset
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.worklist_answers import Answers
from bridges.dicom.worklist_attributes import ScheduledStep
from bridges.dicom.worklist_rows import WorklistRows
from resources import terms
from resources.worklist_preferences import Preferences
from tests import dicom_oracle as oracle
from tests.dicom_client import ZONE, Running, running_department
from tests.dicom_oracle import Asked, Entry
from tests.dicom_wire import encoded

_SECONDS = 20
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
_ANY_DAY = Caller("CT1", "127.0.0.1", Station(preferences=Preferences(days_back=3650, days_ahead=3650, limit=5000)))


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        yield running


def _typed(code: str, value: str) -> dict[str, Any]:
    return {"type": {"coding": [{"system": _V2_0203, "code": code}]}, "value": value}


def scheduled(one: Entry) -> ScheduledStep:
    """The resources that say the facts of an entry."""
    name: list[dict[str, Any]] = [{"family": one.family, "given": [one.given] if one.given else []}]
    if one.kanji:
        url = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
        family, given = one.kanji.split("^")
        name.append({"family": family, "given": [given], "extension": [{"url": url, "valueCode": "IDE"}]})
    code = {"text": one.description, "coding": [{"system": "http://loinc.org", "code": one.code}]}
    practitioner: dict[str, Any] = {"resourceType": "Practitioner", "id": one.performer[:3]}
    if one.performer:
        family_name, given_name = one.performer.split("^")
        practitioner["name"] = [{"family": family_name, "given": [given_name]}]
    identifiers = [{"system": terms.REQUESTED_PROCEDURE_ID, "value": one.procedure_id}]
    if one.accession:
        identifiers.append(_typed("ACSN", one.accession))
    procedure = {
        "resourceType": "ServiceRequest", "id": f"r{one.number}", "identifier": identifiers, "code": code,
        "performer": [{"reference": f"Practitioner/{practitioner['id']}"}] if one.performer else [], "priority": one.priority,
    }  # fmt: skip
    task = {
        "resourceType": "Task", "id": f"t{one.number}", "code": code, "status": "accepted", "intent": "plan",
        "identifier": [{"system": terms.SCHEDULED_STEP_ID, "value": one.step_id}],
        "restriction": {"period": {"start": one.start.isoformat()}},
        "businessStatus": {"coding": [{"system": terms.SPS_STATUS, "code": one.status}]},
        "input": [{
            "type": {"coding": [{"system": terms.TASK_DETAIL, "code": "modality"}]},
            "valueCodeableConcept": {"coding": [{"system": terms.DCM, "code": one.modality}]},
        }],
    }  # fmt: skip
    patient = {"resourceType": "Patient", "id": one.patient_id, "identifier": [{"value": one.patient_id}], "name": name}
    patient |= {"gender": one.sex, "birthDate": one.born}
    study: dict[str, Any] = {"resourceType": "ImagingStudy", "id": f"i{one.number}"}
    study["identifier"] = [{"system": terms.DICOM_UID, "value": f"urn:oid:{one.study_uid}"}]
    device = {"resourceType": "Device", "id": "d", "identifier": [{"system": terms.AE_TITLE, "value": one.title}]}
    visit = {"resourceType": "Encounter", "id": "e", "identifier": [_typed("VN", one.admission)] if one.admission else []}
    found = ScheduledStep(task, procedure, None, patient, study, device, encounter=visit)
    found.others = {f"Practitioner/{practitioner['id']}": practitioner} if one.performer else {}
    return found


def identifier(asked: Asked) -> Dataset:
    keys, item = Dataset(), Dataset()
    keys.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in asked.keys.items():
        setattr(item if keyword in oracle.IN_STEP else keys, keyword, value)
    if asked.code is not None:
        code = Dataset()
        code.CodeValue = asked.code
        keys.RequestedProcedureCodeSequence = [code]
    keys.ScheduledProcedureStepSequence = [item]
    return keys


def test_random_queries_find_what_a_plain_reading_of_the_standard_finds(site: Running) -> None:
    begin, seed, asked_in_all, found_in_all = time.monotonic(), 0, 0, 0
    while time.monotonic() - begin < _SECONDS:
        seed += 1
        chance = random.Random(seed)
        entries = [oracle.entry(chance, n) for n in range(chance.choice((5, 40, 150)))]
        site.run(_store(site, entries))
        for _ in range(60):
            asked = oracle.query(chance, entries)
            expected = sorted((e for e in entries if oracle.matches(e, asked)), key=lambda e: (e.start, f"t{e.number}"))
            got = site.run(_ask(site, asked))
            said = f"seed {seed}: {asked}"
            wanted = ["ScheduledProcedureStepID"] if "ScheduledProcedureStepID" in asked.keys else []
            assert len(got) == len(expected), said
            for data, one in zip(got, expected, strict=True):
                _check_answer(data, one, asked, said)
            asked_in_all += 1
            found_in_all += len(got) if wanted else 0
    assert asked_in_all > 100
    assert found_in_all > 100


async def _store(site: Running, entries: list[Entry]) -> None:
    rows, project = site.department.interactions.store.db["worklist"], WorklistRows(ZONE)
    await rows.delete_many({})
    made = [project._row(scheduled(e)) for e in entries]
    await rows.insert_many([m for m in made if m is not None])


_ANSWERS = Answers()


async def _ask(site: Running, asked: Asked) -> list[Dataset]:
    sent = read_dataset(io.BytesIO(encoded(identifier(asked))), is_implicit_VR=True, is_little_endian=True)
    query = WorklistQuery.of(of_dataset(sent))
    db = site.department.interactions.store.db
    found = await worklist.find(db, _ANSWERS, query, _ANY_DAY, ZONE, explicit=True)
    return [read_dataset(io.BytesIO(a), is_implicit_VR=False, is_little_endian=True) for a in found.answers]


def _check_answer(data: Dataset, one: Entry, asked: Asked, said: str) -> None:
    """What was asked for is there, as it is; nothing else."""
    facts, item = oracle.values(one), data.ScheduledProcedureStepSequence[0]
    expected = {k for k in asked.keys if k not in oracle.IN_STEP} | {"ScheduledProcedureStepSequence"}
    expected |= {"RequestedProcedureCodeSequence"} if asked.code is not None else set()
    assert {e.keyword for e in data} - {"SpecificCharacterSet"} == expected, said
    in_step = {k for k in asked.keys if k in oracle.IN_STEP}
    if in_step:
        assert {e.keyword for e in item} == in_step, said
    for keyword in asked.keys:
        value = getattr(item if keyword in oracle.IN_STEP else data, keyword)
        assert str(value or "") == facts[keyword][0], (keyword, said)
    if asked.code is not None:
        assert data.RequestedProcedureCodeSequence[0].CodeValue == one.code, said
