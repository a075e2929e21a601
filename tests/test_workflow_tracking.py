"""Where patients are, and what people say of an examination whose scanner doesn't: begun, given, stopped, repeated, done."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.examinations import DCM, GADOBUTROL, IOHEXOL, SNOMED, Examinations, ago, coded, tracked
from tests.fhir_app import issues, serving

ML = {"unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL"}
MOTION = coded(DCM, "111210")
CHARGE = {
    "url": "urn:fhir-ris:charge",
    "extension": [
        {"url": "component", "valueCode": "technical"},
        {"url": "code", "valueCodeableConcept": coded("http://www.ama-assn.org/go/cpt", "71260")},
    ],
}


@pytest.fixture(scope="module")
def ward(mongodb_uri: str) -> Iterator[Examinations]:
    with serving(mongodb_uri) as app:
        yield Examinations(app)


def sps(step):
    return [c["code"] for c in step["businessStatus"]["coding"]]


def times(step):
    rows = [e["extension"] for e in step["extension"] if e["url"] == "urn:fhir-ris:tracked"]
    return {row[0]["valueCode"]: row[1]["valueInstant"] for row in rows}


def test_a_patient_is_followed_from_the_door_to_the_exit(ward):
    procedure = ward.order(ward.patient(gender="male"))
    step = ward.booked(procedure)
    assert (sps(step), tracked(step)) == (["SCHEDULED", "scheduled"], ["scheduled"])
    for state, status in (("arrived", "ARRIVED"), ("prepared", "READY"), ("in-room", "READY"), ("prepared", "READY")):
        ward.done(ward.technologist, step, "track", state=state)
        step = ward.step(procedure)
        assert (step["status"], sps(step)) == ("ready", [status, state])
    booking = ward.first(f"Appointment?based-on={procedure['basedOn'][0]['reference']}")
    assert booking["status"] == "arrived"
    assert ward.all(f"Task?business-status=urn:fhir-ris:tracking|prepared&_id={step['id']}")
    ward.done(ward.technologist, step, "start")
    ward.done(ward.technologist, step, "complete")
    ward.done(ward.scheduler, step, "track", state="left")
    step = ward.step(procedure)
    assert sps(step) == ["DEPARTED", "left"]
    assert tracked(step) == ["scheduled", "arrived", "prepared", "in-room", "prepared", "in-progress", "done", "left"]
    said = [e["extension"] for e in step["extension"] if e["url"] == "urn:fhir-ris:tracked"]
    assert [p["valueReference"]["reference"] for row in said for p in row if p["url"] == "by"] == [
        "Practitioner/sched", *["Practitioner/tech"] * 6, "Practitioner/sched",
    ]  # fmt: skip


def test_what_is_tracked_stays_and_is_never_to_come(ward):
    procedure = ward.order(ward.patient(gender="male"))
    step = ward.booked(procedure)
    assert ward.do(ward.technologist, step, "track", state="arrived", at="2100-01-01T00:00:00Z").status_code == 422
    assert ward.do(ward.technologist, step, "track", state="arrived", at=ago(days=1)).status_code == 422  # before it was booked
    assert ward.do(ward.technologist, step, "track", state="left").status_code == 422
    assert ward.do(ward.technologist, step, "track", state="asleep").status_code == 400
    assert ward.do(ward.technologist, ward.order(ward.patient()), "track", state="left").status_code == 404
    ward.done(ward.technologist, step, "track", state="in-room")
    step = ward.step(procedure)
    assert (
        ward.technologist.put({k: v for k, v in step.items() if k != "extension"} | {"note": [{"text": "x"}]}).status_code == 200
    )
    assert tracked(ward.step(procedure)) == ["scheduled", "in-room"]


def test_a_scanner_without_mpps_has_its_examination_told_by_a_person(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient, code=ward.entry("CT", CHARGE))
    step = ward.booked(procedure)
    start, end = ago(minutes=20), ago(minutes=5)
    told = ward.done(
        ward.technologist, step, "complete", start=start, end=end, protocol=coded("urn:example:p", "thorax", "Thorax"), series=3,
        images=420, note="Breath-hold was short",
    )  # fmt: skip
    performed = ward.read(told["procedure"])
    assert (performed["status"], performed["performedPeriod"]) == ("completed", {"start": start, "end": end})
    assert [p["actor"]["reference"] for p in performed["performer"]] == [step["owner"]["reference"], "Practitioner/tech"]
    step = ward.step(procedure)
    assert (step["status"], tracked(step)) == ("completed", ["scheduled", "in-progress", "done"])
    assert {s: datetime.fromisoformat(t) for s, t in times(step).items() if s != "scheduled"} == {
        "in-progress": datetime.fromisoformat(start).astimezone(UTC), "done": datetime.fromisoformat(end).astimezone(UTC),
    }  # fmt: skip
    booking = ward.first(f"Appointment?based-on={procedure['basedOn'][0]['reference']}")
    study = ward.first(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}")
    assert (booking["status"], study["numberOfSeries"], study["numberOfInstances"]) == ("fulfilled", 3, 420)
    assert study["procedureReference"] == {"reference": told["procedure"]}
    (reading,) = ward.all(f"Task?focus=ImagingStudy/{study['id']}&code=interpretation")
    assert reading["status"] == "requested"
    (charge,) = ward.all(f"ChargeItem?service=ImagingStudy/{study['id']}")
    assert charge["code"]["coding"][0]["code"] == "71260"
    assert ward.row(step) is None
    for again in ("start", "complete", "stop"):
        given = {"reason": coded(DCM, "110501")} if again == "stop" else {}
        assert ward.do(ward.technologist, step, again, **given).status_code == 409


def test_what_a_scanner_began_a_person_may_end(ward):
    procedure = ward.order(ward.patient(gender="male"))
    step = ward.booked(procedure)
    begun = ward.technologist.post(
        {
            "resourceType": "Procedure", "status": "in-progress", "subject": procedure["subject"], "basedOn": [step["focus"]],
            "performedPeriod": {"start": ago(minutes=9)}, "performer": [{"actor": step["owner"]}],
        }
    ).json()  # fmt: skip
    told = ward.done(ward.technologist, step, "complete")
    assert told["procedure"] == f"Procedure/{begun['id']}"
    assert ward.read(told["procedure"])["performedPeriod"]["start"] == begun["performedPeriod"]["start"]
    assert len(ward.step(procedure)["output"]) == 1


def test_a_scanner_that_begins_what_was_stopped_is_heard_and_a_person_is_told(ward):
    patient = ward.patient()
    procedure = ward.order(patient, "MR")
    step = ward.booked(procedure)
    ward.answer(patient, "mri-safety", aneurysm_clip=True)
    ward.app.create(
        {"resourceType": "Procedure", "status": "in-progress", "subject": procedure["subject"], "basedOn": [step["focus"]]}
    )
    assert ward.step(procedure)["status"] == "in-progress"
    (item,) = ward.items("started-despite-stop", f"Task/{step['id']}")
    assert "aneurysm clip" in item["description"]
    assert item["priority"] == "urgent"
    assert ward.items("safety-clearance", f"ServiceRequest/{procedure['id']}") == []


def test_an_examination_that_was_stopped_half_way_is_repeated(ward):
    procedure = ward.order(ward.patient(gender="male"))
    step = ward.booked(procedure)
    refused = coded(DCM, "110505")
    assert ward.do(ward.technologist, step, "stop", reason=refused).status_code == 409
    ward.done(ward.technologist, procedure, "protocol", protocol=coded("urn:example:p", "slow"))
    ward.done(ward.technologist, step, "start")
    assert ward.do(ward.technologist, step, "stop", reason={"text": "no"}).status_code == 422
    told = ward.done(ward.technologist, step, "stop", reason=refused, repeat=True)
    stopped, new = ward.read(f"Task/{step['id']}"), ward.read(told["new-step"])
    assert (stopped["status"], stopped["statusReason"], tracked(stopped)[-1]) == ("failed", refused, "stopped")
    kinds = [i["type"]["coding"][0]["code"] for i in new["input"]]
    assert (new["status"], kinds) == ("requested", ["modality", "protocol", "repeat-of", "repeat-reason"])
    assert ward.items("examination-stopped", f"Task/{step['id']}") == []
    assert ward.all(f"Task?code=interpretation&based-on=ServiceRequest/{procedure['id']}") == []
    assert ward.book(procedure, ward.scanner()).status_code == 201
    ward.done(ward.technologist, new, "complete")
    assert len(ward.all(f"Task?code=interpretation&based-on=ServiceRequest/{procedure['id']}")) == 1
    assert ward.do(ward.technologist, step, "repeat", reason=MOTION, new_step=True).status_code == 409


def test_a_stopped_examination_without_repeat_is_asked_about_and_may_be_repeated_later(ward):
    procedure = ward.order(ward.patient(gender="male"))
    step = ward.booked(procedure)
    ward.done(ward.technologist, step, "start")
    ward.done(ward.technologist, step, "stop", reason=coded(DCM, "110515"))
    assert len(ward.items("examination-stopped", f"Task/{step['id']}")) == 1
    new = ward.done(ward.radiologist, step, "repeat", reason=coded(DCM, "111209"), new_step=True)["new-step"]
    assert ward.items("examination-stopped", f"Task/{step['id']}") == []
    assert ward.read(new)["status"] == "requested"


def test_rejected_images_are_counted_with_their_reasons(ward):
    procedure = ward.order(ward.patient(gender="male"), "DX")
    step = ward.booked(procedure)
    assert ward.do(ward.technologist, step, "repeat", reason=MOTION, images=1).status_code == 409
    ward.done(ward.technologist, step, "start")
    assert ward.do(ward.technologist, step, "repeat", reason=coded(DCM, "110501"), images=1).status_code == 422
    assert ward.do(ward.technologist, step, "repeat", reason=MOTION).status_code == 400
    assert ward.do(ward.technologist, step, "repeat", reason=MOTION, new_step=True).status_code == 409
    ward.done(ward.technologist, step, "repeat", reason=MOTION, images=2)
    ward.done(ward.technologist, step, "repeat", reason=coded(DCM, "111209"), images=1)
    rows = [e["extension"] for e in ward.step(procedure)["extension"] if e["url"] == "urn:fhir-ris:rejected"]
    found = [(r[0]["valueCodeableConcept"]["coding"][0]["code"], r[1]["valuePositiveInt"]) for r in rows]
    assert found == [("111210", 2), ("111209", 1)]
    assert ward.step(procedure)["status"] == "in-progress"


def test_contrast_hangs_on_the_examination_whenever_it_was_given(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient)
    step = ward.booked(procedure)
    ward.egfr(patient, 75, 3)
    dose = ML | {"value": 80}
    assert ward.do(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=dose).status_code == 409  # nobody is there
    ward.done(ward.technologist, step, "track", state="in-room")
    assert ward.do(ward.technologist, step, "give-contrast", agent=IOHEXOL).status_code == 400
    intravenous = coded(SNOMED, "47625008")
    told = ward.done(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=dose, route=intravenous)
    begun = ward.done(ward.technologist, step, "start")
    given = ward.read(told["medication-administration"])
    assert given["partOf"] == [{"reference": begun["procedure"]}]
    assert given["supportingInformation"] == [{"reference": f"Task/{step['id']}"}]
    assert given["performer"][0]["actor"]["reference"] == "Practitioner/tech"
    outputs = [o["type"]["coding"][0]["code"] for o in ward.step(procedure)["output"]]
    assert outputs == ["contrast-given", "performed-procedure-step"]


UCUM = "http://unitsofmeasure.org"


@pytest.mark.parametrize(
    ("dose", "told"),
    [
        (ML | {"value": -80}, "more than nothing"),
        (ML | {"value": 0}, "more than nothing"),
        ({"value": 80}, "volume or a mass"),
        ({"value": 80, "unit": "bottles"}, "volume or a mass"),
        ({"value": 80, "unit": "cm", "system": UCUM, "code": "cm"}, "volume or a mass"),
        ({"value": 80, "unit": "mL", "system": "urn:example:units", "code": "mL"}, "volume or a mass"),
        ({"value": 80, "unit": "mL", "system": UCUM}, "volume or a mass"),
        ({"value": 99999, "unit": "L", "system": UCUM, "code": "L"}, "3 L"),
        (ML | {"value": 3000.1}, "3 L"),
        ({"value": 1001, "unit": "g", "system": UCUM, "code": "g"}, "1 kg"),
    ],
)
def test_a_dose_that_nobody_gives_is_refused(ward, dose, told):
    patient = ward.patient(gender="male")
    step = ward.booked(ward.order(patient))
    ward.egfr(patient, 75, 3)
    ward.done(ward.technologist, step, "track", state="in-room")
    refused = ward.do(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=dose, override_reason="all the same")
    assert (refused.status_code, issues(refused)) == (422, [("business-rule", "MedicationAdministration.dosage.dose")])
    assert told in refused.text


def test_a_dose_is_a_volume_or_a_mass_at_every_door(ward):
    patient = ward.patient(gender="male")
    step = ward.booked(ward.order(patient))
    ward.egfr(patient, 75, 3)
    ward.done(ward.technologist, step, "track", state="in-room")
    for dose in (ML | {"value": 3000}, {"value": 0.08, "unit": "L"}, {"value": 1, "unit": "kg", "system": UCUM, "code": "kg"}):
        told = ward.done(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=dose)
    given = ward.read(told["medication-administration"])
    assert ward.technologist.put(given | {"dosage": {"dose": ML | {"value": 30_000}}}).status_code == 422
    # What is no contrast agent is none of this.
    tablet = {"coding": [{"system": "urn:example:drugs", "code": "metformin"}]}
    other = {k: v for k, v in given.items() if k not in {"id", "category"}} | {"medicationCodeableConcept": tablet}
    tablets = ward.technologist.post(other | {"dosage": {"dose": {"value": 2, "unit": "tablets"}}})
    assert tablets.status_code == 201


def test_contrast_is_refused_by_what_is_really_given_unless_somebody_says_why(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient)
    step = ward.booked(procedure)
    ward.done(ward.technologist, procedure, "protocol", protocol=coded("urn:example:p", "native"))
    ward.done(ward.technologist, step, "start")
    ward.egfr(patient, 20, 3)
    assert ward.issues(procedure) == {}  # no contrast was planned
    dose = ML | {"value": 8}
    refused = ward.do(ward.technologist, step, "give-contrast", agent=GADOBUTROL, dose=dose)
    assert (refused.status_code, issues(refused)) == (
        422, [("business-rule", "MedicationAdministration.medicationCodeableConcept")],
    )  # fmt: skip
    assert "eGFR below 30" in refused.text
    by_hand = {
        "resourceType": "MedicationAdministration", "status": "completed", "subject": procedure["subject"],
        "medicationCodeableConcept": GADOBUTROL, "effectiveDateTime": ago(minutes=1),
        "supportingInformation": [{"reference": f"Task/{step['id']}"}],
    }  # fmt: skip
    assert ward.technologist.post(by_hand).status_code == 422  # the rule holds at every door
    why = "Dr Roe, by telephone"
    told = ward.done(ward.technologist, step, "give-contrast", agent=GADOBUTROL, dose=dose, override_reason=why)
    (item,) = ward.items("contrast-despite-stop", told["medication-administration"])
    assert why in item["description"]


def test_what_a_radiologist_has_cleared_may_be_given(ward):
    patient = ward.patient(gender="male")
    procedure = ward.order(patient)
    step = ward.booked(procedure)
    ward.egfr(patient, 20, 3)
    ward.done(ward.technologist, procedure, "protocol", protocol=coded("urn:example:p", "portal"), contrast=IOHEXOL)
    assert ward.issues(procedure) == {"egfr-low": "stop"}
    ward.done(ward.radiologist, procedure, "clear-safety", reason="On dialysis, anuric")
    ward.done(ward.technologist, step, "start")
    ward.done(ward.technologist, step, "give-contrast", agent=IOHEXOL, dose=ML | {"value": 80})


@pytest.mark.parametrize(
    ("role", "operation"),
    [("scheduler", "start"), ("scheduler", "complete"), ("scheduler", "give-contrast"), ("scheduler", "repeat")],
)
def test_examinations_are_for_those_who_do_them(ward, role, operation):
    step = ward.booked(ward.order(ward.patient(gender="male")))
    assert ward.do(getattr(ward, role), step, operation).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "owner=Device/{scanner}&status=accepted,ready,in-progress&_revinclude=DetectedIssue:implicated",
        "business-status=urn:fhir-ris:tracking|in-room",
        "business-status=urn:fhir-ris:tracking|arrived,urn:fhir-ris:tracking|prepared&owner=Device/{scanner}",
        "code=protocol&status=requested&_sort=-priority,authored-on",
        "code=safety-clearance&status=requested&_sort=-priority,authored-on",
    ],
)
def test_each_list_of_the_work_screen_is_served_by_one_index(ward, query):
    scanner = ward.scanner()
    step = ward.booked(ward.order(ward.patient(gender="male")), scanner)
    if "owner" in query and "arrived" not in query:
        assert step["id"] in ward.app.ids("Task?" + query.format(scanner=scanner["id"]))
    told = ward.app.search("Task?_explain=true&" + query.format(scanner=scanner["id"]))
    plan = next(str(e["resource"]) for e in told["entry"] if e["search"]["mode"] == "outcome")
    assert "search.t" in plan
    assert "COLLSCAN" not in plan
