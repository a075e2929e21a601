"""The keys that id tokens are signed with (OpenID Connect Core 10.1.1): MongoDB collection `oauth_keys`, private parts sealed.

A document: `_id` {alg, generation}, `kid` (RFC 7638 thumbprint), `public` (JWK), `sealed` (the private JWK, AES-GCM), `made`,
`active_from`, `revoked`. What a key is follows from the time, so that all processes agree without telling each other: before
`active_from` it is published (seen, so that nobody meets a key that he doesn't know), then active, and retired once the next of
its algorithm is active; a retired one is served until the last id token it signed is over.

The key that seals them is in a file of its own under the data directory, readable by the server's user only: who has only the
database can't sign. Every machine that serves HTTP needs the same file.
"""

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from bson.binary import Binary
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.jwk import ECKey, RSAKey
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from smart_auth.clients import ID_TOKEN_ALGORITHMS

KEYS = "oauth_keys"
JWKS_CACHED = 3600  # seconds that clients may keep the key set
ID_TOKEN_LIFETIME = 3600  # seconds
_PUBLISHED_FOR = timedelta(seconds=JWKS_CACHED)
_SERVED_AFTER = timedelta(seconds=ID_TOKEN_LIFETIME + 600)
_NONCE = 12
_RSA_BITS = 3072

State = Literal["published", "active", "retired"]


class KeyFileError(Exception):
    """The file with the sealing key is not as it must be; one line for the operator."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that is served. `state` is what it is now."""

    kid: str
    alg: str
    generation: int
    state: State
    made: datetime
    active_from: datetime
    public: Mapping[str, Any]
    sealed: bytes


class SigningKeys:
    """The keys of all processes. `key_file` is made when it isn't there, with a fresh key."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], key_file: Path) -> None:
        self._keys = db.get_collection(
            KEYS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority", j=True)
        )
        self._file = key_file
        self._opened: dict[str, RSAKey | ECKey] = {}

    async def list(self) -> "list[SigningKey]":
        """The keys that are served, by algorithm, the newest first; the first ones are made now if there are none."""
        found = await self._served()
        if missing := [alg for alg in ID_TOKEN_ALGORITHMS if not any(key.alg == alg for key in found)]:
            for alg in missing:
                await self._make(alg, 1, datetime.now(UTC))
            found = await self._served()
        return found

    async def jwks(self) -> dict[str, Any]:
        """What `/oauth/jwks` serves (RFC 7517 5)."""
        return {"keys": [dict(key.public) for key in await self.list()]}

    async def signer(self, alg: str) -> RSAKey | ECKey:
        """The private key to sign with now. Raises KeyFileError."""
        active = next(key for key in await self.list() if key.alg == alg and key.state == "active")
        if active.kid not in self._opened:
            self._opened = {active.kid: self._open(active), **dict(list(self._opened.items())[:3])}
        return self._opened[active.kid]

    async def rotate(self, *, at_once: bool = False) -> "list[SigningKey]":
        """A new key for each algorithm: used once everybody can have seen it. `at_once`: now, and the old ones are served no more."""
        now = datetime.now(UTC)
        before = await self.list()
        for alg in ID_TOKEN_ALGORITHMS:
            newest = max(key.generation for key in before if key.alg == alg)
            await self._make(alg, newest + 1, now if at_once else now + _PUBLISHED_FOR)
        if at_once:
            old = [key.kid for key in before]
            await self._keys.update_many({"kid": {"$in": old}}, {"$set": {"revoked": True}, "$unset": {"sealed": ""}})
        return await self.list()

    async def _served(self) -> "list[SigningKey]":
        documents = [d async for d in self._keys.find({"revoked": False}).sort([("_id.alg", 1), ("_id.generation", -1)])]
        now, found = datetime.now(UTC), list[SigningKey]()
        next_from: dict[str, datetime] = {}
        for document in documents:
            alg, active_from = document["_id"]["alg"], document["active_from"].replace(tzinfo=UTC)
            replaced = next_from.get(alg)
            state: State = "published" if active_from > now else "retired" if replaced and replaced <= now else "active"
            next_from[alg] = active_from
            if state != "retired" or (replaced and now < replaced + _SERVED_AFTER):
                found.append(_key(document, state))
        return found

    async def _make(self, alg: str, generation: int, active_from: datetime) -> None:
        """A key of this generation, unless another process was first."""
        key = await asyncio.to_thread(_generated, alg)
        name = {"alg": alg, "generation": generation}
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._cipher().encrypt(nonce, json.dumps(key.as_dict(private=True)).encode(), key.thumbprint().encode())
        document = {
            "_id": name,
            "kid": key.thumbprint(),
            "public": {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig", "alg": alg},
            "sealed": Binary(sealed),
            "made": datetime.now(UTC),
            "active_from": active_from,
            "revoked": False,
        }
        try:
            await self._keys.insert_one(document)
        except DuplicateKeyError:
            return

    def _open(self, key: SigningKey) -> RSAKey | ECKey:
        try:
            plain = self._cipher().decrypt(key.sealed[:_NONCE], key.sealed[_NONCE:], key.kid.encode())
        except InvalidTag:
            raise KeyFileError(f"{self._file} is not the file that the signing keys were sealed with") from None
        kind = RSAKey if key.alg.startswith("RS") else ECKey
        return kind.import_key({**json.loads(plain), "kid": key.kid})

    def _cipher(self) -> AESGCM:
        return AESGCM(sealing_key(self._file))


def sealing_key(path: Path) -> bytes:
    """The 32 bytes in a file (mode 0600), which is made if it isn't there. Raises KeyFileError."""
    try:
        if not path.exists():
            _write_new(path)
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others than its owner: chmod 600 it, and rotate the keys at once")
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} can't be read: {type(error).__name__}") from None
    if len(key) != 32:
        raise KeyFileError(f"{path} does not hold 32 bytes in hexadecimal")
    return key


def _write_new(path: Path) -> None:
    """Whole or not at all, and the first of several processes wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _generated(alg: str) -> RSAKey | ECKey:
    return RSAKey.generate_key(_RSA_BITS, private=True) if alg.startswith("RS") else ECKey.generate_key("P-384", private=True)


def _key(document: Mapping[str, Any], state: State) -> SigningKey:
    return SigningKey(
        document["kid"],
        document["_id"]["alg"],
        document["_id"]["generation"],
        state,
        document["made"].replace(tzinfo=UTC),
        document["active_from"].replace(tzinfo=UTC),
        document["public"],
        bytes(document["sealed"]),
    )
