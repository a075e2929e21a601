"""To what figures are narrowed: `modality=CT,MR`, one or several of a kind.

What isn't known is refused, and not counted as nothing.
"""

from typing import Final

from fhir_server import visibility
from fhir_server.operations import Call, arguments
from fhir_server.outcome import FhirError, fail
from fhir_server.references import target
from resources import device, terms
from resources.numbers.measures import Figures
from resources.numbers.question import ONLY, Db

# DICOM PS3.16 CID 29, Acquisition Modality.
_MODALITIES: Final = frozenset(
    "AR BDUS BI BMD CFM CR CT DG DMS DX ECG EEG EMG EOG EPS ES GM HD IO IVOCT IVUS KER LEN LS MG MR NM OAM OCT OP OPM OPT OPTBSV "
    "OPTENF OPV OSS PA POS PT PX RESP RF RG RTIMAGE SM SRF TG US VA XA XC".split()
)
_TYPES: Final = {"scanner": "Device", "location": "Location"}


async def read(call: Call, figures: Figures) -> dict[str, frozenset[str]]:
    """By each dimension that is narrowed the values that count. FhirError 400 for what isn't known."""
    given = {name: value for name in ONLY if (value := arguments.one(call, name)) is not None}
    if unknown := sorted(given.keys() - set(figures.only)):
        raise _wrong(f"these figures can't be narrowed to one {unknown[0]}")
    return {name: frozenset([await _known(call, name, v.strip()) for v in value.split(",")]) for name, value in given.items()}


async def _known(call: Call, name: str, value: str) -> str:
    if name in _TYPES:
        return await _existing(call, name, value)
    known = terms.PRIORITIES[::-1] if name == "priority" else sorted(_MODALITIES)
    if value not in known and name == "modality":
        # A department may do what DICOM has no word for.
        known = sorted(_MODALITIES | await _done_here(call.interactions.store.db))
    if value not in known:
        raise _wrong(f"{name} is one or several (with commas) of {', '.join(known)}, not {value[:64]!r}")
    return value


async def _existing(call: Call, name: str, value: str) -> str:
    """The reference as the figures have it, of what the caller may read."""
    resource_type, to = _TYPES[name], target(value, call.base_url)
    if to is None or to.type != resource_type:
        raise _wrong(f"{name} is one or several (with commas) such as {resource_type}/1, not {value[:64]!r}")
    readable = call.access.allows(to.type, "r")
    found = await visibility.read(call.interactions.store, call.access, to.type, to.id) if readable else None
    if found is None or found.resource is None:
        raise _wrong(f"{name}: there is no {to}")
    return str(to)


async def _done_here(db: Db) -> set[str]:
    """The modalities of the scanners."""
    found = db["Device"].find({"resource.type": {"$exists": True}}, {"resource.type": 1})
    return {code async for document in found for code in device.modalities(document["resource"])}


def _wrong(text: str) -> FhirError:
    return fail("value", text, "Parameters.parameter", status=400)
