"""What the validator refuses and lets through, one rule of R4 a test."""

from copy import deepcopy
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.definitions import RESOURCE_TYPES
from fhir_server.validation import validate

ORDER = {
    "resourceType": "ServiceRequest",
    "id": "order-1",
    "identifier": [{"type": {"coding": [{"code": "PLAC"}]}, "system": "urn:oid:1.2.3", "value": "PO-1"}],
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/p1"},
    "occurrenceDateTime": "2026-01-05T09:30:00+01:00",
    "note": [{"text": "Line one\nline two"}],
}


def issues(resource):
    return [(issue.code, issue.expression) for issue in validate(resource)]


def of_order(**changes):
    return issues(deepcopy(ORDER) | changes)


def of_patient(**elements):
    return issues({"resourceType": "Patient", **elements})


def of_extension(**elements):
    found = of_patient(extension=[{"url": "http://example.org/x", **elements}])
    return [(code, path.removeprefix("Patient.extension[0]")) for code, path in found]


def of_value(name, value):
    return of_extension(**{"value" + name[0].upper() + name[1:]: value})


def test_a_sound_order_is_accepted():
    assert validate(ORDER) == []


def test_every_resource_type_compiles_and_refuses_an_unknown_element():
    for resource_type in sorted(RESOURCE_TYPES):
        assert ("structure", f"{resource_type}.nothing") in issues({"resourceType": resource_type, "nothing": 1})


@pytest.mark.parametrize(
    "resource", [{}, {"resourceType": "Order"}, {"resourceType": 1}, {"resourceType": "DomainResource"}, [], None]
)
def test_an_unknown_resource_type_is_refused(resource):
    assert [issue.code for issue in validate(resource)] == ["structure"]


def test_an_unknown_element_is_named_with_its_place():
    assert of_patient(name=[{"family": "A"}, {"familly": "A"}]) == [("structure", "Patient.name[1].familly")]


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("boolean", "true"),
        ("boolean", 1),
        ("integer", "1"),
        ("integer", True),
        ("integer", Decimal("1.0")),
        ("decimal", "1.0"),
        ("decimal", 1.5),
        ("decimal", True),
        ("string", 1),
        ("string", ["x"]),
        ("date", 2026),
        ("code", None),
        ("period", "2026"),
        ("period", []),
    ],
)
def test_a_value_of_the_wrong_json_type_is_refused(type_name, value):
    assert [code for code, _ in of_value(type_name, value)] == ["structure"]


GOOD = {
    "base64Binary": ["AAEC", "AA==", "AAEC\nAAEC"],
    "boolean": [True, False],
    "canonical": ["http://example.org/x|1.0", "#a"],
    "code": ["a", "two words", "a-b"],
    "date": ["2026", "2026-02", "2026-02-28", "2024-02-29", "2000-02-29"],
    "dateTime": ["2026", "2026-12-31", "2026-12-31T23:59:60Z", "2026-01-01T00:00:00.123456789-05:30"],
    "decimal": [0, -5, Decimal("1.50"), Decimal("1e3"), Decimal("1" * 34)],
    "id": ["a", "A-1.b", "x" * 64],
    "instant": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+14:00"],
    "integer": [0, -(2**31), 2**31 - 1],
    "oid": ["urn:oid:1.2.840.10008.0"],
    "positiveInt": [1],
    "string": ["x", " x ", "a\tb\r\nc", "åäö 日本"],
    "time": ["00:00:00", "23:59:59.999"],
    "unsignedInt": [0],
    "uri": ["http://example.org/a?b=c", "urn:x:y", "relative"],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
}
BAD = {
    "base64Binary": ["", "A", "AAE", "AA=A", "ÄÄÄÄ", " "],
    "canonical": ["", "a b"],
    "code": ["", " a", "a ", "a  b", "a\tb"],
    "date": "26 0000 2026-13 2026-02-30 2026-02-29 1900-02-29 2026-04-31 2026-1-1 2026-01-01T00:00:00Z ２０２６".split(),
    "dateTime": [
        "2026-01-01 10:00:00Z",
        *"2026-02-30 2026-01-01T10:00:00 2026-01-01T10:00Z 2026-01-01T24:00:00Z 2026-02-29T10:00:00Z".split(),
        *"2026-01-01T10:00:00+14:30 2026-01-01T".split(),
    ],
    "decimal": [Decimal("1" * 35), Decimal("1e7000")],
    "id": ["", "a/b", "a_b", "x" * 65, "a b", "é", "a\n"],
    "instant": ["2026", "2026-01-01", "2026-01-01T00:00:00", "2025-02-29T00:00:00Z"],
    "integer": [2**31, -(2**31) - 1],
    "oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02"],
    "positiveInt": [0, -1],
    "string": ["", " ", "\n\t", "a\x00b", "a\x1bb", "x" * (1024 * 1024 + 1)],
    "time": ["24:00:00", "10:00", "10:00:00Z"],
    "unsignedInt": [-1],
    "uri": ["", "a b", "a\n"],
    "uuid": ["c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:C757873D-EC9A-4326-A141-556F43239520"],
}


