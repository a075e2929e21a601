"""`/account`, `/account/password` and `/account/second-factor`: what people manage for themselves."""

from typing import Any

import segno
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smart_auth.login_pages import (
    ACCOUNT,
    LOGIN,
    STEPS,
    Errors,
    both,
    finish,
    leads_out,
    onward,
    retry_after,
    see_other,
    shown,
    wait_text,
)
from smart_auth.page_forms import PageError, posted
from smart_auth.pages import page
from smart_auth.passwords import Busy, problem
from smart_auth.people import ISSUER, People, TryLater
from smart_auth.sessions import Session, Step

PASSWORD = STEPS["password"]
SECOND_FACTOR = STEPS["enrol"]
_DONE = {
    "password": "Your password is changed. Everywhere else you are logged out.",
    "off": "The second factor is off.",
}


class AccountPages:
    """The handlers. What changes how somebody logs in asks for the password again."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def show_account(self, request: Request) -> Response:
        session = await self._session(request)
        if isinstance(session, Response):
            return session
        state = await self._people.second_factors.state(session.user)
        notice = _DONE.get(request.query_params.get("done", ""), "")
        return page("account.html", session=session, user=session.user, state=state, notice=notice)

    async def show_password(self, request: Request) -> Response:
        session = await self._session(request, "password")
        return session if isinstance(session, Response) else self._password_form(session)

    async def change_password(self, request: Request) -> Response:
        """Set another password; it ends all other sessions and what they granted."""
        session = await self._session(request, "password")
        if isinstance(session, Response):
            return session
        user = session.user
        form = await posted(request, session.csrf, self._people.origin)
        given, again = form.get("new", ""), form.get("again", "")
        errors: Errors = []
        if session.waits_for is None and not form.get("current"):
            errors.append(("current", "Enter your present password."))
        if text := problem(given, user.name):
            errors.append(("new", text))
        elif given != again:
            errors.append(("again", "The two new passwords are not the same."))
        if errors:
            return self._password_form(session, errors, status=422)
        if session.waits_for is None:
            refused = await self._refused(request, "password-change", session, form["current"])
            if refused is not None:
                return self._password_form(session, refused[0], **refused[1])
        try:
            found = await self._people.users.password_of(user.name)
            if found and (await self._people.passwords.check(found[1], given)).right:
                return self._password_form(session, [("new", "This is your present password: take another one.")], status=422)
            encoded = await self._people.passwords.hash(given)
        except Busy:
            return self._password_form(session, [("", wait_text(TryLater(2)))], status=429, headers={"Retry-After": "2"})
        changed = await self._people.recorded(
            request, "password-change", user, lambda users, _: users.set_password(user.name, encoded)
        )
        response = see_other("")
        after = await self._people.sessions.proven(response, session, changed)
        await self._people.sessions.end_others(after)
        await self._finish(request, response, session, after, "password")
        return response

    async def show_second_factor(self, request: Request) -> Response:
        session = await self._session(request, "enrol")
        return session if isinstance(session, Response) else await self._second_factor_page(session)

    async def change_second_factor(self, request: Request) -> Response:
        """Begin or confirm an enrolment, make new recovery codes, or turn it off, as the button says that was pressed."""
        session = await self._session(request, "enrol")
        if isinstance(session, Response):
            return session
        form = await posted(request, session.csrf, self._people.origin)
        action = form.get("action", "")
        if action == "confirm":
            return await self._confirm(request, session, form.get("code", ""))
        if action == "cancel":
            await self._people.sessions.stop_enrolling(session)
            return see_other(SECOND_FACTOR)
        if action not in {"begin", "codes", "off"}:
            raise PageError("There is no such action", "Nothing was done.")
        if session.waits_for is None:  # who has just logged in has just given it
            refused = await self._refused(request, f"second-factor-{action}", session, form.get("password", ""))
            if refused is not None:
                return await self._second_factor_page(session, refused[0], **refused[1])
        if action == "begin":
            await self._people.sessions.enrol(session, self._people.second_factors.new_secret(session.user))
            return see_other(SECOND_FACTOR)
        if not session.user.second_factor:
            return see_other(SECOND_FACTOR)
        return await (self._new_codes(request, session) if action == "codes" else self._turn_off(request, session))

    async def _confirm(self, request: Request, session: Session, code: str) -> Response:
        if session.enrolling is None:
            return see_other(SECOND_FACTOR)
        sealed, event = session.enrolling, "second-factor-enrolment"
        codes = await self._people.recorded(request, event, session.user, lambda _, f: f.enrol(session.user, sealed, code))
        if codes is None:
            await self._people.tell(request, event, session.user, refused="wrong code")
            text = "This code is not right. Enter the one that your app shows now; the clock of your device must be right."
            return await self._second_factor_page(session, [("code", text)], status=422)
        user = await self._people.users.get(session.user.name)
        if user is None:
            return see_other(LOGIN)
        response = Response()
        after = await self._people.sessions.proven(response, session, user, "otp", "mfa")
        await self._finish(request, response, session, after, "")
        shown_codes = self._codes_page(after, codes, response.headers["location"])
        shown_codes.raw_headers.extend(h for h in response.raw_headers if h[0] == b"set-cookie")
        return shown_codes

    async def _new_codes(self, request: Request, session: Session) -> Response:
        user = session.user
        codes = await self._people.recorded(request, "recovery-codes", user, lambda _, f: f.new_recovery_codes(user))
        return self._codes_page(session, codes, SECOND_FACTOR)

    async def _turn_off(self, request: Request, session: Session) -> Response:
        if session.user.needs_second_factor:
            raise PageError("Your role needs a second factor", "Nothing was done.", 403)
        before = session.user
        user = await self._people.recorded(request, "second-factor-off", before, lambda _, f: f.remove(before))
        response = see_other(f"{ACCOUNT}?done=off")
        await self._people.sessions.proven(response, session, user)
        return response

    async def _session(self, request: Request, *steps: Step) -> Session | Response:
        """The session, complete or waiting for one of these steps; or where to go instead."""
        session = await self._people.sessions.unfinished(request)
        if session is None:
            return see_other(f"{LOGIN}?next={request.url.path}")
        return session if session.waits_for is None or session.waits_for in steps else see_other(onward(session))

    async def _refused(
        self, request: Request, event: str, session: Session, password: str
    ) -> tuple[Errors, dict[str, Any]] | None:
        """Why the password that was given again doesn't do, and how to say so."""
        field = "current" if event == "password-change" else f"password-{event.removeprefix('second-factor-')}"
        try:
            user = await self._people.with_password(request, event, session.user.name, password)
        except TryLater as later:
            return [("", wait_text(later))], {"status": 429, "headers": retry_after(later)}
        return None if user is not None else ([(field, "This is not your password.")], {"status": 403})

    async def _finish(self, request: Request, response: Response, before: Session, after: Session, done: str) -> None:
        """Lead on after a change: in a login, to what it waits for or was to lead to; else back to the account."""
        if before.waits_for is None:
            response.headers["location"] = f"{ACCOUNT}?done={done}" if done else ACCOUNT
        else:
            await finish(self._people, request, response, after)

    def _password_form(self, session: Session, errors: Errors | None = None, **how: Any) -> Response:
        first = session.waits_for == "password"
        values: dict[str, Any] = {
            "session": None if first else session,
            "csrf": session.csrf,
            "first": first,
            "user": session.user,
        }
        return page("password.html", leads_out=first and leads_out(session.next), errors=errors or [], **values, **how)

    async def _second_factor_page(self, session: Session, errors: Errors | None = None, **how: Any) -> Response:
        user, factors = session.user, self._people.second_factors
        setting_up = session.enrolling is not None
        secret = factors.secret(user, session.enrolling) if session.enrolling else ""
        uri = factors.uri(user, session.enrolling, ISSUER) if session.enrolling else ""
        values: dict[str, Any] = {
            "session": session if session.waits_for is None else None,
            "csrf": session.csrf,
            "user": user,
            "first": session.waits_for == "enrol",
            "state": await factors.state(user),
            "secret": " ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
            "uri": uri,
            "qr_code": _qr_code(uri) if uri else "",
            "errors": errors or [],
        }
        return page("second_factor_setup.html" if setting_up else "second_factor.html", **values, **how)

    def _codes_page(self, session: Session, codes: list[str], leads_to: str) -> Response:
        header = session if session.waits_for is None else None
        return page("recovery_codes.html", session=header, codes=codes, leads_to=leads_to)


def _qr_code(text: str) -> Markup:
    """A text as a QR code (ISO/IEC 18004), as SVG within the page: dark on white in any colour scheme, as readers need it."""
    code = segno.make(text, error="m", micro=False)
    drawn = code.svg_inline(
        scale=4, border=4, light="#fff", title="QR code for your authenticator app", svgclass="qr", lineclass=None
    )
    return Markup(drawn)  # noqa: S704 - numbers only: the text is drawn, not written


def routes(people: People) -> list[Route]:
    """The routes of the account pages."""
    pages = AccountPages(people)
    return [
        Route(ACCOUNT, shown(pages.show_account), methods=["GET"]),
        *both(PASSWORD, pages.show_password, pages.change_password),
        *both(SECOND_FACTOR, pages.show_second_factor, pages.change_second_factor),
    ]
