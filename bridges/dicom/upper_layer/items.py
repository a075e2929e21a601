"""The variable items of A-ASSOCIATE PDUs (PS3.8 9.3.2, 9.3.3, annex D; PS3.7 annex D.3.3)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_MAX_ITEMS = 2048  # 128 presentation contexts with their transfer syntaxes, and as many roles and extensions


class MalformedPdu(Exception):
    """Bytes that are no PDU, or whose values the standard forbids."""


@dataclass(frozen=True, slots=True)
class Role:
    """SCP/SCU role selection of a SOP class (PS3.7 D.3.3.4): the roles that the requestor proposes for itself."""

    sop_class: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The User Information item.

    max_length: of the P-DATA-TF PDUs that the sender of this item takes, without their header; 0: no limit (PS3.8 D.1)
    extended: SOP class -> service class application information (PS3.7 D.3.3.5)
    identity: whether the requestor sent a user identity (PS3.7 D.3.3.7). It is not read.
    """

    max_length: int = 0
    implementation_class: str = ""
    implementation_version: str = ""
    roles: tuple[Role, ...] = ()
    extended: dict[str, bytes] = field(default_factory=dict)
    operations_window: tuple[int, int] | None = None
    identity: bool = False

    def encode(self) -> bytes:
        parts = [item(0x51, struct.pack(">I", self.max_length))]
        if self.implementation_class:
            parts.append(item(0x52, self.implementation_class.encode("ascii")))
        for role in self.roles:
            name = role.sop_class.encode("ascii")
            parts.append(item(0x54, struct.pack(">H", len(name)) + name + bytes((role.scu, role.scp))))
        if self.implementation_version:
            parts.append(item(0x55, self.implementation_version.encode("ascii")[:16]))
        for sop_class, information in self.extended.items():
            name = sop_class.encode("ascii")
            parts.append(item(0x56, struct.pack(">H", len(name)) + name + information))
        return item(0x50, b"".join(parts))

    @classmethod
    def decode(cls, value: bytes) -> "UserInformation":
        max_length, implementation, version, window, identity = 0, "", "", None, False
        roles: list[Role] = []
        extended: dict[str, bytes] = {}
        for kind, content in split(value):
            if kind == 0x51:
                max_length = int.from_bytes(_exactly(content, 4), "big")
            elif kind == 0x52:
                implementation = uid(content)
            elif kind == 0x53:
                window = (int.from_bytes(_exactly(content, 4)[:2], "big"), int.from_bytes(content[2:], "big"))
            elif kind == 0x54:
                name, rest = _named(content)
                roles.append(Role(name, bool(_exactly(rest, 2)[0]), bool(rest[1])))
            elif kind == 0x55:
                version = content.decode("ascii", "replace").strip(" \0")
            elif kind == 0x56:
                name, rest = _named(content)
                extended[name] = rest
            elif kind == 0x58:
                identity = True
        return cls(max_length, implementation, version, tuple(roles), extended, window, identity)


def item(kind: int, value: bytes) -> bytes:
    """An item or sub-item: type, reserved, length, value."""
    return struct.pack(">BBH", kind, 0, len(value)) + value


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The items in these bytes. Those of a type that we don't know are the caller's to pass over (PS3.8 9.3.1)."""
    at, count = 0, 0
    while at < len(data):
        if at + 4 > len(data):
            raise MalformedPdu("an item is cut")
        kind, _, length = struct.unpack_from(">BBH", data, at)
        at += 4 + length
        count += 1
        if at > len(data) or count > _MAX_ITEMS:
            raise MalformedPdu("an item is longer than what holds it, or there are too many")
        yield kind, data[at - length : at]


def uid(value: bytes) -> str:
    """A UID; the padding that some senders add is taken off (PS3.8 annex F says there is none)."""
    return value.decode("ascii", "replace").strip(" \0")


def _named(content: bytes) -> tuple[str, bytes]:
    """A sub-item that begins with a SOP class UID and its length."""
    length = int.from_bytes(content[:2], "big")
    if len(content) < 2 + length:
        raise MalformedPdu("a sub-item is cut")
    return uid(content[2 : 2 + length]), content[2 + length :]


def _exactly(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise MalformedPdu("a sub-item has a wrong length")
    return value
