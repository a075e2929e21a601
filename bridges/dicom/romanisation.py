"""Latin letters for those that accents don't explain: Greek (after ISO 843) and Cyrillic (after ISO 9, without its accents)."""

import unicodedata
from typing import Final

from fhir_server.search.keys import caseless

_LATIN = {
    "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ı": "i",
    "ĸ": "k", "ŋ": "n", "ŧ": "t", "’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "€": "EUR", "·": ".",
}  # fmt: skip
_GREEK = {
    "α": "a", "β": "v", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k", "λ": "l", "μ": "m",
    "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "y", "φ": "f", "χ": "ch", "ψ": "ps",
    "ω": "o", "ά": "a", "έ": "e", "ή": "i", "ί": "i", "ό": "o", "ύ": "y", "ώ": "o", "ϊ": "i", "ϋ": "y", "ΐ": "i", "ΰ": "y",
}  # fmt: skip
_CYRILLIC = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "e", "ж": "zh", "з": "z", "и": "i", "й": "j", "к": "k",
    "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f", "х": "h", "ц": "c",
    "ч": "ch", "ш": "sh", "щ": "shh", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu", "я": "ya", "і": "i", "ї": "i", "є": "ye",
    "ґ": "g", "ў": "u", "ђ": "dj", "ј": "j", "љ": "lj", "њ": "nj", "ћ": "c", "џ": "dz", "ѓ": "g", "ќ": "k", "ѕ": "dz",
}  # fmt: skip
LETTERS: Final[dict[str, str]] = _LATIN | _GREEK | _CYRILLIC


def romanised(text: str) -> str:
    """Without case and accents, in Latin letters where there are some: as a scanner shows the name that hasn't its letters."""
    if text.isascii():
        return caseless(text)
    letters = unicodedata.normalize("NFC", text.lower())
    bare = "".join(LETTERS[c] if c in LETTERS else unicodedata.normalize("NFKD", c) for c in letters)
    return caseless("".join(LETTERS.get(c, c) for c in bare))


def folded(text: str) -> list[str]:
    """The forms of a name that are compared: without case and accents, and romanised where that is another."""
    return list(dict.fromkeys((caseless(text), romanised(text))))
