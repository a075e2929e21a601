"""What FHIRPath expressions select, and which ones are refused."""

import time
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhirpath import FhirPathError, compile_expression, evaluate, select

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "name": [
        {"use": "official", "family": "Ng", "given": ["Ada", "Bo"]},
        {
            "use": "nickname",
            "given": ["Addie", None],
            "_given": [None, {"extension": [{"url": "urn:x:a", "valueCode": "masked"}]}],
        },
    ],
    "birthDate": "1980-02",
    "_gender": {"extension": [{"url": "urn:x:absent", "valueCode": "unknown"}]},
    "multipleBirthInteger": 2,
    "contact": [{"name": {"family": "Roe"}, "telecom": [{"system": "phone", "value": "1"}]}],
    "managingOrganization": {"reference": "#o"},
    "generalPractitioner": [
        {"reference": "Practitioner/d1"},
        {"reference": "https://ehr.example/fhir/Organization/9/_history/2"},
    ],
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Ward"}],
}
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
    "valueQuantity": {"value": Decimal("1.50"), "system": "http://unitsofmeasure.org", "code": "mg"},
    "component": [{"code": {"text": "a"}, "valueString": "x"}, {"code": {"text": "b"}, "valueInteger": 3}],
    "effectiveDateTime": "2026-01-05T09:30:00+01:00",
    "issued": "2026-01-05T08:30:00Z",
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("name.given", ["Ada", "Bo", "Addie"]),
        ("Patient.name.family", ["Ng"]),
        ("Resource.id | DomainResource.id", ["p1"]),
        ("Observation.id", []),
        ("name[1].use", ["nickname"]),
        ("name[7]", []),
        ("name.where(use = 'official').given.first()", ["Ada"]),
        ("name.select(given.count())", [2, 2]),
        ("name.given.count()", [4]),
        ("name.given.hasValue()", [False]),
        ("name[1].given[1].extension('urn:x:a').value", ["masked"]),
        ("gender.exists() and gender.hasValue().not()", [True]),
        ("gender.extension.where(url = 'urn:x:absent').value", ["unknown"]),
        ("multipleBirth", [2]),
        ("multipleBirth is Integer", [True]),
        ("multipleBirth is integer", [True]),
        ("multipleBirth.ofType(boolean)", []),
        ("(multipleBirth as integer) + 1", [3]),
        ("id is string", [True]),
        ("name.first() is FHIR.HumanName", [True]),
        ("contact is BackboneElement", [True]),
        ("$this is DomainResource", [True]),
        ("name.given | name.given", ["Ada", "Bo", "Addie"]),
        ("name.given.isDistinct()", [True]),
        ("contact.telecom.all(value.exists() and system = 'phone')", [True]),
        ("name.all(family.exists())", [False]),
        ("'Bo' in name.given and (name.given contains 'Bo')", [True]),
        ("name.use.exclude('official')", ["nickname"]),
        ("name.use.intersect('official' | 'old')", ["official"]),
        ("children().ofType(HumanName).use", ["official", "nickname"]),
        ("descendants().where($this is ContactPoint).value", ["1"]),
        ("repeat(contact.name).family", ["Roe"]),
        ("contact.name.family.combine(name.family)", ["Roe", "Ng"]),
        ("name.given.first().substring(1, 2)", ["da"]),
        ("name.family & '!' & nothing", ["Ng!"]),
        ("name.family.first().length()", [2]),
        ("id.matches('p[0-9]')", [True]),
        ("id.matches('p')", [False]),
        ("id.replaceMatches('([a-z])([0-9])', '$2$1')", ["1p"]),
        ("iif(active, 'yes', 'no')", ["yes"]),
        ("name.given.skip(1).take(1) = name.given.tail().first()", [True]),
        ("name.select($index)", [0, 1]),
        ("%resource.name.count() = %context.name.count()", [True]),
        ("%ucum", ["http://unitsofmeasure.org"]),
        ("%`vs-example`", ["http://hl7.org/fhir/ValueSet/example"]),
        ("managingOrganization.resolve().name", ["Ward"]),
        ("generalPractitioner.where(resolve() is Practitioner).reference", ["Practitioner/d1"]),
        ("generalPractitioner.resolve().ofType(Organization).id", ["9"]),
        ("birthDate < @1981", [True]),
        ("birthDate <= @1980-02-03", []),
        ("birthDate = @1980-02", [True]),
        ("@2020-01-01T00:00:00+01:00 = @2019-12-31T23:00:00Z", [True]),
        ("@2020-01-01T23:30:00-05:00 > @2020-01-02T04:00:00Z", [True]),
        ("@T10:30 < @T10:31", [True]),
        ("today() > @2020 and now() > @2020", [True]),
        ("1 + 2 * 3 - 4", [3]),
        ("7 div 2 + 7 mod 2", [4]),
        ("1 / 0", []),
        ("-(1)", [-1]),
        ("1.0 = 1", [True]),
        ("true and {}", []),
        ("false and {}", [False]),
        ("true or {}", [True]),
        ("{} implies true", [True]),
        ("false implies {}", [True]),
        ("true xor false", [True]),
        ("{} = 1", []),
        ("'ABC' ~ 'a' & 'bc'", [True]),
        ("4 'mg' < 5 'mg'", [True]),
        ("4 'mg' < 5 'g'", []),
        ("(1 | 2 | 3).where($this > 1)", [2, 3]),
        ("'12'.toInteger() + 1", [13]),
        ("1.50.toString()", ["1.50"]),
        ("text.`div`.exists()", [False]),
        ("name.trace('names').exists()", [True]),
        ("// a comment\nactive", [True]),
        ("'it\\'s \\u0041'", ["it's A"]),
    ],
)
def test_expressions_select_what_fhirpath_says(expression, expected):
    assert evaluate(expression, PATIENT) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("value is Quantity", [True]),
        ("(value as Quantity).code", ["mg"]),
        ("value.ofType(string)", []),
        ("value > 1 'mg'", [True]),
        ("value.value = 1.5", [True]),
        ("value.value.toString()", ["1.50"]),
        ("component.value.ofType(integer)", [3]),
        ("component.where(value is string).code.text", ["a"]),
        ("effective = issued", [True]),
        ("effective >= issued", [True]),
        ("status.memberOf('http://hl7.org/fhir/ValueSet/observation-status')", [True]),
        ("component.code.where(coding.intersect(%resource.code.coding).exists()).empty()", [True]),
    ],
)
def test_choices_quantities_and_times(expression, expected):
    assert evaluate(expression, OBSERVATION) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "name.",
        "name..given",
        "name given",
        "(name",
        "name[0",
        "'text",
        "name.nothing()",
        "name.where()",
        "name.where(a, b)",
        "value is Nothing",
        "value as System.Patient",
        "1 +",
        "name # given",
        "$that",
        "name.memberOf('http://example.org/unknown')",
        "name.given.single()",
        "'a' < 1",
        "name and true",
        "%unknown",
        "'a'.matches('(')",
        "name.family + 1",
        "'\\d'",
        "(" * 60 + "1" + ")" * 60,
        ".".join(["a"] * 400),
        "a" * 5000,
        "(1 | 2)[(1 | 2)]",
    ],
)
def test_what_is_not_understood_or_does_not_fit_is_refused_not_quietly_empty(expression):
    with pytest.raises(FhirPathError):
        evaluate(expression, PATIENT)


