"""R4's invariants, one a row: what breaks them is refused by key and place, and what merely looks like it is not."""

from decimal import Decimal
from itertools import chain, combinations

import pytest

from fhir_server.definitions import elements, primitive_types
from fhir_server.definitions.tables import read
from fhir_server.fhirpath import Node, compile_expression
from fhir_server.validation import validate
from fhir_server.validation.invariants import constraints
from fhir_server.validation.presence import FALSE, TRUE, mentioned, verdict

PATIENT = {"reference": "Patient/p1"}
TEXT = {"text": "x"}
UCUM = "http://unitsofmeasure.org"
OF_PATIENT_P = {"subject": {"reference": "#p"}}


def grams(number, code="g"):
    return {"value": number, "system": UCUM, "code": code}


BASES = {
    "ServiceRequest": {"status": "active", "intent": "order", "subject": PATIENT},
    "ImagingStudy": {"status": "available", "subject": PATIENT},
    "Task": {"status": "requested", "intent": "plan"},
    "Appointment": {"status": "proposed", "participant": [{"actor": PATIENT, "status": "accepted"}]},
    "Procedure": {"status": "in-progress", "subject": PATIENT},
    "DiagnosticReport": {"status": "final", "code": TEXT},
    "Observation": {"status": "final", "code": TEXT},
    "ChargeItem": {"status": "billable", "code": TEXT, "subject": PATIENT},
    "Coverage": {"status": "active", "beneficiary": PATIENT, "payor": [{"reference": "Organization/o"}]},
    "CoverageEligibilityResponse": {
        "status": "active",
        "purpose": ["benefits"],
        "patient": PATIENT,
        "created": "2026",
        "request": {"reference": "CoverageEligibilityRequest/r"},
        "outcome": "complete",
        "insurer": {"reference": "Organization/o"},
    },
    "Patient": {},
    "Encounter": {"status": "planned", "class": {"code": "IMP"}},
    "AuditEvent": {
        "type": {"code": "rest"},
        "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"requestor": True}],
        "source": {"observer": {"display": "x"}},
    },
    "Organization": {"name": "Radiology"},
    "ActivityDefinition": {"status": "draft"},
    "ValueSet": {"status": "draft"},
    "Condition": {"subject": PATIENT},
    "Bundle": {"type": "collection"},
    "Questionnaire": {"status": "draft"},
    "RiskAssessment": {"status": "final", "subject": PATIENT},
    "Group": {"type": "person", "actual": False},
}


def issues(resource_type, **changes):
    found = validate({"resourceType": resource_type, **BASES[resource_type], **changes})
    return [(i.severity, i.diagnostics.split(":")[0].split("(")[-1].strip(")"), i.expression) for i in found]


def errors(resource_type, **changes):
    return [(key, path) for severity, key, path in issues(resource_type, **changes) if severity == "error"]


@pytest.mark.parametrize("resource_type", BASES)
def test_a_plain_resource_of_each_type_meets_them_all(resource_type):
    assert errors(resource_type) == []


