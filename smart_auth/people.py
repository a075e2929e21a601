"""What the pages for people work with, and the one way to judge a password."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request

from fhir_server.store import Document, Store
from smart_auth import login_delays, people_audit, sessions
from smart_auth.key_file import KeyFile
from smart_auth.login_delays import ACCOUNT, NETWORK, SECOND_FACTOR, Delays, network_of
from smart_auth.passwords import Busy, Passwords
from smart_auth.second_factor import SecondFactors, is_recovery_code
from smart_auth.sessions import Sessions
from smart_auth.users import User, Users

T = TypeVar("T")
# Called with: event (such as `login`), whether it went well, the user's name if there is one, a detail, the network address.
Audit = Callable[[str, bool, str | None, str, str], Awaitable[None]]
ISSUER = "fhir-ris"  # what authenticator apps show beside the user's name


class TryLater(Exception):
    """This try was not looked at; after `seconds` one will be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"try again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class People:
    """One a process. `origin` is scheme, host and port that the outside calls us by."""

    users: Users
    sessions: Sessions
    passwords: Passwords
    delays: Delays
    second_factors: SecondFactors
    audit: Audit
    origin: str
    store: Store
    key: KeyFile

    @classmethod
    def over(cls, store: Store, base_url: str, data_dir: Path, audit: Audit) -> Self:
        """`data_dir` has the key that second factors are sealed with."""
        db = store.db
        url = urlsplit(base_url)
        secure, key = url.scheme == "https", second_factor_key(data_dir)
        return cls(
            users=Users(db),
            sessions=Sessions(db, secure=secure),
            passwords=Passwords(),
            delays=Delays(db, secure=secure),
            second_factors=SecondFactors(db, key),
            audit=audit,
            origin=f"{url.scheme}://{url.netloc}".lower(),
            store=store,
            key=key,
        )

    async def tell(self, request: Request, event: str, user: User | str | None, *, refused: str = "", detail: str = "") -> None:
        """Put into the audit trail what was done or refused here."""
        name = user.name if isinstance(user, User) else user
        peer = request.client.host if request.client else ""
        await self.audit(event, not refused, name, refused or detail, peer)

    async def recorded(self, request: Request, event: str, user: User, act: Callable[[Users, SecondFactors], Awaitable[T]]) -> T:
        """Change a user's record; its AuditEvent is stored in the same transaction. When `act` returns None, nothing was done."""
        db, peer = self.store.db, request.client.host if request.client else ""

        async def change(session: AsyncClientSession) -> T:
            return await act(Users(db, session), SecondFactors(db, self.key, session))

        def told(result: T) -> Document | None:
            return None if result is None else people_audit.of_user(event, True, user.name, "", peer)

        return await people_audit.recorded(self.store, change, told)

    async def with_password(self, request: Request, event: str, name: str, password: str) -> User | None:
        """The user whose name and password these are; None for a wrong password, an unknown and a disabled user alike.

        A refusal is audited as `event`. Raises TryLater.
        """
        name = name.strip().lower()
        network, account = network_of(request), await self.delays.account_key(request, name)
        found = await self.users.password_of(name)
        known = None if found is None else found[0]
        if wait := await self.delays.admit(NETWORK, network):
            await self.tell(request, event, known, refused="too many tries from this network address")
            raise TryLater(wait)
        if wait := await self.delays.admit(ACCOUNT, account):
            await self.delays.take_back(NETWORK, network)
            await self.tell(request, event, known, refused="too many tries on this account")
            raise TryLater(wait)
        try:
            verdict = await self.passwords.check(None if found is None else found[1], password)
        except Busy:
            await self.delays.take_back(NETWORK, network)
            await self.delays.take_back(ACCOUNT, account)
            raise TryLater(2) from None
        if known is None or known.disabled or not verdict.right:
            reason = "no such user" if known is None else "wrong password" if not verdict.right else "the user is disabled"
            await self.tell(request, event, known, refused=reason)
            return None
        await self.delays.take_back(NETWORK, network)
        await self.delays.forget(ACCOUNT, account)
        if verdict.rehashed and found is not None and found[1] is not None:
            await self.users.rehash(known.name, found[1], verdict.rehashed)
        return known

    async def with_second_factor(self, request: Request, user: User, code: str) -> str | None:
        """By what the code proves the user: `device` or `recovery code`; None if it doesn't. Raises TryLater and KeyFileError."""
        if wait := await self.delays.admit(SECOND_FACTOR, user.registration):
            await self.tell(request, "second-factor", user, refused="too many tries")
            raise TryLater(wait)
        proof = "recovery code" if is_recovery_code(code) else "device"
        check = self.second_factors.use_recovery_code if proof == "recovery code" else self.second_factors.check
        if not await check(user, code):
            await self.tell(
                request,
                "second-factor",
                user,
                refused="wrong or used recovery code" if proof == "recovery code" else "wrong or used code",
            )
            return None
        await self.delays.forget(SECOND_FACTOR, user.registration)
        await self.tell(request, "second-factor", user, detail=proof)
        return proof


def second_factor_key(data_dir: Path) -> KeyFile:
    """The key that the secrets of second factors are sealed with."""
    return KeyFile(data_dir / "keys" / "second-factor.key")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of sessions and delays."""
    await sessions.ensure_indexes(db)
    await login_delays.ensure_indexes(db)
