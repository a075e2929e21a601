"""An authorization request from arrival to the code: what is valid, what is still to be asked, what is granted.

Without HTTP and pages, which are in authorize_pages.py.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote, quote_plus

from pymongo.asynchronous.database import AsyncDatabase

from smart_auth import granting, launch_context
from smart_auth.authlib_bridge import Bridge
from smart_auth.authorization_requests import AuthorizationRequest, AuthorizationRequests
from smart_auth.clients import Client, Clients
from smart_auth.consents import Consents
from smart_auth.endpoints import Endpoints
from smart_auth.forms import OAuthError, once
from smart_auth.grants import Grant, Life, new_grant_id
from smart_auth.launches import Launches
from smart_auth.sessions import Session
from smart_auth.smart_style import STYLE_PATH
from smart_auth.users import User

Step = Literal["login", "consent", "patient", "encounter", "done"]
# What is read again after a request was judged; the rest of what came with it is not kept.
_KEPT = (
    "response_type", "client_id", "redirect_uri", "scope", "state", "aud", "resource", "code_challenge", "code_challenge_method",
    "response_mode", "nonce", "prompt", "max_age",
)  # fmt: skip
_PROMPTS = {"login": "login_required", "consent": "consent_required", "patient": "interaction_required"}

_GONE_ON = "This was gone on with elsewhere meanwhile. Go back to the app and start again."


class Unknown(Exception):
    """Nobody can be told by redirect: the client, or where it wants to be answered, is not known. The text is for the page."""

    def __init__(self, text: str, client_id: str | None = None) -> None:
        super().__init__(text)
        self.client_id = client_id


class Refused(Exception):
    """An answer to the client that is an error (RFC 6749 4.1.2.1), by redirect to `url`."""

    def __init__(self, error: OAuthError, url: str) -> None:
        super().__init__(error.description)
        self.error, self.url = error, url


class Authorization:
    """One a process."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], bridge: Bridge, endpoints: Endpoints) -> None:
        self._bridge = bridge
        self._clients = Clients(db)
        self._requests = AuthorizationRequests(db)
        self._consents = Consents(db)
        self._launches = Launches(db)
        self._endpoints = endpoints

    # Arrival

    async def begin(self, fields: list[tuple[str, str]]) -> str:
        """Judge a request and keep it; the id to go on with. Raises Unknown or Refused."""
        client, redirect_uri = await self._whom(fields)
        states = [quote(value, safe="", errors="surrogateescape") for name, value in fields if name == "state"]
        try:
            parameters = once(fields) | ({"state": states[0]} if states else {})
            if not all(_is_text(value) for pair in parameters.items() for value in pair):
                raise OAuthError("invalid_request", "a parameter is not in UTF-8")
            prompts = parameters.get("prompt", "").split()
            if "none" in prompts and len(prompts) > 1:
                raise OAuthError("invalid_request", "prompt must be none alone, or without it", client_id=client.client_id)
            scopes = self._bridge.check_authorization(client, parameters)
            launch = await self._launch(client, parameters)
            request = self._checked(client, parameters, scopes, launch)
        except OAuthError as error:
            raise Refused(error, self._error_url(redirect_uri, states[0] if states else None, error)) from None
        return await self._requests.keep(request)

    async def _whom(self, fields: list[tuple[str, str]]) -> tuple[Client, str]:
        ids = [value for name, value in fields if name == "client_id"]
        client = await self._clients.get(ids[0]) if len(ids) == 1 else None
        if client is None or not client.redirect_uris:
            raise Unknown("The app that sent you here is not registered.")
        uris = [value for name, value in fields if name == "redirect_uri"]
        if len(uris) != 1 or not client.may_return_to(uris[0]):
            raise Unknown(f"{client.title} wants to be answered at an address that it is not registered with.", client.client_id)
        return client, uris[0]

    async def _launch(self, client: Client, parameters: dict[str, str]) -> launch_context.Context:
        if "launch" not in parameters:
            return {}
        launch = await self._launches.take(parameters["launch"], client)
        if launch is None:
            raise OAuthError("invalid_request", "the launch is unknown, used, too old or for another app")
        return {"launch_user": launch.user_name, "context": launch.context}

    def _checked(
        self, client: Client, parameters: dict[str, str], scopes: list[str], launch: dict[str, Any]
    ) -> AuthorizationRequest:
        """The request with the scopes that can be granted: what asks for context that no launch brought is left out."""
        context = launch.get("context", {})
        pickable = (granting.LAUNCH_PATIENT, granting.LAUNCH_ENCOUNTER)
        missing = {text for text in launch_context.unmet(context, scopes) if text not in pickable}
        if not launch:
            missing.add(granting.LAUNCH)
        scopes = [text for text in scopes if text not in missing]
        if not scopes:
            raise OAuthError("invalid_scope", "none of the scopes can be granted")
        return AuthorizationRequest(
            client.client_id,
            client.registration,
            {name: value for name, value in parameters.items() if name in _KEPT},
            scopes,
            datetime.now(UTC),
            context,
            launch.get("launch_user"),
        )

    # On the way

    async def find(self, name: str) -> tuple[AuthorizationRequest, Client]:
        """A request that is under way. Raises Unknown."""
        request = await self._requests.get(name)
        client = await self._clients.get(request.client_id) if request else None
        if request is None or client is None or client.registration != request.registration:
            raise Unknown("This took too long, or was answered already. Go back to the app and start again.")
        return request, client

    async def step(self, name: str, session: Session | None) -> tuple[Step, AuthorizationRequest, Client]:
        """What is to be done next. Raises Unknown, or Refused when the client doesn't want anybody to be asked."""
        request, client = await self.find(name)
        if session is None or _too_old(session, request):
            return self._asked("login", request), request, client
        if request.launch_user not in (None, session.user.name):
            raise self.refusal(request, "access_denied", "the launch is for another user")
        if request.user != session.user.name:  # the first one, or somebody else has logged in since
            request = await self._noted(name, {}, user=session.user.name, consented=None, chosen={})
        if request.consented is None:
            offered = self.offered(request, session.user)
            again = "consent" in request.parameters.get("prompt", "").split() or _of_any_port(request, client)
            if again or not await self._consents.given(session.user, client, offered):
                return self._asked("consent", request), request, client
            request = await self._noted(name, {"user": session.user.name, "consented": None}, consented=offered)
        step = _next(request)
        return self._asked(step, request), request, client

    def offered(self, request: AuthorizationRequest, user: User) -> list[str]:
        """What the user is asked to grant; who is nobody in the store has no `fhirUser` to offer (SMART App Launch 2.2)."""
        identity = (granting.FHIR_USER, granting.PROFILE)
        return [text for text in request.scopes if user.fhir_user or text not in identity]

    async def consent(self, name: str, session: Session, scopes: list[str]) -> None:
        """Note what a user grants of what was offered. Raises Refused when that is nothing."""
        request, client = await self.find(name)
        offered = self.offered(request, session.user)
        granted = [text for text in offered if text in scopes]
        if _resources(offered) and not _resources(granted):
            # Who grants no data has nobody to choose a patient for.
            granted = [text for text in granted if text not in (granting.LAUNCH_PATIENT, granting.LAUNCH_ENCOUNTER)]
        if not granted:
            raise await self.denied(name)
        await self._consents.remember(session.user, client, granted)
        await self._noted(name, {"user": session.user.name}, consented=granted)

    async def choose(
        self, name: str, session: Session, asked: AuthorizationRequest, kind: Literal["patient", "encounter"], id_: str | None
    ) -> None:
        """Note the patient or encounter that was chosen; no encounter is a choice too, and its scope is then not granted.

        `asked` is the request as the choice was judged by: if it is another one by now, the choice doesn't count.
        """
        if asked.consented is None or asked.user != session.user.name:
            raise Unknown(_GONE_ON)
        held = {"user": session.user.name, "consented": asked.consented, "chosen": asked.chosen}
        if id_ is not None:
            await self._noted(name, held, chosen=asked.chosen | {kind: id_})
        else:
            left = [text for text in asked.consented if text != granting.LAUNCH_ENCOUNTER]
            await self._noted(name, held, consented=left)

    async def denied(self, name: str) -> Refused:
        """End the request as the user wishes."""
        request, _ = await self.find(name)
        await self._requests.done(name)
        return self.refusal(request, "access_denied", "the user does not allow it")

    async def finish(self, name: str, session: Session) -> tuple[str, Grant]:
        """The URL that leads the user back to the app, with a code, and what was granted. Raises Unknown or Refused."""
        request, client = await self.find(name)
        if request.consented is None or request.user != session.user.name or _next(request) != "done":
            raise Unknown(_GONE_ON)  # since the step was judged: somebody else has logged in, or it was begun anew
        if not await self._requests.done(name, user=request.user, consented=request.consented, chosen=request.chosen):
            raise Unknown("This was answered already. Go back to the app.")
        grant = self._grant(request, client, session, request.consented)
        try:
            code = await self._bridge.authorize(client, request.parameters, grant)
        except OAuthError as error:
            raise self.refusal(request, error.error, error.description) from None
        return self._url(request.parameters["redirect_uri"], request.parameters["state"], {"code": code}), grant

    def _grant(self, request: AuthorizationRequest, client: Client, session: Session, scopes: list[str]) -> Grant:
        user = session.user
        life: Life = "offline" if granting.OFFLINE in scopes else "online" if granting.ONLINE in scopes else ""
        return Grant(
            new_grant_id(),
            client.client_id,
            client.registration,
            user.name,
            user.fhir_user,
            user.role,
            user.registration,
            user.security_stamp,
            " ".join(scopes),
            session.authenticated_at,
            session.amr,
            launch_context.parameters(request.context, scopes, self._endpoints.issuer + STYLE_PATH),
            request.parameters.get("nonce"),
            life,
            session.id if life == "online" else None,
        )

    async def _noted(self, name: str, held: dict[str, Any], **changed: Any) -> AuthorizationRequest:
        request = await self._requests.note(name, held, **changed)
        if request is None:
            raise Unknown("This took too long, or was answered already. Go back to the app and start again.")
        return request

    # Answers

    def refusal(self, request: AuthorizationRequest, error: str, description: str) -> Refused:
        answer = OAuthError(error, description, client_id=request.client_id)
        return Refused(answer, self._error_url(request.parameters["redirect_uri"], request.parameters["state"], answer))

    def _asked(self, step: Step, request: AuthorizationRequest) -> Step:
        """The step, unless nobody is to be asked (OpenID Connect Core 3.1.2.1, `prompt=none`)."""
        if step != "done" and request.parameters.get("prompt", "").split() == ["none"]:
            error = _PROMPTS.get(step, "interaction_required")
            raise self.refusal(request, error, "the user would have to be asked")
        return step

    def _error_url(self, redirect_uri: str, state: str | None, error: OAuthError) -> str:
        return self._url(redirect_uri, state, {"error": error.error, "error_description": error.description})

    def _url(self, redirect_uri: str, state: str | None, answer: dict[str, str]) -> str:
        """The redirect URI with the answer and, against mix-up of servers, our issuer (RFC 9207); `state` is encoded already."""
        pairs = [f"{name}={quote_plus(value)}" for name, value in (answer | {"iss": self._endpoints.issuer}).items()]
        if state is not None:
            pairs.append(f"state={state}")
        return redirect_uri + ("&" if "?" in redirect_uri else "?") + "&".join(pairs)


