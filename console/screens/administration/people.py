"""People: who may log in, as what, where they are logged in, and what they have granted to apps."""

from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from console.screen import Door, does, shows
from console.screens.administration.things import label, labels
from console.visit import Visit
from fhir_server.outcome import fail
from smart_auth.administration import Administration, Granted, version
from smart_auth.roles import ROLES
from smart_auth.users import User

_PATH = "/administration/users"
_MOST_PRACTITIONERS = "500"


@dataclass(frozen=True, slots=True)
class Row:
    """A user in the list. `state`: active, disabled or one-time; `factor`: on, due or off."""

    name: str
    role: str
    called: str
    fhir_user: str
    state: str
    factor: str
    since: datetime


def administration(visit: Visit) -> Administration:
    """What the person at this browser does as an administrator."""
    console = visit.console
    return Administration(console.people, console.tokens, visit.session, visit.desk.peer or "")


def _state(user: User) -> str:
    return "disabled" if user.disabled else "one-time" if user.must_change_password else "active"


def _factor(user: User) -> str:
    return "on" if user.second_factor else "due" if user.needs_second_factor else "off"


async def index(visit: Visit) -> Response:
    """All users, or those of a role."""
    role, shown = visit.asked("role"), visit.asked("state")
    users = await visit.console.people.users.list()
    chosen = [u for u in users if (not role or u.role == role) and (not shown or _state(u) == shown)]
    called = await labels(visit, (u.fhir_user for u in chosen))
    rows = [Row(u.name, u.role, called.get(u.fhir_user, ""), u.fhir_user, _state(u), _factor(u), u.created) for u in chosen]
    return visit.page("administration/users.html", rows=rows, role=role, state=shown, roles=list(ROLES), total=len(users))


async def _practitioners(visit: Visit) -> list[tuple[str, str]]:
    found = await visit.desk.search("Practitioner", _count=_MOST_PRACTITIONERS, _sort="family")
    return [(f"Practitioner/{p['id']}", label(p)) for p in found]


async def new(visit: Visit) -> Response:
    """The form for a new user."""
    return visit.page("administration/user_new.html", roles=list(ROLES), practitioners=await _practitioners(visit))


async def add(visit: Visit) -> Response:
    """Add a user; the one-time password is shown on the page that answers, and nowhere else."""
    form = visit.form
    user, password = await administration(visit).add_user(form.text("name"), form.text("role"), form.text("fhir-user"))
    return visit.page("administration/password.html", user=user, password=password, is_new=True)


async def _user(visit: Visit) -> User:
    user = await visit.console.people.users.get(visit.id("name"))
    if user is None:
        raise fail("not-found", "there is no such user")
    return user


async def show(visit: Visit) -> Response:
    """One user."""
    user = await _user(visit)
    people = visit.console.people
    granted: list[Granted]
    practitioners, factor, logins, granted = await visit.desk.together(
        _practitioners(visit),
        people.second_factors.state(user),
        people.sessions.of_user(user),
        administration(visit).granted_by(user),
    )
    return visit.page(
        "administration/user.html",
        user=user,
        version=version(user),
        state=_state(user),
        factor=factor,
        logins=logins,
        granted=granted,
        roles=list(ROLES),
        practitioners=practitioners,
        called=dict(practitioners).get(user.fhir_user, ""),
        is_me=user.name == visit.session.user.name,
    )


async def change(visit: Visit) -> Response:
    form, name = visit.form, visit.id("name")
    await administration(visit).change_user(name, form.text("version"), form.text("role"), form.text("fhir-user"))
    return visit.to(f"{_PATH}/{name}", "administration-user-changed")


async def disable(visit: Visit) -> Response:
    name = visit.id("name")
    await administration(visit).disable_user(name, visit.form.text("version"), disabled=True)
    return visit.to(f"{_PATH}/{name}", "administration-user-disabled")


async def enable(visit: Visit) -> Response:
    name = visit.id("name")
    await administration(visit).disable_user(name, visit.form.text("version"), disabled=False)
    return visit.to(f"{_PATH}/{name}", "administration-user-enabled")


async def password(visit: Visit) -> Response:
    """A one-time password, shown on the page that answers, and nowhere else."""
    user = await _user(visit)
    made = await administration(visit).new_password(user.name, visit.form.text("version"))
    return visit.page("administration/password.html", user=user, password=made, is_new=False)


async def second_factor(visit: Visit) -> Response:
    name = visit.id("name")
    await administration(visit).reset_second_factor(name, visit.form.text("version"))
    return visit.to(f"{_PATH}/{name}", "administration-factor-reset")


async def end_sessions(visit: Visit) -> Response:
    name = visit.id("name")
    await administration(visit).end_sessions(name)
    return visit.to(f"{_PATH}/{name}", "administration-sessions-ended")


async def withdraw(visit: Visit) -> Response:
    """End what the user has granted to an app."""
    name = visit.id("name")
    await administration(visit).withdraw(name, visit.form.text("client"))
    return visit.to(f"{_PATH}/{name}", "administration-withdrawn")


_ACTS = {
    "change": change, "disable": disable, "enable": enable, "password": password, "second-factor": second_factor,
    "sessions": end_sessions, "withdraw": withdraw,
}  # fmt: skip
DOORS: list[Door] = [
    shows(_PATH, index),
    shows(f"{_PATH}/new", new),
    does(f"{_PATH}/new", add, new),
    shows(f"{_PATH}/{{name}}", show),
    *(does(f"{_PATH}/{{name}}/{act}", handler, show) for act, handler in _ACTS.items()),
]
