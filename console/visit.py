"""One request of a person at the console: who it is, in which language, and what a page is made of."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from console import pages
from console.asking import Desk
from console.forms import Form
from console.live import Changes
from console.texts import Texts
from fhir_server import clock
from fhir_server.audit import Act, audit_event
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.rest import Rest
from fhir_server.settings import Settings
from smart_auth.access import Access
from smart_auth.people import People
from smart_auth.roles import role
from smart_auth.scopes import Action, parse_scopes
from smart_auth.sessions import Session
from smart_auth.tokens import Tokens

if TYPE_CHECKING:
    from console.screen import Screen

Handler = Callable[["Visit"], Awaitable[Response]]
CLIENT = "console"
_FIRST, _LAST = 1800, 9000  # years between which a day more or less is still a date
_PART = re.compile(r"[A-Za-z0-9][\w.@:+~-]{0,199}", re.ASCII)
_SCOPES = parse_scopes("user/*.cruds")  # what a person may do is what the role may


@dataclass(frozen=True, slots=True)
class Console:
    """What all screens work with; one a process."""

    rest: Rest
    interactions: Interactions
    people: People
    tokens: Tokens
    settings: Settings
    changes: Changes

    @property
    def zone(self) -> tzinfo:
        """The department's time zone."""
        return self.settings.zone


async def access_of(session: Session, interactions: Interactions) -> Access:
    """The rights of who is logged in: those of the role, under the same circumstances as with a token of an app."""
    user = session.user
    access = Access(
        CLIENT,
        _SCOPES,
        "",
        user=user.fhir_user,
        user_name=user.name,
        role=user.role,
        grant=session.id,
        authenticated_at=session.authenticated_at,
        methods=session.amr,
    )
    return await access.settled(interactions.store.db)


@dataclass(slots=True)
class Visit:
    """What a handler is given. `errors` are those of a form that is shown again: with FHIRPaths of elements, or "".

    `asked_at` is when the request came (seconds since 1970), for the page to learn what changes from then on; `here` the address
    of the page itself, where a refused form has made it.
    """

    request: Request
    console: Console
    session: Session
    desk: Desk
    t: Texts
    asked_at: float
    screen: "Screen | None" = None
    form: Form = field(default_factory=lambda: Form({}))
    errors: list[Issue] = field(default_factory=list)
    status: int = 200
    here: str = ""
    now: datetime = field(default_factory=lambda: clock.now())

    # Who, when, where

    @property
    def access(self) -> Access:
        return self.desk.access

    @property
    def zone(self) -> tzinfo:
        """The department's time zone."""
        return self.console.zone

    @property
    def today(self) -> date:
        return self.now.astimezone(self.zone).date()

    @property
    def role(self) -> str:
        return self.session.user.role

    @property
    def me(self) -> str:
        """The reference to the person's own resource, such as `Practitioner/1`; "" where there is none."""
        return self.session.user.fhir_user or ""

    def id(self, name: str = "id") -> str:
        """A part of the address: `/orders/{id}`. FhirError 404 for what would be more than a part in an address of FHIR's."""
        part = str(self.request.path_params[name])
        if not _PART.fullmatch(part):
            raise fail("not-found", "there is nothing of that name")
        return part

    def asked(self, name: str, otherwise: str = "") -> str:
        """A parameter of the address (never one that tells of a patient)."""
        return self.request.query_params.get(name, otherwise)

    def with_query(self, path: str) -> str:
        """A path with the query of this address."""
        query = self.request.url.query
        return f"{path}?{query}" if query else path

    def moment(self, text: str) -> datetime:
        """What a person has typed or picked as a local date and time (2026-11-29T14:05). FhirError for anything else."""
        try:
            typed = datetime.fromisoformat(text)
            at = (typed if typed.tzinfo else typed.replace(tzinfo=self.zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            at = None
        if at is None or not _FIRST <= at.year < _LAST:
            raise fail("value", self.t("say.not-a-moment", text=text[:40]), status=422)
        return at

    def viewer(self, study_uid: str) -> str:
        """Where the outside viewer shows a study (`RIS_VIEWER_URL`); "" without one."""
        template = self.console.settings.viewer_url
        return template.replace("{study}", quote(study_uid, safe="")) if template and study_uid else ""

    # What the role allows

    def allows(self, resource_type: str, action: Action) -> bool:
        """Whether an interaction is possible at all."""
        return self.access.allows(resource_type, action)

    def calls(self, operation: str) -> bool:
        """Whether an operation may be called, by its name in `smart_auth/roles.py`."""
        known = role(self.role)
        return known is not None and known.calls(operation)

    def can(self, need: str) -> bool:
        """The same for what a table says: `ServiceRequest.s`, or `$order-accept`; of several, any is enough."""
        return any(self._can(one) for one in need.split())

    def _can(self, need: str) -> bool:
        if need.startswith("$"):
            return self.calls(need[1:])
        resource_type, _, action = need.partition(".")
        return self.allows(resource_type, action)  # type: ignore[arg-type] # one of cruds

    async def require(self, need: str) -> None:
        """FhirError 403, on record, unless the role can."""
        if not self.can(need):
            act = Act("operation" if need.startswith("$") else "search-type", peer=self.desk.peer, source="console")
            text = f"the role {self.role} can't do what this page is for ({need})"
            interactions = self.console.interactions
            await interactions.store.ensure("AuditEvent")
            await interactions.reads.write(audit_event(act, self.access, (), failed=text))
            raise fail("forbidden", text)

    # Answers

    def page(self, template: str, **values: Any) -> Response:
        """The page that a template makes of these values, beside `visit`, `t`, and what `templates/base.html` needs."""
        return pages.page(self, template, values)

    def to(self, path: str, done: str = "", **parameters: str) -> Response:
        """Go to another page, as after a form (303); `done` names the text that it then shows: `done.<done>`."""
        query = urlencode({**parameters, **({"done": done} if done else {})})
        joined = f"{path}{'&' if '?' in path else '?'}{query}" if query else path
        return RedirectResponse(joined, 303)

    def failed(self, error: FhirError) -> None:
        """Show what was refused on the page that is made next."""
        self.errors, self.status = list(error.issues), error.status
