"""Messages of the case files, and ways to damage them: what a broken sender, a bad line or a bad day may make of a message."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from tests.v2_case import FILES, case_messages

_CHARSETS: Final = (
    "", "UNICODE UTF-8", "8859/1", "8859/15", "ASCII", "ISO IR87", "~ISO IR87", "UNICODE UTF-16", "GB 18030-2000", "KS X 1001",
    "EBCDIC", "utf_7", "?",
)  # fmt: skip
_ESCAPES: Final = (
    b"\\X", b"\\XZZ\\", b"\\XE4", b"\\.br", b"\\E", b"\\F\\\\", b"\\XC3\\\\XA4\\", b"\\H\\\\N", b"\\" * 40, b"\\X00\\",
    b"\\Zab\\",
)  # fmt: skip
_CONTROLS: Final = (b"\x00", b"\x0b", b"\x1c", b"\r", b"\n", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80")
_NASTY: Final = (
    *_CONTROLS, b"|" * 50, b"^" * 50, b"~" * 50, b"&", b"''\"\"", b'""', b"${jndi}", b"$where", b"{}", b"\xe2\x80\xae",
    b"9" * 400, b"-1", b"1e999", b"NaN", b"99999999999999", b"20261399", b"<script>", b"../../x", b"A" * 70_000,
)  # fmt: skip
_CODES: Final = [b"NM", b"SN", b"ED", b"RP", b"TS", b"CWE", b"TX", b"F", b"C", b"X", b"D", b"Z"]
_IN_MSH: Final = (
    [b"", b"x" * 300, b"ADT^A01", b"ORU^R01", b"SIU^S12", b"ORM^O01", b"2.1", b"9.9", b"T", b"\xe4\xf6", b"\\F\\", b"A&B^C~D"]
)  # fmt: skip
_RECEIVED: Final = [f for f in FILES if case_messages(f.read_text("utf-8"))]
_numbers = count(700_000)


@dataclass(frozen=True, slots=True)
class Story:
    """The messages of a case, each a list of segments without line ends, with names of its own."""

    name: str
    messages: list[list[bytes]]


def story(number: int) -> Story:
    """One case file's messages, with a number that nothing else uses."""
    file = _RECEIVED[number % len(_RECEIVED)]
    own = str(next(_numbers))
    return Story(f"{file.parent.name}/{file.name}", [
        [line.replace(b"{n}", own.encode()).replace(b"{id}", f"M{next(_numbers)}".encode()) for line in message]
        for message in case_messages(file.read_text("utf-8"))
    ])  # fmt: skip


Damage = Callable[[list[bytes], random.Random], list[bytes]]


