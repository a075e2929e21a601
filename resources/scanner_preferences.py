"""What a Device says of how its performed steps are taken: extensions on the scanner's Device.

| extension | value | meaning |
|---|---|---|
| `urn:fhir-ris:mpps-checks` | code `strict`, `normal` (without it), `lenient` | how its data sets are checked (PS3.4 F.7.2-1) |
| `urn:fhir-ris:examination-end` | code `mpps` (without it), `availability`, `study-stable` | what ends its examinations |
| `urn:fhir-ris:stable-minutes` | integer, 1 to 1440 (without it 5) | how long a study must not grow to be stable |
| `urn:fhir-ris:abandoned-after-hours` | integer, 1 to 240 (without it 12) | after how long in progress somebody is asked |
"""

from dataclasses import dataclass
from typing import Any, Final

from fhir_server.elements import extension
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork

CHECKS: Final = "urn:fhir-ris:mpps-checks"
END: Final = "urn:fhir-ris:examination-end"
STABLE: Final = "urn:fhir-ris:stable-minutes"
ABANDONED: Final = "urn:fhir-ris:abandoned-after-hours"
_CODES: Final = {CHECKS: ("strict", "normal", "lenient"), END: ("mpps", "availability", "study-stable")}
_NUMBERS: Final = {STABLE: (1, 1440), ABANDONED: (1, 240)}
URLS: Final = (*_CODES, *_NUMBERS)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Those of one scanner; the defaults are those of one that has none, or isn't registered."""

    checks: str = "normal"
    examination_end: str = "mpps"
    stable_minutes: int = 5
    abandoned_after_hours: int = 12


def of(device: Resource | None) -> Preferences:
    """The preferences of a Device that was checked when it was stored."""
    said = {url: extension(device or {}, url) or {} for url in (*_CODES, *_NUMBERS)}
    given: dict[str, Any] = {
        "checks": said[CHECKS].get("valueCode"),
        "examination_end": said[END].get("valueCode"),
        "stable_minutes": said[STABLE].get("valueInteger"),
        "abandoned_after_hours": said[ABANDONED].get("valueInteger"),
    }
    return Preferences(**{name: value for name, value in given.items() if value is not None})


async def check(_unit: UnitOfWork, change: Change) -> None:
    """FhirError `value` for a preference with a value that means nothing."""
    for one in (change.after or {}).get("extension", ()):
        url = one.get("url")
        if url in _CODES and one.get("valueCode") not in _CODES[url]:
            raise fail("value", f"{url} is a code: {', '.join(_CODES[url])}", "Device.extension")
        if url in _NUMBERS:
            low, high = _NUMBERS[url]
            value = one.get("valueInteger")
            if not isinstance(value, int) or not low <= value <= high:
                raise fail("value", f"{url} is an integer from {low} to {high}", "Device.extension")


def register(registry: Registry) -> None:
    registry.rule("Device", check)
