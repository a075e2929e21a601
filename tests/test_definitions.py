"""The generated tables say what R4 4.0.1 says, and say it through typed access."""

import subprocess
import sys

import pytest

from fhir_server.definitions import (
    RESOURCE_TYPES,
    base_of,
    compartment,
    elements,
    kind,
    primitive_types,
    search_parameters,
    value_set,
)
from fhir_server.definitions.tables import read


def test_r4_has_146_concrete_resource_types():
    assert len(RESOURCE_TYPES) == 146
    assert {"Patient", "ServiceRequest", "ImagingStudy", "Bundle", "Parameters"} <= RESOURCE_TYPES
    assert not {"Resource", "DomainResource", "Element"} & RESOURCE_TYPES


def test_every_table_names_its_source():
    for name in ("resource_types", "elements", "invariants", "value_sets", "search_parameters", "compartments"):
        assert read(name)["source"] == "hl7.fhir.r4.examples 4.0.1"


def test_search_parameters_of_a_type_include_those_of_every_resource():
    parameters = search_parameters("ImagingStudy")
    assert {"_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_text"} <= parameters.keys()
    assert parameters["patient"].expression == "ImagingStudy.subject.where(resolve() is Patient)"
    assert parameters["identifier"].definition == "http://hl7.org/fhir/SearchParameter/clinical-identifier"
    assert "_text" not in search_parameters("Bundle"), "a Bundle has no narrative"


def test_composite_components_name_parameters_of_the_same_type():
    for resource_type in RESOURCE_TYPES:
        parameters = search_parameters(resource_type)
        for parameter in parameters.values():
            assert (parameter.type == "composite") == bool(parameter.components)
            assert all(name in parameters for name, _ in parameter.components)
    assert search_parameters("Observation")["code-value-quantity"].components == (
        ("code", "code"),
        ("value-quantity", "value.as(Quantity)"),
    )


def test_a_reference_to_anything_lists_every_type_that_can_be_stored():
    assert set(search_parameters("Task")["focus"].targets) == RESOURCE_TYPES - {"Parameters"}


def test_compartments_name_parameters_that_exist():
    assert compartment("Patient")["ServiceRequest"] == ("subject", "performer")
    assert "Device" not in compartment("Patient")
    for name in ("Patient", "Encounter", "Practitioner", "Device", "RelatedPerson"):
        for resource_type, parameters in compartment(name).items():
            assert all(parameter in search_parameters(resource_type) for parameter in parameters)


def test_elements_carry_cardinality_types_targets_bindings_and_summary():
    order = elements("ServiceRequest")
    assert list(order)[:4] == ["id", "meta", "implicitRules", "language"]
    assert (order["subject"].min, order["subject"].max) == (1, 1)
    assert order["subject"].targets == ("Patient", "Group", "Location", "Device")
    assert order["status"].binding == "http://hl7.org/fhir/ValueSet/request-status"
    assert order["status"].summary
    assert not order["note"].summary
    assert order["identifier"].max is None
    assert order["occurrence"].json_names == {
        "occurrenceDateTime": "dateTime",
        "occurrencePeriod": "Period",
        "occurrenceTiming": "Timing",
    }


def test_backbone_elements_and_content_references_lead_to_their_children():
    assert elements("Observation")["component"].children == "Observation.component"
    assert elements("Observation.component")["referenceRange"].children == "Observation.referenceRange"
    assert {"modifierExtension", "code", "value"} <= elements("Observation.component").keys()
    with pytest.raises(KeyError):
        elements("Observation.nothing")


def test_kinds_of_types():
    assert (kind("Patient"), kind("Coding"), kind("instant"), kind("Nothing")) == ("resource", "complex", "primitive", None)
    assert len(primitive_types()) == 20


def test_types_name_what_they_are_derived_from():
    assert [base_of(name) for name in ("Patient", "Age", "canonical", "Timing", "Observation.component", "Element")] == [
        "DomainResource",
        "Quantity",
        "uri",
        "BackboneElement",
        "BackboneElement",
        None,
    ]


def test_value_sets_are_listed_where_they_can_be():
    status = value_set("http://hl7.org/fhir/ValueSet/request-status")
    assert status == {
        "http://hl7.org/fhir/request-status": frozenset(
            {"draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown"}
        )
    }
    assert value_set("http://hl7.org/fhir/ValueSet/mimetypes") is None
    assert "http://hl7.org/fhir/ValueSet/mimetypes" in read("value_sets")["not_enumerable"]


def test_importing_the_definitions_reads_no_large_table():
    code = (
        "import fhir_server.definitions.tables as t; opened = []; read = t.read\n"
        "t.read = lambda name: opened.append(name) or read(name)\n"
        "import fhir_server.definitions; print(opened)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "elements" not in done.stdout
    assert "search_parameters" not in done.stdout
