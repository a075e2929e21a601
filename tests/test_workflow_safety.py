"""Safety screening and protocols: what stops or flags an examination, who clears it, and what scanners are told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bridges.dicom import dicom_json
from smart_auth.access import Access
from tests.examinations import DCM, GADOBUTROL, IOHEXOL, LOINC, SNOMED, Examinations, ago, coded, parameters, readiness
from tests.fhir_app import issues, load, serving, unused

REQUIRED = {"url": "urn:fhir-ris:screening-required", "valueBoolean": True}


def protocolling(rule: str) -> dict[str, str]:
    return {"url": "urn:fhir-ris:protocolling", "valueCode": rule}


def proposed(code: str) -> dict[str, Any]:
    return {"url": "urn:fhir-ris:protocol", "valueCodeableConcept": coded("urn:example:protocols", code, f"Protocol {code}")}


@pytest.fixture(scope="module")
def ward(mongodb_uri: str) -> Iterator[Examinations]:
    with serving(mongodb_uri) as app:
        yield Examinations(app)


def texts(row: dict[str, Any] | None, name: str) -> list[Any]:
    assert row is not None
    return dicom_json.values(row, name)


def in_step(row: dict[str, Any] | None, name: str) -> list[Any]:
    assert row is not None
    return dicom_json.values(dicom_json.items(row, "ScheduledProcedureStepSequence")[0], name)


# MRI


def test_a_pacemaker_can_t_be_booked_for_mri_until_a_radiologist_says_why(ward):
    patient, scanner = ward.patient(), ward.scanner("MR")
    procedure = ward.order(patient, "MR")
    assert ward.answer(patient, "mri-safety", cardiac_device=True).status_code == 201
    assert ward.issues(procedure) == {"mri-safety/cardiac-device": "stop-booking"}
    (item,) = ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}")
    assert "Cardiac pacemaker or defibrillator" in item["description"]
    refused = ward.book(procedure, scanner)
    assert refused.status_code == 422
    assert "Cardiac pacemaker or defibrillator" in refused.text
    for who, status in ((ward.technologist, 403), (ward.scheduler, 403), (ward.radiologist, 400)):
        assert ward.do(who, procedure, "clear-safety", **({"reason": "ok"} if status == 403 else {})).status_code == status
    ward.done(ward.radiologist, procedure, "clear-safety", reason="MR conditional device, 1.5 T, cardiologist present")
    assert ward.issues(procedure) == {"mri-safety/cardiac-device": "(stop-booking)"}
    assert ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}") == []
    step = ward.booked(procedure, scanner)
    assert (step["status"], readiness(step)) == ("accepted", "flagged")
    assert texts(ward.row(step), "MedicalAlerts") == ["Cardiac pacemaker or defibrillator"]
    (issue,) = ward.all(f"Task?_id={step['id']}&_revinclude=DetectedIssue:implicated")[1:]
    assert issue["mitigation"][0]["author"]["reference"] == "Practitioner/rad"
    assert issue["_detail"]["extension"][0]["extension"][1]["valueString"] == "Herzschrittmacher oder Defibrillator"


def test_a_step_that_comes_from_a_hold_to_a_time_is_looked_at_as_any_that_is_booked(ward):
    patient, scanner = ward.patient(), ward.scanner("MR")
    assert ward.answer(patient, "mri-safety", cardiac_device=True).status_code == 201
    step = ward.step(ward.order(patient, "MR"))
    assert ward.technologist.put(step | {"status": "on-hold"}).status_code == 200
    begin, end = ago(hours=-1), ago(hours=-2)
    there = {"owner": {"reference": f"Device/{scanner['id']}"}, "restriction": {"period": {"start": begin, "end": end}}}
    released = ward.technologist.put(ward.read(f"Task/{step['id']}") | there | {"status": "accepted"})
    assert released.status_code == 200
    step = ward.read(f"Task/{step['id']}")
    assert readiness(step) == "stopped"
    assert ward.row(step) is None
    assert "Cardiac pacemaker" in ward.do(ward.technologist, step, "start").text


def test_an_operation_does_no_more_than_the_scopes_in_the_callers_hands_say(ward):
    world, patient = ward.world, ward.patient()
    procedure = ward.order(patient, "MR")
    assert ward.answer(patient, "mri-safety", cardiac_device=True).status_code == 201
    path, reason = f"ServiceRequest/{procedure['id']}", {"name": "reason", "valueString": "nightly analytics"}
    body = {"resourceType": "Parameters", "parameter": [reason]}
    reading, everything = world.person("radiologist", "user/*.rs", grant=unused("g")), world.caller("system/*.cruds")
    for who in (reading, everything, world.caller("system/*.rs")):
        assert who.send("POST", f"{path}/$clear-safety", body).status_code == 403
    assert ward.issues(procedure) == {"mri-safety/cardiac-device": "stop-booking"}
    order = procedure["basedOn"][0]["reference"]
    app = world.caller("patient/*.cruds", patient=patient["id"])
    routine = "*.rs {}/ServiceRequest.u?priority=routine"
    some = world.person("scheduler", f"user/{routine.format('user')}", grant=unused("g"))
    for who in (app, some, world.caller(f"system/{routine.format('system')}")):
        assert who.send("POST", f"{order}/$cancel", body).status_code == 403
    stored = ward.app.get(order).json()
    assert stored["status"] == "active"
    assert ward.app.put(stored | {"priority": "routine"}).status_code == 200
    assert some.send("POST", f"{order}/$cancel", body).status_code == 200


def test_an_implant_that_comes_to_light_after_the_booking_takes_the_step_from_the_worklist(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "MR")
    step = ward.booked(procedure)
    assert ward.row(step) is not None
    pacemaker = {"resourceType": "Condition", "subject": procedure["subject"], "code": coded(SNOMED, "441509002")}
    condition = ward.app.create(pacemaker)
    step = ward.step(procedure)
    assert (step["status"], readiness(step)) == ("accepted", "stopped")
    assert ward.row(step) is None
    # No client takes that from it, nor starts it.
    without = {k: v for k, v in step.items() if k != "extension"}
    assert ward.technologist.put(without).status_code == 200
    assert readiness(ward.step(procedure)) == "stopped"
    for refused in (
        ward.technologist.put(ward.step(procedure) | {"status": "in-progress"}),
        ward.do(ward.technologist, step, "start"),
        ward.do(ward.technologist, step, "complete"),
    ):
        assert refused.status_code == 422
        assert issues(refused) == [("business-rule", "Task.status")]
        assert "Cardiac pacemaker" in refused.text
    skipped = ward.technologist.put(ward.step(procedure) | {"status": "completed"})
    assert (skipped.status_code, issues(skipped)) == (422, [("business-rule", "Task.status")])
    by_hand = {"resourceType": "Procedure", "status": "in-progress", "subject": procedure["subject"], "basedOn": [step["focus"]]}
    assert ward.technologist.post(by_hand).status_code == 422
    # It was somebody else's: nothing stands in the way any more.
    mistaken = coded("http://terminology.hl7.org/CodeSystem/condition-ver-status", "entered-in-error")
    assert ward.app.put(condition | {"verificationStatus": mistaken}).status_code == 200
    assert ward.issues(procedure) == {}
    assert ward.row(ward.step(procedure)) is not None


def test_nobody_is_booked_past_an_answer_that_comes_at_the_same_moment(ward):
    scanner = ward.scanner("MR")
    patients = [ward.patient() for _ in range(6)]
    procedures = [ward.order(p, "MR") for p in patients]
    with ThreadPoolExecutor(12) as pool:
        booked = [pool.submit(ward.book, p, scanner) for p in procedures]
        said = [pool.submit(ward.answer, p, "mri-safety", aneurysm_clip=True) for p in patients]
    assert {s.result().status_code for s in said} == {201}
    for procedure, booking in zip(procedures, booked, strict=True):
        step = ward.step(procedure)
        assert readiness(step) == "stopped"
        assert ward.issues(procedure) == {"mri-safety/aneurysm-clip": "stop-booking"}
        assert len(ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}")) == 1
        assert (step["status"] == "accepted") is (booking.result().status_code == 201)
        assert ward.row(step) is None


def test_what_another_system_has_scheduled_is_taken_but_kept_from_the_scanner(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "MR")
    ward.answer(patient, "mri-safety", neurostimulator=True)
    planned = {
        "resourceType": "Task", "status": "accepted", "intent": "plan", "input": ward.step(procedure)["input"],
        "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
        "owner": {"reference": f"Device/{ward.scanner('MR')['id']}"},
        "restriction": {"period": {"start": "2027-03-01T08:00:00Z"}},
    }  # fmt: skip
    assert ward.scheduler.post(planned).status_code == 422
    step = ward.app.run(ward.app.interactions.create(Access.system("v2"), planned))
    step = ward.read(f"Task/{step['id']}")
    assert (step["status"], readiness(step), ward.row(step)) == ("accepted", "stopped", None)


def test_new_evidence_is_not_covered_by_an_old_clearance(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "MR")
    ward.answer(patient, "mri-safety", metal_in_eye=True)
    step = ward.booked(procedure)
    assert readiness(step) == "stopped"
    ward.done(ward.radiologist, procedure, "clear-safety", reason="X-ray of the orbits: none")
    assert readiness(ward.step(procedure)) == "flagged"
    ward.answer(patient, "mri-safety", metal_in_eye=True)
    assert ward.issues(procedure) == {"mri-safety/metal-in-eye": "stop"}
    assert readiness(ward.step(procedure)) == "stopped"


def test_what_was_not_asked_stops_mri_where_the_catalogue_asks_for_screening(ward):
    patient = ward.patient()
    procedure = ward.order(patient, code=ward.entry("MR", REQUIRED))
    step = ward.booked(procedure)
    assert ward.issues(procedure) == {"mri-safety/unanswered": "stop", "pregnancy/unanswered": "flag"}
    assert ward.row(step) is None
    ward.answer(patient, "mri-safety", claustrophobia=True)
    ward.answer(patient, "pregnancy")
    assert ward.issues(procedure) == {"mri-safety/claustrophobia": "flag"}
    row = ward.row(step)
    assert texts(row, "SpecialNeeds") == ["Claustrophobia"]
    assert texts(row, "PregnancyStatus") == [1]


# Pregnancy; help and isolation


def test_a_pregnant_patient_is_not_scanned_until_a_radiologist_decides(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "CT")
    step = ward.booked(procedure)
    ward.answer(patient, "pregnancy", pregnant="77386006")
    assert ward.issues(procedure) == {"pregnant": "stop"}
    assert ward.row(step) is None
    assert ward.do(ward.technologist, step, "start").status_code == 422
    ward.done(ward.radiologist, procedure, "clear-safety", reason="Suspected pulmonary embolism, patient has agreed")
    assert texts(ward.row(step), "PregnancyStatus") == [3]
    ward.done(ward.technologist, step, "start")
    assert ward.order(ward.patient(gender="male"), "CT")["id"] not in ward.issues(procedure)


def test_isolation_and_help_reach_the_scanner_and_go_when_they_are_over(ward):
    patient = ward.patient()
    step = ward.booked(ward.order(patient, "CT"))
    ward.answer(patient, "needs", isolation=True, mobility=True)
    row = ward.row(step)
    assert (texts(row, "PatientState"), texts(row, "SpecialNeeds")) == (["Isolation"], ["Needs help to move"])
    ward.answer(patient, "needs")
    row = ward.row(step)
    assert (texts(row, "PatientState"), texts(row, "SpecialNeeds")) == ([], [])


# Contrast agents, by allergy and kidneys


@pytest.mark.parametrize(
    ("agent", "egfr", "days", "expected"),
    [
        (IOHEXOL, 80, 10, {}),
        (IOHEXOL, 40, 10, {"egfr-reduced": "flag"}),
        (IOHEXOL, 25, 10, {"egfr-low": "stop"}),
        (IOHEXOL, 25, 120, {"egfr-missing": "flag"}),
        (GADOBUTROL, 40, 10, {}),
        (GADOBUTROL, 29, 10, {"egfr-low": "stop"}),
        ({"text": "a new agent"}, 29, 10, {"egfr-low": "stop"}),
        (None, 25, 10, {}),
    ],
)
def test_kidneys_count_by_agent_value_and_age(ward, agent, egfr, days, expected):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient, "CT")
    step = ward.booked(procedure)
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:example:p", "ct"), contrast=[agent] if agent else [])
    ward.egfr(patient, egfr, days)
    assert ward.issues(procedure) == expected
    assert (ward.row(step) is None) is ("stop" in expected.values())


def test_kidneys_at_risk_need_a_recent_value(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient, "CT")
    step = ward.booked(procedure)
    ward.done(ward.technologist, procedure, "protocol", protocol=coded("urn:example:p", "ct"), contrast=IOHEXOL)
    assert ward.issues(procedure) == {"egfr-missing": "flag"}
    ward.answer(patient, "renal-function", kidney_disease=True)
    assert ward.issues(procedure) == {"renal-function/kidney-disease": "flag", "egfr-missing-at-risk": "stop"}
    ward.egfr(patient, 70, 1)
    assert ward.issues(procedure) == {"renal-function/kidney-disease": "flag"}
    assert in_step(ward.row(step), "RequestedContrastAgent") == ["Iohexol"]


@pytest.mark.parametrize(
    ("allergy", "agent", "expected"),
    [
        ({"code": coded(SNOMED, "293637006"), "criticality": "high"}, IOHEXOL, {"allergy-severe": "stop"}),
        ({"code": {"text": "Kontrastmittel"}}, IOHEXOL, {"allergy": "flag"}),
        ({"code": {"text": "Jod"}, "reaction": [{"severity": "severe", "manifestation": [{"text": "shock"}]}]}, IOHEXOL,
         {"allergy-severe": "stop"}),
        ({"code": {"text": "Jod"}, "criticality": "high"}, GADOBUTROL, {}),
        ({"code": {"text": "Latex"}, "criticality": "high"}, IOHEXOL, {}),
    ],
)  # fmt: skip
def test_an_allergy_counts_for_its_kind_of_agent(ward, allergy, agent, expected):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient, "CT", extension=[{"url": "urn:fhir-ris:contrast-agent", "valueCodeableConcept": agent}])
    ward.egfr(patient, 80, 1)
    active = coded("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "active")
    whose = {"reference": f"Patient/{patient['id']}"}
    made = {"resourceType": "AllergyIntolerance", "patient": whose, "clinicalStatus": active} | allergy
    assert ward.technologist.post(made).status_code == 201
    assert ward.issues(procedure) == expected


def test_anticoagulants_stop_an_intervention(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient, "XA", code=ward.entry("XA", REQUIRED))
    assert ward.issues(procedure) == {"anticoagulants/unanswered": "stop"}
    ward.answer(patient, "anticoagulants", anticoagulant=True)
    assert ward.issues(procedure) == {"anticoagulants/anticoagulant": "stop"}
    biopsy = {"url": "urn:fhir-ris:intervention", "valueBoolean": True}
    under_ct = ward.order(patient, "CT", code=ward.entry("CT", REQUIRED, biopsy))
    assert ward.issues(under_ct) == {"anticoagulants/anticoagulant": "stop"}


# Answers


@pytest.mark.parametrize(
    ("change", "expression"),
    [
        ({"authored": None}, "QuestionnaireResponse.authored"),
        ({"subject": None}, "QuestionnaireResponse.subject"),
        ({"questionnaire": "urn:fhir-ris:questionnaire:pregnancy|0.9"}, "QuestionnaireResponse.questionnaire"),
        ({"item": []}, "QuestionnaireResponse.item"),
        ({"item": [{"linkId": "shoe-size"}]}, "QuestionnaireResponse.item[0].linkId"),
        ({"item": [{"linkId": "pregnant", "answer": [{"valueBoolean": True}]}]}, "QuestionnaireResponse.item[0].answer[0]"),
        (
            {"item": [{"linkId": "pregnant", "answer": [{"valueCoding": {"code": "1"}}]}]},
            "QuestionnaireResponse.item[0].answer[0].valueCoding",
        ),
    ],
)
def test_answers_that_don_t_fit_their_questionnaire_are_refused(ward, change, expression):
    given = ward.answer(ward.patient(), "pregnancy").json()
    attempt = {k: v for k, v in (given | change).items() if v is not None and k not in {"id", "meta"}}
    refused = ward.technologist.post({k: v for k, v in attempt.items() if v != []})
    assert refused.status_code in {400, 422}
    assert issues(refused)[0][1] == expression


def test_an_answer_that_is_taken_back_is_no_fact_any_more(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "CT")
    ward.booked(procedure)
    response = ward.answer(patient, "pregnancy", pregnant="146799005").json()
    assert ward.issues(procedure) == {"possibly-pregnant": "stop"}
    assert ward.technologist.put(response | {"status": "entered-in-error"}).status_code == 200
    assert ward.issues(procedure) == {}
    (told,) = ward.all(f"Observation?derived-from=QuestionnaireResponse/{response['id']}")
    assert told["status"] == "entered-in-error"


def test_the_questionnaires_are_stored_once_in_english_and_german(ward):
    from resources.safety import questionnaires

    assert ward.app.run(questionnaires.publish(ward.app.interactions)) == 6
    assert ward.app.run(questionnaires.publish(ward.app.interactions)) == 0
    found = ward.technologist.get("Questionnaire?url=urn:fhir-ris:questionnaire:mri-safety&status=active").json()
    (one,) = [e["resource"] for e in found["entry"]]
    assert (one["version"], one["item"][0]["type"], one["item"][0]["required"]) == ("1.0.0", "boolean", True)
    for item in one["item"]:
        german = item["_text"]["extension"][0]["extension"]
        assert german[0]["valueCode"] == "de"
        assert german[1]["valueString"] != item["text"]


# Protocols


def test_a_protocol_is_asked_for_and_reaches_worklist_booking_and_patient(ward):
    patient = ward.patient(gender="male")
    entry = ward.entry("CT", protocolling("before-booking"), proposed("abdomen-1"), proposed("abdomen-2"))
    procedure = ward.order(patient, code=entry, priority="urgent")
    (item,) = ward.all("Task?code=protocol&status=requested&priority=urgent&_sort=authored-on")
    assert item["focus"] == {"reference": f"ServiceRequest/{procedure['id']}"}
    refused = ward.book(procedure, ward.scanner())
    assert refused.status_code == 422
    assert "no protocol" in refused.text
    assert ward.do(ward.scheduler, procedure, "protocol", protocol=coded("u", "a")).status_code == 403
    assert ward.do(ward.radiologist, procedure, "protocol").status_code == 422  # two are proposed
    ward.egfr(patient, 90, 1)
    told = ward.done(
        ward.radiologist, procedure, "protocol",
        protocol=[coded("urn:example:protocols", "abdomen-2", "Abdomen portal"), coded("urn:example:protocols", "late", "Late")],
        contrast=IOHEXOL, pre_medication={"text": "Prednisolone 50 mg"}, preparation="Nothing to eat for four hours",
    )  # fmt: skip
    assert told == {"task": f"Task/{item['id']}"}
    done = ward.read(told["task"])
    assert (done["status"], done["owner"]["reference"]) == ("completed", "Practitioner/rad")
    row = ward.row(ward.booked(procedure))
    codes = [dicom_json.text(c, "CodeValue") for c in in_step(row, "ScheduledProtocolCodeSequence")]
    assert codes == ["abdomen-2", "late"]
    assert in_step(row, "RequestedContrastAgent") == ["Iohexol"]
    assert in_step(row, "PreMedication") == ["Prednisolone 50 mg"]
    assert ward.read(f"ServiceRequest/{procedure['id']}")["patientInstruction"] == "Nothing to eat for four hours"
    booking = ward.first(f"Appointment?based-on={procedure['basedOn'][0]['reference']}")
    assert booking["patientInstruction"] == "Nothing to eat for four hours"
    ward.done(ward.technologist, procedure, "protocol", protocol=coded("urn:example:protocols", "low-dose"))
    step = ward.step(procedure)
    assert in_step(ward.row(step), "RequestedContrastAgent") == []
    ward.done(ward.technologist, step, "start")
    assert ward.do(ward.technologist, procedure, "protocol", protocol=coded("u", "late")).status_code == 409


def test_without_a_protocol_a_booked_step_waits_unless_it_is_stat(ward):
    patient = ward.patient(gender="male")
    entry = ward.entry("CT", protocolling("before-start"), proposed("head"))
    procedure = ward.order(patient, code=entry)
    step = ward.booked(procedure)
    assert (readiness(step), ward.row(step)) == ("unprotocolled", None)
    assert ward.do(ward.technologist, step, "start").status_code == 422
    assert "no protocol" in ward.technologist.put(ward.step(procedure) | {"status": "in-progress"}).text
    ward.done(ward.technologist, procedure, "protocol")  # the one that is proposed
    assert ward.row(step) is not None
    stat = ward.order(patient, code=entry, priority="stat")
    assert ward.row(ward.booked(stat)) is not None
    ward.done(ward.technologist, ward.step(stat), "complete")
    (over,) = ward.all(f"Task?code=protocol&focus=ServiceRequest/{stat['id']}")
    assert over["status"] == "cancelled"


def test_where_nobody_is_asked_the_catalogue_s_only_protocol_is_taken(ward):
    procedure = ward.order(ward.patient(), code=ward.entry("CT", proposed("sinus")))
    row = ward.row(ward.booked(procedure))
    assert [dicom_json.text(c, "CodeValue") for c in in_step(row, "ScheduledProtocolCodeSequence")] == ["sinus"]


def test_the_question_for_a_protocol_goes_with_its_order(ward):
    procedure = ward.order(ward.patient(), code=ward.entry("CT", protocolling("optional")))
    order = ward.read(procedure["basedOn"][0]["reference"])
    about = f"ServiceRequest/{procedure['id']}"
    for status, expected in (("on-hold", "on-hold"), ("active", "requested"), ("revoked", "cancelled")):
        order = ward.read(f"ServiceRequest/{order['id']}") | {"status": status}
        assert ward.app.put(order).status_code == 200
        (item,) = ward.all(f"Task?code=protocol&focus={about}")
        assert item["status"] == expected


# Contrast that is given; what takes stops away, and what must not

DOSE = {"value": 80, "unit": "mL"}
CONTRAST = {"url": "urn:fhir-ris:contrast-agent", "valueCodeableConcept": IOHEXOL}
BARIUM = coded("http://www.whocc.no/atc", "V08BA01", "Barium sulfate")
PZN = coded("http://fhir.de/CodeSystem/ifa/pzn", "00763243", "Ultravist 370")
CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"


def allergic(ward: Examinations) -> dict[str, Any]:
    patient = ward.patient()
    ward.app.create(
        {
            "resourceType": "AllergyIntolerance",
            "patient": {"reference": f"Patient/{patient['id']}"},
            "criticality": "high",
            "clinicalStatus": coded(CLINICAL, "active"),
            "code": coded(SNOMED, "293637006", "Allergy to contrast media"),
        }
    )
    return patient


def arrived(ward: Examinations, patient: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    procedure = ward.order(patient, "CT")
    ward.done(ward.technologist, ward.booked(procedure), "track", state="arrived")
    return procedure, ward.step(procedure)


def administration(step: dict[str, Any], **what: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationAdministration",
        "status": "completed",
        "subject": step["for"],
        "effectiveDateTime": ago(minutes=0),
        "supportingInformation": [{"reference": f"Task/{step['id']}"}],
        "dosage": {"dose": DOSE},
    } | what


def test_contrast_is_judged_whatever_it_is_called_and_however_it_is_recorded(ward):
    patient = allergic(ward)
    procedure, step = arrived(ward, patient)
    for agent in (PZN, {"text": "Ultravist"}, IOHEXOL):
        assert ward.do(ward.technologist, step, "give-contrast", agent=agent, dose=DOSE).status_code == 422
    medication = ward.app.create({"resourceType": "Medication", "code": IOHEXOL})
    named = {"medicationReference": {"reference": f"Medication/{medication['id']}"}}
    assert ward.technologist.post(administration(step, **named)).status_code == 422
    _, others = arrived(ward, ward.patient())
    refused = ward.technologist.post(administration(others, medicationCodeableConcept=IOHEXOL, subject=step["for"]))
    assert (refused.status_code, issues(refused)) == (422, [("business-rule", "MedicationAdministration.subject")])
    begun = load(ward.technologist.post(administration(step, status="in-progress", medicationCodeableConcept={"text": "Saline"})))
    other = begun | {"medicationCodeableConcept": IOHEXOL, "status": "completed"}
    assert ward.technologist.put(other).status_code == 422
    assert not ward.step(procedure).get("output")


def test_a_clearance_for_one_kind_of_agent_clears_no_other(ward):
    procedure, step = arrived(ward, allergic(ward))
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:x", "A"), contrast=BARIUM)
    ward.done(ward.radiologist, procedure, "clear-safety", reason="Barium is given by mouth only")
    assert readiness(ward.step(procedure)) == "flagged"
    assert ward.do(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=DOSE).status_code == 422
    given = ward.done(ward.technologist, step, "give-contrast", agent=BARIUM, dose=DOSE)["medication-administration"]
    assert ward.step(procedure)["output"]
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:x", "A"), contrast=IOHEXOL)
    assert readiness(ward.step(procedure)) == "stopped"
    assert ward.technologist.put(ward.read(given) | {"status": "entered-in-error"}).status_code == 200
    assert not ward.step(procedure).get("output")


def test_a_pregnancy_counts_whatever_was_said_long_ago_and_whatever_the_sex(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient)
    ward.booked(procedure)

    def told(code: str, **age: float) -> None:
        ward.app.create(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": coded(LOINC, "82810-3"),
                "subject": procedure["subject"],
                "effectiveDateTime": ago(**age),
                "valueCodeableConcept": coded(SNOMED, code),
            }
        )

    told("77386006", days=20)
    assert ward.issues(procedure) == {"pregnant": "stop"}
    told("60001007", days=10)
    assert "pregnant" not in ward.issues(procedure)
    condition = {"resourceType": "Condition", "subject": procedure["subject"], "recordedDate": ago(days=1)}
    ward.app.create(condition | {"code": coded("http://hl7.org/fhir/sid/icd-10", "Z34")})
    assert readiness(ward.step(procedure)) == "stopped"
    told("60001007", minutes=0)
    assert "pregnant" not in ward.issues(procedure)


def test_what_a_merged_record_says_stops_what_waits(ward):
    prior, survivor = ward.patient(), ward.patient()
    pacemaker = coded("http://hl7.org/fhir/sid/icd-10", "Z95.0")
    ward.app.create({"resourceType": "Condition", "subject": {"reference": f"Patient/{prior['id']}"}, "code": pacemaker})
    procedure = ward.order(survivor, "MR")
    ward.booked(procedure)
    assert readiness(ward.step(procedure)) == ""
    merge = parameters() | {"parameter": [{"name": "prior", "valueString": prior["id"]}]}
    assert ward.app.send("POST", f"Patient/{survivor['id']}/$merge", merge).status_code == 200
    assert readiness(ward.step(procedure)) == "stopped"


def test_the_protocol_says_which_contrast_is_given_and_only_those_who_may_change_that(ward):
    procedure = ward.order(allergic(ward))
    step = ward.booked(procedure)
    order = ward.read(procedure["basedOn"][0]["reference"])
    assert ward.app.put(order | {"extension": [*order.get("extension", ()), CONTRAST]}).status_code == 200
    assert readiness(ward.step(procedure)) == "stopped"
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:x", "NATIVE"))
    row = ward.row(step)
    assert row is not None
    assert "ohexol" not in str(row)
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:x", "A"), contrast=IOHEXOL)
    planned, waiting = ward.read(f"ServiceRequest/{procedure['id']}"), ward.step(procedure)
    without = {k: v for k, v in planned.items() if k != "extension"}
    assert ward.scheduler.put(without).status_code == 403
    kept = [i for i in waiting["input"] if "NATIVE" not in str(i) and "protocol" not in str(i["type"])]
    assert ward.scheduler.put(waiting | {"input": kept}).status_code == 403
    (asked,) = ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}")
    assert ward.scheduler.put(asked | {"status": "completed"}).status_code == 422
    assert ward.app.put(ward.read(f"ServiceRequest/{order['id']}") | {"status": "revoked"}).status_code == 200
    assert not ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}")


def test_stops_don_t_vanish_by_odd_answers_and_values(ward):
    patient = ward.patient()
    procedure = ward.order(patient, extension=[CONTRAST])
    ward.booked(procedure)
    clean = load(ward.answer(patient, "contrast-allergy", severe_reaction=True))
    assert ward.app.put(clean | {"authored": "2999-09-08T08:00:00Z"}).status_code == 422
    twice = {"item": [*clean["item"], {"linkId": "severe-reaction", "answer": [{"valueBoolean": False}]}]}
    assert issues(ward.app.put(clean | twice)) == [("value", "QuestionnaireResponse.item.linkId")]
    allergy = ward.first(f"AllergyIntolerance?patient=Patient/{patient['id']}")
    assert ward.app.put(allergy | {"verificationStatus": coded(VERIFICATION, "confirmed")}).status_code == 200
    ward.answer(patient, "contrast-allergy")
    assert ward.issues(procedure)["allergy-severe"] == "stop"
    egfr = ward.egfr(patient, 30, 1)
    assert "egfr-low" not in ward.issues(procedure)
    assert ward.app.put(egfr | {"valueQuantity": egfr["valueQuantity"] | {"comparator": "<"}}).status_code == 200
    assert ward.issues(procedure)["egfr-low"] == "stop"
    foreign = {
        "resourceType": "DetectedIssue",
        "status": "final",
        "implicated": [{"reference": f"ServiceRequest/{procedure['id']}"}],
    }
    ward.app.create(foreign | {"identifier": [{"system": "urn:fhir-ris:safety-issue", "value": "x"}]})
    ward.done(ward.radiologist, procedure, "clear-safety", reason="It takes place")


def test_priority_and_preparation_follow_and_the_question_stays_for_other_steps(ward):
    instruction = {"url": "urn:fhir-ris:preparation", "valueString": "Nothing to do."}
    procedure = ward.order(ward.patient(), code=ward.entry("CT", protocolling("before-booking"), instruction))
    about, first = f"ServiceRequest/{procedure['id']}", ward.step(procedure)
    order = ward.read(procedure["basedOn"][0]["reference"])
    assert ward.app.put(order | {"priority": "urgent"}).status_code == 200
    assert [t["priority"] for t in ward.items("protocol", about)] == ["urgent"]
    second = {k: v for k, v in first.items() if k not in {"id", "meta", "identifier", "extension"}}
    assert ward.technologist.post(second).status_code == 201
    given = parameters(protocol=coded("urn:x", "A"), preparation="Fast for 6 hours.") | {}
    given["parameter"].append({"name": "step", "valueReference": {"reference": f"Task/{first['id']}"}})
    assert ward.radiologist.send("POST", f"{about}/$protocol", given).status_code == 200
    assert ward.items("protocol", about)
    ward.done(ward.radiologist, procedure, "protocol", protocol=coded("urn:x", "A"))
    assert not ward.items("protocol", about)
    booked = load(ward.book(procedure, ward.scanner()))
    assert ward.read(f"Appointment/{booked['id']}")["patientInstruction"] == "Fast for 6 hours."


def test_a_stop_by_mistake_repeats_nothing_and_a_cancelled_repeat_is_none(ward):
    procedure, step = arrived(ward, ward.patient())
    assert ward.do(ward.technologist, step, "start", at=ago(days=3)).status_code == 422
    ward.done(ward.technologist, step, "start")
    wrong = coded(DCM, "110514")
    assert ward.do(ward.technologist, step, "stop", reason=wrong, repeat=True).status_code == 422
    ward.done(ward.technologist, step, "stop", reason=wrong)
    (study,) = ward.all(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}")
    assert (ward.step(procedure)["status"], "started" in study) == ("ready", False)
    ward.done(ward.technologist, step, "start")
    performed = ward.first(f"Procedure?based-on=ServiceRequest/{procedure['id']}&status=in-progress")
    assert ward.technologist.put(performed | {"status": "entered-in-error"}).status_code == 422
    new = ward.done(ward.technologist, step, "stop", reason=coded(DCM, "110501"), repeat=True)["new-step"]
    assert ward.technologist.put(ward.read(new) | {"status": "cancelled"}).status_code == 200
    assert ward.do(ward.technologist, step, "repeat", reason=coded(DCM, "111207"), new_step=True).status_code in {200, 409}
