"""S-01 to S-10: what the authorization server says of itself, from outside (SMART App Launch 2.2 "Conformance", OpenID Connect
Discovery, RFC 8414), and that it is so.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from capability.smart_configuration import SCOPES
from smart_auth.granting import BACKEND, PEOPLE, grant
from tests.smart_app import SmartApp

CONFIGURATION = "/fhir/.well-known/smart-configuration"
OPENID = "/.well-known/openid-configuration"
RFC_8414 = "/.well-known/oauth-authorization-server"
ORIGIN = {"Origin": "https://anywhere.example"}


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def configuration(server: SmartApp) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(server.base + CONFIGURATION).json()
    return found


@pytest.mark.parametrize("accept", [None, "application/json", "text/html", "application/fhir+xml"])
def test_s01_discovery_is_json_without_a_token_whatever_is_accepted(server: SmartApp, accept: str | None) -> None:
    for path in (CONFIGURATION, OPENID, RFC_8414, "/oauth/jwks"):
        answer = httpx.get(server.base + path, headers={"Accept": accept} if accept else {})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()


def test_s02_every_url_is_absolute_and_answers(server: SmartApp, configuration: dict[str, Any]) -> None:
    urls = {name: value for name, value in configuration.items() if name.endswith(("_endpoint", "_uri"))}
    assert set(urls) == {
        "authorization_endpoint", "token_endpoint", "revocation_endpoint", "introspection_endpoint", "jwks_uri",
        "management_endpoint",
    }  # fmt: skip
    for url in urls.values():
        assert url.startswith(f"{server.base}/")
        assert httpx.get(url).status_code != 404


def test_s03_the_required_fields_are_there(configuration: dict[str, Any]) -> None:
    assert set(configuration["grant_types_supported"]) == {"authorization_code", "client_credentials", "refresh_token"}
    assert configuration["code_challenge_methods_supported"] == ["S256"]
    assert configuration["response_types_supported"] == ["code"]
    assert configuration["token_endpoint_auth_methods_supported"] == [
        "private_key_jwt", "client_secret_basic", "client_secret_post"
    ]  # fmt: skip
    assert set(configuration["token_endpoint_auth_signing_alg_values_supported"]) == {"RS384", "ES384"}


def test_s04_the_capabilities_are_those_of_smart_but_app_state(configuration: dict[str, Any]) -> None:
    assert set(configuration["capabilities"]) == {
        "launch-ehr", "launch-standalone", "authorize-post", "client-public", "client-confidential-symmetric",
        "client-confidential-asymmetric", "sso-openid-connect", "context-banner", "context-style", "context-ehr-patient",
        "context-ehr-encounter", "context-standalone-patient", "context-standalone-encounter", "permission-offline",
        "permission-online", "permission-patient", "permission-user", "permission-v1", "permission-v2",
    }  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
def test_s05_each_scope_that_is_advertised_can_be_granted(scope: str) -> None:
    assert grant(scope, scope, BACKEND if scope.startswith("system/") else PEOPLE) == [scope]


@pytest.mark.parametrize("path", [CONFIGURATION, "/fhir/metadata", OPENID, "/oauth/jwks"])
def test_s06_scripts_of_any_origin_may_read_it_also_after_a_preflight(server: SmartApp, path: str) -> None:
    assert httpx.get(server.base + path, headers=ORIGIN).headers["access-control-allow-origin"] == "*"
    asking = {**ORIGIN, "Access-Control-Request-Method": "GET"}
    assert httpx.options(server.base + path, headers=asking).headers["access-control-allow-origin"] == "*"


def test_s07_the_openid_configuration_is_under_the_issuer_and_complete(server: SmartApp, configuration: dict[str, Any]) -> None:
    document = httpx.get(configuration["issuer"] + OPENID).json()
    assert document["issuer"] == configuration["issuer"] == server.base
    required = {"authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported", "subject_types_supported"}
    assert required <= set(document)
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    assert document["authorization_response_iss_parameter_supported"] is True


def test_s08_all_documents_agree(server: SmartApp, configuration: dict[str, Any]) -> None:
    documents = [httpx.get(server.base + path).json() for path in (OPENID, RFC_8414)]
    for document in documents:
        for name in set(document) & set(configuration) - {"token_endpoint_auth_methods_supported"}:
            assert document[name] == configuration[name], name
        assert document["token_endpoint_auth_methods_supported"] == [
            *configuration["token_endpoint_auth_methods_supported"], "none"
        ]  # fmt: skip


def test_s09_the_capability_statement_names_the_same_endpoints(server: SmartApp, configuration: dict[str, Any]) -> None:
    security = httpx.get(f"{server.fhir}/metadata").json()["rest"][0]["security"]
    extension = next(e for e in security["extension"] if e["url"].endswith("/oauth-uris"))
    found = {e["url"]: e["valueUri"] for e in extension["extension"]}
    assert found == {
        "authorize": configuration["authorization_endpoint"],
        "token": configuration["token_endpoint"],
        "introspect": configuration["introspection_endpoint"],
        "revoke": configuration["revocation_endpoint"],
        "manage": configuration["management_endpoint"],
    }


def test_s10_the_key_set_has_public_members_only(server: SmartApp) -> None:
    keys = httpx.get(f"{server.base}/oauth/jwks").json()["keys"]
    assert {key["kty"] for key in keys} == {"RSA", "EC"}
    for key in keys:
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key)
        assert key["use"] == "sig"
        assert key["kid"]
    assert httpx.get(f"{server.base}/oauth/jwks").headers["cache-control"] == "public, max-age=3600"
