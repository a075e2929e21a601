"""A resource against a profile, one kind of rule a test."""

import pytest

from fhir_server.validation import validate, validate_profile
from tests.r4_examples import examples_archive, official_examples, why_not

BASE = "http://hl7.org/fhir/StructureDefinition/"
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:x:mrn", "value": "1"}, {"system": "urn:x:passport", "value": "P"}],
    "name": [{"family": "Ng", "given": ["Ada"]}],
    "gender": "female",
    "birthDate": "1980-01-01",
    "maritalStatus": {"coding": [{"system": "urn:x:m", "code": "M"}], "text": "married"},
    "extension": [{"url": "urn:x:race", "valueCode": "a"}],
    "multipleBirthInteger": 2,
    "generalPractitioner": [{"reference": "Practitioner/1"}],
}


def profile(*rows, type_name="Patient", snapshot=False, **more):
    """A profile from rows of (path, members)."""
    listed = {"element": [{"id": path, "path": path, **members} for path, members in rows]}
    return {
        "resourceType": "StructureDefinition",
        "url": "http://example.org/fhir/StructureDefinition/example",
        "type": type_name,
        "baseDefinition": BASE + type_name,
        "snapshot" if snapshot else "differential": listed,
        **more,
    }


def issues(resource, *rows, loaded=(), **more):
    known = {one["url"]: one for one in loaded}
    found = validate_profile(resource, profile(*rows, type_name=resource["resourceType"], **more), known.get)
    return [(issue.code, issue.expression) for issue in found]


def of_patient(*rows, loaded=(), **more):
    return issues(PATIENT, *rows, loaded=loaded, **more)


def test_an_empty_profile_asks_for_nothing_more():
    assert of_patient(("Patient", {})) == []


def test_a_profile_of_another_type_does_not_fit():
    assert [i.code for i in validate_profile({"resourceType": "Group"}, profile(("Patient", {})))] == ["structure"]


def test_cardinality_is_counted_inside_each_parent():
    assert of_patient(("Patient.photo", {"min": 1})) == [("required", "Patient.photo")]
    assert of_patient(("Patient.identifier", {"max": "1"})) == [("structure", "Patient.identifier")]
    assert of_patient(("Patient.gender", {"max": "0"})) == [("structure", "Patient.gender")]
    assert of_patient(("Patient.name.prefix", {"min": 1})) == [("required", "Patient.name[0].prefix")]
    assert of_patient(("Patient.contact.name", {"min": 1})) == [], "there is no contact that lacks it"


def test_fixed_values_are_exact_and_patterns_a_minimum():
    coding = {"coding": [{"code": "M"}]}
    assert of_patient(("Patient.gender", {"fixedCode": "female"})) == []
    assert of_patient(("Patient.gender", {"fixedCode": "male"})) == [("value", "Patient.gender")]
    assert of_patient(("Patient.maritalStatus", {"patternCodeableConcept": coding})) == []
    assert of_patient(("Patient.maritalStatus", {"fixedCodeableConcept": coding})) == [("value", "Patient.maritalStatus")]
    assert of_patient(("Patient.maritalStatus", {"patternCodeableConcept": {"text": "x"}})) == [
        ("value", "Patient.maritalStatus")
    ]


def test_types_of_choices_and_targets_of_references_are_narrowed():
    assert of_patient(("Patient.multipleBirth[x]", {"type": [{"code": "integer"}]})) == []
    assert of_patient(("Patient.multipleBirth[x]", {"type": [{"code": "boolean"}]})) == [("structure", "Patient.multipleBirth")]
    to_organization = {"type": [{"code": "Reference", "targetProfile": [BASE + "Organization"]}]}
    to_practitioner = {"type": [{"code": "Reference", "targetProfile": [BASE + "Practitioner"]}]}
    assert of_patient(("Patient.generalPractitioner", to_practitioner)) == []
    assert of_patient(("Patient.generalPractitioner", to_organization)) == [("value", "Patient.generalPractitioner[0]")]


def test_a_target_s_own_profile_is_said_not_to_be_checked():
    row = ("Patient.generalPractitioner", {"type": [{"code": "Reference", "targetProfile": ["http://example.org/fhir/doctor"]}]})
    assert of_patient(row) == [("not-supported", "Patient.generalPractitioner[0]")]
    doctor = {"url": "http://example.org/fhir/doctor", "type": "Organization"}
    assert ("value", "Patient.generalPractitioner[0]") in of_patient(row, loaded=[doctor])


def test_lengths_and_limits_hold():
    assert of_patient(("Patient.name.family", {"maxLength": 1})) == [("value", "Patient.name[0].family")]
    assert of_patient(("Patient.birthDate", {"minValueDate": "1990-01-01"})) == [("value", "Patient.birthDate")]
    assert of_patient(("Patient.multipleBirth[x]", {"maxValueInteger": 1})) == [("value", "Patient.multipleBirth")]
    assert of_patient(("Patient.birthDate", {"maxValueDate": "1980"})) == [("not-supported", "Patient.birthDate")]


