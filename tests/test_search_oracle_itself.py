"""The oracle of the search tests, rule by rule: what R4's search page says, as a table of examples.

Sections are those of hl7.org/fhir/R4/search.html. Where the standard leaves a choice, the example shows ours.
"""

from decimal import Decimal
from typing import Any

import pytest

from tests.search_oracle import Oracle

BASE = "http://ris.example/fhir"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
GENDER = "http://hl7.org/fhir/administrative-gender"

Resource = dict[str, Any]


def matches(resource: Resource, name: str, text: str, *others: Resource) -> bool:
    """Whether the resource is among what a search with one parameter finds."""
    found = Oracle([{"id": "x", **resource}, *others], BASE).search(resource["resourceType"], [(name, text)])
    return resource.get("id", "x") in found


def check(resource: Resource, name: str, found: str, not_found: str) -> None:
    """Each of the searched values in `found` (between blanks) finds the resource, none of those in `not_found` does."""
    assert [text for text in found.split() if not matches(resource, name, text)] == []
    assert [text for text in not_found.split() if matches(resource, name, text)] == []


def concept(system: str | None = None, code: str | None = None, **more: str) -> Resource:
    coding = {k: v for k, v in (("system", system), ("code", code)) if v is not None}
    return {"coding": [coding], **more}


def observation(**elements: Any) -> Resource:
    return {"resourceType": "Observation", **elements}


def patient(**elements: Any) -> Resource:
    return {"resourceType": "Patient", **elements}


# Tokens, 3.1.1.4.10


def test_a_token_is_a_code_with_or_without_its_system() -> None:
    with_system = observation(code=concept("urn:a", "K1"))
    check(with_system, "code", "K1 urn:a|K1 urn:a| x,K1", "k1 K urn:b|K1 |K1 urn:b| urn:a|K2")
    check(observation(code=concept(None, "K1")), "code", "K1 |K1", "urn:a|K1 urn:a|")
    check(observation(code={"text": "K1"}), "code", "", "K1 |K1")


def test_every_coding_and_identifier_counts() -> None:
    two = observation(code={"coding": [{"system": "urn:a", "code": "1"}, {"system": "urn:b", "code": "2"}]})
    check(two, "code", "urn:a|1 urn:b|2", "urn:a|2 urn:b|1")
    check(patient(identifier=[{"value": "7"}, {"system": "urn:m", "value": "8"}]), "identifier", "7 |7 urn:m|8 urn:m|", "|8")


def test_a_code_element_has_the_system_that_its_value_set_gives_it() -> None:
    check(patient(gender="male"), "gender", f"male |male {GENDER}|male {GENDER}|", f"Male urn:a|male {GENDER}|female")
    check(patient(active=True), "active", "true", "false")
    assert matches(patient(telecom=[{"system": "phone", "value": "+43 1"}]), "phone", "+43 1")


def test_a_token_on_a_string_minds_no_case() -> None:
    check({"resourceType": "ValueSet", "version": "1.0-Beta"}, "version", "1.0-beta 1.0-BETA", "1.0")


def test_not_is_about_the_resource_as_a_whole() -> None:
    two = observation(category=[concept("urn:a", "1"), concept("urn:a", "2")])
    check(two, "category:not", "3 urn:b|1", "1 urn:a|2 3,2")
    check(observation(), "category:not", "1", "")


def test_text_looks_at_what_is_written_beside_a_code() -> None:
    coded = observation(code={"coding": [{"code": "1", "display": "Thorax  CT"}], "text": "Übersicht"})
    check(coded, "code:text", "ubers thorax THORAX", "ct 1 sicht")
    assert matches(coded, "code:text", "thorax ct")
    check(patient(identifier=[{"type": {"text": "Record"}, "value": "1"}]), "identifier:text", "rec", "1")


