"""Each attribute of table K.6-1 (ris-domain section 3.1): returned from its source, and matched as the table says."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydicom.dataset import Dataset

from bridges.dicom.worklist_keys import KEYS, STEP
from fhir_server.references import ref
from resources import terms
from tests.dicom_client import Department, Running, running_department

V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
FLAG = "http://terminology.hl7.org/CodeSystem/flag-category"
ALLERGY = "http://terminology.hl7.org/CodeSystem/allergyintolerance-"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
SEQUENCES = frozenset(k.keyword for k in KEYS if k.keyword.endswith("Sequence"))


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    """A department with one step of which everything is known, and one of which nothing is."""
    with running_department(mongodb_uri) as running:
        running.run(_fill(running.department))
        yield running


def typed(code: str, value: str, **more: Any) -> dict[str, Any]:
    return {"value": value, "type": {"coding": [{"system": V2_0203, "code": code}]}} | more


def text(value: str) -> dict[str, Any]:
    return {"text": value}


async def _fill(dep: Department) -> None:
    room = await dep.create({"resourceType": "Location", "name": "CT room 2"})
    ward = await dep.create({"resourceType": "Location", "name": "Ward 7"})
    station = await dep.station("CT1", location=ref(room))
    hospital = await dep.create({"resourceType": "Organization", "name": "Surgery"})
    requester = await dep.create(
        {
            "resourceType": "Practitioner",
            "identifier": [{"system": "urn:oid:2.999.4", "value": "815"}],
            "name": [{"family": "Poe", "given": ["Ann"]}],
        }
    )
    role = await dep.create({"resourceType": "PractitionerRole", "practitioner": ref(requester), "organization": ref(hospital)})
    referrer = await dep.create({"resourceType": "Practitioner", "name": [{"family": "Foe", "given": ["Fay"]}]})
    performer = await dep.create({"resourceType": "Practitioner", "name": [{"family": "Boe", "given": ["Bob"]}]})
    patient = await dep.patient(
        "FULL",
        identifier=[
            typed("MR", "0012", system="urn:oid:2.999.1", assigner={"display": "HOSP"}),
            {"value": "OTHER", "system": "urn:oid:2.999.7"},
        ],
        communication=[
            {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en", "display": "English"}]}},
            {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "nl", "display": "Dutch"}]}, "preferred": True},
        ],
        meta={"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]},
    )
    encounter = await dep.create(
        {
            "resourceType": "Encounter",
            "status": "in-progress",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": ref(patient),
            "identifier": [typed("VN", "V77", assigner={"display": "HIS"})],
            "location": [{"location": ref(ward), "status": "active"}],
            "hospitalization": {"specialArrangement": [text("Wheelchair")]},
            "participant": [
                {
                    "type": [
                        {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "REF"}]}
                    ],
                    "individual": ref(referrer),
                }
            ],
        }
    )
    await _clinical(dep, patient)
    order = await dep.order(
        patient,
        encounter=ref(encounter),
        requester=ref(role),
        identifier=[
            typed("PLAC", "PL1", system="urn:oid:2.999.2", assigner={"display": "EHR"}),
            typed("FILL", "FI1", assigner={"display": "RIS"}),
            typed("ACSN", "AC1", assigner={"display": "RAD"}),
        ],
        performer=[ref(performer)],
        reasonCode=[{"text": "Cough", "coding": [{"system": terms.SNOMED, "code": "49727002", "display": "Cough"}]}],
        note=[{"text": "Please call first"}],
        authoredOn="2026-09-01T10:00:00+02:00",
        extension=[
            {"url": "urn:fhir-ris:transport", "valueCodeableConcept": text("Bed")},
            {"url": "urn:fhir-ris:pre-medication", "valueString": "Prednisone 50 mg"},
            {"url": "urn:fhir-ris:contrast-agent", "valueCodeableConcept": text("Iohexol 300")},
        ],
    )
    appointment = await dep.book(order, station, "2026-09-07T08:15:00+02:00", "2026-09-07T08:35:00+02:00")
    full = await dep.scheduled_of(order, appointment)
    await _clear(dep, patient)
    procedure = await dep.read(f"ServiceRequest/{full.procedure['id']}")
    await dep.update(procedure, performer=[ref(performer)], note=[{"text": "Low dose"}])
    study = await dep.read(f"ImagingStudy/{full.study['id']}")
    await dep.update(study, started="2026-09-07T08:20:00+02:00")
    bare = await dep.create({"resourceType": "Patient", "name": [{"family": "Bare"}]})
    lone = await dep.scheduled_of(await dep.order(bare, priority="routine"))
    period = {"start": "2026-09-07T09:00:00+02:00"}
    await dep.update(lone.step, status="accepted", owner=ref(station), restriction={"period": period})


async def _clear(dep: Department, patient: Any) -> None:
    """A radiologist has decided that the patient is scanned although she is pregnant."""
    (issue,) = await dep.search("DetectedIssue", patient=f"Patient/{patient['id']}", code="urn:fhir-ris:safety-rule|pregnant")
    await dep.update(issue, mitigation=[{"action": {"text": "Vital indication"}}])


async def _clinical(dep: Department, patient: Any) -> None:
    async def observed(code: str, days_ago: int, **value: Any) -> None:
        when = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
        concept = {"coding": [{"system": terms.LOINC, "code": code}]}
        observation = {"resourceType": "Observation", "status": "final", "code": concept, "subject": ref(patient)}
        await dep.create(observation | {"effectiveDateTime": when} | value)

    kg = {"system": "http://unitsofmeasure.org", "code": "kg"}
    await observed("29463-7", 400, valueQuantity=kg | {"value": 90})
    await observed("29463-7", 2, valueQuantity=kg | {"value": 180, "code": "[lb_av]"})
    await observed("8302-2", 2, valueQuantity={"value": Decimal("171.5"), "unit": "cm"})
    await observed("82810-3", 30, valueCodeableConcept={"coding": [{"system": terms.SNOMED, "code": "77386006"}]})
    await observed("82810-3", 500, valueCodeableConcept={"coding": [{"system": terms.SNOMED, "code": "60001007"}]})
    active = {"coding": [{"system": f"{ALLERGY}clinical", "code": "active"}]}
    for code in ("Iodine contrast", "Latex"):
        await dep.create(
            {"resourceType": "AllergyIntolerance", "patient": ref(patient), "code": text(code), "clinicalStatus": active}
        )
    nuts = {"resourceType": "AllergyIntolerance", "patient": ref(patient), "code": text("Nuts"), "clinicalStatus": active}
    await dep.create(nuts | {"verificationStatus": {"coding": [{"system": f"{ALLERGY}verification", "code": "refuted"}]}})
    for category, code in (
        ("safety", "Pacemaker"),
        ("contact", "MRSA isolation"),
        ("behavioral", "Claustrophobia"),
        ("admin", "VIP"),
    ):
        flag = {"resourceType": "Flag", "status": "active", "subject": ref(patient), "code": text(code)}
        await dep.create(flag | {"category": [{"coding": [{"system": FLAG, "code": category}]}]})


def ask(site: Running, **keys: Any) -> list[Dataset]:
    """The answers to a query for these keys; those of the step are put into its item."""
    query, item = Dataset(), Dataset()
    for keyword, value in ({"PatientID": ""} | keys).items():
        setattr(item if any(k.keyword == keyword for k in STEP.values()) else query, keyword, value)
    query.ScheduledProcedureStepSequence = [item]
    return site.department.scanner().find(query).data


def value(data: Dataset, keyword: str) -> Any:
    in_step = any(k.keyword == keyword for k in STEP.values())
    return getattr(data.ScheduledProcedureStepSequence[0] if in_step else data, keyword)


FULL: dict[str, Any] = {
    "ScheduledStationAETitle": "CT1",
    "ScheduledProcedureStepStartDate": "20260907",
    "ScheduledProcedureStepStartTime": "081500",
    "ScheduledProcedureStepEndDate": "20260907",
    "ScheduledProcedureStepEndTime": "083500",
    "Modality": "CT",
    "ScheduledPerformingPhysicianName": "Boe^Bob",
    "ScheduledProcedureStepDescription": "CT chest",
    "ScheduledStationName": "Scanner CT1",
    "ScheduledProcedureStepLocation": "CT room 2",
    "PreMedication": "Prednisone 50 mg",
    "RequestedContrastAgent": "Iohexol 300",
    "ScheduledProcedureStepStatus": "SCHEDULED",
    "RequestedProcedureDescription": "CT chest",
    "StudyDate": "20260907",
    "StudyTime": "082000",
    "RequestedProcedurePriority": "HIGH",
    "PatientTransportArrangements": "Bed",
    "ReasonForTheRequestedProcedure": "Cough",
    "RequestedProcedureComments": "Low dose",
    "AccessionNumber": "AC1",
    "RequestingPhysician": "Poe^Ann",
    "RequestingService": "Surgery",
    "ReferringPhysicianName": "Foe^Fay",
    "PlacerOrderNumberImagingServiceRequest": "PL1",
    "FillerOrderNumberImagingServiceRequest": "FI1",
    "IssueDateOfImagingServiceRequest": "20260901",
    "IssueTimeOfImagingServiceRequest": "100000",
    "ImagingServiceRequestComments": "Please call first",
    "AdmissionID": "V77",
    "CurrentPatientLocation": "Ward 7",
    "PatientName": "Roe^Jane",
    "PatientID": "0012",
    "IssuerOfPatientID": "HOSP",
    "PatientBirthDate": "19700304",
    "PatientSex": "F",
    "PatientWeight": "81.647",
    "PatientSize": "1.715",
    "ConfidentialityConstraintOnPatientDataDescription": "RESTRICTED",
    "PatientState": "MRSA isolation",
    "PregnancyStatus": 3,
    "MedicalAlerts": "Pacemaker",
    "Allergies": ["Iodine contrast", "Latex"],
    "SpecialNeeds": "Wheelchair; Claustrophobia",
}
# Codes and issuers: (sequence, keys of its item).
ITEMS: dict[str, dict[str, str]] = {
    "ScheduledProtocolCodeSequence": {"CodeValue": "24627-2", "CodingSchemeDesignator": "LN"},
    "RequestedProcedureCodeSequence": {"CodeValue": "24627-2", "CodingSchemeDesignator": "LN"},
    "ReasonForRequestedProcedureCodeSequence": {"CodeValue": "49727002", "CodingSchemeDesignator": "SCT"},
    "IssuerOfAccessionNumberSequence": {"LocalNamespaceEntityID": "RAD"},
    "OrderPlacerIdentifierSequence": {"LocalNamespaceEntityID": "EHR", "UniversalEntityID": "2.999.2"},
    "OrderFillerIdentifierSequence": {"LocalNamespaceEntityID": "RIS"},
    "IssuerOfAdmissionIDSequence": {"LocalNamespaceEntityID": "HIS"},
    "IssuerOfPatientIDQualifiersSequence": {"UniversalEntityID": "2.999.1", "UniversalEntityIDType": "ISO"},
    "OtherPatientIDsSequence": {"PatientID": "OTHER"},
    "PatientPrimaryLanguageCodeSequence": {"CodeValue": "nl", "CodingSchemeDesignator": "RFC5646"},
}
_IDS = frozenset({"RequestedProcedureID", "StudyInstanceUID", "ScheduledProcedureStepID"})
_ELSEWHERE = frozenset({"ScheduledProcedureStepSequence", "RequestingPhysicianIdentificationSequence"})
_NEVER_FILLED = frozenset(k.keyword for k in KEYS if k.how == "universal")


def test_every_attribute_of_the_table_has_a_test_here() -> None:
    assert {k.keyword for k in KEYS} == set(FULL) | set(ITEMS) | _IDS | _ELSEWHERE | _NEVER_FILLED


@pytest.mark.parametrize("keyword", sorted(FULL))
def test_an_attribute_is_returned_and_matches_what_it_is(site: Running, keyword: str) -> None:
    expected = FULL[keyword]
    found = {d.PatientID: value(d, keyword) for d in ask(site, **{keyword: None})}
    assert found["0012"] == expected
    one = expected[0] if isinstance(expected, list) else expected
    assert "0012" in [d.PatientID for d in ask(site, **{keyword: one})]
    different = {"DA": "19000101", "TM": "235901", "US": 4, "DS": "999"}.get(_vr(keyword), "NO SUCH")
    assert ask(site, **{keyword: different}) == []


def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    return dictionary_VR(tag_for_keyword(keyword) or 0)


@pytest.mark.parametrize("keyword", sorted(ITEMS))
def test_a_sequence_is_returned_and_matches_within_one_item(site: Running, keyword: str) -> None:
    found = {d.PatientID: value(d, keyword) for d in ask(site, **{keyword: []})}
    (item,) = found["0012"]
    assert {k: getattr(item, k) for k in ITEMS[keyword]} == ITEMS[keyword]
    key = Dataset()
    for name, wanted in ITEMS[keyword].items():
        setattr(key, name, wanted)
    assert "0012" in [d.PatientID for d in ask(site, **{keyword: [key]})]
    setattr(key, next(iter(ITEMS[keyword])), "NO SUCH")
    assert ask(site, **{keyword: [key]}) == []


@pytest.mark.parametrize("keyword", sorted(_IDS))
def test_an_id_is_returned_and_finds_its_step_only(site: Running, keyword: str) -> None:
    found = {d.PatientID: value(d, keyword) for d in ask(site, **{keyword: ""})}
    assert len(set(found.values())) == 2
    assert [d.PatientID for d in ask(site, **{keyword: found["0012"]})] == ["0012"]


@pytest.mark.parametrize("keyword", sorted(_NEVER_FILLED))
def test_what_we_never_fill_comes_with_zero_length(site: Running, keyword: str) -> None:
    empty: Any = [] if keyword in SEQUENCES else ""
    assert [list(value(d, keyword)) for d in ask(site, **{keyword: empty})] == [[], []]


def test_the_requesting_physician_is_identified(site: Running) -> None:
    keyword = "RequestingPhysicianIdentificationSequence"
    found = {d.PatientID: value(d, keyword) for d in ask(site, **{keyword: []})}
    code = found["0012"][0].PersonIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodeMeaning) == ("815", "Poe Ann")


_nameless = iter(range(1, 100))
ALWAYS = sorted(k.keyword for k in KEYS if k.returned in {"1", "2", "1C", "2C"} and k.keyword not in _ELSEWHERE)


@pytest.mark.parametrize("keyword", ALWAYS)
def test_a_step_of_which_nothing_is_known_still_has_all_that_was_asked_for(site: Running, keyword: str) -> None:
    key = {"PatientName": "Bare"} if keyword == "PatientName" else {keyword: [] if keyword in SEQUENCES else None}
    (bare,) = ask(site, **({"PatientName": "Bare"} | key))
    at = bare.ScheduledProcedureStepSequence[0] if any(k.keyword == keyword for k in STEP.values()) else bare
    assert keyword in at


def test_a_fact_that_changes_shows_at_once(site: Running) -> None:
    async def change(dep: Department) -> None:
        (patient,) = await dep.search("Patient", identifier="0012")
        (latex,) = [a for a in await dep.search("AllergyIntolerance", patient=patient["id"]) if a["code"]["text"] == "Latex"]
        await dep.update(latex, code=text("Latex gloves"))
        (vip,) = [f for f in await dep.search("Flag", patient=patient["id"]) if f["code"]["text"] == "Pacemaker"]
        await dep.update(vip, status="inactive")

    before = ask(site, PatientID="0012", Allergies="", MedicalAlerts="")[0]
    site.run(change(site.department))
    after = ask(site, PatientID="0012", Allergies="", MedicalAlerts="")[0]
    assert (list(before.Allergies), before.MedicalAlerts) == (["Iodine contrast", "Latex"], "Pacemaker")
    assert (list(after.Allergies), after.MedicalAlerts) == (["Iodine contrast", "Latex gloves"], "")


ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}


@pytest.mark.parametrize("name", [[{"extension": [ABSENT]}], [{"use": "old", "family": "Former"}], [{"family": "^"}]])
def test_a_patient_without_a_name_is_called_unknown_with_the_id(site: Running, name: Any) -> None:
    """Patient's Name is of type 1 (PS3.4 table K.6-1)."""
    id_ = f"NAMELESS{next(_nameless)}"

    async def fill(dep: Department) -> None:
        station = await dep.station(id_, "OT")
        await dep.scheduled(id_, station, "2031-09-07T08:15", modality="OT", name=name)

    site.run(fill(site.department))
    (entry,) = ask(site, PatientID=id_, PatientName="")
    assert entry.PatientName == f"Unknown^{id_}"
    assert len(ask(site, PatientName=f"unknown^{id_}")) == 1
