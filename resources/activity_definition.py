"""ActivityDefinition: the procedure catalogue. What an ordered code means for the department."""

from datetime import timedelta

from fhir_server import foresight
from fhir_server.elements import codes, codings, extension
from fhir_server.foresight import Asked
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token

# Extension (boolean): an order for the procedure must say why.
REASON_REQUIRED = "urn:fhir-ris:reason-required"
# Extensions: what the patient is told to do before (string or markdown), and how long that takes (Duration).
PREPARATION = "urn:fhir-ris:preparation"
PREPARATION_TIME = "urn:fhir-ris:preparation-time"
_LONGEST = 366 * 86_400  # seconds: nothing takes longer
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}  # UCUM


def needs_reason(entry: Resource | None) -> bool:
    """Whether the catalogue entry asks for a reason."""
    found = extension(entry or {}, REASON_REQUIRED)
    return bool(found and found.get("valueBoolean"))


def preparation(entry: Resource | None) -> str | None:
    """What the patient is told to do before it."""
    found = extension(entry or {}, PREPARATION) or {}
    text = found.get("valueString") or found.get("valueMarkdown")
    return str(text) if text else None


def preparation_time(entry: Resource | None) -> timedelta:
    """How long before it the patient must know of it."""
    return _duration((extension(entry or {}, PREPARATION_TIME) or {}).get("valueDuration")) or timedelta(0)


def duration(entry: Resource | None) -> timedelta | None:
    """How long it takes (`timingDuration`); None when the catalogue doesn't say."""
    return _duration((entry or {}).get("timingDuration"))


def _duration(said: Resource | None) -> timedelta | None:
    seconds = _SECONDS.get(str((said or {}).get("code") or (said or {}).get("unit")))
    if not said or not seconds or "value" not in said or abs(said["value"]) > _LONGEST / seconds:
        return None
    return timedelta(seconds=float(said["value"]) * seconds)


async def modality(unit: UnitOfWork, request: Resource) -> str | None:
    """The modality that a requested procedure needs: as the order says, else by the catalogue. None when neither knows."""
    for element in ("orderDetail", "category"):
        if said := codes(request.get(element), terms.DCM):
            return said[0]
    entry = await catalogue_entry(unit, request)
    found = codes((entry or {}).get("topic"), terms.DCM)
    return found[0] if found else None


async def catalogue_entry(unit: UnitOfWork, request: Resource) -> Resource | None:
    """The active catalogue entry of the request's code; of several codings the first that the catalogue knows counts.

    R4 can't search ActivityDefinition by code, so an entry also carries its procedure code as an identifier.
    """
    wanted = _codes(request)
    found = [entry for one in asked(request) for entry in await unit.ask(one)]
    entries = {(i.get("system", ""), i.get("value")): e for e in found for i in e.get("identifier", ())}
    return next((entries[w] for w in wanted if w in entries), None)


def asked(request: Resource) -> list[Asked]:
    """What `catalogue_entry` will ask for, for `View.foresee`; nothing where no code is."""
    tokens = ",".join(token(*w) for w in _codes(request))
    return [foresight.asked("ActivityDefinition", {"identifier": tokens, "status": "active"})] if tokens else []


def _codes(request: Resource) -> list[tuple[str, str]]:
    return [(c.get("system", ""), c["code"]) for c in codings(request.get("code")) if "code" in c]