def test_of_type_takes_the_identifiers_type() -> None:
    typed = patient(identifier=[{"type": concept("urn:t", "MR"), "value": "5"}, {"type": concept("urn:t", "SS"), "value": "6"}])
    check(typed, "identifier:of-type", "urn:t|MR|5 urn:t|SS|6", "urn:t|MR|6 urn:u|MR|5 |MR|5")


def test_missing_is_about_the_element() -> None:
    assert matches(observation(code={"text": "x"}), "code:missing", "false")
    assert matches(observation(), "code:missing", "true")
    assert not matches(observation(code={"text": "x"}), "code:missing", "true")
    # An element with extensions only has no value (3.1.1.4.4).
    assert matches(patient(_gender={"extension": [{"url": "urn:x", "valueString": "y"}]}), "gender:missing", "true")
    # Another kind of subject is no patient.
    assert matches(observation(subject={"reference": "Device/1"}), "patient:missing", "true")


# Strings, 3.1.1.4.8


def test_a_string_is_met_by_its_beginning_without_case_and_accents() -> None:
    check(patient(name=[{"family": "Müller-Lüdenscheidt", "given": ["Äda"]}]), "name", "mull MÜLLER- ada x,ÄD luden", "uden da")
    assert matches(patient(name=[{"family": "De\t La  Cruz"}]), "family", "de la")
    check(patient(name=[{"use": "usual", "text": "Éva", "suffix": ["Dr."]}]), "name", "eva dr.", "usual")
    check(patient(address=[{"line": ["Ring 1"], "postalCode": "1010", "use": "home"}]), "address", "ring 101", "ing home")


def test_punctuation_is_ignored_and_a_name_is_met_from_each_of_its_words_on() -> None:
    check(patient(name=[{"family": "O'Brien-Smith"}]), "family", "obrien O'B o.brien-smith smith", "o'smith brien mith")
    double = patient(name=[{"family": "Carreño Quiñones", "given": ["Ana María"]}])
    check(double, "family", "carreno quinones QUIÑ", "ones arreno")
    assert matches(double, "family", "carreno quinones")
    check(double, "given", "ana maria", "aria")
    # Only persons have names that are looked for by a further word.
    organization = {"resourceType": "Organization", "name": "Example-Hospital, St. Sample"}
    check(organization, "name", "example examplehospital", "hospital sample")
    assert matches(patient(name=[{"family": "..."}]), "family", ".")


def test_exact_and_contains() -> None:
    name = patient(name=[{"given": ["Severine", "Éve"]}])
    check(name, "given:exact", "Severine Éve", "severine Eve Sever")
    check(name, "given:contains", "VERI eve ine", "x severinee")


# References, 3.1.1.4.12 and 3.1.1.4.13


def test_a_reference_by_id_type_and_url() -> None:
    local = observation(subject={"reference": "Patient/1"})
    check(local, "subject", f"1 Patient/1 {BASE}/Patient/1", "2 Device/1 Patient/12 http://other.example/Patient/1")
    check(local, "subject:Patient", "1", "2")
    check(local, "subject:Device", "", "1")
    check(observation(subject={"reference": f"{BASE}/Patient/1"}), "subject", f"1 Patient/1 {BASE}/Patient/1", "2")
    outside = "http://other.example/fhir/Patient/1"
    check(observation(subject={"reference": outside}), "subject", outside, "1 Patient/1")
    check(observation(subject={"reference": "Patient/1/_history/3"}), "subject", "1 Patient/1", "3")
    check(observation(subject={"reference": "Device/1"}), "patient", "", "1 Device/1")
    check(observation(subject={"reference": "#1"}), "subject", "", "1 Patient/1")


def test_identifier_is_the_logical_reference() -> None:
    logical = observation(subject={"identifier": {"system": "urn:m", "value": "9"}})
    check(logical, "subject:identifier", "9 urn:m|9 urn:m|", "|9 urn:n|9")
    check(logical, "subject", "", "9")


