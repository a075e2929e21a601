"""Login sessions, kept on the server: MongoDB collection `oauth_sessions`. The browser has a random cookie and nothing else.

A document: `_id` (what grants name it by), `cookie` (SHA-256 of the cookie's value), `user`, `registration`, `stamp` (the
user's security stamp: another one ends the session), `amr` (by which proofs, RFC 8176), `authenticated_at`,
`seen` (last use, to within 30 s), `expires` (the absolute end; MongoDB removes it), `next` (where the login is to lead), and
`enrolling` while a second factor is being set up.

The cookie changes with each proof: a value that somebody knew before a login is worth nothing after it (session fixation).
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request
from starlette.responses import Response

from smart_auth.users import User, Users

SESSIONS = "oauth_sessions"
IDLE = timedelta(minutes=15)  # without a request; clinical workstations are left alone
ABSOLUTE = timedelta(hours=12)  # after the password
_NOTED_EVERY = timedelta(seconds=30)  # so often is use written down
_LONGEST_COOKIE = 100
_SECOND = ("otp", "mfa")  # what a second factor adds to `amr`

# What a session still waits for before it is one.
Step = Literal["second-factor", "password", "enrol"]


@dataclass(frozen=True, slots=True)
class Session:
    """Who sits at this browser. `id` is not the cookie's value; `csrf` goes into every form (`csrf`)."""

    id: str
    user: User
    amr: tuple[str, ...]
    authenticated_at: datetime
    csrf: str
    next: str = ""
    enrolling: bytes | None = None

    @property
    def waits_for(self) -> Step | None:
        """What the user has to do yet: with anything but None, nothing but that is allowed."""
        if self.user.second_factor and "otp" not in self.amr:
            return "second-factor"
        if self.user.must_change_password:
            return "password"
        if self.user.needs_second_factor and not self.user.second_factor:
            return "enrol"
        return None


@dataclass(frozen=True, slots=True)
class Login:
    """A session as an administrator sees it."""

    id: str
    since: datetime
    seen: datetime
    amr: tuple[str, ...]


