"""`/login`, `/login/second-factor` and `/logout`."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.errors import PyMongoError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smart_auth.key_file import KeyFileError
from smart_auth.page_forms import PageError, internal_path, posted
from smart_auth.pages import page
from smart_auth.people import People, TryLater
from smart_auth.sessions import Session, Step

Handler = Callable[[Request], Awaitable[Response]]
Errors = list[tuple[str, str]]  # field name, or "", and text

LOGIN = "/login"
ACCOUNT = "/account"
HOME = "/"
STEPS: dict[Step, str] = {
    "second-factor": "/login/second-factor",
    "password": "/account/password",
    "enrol": "/account/second-factor",
}
# One text, whatever was wrong: it doesn't tell which users exist.
_WRONG = "The user name or the password is not right."
_log = logging.getLogger(__name__)


class LoginPages:
    """The handlers. Each form answers with 303 when it went well: a reload sends nothing twice."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def show_login(self, request: Request) -> Response:
        """The form; who is logged in already is led on, unless `again` asks for a fresh login."""
        leads_to = internal_path(request.query_params.get("next"), HOME)
        session = await self._people.sessions.unfinished(request)
        if session is not None and session.waits_for is None and "again" not in request.query_params:
            return see_other(leads_to)
        notice = "You are logged out." if "out" in request.query_params else ""
        return self._form(request, leads_to, notice=notice)

    async def log_in(self, request: Request) -> Response:
        """Judge name and password, and begin a session with a cookie that nobody knew before."""
        sessions = self._people.sessions
        form = await posted(request, sessions.visitor(request), self._people.origin)
        leads_to, name = internal_path(form.get("next"), HOME), form.get("name", "").strip()
        missing = [(field, text) for field, text in _NEEDED.items() if not form.get(field, "").strip()]
        if missing:
            return self._form(request, leads_to, name, missing, status=422)
        try:
            user = await self._people.with_password(request, "login", name, form["password"])
        except TryLater as later:
            return self._form(request, leads_to, name, [("", wait_text(later))], status=429, headers=retry_after(later))
        if user is None:
            return self._form(request, leads_to, name, [("name", _WRONG)], status=403)
        response = see_other("")
        session = await sessions.start(request, response, user, ("pwd",), leads_to)
        waits = f"; waits for {session.waits_for}" if session.waits_for else ""
        await self._people.tell(request, "login", user, detail=f"password{waits}")
        await finish(self._people, request, response, session)
        return response

    async def show_second_factor(self, request: Request) -> Response:
        session = await self._waiting(request)
        if isinstance(session, Response):
            return session
        return self._code_form(session, recovery="recovery" in request.query_params)

    async def check_second_factor(self, request: Request) -> Response:
        """Judge a code of the device, or a recovery code."""
        session = await self._waiting(request)
        if isinstance(session, Response):
            return session
        form = await posted(request, session.csrf, self._people.origin)
        recovery, code = form.get("recovery") == "1", form.get("code", "")
        if not code.strip():
            return self._code_form(session, [("code", "Enter a code.")], recovery=recovery, status=422)
        try:
            proof = await self._people.with_second_factor(request, session.user, code)
        except TryLater as later:
            errors = [("", wait_text(later))]
            return self._code_form(session, errors, recovery=recovery, status=429, headers=retry_after(later))
        if proof is None:
            text = "This recovery code is not right, or was used." if recovery else _WRONG_CODE
            return self._code_form(session, [("code", text)], recovery=recovery, status=403)
        response = see_other("")
        session = await self._people.sessions.proven(response, session, session.user, "otp", "mfa")
        await finish(self._people, request, response, session)
        return response

    async def show_logout(self, request: Request) -> Response:
        session = await self._people.sessions.unfinished(request)
        return see_other(LOGIN) if session is None else page("logout.html", user=session.user, csrf=session.csrf)

    async def log_out(self, request: Request) -> Response:
        session = await self._people.sessions.unfinished(request)
        if session is None:
            return see_other(f"{LOGIN}?out")
        await posted(request, session.csrf, self._people.origin)
        response = see_other(f"{LOGIN}?out")
        await self._people.sessions.end(response, session)
        await self._people.tell(request, "logout", session.user)
        return response

    async def _waiting(self, request: Request) -> Session | Response:
        """The session that waits for its second factor, or where to go instead."""
        session = await self._people.sessions.unfinished(request)
        if session is None:
            return see_other(LOGIN)
        return session if session.waits_for == "second-factor" else see_other(onward(session))

    def _form(
        self, request: Request, leads_to: str, name: str = "", errors: Errors | None = None, notice: str = "", **how: Any
    ) -> Response:
        fresh = Response()  # for the cookie of a browser that has none
        csrf = self._people.sessions.visitor(request, fresh)
        values: dict[str, Any] = {"name": name[:100], "next": leads_to, "csrf": csrf, "errors": errors or [], "notice": notice}
        shown = page("login.html", leads_out=leads_out(leads_to), **values, **how)
        shown.raw_headers.extend(header for header in fresh.raw_headers if header[0] == b"set-cookie")
        return shown

    def _code_form(self, session: Session, errors: Errors | None = None, *, recovery: bool, **how: Any) -> Response:
        values: dict[str, Any] = {"csrf": session.csrf, "recovery": recovery, "errors": errors or [], "user": session.user}
        return page("login_second_factor.html", leads_out=leads_out(session.next), **values, **how)


