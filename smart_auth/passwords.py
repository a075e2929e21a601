"""Passwords: argon2id (RFC 9106), hashed in a few threads of its own, and which ones are good enough (NIST SP 800-63B 3.1.1)."""

import asyncio
import re
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

T = TypeVar("T")

SHORTEST, LONGEST = 12, 256  # characters
THREADS = 2  # each takes 64 MiB while it works
MOST_WAITING = 40  # beyond that many, who comes next is sent away

# The library's own parameters: t=3, m=64 MiB, p=4, the second recommended choice of RFC 9106 4.
_HASHER = PasswordHasher()

# What people are known to build passwords from; written for this product.
_NOTORIOUS = """
password passwort passwd passcode passphrase secret geheim letmein welcome willkommen bienvenue changeme change default temporary
temp test tester testing demo guest user login logon admin administrator root superuser system server master manager computer
laptop internet network windows office google qwerty qwertz azerty asdf asdfgh zxcvb zxcvbn abc abcd abcdef dragon monkey tiger
football soccer baseball hockey liverpool arsenal superman batman pokemon starwars princess sunshine iloveyou loveyou love
michael jordan daniel jessica ashley charlie summer winter spring autumn sommer herbst fruehling january february march april may
june july august september october november december monday tuesday wednesday thursday friday saturday sunday hospital clinic
clinique klinik krankenhaus doctor doctors doktor nurse nurses patient patients medical medicine medizin health healthcare
radiology radiologie radiologist radiographer xray roentgen imaging scanner ultrasound mri pacs ris fhir dicom hl his the my your
our is a in to for and
""".split()
_WORDS = re.compile("(?:" + "|".join(sorted(_NOTORIOUS, key=len, reverse=True)) + ")+")
_LEET = str.maketrans("013457@$!|+", "oleastasilt")
_ROWS = ("abcdefghijklmnopqrstuvwxyz", "1234567890", "0123456789", "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm",
         "azertyuiopqsdfghjklmwxcvbn", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "1q2w3e4r5t6y7u8i9o0p")  # fmt: skip


class Busy(Exception):
    """Too many passwords wait to be checked; try again in a moment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password is right, and its hash under today's parameters if what is stored has older ones."""

    right: bool
    rehashed: str | None = None


class Passwords:
    """Hashes and checks passwords without holding up the event loop: one object a process."""

    def __init__(self, hasher: PasswordHasher = _HASHER) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash. Raises Busy."""
        return await self._in_thread(lambda: self._hasher.hash(_normal(password)))

    async def check(self, encoded: str | None, password: str) -> Verdict:
        """Whether `password` is the one that was hashed. None, for a user who isn't there, takes as long. Raises Busy."""
        return await self._in_thread(lambda: self._check(encoded, password))

    def _check(self, encoded: str | None, password: str) -> Verdict:
        if self._dummy is None:
            self._dummy = self._hasher.hash(secrets.token_urlsafe(32))
        # What is too long to be a password is cut, not refused: it takes as long as any, and is as wrong.
        given = _normal(password[: LONGEST + 1])
        try:
            self._hasher.verify(encoded or self._dummy, given)
        except (Argon2Error, InvalidHashError):
            return Verdict(right=False)
        if encoded is None:
            return Verdict(right=False)
        return Verdict(right=True, rehashed=self._hasher.hash(given) if self._hasher.check_needs_rehash(encoded) else None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def problem(password: str, user_name: str) -> str | None:
    """Why this password is not good enough for this user, as a sentence; None if it is."""
    text = _normal(password)
    if len(text) < SHORTEST:
        return f"The password must have at least {SHORTEST} characters. A few words in a row are fine."
    if len(text) > LONGEST:
        return f"The password must have at most {LONGEST} characters."
    folded = text.casefold()
    if len(re.sub(r"[\W\d_]", "", folded.replace(user_name.casefold(), ""))) < 4 and user_name.casefold() in folded:
        return "The password must not be your user name with a little added."
    core = re.sub(r"[\W\d_]", "", folded)
    if len(set(folded)) < 5 or _row(folded) or (len(core) >= 6 and _row(core)):
        return "The password must not be a row of keys or the same few characters again and again."
    if _WORDS.fullmatch(_letters(folded)):
        return "This password is among the first that would be tried. Take words that nobody would expect together."
    return None


def one_time() -> str:
    """A password to be told once and changed at the first login: 95 bits in groups that can be read out."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


def _normal(password: str) -> str:
    """One form for each text, whatever keyboard it was typed on (NIST SP 800-63B, NFKC)."""
    return unicodedata.normalize("NFKC", password)


def _row(text: str) -> bool:
    """Whether it is nothing but keys in a row, forwards or backwards, perhaps over again."""
    plain = re.sub(r"[\W_]", "", text)
    return any(plain and plain in (row * 4 if way else row[::-1] * 4) for row in _ROWS for way in (True, False))


def _letters(text: str) -> str:
    """The letters without what is put before, behind and between them, digits that stand for letters read as such."""
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", text)
    return "".join(c for c in core.translate(_LEET) if c.isalpha())
