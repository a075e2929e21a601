"""Text for those whose character set lacks letters: what is near enough stands for them, else a question mark.

Letters of names follow ICAO Doc 9303 part 3, section 6 A (transliterations that passports and airlines use: Mueller for Müller);
other letters lose their marks (Unicode's canonical decomposition). Signs have their usual ASCII forms. What is written must say
the same: 3½ is 3 1/2 and not 31/2, 10² is 10^2 and not 102, and no sign loses the stroke that negates it: ≠ is != and not =.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_NEAR: Final = {
    "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ẞ": "SS", "Å": "Aa", "å": "aa", "Æ": "Ae",
    "æ": "ae", "Ø": "Oe", "ø": "oe", "Œ": "Oe", "œ": "oe", "Þ": "Th", "þ": "th", "Ð": "D", "ð": "d", "Đ": "D", "đ": "d",
    "Ħ": "H", "ħ": "h", "ı": "i", "Ĳ": "Ij", "ĳ": "ij", "Ł": "L", "ł": "l", "Ŋ": "N", "ŋ": "n", "Ŧ": "T", "ŧ": "t",
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"',
    "„": '"', "«": '"', "»": '"', "‹": "'", "›": "'", "…": "...", "•": "*", "·": ".", "×": "x", "÷": "/", "°": " deg",
    "µ": "u", "μ": "u", "€": "EUR", "£": "GBP", "™": "(TM)", "®": "(R)", "©": "(C)", "≤": "<=", "≥": ">=", "≈": "ca. ",
    "±": "+/-", "→": "->", "←": "<-", "≠": "!=", "≮": "not <", "≯": "not >", "∞": "infinity", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ", "≰": "not <=", "≱": "not >=", "′": "'", "″": '"', "⁄": "/", "\u200b": "", "\ufeff": "",
}  # fmt: skip

_RAISED: Final = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_FRACTION: Final = re.compile("(?P<whole>[0-9])?(?P<part>[¼-¾⅐-⅞↉])")
_OVERLAY: Final = 1  # canonical combining class of strokes through a sign (Unicode 4.3)


@dataclass(frozen=True, slots=True)
class Written:
    """A text as bytes; how many characters were replaced by near ones, and how many have none and became `?`."""

    data: bytes
    near: int = 0
    lost: int = 0


def plain(text: str, codec: str) -> str:
    """The text with what the codec lacks replaced, for documents whose fonts have no more letters."""
    return transliterated(text, codec, "^").data.decode(codec)


def transliterated(text: str, codec: str, caret: str) -> Written:
    """The text in a codec that may lack letters. `caret` is how ^ is written: in a message it would cut the field."""
    lost = 0
    replaced: dict[int, str] = {}
    text, near = _in_line(unicodedata.normalize("NFC", text), codec, caret)
    for character in set(text):
        if _fits(character, codec):
            continue
        found = _nearest(character, codec)
        replaced[ord(character)] = "?" if found is None else found
        if found is None:
            lost += text.count(character)
        else:
            near += text.count(character)
    return Written(text.translate(replaced).encode(codec, "replace"), near, lost)


def _in_line(text: str, codec: str, caret: str) -> tuple[str, int]:
    """The text with exponents and fractions written in the line, and how many characters that were."""
    near = 0

    def raised(found: re.Match[str]) -> str:
        nonlocal near
        if _fits(found[0], codec):
            return found[0]
        near += len(found[0])
        return caret + unicodedata.normalize("NFKD", found[0]).replace("−", "-")

    def fraction(found: re.Match[str]) -> str:
        nonlocal near
        if _fits(found["part"], codec):
            return found[0]
        near += 1
        whole = f"{found['whole']} " if found["whole"] else ""
        return whole + unicodedata.normalize("NFKD", found["part"]).replace("⁄", "/")

    return _FRACTION.sub(fraction, _RAISED.sub(raised, text)), near


@lru_cache(maxsize=4096)
def _nearest(character: str, codec: str) -> str | None:
    """What stands for a character that the codec lacks; None for nothing. Separators never: they would cut the field."""
    parts = unicodedata.normalize("NFKD", character)
    base = "".join(c for c in parts if not unicodedata.combining(c))
    if unicodedata.decomposition(character).startswith("<circle>"):
        base = f"({base})"
    negated = any(unicodedata.combining(c) == _OVERLAY for c in parts)
    for near in (_NEAR.get(character), None if negated else base):
        if near is not None and near != character and not set(near) & set("|^~\\&\r\n") and _fits(near, codec):
            return near
    return None


def _fits(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
