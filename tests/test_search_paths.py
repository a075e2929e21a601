"""Search parameter expressions become extractors of (type, value) pairs."""

import itertools

import pytest

from fhir_server.definitions import RESOURCE_TYPES, search_parameters
from fhir_server.search.index import composites, index, looks_at, parameters
from fhir_server.search.paths import PathError, compile_path, referred_type
from tests.r4_examples import examples_archive, official_examples, why_not


def select(expression, resource):
    return compile_path(expression, resource["resourceType"])(resource)


def test_every_search_parameter_of_r4_compiles_and_so_do_its_components():
    without_expression = set()
    for resource_type in sorted(RESOURCE_TYPES):
        for parameter in search_parameters(resource_type).values():
            if not parameter.expression:
                without_expression.add(parameter.name)
                continue
            path = compile_path(parameter.expression, resource_type)
            assert path.types
            for _, component in parameter.components:
                assert all(compile_path(component, base).types for base in path.types)
    assert without_expression == {"_content", "_query", "_text"}


def test_a_dotted_path_flattens_arrays_and_names_the_type():
    patient = {"resourceType": "Patient", "name": [{"given": ["Ada", None, "B"]}, {"family": "X"}, {"given": ["C"]}]}
    assert select("Patient.name.given", patient) == [("string", "Ada"), ("string", "B"), ("string", "C")]
    assert select("Patient.name[1].family", patient) == [("string", "X")]
    assert select("Resource.id", {"resourceType": "Patient", "id": "a"}) == [("id", "a")]


def test_only_the_operands_for_the_resource_type_count():
    expression = "AllergyIntolerance.code | (Observation.code | Observation.value as CodeableConcept) | Procedure.code"
    observation = {"resourceType": "Observation", "code": {"text": "a"}, "valueCodeableConcept": {"text": "b"}}
    assert select(expression, observation) == [("CodeableConcept", {"text": "a"}), ("CodeableConcept", {"text": "b"})]
    with pytest.raises(PathError, match="Procedure"):
        compile_path("AllergyIntolerance.code | Procedure.code", "Patient")


@pytest.mark.parametrize(
    "expression",
    [
        "Observation.value as Quantity",
        "(Observation.value as Quantity)",
        "Observation.value.as(Quantity)",
        "Observation.value.ofType(Quantity)",
    ],
)
def test_a_choice_is_narrowed_to_one_type(expression):
    assert select(expression, {"resourceType": "Observation", "valueQuantity": {"value": 1}}) == [("Quantity", {"value": 1})]
    assert select(expression, {"resourceType": "Observation", "valueString": "x"}) == []


def test_a_choice_without_a_cast_yields_the_type_that_is_there():
    path = compile_path("Observation.effective", "Observation")
    assert path({"effectivePeriod": {"start": "2026"}}) == [("Period", {"start": "2026"})]
    assert path({"effectiveInstant": "2026-01-01T00:00:00Z"}) == [("instant", "2026-01-01T00:00:00Z")]
    assert path.types == {"dateTime", "Period", "Timing", "instant"}


def test_references_are_filtered_by_the_type_that_they_name():
    actors = [
        {"reference": "Patient/p"},
        {"reference": "https://ehr.example/fhir/Patient/q/_history/2"},
        {"reference": "Location/ct1"},
        {"reference": "urn:uuid:0a0a0a0a-0000-4000-8000-000000000000", "type": "Patient"},
        {"reference": "#p"},
        {"display": "someone"},
    ]
    appointment = {"resourceType": "Appointment", "participant": [{"actor": actor} for actor in actors]}
    found = select("Appointment.participant.actor.where(resolve() is Patient)", appointment)
    assert found == [("Reference", actors[0]), ("Reference", actors[1]), ("Reference", actors[3])]


