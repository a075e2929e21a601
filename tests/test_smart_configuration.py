"""The SMART configuration document, by the rules of SMART App Launch 2.2 ("Conformance")."""

from capability.smart_configuration import smart_configuration
from smart_auth.scopes import grant

DOCUMENT = smart_configuration("https://ris.example")


def test_the_endpoints_are_absolute_and_under_the_base_url() -> None:
    assert DOCUMENT["token_endpoint"] == "https://ris.example/oauth/token"
    assert DOCUMENT["revocation_endpoint"] == "https://ris.example/oauth/revoke"
    assert DOCUMENT["introspection_endpoint"] == "https://ris.example/oauth/introspect"
    assert smart_configuration("https://hospital.example/ris/")["token_endpoint"] == "https://hospital.example/ris/oauth/token"


def test_the_required_fields_are_there() -> None:
    assert DOCUMENT["grant_types_supported"] == ["client_credentials"]
    assert DOCUMENT["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert set(DOCUMENT["token_endpoint_auth_signing_alg_values_supported"]) == {"RS384", "ES384"}
    assert DOCUMENT["code_challenge_methods_supported"] == ["S256"]
    assert "client-confidential-asymmetric" in DOCUMENT["capabilities"]


def test_every_scope_that_is_advertised_can_be_granted() -> None:
    for scope in DOCUMENT["scopes_supported"]:
        assert [granted.text for granted in grant(scope, "system/*.cruds")] == [scope]


def test_nothing_is_advertised_that_is_not_there() -> None:
    assert not {"issuer", "jwks_uri", "authorization_endpoint", "registration_endpoint", "response_types_supported"} & set(
        DOCUMENT
    )
    assert set(DOCUMENT["capabilities"]) == {"client-confidential-asymmetric", "permission-v1", "permission-v2"}
