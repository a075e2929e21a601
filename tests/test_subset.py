"""What `_summary` and `_elements` leave of a resource (FHIR R4 3.1.1.5.8, 3.1.1.5.9)."""

import time
from decimal import Decimal

import pytest

from fhir_server.definitions import RESOURCE_TYPES
from fhir_server.elements import duplicate
from fhir_server.outcome import FhirError
from fhir_server.subset import MAX_STEPS, check_elements, subset

TAG = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}]}

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"versionId": "3", "tag": [{"system": "urn:example:tags", "code": "invented"}]},
    "implicitRules": "urn:example:rules",
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada</div>'},
    "contained": [{"resourceType": "Organization", "id": "o"}],
    "extension": [{"url": "urn:example:own", "valueBoolean": True}],
    "modifierExtension": [{"url": "urn:example:modifies", "valueBoolean": True}],
    "name": [{"family": "Invented", "given": ["Ada", "Bo"], "extension": [{"url": "urn:example:of-name", "valueCode": "x"}]}],
    "birthDate": "1980-02-03",
    "_birthDate": {"extension": [{"url": "urn:example:of-date", "valueCode": "y"}]},
    "deceasedBoolean": False,
    "maritalStatus": {"text": "unknown"},
    "photo": [{"contentType": "image/png", "data": "AAAA"}],
    "communication": [{"language": {"text": "Danish"}, "preferred": True}],
    "link": [{"other": {"reference": "Patient/p2"}, "type": "seealso"}],
}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "_status": ABSENT,
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}], "text": "pulse"},
    "valueQuantity": {"value": Decimal("61.0"), "unit": "/min"},
    "note": [{"text": "a note"}],
    "component": [
        {"code": {"text": "a"}, "valueString": "x", "interpretation": [{"text": "i"}], "referenceRange": [{"text": "0-1"}]},
        {"code": {"text": "b"}, "_valueString": ABSENT},
    ],
}


def kept(resource, summary=None, *elements):
    return set(subset(resource, summary, elements)) - {"resourceType", "meta"}


def refused(resource_type, *elements):
    with pytest.raises(FhirError) as caught:
        check_elements(resource_type, elements)
    assert caught.value.status == 400
    assert {issue.code for issue in caught.value.issues} == {"invalid"}
    return [issue.diagnostics for issue in caught.value.issues]


# --- _summary ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("summary", [None, "false"])
def test_the_whole_resource_is_neither_cut_nor_tagged(summary):
    assert subset(PATIENT, summary, ()) == PATIENT


def test_a_summary_keeps_what_r4_marks_and_drops_the_rest():
    assert kept(PATIENT, "true") == set(
        "id implicitRules modifierExtension name birthDate _birthDate deceasedBoolean link".split()
    )


def test_a_summary_goes_into_backbone_elements_and_data_types():
    component, absent = subset(OBSERVATION, "true", ())["component"]
    assert component == {"code": {"text": "a"}, "valueString": "x"}
    assert absent == {"code": {"text": "b"}, "_valueString": ABSENT}
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "x"},
        "media": [{"comment": "dropped", "link": {"reference": "Media/m"}}],
        "presentedForm": [{"data": "AAAA"}],
    }
    assert subset(report, "true", ())["media"] == [{"link": {"reference": "Media/m"}}]
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "content": [{"attachment": {"contentType": "application/pdf", "data": "AAAA", "title": "a report"}}],
    }
    assert subset(document, "true", ())["content"] == [{"attachment": {"contentType": "application/pdf", "title": "a report"}}]


def test_a_mandatory_element_is_kept_even_where_nothing_of_it_is_in_the_summary():
    document = {"resourceType": "DocumentReference", "status": "current", "content": [{"attachment": {"data": "AAAA"}}]}
    assert subset(document, "true", ())["content"] == document["content"]


def test_an_element_of_which_nothing_stays_is_not_left_empty():
    study = {"resourceType": "ImagingStudy", "series": [{"instance": [{"number": 1}]}, {"uid": "2.25.1"}]}
    assert subset(study, "true", ())["series"] == [{"uid": "2.25.1"}]
    assert "series" not in subset({"resourceType": "ImagingStudy", "series": study["series"][:1]}, "true", ())


def test_the_extensions_of_a_kept_data_type_stay_as_they_may_say_there_is_no_value():
    summary = subset(PATIENT, "true", ())
    assert summary["name"] == PATIENT["name"]
    assert summary["_birthDate"] == PATIENT["_birthDate"]


