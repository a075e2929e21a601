"""How long something may take, as rules that a department keeps as data: ActivityDefinitions with a time and what they are for.

    turn-around of a reading     kind Task, identifier urn:fhir-ris:reading-target|[any name], timingDuration; `priority` and
                                 `topic` (DICOM modality, DCM) where the rule is for these only
    telling a critical result    kind CommunicationRequest, identifier urn:fhir-ris:critical-limit|[RadLex code], timingDuration
Of several rules that fit, the one that says more counts: the priority more than the modality.
"""

from datetime import timedelta
from typing import Final

from fhir_server.elements import codes, identifier_value
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token

READING_TARGET: Final = "urn:fhir-ris:reading-target"
CRITICAL_LIMIT: Final = "urn:fhir-ris:critical-limit"
_UNITS: Final = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}  # UCUM

_LONGEST: Final = timedelta(days=366)


async def reading_target(unit: UnitOfWork, priority: str, modality: str | None) -> timedelta | None:
    """How long the reading of a study of this priority and modality may take; None where no rule says."""
    rules = await unit.search("ActivityDefinition", identifier=f"{READING_TARGET}|", status="active")
    fitting = [r for r in rules if r.get("priority") in {None, priority} and (not _modalities(r) or modality in _modalities(r))]
    best = max(fitting, key=lambda r: ("priority" in r, bool(_modalities(r)), r["id"]), default=None)
    return _duration(best) if best else None


async def critical_limit(unit: UnitOfWork, category: str) -> timedelta | None:
    """How long telling a critical result of this category (RadLex) may take; None where no rule says."""
    rules = await unit.search("ActivityDefinition", identifier=token(CRITICAL_LIMIT, category), status="active")
    return min((d for r in rules if (d := _duration(r))), default=None)


def _modalities(rule: Resource) -> list[str]:
    return codes(rule.get("topic"), terms.DCM)


def _duration(rule: Resource) -> timedelta | None:
    given = rule.get("timingDuration", {})
    unit, value = _UNITS.get(given.get("code", "")), given.get("value")
    if unit is None or value is None or not 0 < value <= _LONGEST / unit:
        return None
    return unit * float(value)


async def check(_unit: UnitOfWork, change: Change) -> None:
    """A rule says how long: a positive timingDuration in min, h or d, a year at most."""
    rule = change.after
    if rule is None or all(identifier_value(rule, system) is None for system in (READING_TARGET, CRITICAL_LIMIT)):
        return
    if _duration(rule) is None:
        text = "a rule of how long something may take has a timingDuration in UCUM min, h or d, of a year at most"
        raise fail("business-rule", text, "ActivityDefinition.timingDuration")


def register(registry: Registry) -> None:
    registry.rule("ActivityDefinition", check)
