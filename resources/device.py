"""Device: a scanner, known by its AE title (identifier system `urn:fhir-ris:ae-title`), its modality in `type`."""

import re

from fhir_server.elements import codes, identifier_value
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms

# PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash or control characters.
_AE_TITLE = re.compile(r"^(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )$")


def ae_title(device: Resource) -> str | None:
    return identifier_value(device, terms.AE_TITLE)


def modalities(device: Resource) -> list[str]:
    """The DICOM modality codes that the station does."""
    return codes(device.get("type"), terms.DCM)


async def fitting(unit: UnitOfWork, stations: list[str], modality: str | None) -> str | None:
    """The first of these stations that does the modality. One whose modality isn't registered is taken at its word."""
    for station in stations:
        device = await unit.get(station)
        if device is None:
            raise fail("value", f"{station} does not exist", "Appointment.participant.actor", status=422)
        done = modalities(device)
        if modality is None or not done or modality in done:
            return station
    return None


async def by_ae_title(unit: UnitOfWork, title: str) -> Resource | None:
    """The active station with this AE title."""
    for device in await unit.search("Device", identifier=f"{terms.AE_TITLE}|{title}"):
        if device.get("status", "active") == "active":
            return device
    return None


async def check(unit: UnitOfWork, change: Change) -> None:
    """An AE title is well-formed and belongs to one station."""
    device = change.after
    title = ae_title(device) if device else None
    if title is None:
        return
    if not _AE_TITLE.match(title):
        raise fail("value", "an AE title has 1 to 16 characters, no backslash", "Device.identifier.value")
    if change.before is None or ae_title(change.before) != title:
        await unit.lock(f"ae:{title}")
        other = await by_ae_title(unit, title)
        if other is not None and other["id"] != change.id:
            raise fail("duplicate", f"this AE title is that of Device/{other['id']}", "Device.identifier")


def register(registry: Registry) -> None:
    registry.rule("Device", check)
