"""What the authorization server says of itself: SMART configuration (SMART App Launch 2.2, "Conformance"), OpenID Connect
Discovery 1.0 and RFC 8414. All three are made of the same parts, as clients take whichever answers first.
"""

from typing import Any

from smart_auth.authlib_bridge import CHALLENGE_METHOD, CLIENT_AUTH_METHODS, GRANT_TYPES
from smart_auth.clients import ID_TOKEN_ALGORITHMS
from smart_auth.endpoints import Endpoints
from smart_auth.granting import (
    FHIR_USER,
    LAUNCH,
    LAUNCH_ENCOUNTER,
    LAUNCH_PATIENT,
    OFFLINE,
    ONLINE,
    OPENID,
    PROFILE,
)
from smart_auth.jwks import ALGORITHMS

# What clients authenticate with that have neither key nor secret; SMART has no word for it in its configuration.
_PUBLIC = "none"
_RESOURCES = [
    f"{level}/*.{actions}" for level in ("patient", "user", "system") for actions in ("cruds", "rs", "read", "write", "*")
]
# What each grant type stands for (SMART App Launch 2.2, "Capabilities").
_CAPABILITIES = {
    "authorization_code": (
        "launch-ehr",
        "launch-standalone",
        "authorize-post",
        "client-public",
        "client-confidential-symmetric",
        "sso-openid-connect",
        "context-banner",
        "context-style",
        "context-ehr-patient",
        "context-ehr-encounter",
        "context-standalone-patient",
        "context-standalone-encounter",
        "permission-patient",
        "permission-user",
    ),
    "refresh_token": ("permission-offline", "permission-online"),
    "client_credentials": ("client-confidential-asymmetric",),
}
_SCOPE_VERSIONS = ("permission-v1", "permission-v2")

SCOPES = [
    OPENID, FHIR_USER, PROFILE, LAUNCH, LAUNCH_PATIENT, LAUNCH_ENCOUNTER, "launch/imagingstudy", "launch/diagnosticreport",
    OFFLINE, ONLINE, *_RESOURCES,
]  # fmt: skip


def smart_configuration(base_url: str) -> dict[str, Any]:
    """The document under the FHIR base. `base_url` is the public base URL of the server, without `/fhir`."""
    capabilities = [name for grant_type in GRANT_TYPES for name in _CAPABILITIES[grant_type]]
    return {
        **_server(base_url),
        "token_endpoint_auth_methods_supported": list(CLIENT_AUTH_METHODS),
        "management_endpoint": Endpoints.under(base_url).manage,
        "capabilities": [*capabilities, *_SCOPE_VERSIONS],
    }


def authorization_server_metadata(base_url: str) -> dict[str, Any]:
    """The document of RFC 8414."""
    return {
        **_server(base_url),
        "token_endpoint_auth_methods_supported": [*CLIENT_AUTH_METHODS, _PUBLIC],
        "revocation_endpoint_auth_methods_supported": [*CLIENT_AUTH_METHODS, _PUBLIC],
        "introspection_endpoint_auth_methods_supported": list(CLIENT_AUTH_METHODS),
        "response_modes_supported": ["query"],
        "authorization_response_iss_parameter_supported": True,
    }


def openid_configuration(base_url: str) -> dict[str, Any]:
    """The document of OpenID Connect Discovery 1.0, 3."""
    return {
        **authorization_server_metadata(base_url),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ID_TOKEN_ALGORITHMS),
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "amr", "at_hash", FHIR_USER, PROFILE],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }


def _server(base_url: str) -> dict[str, Any]:
    endpoints = Endpoints.under(base_url)
    return {
        "issuer": endpoints.issuer,
        "authorization_endpoint": endpoints.authorize,
        "token_endpoint": endpoints.token,
        "revocation_endpoint": endpoints.revoke,
        "introspection_endpoint": endpoints.introspect,
        "jwks_uri": endpoints.jwks,
        "grant_types_supported": list(GRANT_TYPES),
        "response_types_supported": ["code"],
        "scopes_supported": SCOPES,
        "code_challenge_methods_supported": [CHALLENGE_METHOD],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS.values()),
    }


# Where each is served.
DISCOVERY = {
    "/fhir/.well-known/smart-configuration": smart_configuration,
    "/.well-known/openid-configuration": openid_configuration,
    "/.well-known/oauth-authorization-server": authorization_server_metadata,
}