def test_where_compares_and_exists_counts():
    patient = {"resourceType": "Patient", "telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "2"}]}
    assert select("Patient.telecom.where(system='email').value", patient) == [("string", "2")]
    assert select("Patient.telecom.where(system='fax').exists()", patient) == [("boolean", False)]


@pytest.mark.parametrize(
    ("deceased", "answer"),
    [({}, False), ({"deceasedBoolean": False}, False), ({"deceasedBoolean": True}, True), ({"deceasedDateTime": "2026"}, True)],
)
def test_deceased_is_asked_of_a_boolean_or_a_date(deceased, answer):
    expression = search_parameters("Patient")["deceased"].expression
    assert select(expression, {"resourceType": "Patient", **deceased}) == [("boolean", answer)]


def test_composite_components_are_relative_to_what_the_composite_selects():
    observation = {
        "resourceType": "Observation",
        "code": {"text": "panel"},
        "component": [{"code": {"text": "part"}, "valueQuantity": {"value": 7}}],
    }
    composite = search_parameters("Observation")["combo-code-value-quantity"]
    found = [
        [compile_path(component, base)(part, observation) for _, component in composite.components]
        for base, part in select(composite.expression, observation)
    ]
    assert found == [
        [[("CodeableConcept", {"text": "panel"})], []],
        [[("CodeableConcept", {"text": "part"})], [("Quantity", {"value": 7})]],
    ]


def test_resource_stands_for_the_whole_resource():
    sequence = {"resourceType": "MolecularSequence", "referenceSeq": {"chromosome": {"text": "1"}}, "variant": [{"start": 5}]}
    path = compile_path("%resource.referenceSeq.chromosome", "MolecularSequence.variant")
    assert path(sequence["variant"][0], sequence) == [("CodeableConcept", {"text": "1"})]


def test_extensions_are_found_by_url():
    patient = {
        "resourceType": "Patient",
        "extension": [{"url": "http://example.org/a", "valueString": "x"}, {"url": "http://example.org/b", "valueCode": "y"}],
    }
    assert select("Patient.extension('http://example.org/b').value", patient) == [("code", "y")]
    assert select("Patient.where(hasExtension('http://example.org/c')).id", patient | {"id": "1"}) == []


def test_a_resource_inside_another_goes_by_its_own_type():
    bundle = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Composition", "id": "c"}}, {"fullUrl": "x"}]}
    assert select("Bundle.entry[0].resource", bundle) == [("Composition", {"resourceType": "Composition", "id": "c"})]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "§",
        "Patient.nme",
        "Patient.name.",
        "Patient.name)",
        "Patient.name[x]",
        "Patient name",
        "Patient.name | Patient.nme",
        "Patient.name as Quantity",
        "Patient.name.first()",
        "Patient.name.where(use='x'",
    ],
)
def test_what_is_not_understood_is_refused_when_compiling(expression):
    with pytest.raises(PathError):
        compile_path(expression, "Patient")


def test_the_type_of_a_reference():
    assert referred_type({"reference": "Patient?identifier=x"}) == "Patient"
    assert referred_type({"type": "http://hl7.org/fhir/StructureDefinition/Device"}) == "Device"
    assert referred_type({"identifier": {"value": "x"}}) is None


@pytest.mark.skipif(examples_archive() is None, reason=why_not())
def test_no_parameter_is_passed_over_that_has_a_value() -> None:
    """The index looks only at the parameters that a resource's elements call for."""
    for name, resource in itertools.islice(official_examples(), 0, None, 4):
        resource_type = resource["resourceType"]
        elements = {*resource, "resourceType", *(f"meta.{member}" for member in resource.get("meta", ()))}
        for parameter, (_, extract) in parameters(resource_type).items():
            assert not extract(resource) or not elements.isdisjoint(looks_at(resource_type, parameter)), (name, parameter)
        for composite in composites(resource_type).values():
            assert not composite.groups(resource) or not elements.isdisjoint(composite.needed), (name, composite.name)


def test_a_patient_of_whom_nothing_is_said_is_not_deceased() -> None:
    assert "deceased=false" in index({"resourceType": "Patient", "id": "x"})["t"]
    assert "deceased=true" in index({"resourceType": "Patient", "id": "x", "deceasedDateTime": "2026"})["t"]
