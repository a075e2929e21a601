"""Introspection (RFC 7662; SMART App Launch 2.2, "Token introspection") and revocation (RFC 7009)."""

from collections.abc import Mapping
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.authlib_bridge import Answer, Bridge
from smart_auth.endpoints import Endpoints
from smart_auth.forms import OAuthError
from smart_auth.granting import FHIR_USER, INTROSPECT_RIGHT, OPENID, PROFILE
from smart_auth.grants import Grants
from smart_auth.refresh_tokens import RefreshTokens
from smart_auth.tokens import Token, Tokens

_INACTIVE: Mapping[str, Any] = {"active": False}


class TokenEndpoints:
    """What is asked and done about a token that was issued."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], bridge: Bridge, tokens: Tokens, endpoints: Endpoints) -> None:
        self._bridge = bridge
        self._tokens = tokens
        self._refresh_tokens = RefreshTokens(db)
        self._grants = Grants(db)
        self._endpoints = endpoints

    async def introspect(self, form: Mapping[str, str], authorization: str = "") -> Answer:
        """What a token is good for: any token for who has the right to ask, else only a client's own. Raises OAuthError."""
        scheme, _, bearer = authorization.partition(" ")
        if scheme.lower() == "bearer":
            caller, any_client = await self._bearer(bearer.strip()), True
        elif not authorization and not {"client_assertion", "client_secret"} & set(form):
            raise OAuthError("invalid_client", "a Bearer token or client authentication is needed", 401)
        else:
            caller, any_client = (await self._bridge.authenticate_client(form, authorization)).client_id, False
        token = await self._tokens.find(_token(form, caller))
        if token is None or not (any_client or token.client_id == caller):
            return Answer(caller, dict(_INACTIVE))
        return Answer(caller, self._described(token))

    async def revoke(self, form: Mapping[str, str], authorization: str = "") -> Answer:
        """End a token; one of a person with everything else of its grant. One that is no token, or no longer, is fine too."""
        client = await self._bridge.authenticate_client(form, authorization, public=True)
        text = _token(form, client.client_id)
        token = await self._tokens.find(text)
        grant = token.grant if token else None
        if token is None and (refresh_token := await self._refresh_tokens.find(text)):
            grant = await self._grants.get(refresh_token.grant_id)
        owner = token.client_id if token else grant.client_id if grant else client.client_id
        if owner != client.client_id:
            raise OAuthError("invalid_grant", "the token was issued to another client", client_id=client.client_id)
        if grant is not None:
            await self._bridge.end(grant.grant_id)
        elif token is not None:
            await self._tokens.revoke(text)
        return Answer(client.client_id, {}, grant.user_name if grant else None)

    async def _bearer(self, text: str) -> str:
        token = await self._tokens.find(text)
        if token is None:
            raise OAuthError("invalid_token", "the access token is unknown, expired or revoked", 401)
        if INTROSPECT_RIGHT not in token.scope.split(" "):
            raise OAuthError("insufficient_scope", f"the scope {INTROSPECT_RIGHT} is needed", 403, client_id=token.client_id)
        return token.client_id

    def _described(self, token: Token) -> dict[str, Any]:
        body: dict[str, Any] = {
            "active": True,
            "scope": token.scope,
            "client_id": token.client_id,
            "exp": int(token.expires.timestamp()),
            "iat": int(token.issued.timestamp()),
            "token_type": "Bearer",
        }
        if token.grant is None:
            return body
        body |= dict(token.grant.context)
        scopes = set(token.scope.split(" "))  # after a refresh they may be fewer than those of the grant
        if OPENID in scopes:
            body |= {"iss": self._endpoints.issuer, "sub": token.grant.user_registration}
        if {FHIR_USER, PROFILE} & scopes:
            body[FHIR_USER] = f"{self._endpoints.fhir}/{token.grant.user}"
        return body


def _token(form: Mapping[str, str], client_id: str) -> str:
    if "token" not in form:
        raise OAuthError("invalid_request", "token is missing", client_id=client_id)
    return form["token"]