def test_a_canonical_is_found_with_its_version_and_without() -> None:
    order = {"resourceType": "ServiceRequest", "instantiatesCanonical": ["http://a.example/p|1.0"]}
    check(order, "instantiates-canonical", "http://a.example/p http://a.example/p|1.0", "http://a.example/p|1 http://a.example")
    order["instantiatesCanonical"] = ["http://a.example/p"]
    check(order, "instantiates-canonical", "http://a.example/p", "http://a.example/p|1.0")
    check(patient(meta={"profile": ["http://a.example/p|2"]}), "_profile", "http://a.example/p http://a.example/p|2", "http://a")


# URIs, 3.1.1.4.9


def test_uris_below_and_above() -> None:
    value_set = {"resourceType": "ValueSet", "url": "http://a.example/fhir/ValueSet/1"}
    check(value_set, "url", "http://a.example/fhir/ValueSet/1", "http://a.example/fhir/ValueSet http://A.example/fhir/ValueSet/1")
    found = "http://a.example/fhir http://a.example/fhir/ http://a.example/fhir/ValueSet/1"
    check(value_set, "url:below", found, "http://a.example/fhir/Value http://a.example/fhir/ValueSet/1/2")
    found = "http://a.example/fhir/ValueSet/1 http://a.example/fhir/ValueSet/1/_history/5"
    check(value_set, "url:above", found, "http://a.example/fhir/ValueSet/12 http://a.example/fhir")


# Dates, 3.1.1.4.7


def test_dates_of_a_day() -> None:
    day = patient(birthDate="2013-01-14")
    check(day, "birthdate", "2013-01-14 eq2013-01 2013", "2013-01-15 2013-01-14T10:00 2012")
    check(day, "birthdate", "ne2013-01-15 ne2013-01-14T10:00Z", "ne2013-01-14 ne2013")
    check(day, "birthdate", "gt2013-01-14T10:00 gt2013-01-13 gt2012", "gt2013-01-14 gt2013 gt2013-01-15")
    check(day, "birthdate", "lt2013-01-14T10:00 lt2013-01-15 lt2014", "lt2013-01-14 lt2013")
    check(day, "birthdate", "ge2013-01-14 ge2013 ge2013-01-14T23:58 ge2012-12-31", "ge2013-01-15 ge2014")
    check(day, "birthdate", "le2013-01-14 le2013 le2013-01-14T00:02 le2013-02", "le2013-01-13 le2012")
    check(day, "birthdate", "sa2013-01-13 sa2012 sa2013-01-13T23:59", "sa2013-01-14 sa2013-01-14T00:00 sa2013")
    check(day, "birthdate", "eb2013-01-15 eb2014 eb2013-02", "eb2013-01-14 eb2013 eb2013-01-14T12:00")


def test_the_standards_own_examples_of_periods() -> None:
    after_january, after_march = ({"start": "2013-01-21"}, {"start": "2013-03-15"})
    until_january = {"end": "2013-01-21"}
    for period, found, not_found in (
        (after_january, "ge2013-03-14 le2013-03-14 gt2020 ne2013", "sa2013-03-14 eb2013-03-14 eq2013 eb2013 lt2013-01-21"),
        (after_march, "sa2013-03-14", "eb2013-03-14 le2013-03-14"),
        (until_january, "eb2013-03-14 lt1000 le2013-01-20", "sa2013-03-14 gt2013-01-21"),
    ):
        check({"resourceType": "Encounter", "period": period}, "date", found, not_found)
    assert not matches({"resourceType": "Encounter", "period": {}}, "date", "ne2013")


def test_ge_is_above_or_wholly_within_as_the_standard_says_it() -> None:
    """R4 3.1.1.4.5: the range above the searched one overlaps the stored one, or the searched one fully contains it."""
    stay = {"resourceType": "Encounter", "period": {"start": "2013-01-10", "end": "2013-01-14"}}
    check(stay, "date", "ge2013-01-13 ge2013-01 gt2013-01-13 le2013-01-14 le2013-01-11", "ge2013-01-14 gt2013-01-14 le2013-01-10")


