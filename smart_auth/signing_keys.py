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
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from bson.binary import Binary
from joserfc.jwk import ECKey, RSAKey
from pymongo import ReadPreference, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from smart_auth.clients import ID_TOKEN_ALGORITHMS
from smart_auth.key_file import KeyFile

KEYS = "oauth_keys"
JWKS_CACHED = 3600  # seconds that clients may keep the key set
ID_TOKEN_LIFETIME = 3600  # seconds
_PUBLISHED_FOR = timedelta(seconds=JWKS_CACHED)
_SERVED_AFTER = timedelta(seconds=ID_TOKEN_LIFETIME + 600)
_RSA_BITS = 3072

State = Literal["published", "active", "retired"]


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
    """The keys of all processes. `key_file` is what their private parts are sealed with."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]], key_file: KeyFile) -> None:
        self._keys = db.get_collection(
            KEYS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority", j=True)
        )
        self._file = key_file
        self._opened: dict[str, RSAKey | ECKey] = {}

    async def served(self) -> list[SigningKey]:
        """The keys that are served, by algorithm, the newest first; the first ones are made now if there are none."""
        found = await self._all()
        if missing := [alg for alg in ID_TOKEN_ALGORITHMS if not any(key.alg == alg for key in found)]:
            for alg in missing:
                await self._make(alg, 1, datetime.now(UTC))
            found = await self._all()
        return found

    async def jwks(self) -> dict[str, Any]:
        """What `/oauth/jwks` serves (RFC 7517 5)."""
        return {"keys": [dict(key.public) for key in await self.served()]}

    async def signer(self, alg: str) -> RSAKey | ECKey:
        """The private key to sign with now. Raises KeyFileError."""
        active = next(key for key in await self.served() if key.alg == alg and key.state == "active")
        if active.kid not in self._opened:
            self._opened = {active.kid: self._open(active), **dict(list(self._opened.items())[:3])}
        return self._opened[active.kid]

    async def rotate(self, *, at_once: bool = False) -> list[SigningKey]:
        """A new key for each algorithm: used once everybody can have seen it. `at_once`: now, and the old ones no more."""
        now = datetime.now(UTC)
        before = await self.served()
        for alg in ID_TOKEN_ALGORITHMS:
            newest = max(key.generation for key in before if key.alg == alg)
            await self._make(alg, newest + 1, now if at_once else now + _PUBLISHED_FOR)
        if at_once:
            old = [key.kid for key in before]
            await self._keys.update_many({"kid": {"$in": old}}, {"$set": {"revoked": True}, "$unset": {"sealed": ""}})
        return await self.served()

    async def _all(self) -> list[SigningKey]:
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
        sealed = self._file.seal(json.dumps(key.as_dict(private=True)).encode(), key.thumbprint())
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
        kind = RSAKey if key.alg.startswith("RS") else ECKey
        return kind.import_key({**json.loads(self._file.open(key.sealed, key.kid)), "kid": key.kid})


def signing_key_file(data_dir: Path) -> KeyFile:
    """The key that the private parts are sealed with."""
    return KeyFile(data_dir / "keys" / "signing.key")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[KEYS].create_index("kid", unique=True)


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