def test_required_bindings_are_checked_where_the_codes_are_known():
    url = "http://example.org/fhir/ValueSet/m"
    row = ("Patient.maritalStatus", {"binding": {"strength": "required", "valueSet": url + "|1.0"}})
    assert of_patient(row) == [("not-supported", "Patient.maritalStatus")]
    listed = {"include": [{"system": "urn:x:m", "concept": [{"code": "M"}]}]}
    value_set = {"resourceType": "ValueSet", "url": url}
    assert of_patient(row, loaded=[{**value_set, "compose": listed}]) == []
    expansion = {"contains": [{"abstract": True, "contains": [{"system": "urn:x:m", "code": "S"}]}]}
    assert of_patient(row, loaded=[{**value_set, "expansion": expansion}]) == [("code-invalid", "Patient.maritalStatus")]
    whole = {**value_set, "compose": {"include": [{"system": "urn:x:m"}]}}
    system = {
        "resourceType": "CodeSystem",
        "url": "urn:x:m",
        "content": "complete",
        "concept": [{"code": "A", "concept": [{"code": "M"}]}],
    }
    assert of_patient(row, loaded=[whole, system]) == []
    assert of_patient(row, loaded=[whole]) == [("not-supported", "Patient.maritalStatus")]
    preferred = ("Patient.maritalStatus", {"binding": {"strength": "preferred", "valueSet": url}})
    assert of_patient(preferred) == []


def by(kind, path, rules="open", **more):
    return {"slicing": {"discriminator": [{"type": kind, "path": path}], "rules": rules, **more}}


MRN = {"id": "Patient.identifier:mrn", "sliceName": "mrn"}


def test_slices_by_value_are_counted_and_checked():
    rows = [("Patient.identifier", by("value", "system")), ("Patient.identifier", {**MRN, "min": 1, "max": "1"})]
    fixed = ("Patient.identifier.system", {"fixedUri": "urn:x:mrn"})
    assert of_patient(*rows, fixed) == []
    assert of_patient(*rows, ("Patient.identifier.system", {"fixedUri": "urn:x:other"})) == [("required", "Patient.identifier")]
    assert of_patient(*rows, fixed, ("Patient.identifier.use", {"min": 1})) == [("required", "Patient.identifier[0].use")]


def test_closed_and_ordered_slices():
    fixed = ("Patient.identifier.system", {"fixedUri": "urn:x:mrn"})
    passport = ("Patient.identifier", {"sliceName": "passport"})
    fixed_passport = ("Patient.identifier.system", {"fixedUri": "urn:x:passport"})
    closed = ("Patient.identifier", by("value", "system", "closed"))
    assert of_patient(closed, ("Patient.identifier", MRN), fixed) == [("structure", "Patient.identifier[1]")]
    ordered = ("Patient.identifier", by("value", "system", "closed", ordered=True))
    assert of_patient(ordered, ("Patient.identifier", MRN), fixed, passport, fixed_passport) == []
    assert of_patient(ordered, passport, fixed_passport, ("Patient.identifier", MRN), fixed) == [
        ("structure", "Patient.identifier")
    ]
    at_end = ("Patient.identifier", by("value", "system", "openAtEnd"))
    assert of_patient(at_end, ("Patient.identifier", MRN), fixed) == []
    assert of_patient(at_end, passport, fixed_passport) == [("structure", "Patient.identifier")]


OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "x"},
    "component": [
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}, "valueQuantity": {"value": 120}},
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8462-4"}]}},
    ],
    "valueQuantity": {"value": 1, "code": "mg", "system": "urn:x:units"},
}


def test_slices_by_pattern_look_into_what_holds_the_discriminator():
    def rows(code, **more):
        pattern = {"coding": [{"system": "http://loinc.org", "code": code}]}
        return (
            ("Observation.component", by("value", "code.coding.code")),
            ("Observation.component", {"sliceName": "part", "min": 1}),
            ("Observation.component.code", {"patternCodeableConcept": pattern}),
            ("Observation.component.value[x]", more),
        )

    assert issues(OBSERVATION, *rows("8480-6", min=1)) == []
    assert issues(OBSERVATION, *rows("8462-4", min=1)) == [("required", "Observation.component[1].value")]
    assert issues(OBSERVATION, *rows("0-0")) == [("required", "Observation.component")]


def test_slices_by_type_and_by_existence():
    by_type = ("Observation.value[x]", by("type", "$this", "closed"))
    quantity = ("Observation.value[x]", {"sliceName": "valueQuantity", "type": [{"code": "Quantity"}]})
    text = ("Observation.value[x]", {"sliceName": "valueString", "type": [{"code": "string"}]})
    assert issues(OBSERVATION, by_type, quantity) == []
    assert issues(OBSERVATION, by_type, text) == [("structure", "Observation.value")]
    with_value = (
        ("Observation.component", by("exists", "value")),
        ("Observation.component", {"sliceName": "measured", "max": "0"}),
    )
    assert issues(OBSERVATION, *with_value, ("Observation.component.value[x]", {"min": 1})) == [
        ("structure", "Observation.component")
    ]