def _at(lines: list[bytes], r: random.Random, change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    """The lines with the fields of one of them changed; not of MSH, whose damage has ways of its own."""
    if len(lines) < 2:
        return lines
    i = r.randrange(1, len(lines))
    return [*lines[:i], b"|".join(change(lines[i].split(b"|"))), *lines[i + 1 :]]


def _drop_segment(lines: list[bytes], r: random.Random) -> list[bytes]:
    i = r.randrange(1, len(lines)) if len(lines) > 1 else 0
    return lines[:i] + lines[i + 1 :] if i else lines


def _repeat_segment(lines: list[bytes], r: random.Random) -> list[bytes]:
    i = r.randrange(len(lines))
    return lines[: i + 1] + [lines[i]] * r.choice([1, 2, 30]) + lines[i + 1 :]


def _shuffle(lines: list[bytes], r: random.Random) -> list[bytes]:
    rest = lines[1:]
    r.shuffle(rest)
    return lines[:1] + rest


def _drop_field(lines: list[bytes], r: random.Random) -> list[bytes]:
    def change(fields: list[bytes]) -> list[bytes]:
        i = r.randrange(len(fields))
        return fields[:i] + fields[i + 1 :] if i else fields

    return _at(lines, r, change)


def _empty_field(lines: list[bytes], r: random.Random) -> list[bytes]:
    return _set_field(lines, r, lambda _: r.choice([b"", b'""', b" "]))


def _swap_fields(lines: list[bytes], r: random.Random) -> list[bytes]:
    def change(fields: list[bytes]) -> list[bytes]:
        i, j = r.randrange(len(fields)), r.randrange(len(fields))
        fields[i], fields[j] = fields[j], fields[i]
        return fields

    return _at(lines, r, change)


def _set_field(lines: list[bytes], r: random.Random, value: Callable[[bytes], bytes]) -> list[bytes]:
    def change(fields: list[bytes]) -> list[bytes]:
        filled = [i for i, f in enumerate(fields) if f and i] or [0]
        i = r.choice(filled)
        fields[i] = value(fields[i]) if i else fields[i]
        return fields

    return _at(lines, r, change)


def _repeat_field(lines: list[bytes], r: random.Random) -> list[bytes]:
    return _set_field(lines, r, lambda f: b"~".join([f] * r.choice([2, 3, 199, 201, 5000])))


def _nasty_field(lines: list[bytes], r: random.Random) -> list[bytes]:
    return _set_field(lines, r, lambda f: r.choice([f + n for n in _NASTY] + [n + f for n in _NASTY] + list(_NASTY)))


def _damaged_escape(lines: list[bytes], r: random.Random) -> list[bytes]:
    def value(field: bytes) -> bytes:
        i = r.randrange(len(field) + 1)
        return field[:i] + r.choice(_ESCAPES) + field[i:]

    return _set_field(lines, r, value)


def _other_type(lines: list[bytes], r: random.Random) -> list[bytes]:
    """Another value of a code: OBX-2, statuses, actions."""
    return _set_field(lines, r, lambda _: r.choice(_CODES))


def _msh_field(lines: list[bytes], r: random.Random) -> list[bytes]:
    fields = lines[0].split(b"|")
    fields += [b""] * (21 - len(fields))
    fields[r.choice([2, 3, 4, 5, 6, 8, 9, 10, 11, 14, 15, 17, 18, 20])] = r.choice(_IN_MSH)
    return [b"|".join(fields).rstrip(b"|") + b"|", *lines[1:]]


def _charset(lines: list[bytes], r: random.Random) -> list[bytes]:
    fields = lines[0].split(b"|")
    fields += [b""] * (18 - len(fields))
    fields[17] = r.choice(_CHARSETS).encode()
    codec = r.choice(["utf-8", "latin-1", "utf-16", "utf-16-le", "cp1252", "shift_jis", "utf-8-sig"])
    text = b"\r".join([b"|".join(fields), *lines[1:]]).decode("utf-8", "replace")
    if codec.startswith("utf-16"):
        return [text.replace("\r", "\n").encode(codec)]
    return text.encode(codec, "replace").split(b"\r")


def _bytes(lines: list[bytes], r: random.Random) -> list[bytes]:
    data = bytearray(b"\r".join(lines))
    for _ in range(r.choice([1, 3, 20])):
        i = r.randrange(len(data))
        match r.randrange(3):
            case 0:
                data[i] = r.randrange(256)
            case 1:
                data[i:i] = r.choice(_CONTROLS)
            case _:
                del data[i : i + r.choice([1, 5])]
        data = data or bytearray(b"M")
    return bytes(data).split(b"\r")


def _truncated(lines: list[bytes], r: random.Random) -> list[bytes]:
    data = b"\r".join(lines)
    return data[: r.randrange(1, len(data) + 1)].split(b"\r")


def _separators(lines: list[bytes], r: random.Random) -> list[bytes]:
    """MSH-1 and MSH-2 say other things than the message does; or the whole message is in other ones."""
    new = r.choice([b"#@*!$", b"|^~\\&#", b"|^~", b"||||", b"^|~\\&", b"AB~\\&", b"|^~\\^"])
    if r.randrange(2):
        return [lines[0][:3] + new[:1] + new[1:] + lines[0][8:], *lines[1:]]
    table = bytes.maketrans(b"|^~\\&", (new + b"|^~\\&")[:5])
    return [line.translate(table) for line in lines]


def _line_ends(lines: list[bytes], r: random.Random) -> list[bytes]:
    return [r.choice([b"\n", b"\r\n", b"\n\n"]).join(lines)]


DAMAGES: Final[list[Damage]] = [
    _drop_segment, _repeat_segment, _shuffle, _drop_field, _empty_field, _swap_fields, _repeat_field, _nasty_field,
    _damaged_escape, _other_type, _msh_field, _charset, _bytes, _truncated, _separators, _line_ends,
]  # fmt: skip


def damaged(lines: list[bytes], damages: list[tuple[int, int]]) -> bytes:
    """A message after these (which damage, seed of its choices)."""
    for which, seed in damages:
        lines = DAMAGES[which % len(DAMAGES)](list(lines), random.Random(seed)) or [b"M"]
    return b"\r".join(lines) + b"\r"
