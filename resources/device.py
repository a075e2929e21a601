"""Device: a scanner, known by its AE title (identifier system `urn:fhir-ris:ae-title`), its modality in `type`."""

import re

from fhir_server import foresight
from fhir_server.elements import codes, identifier_value
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token

# PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash or control characters.
_AE_TITLE = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")


def ae_title(device: Resource) -> str | None:
    return identifier_value(device, terms.AE_TITLE)


def name(device: Resource | None) -> str:
    """What it is called: as people do, else by its AE title; "" where it has neither."""
    names: list[Resource] = [n for n in (device or {}).get("deviceName", ()) if n.get("name")]
    preferred = next((n for n in names if n.get("type") == "user-friendly-name"), next(iter(names), {}))
    return str(preferred.get("name") or ae_title(device or {}) or "")


def is_ae_title(value: str) -> bool:
    """Whether this can be an AE title."""
    return _AE_TITLE.fullmatch(value) is not None


def modalities(device: Resource) -> list[str]:
    """The DICOM modality codes that the station does."""
    return codes(device.get("type"), terms.DCM)


def does(device: Resource, modality: str | None) -> bool:
    """Whether the station can do this. One whose modality isn't registered is taken at its word."""
    done = modalities(device)
    return modality is None or not done or modality in done


async def fitting(unit: UnitOfWork, stations: list[str], modality: str | None) -> str | None:
    """The first of these stations (`Device/ct1`) that does the modality. FhirError when one is not there or not in use."""
    found = [(station, await in_use(unit, station)) for station in stations]
    return next((station for station, device in found if does(device, modality)), None)


async def in_use(unit: UnitOfWork, station: str) -> Resource:
    """The station of this reference. FhirError when it isn't there or not active."""
    device = await unit.get(station)
    if device is None:
        raise fail("value", f"{station} does not exist", status=422)
    if not _active(device):
        raise fail("business-rule", f"{station} is {device['status']}")
    return device


async def by_ae_title(unit: UnitOfWork, title: str) -> Resource | None:
    """The active station with this AE title."""
    if not title:
        return None
    found = await unit.ask(asked(title))
    return next((d for d in found if _active(d)), None)


def asked(title: str) -> Asked:
    """What `by_ae_title` will ask for, for `View.foresee`."""
    return foresight.asked("Device", {"identifier": token(terms.AE_TITLE, title)})


def _active(device: Resource) -> bool:
    return bool(device.get("status", "active") == "active")


async def check(unit: UnitOfWork, change: Change) -> None:
    """An AE title is well-formed and belongs to one station that is in use."""
    device = change.after
    title = ae_title(device) if device else None
    if device is None or title is None:
        return
    if not _AE_TITLE.fullmatch(title):
        raise fail("value", "an AE title has 1 to 16 characters, no backslash", "Device.identifier.value")
    had_it = change.before is not None and _active(change.before) and ae_title(change.before) == title
    if _active(device) and not had_it:
        await unit.lock(f"ae:{title}")
        other = await by_ae_title(unit, title)
        if other is not None and other["id"] != change.id:
            raise fail("duplicate", f"this AE title is that of {await unit.named('Device', other['id'])}", "Device.identifier")


def register(registry: Registry) -> None:
    registry.rule("Device", check)
