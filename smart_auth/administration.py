"""What an administrator does at the console to people, to apps, and to what people granted to apps: the same changes as by
`fhir-ris user` and `fhir-ris client`, each stored in one transaction with its AuditEvent, under the administrator's name.

Beyond what the command line may: nobody shuts out themselves, and one administrator at least who can log in is left.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.outcome import fail
from fhir_server.store import Document
from smart_auth import people_audit
from smart_auth.clients import Client, ClientError, Clients
from smart_auth.consents import Consents, Remembered
from smart_auth.grants import Grant, Grants, Life
from smart_auth.passwords import Busy, one_time
from smart_auth.people import People
from smart_auth.second_factor import SecondFactors
from smart_auth.sessions import Session
from smart_auth.tokens import Tokens
from smart_auth.users import User, UserError, Users, users_collection

T = TypeVar("T")
ADMIN = "admin"


def version(user: User) -> str:
    """Another one with each change of the record: a form sends the one that it showed."""
    of = (user.registration, user.role, user.fhir_user, user.disabled, user.second_factor, user.must_change_password)
    return hashlib.sha256(repr((*of, user.security_stamp)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Granted:
    """What one person has granted to one app: `life` is the longest of it, None when nothing of it is in use any more."""

    user_name: str
    client_id: str
    since: datetime
    life: Life | None
    scopes: tuple[str, ...]


class Administration:
    """What `by` does, who is logged in as an administrator. Everything raises FhirError for what can't be done."""

    def __init__(self, people: People, tokens: Tokens, by: Session, peer: str = "") -> None:
        self._people, self._tokens, self._by, self._peer = people, tokens, by, peer
        self._db = people.store.db

    # People

    async def add_user(self, name: str, role: str, fhir_user: str) -> tuple[User, str]:
        """A new user, and the one-time password."""
        password, encoded = await self._one_time()

        async def change(session: AsyncClientSession) -> User:
            return await Users(self._db, session).add(name, role, fhir_user, encoded, must_change_password=True)

        return await self._recorded("user-add", change), password

    async def change_user(self, name: str, shown: str, role: str, fhir_user: str) -> User:
        """Another role or Practitioner. `shown`: the version that the administrator has seen, here as in what follows."""

        async def change(users: Users, user: User) -> User:
            if (user.role, user.fhir_user) == (role, fhir_user):
                raise fail("business-rule", "this is what the user is already")
            if role != user.role:
                await self._keeps_an_admin(users, user)
            return await users.change(user.name, role=role, fhir_user=fhir_user)

        return await self._changed("user-change", name, shown, change)

    async def disable_user(self, name: str, shown: str, *, disabled: bool) -> User:
        """Shut a user out, or let them in again."""

        async def change(users: Users, user: User) -> User:
            if user.disabled == disabled:
                raise fail("business-rule", f"the user is {'disabled' if disabled else 'enabled'} already")
            if disabled:
                await self._keeps_an_admin(users, user)
            return await users.disable(user.name, disabled=disabled)

        return await self._changed("user-disable" if disabled else "user-enable", name, shown, change)

    async def new_password(self, name: str, shown: str) -> str:
        """A one-time password for a user who forgot theirs."""
        password, encoded = await self._one_time()

        async def change(users: Users, user: User) -> User:
            return await users.set_password(user.name, encoded, must_change_password=True)

        await self._changed("user-password", name, shown, change)
        return password

    async def reset_second_factor(self, name: str, shown: str) -> User:
        """Take a lost second factor away."""

        async def change(users: Users, user: User) -> User:
            if not user.second_factor:
                raise fail("business-rule", "the user has no second factor")
            return await SecondFactors(self._db, self._people.key, users.session).remove(user)

        return await self._changed("second-factor-reset", name, shown, change)

    async def end_sessions(self, name: str) -> User:
        """Log a user out everywhere; oneself everywhere else."""

        async def change(session: AsyncClientSession) -> User:
            user = await self._present(Users(self._db, session), name)
            await self._people.sessions.end_of(user, self._by.id, session)
            return user

        return await self._recorded("sessions-end", change)

    async def _changed(self, event: str, name: str, shown: str, act: Callable[[Users, User], Awaitable[User]]) -> User:
        async def change(session: AsyncClientSession) -> User:
            users = Users(self._db, session)
            user = await self._present(users, name)
            if user.name == self._by.user.name:
                raise fail("business-rule", "this can't be done to oneself: another administrator does it, or /account")
            if version(user) != shown:
                raise fail("conflict", "somebody else has changed this user meanwhile: look at what it is now")
            return await act(users, user)

        return await self._recorded(event, change)

    async def _keeps_an_admin(self, users: Users, user: User) -> None:
        """Refuse what would leave no administrator. Of two at once who shut each other out one comes too late, for the one
        who stays is written to, too."""
        if user.role != ADMIN or user.disabled:
            return
        stays = {"role": ADMIN, "disabled": False, "_id": {"$ne": user.name}}
        touched = await users_collection(self._db).update_one(stays, {"$currentDate": {"kept": True}}, session=users.session)
        if not touched.matched_count:
            raise fail("business-rule", "this is the last administrator who can log in")

    async def _present(self, users: Users, name: str) -> User:
        user = await users.get(name)
        if user is None:
            raise fail("not-found", f"there is no user {name[:64]!r}")
        return user

    async def _one_time(self) -> tuple[str, str]:
        password = one_time()
        try:
            return password, await self._people.passwords.hash(password)
        except Busy:
            raise fail("transient", "too many passwords are being checked: try again in a moment") from None

    async def _recorded(self, event: str, change: Callable[[AsyncClientSession], Awaitable[User]]) -> User:
        def told(user: User) -> Document:
            return people_audit.of_administrator(event, self._by.user, user, f"{user.role}, {user.fhir_user}", self._peer)

        return await self._stored(change, told)

    async def _stored(self, change: Callable[[AsyncClientSession], Awaitable[T]], told: Callable[[T], Document]) -> T:
        try:
            return await people_audit.recorded(self._people.store, change, told)
        except (UserError, ClientError) as error:
            raise fail("business-rule", str(error)) from None

    # Apps

    async def add_client(self, client_id: str, scope: str, **what: Any) -> Client:
        """Register an app or a backend service, as `Clients.add` has it."""

        async def change(session: AsyncClientSession) -> Client:
            return await Clients(self._db, session).add(client_id, scope, **what)

        return await self._stored(change, lambda client: self._of_client("client-add", client))

    async def remove_client(self, client_id: str, registration: str) -> Client:
        """Remove a client, its tokens and what people granted to it, unless it is another of the same name by now."""

        async def change(session: AsyncClientSession) -> Client:
            clients = Clients(self._db, session)
            client = await clients.get(client_id)
            if client is None or client.registration != registration:
                raise fail("not-found", "this client was removed already")
            await clients.remove(client_id)
            return client

        return await self._stored(change, lambda client: self._of_client("client-remove", client))

    def _of_client(self, event: str, client: Client) -> Document:
        return people_audit.of_administrator(event, self._by.user, None, f"{client.client_id}: {client.scope}", self._peer)

    # What people granted to apps

    async def granted_by(self, user: User) -> list[Granted]:
        """What a person has granted, by app."""
        grants, remembered = await Grants(self._db).of_user(user), await Consents(self._db).of_user(user)
        there = {client.client_id: client.registration for client in await Clients(self._db).list()}
        return _granted(grants, [r for r in remembered if there.get(r.client_id) == r.registration])

    async def granted_to(self, client: Client) -> list[Granted]:
        """What an app was granted, by person."""
        grants, remembered = await Grants(self._db).of_client(client), await Consents(self._db).of_client(client)
        there = {user.name: user.registration for user in await self._people.users.list()} if remembered else {}
        return _granted(grants, [r for r in remembered if there.get(r.user_name) == r.user_registration])

    async def withdraw(self, name: str, client_id: str) -> None:
        """End everything that a person has granted to an app: its access ends at once, and the next time it asks again."""
        user = await self._present(self._people.users, name)
        event = people_audit.of_administrator("withdraw", self._by.user, user, client_id[:128], self._peer)

        async def noted(_session: AsyncClientSession) -> Document:
            return event

        await people_audit.recorded(self._people.store, noted, lambda event: event)
        await Consents(self._db).withdraw(user, client_id)
        grants = Grants(self._db)
        for grant in await grants.of_user(user):
            if grant.client_id == client_id:
                await grants.end(grant.grant_id)
                self._tokens.forget_grant(grant.grant_id)


def _granted(grants: list[Grant], remembered: list[Remembered]) -> list[Granted]:
    """Both by person and app. An app whose access has run out counts as long as it would get it again without asking."""
    lives: list[Life] = ["", "online", "offline"]
    found: dict[tuple[str, str], Granted] = {}
    told = [(g.user_name, g.client_id, g.auth_time, g.life, g.scopes) for g in grants]
    for user, client, since, life, scopes in [*told, *((r.user_name, r.client_id, r.at, None, r.scopes) for r in remembered)]:
        before = found.get((user, client))
        if before is None:
            found[user, client] = Granted(user, client, since, life, tuple(scopes))
            continue
        longest = max((one for one in (before.life, life) if one is not None), key=lives.index, default=None)
        both = tuple(dict.fromkeys((*before.scopes, *scopes)))
        found[user, client] = Granted(user, client, min(since, before.since), longest, both)
    return sorted(found.values(), key=lambda g: (g.client_id.lower(), g.user_name))