_NEEDED = {"name": "Enter your user name.", "password": "Enter your password."}
_WRONG_CODE = "This code is not right, or was used. Wait for the next one, and see that the clock of your device is right."


def routes(people: People) -> list[Route]:
    """The routes of login and logout."""
    pages = LoginPages(people)
    return [
        *both(LOGIN, pages.show_login, pages.log_in),
        *both(STEPS["second-factor"], pages.show_second_factor, pages.check_second_factor),
        *both("/logout", pages.show_logout, pages.log_out),
    ]


def both(path: str, show: Handler, act: Handler) -> list[Route]:
    """The routes of a form: its page, and what it is sent to."""
    return [Route(path, shown(show), methods=["GET"]), Route(path, shown(act), methods=["POST"])]


def shown(handler: Handler) -> Handler:
    """The handler, its refusals and failures shown as pages."""

    async def respond(request: Request) -> Response:
        try:
            return await handler(request)
        except PageError as refusal:
            return page("refused.html", status=refusal.status, title=refusal.title, text=refusal.text, link=(LOGIN, "Continue"))
        except PyMongoError:
            _log.exception("the login pages can't reach their store")
        except KeyFileError as error:
            _log.error("second factors can't be used: %s", error)
        text = "Nothing was done. Try again in a moment; if it stays so, tell whoever runs this system."
        return page("refused.html", status=503, title="This doesn't work at the moment", text=text, headers={"Retry-After": "5"})

    return respond


async def finish(people: People, request: Request, response: Response, session: Session) -> None:
    """Lead on from a proof: to the next one, or to where the login was to lead."""
    response.headers["location"] = onward(session)
    if session.waits_for == "enrol":
        await people.sessions.enrol(session, people.second_factors.new_secret(session.user))
    if session.waits_for is None:
        await people.delays.remember(request, response, session.user.name)


def onward(session: Session) -> str:
    """Where a session goes on: to what it waits for, or to where the login was to lead."""
    return STEPS[session.waits_for] if session.waits_for else session.next or HOME


def leads_out(path: str) -> bool:
    """Whether a redirect chain that begins there may end at an app."""
    return path.startswith("/oauth/")


def see_other(path: str) -> Response:
    """303: what follows is a GET, whatever was sent (RFC 9700 4.12: no 307 after credentials)."""
    return Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def wait_text(later: TryLater) -> str:
    """What to tell who has to wait."""
    unit = f"{later.seconds} seconds" if later.seconds < 90 else f"{-(-later.seconds // 60)} minutes"
    return f"There were too many tries. Wait {'a second' if later.seconds == 1 else unit}, then try again."


def retry_after(later: TryLater) -> dict[str, str]:
    """RFC 6585 4."""
    return {"Retry-After": str(later.seconds)}