def test_zones_and_seconds() -> None:
    evening = observation(effectiveDateTime="2020-12-31T23:30:00-05:00")
    check(evening, "date", "2021-01-01 2021 2021-01-01T04:30 2021-01-01T05:30+01:00", "2020 2020-12-31 2021-01-01T04:30:01Z")
    second = observation(effectiveDateTime="2020-06-01T10:00:00Z")
    check(second, "date", "ge2020-06-01T10:00:00.5Z gt2020-06-01T10:00:00.5Z", "2020-06-01T10:00:00.0Z sa2020-06-01T10:00:00.0Z")


def test_an_instant_has_no_width() -> None:
    check(observation(effectiveInstant="2020-06-01T10:00:00Z"), "date", "2020-06-01T10:00:00.000Z", "gt2020-06-01T10:00:00.000Z")
    updated = patient(meta={"lastUpdated": "2020-06-01T10:00:00.123Z"})
    check(updated, "_lastUpdated", "2020-06-01T10:00:00.123Z 2020-06-01T10:00:00Z 2020-06", "2020-06-01T10:00:00.124Z")


def test_a_timing_is_its_outer_limits() -> None:
    timing = {"event": ["2013-01-31", "2013-03-24"], "repeat": {"boundsPeriod": {"start": "2013-02-01", "end": "2013-04"}}}
    timed = observation(effectiveTiming=timing)
    check(timed, "date", "2013 ge2013-04-29 lt2013-02", "2013-02-01 2013-01 lt2013-01-31 gt2013-04-30 sa2013-02")


def test_approximately_is_a_tenth_of_the_time_from_now() -> None:
    long_ago = patient(birthDate="1926-01-01")
    check(long_ago, "birthdate", "ap1926 ap1930 ap1920-05-05", "ap1960 ap1900 ap2020")


# Numbers, 3.1.1.4.6


def test_numbers_have_the_precision_they_are_written_with() -> None:
    def charge(factor: str) -> Resource:
        return {"resourceType": "ChargeItem", "factorOverride": Decimal(factor)}

    check(charge("99.5"), "factor-override", "100 1e2 99.5 995e-1 ne100.0 ne1.00e1", "100.00 ne100 99 1.0e1")
    check(charge("100.5"), "factor-override", "101 1e2", "100")
    check(charge("94.99"), "factor-override", "95 ne1e2", "1e2 ne95")
    check(charge("145"), "factor-override", "1.5e2", "1.50e2 1.6e2 1.4e2")
    check(charge("100.00"), "factor-override", "100 100.0000 ge100 le100 gt99.99 lt100.01", "gt100 lt100 sa100 eb100")
    check(charge("100"), "factor-override", "sa99.999 eb100.001 ap110 ap91 ap95", "sa100 eb100 ap112 ap90")
    check(charge("-3"), "factor-override", "-3 ap-3.2 lt-2 le-3 gt-4", "3 ap-3.4 ap3 gt-3 sa-3")
    check(charge("0"), "factor-override", "0 0.0 ap0 ne1", "ap0.1 ne0")


def test_a_range_is_within_or_overlaps() -> None:
    def risk(**ends: str) -> Resource:
        span = {end: {"value": Decimal(value)} for end, value in ends.items()}
        return {"resourceType": "RiskAssessment", "prediction": [{"probabilityRange": span}]}

    check(risk(low="2", high="4"), "probability", "gt3 lt3 ge4 le2 ne3 sa1.9 eb4.1 ap3 ap4.4 3e1,ne9", "3 gt4 lt2 sa2 eb4 ap5")
    check(risk(low="2"), "probability", "gt1000 ge2 le2 sa1 ap7", "lt2 sa2 eb9 ap1 eq2")
    check(risk(low="2.7", high="3.4"), "probability", "3", "3.0 ne3")


# Quantities, 3.1.1.4.11


def quantity(value: str, code: str | None = None, system: str | None = UCUM, **more: str) -> Resource:
    coded = {} if code is None else {"code": code, "system": system}
    return observation(valueQuantity={"value": Decimal(value), **coded, **more})


