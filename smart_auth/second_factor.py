"""The second factor: a time-based one-time password (RFC 6238: SHA-1, 6 digits, 30 s), and recovery codes for who lost it.

In a user's document: `second_factor` = {`secret` (sealed with the key file), `last_step` (the 30-second step of the last code
that was used: no code is good twice), `since`}, and `recovery_codes`, the SHA-256 of each that is left, 80 random bits each.
"""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyotp
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.key_file import KeyFile
from smart_auth.users import User, Users, new_stamp, users_collection

CODES = 10
_PERIOD = 30  # seconds
_WINDOW = 1  # steps that the clock of the device may be off, either way
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U


@dataclass(frozen=True, slots=True)
class SecondFactorState:
    """What there is to know of a second factor: since when, and how many recovery codes are left."""

    since: datetime
    codes_left: int


class SecondFactors:
    """Enrols and checks second factors, inside a transaction if `session` is given."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], key: KeyFile, session: AsyncClientSession | None = None) -> None:
        self._users = users_collection(db)
        self._registry = Users(db, session)
        self._key = key
        self._session = session

    def new_secret(self, user: User) -> bytes:
        """A secret for a device of this user, sealed. Raises KeyFileError."""
        return self._key.seal(pyotp.random_base32().encode(), _about(user))

    def secret(self, user: User, sealed: bytes) -> str:
        """The secret in base32, to be shown while it is being set up. Raises KeyFileError."""
        return self._key.open(sealed, _about(user)).decode()

    def uri(self, user: User, sealed: bytes, issuer: str) -> str:
        """The `otpauth:` URI that authenticator apps open."""
        return pyotp.TOTP(self.secret(user, sealed)).provisioning_uri(name=user.name, issuer_name=issuer)

    async def enrol(self, user: User, sealed: bytes, code: str) -> list[str] | None:
        """Make the secret the user's second factor if `code` shows that the device has it; the new recovery codes, or None.

        A second factor that there was before is replaced, and what was granted by it ends.
        """
        step = self._step_of(user, sealed, code)
        if step is None:
            return None
        codes = [_new_code() for _ in range(CODES)]
        changed: dict[str, Any] = {
            "second_factor": {"secret": sealed, "last_step": step, "since": datetime.now(UTC)},
            "recovery_codes": [_digest(user, c) for c in codes],
        }
        if user.second_factor:
            changed["security_stamp"] = new_stamp()
        # Sent twice, it counts once: the codes that were shown stay the ones that work.
        unchanged = {"_id": user.name, "registration": user.registration, "second_factor.secret": {"$ne": sealed}}
        done = await self._users.update_one(unchanged, {"$set": changed}, session=self._session)
        return codes if done.modified_count else None

    async def check(self, user: User, code: str) -> bool:
        """Whether this is a code of the user's device, not used before. Raises KeyFileError."""
        document = await self._users.find_one({"_id": user.name, "registration": user.registration}, {"second_factor": 1})
        factor = (document or {}).get("second_factor")
        step = None if factor is None else self._step_of(user, factor["secret"], code)
        if factor is None or step is None:
            return False
        newer = {"_id": user.name, "second_factor.secret": factor["secret"], "second_factor.last_step": {"$lt": step}}
        used = await self._users.update_one(newer, {"$set": {"second_factor.last_step": step}})
        return used.modified_count == 1

    async def use_recovery_code(self, user: User, code: str) -> bool:
        """Whether this is a recovery code that is left; it is not afterwards."""
        digest = _digest(user, code)
        held = {"_id": user.name, "registration": user.registration, "recovery_codes": digest}
        used = await self._users.update_one(held, {"$pull": {"recovery_codes": digest}})
        return used.modified_count == 1

    async def new_recovery_codes(self, user: User) -> list[str]:
        """Ten codes in place of those that are left."""
        codes = [_new_code() for _ in range(CODES)]
        held = {"_id": user.name, "registration": user.registration, "second_factor": {"$exists": True}}
        await self._users.update_one(held, {"$set": {"recovery_codes": [_digest(user, c) for c in codes]}}, session=self._session)
        return codes

    async def remove(self, user: User) -> User:
        """Take the second factor away; it ends every session and grant of before."""
        update = {"$unset": {"second_factor": "", "recovery_codes": ""}, "$set": {"security_stamp": new_stamp()}}
        held = {"_id": user.name, "registration": user.registration}
        await self._users.update_one(held, update, session=self._session)
        return await self._registry.get(user.name) or user

    async def state(self, user: User) -> SecondFactorState | None:
        """Since when there is one, and what is left; None if there is none."""
        document = await self._users.find_one({"_id": user.name}, {"second_factor.since": 1, "recovery_codes": 1})
        if document is None or "second_factor" not in document:
            return None
        return SecondFactorState(document["second_factor"]["since"].replace(tzinfo=UTC), len(document["recovery_codes"]))

    def _step_of(self, user: User, sealed: bytes, code: str) -> int | None:
        """The step that a code belongs to, among those that count now."""
        digits = re.sub(r"[\s-]", "", code)
        if not re.fullmatch(r"[0-9]{6}", digits):
            return None
        device = pyotp.TOTP(self.secret(user, sealed), interval=_PERIOD)
        now = int(time.time()) // _PERIOD
        found = None
        for step in range(now - _WINDOW, now + _WINDOW + 1):
            if hmac.compare_digest(device.generate_otp(step), digits):
                found = step
        return found


def is_recovery_code(text: str) -> bool:
    """Whether it has the shape of a recovery code and not of a device's."""
    return bool(re.fullmatch(f"[{_ALPHABET}]{{16}}", _plain(text)))


def _new_code() -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def _plain(code: str) -> str:
    """A code as it is hashed: how it is written, and what it is easily read as, makes no difference."""
    return re.sub(r"[\s-]", "", code).upper().translate(str.maketrans("ILO", "110"))


def _digest(user: User, code: str) -> str:
    return hashlib.sha256(f"{user.registration}:{_plain(code)}".encode()).hexdigest()


def _about(user: User) -> str:
    return f"second factor of {user.name} ({user.registration})"
