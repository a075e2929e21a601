"""The people who may log in: MongoDB collection `oauth_users`, shared by all processes, so that changes take effect at once.

A document: `_id` (name, lower case), `role`, `fhir_user`, `disabled`, `registration` (random; what is issued to a user carries
it, so that it never works for a later one of the same name), `security_stamp` (random, new with each change that must end what
was granted before), `password` (argon2id, see passwords.py), `must_change_password`, `created`, `password_changed`, and once
there is one `second_factor` and `recovery_codes` (see second_factor.py).

A login by an outside OpenID provider would be a second way to find such a document (an indexed issuer and subject beside
`_id`), and one without `password`: nothing but login.py reads passwords.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from smart_auth import roles

USERS = "oauth_users"
ROLES: tuple[str, ...] = tuple(roles.ROLES)  # the table of what each may do
SECOND_FACTOR_ROLES = frozenset({"admin", "interface-admin"})  # who can't do without

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_FHIR_USER = re.compile(r"Practitioner/[A-Za-z0-9.-]{1,64}")
_KNOWN = {"password": 0, "recovery_codes": 0}  # what a User is made without


class UserError(ValueError):
    """The user can't be added or changed; the text is one line for the person who tries."""


@dataclass(frozen=True, slots=True)
class User:
    """A person with a login. `fhir_user` is `Practitioner/<id>`; `second_factor` says whether one is enrolled."""

    name: str
    role: str
    fhir_user: str
    disabled: bool
    registration: str
    second_factor: bool
    security_stamp: str
    must_change_password: bool
    created: datetime

    @property
    def needs_second_factor(self) -> bool:
        """Whether the role can't be used without one."""
        return self.role in SECOND_FACTOR_ROLES


class Users:
    """The user registry, inside a transaction if `session` is given. Names are taken in any case."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], session: AsyncClientSession | None = None) -> None:
        self._users = users_collection(db)
        self.session = session

    async def add(self, name: str, role: str, fhir_user: str, password: str, *, must_change_password: bool = False) -> User:
        """A new user, with the encoded hash of a password. Raises UserError, also if the name is taken."""
        key = name.strip().lower()
        if not _NAME.fullmatch(key):
            raise UserError("a user name is 1 to 64 letters, digits, '.', '_', '@' and '-', and starts with a letter or digit")
        now = datetime.now(UTC)
        document = {
            "_id": key,
            **_checked(role, fhir_user),
            "disabled": False,
            "registration": secrets.token_hex(8),
            "security_stamp": new_stamp(),
            "password": password,
            "must_change_password": must_change_password,
            "created": now,
            "password_changed": now,
        }
        try:
            await self._users.insert_one(document, session=self.session)
        except DuplicateKeyError:
            raise UserError(f"there is a user {key!r} already") from None
        return _user(document)

    async def get(self, name: str) -> User | None:
        """The user of this name, disabled or not."""
        document = await self._users.find_one({"_id": name.strip().lower()}, _KNOWN, session=self.session)
        return None if document is None else _user(document)

    async def password_of(self, name: str) -> tuple[User, str | None] | None:
        """The user of this name and the encoded hash of the password, None if there is no password to log in with."""
        document = await self._users.find_one({"_id": name.strip().lower()}, {"recovery_codes": 0}, session=self.session)
        return None if document is None else (_user(document), document.get("password"))

    async def list(self) -> "list[User]":
        """All users, by name."""
        return [_user(document) async for document in self._users.find({}, _KNOWN).sort("_id")]

    async def change(self, name: str, *, role: str | None = None, fhir_user: str | None = None) -> User:
        """Give a user another role or Practitioner; what was granted before is to be judged anew. Raises UserError."""
        user = await self._present(name)
        given = _checked(role or user.role, fhir_user or user.fhir_user)
        return await self._update(user.name, {"$set": {**given, "security_stamp": new_stamp()}})

    async def disable(self, name: str, *, disabled: bool = True) -> User:
        """Shut a user out, or let them in again: sessions and grants of before stay ended. Raises UserError."""
        user = await self._present(name)
        return await self._update(user.name, {"$set": {"disabled": disabled, "security_stamp": new_stamp()}})

    async def set_password(self, name: str, password: str, *, must_change_password: bool = False) -> User:
        """Another password, given as its encoded hash; it ends every session and grant of before. Raises UserError."""
        changed = {
            "password": password,
            "must_change_password": must_change_password,
            "password_changed": datetime.now(UTC),
            "security_stamp": new_stamp(),
        }
        return await self._update((await self._present(name)).name, {"$set": changed})

    async def rehash(self, name: str, before: str, after: str) -> None:
        """The same password under newer parameters, unless it was changed meanwhile. Nothing ends."""
        await self._users.update_one({"_id": name, "password": before}, {"$set": {"password": after}})

    async def _present(self, name: str) -> User:
        user = await self.get(name)
        if user is None:
            raise UserError(f"there is no user {name.strip().lower()!r}")
        return user

    async def _update(self, name: str, update: Mapping[str, Any]) -> User:
        document = await self._users.find_one_and_update(
            {"_id": name}, update, projection=_KNOWN, return_document=ReturnDocument.AFTER, session=self.session
        )
        if document is None:
            raise UserError(f"there is no user {name!r}")
        return _user(document)


def users_collection(db: AsyncDatabase[dict[str, Any]]) -> AsyncCollection[dict[str, Any]]:
    """The users, read as the primary has them: who was disabled is out at the next request, and stays out after a failover."""
    return db.get_collection(USERS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority", j=True))


def new_stamp() -> str:
    """A security stamp unlike any before."""
    return secrets.token_hex(8)


def _checked(role: str, fhir_user: str) -> dict[str, str]:
    if role not in ROLES:
        raise UserError(f"{role!r} is no role: it must be one of {', '.join(ROLES)}")
    if not _FHIR_USER.fullmatch(fhir_user):
        raise UserError(f"{fhir_user!r} is not a reference such as Practitioner/4711")
    return {"role": role, "fhir_user": fhir_user}


def _user(document: Mapping[str, Any]) -> User:
    return User(
        name=document["_id"],
        role=document["role"],
        fhir_user=document["fhir_user"],
        disabled=document["disabled"],
        registration=document["registration"],
        second_factor="second_factor" in document,
        security_stamp=document["security_stamp"],
        must_change_password=document["must_change_password"],
        created=document["created"].replace(tzinfo=UTC),
    )
