"""The SMART configuration document, by the rules of SMART App Launch 2.2 ("Conformance")."""

from capability.smart_configuration import smart_configuration

DOCUMENT = smart_configuration("https://ris.example")


def test_the_endpoints_are_absolute_and_under_the_base_url() -> None:
    assert DOCUMENT["token_endpoint"] == "https://ris.example/oauth/token"
    assert DOCUMENT["revocation_endpoint"] == "https://ris.example/oauth/revoke"
    assert DOCUMENT["introspection_endpoint"] == "https://ris.example/oauth/introspect"
    assert smart_configuration("https://hospital.example/ris/")["token_endpoint"] == "https://hospital.example/ris/oauth/token"
