"""`/fhir/.well-known/smart-configuration` (SMART App Launch 2.2, "Conformance"): what the authorization server does today."""

from typing import Any

from smart_auth.authlib_bridge import CLIENT_AUTH_METHOD, GRANT_TYPE
from smart_auth.endpoints import Endpoints
from smart_auth.jwks import ALGORITHMS


def smart_configuration(base_url: str) -> dict[str, Any]:
    """The document, as JSON. `base_url` is the public base URL of the server, without `/fhir`.

    `issuer`, `jwks_uri` and `authorization_endpoint` go with OpenID Connect and app launch: left out, as SMART says.
    """
    endpoints = Endpoints.under(base_url)
    return {
        "token_endpoint": endpoints.token,
        "revocation_endpoint": endpoints.revoke,
        "introspection_endpoint": endpoints.introspect,
        "grant_types_supported": [GRANT_TYPE],
        "token_endpoint_auth_methods_supported": [CLIENT_AUTH_METHOD],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS.values()),
        "scopes_supported": ["system/*.cruds", "system/*.rs", "system/*.read", "system/*.write", "system/*.*"],
        # SMART requires the field of every server, with S256 in it, also of one without an authorization endpoint.
        "code_challenge_methods_supported": ["S256"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    }