@pytest.mark.parametrize(
    ("resource_type", "changes", "key", "path"),
    [
        ("ServiceRequest", {"orderDetail": [TEXT]}, "prr-1", ""),
        ("ServiceRequest", {"occurrencePeriod": {"start": "2026-02", "end": "2026-01"}}, "per-1", ".occurrence"),
        (
            "ServiceRequest",
            {"occurrencePeriod": {"start": "2026-01-01T10:00:00Z", "end": "2026-01-01T10:30:00+01:00"}},
            "per-1",
            ".occurrence",
        ),
        ("ServiceRequest", {"quantityQuantity": {"value": 1, "code": "mg"}}, "qty-3", ".quantity"),
        (
            "ServiceRequest",
            {"quantityRange": {"low": grams(3), "high": grams(2)}},
            "rng-2",
            ".quantity",
        ),
        ("ServiceRequest", {"quantityRatio": {"numerator": {"value": 3}}}, "rat-1", ".quantity"),
        ("ServiceRequest", {"occurrenceTiming": {"repeat": {"duration": 1}}}, "tim-1", ".occurrence.repeat"),
        (
            "ServiceRequest",
            {"occurrenceTiming": {"repeat": {"period": Decimal(-1), "periodUnit": "d"}}},
            "tim-5",
            ".occurrence.repeat",
        ),
        ("ServiceRequest", {"occurrenceTiming": {"repeat": {"offset": 5, "when": ["CM"]}}}, "tim-9", ".occurrence.repeat"),
        ("ImagingStudy", {"identifier": [{"period": {"start": "2026", "end": "2025"}}]}, "per-1", ".identifier[0].period"),
        ("Task", {"authoredOn": "2026-02-01", "lastModified": "2026-01-01"}, "inv-1", ""),
        ("Appointment", {"start": "2026-01-01T00:00:00Z"}, "app-2", ""),
        ("Appointment", {"status": "booked"}, "app-3", ""),
        ("Appointment", {"cancelationReason": TEXT}, "app-4", ""),
        (
            "Appointment",
            {"participant": [{"actor": PATIENT, "status": "accepted"}, {"status": "accepted"}]},
            "app-1",
            ".participant[1]",
        ),
        ("Procedure", {"performedAge": {"value": 3}}, "age-1", ".performed"),
        ("DiagnosticReport", {"presentedForm": [{"data": "AAEC"}]}, "att-1", ".presentedForm[0]"),
        ("Observation", {"valueString": "x", "dataAbsentReason": TEXT}, "obs-6", ""),
        ("Observation", {"referenceRange": [{"appliesTo": [TEXT]}]}, "obs-3", ".referenceRange[0]"),
        (
            "Observation",
            {"component": [{"code": TEXT, "referenceRange": [{"appliesTo": [TEXT]}]}]},
            "obs-3",
            ".component[0].referenceRange[0]",
        ),
        (
            "Observation",
            {
                "code": {"coding": [{"system": "urn:x:a", "code": "1"}]},
                "valueString": "x",
                "component": [{"code": {"coding": [{"system": "urn:x:a", "code": "1"}]}}],
            },
            "obs-7",
            "",
        ),
        ("Coverage", {"period": {"start": "2026-02-02", "end": "2026-02-01"}}, "per-1", ".period"),
        (
            "CoverageEligibilityResponse",
            {"insurance": [{"coverage": {"reference": "Coverage/c"}, "item": [{"name": "x"}]}]},
            "ces-1",
            ".insurance[0].item[0]",
        ),
        ("Patient", {"contact": [{"gender": "male"}]}, "pat-1", ".contact[0]"),
        ("Patient", {"telecom": [{"system": "phone", "value": "1"}, {"value": "2"}]}, "cpt-2", ".telecom[1]"),
        ("Patient", {"name": [{"period": {"start": "2026", "end": "2025"}}]}, "per-1", ".name[0].period"),
        ("Encounter", {"length": {"value": 1, "code": "min"}}, "drt-1", ".length"),
        ("AuditEvent", {"entity": [{"name": "x", "query": "AAEC"}]}, "sev-1", ".entity[0]"),
        ("Organization", {"name": "x", "telecom": [{"system": "phone", "use": "home", "value": "1"}]}, "org-3", ".telecom[0]"),
        ("Organization", {"address": [{"city": "x"}, {"use": "home"}]}, "org-2", ".address[1]"),
        ("ValueSet", {"compose": {"include": [{"concept": [{"code": "a"}]}]}}, "vsd-1", ".compose.include[0]"),
        ("ValueSet", {"expansion": {"timestamp": "2026", "contains": [{"display": "x"}]}}, "vsd-9", ".expansion.contains[0]"),
        ("Questionnaire", {"item": [{"linkId": "1", "type": "group"}]}, "que-1", ".item[0]"),
        ("Questionnaire", {"item": [{"linkId": "1", "type": "string"}, {"linkId": "1", "type": "string"}]}, "que-2", ""),
        (
            "Questionnaire",
            {"item": [{"linkId": "1", "type": "string", "initial": [{"valueString": "a"}, {"valueString": "b"}]}]},
            "que-13",
            ".item[0]",
        ),
        ("RiskAssessment", {"prediction": [{"probabilityDecimal": 101}]}, "ras-2", ".prediction[0]"),
        (
            "RiskAssessment",
            {"prediction": [{"probabilityRange": {"low": {"value": 1}}}]},
            "ras-1",
            ".prediction[0].probability",
        ),
        ("Group", {"member": [{"entity": PATIENT}]}, "grp-1", ""),
        ("Bundle", {"total": 1}, "bdl-1", ""),
        ("Bundle", {"type": "document", "timestamp": "2026-01-01T00:00:00Z"}, "bdl-9", ""),
        ("Bundle", {"type": "batch", "entry": [{"fullUrl": "urn:x:1"}]}, "bdl-3", ""),
        (
            "Bundle",
            {"entry": [{"fullUrl": "http://example.org/Patient/1/_history/2", "resource": {"resourceType": "Patient"}}]},
            "bdl-8",
            ".entry[0]",
        ),
        (
            "Patient",
            {"extension": [{"url": "urn:x:a", "valuePeriod": {"start": "2026", "end": "2025"}}]},
            "per-1",
            ".extension[0].value",
        ),
        (
            "Patient",
            {"_birthDate": {"extension": [{"url": "urn:x:a", "valueContactPoint": {"value": "1"}}]}},
            "cpt-2",
            ".birthDate.extension[0].value",
        ),
        (
            "Patient",
            {"name": [{"given": ["A"], "_given": [{"extension": [{"url": "urn:x:a", "valueQuantity": {"code": "mg"}}]}]}]},
            "qty-3",
            ".name[0].given[0].extension[0].value",
        ),
        (
            "Bundle",
            {"entry": [{"resource": {"resourceType": "Organization", "active": True}}]},
            "org-1",
            ".entry[0].resource",
        ),
        (
            "ServiceRequest",
            {**OF_PATIENT_P, "contained": [{"resourceType": "Patient", "id": "p", "contact": [{"gender": "male"}]}]},
            "pat-1",
            ".contained[0].contact[0]",
        ),
    ],
)
def test_what_breaks_an_invariant_is_refused(resource_type, changes, key, path):
    assert (key, resource_type + path) in errors(resource_type, **changes)