def _next(request: AuthorizationRequest) -> Step:
    """What of the context is to be chosen yet: scopes of a patient are nothing without one (SMART App Launch 2.2)."""
    consented = request.consented or []
    wants_encounter = granting.LAUNCH_ENCOUNTER in consented and "encounter" not in request.context
    wants_patient = granting.LAUNCH_PATIENT in consented or _any_of_patient(consented) or wants_encounter
    if wants_patient and "patient" not in request.context:
        return "patient"
    return "encounter" if wants_encounter else "done"


def _resources(scopes: Iterable[str]) -> bool:
    return any(map(granting.is_resource_scope, scopes))


def _any_of_patient(scopes: Iterable[str]) -> bool:
    return any(text.startswith("patient/") for text in scopes)


def _too_old(session: Session, request: AuthorizationRequest) -> bool:
    """Whether the client asks for a fresher login (OpenID Connect Core 3.1.2.1, `prompt=login` and `max_age`)."""
    if session.authenticated_at >= request.made:
        return False
    if "login" in request.parameters.get("prompt", "").split():
        return True
    age = request.parameters.get("max_age", "")
    if not (age.isascii() and age.isdecimal() and len(age) < 9):
        return False
    return request.made - session.authenticated_at > timedelta(seconds=int(age))


def _of_any_port(request: AuthorizationRequest, client: Client) -> bool:
    """Whether it is answered at a loopback port that is not registered: any program there may pass for it (RFC 8252 8.6)."""
    return request.parameters["redirect_uri"] not in client.redirect_uris


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