def test_a_quantity_with_and_without_its_unit() -> None:
    check(quantity("5.4", "mg"), "value-quantity", f"5.4 5 5.4||mg 5.4|{UCUM}|mg", f"5.4||g 5.4|urn:x|mg 5.4|{UCUM}|g 5.40||kg")
    check(quantity("5.4", None, unit="Stück"), "value-quantity", "5.4 5.4||Stück", f"5.4||stück 5.4|{UCUM}|Stück")
    check(quantity("5.4", "T", "urn:u"), "value-quantity", "5.4|urn:u|T", f"5.4|{UCUM}|T 5.4|urn:u|t")
    assert not matches(observation(valueQuantity={"unit": "mg"}), "value-quantity", "ne1")


def test_ucum_units_of_one_kind_are_converted() -> None:
    gram = quantity("1.5", "g")
    check(gram, "value-quantity", f"1500|{UCUM}|mg 1.5e3|{UCUM}|mg 0.0015|{UCUM}|kg le1500|{UCUM}|mg", f"1500||mg 1501|{UCUM}|mg")
    # The precision is that of the unit in the search: 2 g is [1.5 g, 2.5 g).
    check(gram, "value-quantity", f"2|{UCUM}|g ne1500.1|{UCUM}|mg", f"1|{UCUM}|g 1500|{UCUM}|mm gt1500|{UCUM}|mg")
    check(quantity("90", "min"), "value-quantity", f"1.5|{UCUM}|h 5400|{UCUM}|s", f"1.6|{UCUM}|h")
    check(quantity("90", "mg/dL"), "value-quantity", f"0.9|{UCUM}|g/L", f"9|{UCUM}|g/L 90|{UCUM}|mmol/L")


def test_a_comparator_opens_one_end() -> None:
    below = quantity("5", "mg", comparator="<")
    check(below, "value-quantity", "lt5 gt4.9 le1 eb5 ne5 ge4 ap5 lt1000", "gt5 ge5 sa1 5 ap6")
    check(quantity("5", comparator="<="), "value-quantity", "ge5 lt5 le5 eb5.1", "gt5 eb5 sa4")
    check(quantity("5", comparator=">"), "value-quantity", "gt5 gt1000 sa5 ge5", "lt5 le5 eb99 5")
    check(quantity("5", comparator=">="), "value-quantity", "le5 ge5 gt1000 sa4.9", "lt5 sa5 eb6")


def test_ranges_and_money_are_quantities() -> None:
    def in_context(**span: Any) -> Resource:
        return {"resourceType": "ValueSet", "useContext": [{"code": {"code": "age"}, "valueRange": span}]}

    centimetres = in_context(low={"value": 10, "system": UCUM, "code": "cm"}, high={"value": 20, "system": UCUM, "code": "cm"})
    check(
        centimetres, "context-quantity", f"gt19 le10 0.2e1,ge20 sa0.09|{UCUM}|m ge200|{UCUM}|mm", f"15 gt20||cm ge0.21|{UCUM}|m"
    )
    price = {"resourceType": "ChargeItem", "priceOverride": {"value": Decimal("9.90"), "currency": "EUR"}}
    check(price, "price-override", "9.90 9.9||EUR lt10|urn:iso:std:iso:4217|EUR", "9.9||USD 9.9|urn:iso:std:iso:4217|USD")


# Composites and combinations, 3.1.1.4.17 and 3.1.1.4.19


