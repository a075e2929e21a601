"""Search by number, quantity, composite and place; modifiers; `_has`, lists, hierarchies, value sets; several types at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.store import Store
from tests.fhir_app import FhirApp, issues, outcome, patient, put, serving

Resource = dict[str, Any]
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, strict=False, rules=lambda _: None) as running:
        answer = running.bundle("transaction", *[put(r) for r in RESOURCES])
        assert answer.status_code == 200, answer.text
        yield running


def observation(id_: str, loinc: str, **elements: Any) -> Resource:
    about = {"status": "final", "code": {"coding": [{"system": LOINC, "code": loinc}]}, "subject": {"reference": "Patient/p1"}}
    return {"resourceType": "Observation", "id": id_, **about, **elements}


def quantity(value: float, code: str, **more: Any) -> Resource:
    return {"value": value, "unit": code, "system": UCUM, "code": code, **more}


def pressure(id_: str, systolic: int, diastolic: int) -> Resource:
    parts = [
        {"code": {"coding": [{"system": LOINC, "code": code}]}, "valueQuantity": quantity(value, "mm[Hg]")}
        for code, value in (("8480-6", systolic), ("8462-4", diastolic))
    ]
    return observation(id_, "85354-9", component=parts)


RESOURCES: list[Resource] = [
    patient(
        id="p1", name=[{"family": "Gründel", "given": ["Anna-Luise"]}], managingOrganization={"reference": "Organization/top"}
    ),
    patient(id="p2", name=[{"family": "Undine"}], managingOrganization={"reference": "Organization/below"}, gender="male"),
    patient(id="p3", name=[{"text": "x" * 350 + "needle" + "y" * 350}]),
    patient(
        id="p4",
        identifier=[
            {"type": {"coding": [{"system": "urn:t", "code": "MR"}], "text": "Record number"}, "system": "urn:s", "value": "77"}
        ],
        link=[{"other": {"reference": "Patient/p1"}, "type": "seealso"}],
    ),
    {"resourceType": "Organization", "id": "top", "name": "Top"},
    {"resourceType": "Organization", "id": "middle", "name": "Middle", "partOf": {"reference": "Organization/top"}},
    {"resourceType": "Organization", "id": "below", "name": "Below", "partOf": {"reference": "Organization/middle"}},
    observation("creatinine1", "2160-0", valueQuantity=quantity(1.2, "mg/dL")),
    observation("creatinine2", "2160-0", valueQuantity=quantity(12, "mg/L"), encounter={"reference": "Encounter/e1"}),
    observation("creatinine3", "2160-0", valueQuantity=quantity(5, "mg/dL", comparator=">")),
    observation("height", "8302-2", valueQuantity={"value": 180, "unit": "cm"}),
    pressure("pressure1", 120, 80),
    pressure("pressure2", 80, 120),
    observation(
        "finding", "18782-3", valueCodeableConcept={"coding": [{"system": "urn:c", "code": "ca", "display": "Carcinoma"}]}
    ),
    observation(
        "text", "18782-3", code={"text": "Chest X-ray"}, valueString="Kein Befund", encounter={"reference": "Encounter/e1"}
    ),
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "planned",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/p1"},
    },
    {
        "resourceType": "RiskAssessment",
        "id": "risk1",
        "status": "final",
        "subject": {"reference": "Patient/p1"},
        "prediction": [{"probabilityDecimal": 0.4}],
    },
    {
        "resourceType": "RiskAssessment",
        "id": "risk2",
        "status": "final",
        "subject": {"reference": "Patient/p2"},
        "prediction": [{"probabilityRange": {"low": quantity(20, "%"), "high": quantity(30, "%")}}],
    },
    {"resourceType": "Location", "id": "bonn", "position": {"latitude": 50.735, "longitude": 7.1}},
    {"resourceType": "Location", "id": "koeln", "position": {"latitude": 50.938, "longitude": 6.957}},
    {
        "resourceType": "List",
        "id": "l1",
        "status": "current",
        "mode": "working",
        "entry": [{"item": {"reference": "Patient/p2"}}],
    },
    {
        "resourceType": "CodeSystem",
        "id": "cs",
        "url": "urn:c",
        "status": "active",
        "content": "complete",
        "concept": [{"code": "neoplasm", "concept": [{"code": "ca", "concept": [{"code": "adeno"}]}, {"code": "benign"}]}],
    },
    {
        "resourceType": "ValueSet",
        "id": "vs",
        "url": "http://example.org/vs",
        "status": "active",
        "compose": {"include": [{"system": LOINC, "concept": [{"code": "2160-0"}]}, {"valueSet": ["http://example.org/other"]}]},
    },
    {
        "resourceType": "ValueSet",
        "id": "other",
        "url": "http://example.org/other",
        "status": "active",
        "compose": {
            "include": [{"system": LOINC, "concept": [{"code": "8302-2"}, {"code": "1-8"}]}],
            "exclude": [{"system": "urn:c"}],
        },
    },
    {
        "resourceType": "ValueSet",
        "id": "filtered",
        "url": "http://example.org/filtered",
        "status": "active",
        "compose": {"include": [{"system": LOINC, "filter": [{"property": "CLASS", "op": "=", "value": "CHEM"}]}]},
    },
]

CASES = [
    # number: implicit precision, prefixes
    ("RiskAssessment?probability=0.4", "risk1"),
    ("RiskAssessment?probability=0.40", "risk1"),
    ("RiskAssessment?probability=0.44", ""),
    ("RiskAssessment?probability=gt0.39", "risk1 risk2"),
    ("RiskAssessment?probability=ge0.4", "risk1 risk2"),
    ("RiskAssessment?probability=gt0.4", "risk2"),
    ("RiskAssessment?probability=ne0.4", "risk2"),
    ("RiskAssessment?probability=ne0.5", "risk1 risk2"),
    ("RiskAssessment?probability=ap0.43", "risk1"),
    ("RiskAssessment?probability=4e-1", "risk1"),
    ("RiskAssessment?probability=gt25", "risk2"),
    ("RiskAssessment?probability:missing=true", ""),
    # quantity: UCUM, units as text, comparators
    (f"Observation?value-quantity=1.2|{UCUM}|mg/dL", "creatinine1 creatinine2"),
    (f"Observation?value-quantity=0.012|{UCUM}|g/L", "creatinine1 creatinine2"),
    (f"Observation?value-quantity=gt4|{UCUM}|mg/dL", "creatinine3"),
    (f"Observation?value-quantity=lt4|{UCUM}|mg/dL", "creatinine1 creatinine2"),
    (f"Observation?value-quantity=gt100|{UCUM}|mm", ""),
    ("Observation?value-quantity=1.2", "creatinine1"),
    ("Observation?value-quantity=180||cm", "height"),
    ("Observation?value-quantity=180|urn:other|cm", ""),
    ("Observation?value-quantity=ap170||cm", "height"),
    (f"Observation?combo-value-quantity=gt100|{UCUM}|mm[Hg]", "pressure1 pressure2"),
    # composite: both parts in one element
    (f"Observation?component-code-value-quantity={LOINC}|8480-6$gt100", "pressure1"),
    (f"Observation?component-code-value-quantity=8462-4$gt100|{UCUM}|mm[Hg]", "pressure2"),
    (f"Observation?combo-code-value-quantity={LOINC}|8480-6$lt100", "pressure2"),
    ("Observation?code-value-quantity=2160-0$gt5", "creatinine2 creatinine3"),
    ("Observation?code-value-concept=18782-3$urn:c|ca", "finding"),
    ("Observation?code-value-concept=18782-3$urn:c|benign,18782-3$ca", "finding"),
    ("Observation?code-value-concept:missing=false", "finding"),
    # places
    ("Location?near=50.7|7.1|5|km", "bonn"),
    ("Location?near=50.7|7.1|40", "bonn koeln"),
    ("Location?near=50.7|7.1|100|m", ""),
    # modifiers
    ("Patient?name:contains=ndel", "p1"),
    ("Patient?name:contains=UND", "p1 p2"),
    ("Patient?name:contains=luise", "p1"),
    ("Patient?name:contains=needle", "p3"),
    ("Patient?name:contains=.*", ""),
    ("Patient?name:missing=true", "p4"),
    ("Patient?gender:missing=false", "p2"),
    ("Patient?birthdate:missing=false", ""),
    ("Patient?_id:missing=true", ""),
    ("Patient?identifier:of-type=urn:t|MR|77", "p4"),
    ("Patient?identifier:of-type=urn:t|MR|7", ""),
    ("Patient?identifier:text=record", "p4"),
    ("Observation?code:text=chest", "text"),
    ("Observation?value-concept:text=carc", "finding"),
    ("Observation?code:in=http://example.org/vs", "creatinine1 creatinine2 creatinine3 height"),
    ("Observation?code:in=ValueSet/other", "height"),
    ("Observation?code:not-in=http://example.org/vs", "finding pressure1 pressure2 text"),
    ("Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender", "p2"),
    ("Observation?value-concept:below=urn:c|neoplasm", "finding"),
    ("Observation?value-concept:above=urn:c|adeno", "finding"),
    ("Observation?value-concept:below=urn:c|benign", ""),
    ("Organization?partof:below=Organization/top", "below middle"),
    ("Organization?partof:below=middle", "below"),
    ("Organization?partof:above=Organization/middle", "below middle"),
    ("ValueSet?url:below=http://example.org", "filtered other vs"),
    ("ValueSet?url:above=http://example.org/vs/more", "vs"),
    ("ValueSet?url:below=http://example.org/v", ""),
    # chains and _has
    ("Patient?organization.partof.partof.name=top", "p2"),
    ("Patient?_has:Observation:patient:code=2160-0", "p1"),
    ("Patient?_has:Encounter:patient:_has:Observation:encounter:code=2160-0", "p1"),
    ("Patient?_has:Observation:patient:encounter:Encounter.status=planned", "p1"),
    ("Patient?_has:Observation:patient:code=nothing", ""),
    ("Patient?_has:Patient:link:identifier=77", "p1"),
    ("Encounter?_has:Observation:encounter:value-string=kein", "e1"),
    ("Patient?_list=l1", "p2"),
    ("Patient?_list=List/l1&name=gr", ""),
    ("Observation?_list=l1", ""),
    # order
    ("Patient?_sort=name", "p1 p2 p3 p4"),
    ("Patient?_sort=-name", "p3 p2 p1 p4"),
    ("Patient?_sort=gender,-_id", "p2 p4 p3 p1"),
    ("Patient?_sort=-identifier", "p4 p3 p2 p1"),
    ("Patient?_sort=organization", "p2 p1 p3 p4"),
    ("RiskAssessment?_sort=probability", "risk1 risk2"),
    ("RiskAssessment?_sort=-probability", "risk2 risk1"),
]


@pytest.mark.parametrize(("query", "expected"), CASES)
def test_a_search_finds_what_it_means(app: FhirApp, query: str, expected: str) -> None:
    found = app.ids(query)
    assert " ".join(found if "_sort" in query else sorted(found)) == expected
    pages = [id_ for page in app.pages(f"{query}&_count=1") for id_ in page]
    assert pages == found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Observation?code=85354-9&_include=*", "Patient/p1"),
        ("Observation?_id=text&_include=Observation:*", "Encounter/e1 Patient/p1"),
        (
            "Patient?_id=p2&_include=Patient:organization&_include:iterate=Organization:partof",
            "Organization/below Organization/middle Organization/top",
        ),
        ("Patient?_id=p2&_include=Patient:organization", "Organization/below"),
        ("Patient?_id=p2&_revinclude=*", "RiskAssessment/risk2 List/l1"),
        ("Organization?_id=top&_revinclude:iterate=Organization:partof", "Organization/below Organization/middle"),
        (
            "Organization?_id=top&_revinclude=Patient:organization&_revinclude:iterate=RiskAssessment:patient",
            "Patient/p1 RiskAssessment/risk1",
        ),
    ],
)
def test_includes(app: FhirApp, query: str, expected: str) -> None:
    entries = app.search(query)["entry"]
    found = [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries if e["search"]["mode"] == "include"]
    assert sorted(found) == sorted(expected.split())


def test_includes_beyond_the_token_are_left_out_and_said(app: FhirApp) -> None:
    scope = "system/Observation.rs"
    entries = app.send("GET", "Observation?_id=text&_include=Observation:patient", scope=scope).json()["entry"]
    assert [e["search"]["mode"] for e in entries] == ["match", "outcome"]
    assert "Patient" in entries[1]["resource"]["issue"][0]["diagnostics"]
    assert app.send("GET", "Observation?patient.name=x", scope=scope).status_code == 403
    assert app.send("GET", "Observation?_has:Provenance:target:_id=x", scope=scope).status_code == 403
    assert app.send("GET", "Observation?code:in=http://example.org/vs", scope=scope).status_code == 403
    assert app.send("GET", "Observation?_list=l1", scope=scope).status_code == 403


def test_a_value_set_that_cannot_be_worked_out_is_refused(app: FhirApp) -> None:
    answer = app.get("Observation?code:in=http://example.org/filtered")
    assert (answer.status_code, issues(answer)[0][0]) == (400, "not-supported")
    assert "filters" in outcome(answer)["issue"][0]["diagnostics"]


def test_what_is_not_understood_is_ignored_and_named_where_lenience_is_asked_for(app: FhirApp) -> None:
    answer = app.get("Patient?name=und&nonsense=1&gender:exact=male", prefer="handling=lenient")
    entries = answer.json()["entry"]
    assert [e["search"]["mode"] for e in entries] == ["match", "outcome"]
    said = " ".join(i["diagnostics"] for i in entries[1]["resource"]["issue"])
    assert "nonsense" in said
    assert ":exact" in said
    assert "nonsense" not in answer.json()["link"][0]["url"]
    assert app.get("Patient?birthdate=nonsense", prefer="handling=lenient").status_code == 400


def test_the_plan_of_a_search_is_shown(app: FhirApp) -> None:
    entries = app.search("Patient?name=und&_explain=true")["entry"]
    said = next(e["resource"] for e in entries if e["search"]["mode"] == "outcome")
    assert "search.t_1__id_1" in str(said)


# Several types


def references(app: FhirApp, query: str) -> list[str]:
    return [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in app.search(query).get("entry", ())]


def walk(app: FhirApp, query: str) -> list[str]:
    """All pages, one after the other."""
    found: list[str] = []
    url: str | None = query
    while url:
        bundle = app.search(url)
        found += [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle.get("entry", ())]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
    return found


def test_several_types_are_searched_at_once(app: FhirApp) -> None:
    both = "?_type=Patient,Location&_count=2"
    everyone = ["Location/bonn", "Location/koeln", "Patient/p1", "Patient/p2", "Patient/p3", "Patient/p4"]
    assert walk(app, both) == everyone
    ordered = walk(app, f"{both}&_sort=-_lastUpdated")
    assert sorted(ordered) == everyone
    assert walk(app, "?_id=p1,bonn") == ["Location/bonn", "Patient/p1"]
    assert app.search("?_type=Patient,Location&_total=accurate&_count=1")["total"] == 6
    assert app.get("?_type=Patient,Nonsense").status_code == 400
    assert app.get("?_type=Patient&name=x").status_code == 200
    assert app.get("?_type=Patient,Location&gender=male").status_code == 400


def test_a_compartment_holds_its_own_and_nothing_else(app: FhirApp) -> None:
    assert references(app, "Patient/p2/RiskAssessment") == ["RiskAssessment/risk2"]
    assert references(app, "Patient/p1/Observation?code=85354-9") == ["Observation/pressure1", "Observation/pressure2"]
    assert references(app, "Encounter/e1/Observation") == ["Observation/creatinine2", "Observation/text"]
    assert walk(app, "Patient/p2/*?_type=List,Patient,RiskAssessment&_count=1") == ["Patient/p2", "RiskAssessment/risk2"]
    for wrong in ("Patient/p1/Location", "Organization/top/Patient", "Patient/p1/Nonsense"):
        assert app.get(wrong).status_code in {400, 404}, wrong


def test_what_an_earlier_version_stored_is_indexed_anew(app: FhirApp) -> None:
    async def as_it_was() -> None:
        await app.db["Location"].update_many({}, {"$unset": {"search.g": ""}})
        await app.db["catalog"].update_one({"_id": "Location"}, {"$set": {"version": 1}})

    app.run(as_it_was())
    assert app.ids("Location?near=50.7|7.1|40") == []
    app.run(Store(app.db).ensure("Location"))
    assert app.ids("Location?near=50.7|7.1|40") == ["bonn", "koeln"]
