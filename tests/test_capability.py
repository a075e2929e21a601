"""What the CapabilityStatement declares is what the server does, and the other way round."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from capability.statement import capability_statement
from fhir_server.definitions import RESOURCE_TYPES, search_parameters
from fhir_server.outcome import FhirError
from fhir_server.search.query import compile_query
from fhir_server.validation import validate
from tests.fhir_app import FhirApp, patient, serving

VALUES = {"token": "x", "reference": "Patient/x", "string": "x", "uri": "urn:x", "date": "2026"}


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False) as running:
        yield running


@pytest.fixture(scope="module")
def statement() -> dict[str, Any]:
    return capability_statement("https://ris.example", "1", "2026-01-01T00:00:00Z")


def test_the_statement_is_valid_r4_and_says_so(statement: dict[str, Any]) -> None:
    assert validate(json.loads(json.dumps(statement))) == []
    assert statement["fhirVersion"] == "4.0.1"
    assert {r["type"] for r in statement["rest"][0]["resource"]} == RESOURCE_TYPES


def test_every_declared_parameter_is_understood(statement: dict[str, Any]) -> None:
    for resource in statement["rest"][0]["resource"]:
        for parameter in resource["searchParam"]:
            assert compile_query(resource["type"], [(parameter["name"], VALUES[parameter["type"]])]).filter
            assert parameter["definition"].startswith("http://hl7.org/fhir/SearchParameter/")
        for include in resource.get("searchInclude", ()):
            assert compile_query(resource["type"], [("_include", include)]).includes


def test_what_is_not_declared_is_refused(statement: dict[str, Any]) -> None:
    for resource in statement["rest"][0]["resource"]:
        for name in search_parameters(resource["type"]).keys() - {p["name"] for p in resource["searchParam"]}:
            with pytest.raises(FhirError, match="has no search parameter"):
                compile_query(resource["type"], [(name, "x")])


def test_every_declared_interaction_works_and_no_other(app: FhirApp, statement: dict[str, Any]) -> None:
    declared = {i["code"] for r in statement["rest"][0]["resource"] for i in r["interaction"]}
    requests = {
        "create": ("POST", "Patient", patient()),
        "update": ("PUT", "Patient/a", patient(id="a")),
        "read": ("GET", "Patient/a", None),
        "vread": ("GET", "Patient/a/_history/1", None),
        "history-instance": ("GET", "Patient/a/_history", None),
        "search-type": ("GET", "Patient", None),
        "delete": ("DELETE", "Patient/a", None),
        "patch": ("PATCH", "Patient/a", patient(id="a")),
        "history-type": ("GET", "Patient/_history", None),
    }
    for code, (method, path, body) in requests.items():
        assert (app.send(method, path, body).status_code < 300) is (code in declared), code
    assert {i["code"] for i in statement["rest"][0]["interaction"]} == {"transaction", "batch"}
    for kind in ("transaction", "batch"):
        assert app.bundle(kind).status_code == 200


def test_the_addresses_are_those_that_the_outside_world_uses(statement: dict[str, Any]) -> None:
    assert statement["implementation"]["url"] == "https://ris.example/fhir"
    assert "https://ris.example/oauth/token" in json.dumps(statement["rest"][0]["security"])