def test_a_composite_is_met_by_one_element() -> None:
    systolic = {"code": concept(LOINC, "8480-6"), "valueQuantity": {"value": 120, "system": UCUM, "code": "mm[Hg]"}}
    diastolic = {"code": concept(LOINC, "8462-4"), "valueQuantity": {"value": 80, "system": UCUM, "code": "mm[Hg]"}}
    pressure = observation(code=concept(LOINC, "85354-9"), component=[systolic, diastolic])
    check(pressure, "component-code-value-quantity", "8480-6$120 8462-4$lt90 9$9,8462-4$80", "8480-6$80 8462-4$gt90 8480-6")
    check(pressure, "combo-code-value-quantity", f"{LOINC}|8480-6$120|{UCUM}|mm[Hg]", "85354-9$120")
    text = observation(code=concept(LOINC, "1"), valueString="Größe: $5, |ok")
    check(text, "code-value-string", "1$grosse 1$große:,2$x", "2$grosse 1$5")
    assert matches(text, "code-value-string", r"1$größe: \$5\, \|ok")
    usage = {
        "resourceType": "ValueSet",
        "useContext": [{"code": {"code": "focus"}, "valueCodeableConcept": concept("urn:a", "1")}],
    }
    check(usage, "context-type-value", "focus$urn:a|1", "focus$2 age$1")


def test_commas_are_or_and_repetitions_are_and() -> None:
    oracle = Oracle([observation(id=i, code=concept(None, i), category=[concept(None, c) for c in i]) for i in ("a", "ab", "b")])
    assert oracle.search("Observation", [("code", "a,b")]) == ["a", "b"]
    assert oracle.search("Observation", [("category", "a"), ("category", "b")]) == ["ab"]
    assert oracle.search("Observation", [("category:not", "a,b")]) == []


def test_escapes() -> None:
    odd = patient(identifier=[{"system": "urn:a|b", "value": r"1,2$\3"}])
    check(odd, "identifier", r"1\,2\$\\3 urn:a\|b|1\,2\$\\3 1\,2$\\3", r"1,2 urn:a|b|1\,2\$\\3")


# Chains, 3.1.1.4.15 and 3.1.1.4.16, and the parameters of all types

HOSPITAL = {"resourceType": "Organization", "id": "o1", "name": "Spital", "partOf": {"reference": "Organization/o2"}}
HOLDING = {"resourceType": "Organization", "id": "o2", "name": "Verbund"}
ADA = patient(id="p1", name=[{"family": "Ada"}], managingOrganization={"reference": "Organization/o1"})
BEA = patient(id="p2", name=[{"family": "Bea"}])
OF_ADA = observation(id="x1", subject={"reference": "Patient/p1"}, status="final", code=concept(None, "c"))
OF_BEA = observation(id="x2", subject={"reference": "Patient/p2"}, status="final", code=concept(None, "d"))
OF_NOBODY = observation(id="x3", subject={"reference": "Patient/p9"}, status="final")
LIST = {
    "resourceType": "List",
    "id": "l",
    "entry": [{"item": {"reference": "Observation/x2"}}],
    "subject": {"reference": "Patient/p2"},
}
WORLD = Oracle([HOSPITAL, HOLDING, ADA, BEA, OF_ADA, OF_BEA, OF_NOBODY, LIST])


@pytest.mark.parametrize(
    ("resource_type", "name", "text", "found"),
    [
        ("Observation", "subject:Patient.name", "ada", "x1"),
        ("Observation", "patient.family:exact", "Bea", "x2"),
        ("Observation", "subject:Device.identifier", "1", ""),
        ("Observation", "patient.organization.name", "spital", "x1"),
        ("Observation", "patient.organization.partof.name", "verbund", "x1"),
        ("Observation", "patient.organization:missing", "true", "x2"),
        ("Observation", "patient.name", "nobody", ""),
        ("Observation", "_list", "l", "x2"),
        ("Patient", "_list", "l", ""),
        ("Observation", "_list", "m,l", "x2"),
        ("Patient", "_has:Observation:patient:code", "c,z", "p1"),
        ("Patient", "_has:Observation:subject:status", "final", "p1 p2"),
        ("Patient", "_has:Observation:subject:_list", "l", "p2"),
        ("Patient", "_has:Observation:subject:code:not", "c", "p2"),
        ("Organization", "_has:Patient:organization:_has:Observation:patient:code", "c", "o1"),
        ("Organization", "_has:Patient:organization:organization.name", "spital", "o1"),
        ("Organization", "_has:Organization:partof:_has:Patient:organization:family", "ada", "o2"),
        ("Observation", "subject:Patient._has:List:subject:_id", "l", "x2"),
        ("Observation", "_id", "x1,x9,x3", "x1 x3"),
        ("Observation", "_id", "X1", ""),
    ],
)
def test_chains(resource_type: str, name: str, text: str, found: str) -> None:
    assert " ".join(WORLD.search(resource_type, [(name, text)])) == found