def test_selected_elements_know_their_place():
    found = select("name.given | multipleBirth", PATIENT)
    assert [node.location for node in found][:2] == [("name", 0, "given", 0), ("name", 0, "given", 1)]
    assert found[-1].location == ("multipleBirthInteger",)
    assert [node.path for node in found[:1]] == [".name[0].given[0]"]
    assert [node.path for node in select("multipleBirth", PATIENT)] == [".multipleBirth"]


def test_variables_and_inner_elements_can_be_the_context():
    (contact,) = select("contact", PATIENT)
    assert evaluate("name.family & %suffix", contact, suffix="-X") == ["Roe-X"]
    assert evaluate("%resource.id", contact) == ["p1"]


def test_a_peer_s_expression_cannot_hold_a_regular_expression():
    with pytest.raises(FhirPathError, match="regular"):
        compile_expression("name.where(family.matches('(a+)+$'))", trusted=False)


@pytest.mark.parametrize(
    "expression",
    [
        "name.given.select(%resource.name.given.select(%resource.name.given))",
        "name.given.where($this in %resource.name.given)",
        "name.given.select(%resource.name.given = %resource.name.given)",
        "name.given.select(%resource.descendants())",
        "'x'.repeat($this & $this)",
        "'x'.repeat($this + $this)",
        "'x'.repeat($this.replace('x', 'xxxxxxxxx'))",
        "1.repeat($this + 1)",
        "name.given.combine(name.given).repeat($this & 'x')",
    ],
)
def test_an_expression_that_takes_too_much_work_is_stopped_in_time(expression):
    wide = {"resourceType": "Patient", "name": [{"given": ["x"] * 1000}]}
    begin = time.monotonic()
    with pytest.raises(FhirPathError):
        evaluate(expression, wide, trusted=False)
    assert time.monotonic() - begin < 3


def test_numbers_do_not_grow_beyond_measure():
    assert evaluate("99999.repeat($this * $this).count() < 10", PATIENT) == [True]


@given(st.text("ab.()[]'`%$@ 01=<>|&+-{}\\/*\n", max_size=30))
def test_any_text_is_an_expression_or_is_refused(text):
    with suppress(FhirPathError):
        evaluate(text, PATIENT)


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("a1-:T", max_size=12) | st.decimals(0, 3, places=1),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["value", "code", "start", "extension", "url"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["name", "birthDate", "_birthDate", "contained", "telecom", "active"]), values))
def test_malformed_resources_are_no_trouble(elements):
    resource = {"resourceType": "Patient", **elements}
    for expression in ("descendants().count()", "birthDate < @2020", "name.family | telecom.value", "contained.id"):
        with suppress(FhirPathError):
            evaluate(expression, resource)
