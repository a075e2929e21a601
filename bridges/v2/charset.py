r"""How text travels in a v2 message: character sets (MSH-18, table 0211) and escape sequences (HL7 v2 2.7).

Both are here because they can't be told apart: `\Xhh\` holds bytes of the message's character set.
"""

import codecs
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

# Table 0211, and the other spellings met in MSH-18, keyed as `_key` writes them, to the Python codec.
_ALIASES = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    "LATIN1": "iso8859-1",
    "ISOIR100": "iso8859-1",
    "ISOIR101": "iso8859-2",
    "ISOIR109": "iso8859-3",
    "ISOIR110": "iso8859-4",
    "ISOIR144": "iso8859-5",
    "ISOIR127": "iso8859-6",
    "ISOIR126": "iso8859-7",
    "ISOIR138": "iso8859-8",
    "ISOIR148": "iso8859-9",
    "ISOIR203": "iso8859-15",
    "ANSI": "cp1252",
    "ISOIR192": "utf-8",
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    **{f"UTF{bits}{order.upper()}": f"utf-{bits}-{order}".rstrip("-") for bits in (16, 32) for order in ("", "le", "be")},
    "ISOIR13": "iso2022_jp_ext",
    "ISOIR14": "iso2022_jp_ext",
    "ISOIR87": "iso2022_jp_ext",
    "ISOIR159": "iso2022_jp_ext",
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gb18030",
    "GB2312": "gb18030",
    "KSX1001": "euc_kr",
    "EUCKR": "euc_kr",
    "CNS116431992": "big5",
    "BIG5": "big5",
    "SHIFTJIS": "cp932",
    "KOI8R": "koi8-r",
    **{f"8859{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"{prefix}125{n}": f"cp125{n}" for prefix in ("WINDOWS", "CP") for n in range(9)},
}
# Codecs where a chance match with UTF-8 is unlikely enough for the guess of `decode`: one byte a character.
_SINGLE_BYTE = frozenset({"ascii", *(c for c in _ALIASES.values() if c.startswith(("iso8859", "cp125")))})
_SEVEN_BIT = frozenset({"iso2022_jp_ext"})  # escape sequences change what ASCII bytes mean
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_C1 = re.compile(rb"[\x80-\x9f]")
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be", "utf-32", "utf-16")


def _key(name: str) -> str:
    key = re.sub(r"[^A-Z0-9]", "", name.upper())
    for prefix in ("UNICODEUTF", "ISO8859"):
        if key.startswith(prefix):
            return key.removeprefix("UNICODE").removeprefix("ISO")
    return key


_CODECS = {_key(codec): codec for codec in _ALIASES.values()}


@lru_cache(maxsize=256)
def codec_of(name: str) -> str | None:
    """The Python codec of a character set, named as in MSH-18 or as Python names it; None when unknown or empty.

    Only sets of the table: others that Python knows (EBCDIC, `unicode_escape`) would change what the separators are.
    """
    return _ALIASES.get(_key(name)) or _CODECS.get(_key(name))


def declared_codec(msh_18: str, repetition: str = "~") -> str | None:
    """The codec that a raw MSH-18 declares: its first repetition's.

    Where the first is empty and a later one is Japanese (`~ISO IR87`), ASCII is switched by ISO 2022 escape sequences, which
    the Japanese codec reads as well.
    """
    names = msh_18.split(repetition)
    japanese = (c for c in map(codec_of, names[1:]) if c in _SEVEN_BIT)
    return codec_of(names[0]) or next(japanese, None)


def wide_codec(data: bytes) -> tuple[str, int] | None:
    """(codec, length of the byte order mark) of a message in UTF-16 or UTF-32, or with any mark; None for all others."""
    if data.startswith(b"MSH"):
        return None
    for bom, codec in _BOMS:
        if data.startswith(bom):
            return codec, len(bom)
    return next(((c, 0) for c in WIDE[:4] if data.startswith("MSH".encode(c))), None)


def decode(data: bytes, declared: str | None, *, default: str = "utf-8", guess: bool = True) -> tuple[str, str]:
    """(text, codec in which it was read). Never fails: Latin-1 reads any bytes, and loses none.

    Rule for bytes above 7F: nothing declared, or a single-byte set declared (which is often untrue): UTF-8 where they are
    valid UTF-8 and `guess` allows it, then what was declared or `default`. Other declarations come first and UTF-8 second,
    as short texts of multi-byte sets happen to be valid UTF-8. Latin-1 is the last resort in either case. Bytes 80 to 9F in it
    are Windows-1252: nobody means control characters there (so do browsers, WHATWG Encoding 4.2).
    """
    first = declared or default
    if first in WIDE and data[:3] == b"MSH":
        first, declared = "utf-8", None
    if first not in _SEVEN_BIT and first not in WIDE and data.isascii():
        return data.decode("ascii"), first
    order = ["utf-8", first] if guess and (declared is None or declared in _SINGLE_BYTE) else [first, "utf-8", default]
    order.append("iso8859-1")
    if "iso8859-1" in order and _C1.search(data):
        order.insert(order.index("iso8859-1"), "cp1252")
    for codec in order:
        try:
            return data.decode(codec), codec
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("iso8859-1"), "iso8859-1"


