"""What a Device says of how its scanner connects and of the worklist that it gets: extensions on the Device.

`EXTENSIONS` is the table of them: what each may be and means. It is checked when the Device is stored, and printed in the docs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final

from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import scanner_preferences

PREFIX: Final = "urn:fhir-ris:"
VIEWS: Final = ("everything", "station", "modality", "location")
_SINGLE_SETS: Final = "6 13 100 101 109 110 126 127 138 144 148 166 192 203".split()
_EXTENDED_SETS: Final = "6 13 58 87 100 101 109 110 126 127 138 144 148 149 159 166 203".split()


def _network(value: Any) -> bool:
    try:
        ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def _character_set(value: Any) -> bool:
    first, *others = (t.strip() for t in str(value).split("\\"))
    extended = {f"ISO 2022 IR {n}" for n in _EXTENDED_SETS}
    if not others:
        return first in extended | {f"ISO_IR {n}" for n in _SINGLE_SETS} | {"GB18030", "GBK"}
    return first in extended | {""} and all(t in extended for t in others)


def _certificate(value: Any) -> bool:
    return bool(re.fullmatch(r"(sha256:[0-9A-Fa-f]{64})|((CN|DNS)=\S(.{0,253}\S)?)", str(value)))


def _between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True, slots=True)
class Extension:
    """One of them: its value element, whether a value is one, what it may be in words, and what it means."""

    element: str
    good: Callable[[Any], bool]
    allowed: str
    meaning: str
    repeats: bool = False


EXTENSIONS: Final[dict[str, Extension]] = {
    "dicom-address": Extension(
        "valueString", _network, "an IP address or network, such as 10.1.2.0/24",
        "it may call from here only; without it from anywhere", repeats=True,
    ),
    "dicom-certificate": Extension(
        "valueString", _certificate, "sha256: and 64 hex digits of the certificate, CN=name or DNS=name",
        "it must call over TLS, with a certificate of which one of these holds", repeats=True,
    ),
    "dicom-any-called-title": Extension(
        "valueBoolean", lambda v: isinstance(v, bool), "true or false", "it may call us by any AE title",
    ),
    "dicom-associations": Extension("valueInteger", _between(1, 200), "1 to 200", "so many associations at a time (20)"),
    "worklist-view": Extension(
        "valueCode", VIEWS.__contains__, ", ".join(VIEWS),
        "it sees the steps of its own AE title, of its modalities, of the stations of its room, or everything (without it), "
        "whatever its keys are",
    ),
    "worklist-days-back": Extension(
        "valueInteger", _between(0, 3650), "0 to 3650", "without a date in the query: so many days back from today (1)",
    ),
    "worklist-days-ahead": Extension(
        "valueInteger", _between(0, 3650), "0 to 3650", "and so many days ahead (1)",
    ),
    "worklist-limit": Extension("valueInteger", _between(1, 5000), "1 to 5000", "so many answers at most (500)"),
    "worklist-over-limit": Extension(
        "valueCode", ("cut", "refuse").__contains__, "cut, refuse",
        "a longer list is cut, the earliest first (without it), or refused with A700",
    ),
    "character-set": Extension(
        "valueString", _character_set, "a value of Specific Character Set, such as ISO_IR 192 or \\ISO 2022 IR 87",
        "its answers are in this set, transliterated where the set hasn't the letters; without it in the plainest of ASCII, "
        "ISO_IR 100 and ISO_IR 192 that is enough",
    ),
    "query-character-set": Extension(
        "valueString", _character_set, "the same", "its queries are in this set, where they declare none",
    ),
    "name-groups": Extension(
        "valueCode", ("all", "alphabetic").__contains__, "all, alphabetic", "the component groups of names that it takes (all)",
    ),
    "name-length": Extension(
        "valueInteger", _between(8, 64), "8 to 64", "characters of a component group of a name (64)",
    ),
    "empty-sequences": Extension(
        "valueCode", ("send", "omit").__contains__, "send, omit",
        "a sequence that it asks for and that has no items is sent with zero length (without it), or left out",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preferences:
    """Those of one scanner; the defaults are those of one that has none, or isn't registered."""

    addresses: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    any_called_title: bool = False
    associations: int = 20
    view: str = "everything"
    days_back: int = 1
    days_ahead: int = 1
    limit: int = 500
    refuse_over_limit: bool = False
    character_set: str = ""
    query_character_set: str = ""
    alphabetic_only: bool = False
    name_length: int = 64
    omit_empty_sequences: bool = False


_FIELDS: Final = {
    "dicom-any-called-title": "any_called_title",
    "dicom-associations": "associations",
    "worklist-view": "view",
    "worklist-days-back": "days_back",
    "worklist-days-ahead": "days_ahead",
    "worklist-limit": "limit",
    "character-set": "character_set",
    "query-character-set": "query_character_set",
    "name-length": "name_length",
}


@dataclass(slots=True)
class _Said:
    values: dict[str, list[Any]] = field(default_factory=dict)

    def one(self, name: str) -> Any:
        found = self.values.get(name)
        return found[0] if found else None


def of(device: Resource) -> Preferences:
    """The preferences of a Device. What isn't valid (it was stored by somebody else) is as if it weren't there."""
    said = _Said()
    for extension in device.get("extension", ()):
        name = str(extension.get("url", "")).removeprefix(PREFIX)
        known = EXTENSIONS.get(name)
        if known is not None and known.good(value := extension.get(known.element)):
            said.values.setdefault(name, []).append(value)
    given = {to: value for name, to in _FIELDS.items() if (value := said.one(name)) is not None}
    return Preferences(
        addresses=tuple(said.values.get("dicom-address", ())),
        certificates=tuple(said.values.get("dicom-certificate", ())),
        refuse_over_limit=said.one("worklist-over-limit") == "refuse",
        alphabetic_only=said.one("name-groups") == "alphabetic",
        omit_empty_sequences=said.one("empty-sequences") == "omit",
        **given,
    )


async def check(_unit: UnitOfWork, change: Change) -> None:
    """FhirError `value` for a preference that we don't have or that means nothing, or comes twice where it may come once.

    A misspelt one would be ignored, and with it what was to be forbidden.
    """
    seen: set[str] = set()
    for extension in (change.after or {}).get("extension", ()):
        url = str(extension.get("url", ""))
        name = url.removeprefix(PREFIX)
        known = EXTENSIONS.get(name) if url.startswith(PREFIX) else None
        if known is None:
            if url.startswith(PREFIX) and url not in scanner_preferences.URLS:
                listed = ", ".join(sorted([*(PREFIX + n for n in EXTENSIONS), *scanner_preferences.URLS]))
                raise fail("value", f"{url} is no extension of ours on a Device; they are {listed}", "Device.extension")
            continue
        if not known.good(extension.get(known.element)):
            raise fail("value", f"{PREFIX}{name} has a {known.element}: {known.allowed}", "Device.extension")
        if name in seen and not known.repeats:
            raise fail("value", f"{PREFIX}{name} comes once", "Device.extension")
        seen.add(name)


def register(registry: Registry) -> None:
    registry.rule("Device", check)
