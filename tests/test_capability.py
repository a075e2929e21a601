"""What the CapabilityStatement declares is what the server does, and the other way round."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from capability.statement import JSON_PATCH, capability_statement, terminology_capabilities
from fhir_server import definitions
from fhir_server.definitions import OWN, RESOURCE_TYPES, search_parameters
from fhir_server.operations import Operation
from fhir_server.registry import Registry
from fhir_server.search.index import searchable, targets
from fhir_server.validation import validate
from tests.fhir_app import FhirApp, entry, load, outcome, patient, put, serving

VALUES = {
    "token": "x",
    "string": "x",
    "uri": "urn:x",
    "date": "2026",
    "number": "1",
    "quantity": "5.4",
    "special": "48.2|16.4|10|km",
}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False) as running:
        observation = {"resourceType": "Observation", "id": "a", "status": "final", "code": {"text": "x"}}
        answer = running.bundle("transaction", put(patient(id="a")), put(observation | {"subject": {"reference": "Patient/a"}}))
        assert answer.status_code == 200, answer.text
        yield running


@pytest.fixture(scope="module")
def statement(app: FhirApp) -> dict[str, Any]:
    return load(app.send("GET", "metadata", scope=None))


@pytest.fixture(scope="module")
def rest(statement: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = statement["rest"][0]
    return found


def value(resource_type: str, name: str, kind: str) -> str:
    """Something that fits a search parameter."""
    if kind == "reference":
        leads_to = targets(resource_type, name)
        return f"{leads_to[0]}/x" if leads_to else "urn:x"
    if kind == "composite":
        parts = [part for part, _ in search_parameters(resource_type)[name].components]
        return "$".join(value(resource_type, part, search_parameters(resource_type)[part].type) for part in parts)
    return VALUES[kind]


def search(app: FhirApp, path: str, parameters: list[tuple[str, str]]) -> Any:
    return app.send("POST", f"{path}_search", urlencode(parameters).encode(), **FORM)


def test_the_statement_is_valid_r4_and_says_so(statement: dict[str, Any], rest: dict[str, Any]) -> None:
    assert validate(statement) == []
    assert statement["fhirVersion"] == "4.0.1"
    assert {r["type"] for r in rest["resource"]} == RESOURCE_TYPES


def test_the_addresses_are_those_that_the_outside_world_uses() -> None:
    made = capability_statement("https://ris.example", "1", "2026-01-01T00:00:00Z", Registry())
    assert made["implementation"]["url"] == "https://ris.example/fhir"
    assert "https://ris.example/oauth/token" in json.dumps(made["rest"][0]["security"])


def test_what_is_said_of_terminology_is_valid_r4(app: FhirApp) -> None:
    made = terminology_capabilities("https://ris.example", "1", "2026-01-01T00:00:00Z")
    assert validate(made) == []
    assert load(app.send("GET", "metadata?mode=terminology", scope=None))["resourceType"] == "TerminologyCapabilities"


# Search


def test_every_declared_parameter_is_understood(app: FhirApp, rest: dict[str, Any]) -> None:
    for resource in rest["resource"]:
        asked = [(p["name"], value(resource["type"], p["name"], p["type"])) for p in resource["searchParam"]]
        answer = search(app, f"{resource['type']}/", [*asked, ("_summary", "count")])
        assert answer.status_code == 200, (resource["type"], answer.text)
        assert {p["name"]: p["type"] for p in resource["searchParam"]} == searchable(resource["type"])
        own = {p["name"] for p in resource["searchParam"] if p["definition"].startswith("urn:fhir-ris:SearchParameter/")}
        assert own == OWN.get(resource["type"], {}).keys()
        others = [p["definition"] for p in resource["searchParam"] if p["name"] not in own]
        assert all(d.startswith("http://hl7.org/fhir/SearchParameter/") for d in others)


@pytest.mark.parametrize(
    "resource_type", ["Observation", "Patient", "ServiceRequest", "ImagingStudy", "Location", "RiskAssessment"]
)
def test_each_parameter_is_understood_by_itself(app: FhirApp, resource_type: str) -> None:
    for name, kind in searchable(resource_type).items():
        answer = search(app, f"{resource_type}/", [(name, value(resource_type, name, kind)), ("_count", "1")])
        assert answer.status_code == 200, (name, answer.text)


def test_what_is_not_declared_is_refused(app: FhirApp, rest: dict[str, Any]) -> None:
    for resource in rest["resource"]:
        unknown = (
            search_parameters(resource["type"]).keys()
            - {p["name"] for p in resource["searchParam"]}
            - {"_text", "_content", "_query"}
        )
        for name in [*sorted(unknown), "colour"]:
            answer = search(app, f"{resource['type']}/", [(name, "x")])
            assert answer.status_code == 400, (resource["type"], name)
            assert "no search parameter" in answer.text, (resource["type"], name)


def test_every_declared_include_is_understood(app: FhirApp, rest: dict[str, Any]) -> None:
    for resource in rest["resource"]:
        for name, declared in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
            asked = [(name, include) for include in resource[declared]]
            answer = search(app, f"{resource['type']}/", [*asked, ("_id", "nobody")])
            assert answer.status_code == 200, (resource["type"], answer.text)


def test_includes_bring_what_they_say(app: FhirApp, rest: dict[str, Any]) -> None:
    by_type = {r["type"]: r for r in rest["resource"]}
    cases = {
        ("Observation", "_include", "searchInclude"): "Patient",
        ("Patient", "_revinclude", "searchRevInclude"): "Observation",
    }
    for (resource_type, name, declared), brought in cases.items():
        for asked in ([i for i in by_type[resource_type][declared] if i != "*"], ["*"]):
            found = load(search(app, f"{resource_type}/", [*((name, i) for i in asked), ("_id", "a")]))
            assert brought in {e["resource"]["resourceType"] for e in found["entry"] if e["search"]["mode"] == "include"}


def test_an_include_that_leads_nowhere_is_neither_declared_nor_taken(app: FhirApp, rest: dict[str, Any]) -> None:
    by_type = {r["type"]: r for r in rest["resource"]}
    assert "Observation:patient" not in by_type["Organization"]["searchRevInclude"]
    assert app.get("Organization?_revinclude=Observation:patient").status_code == 400


def test_what_all_types_share_searches_them_together(app: FhirApp, rest: dict[str, Any]) -> None:
    asked = [(p["name"], VALUES[p["type"]]) for p in rest["searchParam"]]
    assert {"_id", "_lastUpdated", "_tag"} <= {name for name, _ in asked}
    answer = search(app, "", [*asked, ("_type", "Patient,Observation")])
    assert answer.status_code == 200, answer.text


def test_every_declared_compartment_can_be_searched(app: FhirApp, rest: dict[str, Any]) -> None:
    declared = {url.rpartition("/")[2] for url in rest["compartment"]}
    assert declared == {"patient", "encounter", "practitioner", "device", "relatedPerson"}
    for name in declared:
        compartment = f"{name[0].upper()}{name[1:]}"
        for resource_type in definitions.compartment(compartment):
            assert app.get(f"{compartment}/a/{resource_type}?_count=1").status_code == 200, (name, resource_type)
    assert app.get("Patient/a/Medication").status_code == 404
    assert app.get("Organization/a/Observation").status_code == 404


# Interactions


def test_every_declared_interaction_works_on_every_type_and_no_other_is_there(app: FhirApp, rest: dict[str, Any]) -> None:
    requests = {
        "create": ("POST", "Basic", {"resourceType": "Basic", "code": {"text": "x"}}),
        "update": ("PUT", "Basic/b", {"resourceType": "Basic", "id": "b", "code": {"text": "x"}}),
        "read": ("GET", "Basic/b", None),
        "vread": ("GET", "Basic/b/_history/1", None),
        "history-instance": ("GET", "Basic/b/_history", None),
        "history-type": ("GET", "Basic/_history", None),
        "search-type": ("GET", "Basic", None),
        "patch": ("PATCH", "Basic/b", b'[{"op": "replace", "path": "/code/text", "value": "y"}]'),
        "delete": ("DELETE", "Basic/b", None),
    }
    for code, (method, path, body) in requests.items():
        answer = app.send(method, path, body, **({"Content_Type": JSON_PATCH} if code == "patch" else {}))
        assert answer.status_code in {200, 201, 204}, (code, answer.text)
    declared = {r["type"]: [i["code"] for i in r["interaction"]] for r in rest["resource"]}
    assert all(set(codes) == set(requests) for codes in declared.values())
    for resource_type in declared:
        assert app.get(f"{resource_type}?_count=0").status_code == 200
        assert app.get(f"{resource_type}/nobody").status_code == 404


def test_the_interactions_of_the_whole_system_work(app: FhirApp, rest: dict[str, Any]) -> None:
    assert {i["code"] for i in rest["interaction"]} == {"transaction", "batch", "search-system", "history-system"}
    for kind in ("transaction", "batch"):
        assert app.bundle(kind, entry("GET", "Patient/a")).status_code == 200
    assert app.get("_history?_count=1").status_code == 200
    assert app.get("?_type=Patient&_count=1").status_code == 200


def test_conditional_interactions_work_as_declared(app: FhirApp, rest: dict[str, Any]) -> None:
    for resource in rest["resource"]:
        declared = {k: v for k, v in resource.items() if k.startswith("conditional")}
        assert declared == {
            "conditionalCreate": True,
            "conditionalRead": "full-support",
            "conditionalUpdate": True,
            "conditionalDelete": "multiple",
        }
    one = patient(identifier=[{"system": "urn:x", "value": "conditional"}])
    query = "identifier=urn:x|conditional"
    assert [app.send("POST", "Patient", one, If_None_Exist=query).status_code for _ in range(2)] == [201, 200]
    assert app.send("PUT", f"Patient?{query}", one | {"gender": "female"}).status_code == 200
    (id_,) = app.ids(f"Patient?{query}")
    read = app.get(f"Patient/{id_}")
    assert app.get(f"Patient/{id_}", If_None_Match=read.headers["etag"]).status_code == 304
    assert app.get(f"Patient/{id_}", If_Modified_Since=read.headers["last-modified"]).status_code == 304
    app.create(one)
    assert app.send("DELETE", f"Patient?{query}").status_code == 412, "one by default"
    assert app.send("DELETE", f"Patient?{query}&_count=10").status_code == 200
    assert app.ids(f"Patient?{query}") == []


def test_versions_and_references_are_kept_as_declared(app: FhirApp, rest: dict[str, Any]) -> None:
    assert {r["versioning"] for r in rest["resource"]} == {"versioned-update"}
    assert app.put(patient(id="v")).status_code == 201, "updateCreate"
    assert app.put(patient(id="v", gender="male"), If_Match='W/"7"').status_code == 412
    assert all(r["referencePolicy"] == ["literal", "logical", "enforced"] for r in rest["resource"])
    lost = patient(managingOrganization={"reference": "Organization/nowhere"})
    logical = patient(managingOrganization={"identifier": {"value": "x"}})
    elsewhere = patient(managingOrganization={"reference": "https://elsewhere.example/fhir/Organization/1"})
    assert [app.send("POST", "Patient", p).status_code for p in (lost, logical, elsewhere)] == [422, 201, 201]


def test_every_declared_patch_format_is_taken(app: FhirApp, statement: dict[str, Any]) -> None:
    app.put(patient(id="patched", gender="male"))
    parts = [("type", "valueCode", "replace"), ("path", "valueString", "Patient.gender"), ("value", "valueCode", "female")]
    operation = {"name": "operation", "part": [{"name": n, k: v} for n, k, v in parts]}
    bodies: dict[str, Any] = {
        JSON_PATCH: b'[{"op": "replace", "path": "/gender", "value": "other"}]',
        "application/fhir+json": {"resourceType": "Parameters", "parameter": [operation]},
    }
    assert set(statement["patchFormat"]) == set(bodies)
    for content_type, body in bodies.items():
        answer = app.send("PATCH", "Patient/patched", body, Content_Type=content_type)
        assert answer.status_code == 200, answer.text


def test_every_declared_format_is_given(app: FhirApp, statement: dict[str, Any]) -> None:
    for name in statement["format"]:
        assert app.send("GET", "Patient/a", Accept=name).status_code == 200
    assert app.send("GET", "Patient/a", Accept="application/fhir+xml").status_code == 406


def test_scripts_of_other_origins_may_ask(app: FhirApp, rest: dict[str, Any]) -> None:
    assert rest["security"]["cors"] is True
    origin = {"Origin": "https://app.example", "Access_Control_Request_Method": "GET"}
    answer = app.send("OPTIONS", "Patient/a", scope=None, **origin)
    assert answer.headers["access-control-allow-origin"] in {"*", "https://app.example"}


# Operations


def test_every_declared_operation_answers(app: FhirApp, rest: dict[str, Any]) -> None:
    called = 0
    for resource in rest["resource"]:
        for operation in resource.get("operation", ()):
            known = ("http://hl7.org/fhir/OperationDefinition/", "https://profiles.ihe.net/", "urn:fhir-ris:")
            assert operation["definition"].startswith(known)
            of_type = [o for o in app.registry.operations[operation["name"]] if not o.types or resource["type"] in o.types]
            level = "" if any("type" in o.levels for o in of_type) else "/nobody"
            answer = app.send("POST", f"{resource['type']}{level}/${operation['name']}", {"resourceType": resource["type"]})
            if answer.status_code != 200:
                assert {i["code"] for i in outcome(answer)["issue"]}.isdisjoint({"not-supported", "exception"}), answer.text
            called += 1
    assert called > 4 * len(RESOURCE_TYPES)


def test_an_operation_is_declared_where_it_is_registered() -> None:
    async def run(_call: Any) -> Any:
        raise AssertionError

    registry = Registry()
    registry.operation(Operation("hello", "urn:x:hello", frozenset({"system", "instance"}), run, frozenset({"Patient"})))
    made = capability_statement("https://ris.example", "1", "2026-01-01T00:00:00Z", registry)["rest"][0]
    hello = [{"name": "hello", "definition": "urn:x:hello"}]
    assert made["operation"] == hello
    assert {r["type"]: r["operation"] for r in made["resource"] if "operation" in r} == {"Patient": hello}


def test_an_operation_that_is_not_declared_is_not_there(app: FhirApp, rest: dict[str, Any]) -> None:
    declared = {o["name"] for part in (rest, *rest["resource"]) for o in part.get("operation", ())}
    assert declared == set(app.registry.operations)
    for path in ("$everything", "Observation/$everything", "Patient/$meta", "Patient/a/$expand"):
        assert app.get(path).status_code == 404
