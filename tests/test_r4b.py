"""fhir.resources R4B as a second opinion on shape: what we accept it accepts, and what it refuses we refuse.

R4B is not R4: the evidence and medicinal product resources differ. Our types and its do not differ in what the department uses.
"""

from copy import deepcopy
from decimal import Decimal
from functools import cache

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fhir_server.definitions import RESOURCE_TYPES, elements, primitive_types
from fhir_server.validation import validate
from tests.r4_examples import examples_archive, official_examples, why_not

NOT_IN_R4B = frozenset(
    """
    EffectEvidenceSynthesis MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication
    MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
    MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect RiskEvidenceSynthesis
    SubstanceNucleicAcid SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
    SubstanceSpecification
    """.split()
)
DIFFERENT_IN_R4B = frozenset({"Evidence"})  # redesigned: R4's exposureBackground is gone, variableDefinition is new and required
DEFINITIONS = ("SearchParameter", "ValueSet", "CodeSystem", "StructureDefinition", "ConceptMap", "OperationDefinition", "Bundle")

PATIENT = {"reference": "Patient/p1"}
RESOURCES = [
    {
        "resourceType": "ServiceRequest",
        "id": "order-1",
        "identifier": [{"type": {"coding": [{"code": "PLAC"}]}, "system": "urn:oid:1.2.3", "value": "PO-1"}],
        "status": "active",
        "intent": "order",
        "priority": "stat",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24627-2"}], "text": "CT chest"},
        "orderDetail": [{"text": "with contrast"}],
        "subject": PATIENT,
        "occurrencePeriod": {"start": "2026-01-05T09:30:00+01:00"},
        "asNeededBoolean": False,
        "note": [{"text": "Line one\nline two", "authorString": "N. Surname"}],
    },
    {
        "resourceType": "ImagingStudy",
        "id": "s1",
        "status": "available",
        "subject": PATIENT,
        "numberOfSeries": 1,
        "series": [
            {
                "uid": "2.25.1",
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                "instance": [{"uid": "2.25.2", "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840"}}],
            }
        ],
    },
    {
        "resourceType": "Patient",
        "id": "p1",
        "active": True,
        "name": [{"family": "Ng", "given": ["Ada"]}],
        "birthDate": "1980-02-29",
        "gender": "female",
        "deceasedBoolean": False,
        "multipleBirthInteger": 2,
        "telecom": [{"system": "phone", "value": "1", "rank": 1}],
        "contact": [{"name": {"text": "x"}}],
        "link": [{"other": {"reference": "Patient/p2"}, "type": "seealso"}],
    },
    {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "diameter"},
        "subject": PATIENT,
        "effectiveDateTime": "2026-01-05",
        "valueQuantity": {"value": Decimal("1.50"), "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
        "component": [{"code": {"text": "a"}, "valueString": "b"}],
    },
    {
        "resourceType": "Appointment",
        "status": "booked",
        "start": "2026-01-05T09:30:00Z",
        "end": "2026-01-05T10:00:00Z",
        "minutesDuration": 30,
        "participant": [{"actor": PATIENT, "status": "accepted"}],
    },
]


@cache
def model(resource_type):
    return get_fhir_model_class(resource_type)


def r4b_accepts(resource):
    try:
        model(resource["resourceType"]).model_validate(deepcopy(resource))
    except (ValidationError, ValueError, TypeError, AttributeError, KeyError):
        return False
    return True


def we_accept(resource):
    return not any(issue.severity == "error" for issue in validate(resource))


def test_the_types_that_r4b_does_not_have_are_the_listed_ones():
    def is_known(resource_type):
        try:
            return bool(model(resource_type))
        except ValueError:
            return False

    assert {name for name in RESOURCE_TYPES if not is_known(name)} == NOT_IN_R4B


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource["resourceType"])
def test_our_own_examples_are_accepted_by_both(resource):
    assert we_accept(resource)
    assert r4b_accepts(resource)


def test_r4b_accepts_what_we_accept_of_the_official_examples():
    if examples_archive() is None:
        pytest.skip(why_not())
    others = NOT_IN_R4B | DIFFERENT_IN_R4B
    refused = {
        name
        for name, resource in official_examples(leave_out=DEFINITIONS)
        if resource["resourceType"] not in others and not r4b_accepts(resource) and we_accept(resource)
    }
    assert refused == set()


def _objects(value, path, found):
    """Every object of a resource with the type that our tables give it."""
    found.append((path, value))
    for element in elements(path).values():
        for key, type_name in element.json_names.items():
            for item in value.get(key, []) if isinstance(value.get(key), list) else [value.get(key)]:
                if isinstance(item, dict) and type_name != "Resource":
                    _objects(item, element.children or type_name, found)
    return found


WRONG = st.sampled_from(
    [True, 7, Decimal("1.5"), "x", "", " ", [], {}, ["x"], [{}], {"x": 1}, {"id": "x"}, None, "2026-02-30", -1]
)


@st.composite
def mutations(draw):
    resource = deepcopy(draw(st.sampled_from(RESOURCES)))
    path, target = draw(st.sampled_from(_objects(resource, resource["resourceType"], [])))
    shapes = elements(path)
    kind = draw(st.sampled_from(["drop", "wrong", "extra", "choice", "wrap"]))
    keys = sorted(key for key in target if key != "resourceType")
    choices = sorted(name for name, element in shapes.items() if element.choice)
    if kind == "drop" and keys:
        del target[draw(st.sampled_from(keys))]
    elif kind == "wrong" and keys:
        target[draw(st.sampled_from(keys))] = draw(WRONG)
    elif kind == "choice" and choices:
        pairs = [p for p in shapes[draw(st.sampled_from(choices))].json_names.items() if p[1] in primitive_types()]
        for key, type_name in draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=2)) if pairs else []:
            target[key] = {"boolean": True, "dateTime": "2026", "date": "2026", "integer": 1}.get(type_name, "x")
    elif kind == "wrap" and keys:
        key = draw(st.sampled_from(keys))
        target[key] = target[key][0] if isinstance(target[key], list) else [target[key]]
    else:
        target[draw(st.sampled_from(["nothing", "_nothing", "valueNothing", "Status", "resource type"]))] = draw(WRONG)
    return resource


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_whatever_r4b_refuses_we_refuse_as_well(resource):
    if not r4b_accepts(resource):
        assert not we_accept(resource)
