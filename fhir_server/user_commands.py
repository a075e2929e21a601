"""`fhir-ris user add | list | disable | enable | change | password | mfa`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fhir_server.command import Db, end, print_table, run_command, settings, table
from fhir_server.start_error import StartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pymongo.asynchronous.client_session import AsyncClientSession

    from smart_auth.users import User

app = typer.Typer(no_args_is_help=True, help="People: who may log in, and as what.")
Name = Annotated[str, typer.Argument(metavar="NAME")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="read the password from standard input, one line")]


@app.command("add")
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="scheduler, technologist, radiologist, referrer, interface-admin, admin, auditor, privacy-officer")
    ],
    fhir_user: Annotated[str, typer.Option(metavar="Practitioner/ID", help="who it is in the store")],
    password_stdin: FromStdin = False,
) -> None:
    """Add a user. Without a password given, a one-time password is printed, to be changed at the first login."""
    from smart_auth.users import Users

    given = _password(name, from_stdin=password_stdin)

    async def act(db: Db) -> None:
        encoded, shown = await _hashed(given)
        once = shown is not None
        user = await _recorded(
            db, "user-add", lambda s: Users(db, s).add(name, role, fhir_user, encoded, must_change_password=once)
        )
        typer.echo(f"user {user.name} added as {user.role}")
        if await db["Practitioner"].find_one({"_id": fhir_user.partition("/")[2]}, {"_id": 1}) is None:
            typer.echo(f"note: there is no {fhir_user} in the store yet", err=True)
        _show(shown)

    run_command(act)


@app.command("list")
def show_all() -> None:
    """List the users."""
    from smart_auth.users import Users

    async def act(db: Db) -> None:
        rows = table("name", "role", "is", "second factor", "state", "since")
        for user in await Users(db).list():
            state = "disabled" if user.disabled else "one-time password" if user.must_change_password else "active"
            factor = "on" if user.second_factor else "to be enrolled" if user.needs_second_factor else "off"
            rows.add_row(user.name, user.role, user.fhir_user, factor, state, f"{user.created:%Y-%m-%d %H:%M}")
        print_table(rows)

    run_command(act)


@app.command("disable")
def disable(name: Name) -> None:
    """Shut a user out: logins, sessions and what apps were granted, at once."""
    _changed(name, "user-disable", "disabled")


@app.command("enable")
def enable(name: Name) -> None:
    """Let a user who was disabled log in again."""
    _changed(name, "user-enable", "enabled")


@app.command("change")
def change(
    name: Name,
    role: Annotated[str | None, typer.Option(help="another role")] = None,
    fhir_user: Annotated[str | None, typer.Option(metavar="Practitioner/ID", help="another Practitioner")] = None,
) -> None:
    """Give a user another role or Practitioner; sessions and what apps were granted end."""
    from smart_auth.users import Users

    async def act(db: Db) -> None:
        if role is None and fhir_user is None:
            raise StartError("nothing to change: give --role or --fhir-user")
        user = await _recorded(db, "user-change", lambda s: Users(db, s).change(name, role=role, fhir_user=fhir_user))
        typer.echo(f"user {user.name} is {user.role}, {user.fhir_user}")

    run_command(act)


@app.command("password")
def password(name: Name, password_stdin: FromStdin = False) -> None:
    """Give a user who forgot it another password; sessions and what apps were granted end."""
    from smart_auth.users import Users

    given = _password(name, from_stdin=password_stdin)

    async def act(db: Db) -> None:
        encoded, shown = await _hashed(given)
        once = shown is not None
        user = await _recorded(db, "user-password", lambda s: Users(db, s).set_password(name, encoded, must_change_password=once))
        typer.echo(f"user {user.name} has another password")
        _show(shown)

    run_command(act)


@app.command("mfa")
def mfa(
    name: Name, reset: Annotated[bool, typer.Option("--reset", help="take a lost one away; sessions and grants end")] = False
) -> None:
    """Show whether a user has a second factor."""
    from smart_auth.people import second_factor_key
    from smart_auth.second_factor import SecondFactors
    from smart_auth.users import Users

    async def act(db: Db) -> None:
        user = await Users(db).get(name)
        if user is None:
            raise StartError(f"there is no user {name.strip().lower()!r}")
        before, key = user, second_factor_key(settings().data_dir)
        if reset:
            user = await _recorded(db, "second-factor-reset", lambda s: SecondFactors(db, key, s).remove(before))
        state = await SecondFactors(db, key).state(user)
        if state is not None:
            left = f"{state.codes_left} recovery codes left"
            typer.echo(f"user {user.name} has a second factor since {state.since:%Y-%m-%d %H:%M}, {left}")
        else:
            must = ", and must enrol one at the next login" if user.needs_second_factor else ""
            typer.echo(f"user {user.name} has no second factor{must}")

    run_command(act)


def _changed(name: str, event: str, word: str) -> None:
    from smart_auth.users import Users

    async def act(db: Db) -> None:
        user = await _recorded(db, event, lambda s: Users(db, s).disable(name, disabled=word == "disabled"))
        typer.echo(f"user {user.name} is {word}")

    run_command(act)


def _password(name: str, *, from_stdin: bool) -> str | None:
    """The password that the caller gives, good enough; None to make one."""
    from smart_auth.passwords import problem

    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        given = typer.prompt(
            "Password (empty: one is made)", default="", hide_input=True, confirmation_prompt=True, show_default=False
        )
        if not given:
            return None
    else:
        return None
    if text := problem(given, name.strip().lower()):
        end([text])
    return given


async def _hashed(given: str | None) -> tuple[str, str | None]:
    """The hash, and the one-time password that was made if none was given."""
    from smart_auth.passwords import Passwords, one_time

    made = one_time() if given is None else None
    return await Passwords().hash(given or made or ""), made


def _show(one_time_password: str | None) -> None:
    if one_time_password is not None:
        typer.echo(f"one-time password, to be changed at the first login, not shown again: {one_time_password}")


async def _recorded(db: Db, event: str, change: "Callable[[AsyncClientSession], Awaitable[User]]") -> "User":
    """The user after a change, whose AuditEvent is stored with it; a user that can't be changed so ends the command."""
    from fhir_server.audit_key import audit_key
    from fhir_server.store import Store
    from smart_auth import people_audit
    from smart_auth.users import UserError

    def told(user: "User") -> dict[str, Any]:
        return people_audit.of_operator(event, user, f"{user.role}, {user.fhir_user}")

    store = Store(db, audit_key=audit_key(settings().data_dir))
    try:
        user = await people_audit.recorded(store, change, told)
        await store.trail.note_heads()
        return user
    except UserError as error:
        raise StartError(str(error)) from None
