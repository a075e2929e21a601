"""The addresses of the console, and what every request at one of them passes: session, role, form, and refusals as pages."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import quote, urlsplit

import structlog
from pymongo.errors import PyMongoError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from console import forms, live, pages
from console.asking import Desk
from console.live import BY_ITSELF
from console.screen import Door, Screen, does
from console.screens import SCREENS, doors
from console.texts import LANGUAGES, locale_of, texts
from console.visit import Console, Visit, access_of
from fhir_server.outcome import FhirError, Issue
from fhir_server.transactions import unavailable
from smart_auth.page_forms import PageError, internal_path
from smart_auth.sessions import Session

log = structlog.get_logger()
LANGUAGE = "ris-language"
_SESSION_LOOKED_AT = 30.0  # seconds
_ENDED = "event: ended\ndata: -\n\n"


def routes(console: Console) -> list[Route]:
    """Every address of every screen, the events, the choice of a language, and what pages are made of."""
    entry = _Entry(console)
    made = [Route(door.path, entry.at(screen, door), methods=[door.method]) for screen in SCREENS for door in doors(screen)]
    language = does("/language", choose_language)
    own = [Route("/events", entry.events, methods=["GET"]), Route(language.path, entry.at(None, language), methods=["POST"])]
    return [*made, *own, *pages.routes()]


class _Entry:
    def __init__(self, console: Console) -> None:
        self._console = console

    def at(self, screen: Screen | None, door: Door) -> Callable[[Request], Awaitable[Response]]:
        """The handler of a door, for Starlette."""

        async def handle(request: Request) -> Response:
            visit = await self._visit(request)
            if isinstance(visit, Response):
                return visit
            visit.screen = screen
            try:
                return await self._through(visit, door)
            except PageError as error:
                return _problem(visit, error.status, f"problem.{error.title}")
            except FhirError as error:
                return _refused(visit, error)
            except PyMongoError as error:
                log.warning("the console could not reach MongoDB", error=type(error).__name__)
                return _refused(visit, unavailable())
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception:
                log.exception("a page failed", method=door.method, door=door.path)
                return _problem(visit, 500, "problem.exception")

        return handle

    async def _through(self, visit: Visit, door: Door) -> Response:
        if door.method == "POST":
            visit.form = await forms.posted(visit.request, visit.session.csrf, self._console.people.origin)
        for need in (visit.screen.needs if visit.screen and not door.alone else "", door.needs):
            if need:
                await visit.require(need)
        try:
            return await door.handler(visit)
        except FhirError as error:
            if door.again is None or error.code == "forbidden":
                raise
            visit.failed(error)
            visit.here = _page_of(visit, door)
            return await door.again(visit)

    async def _visit(self, request: Request) -> Visit | Response:
        asked_at = time.time()
        session = await self._console.people.sessions.current(request, counts=BY_ITSELF not in request.headers)
        if session is None:
            return _log_in(request)
        t = texts(locale_of(request.headers.get("accept-language", ""), request.cookies.get(LANGUAGE, "")[:2]))
        peer = request.client.host if request.client else None
        access = await access_of(session, self._console.interactions)
        return Visit(request, self._console, session, Desk(self._console.rest, access, peer), t, asked_at)

    async def events(self, request: Request) -> Response:
        """Server-sent events: `changed` with the kinds, as they change; `ended` when nobody is logged in any more; `enough` where
        a page is to make room."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        session = await self._console.people.sessions.current(request, counts=False)
        if session is None:
            return Response(_ENDED, media_type="text/event-stream", headers=headers)
        known = {*live.RESOURCES, *live.OTHERS}
        kinds = {kind for kind in request.query_params.get("of", "").split(",") if kind in known}
        try:
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            since = 0.0
        return StreamingResponse(self._told(request, session, kinds, since), media_type="text/event-stream", headers=headers)

    async def _told(self, request: Request, session: Session, kinds: set[str], since: float) -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        looked = time.monotonic()
        async for changed in self._console.changes.listen(kinds, since, session.id):
            if live.ENOUGH in changed:
                yield "event: enough\ndata: -\n\n"
                return
            yield f"event: changed\ndata: {','.join(sorted(changed))}\n\n" if changed else ": still here\n\n"
            if time.monotonic() - looked > _SESSION_LOOKED_AT:
                looked = time.monotonic()
                now = await self._console.people.sessions.current(request, counts=False)
                if now is None or now.id != session.id:
                    yield _ENDED
                    return
            await asyncio.sleep(0)


async def choose_language(visit: Visit) -> Response:
    """Set the language of this browser, and go on where one was."""
    response = visit.to(internal_path(visit.form.get("next"), "/"))
    if visit.form.get("language") in LANGUAGES:
        secure, chosen = visit.console.people.origin.startswith("https:"), visit.form.text("language")
        response.set_cookie(LANGUAGE, chosen, max_age=31536000, path="/", secure=secure, httponly=True, samesite="lax")
    return response


def _page_of(visit: Visit, door: Door) -> str:
    """Where the page stands that is shown again after a refusal: it is reloaded, and asks for what is new, there.

    The form's address has the query of the page that it stands on: its filters, and what was chosen there.
    """
    pages_ = [d.path for d in doors(visit.screen) if d.method == "GET" and d.handler is door.again] if visit.screen else []
    path = door.path if door.path in pages_ else next(iter(pages_), "")
    return visit.with_query(path.format(**visit.request.path_params)) if path else ""


def _log_in(request: Request) -> Response:
    if BY_ITSELF in request.headers:
        return Response(status_code=401)
    here = urlsplit(str(request.url))
    came = f"{here.path}?{here.query}" if here.query else here.path
    return RedirectResponse(f"/login?next={quote(came if request.method == 'GET' else '/', safe='')}", 303)


def _refused(visit: Visit, error: FhirError) -> Response:
    return _problem(visit, error.status, f"problem.{error.code}", error.issues)


def _problem(visit: Visit, status: int, name: str, issues: Sequence[Issue] = ()) -> Response:
    visit.status, visit.errors = status, []
    known = name if f"{name}.title" in visit.t else "problem.refused"
    return visit.page("problem.html", name=known, issues=issues)