def test_hierarchies() -> None:
    """3.1.1.4.14: c is part of b is part of a; and d and e of each other."""
    partof = {"a": None, "b": "a", "c": "b", "d": "e", "e": "d"}
    tree = [
        {"resourceType": "Organization", "id": i, **({"partOf": {"reference": f"Organization/{up}"}} if up else {})}
        for i, up in partof.items()
    ]
    oracle = Oracle(tree)
    assert oracle.search("Organization", [("partof:below", "a")]) == ["b", "c"]
    assert oracle.search("Organization", [("partof:below", "Organization/b")]) == ["c"]
    assert oracle.search("Organization", [("partof:above", "b")]) == ["b", "c"]
    assert oracle.search("Organization", [("partof:above", "d")]) == ["d", "e"]


def test_parameters_in_meta() -> None:
    meta = {
        "tag": [{"system": "urn:t", "code": "1"}],
        "security": [{"code": "R"}],
        "source": "urn:s",
        "profile": ["http://a.example/p"],
    }
    for name, text in (("_tag", "urn:t|1"), ("_security", "R"), ("_source", "urn:s"), ("_profile", "http://a.example/p")):
        assert matches(patient(meta=meta), name, text)
        assert not matches(patient(), name, text)


# Sorting, 3.1.1.5.1


def order(resources: list[Resource], sort: str) -> str:
    return "".join(Oracle(resources).search(resources[0]["resourceType"], [("_sort", sort)]))


def test_missing_values_are_last_both_ways_and_ties_go_by_id() -> None:
    people = [
        patient(id=i, **({"birthDate": d} if d else {})) for i, d in zip("dcba", ("2000", None, "1990", "2000"), strict=True)
    ]
    assert order(people, "birthdate") == "badc"
    assert order(people, "-birthdate") == "dabc"
    assert order(people, "") == order(people, "_id") == "abcd"
    assert order(people, "-_id") == "dcba"


def test_of_several_values_the_first_in_the_direction_counts() -> None:
    people = [patient(id="a", name=[{"given": ["Mia", "Ärna"]}]), patient(id="b", name=[{"given": ["bea"]}])]
    assert order(people, "given") == "ab"
    assert order(people, "-given") == "ab"
    stays = [{"resourceType": "Encounter", "id": "a", "period": {"start": "2020", "end": "2024"}}]
    stays += [{"resourceType": "Encounter", "id": "b", "period": {"start": "2021", "end": "2022"}}]
    stays += [{"resourceType": "Encounter", "id": "c", "period": {"end": "2019"}}]
    assert order(stays, "date") == "cab"
    assert order(stays, "-date") == "abc"


def test_several_keys() -> None:
    rows = (("a", "f", 2), ("b", "f", 10), ("c", "m", 1), ("d", "f", 2))
    charges = [{"resourceType": "ChargeItem", "id": i, "code": concept(None, c), "factorOverride": n} for i, c, n in rows]
    assert order(charges, "code,factor-override") == "adbc"
    assert order(charges, "-code,-factor-override") == "cbda"
    assert order(charges, "code,-factor-override") == "bdac"


def test_priority_is_urgency() -> None:
    rows = zip("abcd", ("stat", "asap", "urgent", "routine"), strict=True)
    assert order([{"resourceType": "Task", "id": i, "priority": p} for i, p in rows], "-priority") == "abcd"