@pytest.mark.parametrize(
    ("resource_type", "changes"),
    [
        ("ServiceRequest", {"orderDetail": [TEXT], "code": TEXT}),
        ("ServiceRequest", {"occurrencePeriod": {"start": "2026", "end": "2026-05-01"}}),
        ("ServiceRequest", {"occurrencePeriod": {"start": "2026-01-01T10:00:00+01:00", "end": "2026-01-01T09:00:00Z"}}),
        ("ServiceRequest", {"occurrencePeriod": {"start": "2026-01-01", "end": "2026-01-01T09:00:00Z"}}),
        (
            "ServiceRequest",
            {"occurrencePeriod": {"start": "2026", "_end": {"extension": [{"url": "urn:x:a", "valueCode": "unknown"}]}}},
        ),
        (
            "ServiceRequest",
            {"quantityRange": {"low": grams(3, "mg"), "high": grams(2)}},
        ),
        ("Task", {"authoredOn": "2026-01-01", "lastModified": "2026-01-01T08:00:00Z"}),
        (
            "Appointment",
            {"status": "noshow", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:10:00Z", "cancelationReason": TEXT},
        ),
        ("Encounter", {"length": {"value": 1, "code": "min", "system": UCUM}}),
        ("Patient", {"_deceasedBoolean": {"extension": [{"url": "urn:x:a", "valueCode": "unknown"}]}}),
        ("RiskAssessment", {"prediction": [{"outcome": TEXT}, {"probabilityDecimal": Decimal("99.5")}]}),
        ("Bundle", {"type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient"}}]}),
        ("Questionnaire", {"item": [{"linkId": "1", "type": "group", "item": [{"linkId": "1.1", "type": "display"}]}]}),
    ],
)
def test_what_cannot_be_decided_or_only_looks_wrong_is_accepted(resource_type, changes):
    assert errors(resource_type, **changes) == []


def test_a_constraint_of_severity_warning_is_a_warning():
    assert issues("ValueSet", name="not a name") == [("warning", "vsd-0", "ValueSet")]
    assert issues("ValueSet", name="AName") == []
    assert issues("Condition") == [], "a Condition without category needs no status"
    assert issues("Condition", category=[TEXT]) == [("warning", "con-3", "Condition")]


def test_errors_are_reported_however_many_warnings_there_are():
    element = {"path": "Patient.a-b"}
    differential = {"element": [element] * 30 + [{"path": "Patient.x", "min": 2, "max": "1"}]}
    found = validate(
        {
            "resourceType": "StructureDefinition",
            "url": "http://example.org/x",
            "name": "X",
            "status": "draft",
            "kind": "resource",
            "abstract": False,
            "type": "Patient",
            "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
            "derivation": "constraint",
            "differential": differential,
        }
    )
    assert any(i.severity == "error" and "eld-2:" in i.diagnostics for i in found)
    assert sum(i.severity == "warning" for i in found) == 20


