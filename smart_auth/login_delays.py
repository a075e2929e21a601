"""Guessing is slowed down, never locked out: after some wrong tries the next one has to wait, longer each time, up to a limit.

MongoDB collection `oauth_delays`, so that it holds over all processes. A document: `_id` (kind and key), `failures`, `until`
(when the next try is looked at), `expires` (when it is forgotten; MongoDB removes it). A try is counted before it is looked at,
so that many at once are no way around, and taken back when it was right. A try that comes too early is not looked at, and
doesn't make the wait longer: the right password after the wait always works.

An account's waits would let strangers keep its owner waiting. So browsers in which a user has logged in before have waits of
their own (the "device cookies" of OWASP): `oauth_browsers`, `_id` SHA-256 of the browser's cookie, `users`, `expires`.

All times are those of MongoDB's clock.
"""

import hashlib
import ipaddress
import math
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError
from starlette.requests import Request
from starlette.responses import Response

DELAYS = "oauth_delays"
BROWSERS = "oauth_browsers"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMEMBERED = timedelta(days=90)
_MOST_USERS = 50  # of one browser: a workstation in the reading room


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one may try: `free` tries without a wait, then 1, 2, 4... seconds up to `longest`; forgotten after `memory`."""

    kind: str
    free: int
    longest: timedelta
    memory: timedelta


ACCOUNT = Pace("account", 4, timedelta(minutes=5), timedelta(hours=6))
# A department may share one address.
NETWORK = Pace("network", 30, timedelta(minutes=5), timedelta(hours=1))
# Only who has the password gets here, so that a long wait denies strangers only; 6 digits need it.
SECOND_FACTOR = Pace("second-factor", 4, timedelta(minutes=15), timedelta(days=1))


class Delays:
    """Counts tries, and says how long to wait."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], *, secure: bool) -> None:
        self._delays = db.get_collection(DELAYS, read_preference=ReadPreference.PRIMARY)
        self._browsers = db.get_collection(BROWSERS, read_preference=ReadPreference.PRIMARY)
        self._secure = secure
        self._cookie = "__Host-ris-known" if secure else "ris-known"

    async def admit(self, pace: Pace, key: str) -> int:
        """Count a try. 0: it may be looked at; else the seconds after which one may."""
        for _ in range(3):
            try:
                document = await self._delays.find_one_and_update(
                    {"_id": _id(pace, key)}, _counted(pace), upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:  # two first tries at once
                continue
            assert document is not None
            return 0 if document["admitted"] else max(1, math.ceil((document["until"] - document["at"]).total_seconds()))
        return 1

    async def take_back(self, pace: Pace, key: str) -> None:
        """The try that was just admitted was no guess."""
        update = [{"$set": {"failures": {"$max": [0, {"$subtract": ["$failures", 1]}]}, "until": _EPOCH}}]
        await self._delays.update_one({"_id": _id(pace, key)}, update)

    async def forget(self, pace: Pace, key: str) -> None:
        """The right answer was given."""
        await self._delays.delete_one({"_id": _id(pace, key)})

    async def account_key(self, request: Request, name: str) -> str:
        """By what the tries on an account are counted: those of a browser that the user has logged in with apart."""
        value = request.cookies.get(self._cookie, "")[:100]
        if value and await self._browsers.find_one({"_id": _digest(value), "users": name, "expires": {"$gt": datetime.now(UTC)}}):
            return f"{name} {_digest(value)}"
        return name

    async def remember(self, request: Request, response: Response, name: str) -> None:
        """The user has logged in with this browser."""
        value = request.cookies.get(self._cookie, "")
        known = 20 < len(value) <= 100 and await self._browsers.find_one({"_id": _digest(value)})
        if not known:  # a value that we didn't give out is not taken over
            value = secrets.token_urlsafe(32)
        update: dict[str, Any] = {
            "$pull": {"users": name},
            "$set": {"expires": datetime.now(UTC) + _REMEMBERED},
        }
        await self._browsers.update_one({"_id": _digest(value)}, update, upsert=True)
        await self._browsers.update_one({"_id": _digest(value)}, {"$push": {"users": {"$each": [name], "$slice": -_MOST_USERS}}})
        age = int(_REMEMBERED.total_seconds())
        response.set_cookie(self._cookie, value, max_age=age, path="/", secure=self._secure, httponly=True, samesite="lax")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """Create the indexes by which MongoDB forgets."""
    await db[DELAYS].create_index("expires", expireAfterSeconds=0)
    await db[BROWSERS].create_index("expires", expireAfterSeconds=0)


def network_of(request: Request) -> str:
    """The network that a request comes from: an IPv4 address, or the /64 that one IPv6 host has to itself."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:100] or "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _counted(pace: Pace) -> list[dict[str, Any]]:
    """The update, which MongoDB does in one: forget what is old, admit or not, and if so count and set the next wait.

    `until` is set by a wait alone: of tries at once, each by the time at which it began, none stands in another's way.
    """
    wait = {"$multiply": [1000, {"$pow": [2, {"$min": [30, {"$subtract": ["$failures", pace.free + 1]}]}]}]}
    longest, memory = (int(t.total_seconds() * 1000) for t in (pace.longest, pace.memory))
    waits = {"$and": ["$admitted", {"$gt": ["$failures", pace.free]}]}
    return [
        {
            "$set": {
                "at": "$$NOW",
                "until": {"$ifNull": ["$until", _EPOCH]},
                "failures": {"$cond": [{"$gt": [{"$ifNull": ["$expires", _EPOCH]}, "$$NOW"]}, "$failures", 0]},
            }
        },
        {"$set": {"admitted": {"$lte": ["$until", "$$NOW"]}}},
        {"$set": {"failures": {"$cond": ["$admitted", {"$add": ["$failures", 1]}, "$failures"]}}},
        {"$set": {"until": {"$cond": [waits, {"$add": ["$$NOW", {"$toLong": {"$min": [longest, wait]}}]}, "$until"]}}},
        {"$set": {"expires": {"$cond": ["$admitted", {"$add": [{"$max": ["$until", "$$NOW"]}, memory]}, "$expires"]}}},
    ]


def _id(pace: Pace, key: str) -> str:
    # A hash: what is typed as a name is sometimes a password.
    return f"{pace.kind}:{_digest(key)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