def to_bytes(text: str, codec: str) -> tuple[bytes, int]:
    """(bytes, how many characters became `?` because the codec has none for them)."""
    try:
        return text.encode(codec), 0
    except UnicodeEncodeError:
        lost = sum(text.count(c) for c in set(text) if not _encodable(c, codec))
        return text.encode(codec, "replace"), lost


def _encodable(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Separators:
    """MSH-1 and the characters of MSH-2. `truncation` (v2.7) is empty where MSH-2 has four characters."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    @property
    def encoding(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation

    @cached_property
    def letters(self) -> dict[str, str]:
        """Each separator's letter in an escape sequence."""
        named = {
            self.field: "F",
            self.component: "S",
            self.subcomponent: "T",
            self.repetition: "R",
            self.escape: "E",
            self.truncation: "P",
        }
        return {character: letter for character, letter in named.items() if character}

    @cached_property
    def characters(self) -> dict[str, str]:
        """The reverse of `letters`. `P` is the truncation character, which is # where MSH-2 names none."""
        return {"P": "#", **{letter: character for character, letter in self.letters.items()}}

    @cached_property
    def to_escape(self) -> "re.Pattern[str]":
        """What can't stand as it is in a value: separators, control characters and halves of surrogate pairs."""
        separators = re.escape("".join(self.letters))
        return re.compile(rf"\r\n|[{separators}\x00-\x1f\x7f\ud800-\udfff]")

    @cached_property
    def escaped(self) -> "re.Pattern[str]":
        """Escape sequences. Only what looks like one: text with stray backslashes must not lose the sequences after them."""
        e = re.escape(self.escape)
        return re.compile(
            rf"(?P<hex>(?:{e}X(?:[0-9A-Fa-f]{{2}})+{e})+)"
            rf"|{e}(?:(?P<letter>[FSTREPHN])|\.(?P<command>br|sp|sk|in|ti|ce|fi|nf)(?P<count>[+-]?\d{{0,2}})|[CMZ][0-9A-Za-z]*){e}"
        )


DEFAULT = Separators()
_RESERVED = '."'  # they have a meaning of their own in `\.br\` and in the two quotes that delete


@lru_cache(maxsize=64)
def read_separators(field: str, encoding: str) -> Separators:
    """From MSH-1 and MSH-2. Characters that MSH-2 leaves out take their default. ValueError where they can't be told apart."""
    characters = encoding[:5] + "^~\\&"[len(encoding) :]
    used = field + characters
    if len(set(used)) != len(used) or any(c.isalnum() or c in _RESERVED or not "!" <= c <= "~" for c in used):
        raise ValueError("MSH-1 and MSH-2 are not distinct punctuation characters")
    return Separators(field, *characters)


def escape(text: str, separators: Separators = DEFAULT) -> str:
    r"""`text` as it stands in a message: separators as letters, line ends as `\.br\`, other control characters as `\Xhh\`.

    A text of just two quotes is written in hexadecimal, as `""` would mean "delete".
    """
    e = separators.escape
    if text == '""':
        return f"{e}X22{e}{e}X22{e}"
    if separators.to_escape.search(text) is None:
        return text

    def sequence(match: re.Match[str]) -> str:
        found = match[0]
        if found in ("\n", "\r\n"):
            return f"{e}.br{e}"
        if letter := separators.letters.get(found):
            return f"{e}{letter}{e}"
        return "\ufffd" if found >= "\ud800" else f"{e}X{ord(found):02X}{e}"

    return separators.to_escape.sub(sequence, text)


def unescape(text: str, separators: Separators, codec: str, *, guess: bool = False) -> str:
    r"""The text that an escaped value stands for.

    Neighbouring `\Xhh\` are joined before they are decoded, by the rule of `decode`. Highlighting (`\H\`, `\N\`) and layout
    without text of its own is dropped, and what is unknown stays as it is.
    """
    if separators.escape not in text:
        return text
    characters = separators.characters

    def plain(match: re.Match[str]) -> str:
        if digits := match["hex"]:
            data = bytes.fromhex(digits.replace(separators.escape, "").replace("X", ""))
            return decode(data, codec, guess=guess)[0]
        if letter := match["letter"]:
            return characters.get(letter, "")
        command, count = match["command"], match["count"]
        if command is None:
            return match[0]
        if command in ("br", "ce"):
            return "\n"
        if command in ("sp", "sk"):
            return ("\n" if command == "sp" else " ") * abs(int(count or 1))
        return ""

    return separators.escaped.sub(plain, text)


def restate(text: str, source: Separators, target: Separators) -> str:
    """Already escaped text of a message with `source` separators for one with `target` separators."""
    if source.letters == target.letters:
        return text
    by_letter = {letter: character for character, letter in target.letters.items()}
    table = {ord(c): escape(c, target) for c in target.letters}
    table |= {ord(c): by_letter.get(letter, c) for c, letter in source.letters.items()}
    pieces, last = [], 0
    for match in source.escaped.finditer(text):
        pieces.append(text[last : match.start()].translate(table))
        meant = source.characters.get(match["letter"] or "")  # the separator itself, which in the target may be plain text
        pieces.append(match[0].translate(table) if meant is None else escape(meant, target))
        last = match.end()
    return "".join((*pieces, text[last:].translate(table)))
