"""Patterns of the numbers that the department assigns: `A{yy}{n:7}{check}` and the like.

    A-Z a-z 0-9 . _ / -   stand for themselves
    {n:7}                 the counter, in 7 digits with leading zeros; once
    {yyyy} {yy} {ddd}     year, day of the year: the counter begins anew with them
    {site:3}              the site's code, in so many characters
    {modality} {modality:2}  the DICOM modality's first characters
    {check}               a check character over the rest: ISO/IEC 7064 MOD 11,10 where the rest is digits, else MOD 37,36

Every part has a fixed width, so two series of one pattern never give the same number, and how long a number gets is known before
the first is given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

LONGEST: Final = 16  # DICOM SH (PS3.5 6.2), for scanners cut or refuse what is longer
PER_YEAR: Final = 200_000  # numbers that a large department needs in a year
YEARS: Final = 30  # how long a counter that never begins anew has to last

_PART: Final = re.compile(r"\{([a-z]+)(?::([0-9]{1,2}))?\}|([A-Za-z0-9._/-]+)")
_WIDTHS: Final = {"yyyy": 4, "yy": 2, "ddd": 3, "modality": 2, "check": 1, "n": 0, "site": 0}
_CHOSEN: Final = frozenset({"n", "site", "modality"})  # those whose width may be said
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FILL: Final = "0"


class PatternError(ValueError):
    """What is wrong with a pattern, in words for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a number: its kind (`text` for what stands for itself), and its width or text."""

    kind: str
    width: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that gives numbers of at most 16 characters and lasts."""

    parts: tuple[Part, ...]

    @property
    def width(self) -> int:
        """How many characters a number has."""
        return sum(part.width for part in self.parts)

    @property
    def last(self) -> int:
        """The last number of a series."""
        return int(10 ** next(p.width for p in self.parts if p.kind == "n")) - 1

    def has(self, kind: str) -> bool:
        return any(part.kind == kind for part in self.parts)

    def series(self, values: Mapping[str, str], day: date) -> str:
        """The number without its counter and check character: what the counter is counted by."""
        return "".join(_value(part, values, day) or f"{{{part.kind}}}" for part in self.parts)

    def number(self, values: Mapping[str, str], day: date, n: int) -> str:
        """The number for a counter's `n`. PatternError beyond the last."""
        if n > self.last:
            raise PatternError(f"the last number of the series is {self.last}")
        rest = [f"{n:0{part.width}d}" if part.kind == "n" else _value(part, values, day) for part in self.parts]
        check = check_character("".join(rest)) if self.has("check") else ""
        return "".join(check if part.kind == "check" else text for part, text in zip(self.parts, rest, strict=True))


def _value(part: Part, values: Mapping[str, str], day: date) -> str:
    """What stands for a part; empty for the counter and the check character."""
    if part.kind in {"n", "check"}:
        return ""
    dates = {"yyyy": f"{day.year:04d}", "yy": f"{day.year % 100:02d}", "ddd": f"{day.timetuple().tm_yday:03d}"}
    found = part.text or dates.get(part.kind) or values.get(part.kind, "")
    return found[: part.width].ljust(part.width, _FILL)


def parse(text: str, per_year: int = PER_YEAR) -> Pattern:
    """The pattern of a text. PatternError for one that can't be, gives numbers that are too long, or runs out.

    per_year: how many numbers are needed in a year
    """
    parts: list[Part] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise PatternError(f"{text[at : at + 10]!r} is no part of a pattern")
        parts.append(_part(found))
        at = found.end()
    kinds = [part.kind for part in parts]
    if kinds.count("n") != 1:
        raise PatternError("a pattern has one counter, such as {n:7}")
    if kinds.count("check") > 1:
        raise PatternError("a pattern has one check character at most")
    if "ddd" in kinds and not {"yy", "yyyy"} & set(kinds):
        raise PatternError("the day of the year {ddd} needs the year too: {yy} or {yyyy}")
    pattern = Pattern(tuple(parts))
    if pattern.width > LONGEST:
        raise PatternError(f"its numbers have {pattern.width} characters, and may have {LONGEST}")
    _check_lasts(pattern, per_year)
    return pattern


def _part(found: re.Match[str]) -> Part:
    name, width, literal = found.groups()
    if literal:
        return Part("text", len(literal), literal)
    if name not in _WIDTHS:
        raise PatternError(f"{{{name}}} is none of {', '.join(sorted(_WIDTHS))}")
    if width and name not in _CHOSEN:
        raise PatternError(f"the width of {{{name}}} is always {_WIDTHS[name]}")
    chosen = int(width) if width else _WIDTHS[name]
    if not chosen:
        raise PatternError(f"{{{name}}} needs its width, such as {{{name}:{7 if name == 'n' else 3}}}")
    return Part(name, chosen)


def _check_lasts(pattern: Pattern, per_year: int) -> None:
    """A series must have room for all numbers until it begins anew: it may be that one site or modality takes them all."""
    if pattern.has("ddd"):
        needed, until = -(-per_year // 100), "of a busy day"  # a hundredth of the year's: more than three days' on the average
    elif pattern.has("yy") or pattern.has("yyyy"):
        needed, until = 2 * per_year, "of a year, twice over"
    else:
        needed, until = YEARS * per_year, f"of {YEARS} years"
    if pattern.last < needed:
        raise PatternError(f"its counter ends at {pattern.last}, and the numbers {until} are {needed}")


def check_character(text: str) -> str:
    """The check character of ISO/IEC 7064, hybrid systems: MOD 11,10 of digits, MOD 37,36 of digits and letters.

    Separators don't count, nor whether a letter is upper or lower case.
    """
    values = [_ALPHABET.index(c) for c in text.upper() if c in _ALPHABET]
    modulus = 10 if all(v < 10 for v in values) else 36
    product = modulus
    for value in values:
        total = (product + value) % modulus or modulus
        product = total * 2 % (modulus + 1)
    return _ALPHABET[(modulus + 1 - product) % modulus]
