"""Opaque, authenticated text for page links: what is in one is neither readable nor changeable by who follows it.

A link holds the search itself, which may name a patient, and the place where the next page begins. AES-GCM hides both from logs
and browser histories and proves that the link is ours. All processes share the key, which lives in the database.
"""

import base64
import binascii
import json
import os
import zlib
from typing import Any

from bson.binary import Binary
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.outcome import FhirError, fail

_NONCE = 12
_LARGEST = 64 * 1024  # characters of a link


class PageLinks:
    """Seals and opens page links with the key of this database."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._db = db
        self._cipher: AESGCM | None = None

    async def seal(self, kind: str, content: Any) -> str:
        """URL-safe text for JSON-like content. `kind` ("search", "history") keeps links of one purpose from another's use."""
        nonce = os.urandom(_NONCE)
        plain = zlib.compress(json.dumps(content, separators=(",", ":")).encode())
        sealed = nonce + (await self._key()).encrypt(nonce, plain, kind.encode())
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    async def open(self, kind: str, text: str) -> Any:
        """The content of a link that `seal` made. FhirError `invalid` (400) for anything else."""
        try:
            if len(text) > _LARGEST or "=" in text:
                raise _not_ours()
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            plain = (await self._key()).decrypt(sealed[:_NONCE], sealed[_NONCE:], kind.encode())
            return json.loads(zlib.decompress(plain))
        except (binascii.Error, ValueError, InvalidTag):
            raise _not_ours() from None

    async def _key(self) -> AESGCM:
        if self._cipher is None:
            found = await self._db["keys"].find_one_and_update(
                {"_id": "page-links"},
                {"$setOnInsert": {"key": Binary(AESGCM.generate_key(256))}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            assert found is not None
            self._cipher = AESGCM(bytes(found["key"]))
        return self._cipher


def _not_ours() -> FhirError:
    return fail("invalid", "this page link is not one of ours, or was changed", status=400)
