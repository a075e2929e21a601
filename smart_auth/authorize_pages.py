"""`/oauth/authorize` (RFC 6749 3.1) and the pages on the way: consent, choice of a patient and of an encounter."""

from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smart_auth.audit_events import Audit
from smart_auth.authorization import Authorization, Refused, Unknown
from smart_auth.authorization_requests import AuthorizationRequest
from smart_auth.chart import Chart, Choice, access_of
from smart_auth.clients import Client
from smart_auth.consent_words import sentence
from smart_auth.endpoints import AUTHORIZE_PATH
from smart_auth.forms import OAuthError, read_parameters
from smart_auth.login_pages import LOGIN, Handler, see_other, shown
from smart_auth.page_forms import PageError, posted
from smart_auth.pages import page
from smart_auth.redirect_uris import origin
from smart_auth.sessions import Session, Sessions

_STOPPED = "The app can't be given access"


class AuthorizePages:
    """The handlers. After the request itself, every address is a random id: what was judged never comes back from outside."""

    def __init__(self, authorization: Authorization, sessions: Sessions, chart: Chart, audit: Audit, own_origin: str) -> None:
        self._authorization = authorization
        self._sessions = sessions
        self._chart = chart
        self._audit = audit
        self._origin = own_origin

    async def begin(self, request: Request) -> Response:
        """Judge and keep the request. A POST from another site came without the session's cookie; the GET that follows has it."""
        try:
            name = await self._authorization.begin(await read_parameters(request))
        except OAuthError as error:
            raise PageError(_STOPPED, "What the app sent can't be read.", error.status) from None
        return see_other(f"{AUTHORIZE_PATH}/{name}")

    async def show(self, request: Request) -> Response:
        """Go on with a request: to the login, to a page, or with a code to the app."""
        name = request.path_params["name"]
        session = await self._sessions.current(request)
        step, asked, client = await self._authorization.step(name, session)
        if step == "login" or session is None:
            again = "&again" if session is not None else ""
            return see_other(f"{LOGIN}?{urlencode({'next': f'{AUTHORIZE_PATH}/{name}'})}{again}")
        if step == "consent":
            return self._consent_page(asked, client, session)
        if step == "patient":
            return self._patient_page(session, client, "", [])
        if step == "encounter":
            choices = await self._chart.encounters(access_of(session.user), asked.context["patient"])
            return page("encounter_picker.html", leads_out=True, session=session, app=client.title, choices=choices)
        url, grant = await self._authorization.finish(name, session)
        await self._audit("authorize", True, client.client_id, grant.scope, session.user.name)
        return see_other(url)

    async def answer(self, request: Request) -> Response:
        """An answer on one of the pages."""
        name = request.path_params["name"]
        session = await self._sessions.current(request)
        if session is None:
            return see_other(f"{AUTHORIZE_PATH}/{name}")
        form = await posted(request, session.csrf, self._origin)
        step, asked, client = await self._authorization.step(name, session)
        if form.get("answer") == "deny":
            raise await self._authorization.denied(name)
        if form.get("step") == "consent" and step == "consent":
            await self._consented(name, session, asked, form)
        elif form.get("step") == "search" and step == "patient":
            choices = await self._chart.patients(access_of(session.user), form.get("text", ""))
            return self._patient_page(session, client, form.get("text", ""), choices)
        elif step == form.get("step") == "patient":
            await self._chosen_patient(name, session, asked, form.get("patient", ""))
        elif step == form.get("step") == "encounter":
            await self._chosen_encounter(name, session, asked, form.get("encounter", ""))
        return see_other(f"{AUTHORIZE_PATH}/{name}")

    def _consent_page(self, asked: AuthorizationRequest, client: Client, session: Session) -> Response:
        sentences = list(enumerate(map(sentence, self._authorization.offered(asked, session.user))))
        values: dict[str, Any] = {
            "app": client.title,
            "origin": origin(asked.parameters["redirect_uri"]),
            "asked": [(number, item) for number, item in sentences if item.asked],
            "told": [item for _, item in sentences if not item.asked],
        }
        return page("consent.html", leads_out=True, session=session, **values)

    async def _consented(self, name: str, session: Session, asked: AuthorizationRequest, form: dict[str, str]) -> None:
        offered = self._authorization.offered(asked, session.user)
        ticked = {text for number, text in enumerate(offered) if f"scope-{number}" in form}
        # With nothing to tick, to allow is to allow what the app is told.
        allowed = ticked or not any(sentence(text).asked for text in offered)
        granted = [text for text in offered if text in ticked or not sentence(text).asked] if allowed else []
        await self._authorization.consent(name, session, granted)
        await self._audit("consent", True, asked.client_id, " ".join(granted), session.user.name)

    def _patient_page(self, session: Session, client: Client, text: str, choices: list[Choice]) -> Response:
        values: dict[str, Any] = {"app": client.title, "text": text[:100], "searched": bool(text.strip()), "choices": choices}
        return page("patient_picker.html", leads_out=True, session=session, **values)

    async def _chosen_patient(self, name: str, session: Session, asked: AuthorizationRequest, patient: str) -> None:
        if not patient or not await self._chart.sees(access_of(session.user), [f"Patient/{quote(patient, safe='')}"]):
            raise PageError("No patient was chosen", "Go back, search, and choose one of those that are found.")
        await self._authorization.choose(name, session, asked, "patient", patient)

    async def _chosen_encounter(self, name: str, session: Session, asked: AuthorizationRequest, encounter: str) -> None:
        choices = await self._chart.encounters(access_of(session.user), asked.context["patient"])
        if encounter and encounter not in [choice.id for choice in choices]:
            raise PageError("No visit was chosen", "Go back, and choose one of those that are listed, or none.")
        await self._authorization.choose(name, session, asked, "encounter", encounter or None)

    def told(self, handler: Handler) -> Handler:
        """The handler, with refusals told to the app where that can be, else on a page."""

        async def respond(request: Request) -> Response:
            try:
                return await handler(request)
            except Refused as refused:
                error = refused.error
                await self._audit("authorize", False, error.client_id, f"{error.error}: {error.description}", None)
                return see_other(refused.url)
            except Unknown as unknown:
                await self._audit("authorize", False, unknown.client_id, str(unknown), None)
                return page("refused.html", status=400, title=_STOPPED, text=str(unknown))

        return shown(respond)

    def routes(self) -> list[Route]:
        under_way = AUTHORIZE_PATH + "/{name}"
        return [
            Route(AUTHORIZE_PATH, self.told(self.begin), methods=["GET", "POST"]),
            Route(under_way, self.told(self.show), methods=["GET"]),
            Route(under_way, self.told(self.answer), methods=["POST"]),
        ]
