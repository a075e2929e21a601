"""What the check of a token costs: nothing while it is known, one command by indexed keys when it has to be looked up."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from fhir_server.outcome import FhirError
from smart_auth import circumstances
from smart_auth.access import Access
from smart_auth.clients import Clients
from smart_auth.tokens import Tokens, token_id
from smart_auth.users import Users
from tests.fhir_app import FhirApp, unused
from tests.smart_world import Caller, World, consent, label, ref, resource
from tests.test_smart_token_endpoint import JWKS

FAR = datetime(2100, 1, 1, tzinfo=UTC)
OTHERS = 300
"""Patients, roles and orders that don't concern the caller."""


class Commands(CommandListener):
    """The names of the commands that a client sends."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.sent.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture(scope="module")
def world(app: FhirApp) -> World:
    world = World(app)
    for kind, elements in (("Patient", {}), ("PractitionerRole", {"practitioner": ref("Practitioner/other")})):
        entries = [resource(kind, f"many-{n}", **elements) for n in range(OTHERS)]
        requests = [{"resource": r, "request": {"method": "PUT", "url": f"{kind}/{r['id']}"}} for r in entries]
        answer = app.send("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": requests})
        assert answer.status_code == 200
    app.put(resource("PractitionerRole", "rad-role", practitioner=ref("Practitioner/rad"), organization=ref("Organization/org")))
    app.put(resource("Patient", "secret", meta=label("V")))
    app.put(consent("no", "b", {"type": "deny", "actor": [actor("Organization/org")]}))
    return world


def actor(reference: str) -> dict[str, Any]:
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}
    return {"role": role, "reference": ref(reference)}


def caller_of(world: World, who: str) -> Caller:
    """A backend service, an app of a patient, or somebody in this role."""
    callers = {"backend": lambda: world.caller("system/*.rs"), "patient": world.patient}
    return callers[who]() if who in callers else world.person(who, grant=unused("grant"))


def checked(app: FhirApp, bearer: str, times: int = 3) -> tuple[list[str], Access | None]:
    """What a new process sends for so many checks of a token, and what it makes of it."""
    commands = Commands()

    async def check() -> tuple[list[str], Access | None]:
        async with AsyncMongoClient[dict[str, Any]](app._uri, event_listeners=[commands]) as client:
            db = client[app.db.name]
            await db.command("ping")
            commands.sent.clear()
            tokens = Tokens(db)
            access = [await tokens.authenticate(bearer) for _ in range(times)][-1]
            return commands.sent[:], access  # what the client sends as it closes is not ours

    return asyncio.run(check())


@pytest.mark.parametrize("who", ["backend", "patient", "referrer", "radiologist", "auditor"])
def test_a_token_that_is_not_known_yet_costs_one_command_and_a_known_one_none(app: FhirApp, world: World, who: str) -> None:
    caller = caller_of(world, who)
    app.run(app.db.command("profile", 2, filter={"ns": f"{app.db.name}.oauth_tokens", "op": "command"}))
    commands, access = checked(app, caller.bearer)
    app.run(app.db.command("profile", 0))
    assert access is not None
    assert commands == ["aggregate"]
    (told,) = app.run(_profiled(app))
    assert told["docsExamined"] <= 20  # of hundreds: each look went by an index
    assert told["keysExamined"] <= 60


async def _profiled(app: FhirApp) -> list[dict[str, Any]]:
    found = [d async for d in app.db["system.profile"].find({"command.aggregate": "oauth_tokens"})]
    await app.db["system.profile"].drop()
    return found


@pytest.mark.parametrize("who", ["backend", "patient", "referrer", "radiologist", "auditor"])
def test_what_is_looked_up_again_is_looked_up_as_the_first_time(app: FhirApp, world: World, who: str) -> None:
    bearer = caller_of(world, who).bearer
    commands = Commands()

    async def check() -> tuple[list[str], list[Access | None]]:
        async with AsyncMongoClient[dict[str, Any]](app._uri, event_listeners=[commands]) as client:
            db = client[app.db.name]
            await db.command("ping")
            commands.sent.clear()
            tokens = Tokens(db)
            found = []
            for _ in range(2):
                found.append(await tokens.authenticate(bearer))
                tokens.forget(token_id(bearer))
            return commands.sent[:], found

    sent, (first, again) = asyncio.run(check())
    assert sent == ["aggregate", "aggregate"]
    assert first is not None
    assert again is not None
    assert without_moment(first) == without_moment(again)


def without_moment(access: Access) -> Any:
    """What it says, but for the time at which denials were judged."""
    about = access.circumstances
    said = about and (about.own, about.closed, about.opened, [(d.patients, d.provision, d.who) for d in about.denials])
    return access.scopes, access.user, access.role, access.patient, access.grant, access.purpose, said


def test_what_is_found_in_one_command_is_what_rights_depend_on(app: FhirApp, world: World) -> None:
    _, rad = checked(app, world.person("radiologist", grant=unused("grant")).bearer)
    assert rad is not None
    assert rad.circumstances is not None
    assert rad.circumstances.closed == {"secret"}
    (denial,) = rad.circumstances.denials
    assert denial.patients == {"b"}
    assert denial.who >= {"Practitioner/rad", "PractitionerRole/rad-role", "Organization/org"}
    _, referrer = checked(app, world.person("referrer", grant=unused("grant")).bearer)
    assert referrer is not None
    assert referrer.circumstances is not None
    assert referrer.circumstances.own == {"a"}
    _, backend = checked(app, world.caller("system/*.rs").bearer)
    assert backend is not None
    assert backend.circumstances is None


@pytest.mark.parametrize("end", ["client", "user", "grant", "login", "token"])
def test_a_token_is_dead_at_the_next_look_when_what_it_stands_on_is_gone(app: FhirApp, world: World, end: str) -> None:
    user, grant, client = unused("user"), unused("grant"), unused("client")

    async def make() -> str:
        registered = await Clients(app.db).add(client, "system/*.rs", jwks=JWKS)
        person = await Users(app.db).add(user, "radiologist", "Practitioner/rad", "encoded")
        owner = {"user": user, "registration": person.registration, "stamp": person.security_stamp}
        later = {"expires": FAR}
        await app.db["oauth_sessions"].insert_one({"_id": f"s-{grant}", "cookie": grant, "seen": FAR, **owner, **later})
        document = {
            "_id": grant, "client_id": client, "registration": registered.registration, "user_name": user,
            "user": "Practitioner/rad", "role": "radiologist", "user_registration": person.registration,
            "stamp": person.security_stamp, "scope": "user/*.rs", "nonce": None, "life": "online", "session": f"s-{grant}",
            "auth_time": FAR, "amr": ["pwd"], "context": {}, "created": FAR,
        }  # fmt: skip
        await app.db["oauth_grants"].insert_one(document | later)
        context = {"user": "Practitioner/rad", "user_name": user, "role": "radiologist", "grant": grant}
        return await Tokens(app.db).issue(registered, "user/*.rs", 3600, **context)

    bearer = app.run(make())
    assert checked(app, bearer)[1] is not None
    removed = {
        "client": ("oauth_clients", client), "user": ("oauth_users", user), "grant": ("oauth_grants", grant),
        "login": ("oauth_sessions", f"s-{grant}"), "token": ("oauth_tokens", token_id(bearer)),
    }  # fmt: skip
    collection, id_ = removed[end]
    assert app.run(app.db[collection].delete_one({"_id": id_})).deleted_count == 1
    assert checked(app, bearer, times=1) == (["aggregate"], None)


def test_more_than_can_be_told_apart_is_refused_and_not_shown(
    app: FhirApp, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circumstances, "MOST", 1)
    app.put(resource("Patient", "secret-2", meta=label("V")))
    with pytest.raises(FhirError) as refused:
        checked(app, world.person("radiologist", grant=unused("grant")).bearer)
    assert refused.value.status == 403


def test_more_than_a_document_holds_is_refused_and_not_shown(app: FhirApp, world: World) -> None:
    long = {"type": "deny", "code": [{"text": "x" * 900_000}]}
    for n in range(20):
        app.put(consent(f"long-{n}", "a", long))
    with pytest.raises(FhirError) as refused:
        checked(app, world.person("radiologist", grant=unused("grant")).bearer)
    for n in range(20):
        assert app.send("DELETE", f"Consent/long-{n}").status_code == 204
    assert refused.value.status == 403
