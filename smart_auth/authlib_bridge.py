"""Bridge to Authlib, 4 of 4: fetches what a request needs, lets Authlib judge it, and commits what it decided.

The only modules that import Authlib are these four: authlib_request.py, authlib_clients.py, authlib_grants.py and this.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.common.security import is_secure_transport  # type: ignore[import-untyped]  # Authlib has no types
from authlib.oauth2.rfc6749 import OAuth2Error  # type: ignore[import-untyped]
from joserfc.jwk import ECKey, RSAKey
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.assertion_ids import AssertionIds
from smart_auth.authlib_clients import (
    CONFIDENTIAL,
    LEEWAY,
    NONE,
    ClientAssertion,
    basic_credentials,
)
from smart_auth.authlib_grants import (
    AUTHORIZATION_CODE,
    CHALLENGE_METHOD,
    CLIENT_CREDENTIALS,
    GRANT_TYPES,
    REFRESH_TOKEN,
    Server,
)
from smart_auth.authlib_request import AUTH_METHODS, Redeemable, RegisteredClient, Request
from smart_auth.clients import Client, Clients
from smart_auth.codes import Codes
from smart_auth.endpoints import Endpoints
from smart_auth.forms import OAuthError
from smart_auth.granting import BACKEND, OPENID, PEOPLE
from smart_auth.grants import Grant, Grants
from smart_auth.jwks_fetcher import JwksFetcher
from smart_auth.key_file import KeyFileError
from smart_auth.recent import Recent
from smart_auth.refresh_tokens import RefreshTokens
from smart_auth.signing_keys import SigningKeys
from smart_auth.tokens import Tokens

__all__ = ["CHALLENGE_METHOD", "CLIENT_AUTH_METHODS", "GRANT_TYPES", "Answer", "Bridge", "Form"]
# Those that the configuration documents name (RFC 8414 2).
CLIENT_AUTH_METHODS = tuple(name for name in AUTH_METHODS if name != NONE)

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an OAuth endpoint answers to a client that has proven to be `client_id`; refusals are raised, as OAuthError.

    `user` is the login name of the person that a token acts for.
    """

    client_id: str
    body: dict[str, Any] = field(repr=False)
    user: str | None = None