class Sessions:
    """The sessions of all processes. `secure`: the outside calls us by https."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], *, secure: bool) -> None:
        self._sessions = db.get_collection(
            SESSIONS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority", j=True)
        )
        self._users = Users(db)
        self._secure = secure
        # The prefix keeps other hosts of the same domain from setting it (RFC 6265bis 4.1.3.2), and needs https.
        self.cookie = "__Host-ris" if secure else "ris"

    async def current(self, request: Request, *, counts: bool = True) -> Session | None:
        """The session of a user who has logged in completely. None: send to `/login`. `counts`: as `unfinished` has it."""
        session = await self.unfinished(request, counts=counts)
        return session if session is not None and session.waits_for is None else None

    async def unfinished(self, request: Request, *, counts: bool = True) -> Session | None:
        """The session, also of a user who has more to do (`waits_for`) before it is one.

        It counts as use, unless a page asks by itself (`counts`): nobody needs to sit before that.
        """
        value = self._cookie_of(request)
        if value is None:
            return None
        now = datetime.now(UTC)
        live = {"cookie": _digest(value), "expires": {"$gt": now}, "seen": {"$gt": now - IDLE}}
        document = await self._sessions.find_one(live)
        user = None if document is None else await self._user(document)
        if document is None or user is None:
            return None
        if counts and now - document["seen"].replace(tzinfo=UTC) > _NOTED_EVERY:
            await self._sessions.update_one({"_id": document["_id"]}, {"$set": {"seen": now}})
        return Session(
            id=document["_id"],
            user=user,
            amr=tuple(document["amr"]),
            authenticated_at=document["authenticated_at"].replace(tzinfo=UTC),
            csrf=_csrf(value),
            next=document["next"],
            enrolling=document.get("enrolling"),
        )

    async def start(self, request: Request, response: Response, user: User, amr: tuple[str, ...], next_path: str) -> Session:
        """A session of a user who gave the right password; the one that this browser had before ends.

        The same user's goes on under its id unless it had ended, so that apps started from it live as long as the new one.
        """
        before = await self._replaced(request, user)
        value, now = secrets.token_urlsafe(32), datetime.now(UTC)
        session_id = before or secrets.token_hex(16)
        document = {
            "_id": session_id,
            "cookie": _digest(value),
            "user": user.name,
            "registration": user.registration,
            "stamp": user.security_stamp,
            "amr": list(amr),
            "authenticated_at": now,
            "seen": now,
            "expires": now + ABSOLUTE,
            "next": next_path,
        }
        await self._sessions.replace_one({"_id": session_id}, document, upsert=True)
        self._set_cookie(response, value)
        return Session(session_id, user, amr, now, _csrf(value), next_path)

    async def proven(self, response: Response, session: Session, user: User, *amr: str) -> Session:
        """The session under a new cookie, after a second factor or a new password; `user` is as that left the record."""
        value, now = secrets.token_urlsafe(32), datetime.now(UTC)
        # Who has no second factor any more has not proven one either.
        held = session.amr if user.second_factor else tuple(method for method in session.amr if method not in _SECOND)
        methods = tuple(dict.fromkeys((*held, *amr)))
        fresh = {
            "cookie": _digest(value),
            "stamp": user.security_stamp,
            "amr": list(methods),
            "authenticated_at": now,
            "seen": now,
        }
        await self._sessions.update_one({"_id": session.id}, {"$set": fresh, "$unset": {"enrolling": ""}})
        self._set_cookie(response, value)
        return Session(session.id, user, methods, now, _csrf(value), session.next)

    async def enrol(self, session: Session, sealed: bytes) -> None:
        """Remember the secret that is being set up, sealed (see second_factor.py)."""
        await self._sessions.update_one({"_id": session.id}, {"$set": {"enrolling": sealed}})

    async def stop_enrolling(self, session: Session) -> None:
        """Forget the secret that was being set up."""
        await self._sessions.update_one({"_id": session.id}, {"$unset": {"enrolling": ""}})

    async def end_others(self, session: Session) -> None:
        """Log the user out everywhere else."""
        await self._sessions.delete_many({"user": session.user.name, "_id": {"$ne": session.id}})

    async def of_user(self, user: User) -> list[Login]:
        """Where a user is logged in now, the last used first."""
        now = datetime.now(UTC)
        mine = {"user": user.name, "registration": user.registration, "stamp": user.security_stamp}
        live = {**mine, "expires": {"$gt": now}, "seen": {"$gt": now - IDLE}}
        return [
            Login(d["_id"], d["authenticated_at"].replace(tzinfo=UTC), d["seen"].replace(tzinfo=UTC), tuple(d["amr"]))
            async for d in self._sessions.find(live).sort("seen", -1)
        ]

    async def end_of(self, user: User, keep: str | None, session: AsyncClientSession) -> None:
        """Log a user out everywhere, but for the session `keep`, in a transaction."""
        await self._sessions.delete_many({"user": user.name, "_id": {"$ne": keep}}, session=session)

    async def end(self, response: Response, session: Session) -> None:
        """Log out."""
        await self._sessions.delete_one({"_id": session.id})
        response.delete_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="lax")

    def visitor(self, request: Request, response: Response | None = None) -> str:
        """The CSRF token of a browser without a session; its cookie, if it has none, is set with `response`."""
        value = self._cookie_of(request)
        if value is None and response is not None:
            value = secrets.token_urlsafe(32)
            self._set_cookie(response, value)
        return "" if value is None else _csrf(value)

    async def _replaced(self, request: Request, user: User) -> str | None:
        value = self._cookie_of(request)
        document = None if value is None else await self._sessions.find_one({"cookie": _digest(value)})
        if document is None:
            return None
        ended = document["expires"].replace(tzinfo=UTC) <= datetime.now(UTC)
        if not ended and document["stamp"] == user.security_stamp:  # which is this user's alone
            return str(document["_id"])
        await self._sessions.delete_one({"_id": document["_id"]})
        return None

    async def _user(self, document: Mapping[str, Any]) -> User | None:
        """The user of a session, as the record is now; None if that ended the session."""
        user = await self._users.get(document["user"])
        if user is None or user.disabled or user.registration != document["registration"]:
            return None
        return user if user.security_stamp == document["stamp"] else None

    def _cookie_of(self, request: Request) -> str | None:
        value = request.cookies.get(self.cookie, "")
        return value if 0 < len(value) <= _LONGEST_COOKIE else None

    def _set_cookie(self, response: Response, value: str) -> None:
        response.set_cookie(self.cookie, value, path="/", secure=self._secure, httponly=True, samesite="lax")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes of sessions: MongoDB removes them at their absolute end."""
    await db[SESSIONS].create_index("expires", expireAfterSeconds=0)
    await db[SESSIONS].create_index("cookie", unique=True)
    await db[SESSIONS].create_index("user")


OWNER = {"user": 1, "registration": 1, "stamp": 1}
"""What of a session says whose it is (`belongs`)."""


def belongs(session: Mapping[str, Any], user: Mapping[str, Any]) -> bool:
    """Whether a session is this user's (both as they are stored), and the user is as at the login.

    That and its absolute end are what `online_access` asks: standing idle only shuts the browser out, as an app may be in use
    without our pages being.
    """
    return (session["user"], session["registration"], session["stamp"]) == (
        user["_id"],
        user["registration"],
        user["security_stamp"],
    )


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _csrf(value: str) -> str:
    """The synchronizer token of a cookie: who doesn't know the one can't make the other, and there is nothing to store."""
    return hmac.new(value.encode(), b"fhir-ris form", hashlib.sha256).hexdigest()