@pytest.mark.parametrize("type_name", GOOD)
def test_values_in_the_format_of_their_type_are_accepted(type_name):
    assert [value for value in GOOD[type_name] if of_value(type_name, value)] == []


@pytest.mark.parametrize("type_name", BAD)
def test_values_not_in_the_format_of_their_type_are_refused(type_name):
    assert [value for value in BAD[type_name] if [code for code, _ in of_value(type_name, value)] != ["value"]] == []


@given(st.integers(1, 9999), st.integers(1, 12), st.integers(1, 31))
def test_exactly_the_days_that_exist_are_dates(year, month, day):
    try:
        date(year, month, day)
        exists = True
    except ValueError:
        exists = False
    assert (of_value("date", f"{year:04}-{month:02}-{day:02}") == []) is exists


def test_half_of_a_surrogate_pair_is_refused():
    assert of_patient(name=[{"text": "a\ud800"}]) == [("value", "Patient.name[0].text")]


def test_an_integer_too_large_for_any_type_is_refused_not_an_error_of_ours():
    assert of_patient(multipleBirthInteger=10**40) == [("value", "Patient.multipleBirth")]


def test_required_elements_are_demanded_at_every_level():
    assert issues({"resourceType": "ServiceRequest", "status": "active", "intent": "order"}) == [
        ("required", "ServiceRequest.subject")
    ]
    trait = [{"code": {"text": "a"}, "exclude": False}]
    assert of_patient(link=[{"type": "seealso"}]) == [("required", "Patient.link[0].other")]
    assert issues({"resourceType": "Group", "type": "person", "actual": True, "characteristic": trait}) == [
        ("required", "Group.characteristic[0].value")
    ]


def test_a_required_primitive_may_have_an_extension_in_place_of_its_value():
    absent = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
    order = {name: value for name, value in ORDER.items() if name != "status"}
    assert issues(order) == [("required", "ServiceRequest.status")]
    assert issues(order | {"_status": absent}) == []


def test_arrays_stand_where_elements_repeat_and_nowhere_else():
    assert of_patient(name={"family": "A"}) == [("structure", "Patient.name")]
    assert of_patient(name=[]) == [("structure", "Patient.name")]
    assert of_patient(gender=["male"]) == [("structure", "Patient.gender")]
    assert of_order(subject=[{"reference": "Patient/p1"}]) == [("structure", "ServiceRequest.subject")]


def test_empty_elements_are_refused():
    assert of_patient(name=[{}]) == [("invariant", "Patient.name[0]")]
    assert of_patient(maritalStatus={"id": "x"}) == [("invariant", "Patient.maritalStatus")]
    assert of_patient(id="p") == []


def test_null_stands_only_beside_a_primitive_extension():
    extended = {"extension": [{"url": "http://example.org/x", "valueCode": "y"}]}
    assert of_patient(name=[{"given": ["A", None], "_given": [None, extended]}]) == []
    assert of_patient(name=[{"given": ["A", None]}]) == [("structure", "Patient.name[0].given[1]")]
    assert of_patient(name=[{"given": ["A", None], "_given": [extended, None]}]) == [
        ("structure", "Patient.name[0].given[1]"),
        ("structure", "Patient.name[0].given[1]"),
    ]
    assert of_patient(name=[{"given": ["A"], "_given": [None, extended]}]) == [("structure", "Patient.name[0].given")]
    assert of_patient(name=[None]) == [("structure", "Patient.name[0]")]
    assert of_patient(birthDate=None) == [("structure", "Patient.birthDate")]
    assert of_patient(name=[{"_given": []}]) == [("structure", "Patient.name[0].given")]


def test_a_primitive_extension_holds_an_id_and_extensions_only():
    assert of_patient(birthDate="2026-01-01", _birthDate={"id": "a"}) == []
    assert of_patient(_birthDate={"id": "a"}) == [("invariant", "Patient.birthDate")]
    assert of_patient(birthDate="2026", _birthDate={"value": "2026"}) == [("structure", "Patient.birthDate.value")]
    assert of_patient(birthDate="2026", _birthDate="x") == [("structure", "Patient.birthDate")]
    assert of_patient(birthDate="2026", _birthDate={"extension": [{"url": "http://example.org/x"}]}) == [
        ("invariant", "Patient.birthDate.extension[0]")
    ]
    assert of_patient(_name=[{"id": "a"}]) == [("structure", "Patient.name")]


