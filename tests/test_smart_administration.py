"""What administrators do to people: the last one stays, whoever is faster, and each change is on record with its maker."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fhir_server.outcome import FhirError
from smart_auth.administration import Administration, version
from smart_auth.people import People
from smart_auth.sessions import Session
from smart_auth.users import User
from tests import people_app
from tests.people_app import PeopleApp


@pytest.fixture(scope="module")
def app(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleApp]:
    with people_app.serving_people(mongodb_uri, Path(tmp_path_factory.mktemp("people"))) as serving:
        yield serving


def as_(app: PeopleApp, user: User) -> Administration:
    """What this user does as an administrator."""

    async def nothing(*_: object) -> None: ...

    people = People.over(app.ris.interactions.store, app.base_url, app.data_dir, nothing)
    return Administration(people, app.ris.tokens, Session(f"s-{user.name}", user, ("pwd",), datetime.now(UTC), "csrf"))


def test_of_two_administrators_who_shut_each_other_out_one_stays(app: PeopleApp) -> None:
    for _ in range(5):
        one, other = app.user("admin"), app.user("admin")

        async def both(one: User = one, other: User = other) -> list[object]:
            acts = (
                as_(app, one).disable_user(other.name, version(other), disabled=True),
                as_(app, other).disable_user(one.name, version(one), disabled=True),
            )
            return list(await asyncio.gather(*acts, return_exceptions=True))

        done = app.run(both())
        refused = [d for d in done if isinstance(d, FhirError)]
        assert len(refused) == 1, done
        assert "last administrator" in str(refused[0])
        left = [u for u in app.run(app.users.list()) if u.role == "admin" and not u.disabled]
        assert len(left) == 1
        app.run(app.users.disable(left[0].name))


def test_the_last_administrator_is_not_made_another_role(app: PeopleApp) -> None:
    one = app.user("admin")
    outsider = app.user("scheduler")  # whose browser still is an administrator's
    with pytest.raises(FhirError, match="last administrator"):
        app.run(as_(app, outsider).change_user(one.name, version(one), "scheduler", one.fhir_user))
    app.user("admin")
    changed = app.run(as_(app, outsider).change_user(one.name, version(one), "scheduler", one.fhir_user))
    assert changed.role == "scheduler"


def test_what_is_refused_leaves_nothing_on_record(app: PeopleApp) -> None:
    me, user = app.user("admin"), app.user("radiologist")
    before = len(app.audited())
    for act in (
        as_(app, me).add_user(user.name, "scheduler", "Practitioner/x"),
        as_(app, me).add_user("new one", "scheduler", "Practitioner/x"),
        as_(app, me).add_user("newone", "emperor", "Practitioner/x"),
        as_(app, me).change_user(user.name, version(user), "radiologist", "Patient/1"),
        as_(app, me).reset_second_factor(user.name, version(user)),
        as_(app, me).remove_client("no-such", "x"),
    ):
        with pytest.raises(FhirError):
            app.run(act)
    assert len(app.audited()) == before
