"""A key that is kept in a file beside the database, never in it: what it seals is worth nothing to who has the database alone.

AES-256-GCM. The file holds 32 random bytes and belongs to the server's user alone (mode 0600). The first process that needs it
makes it. Servers on several machines over one database need the same file.
"""

import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LENGTH = 32
_NONCE = 12


class KeyFileError(Exception):
    """The key can't be used. The text is one line for the operator."""


class KeyFile:
    """Seals and opens with the key in a file, which is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cipher: AESGCM | None = None

    def seal(self, plain: bytes, about: str) -> bytes:
        """`about` says whose and what for; it opens under the same words only. Raises KeyFileError."""
        nonce = os.urandom(_NONCE)
        return nonce + self._key().encrypt(nonce, plain, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed about this. Raises KeyFileError, also when it was sealed with another key."""
        try:
            return self._key().decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
        except InvalidTag:
            raise KeyFileError(f"{self._path} is not the key that this was sealed with") from None

    def secret(self, about: str) -> bytes:
        """32 bytes derived from the key, the same for the same words, for other uses than sealing. Raises KeyFileError."""
        return hmac.digest(self._bytes(), f"derived {about}".encode(), "sha256")

    def _key(self) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._bytes())
        return self._cipher

    def _bytes(self) -> bytes:
        try:
            return self._read()
        except FileNotFoundError:
            self._make()
            return self._read()

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                others = os.fstat(file.fileno()).st_mode & 0o077
                key = file.read(_LENGTH + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise KeyFileError(f"{self._path} can't be read: {error.strerror}") from None
        if others:
            raise KeyFileError(f"{self._path} must be for its owner alone: chmod 600")
        if len(key) != _LENGTH:
            raise KeyFileError(f"{self._path} is damaged: it must have {_LENGTH} bytes")
        return key

    def _make(self) -> None:
        """Write a new key, all at once: of processes that do so at the same time, the first one's stays."""
        draft = self._path.with_name(f".{self._path.name}-{secrets.token_hex(8)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(_LENGTH))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, self._path)
            except FileExistsError:
                return
            finally:
                draft.unlink()
        except OSError as error:
            raise KeyFileError(f"{self._path} can't be made: {error.strerror}") from None