def test_a_choice_has_one_type_only():
    assert of_patient(deceasedBoolean=True, deceasedDateTime="2026") == [("structure", "Patient.deceased")]
    assert of_patient(deceasedBoolean=True, _deceasedDateTime={"id": "a"}) != []
    assert of_patient(deceasedString="x") == [("structure", "Patient.deceasedString")]
    assert of_patient(deceased=True) == [("structure", "Patient.deceased")]
    assert of_patient(deceasedDateTime="x") == [("value", "Patient.deceased")]


def test_codes_of_required_bindings_are_checked():
    assert of_order(status="actve") == [("code-invalid", "ServiceRequest.status")]
    assert of_order(priority="stat") == []
    assert "'actve'" in validate(ORDER | {"status": "actve"})[0].diagnostics


def test_a_concept_with_a_required_binding_needs_a_coding_from_the_value_set():
    def of(concept):
        allergy = {"resourceType": "AllergyIntolerance", "patient": {"reference": "Patient/p"}, "clinicalStatus": concept}
        return [code for code, _ in issues(allergy)]

    system = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
    assert of({"coding": [{"system": "urn:x:local", "code": "A"}, {"system": system, "code": "active"}]}) == []
    assert of({"coding": [{"system": "urn:x:local", "code": "active"}]}) == ["code-invalid"]
    assert of({"text": "active"}) == ["code-invalid"]
    assert of({"extension": [{"url": "http://example.org/x", "valueCode": "unknown"}]}) == []


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/p1"},
        {"reference": "Patient/p1/_history/2"},
        {"reference": "https://ehr.example/fhir/Group/g1"},
        {"reference": "Patient?identifier=urn:x|1"},
        {"reference": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"},
        {"reference": "https://ehr.example/show/12"},
        {"identifier": {"value": "1"}},
        {"display": "someone"},
        {"type": "Patient", "identifier": {"value": "1"}},
    ],
)
def test_references_to_the_right_type_or_to_no_known_one_are_accepted(reference):
    assert of_order(subject=reference) == []


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ({"reference": "Practitioner/p1"}, "reference"),
        ({"reference": "https://ehr.example/fhir/Practitioner/p1/_history/1"}, "reference"),
        ({"reference": "Practitioner?identifier=1"}, "reference"),
        ({"reference": "Pateint/p1"}, "reference"),
        ({"reference": "p1"}, "reference"),
        ({"reference": "Patient/"}, "reference"),
        ({"reference": "Patient/p_1"}, "reference"),
        ({"type": "Practitioner"}, "type"),
        ({"type": "Pateint"}, "type"),
    ],
)
def test_references_to_the_wrong_type_are_refused(reference, part):
    assert of_order(subject=reference) == [("value", f"ServiceRequest.subject.{part}")]


def test_a_reference_must_not_contradict_its_type():
    assert of_order(subject={"reference": "Patient/p1", "type": "Group"}) == [("invariant", "ServiceRequest.subject.type")]


def test_an_extension_has_a_url_and_a_value_or_extensions():
    inner = [{"url": "a", "valueString": "x"}]
    assert of_extension(valueString="x") == []
    assert of_extension(extension=inner) == []
    assert of_extension() == [("invariant", "")]
    assert of_extension(extension=inner, valueString="x") == [("invariant", "")]
    assert of_extension(valueString="x", valueCode="x") == [("structure", ".value")]
    assert of_patient(extension=[{"valueString": "x"}]) == [("required", "Patient.extension[0].url")]


def test_a_contained_resource_is_validated_and_contains_no_other():
    assert of_order(contained=[{"resourceType": "Patient", "id": "p", "birthDate": "x"}]) == [
        ("value", "ServiceRequest.contained[0].birthDate")
    ]
    nested = {"resourceType": "Patient", "id": "p", "contained": [{"resourceType": "Patient", "id": "q"}]}
    assert of_order(contained=[nested]) == [("invariant", "ServiceRequest.contained[0].contained")]
    assert of_order(contained=[{"id": "p"}]) == [("structure", "ServiceRequest.contained[0]")]


def test_resources_in_bundles_and_parameters_are_validated():
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {"resourceType": "Patient", "gender": "m"}}]}
    assert issues(bundle) == [("code-invalid", "Bundle.entry[0].resource.gender")]
    part = {"name": "a", "part": [{"name": "b", "resource": {"resourceType": "Nothing"}}]}
    assert issues({"resourceType": "Parameters", "parameter": [part]}) == [
        ("structure", "Parameters.parameter[0].part[0].resource")
    ]


def test_a_simple_quantity_has_no_comparator():
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    compared = {"value": Decimal("1.0"), "comparator": "<"}
    assert issues(observation | {"valueQuantity": compared}) == []
    assert issues(observation | {"referenceRange": [{"low": compared}]}) == [
        ("invariant", "Observation.referenceRange[0].low.comparator")
    ]