def test_a_text_summary_is_narrative_identity_and_mandatory_elements():
    assert kept(PATIENT, "text") == {"id", "implicitRules", "modifierExtension", "text"}
    assert kept(OBSERVATION, "text") == {"id", "status", "_status", "code"}


def test_a_mandatory_choice_is_kept_whatever_its_type():
    request = {"resourceType": "MedicationRequest", "status": "active", "medicationReference": {"reference": "Medication/m"}}
    assert "medicationReference" in kept(request, "text")


def test_a_data_summary_is_all_but_the_narrative():
    assert kept(PATIENT, "data") == PATIENT.keys() - {"resourceType", "meta", "text"}


def test_resources_inside_a_bundle_stay_whole():
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": PATIENT, "request": {"method": "GET", "url": "x"}}],
    }
    assert subset(bundle, "true", ())["entry"][0]["resource"] == PATIENT


def test_every_resource_type_has_a_summary():
    for resource_type in RESOURCE_TYPES:
        found = subset({"resourceType": resource_type, "id": "x", "unheard": [{}]}, "true", ())
        assert found == {"resourceType": resource_type, "id": "x", "meta": {"tag": [TAG]}}


# --- _elements --------------------------------------------------------------------------------------------------------


def test_named_elements_come_with_identity_and_mandatory_ones():
    assert kept(OBSERVATION, None, "note") == {"id", "status", "_status", "code", "note"}
    assert kept(PATIENT, None, "birthDate") == {"id", "implicitRules", "modifierExtension", "birthDate", "_birthDate"}


@pytest.mark.parametrize("name", ["value", "valueQuantity", "value[x]", "Observation.value"])
def test_a_choice_goes_by_its_base_name_or_its_json_name(name):
    check_elements("Observation", (name,))
    assert kept(OBSERVATION, None, name) == {"id", "status", "_status", "code", "valueQuantity"}


def test_the_json_name_of_another_type_of_a_choice_is_known_but_selects_nothing():
    check_elements("Observation", ("valueString",))
    assert "valueQuantity" not in kept(OBSERVATION, None, "valueString")


def test_an_element_can_be_named_with_its_type():
    assert "birthDate" in kept(PATIENT, None, "Patient.birthDate", "Observation.note")
    assert kept(OBSERVATION, None, "Patient.birthDate", "Observation.note") == {"id", "status", "_status", "code", "note"}


def test_dotted_paths_keep_a_part_of_an_element():
    found = subset(PATIENT, None, ("name.family", "communication.preferred"))
    assert found["name"] == [{"family": "Invented"}]
    assert found["communication"] == PATIENT["communication"], "its language is mandatory"
    assert subset(OBSERVATION, None, ("value.unit",))["valueQuantity"] == {"unit": "/min"}
    assert subset(OBSERVATION, None, ("code", "code.text"))["code"] == OBSERVATION["code"], "all of it and a part: all of it"


def test_summary_and_elements_together_leave_what_both_leave():
    assert kept(PATIENT, "true", "name", "photo") == {"id", "implicitRules", "modifierExtension", "name"}


def test_elements_that_the_type_does_not_have_are_refused_by_name():
    texts = refused("Patient", "birthDate", "brithDate", "Observation.code", "name.falimy", "birthDate.year", "", "Patient.")
    assert [text.split("element ")[1] for text in texts] == [
        "'brithDate'",
        "'Observation.code'",
        "'name.falimy'",
        "'birthDate.year'",
        "''",
        "'Patient.'",
    ]
    refused("Questionnaire", ".".join(["item"] * (MAX_STEPS + 2)))
    refused("Patient", "x" * 100_000)
    check_elements("Questionnaire", (".".join(["item"] * MAX_STEPS), "Questionnaire.item.linkId", "extension.value.unit"))


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("summary", "elements"), [("true", ()), ("text", ()), ("data", ()), (None, ("name",)), ("false", ("name",))]
)
def test_what_may_be_incomplete_is_tagged_once_and_the_argument_is_not_changed(summary, elements):
    before = duplicate(PATIENT)
    found = subset(PATIENT, summary, elements)
    assert before == PATIENT
    assert found["meta"] == {"versionId": "3", "tag": [PATIENT["meta"]["tag"][0], TAG]}
    assert subset(found, summary, elements) == found


def test_a_page_of_a_thousand_takes_no_noticeable_time():
    began = time.perf_counter()
    for _ in range(1000):
        subset(OBSERVATION, "true", ())
        subset(PATIENT, None, ("name.family", "birthDate"))
    assert time.perf_counter() - began < 0.5