class Bridge:
    """The token endpoint, authorization requests, and client authentication for the other endpoints."""

    def __init__(
        self,
        db: AsyncDatabase[dict[str, Any]],
        tokens: Tokens,
        endpoints: Endpoints,
        keys: SigningKeys,
        fetcher: JwksFetcher | None = None,
    ) -> None:
        if not is_secure_transport(endpoints.token):
            raise ValueError(f"access tokens need https: the base URL {endpoints.issuer} is neither https nor loopback")
        self._clients = Clients(db)
        self._recent = Recent[Client]()
        self._tokens = tokens
        self._ids = AssertionIds(db)
        self._codes = Codes(db)
        self._grants = Grants(db)
        self._refresh_tokens = RefreshTokens(db)
        self._keys = keys
        self._fetcher = fetcher or JwksFetcher()
        self._endpoints = endpoints
        self._assertion = ClientAssertion((endpoints.token, endpoints.issuer))
        self._server = Server(self._assertion, endpoints)

    # The token endpoint

    async def token(self, form: Form, authorization: str = "") -> Answer:
        """The answer to a token request (RFC 6749 4.1.3, 4.4, 6); raises OAuthError. `authorization` is that header."""
        if "grant_type" not in form:
            raise OAuthError("invalid_request", "grant_type is missing")
        if form["grant_type"] not in GRANT_TYPES:
            raise OAuthError("unsupported_grant_type", f"the grant type must be one of {', '.join(GRANT_TYPES)}")
        request = await self._request(form, authorization, lately=form["grant_type"] == CLIENT_CREDENTIALS)
        status, body = self._server.create_token_response(request)
        if request.auth_method is None and request.lately:  # the client may have got other keys meanwhile
            request = await self._request(form, authorization)
            status, body = self._server.create_token_response(request)
        if request.auth_method is None:  # `request.client` is set before it is verified, this only after
            raise OAuthError(body["error"], body["error_description"], status, claimed=_claimed(request))
        if request.credential is None and "error" not in body:
            return await self._backend(request, body)
        client = await self._proven(request)
        if "error" in body:
            await self._end_if_replayed(request, client)
            raise OAuthError(body["error"], body.get("error_description", ""), status, client_id=client.client_id)
        return await self._issued(request, client, body)

    async def _backend(self, request: Request, body: dict[str, Any]) -> Answer:
        """Make the token of a backend service good while its assertion is used up: of one that was used before nobody hears."""
        registered: RegisteredClient = request.client
        storing = self._tokens.store(body["access_token"], registered.client, body["scope"], body["expires_in"])
        client, _ = await asyncio.gather(self._proven(request), storing)
        return Answer(client.client_id, body)

    async def _issued(self, request: Request, client: Client, body: dict[str, Any]) -> Answer:
        """Use up what was redeemed, and make the token good that Authlib has drawn."""
        redeemed = request.credential
        grant = redeemed.grant if redeemed else None
        if redeemed is not None and grant is not None:
            if redeemed.code is not None and not await self._codes.use(redeemed.code):
                await self._replayed(redeemed, client, "the code was used before")
            if redeemed.refresh_token is not None:
                successor = await self._refresh_tokens.rotate(request.form["refresh_token"], grant)
                if successor is None:
                    await self._replayed(redeemed, client, "the refresh token was used before")
                body["refresh_token"] = successor
            elif grant.life:
                body["refresh_token"] = await self._refresh_tokens.issue(grant)
            await self._grants.redeemed(grant)
        context = grant.token_context if grant else {}
        await self._tokens.store(body["access_token"], client, body["scope"], body["expires_in"], **context)
        return Answer(client.client_id, body, grant.user_name if grant else None)

    async def _end_if_replayed(self, request: Request, client: Client) -> None:
        """A code or refresh token that comes again from its own client: there is a copy (RFC 6749 4.1.2, RFC 9700 4.14.2)."""
        redeemed = request.credential
        if redeemed is None or redeemed.grant is None or redeemed.grant.client_id != client.client_id:
            return
        if (redeemed.code and redeemed.code.used) or (redeemed.refresh_token and redeemed.refresh_token.spent):
            await self.end(redeemed.grant.grant_id)

    async def _replayed(self, redeemed: Redeemable, client: Client, description: str) -> None:
        assert redeemed.grant is not None
        await self.end(redeemed.grant.grant_id)
        raise OAuthError("invalid_grant", description, client_id=client.client_id)

    async def end(self, grant_id: str) -> None:
        """Revoke a grant: in this process its tokens are refused at once, in others within a second."""
        await self._grants.end(grant_id)
        self._tokens.forget_grant(grant_id)

    # Client authentication

    async def authenticate_client(self, form: Form, authorization: str = "", *, public: bool = False) -> Client:
        """The client that proves itself; `public`: one that can't may name itself. Raises OAuthError `invalid_client`."""
        request = await self._request(form, authorization)
        try:
            self._server.authenticate_client(request, (*CONFIDENTIAL, NONE) if public else CONFIDENTIAL)
        except OAuth2Error as error:
            raise OAuthError(error.error, error.description, error.status_code, claimed=_claimed(request)) from None
        return await self._proven(request)

    async def _request(self, form: Form, authorization: str, *, lately: bool = False) -> Request:
        """The request for Authlib, with the client and what it wants to redeem fetched for it.

        `lately`: a client that was fetched within a second does: what is issued to one that was removed is dead at its use.
        """
        request = Request(self._endpoints.token, form, authorization=authorization)
        kind = form.get("grant_type")
        if kind == AUTHORIZATION_CODE:
            request.credential = await self._code(form.get("code", ""))
        elif kind == REFRESH_TOKEN:
            request.credential = await self._refresh_token(form.get("refresh_token", ""))
        kid = ""
        client_id: object = form.get("client_id")
        if authorization:
            client_id, _ = basic_credentials(authorization)
        elif "client_assertion" in form:
            with contextlib.suppress(OAuth2Error):  # Authlib is to refuse it in its turn
                header, claims = self._assertion.extract_assertion(form["client_assertion"])
                client_id, kid = claims.get("sub"), header["kid"]
        elif client_id is None and kind == REFRESH_TOKEN and request.credential and request.credential.grant:
            client_id = request.credential.grant.client_id  # good for a public client only: authlib_clients.py
        if not isinstance(client_id, str):
            return request
        client = self._recent.get(client_id) if lately else None
        request.lately = client is not None
        client = client or await self._fetched(client_id)
        if client is None:
            return request
        keys = client.keys
        if client.jwks_uri and kid:
            keys = await self._fetcher.keys(client.jwks_uri, kid)
        request.registered = RegisteredClient(client, BACKEND if kind == CLIENT_CREDENTIALS else PEOPLE, keys)
        if request.credential and request.credential.of(request.registered):
            assert request.credential.grant is not None
            if OPENID in request.credential.grant.scopes:
                request.registered.signer = await self._signer(client, needed=kind == AUTHORIZATION_CODE)
        return request

    async def _signer(self, client: Client, *, needed: bool) -> RSAKey | ECKey | None:
        """The key for its id token; None where it can't be had and isn't needed. Raises KeyFileError."""
        try:
            return await self._keys.signer(client.id_token_alg)
        except KeyFileError:
            if needed:
                raise
            return None

    async def _fetched(self, client_id: str) -> Client | None:
        now = time.monotonic()
        client = await self._clients.get(client_id)
        self._recent.put(client_id, client, now)
        return client

    async def _code(self, text: str) -> Redeemable | None:
        code = await self._codes.find(text) if text else None
        return None if code is None else Redeemable(await self._living(code.grant_id), code=code)

    async def _refresh_token(self, text: str) -> Redeemable | None:
        token = await self._refresh_tokens.find(text) if text else None
        return None if token is None else Redeemable(await self._living(token.grant_id), refresh_token=token)

    async def _living(self, grant_id: str) -> Grant | None:
        """A grant, judged anew; one that is found dead is ended."""
        judged = await self._grants.judged(grant_id)
        if judged is None:
            return None
        grant, alive = judged
        if not alive:
            await self.end(grant_id)
            return None
        return grant

    async def _proven(self, request: Request) -> Client:
        """The client of a verified request. An assertion counts once, whatever else is wrong with the request."""
        registered: RegisteredClient = request.client
        claims = registered.proof
        if claims and not await self._ids.first_use(claims["iss"], claims["jti"], claims["exp"] + LEEWAY):
            raise OAuthError("invalid_client", "the client_assertion was used before", claimed=claims["iss"])
        return registered.client

    # Authorization requests

    def check_authorization(self, client: Client, parameters: Form) -> list[str]:
        """The scopes that a client may have of what it asks for (RFC 6749 4.1.1). Raises OAuthError.

        The redirect URI was compared before: a refusal here may go there.
        """
        request, server = self._authorization(client, parameters)
        try:
            server.get_consent_grant(request)
        except OAuth2Error as error:
            raise OAuthError(error.error, error.get_error_description(), client_id=client.client_id) from None
        return str(request.scope).split(" ")

    async def authorize(self, client: Client, parameters: Form, grant: Grant) -> str:
        """A code for what a person granted; the request is judged once more. Raises OAuthError."""
        request, server = self._authorization(client, parameters)
        try:
            status, answer = server.create_authorization_response(
                request, grant_user=grant, grant=server.get_authorization_grant(request)
            )
        except OAuth2Error as error:
            raise OAuthError(error.error, error.get_error_description(), client_id=client.client_id) from None
        if request.drawn_code is None:
            raise OAuthError("invalid_request", f"the request is no longer valid ({status} {type(answer).__name__})")
        await self._grants.start(grant)
        await self._codes.store(
            request.drawn_code, client.client_id, parameters["redirect_uri"], parameters["code_challenge"], grant.grant_id
        )
        return request.drawn_code

    def _authorization(self, client: Client, parameters: Form) -> tuple[Request, Server]:
        request = Request(self._endpoints.authorize, parameters, method="GET")
        request.registered = RegisteredClient(client, PEOPLE)
        return request, Server(self._assertion, self._endpoints, request.registered)


def _claimed(request: Request) -> str | None:
    return request.registered.client.client_id if request.registered else None