def test_nesting_is_limited():
    def extended(levels):
        inner = {"url": "a", "valueString": "x"}
        for _ in range(levels):
            inner = {"url": "a", "extension": [inner]}
        return of_patient(extension=[inner])

    assert extended(30) == []
    for levels in (60, 900):
        assert [code for code, _ in extended(levels)] == ["structure"]


def test_many_issues_are_reported_together_but_not_endlessly():
    assert len(of_patient(gender="x", birthDate="x", active="x", name={})) == 4
    assert len(of_patient(name=[{"nothing": 1}] * 1000)) == 20
    assert len(of_patient(**{f"x{n}": 1 for n in range(1000)})) == 20


def of_narrative(content, root='<div xmlns="http://www.w3.org/1999/xhtml">'):
    return [code for code, _ in of_patient(text={"status": "generated", "div": f"{root}{content}</div>"})]


@pytest.mark.parametrize(
    "content",
    [
        "text",
        '<p class="a" style="color: red; text-align: left">Héllo &amp; &#160; <b>b</b><br/></p>',
        '<a href="https://example.org/x?y=1">x</a><a name="here">y</a><a href="#here">z</a><a href="Patient/1:2">z</a>',
        '<table border="1"><thead><tr><th colspan="2">a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>',
        '<img src="data:image/png;base64,AAAA" alt="x"/>',
        "<!-- a comment -->x",
    ],
)
def test_ordinary_narratives_are_accepted(content):
    assert of_narrative(content) == []


@pytest.mark.parametrize(
    "content",
    [
        "<script>alert(1)</script>",
        "<style>p {}</style>",
        '<iframe src="https://evil.example"/>',
        "<object/>",
        "<embed/>",
        "<form><input/></form>",
        "<svg/>",
        "<SCRIPT>x</SCRIPT>",
        '<x:script xmlns:x="http://www.w3.org/1999/xhtml">x</x:script>',
        '<script xmlns="http://www.w3.org/2000/svg">x</script>',
        '<p xmlns="http://www.w3.org/2000/svg">x</p>',
        '<p onclick="x()">x</p>',
        '<a href="javascript:alert(1)">x</a>',
        '<a href=" java&#10;script:alert(1)">x</a>',
        '<a href="JAVASCRIPT&#58;alert(1)">x</a>',
        '<a href="data:text/html,x">x</a>',
        '<a href="vbscript:x">x</a>',
        '<img src="javascript:x"/>',
        '<img src="data:image/svg+xml;base64,AAAA"/>',
        '<p style="background: url(https://evil.example/x)">x</p>',
        '<p style="width: expression(alert(1))">x</p>',
        '<p style="background: u\\72l(x)">x</p>',
        "<?php x ?>x",
        "<div>" * 200 + "x" + "</div>" * 200,
        "",
        " <p> </p> ",
    ],
)
def test_narratives_that_run_or_load_something_or_say_nothing_are_refused(content):
    assert of_narrative(content) == ["invariant"]


@pytest.mark.parametrize(
    "content",
    ["<p>", "<p>x</b>", "&nbsp;x", "a < b", "<p class=a>x</p>", "<p>x</p></div><div>", "x" * (4 * 1024 * 1024)],
    ids=lambda content: content[:20],
)
def test_narratives_that_are_not_well_formed_or_too_long_are_refused(content):
    assert of_narrative(content) == ["value"]


@pytest.mark.parametrize("root", ["<div>", '<div xmlns="http://example.org">', '<p xmlns="http://www.w3.org/1999/xhtml">'])
def test_the_narrative_s_root_is_an_xhtml_div(root):
    assert of_narrative("x", root) == ["invariant"]


def test_entities_cannot_be_declared_in_a_narrative():
    bomb = '<!DOCTYPE div [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    assert of_narrative("&b;", bomb + '<div xmlns="http://www.w3.org/1999/xhtml">') == ["invariant"]
    assert of_narrative("x", '<?xml version="1.0"?><div xmlns="http://www.w3.org/1999/xhtml">') == ["invariant"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals()
    | st.text("aé \n\x00\ud800", max_size=5)
    | st.just({"reference": "Patient/1"}),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "extension", "url", "_url", "coding", "x"]), inner)
    ),
    max_leaves=10,
)
names = st.sampled_from(
    ["id", "text", "contained", "extension", "code", "_status", "status", "subject", "occurrenceTiming", "basedOn", "note"]
)


@given(st.dictionaries(names, values))
def test_anything_at_all_gets_issues_and_never_an_error(elements):
    for issue in validate({"resourceType": "ServiceRequest", **elements}):
        assert issue.code in {"structure", "required", "value", "code-invalid", "invariant"}
        assert issue.expression.startswith("ServiceRequest")