def test_a_missing_narrative_is_told_only_to_who_asks_for_best_practice():
    patient = {"resourceType": "Patient"}
    assert validate(patient) == []
    assert [(i.severity, i.diagnostics[:5]) for i in validate(patient, best_practice=True)] == [("warning", "dom-6")]
    assert validate({"resourceType": "Bundle", "type": "collection"}, best_practice=True) == []


INNER = {"resourceType": "Patient", "id": "p"}


@pytest.mark.parametrize(
    ("changes", "key", "path"),
    [
        ({"contained": [INNER]}, "dom-3", ".contained[0]"),
        ({"contained": [{"resourceType": "Patient"}], "subject": {"reference": "#p"}}, "ref-1", ".subject.reference"),
        ({"subject": {"reference": "#p"}}, "ref-1", ".subject.reference"),
        ({"subject": {"reference": "#"}}, "ref-1", ".subject.reference"),
        ({**OF_PATIENT_P, "contained": [INNER, INNER]}, "FHIR R4 2.3.0.2", ".contained[1].id"),
        ({**OF_PATIENT_P, "contained": [{**INNER, "meta": {"versionId": "1"}}]}, "dom-4", ".contained[0].meta.versionId"),
        (
            {**OF_PATIENT_P, "contained": [{**INNER, "meta": {"security": [{"code": "R"}]}}]},
            "dom-5",
            ".contained[0].meta.security",
        ),
    ],
)
def test_contained_resources_are_referred_to_and_carry_no_version(changes, key, path):
    assert (key, "ServiceRequest" + path) in errors("ServiceRequest", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {**OF_PATIENT_P, "contained": [INNER]},
        {
            "contained": [
                {"resourceType": "Observation", "id": "o", "status": "final", "code": TEXT, "focus": [{"reference": "#"}]}
            ]
        },
        {"contained": [{"resourceType": "Questionnaire", "id": "q", "status": "draft"}], "instantiatesCanonical": ["#q"]},
        {
            "requester": {"reference": "#r"},
            "contained": [
                {"resourceType": "PractitionerRole", "id": "r", "organization": {"reference": "#o"}},
                {"resourceType": "Organization", "id": "o", "name": "x"},
            ],
        },
    ],
)
def test_every_way_to_refer_to_a_contained_resource_counts(changes):
    assert errors("ServiceRequest", **changes) == []


def test_each_resource_of_a_bundle_has_contained_resources_of_its_own():
    order = {"resourceType": "ServiceRequest", **BASES["ServiceRequest"]}
    entries = [{"resource": {**order, "contained": [INNER]}}, {"resource": {**order, "subject": {"reference": "#p"}}}]
    assert errors("Bundle", entry=entries) == [
        ("dom-3", "Bundle.entry[0].resource.contained[0]"),
        ("ref-1", "Bundle.entry[1].resource.subject.reference"),
    ]


def test_every_r4_invariant_is_compiled_or_native():
    table = read("invariants")
    assert sum(map(len, table["invariants"].values())) == sum(map(len, constraints().values())) > 200
    assert table["native"] == ["dom-2", "dom-3", "dom-4", "dom-5", "dom-6", "ele-1", "ext-1", "ref-1", "txt-1", "txt-2"]
    keys = {row[0] for rows in table["invariants"].values() for row in rows}
    assert {"prr-1", "app-1", "obs-7", "pat-1", "tim-9", "per-1", "qty-3", "bdl-7", "sdf-8a"} <= keys


SAMPLES = {"boolean": True, "integer": 1, "positiveInt": 1, "unsignedInt": 1, "decimal": Decimal(1)}


def _sample(element):
    key, type_name = next(iter(element.json_names.items()))
    value = SAMPLES.get(type_name, "x") if type_name in primitive_types() else {"id": "x"}
    return key, [value] if element.max != 1 else value


def test_what_presence_alone_decides_is_what_the_whole_expression_says():
    """Every invariant on every combination of the elements that it names: the short cut never disagrees."""
    decided = 0
    for path, rules in constraints().items():
        for rule in rules:
            names = sorted(mentioned(rule.tree))
            if rule.child or len(names) > 7 or not set(names) <= elements(path).keys():
                continue
            for some in chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)):
                quick = verdict(rule.tree, frozenset(some))
                if quick in {TRUE, FALSE}:
                    node = Node(dict(_sample(elements(path)[name]) for name in some), path)
                    assert compile_expression(rule.expression.text).is_met(node, node, node) is (quick == TRUE), (rule.key, some)
                    decided += 1
    assert decided > 500