def test_the_short_form_of_a_choice_is_a_slice_by_type():
    assert issues(OBSERVATION, ("Observation.valueQuantity.code", {"fixedCode": "kg"})) == [("value", "Observation.value.code")]
    assert issues(OBSERVATION, ("Observation.valueString", {"maxLength": 1})) == []
    assert issues(OBSERVATION, ("Observation.valueString", {"min": 1})) == [("required", "Observation.value")]


def race(**members):
    return ("Patient.extension", {"sliceName": "race", "type": [{"code": "Extension", "profile": ["urn:x:race"]}], **members})


RACE = profile(
    ("Extension.url", {"fixedUri": "urn:x:race"}), ("Extension.value[x]", {"type": [{"code": "string"}]}), type_name="Extension"
)


def test_extensions_are_sliced_by_the_url_of_their_profile():
    assert of_patient(race(min=1)) == [("not-supported", "Patient.extension[0]")], "its profile is not loaded"
    assert of_patient(race(max="0")) == [("structure", "Patient.extension"), ("not-supported", "Patient.extension[0]")]
    assert of_patient(race(), loaded=[{**RACE, "url": "urn:x:race"}]) == [("structure", "Patient.extension[0].value")]
    other = ("Patient.extension", {"sliceName": "o", "type": [{"code": "Extension", "profile": ["urn:x:other"]}], "min": 1})
    assert of_patient(other) == [("required", "Patient.extension")]


def test_constraints_are_evaluated_where_they_stand():
    def constraint(expression, severity="error"):
        return {"constraint": [{"key": "x-1", "severity": severity, "expression": expression}]}

    assert of_patient(("Patient", constraint("name.exists() and gender = 'female'"))) == []
    assert of_patient(("Patient", constraint("photo.exists()"))) == [("invariant", "Patient")]
    assert of_patient(("Patient.identifier", constraint("value.matches('[0-9]+')"))) == [("invariant", "Patient.identifier[1]")]
    assert of_patient(("Patient", constraint("conformsTo('x')"))) == [("not-supported", "Patient")]
    assert of_patient(("Patient", {"constraint": [{"key": "x-2", "severity": "error"}]})) == [("not-supported", "Patient")]
    (warning,) = validate_profile(PATIENT, profile(("Patient", constraint("photo.exists()", "warning"))))
    assert (warning.severity, warning.diagnostics) == ("warning", "x-1: photo.exists()")


@pytest.mark.parametrize(
    "slicing",
    [
        by("profile", "$this"),
        by("value", "assigner.resolve().name"),
        by("value", "system.lower()"),
        {"slicing": {"rules": "open"}},
    ],
)
def test_slicing_that_is_not_supported_is_said_so(slicing):
    assert of_patient(("Patient.identifier", slicing), ("Patient.identifier", MRN)) == [("not-supported", "Patient.identifier")]


def test_a_profile_without_snapshot_counts_with_its_base_profiles():
    parent = profile(("Patient.photo", {"min": 1}), url="http://example.org/parent")
    derived = {"baseDefinition": "http://example.org/parent|2.0"}
    assert of_patient(("Patient.gender", {"min": 1}), **derived, loaded=[parent]) == [("required", "Patient.photo")]
    assert of_patient(("Patient.gender", {"min": 1}), **derived) == [("not-supported", "Patient")]
    assert of_patient(("Patient.gender", {"min": 1}), **derived, snapshot=True) == []
    circle = profile(("Patient", {}), url="http://example.org/parent", **derived)
    assert of_patient(("Patient", {}), **derived, loaded=[circle]) == [("not-supported", "Patient")]


def test_a_profile_that_says_nothing_is_not_mistaken_for_one_that_is_met():
    nothing = {"resourceType": "StructureDefinition", "type": "Patient", "baseDefinition": BASE + "Patient"}
    assert [(i.code, i.severity) for i in validate_profile(PATIENT, nothing)] == [("not-supported", "information")]


def test_the_official_examples_meet_r4_s_own_definitions_and_the_profiles_that_they_claim():
    if examples_archive() is None:
        pytest.skip(why_not())
    wanted = ("Patient", "ServiceRequest", "ImagingStudy", "Observation", "DiagnosticReport", "Task", "Procedure", "AuditEvent")
    definitions, resources = {}, []
    for _, resource in official_examples(leave_out=("SearchParameter", "ValueSet", "CodeSystem", "ConceptMap", "Bundle")):
        if resource["resourceType"] == "StructureDefinition":
            definitions[resource["url"]] = resource
        elif resource["resourceType"] in wanted and not any(i.severity == "error" for i in validate(resource)):
            resources.append(resource)
    claimed = 0
    for resource in resources:
        for url in (BASE + resource["resourceType"], *resource.get("meta", {}).get("profile", ())):
            if url in definitions:
                claimed += url != BASE + resource["resourceType"]
                found = validate_profile(resource, definitions[url], definitions.get)
                assert [i for i in found if i.severity == "error"] == [], resource["id"]
    assert claimed > 5
