"""What somebody has typed into the box: names, a birth date as people write it, or a number."""

import re
from dataclasses import dataclass
from datetime import date

from babel import Locale

LONGEST = 200  # characters
_NUMBER = 64
_DATE = re.compile(r"(?<![^\s,;*(])(\d{1,4})([./-])\s?(\d{1,2})\2\s?(\d{1,4})(?![^\s,;)])")
_PACKED = re.compile(r"(?<!\S)((?:19|20)\d\d)(\d\d)(\d\d)(?!\S)")
_BESIDE = re.compile(r"[\s,;*()]+|\bgeb\.?(?=\s|$)", re.IGNORECASE)
# How the same name is written elsewhere; the server knows that ü is found by u, and that case doesn't count.
_WRITTEN = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss"), ("å", "aa"), ("ø", "oe"), ("æ", "ae"))


@dataclass(frozen=True, slots=True)
class Typed:
    """`words` of a name; `born` a birth date (1970-01-31); `number`, if it may be one of a patient or an order."""

    text: str = ""
    words: tuple[str, ...] = ()
    born: str = ""
    number: str = ""


def read(text: str, locale: Locale, today: date) -> Typed:
    """What it may mean; a single word with digits may be a number, and eight of them also a date."""
    text = " ".join(text[:LONGEST].split())
    born, rest = "", text
    if found := _DATE.search(text):
        born = _date(found[1], found[3], found[4], found[2], locale, today)
    elif found := _PACKED.search(text):
        born = _iso(int(found[1]), int(found[2]), int(found[3]))
    if born and found:
        rest = f"{text[: found.start()]} {text[found.end() :]}"
    parts = tuple(word for word in _BESIDE.split(rest) if word)
    words = tuple(word for word in parts if not any(c.isdigit() for c in word))
    single = len(text.split()) == 1
    number = text if (single or (len(words) < len(parts) and not born)) and len(text) <= _NUMBER else ""
    return Typed(text, words if len(words) == len(parts) else (), born, number)


def variants(word: str) -> list[str]:
    """The word as it may be written: Müller, Mueller."""
    drawn = word.casefold()
    for umlaut, letters in _WRITTEN[:4]:
        drawn = drawn.replace(letters, umlaut)
    return list(dict.fromkeys((word, plain(word), drawn)))


def plain(word: str) -> str:
    """The word for comparison: without case, and with umlauts written out."""
    told = word.casefold()
    for umlaut, letters in _WRITTEN:
        told = told.replace(umlaut, letters)
    return told


def _date(first: str, second: str, third: str, sign: str, locale: Locale, today: date) -> str:
    """The date, its parts in the order that the sign and the reader's language have; "" for none."""
    if len(first) > 2:
        return _iso(int(first), int(second), int(third)) if len(first) == 4 else ""
    month_first = sign != "." and locale.date_formats["short"].pattern.startswith("M")
    day, month = (second, first) if month_first else (first, second)
    if len(third) not in {2, 4}:
        return ""
    year = int(third)
    if len(third) == 2:
        year += 2000 if year <= today.year % 100 else 1900
    return _iso(year, int(month), int(day))


def _iso(year: int, month: int, day: int) -> str:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""
