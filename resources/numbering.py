"""The numbers that the department assigns, as its NamingSystems say (docs/decisions/0026).

An active NamingSystem (kind `identifier`) whose uniqueId is one of the systems of `ASSIGNED` may have the extension
`urn:fhir-ris:numbering`, with

    pattern   valueString       what a number looks like (`number_pattern.py`)
    gapless   valueBoolean      no number is left out, at the price that orders are then accepted one after the other
    per-year  valuePositiveInt  how many are needed in a year; 200,000
    site      valueString       the site's code where an order names none

Without one, a number is a letter and nine digits, and those of one order have the same digits.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final
from weakref import WeakKeyDictionary

from fhir_server.elements import codes, extension, identifier_value
from fhir_server.foresight import Asked, asked
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, terms
from resources.identifiers import token
from resources.number_pattern import PER_YEAR, Pattern, PatternError, parse

NUMBERING: Final = "urn:fhir-ris:numbering"
SITE: Final = "urn:fhir-ris:site"  # identifier of a Location or Organization: its code in numbers
# What is assigned, and the letter that stands before nine digits where no NamingSystem says otherwise.
ASSIGNED: Final = {
    terms.FILLER_ORDER_NUMBER: "F",
    terms.ACCESSION_NUMBER: "A",
    terms.REQUESTED_PROCEDURE_ID: "R",
    terms.SCHEDULED_STEP_ID: "S",
}
_SITE_CODE: Final = re.compile(r"[A-Za-z0-9]{1,8}")
_TRIES: Final = 1000  # times that the next number is somebody's already: after these, a person must look
_AT_ONCE: Final = 500  # numbers that are looked at when one is somebody's: brought ones come in rows
_NEARLY: Final = 0.9  # of a series, when a person is told
_zone: list[tzinfo] = [UTC]


@dataclass(frozen=True, slots=True)
class Numbering:
    """How the numbers of one system are assigned; `by` is the NamingSystem that says so."""

    system: str
    pattern: Pattern
    by: str
    gapless: bool = False
    site: str = ""


# What is asked for once in a transaction, for `View.foresee`.
ASKED: Final = Asked("NamingSystem", (("value:exact", ",".join(sorted(ASSIGNED))), ("status", "active")))
_of_transaction: "WeakKeyDictionary[UnitOfWork, Mapping[str, Numbering]]" = WeakKeyDictionary()


async def numberings(unit: UnitOfWork) -> Mapping[str, Numbering]:
    """The systems whose numbers a NamingSystem describes. Read once in a transaction."""
    known = _of_transaction.get(unit)
    if known is None:
        found = await unit.ask(ASKED)
        known = {n.system: n for one in found for n in _said(one)}
        _of_transaction[unit] = known
    return known


async def fresh(unit: UnitOfWork, system: str, about: Resource, digits: str = "") -> str:
    """A number that nobody has.

    about: the order, requested procedure or step that gets it, for the parts that depend on it
    digits: those of its order, for numbers that no NamingSystem describes
    """
    described = (await numberings(unit)).get(system)
    if described is None:
        return f"{ASSIGNED[system]}{digits or await order_digits(unit)}"
    return await _described(unit, described, about)


async def order_digits(unit: UnitOfWork) -> str:
    """The nine digits of a new order: those of no number that somebody has brought, whatever system its sender gave it."""
    for _ in range(_TRIES):
        digits = f"{await unit.next_number('order'):09d}"
        numbers = ",".join(f"{letter}{digits}" for system, letter in ASSIGNED.items() if system != terms.SCHEDULED_STEP_ID)
        step = f"{ASSIGNED[terms.SCHEDULED_STEP_ID]}{digits}"
        held = asked("ServiceRequest", {"identifier": numbers}, newest=1), asked("Task", {"identifier": step}, newest=1)
        await unit.foresee(*held)
        if not any([await unit.ask(one) for one in held]):
            return digits
    raise fail("business-rule", "the order numbers that come next are all taken: a NamingSystem is to give them a pattern")


async def _described(unit: UnitOfWork, numbering: Numbering, about: Resource) -> str:
    values = await _values(unit, numbering, about)
    day = unit.now.astimezone(_zone[0]).date()
    series = f"number:{numbering.system}:{numbering.pattern.series(values, day)}"
    held = "Task" if numbering.system == terms.SCHEDULED_STEP_ID else "ServiceRequest"
    for _ in range(_TRIES):
        n = await (unit.next_without_gap(series) if numbering.gapless else unit.next_number(series))
        if n > _NEARLY * numbering.pattern.last:
            await _warn(unit, numbering)
        try:
            number = numbering.pattern.number(values, day, n)
        except PatternError as error:
            raise fail("business-rule", f"the numbers of {numbering.system} have run out: {error}") from None
        if not await unit.some(held, 1, identifier=token(numbering.system, number)):
            return number
        following = range(n + 1, min(n + _AT_ONCE, numbering.pattern.last) + 1)
        numbers = {i: numbering.pattern.number(values, day, i) for i in following}
        taken = await _taken_of(unit, held, numbering.system, numbers.values())
        free = next((i for i, one in numbers.items() if one not in taken), following.stop)
        # What lies between is taken, and nobody need try it again. A number without gaps is this transaction's.
        session = unit.session if numbering.gapless else None
        await unit.db["counters"].update_one({"_id": series}, {"$max": {"n": free - 1}}, session=session)
    raise fail("business-rule", f"the numbers of {numbering.system} that come next are all taken: its pattern is to be changed")


async def _taken_of(unit: UnitOfWork, held: str, system: str, numbers: Iterable[str]) -> set[str]:
    """Which of these numbers somebody has."""
    wanted = ",".join(token(system, number) for number in numbers)
    found = await unit.search(held, identifier=wanted) if wanted else []
    return {str(i.get("value")) for one in found for i in one.get("identifier", ()) if i.get("system") == system}


async def _warn(unit: UnitOfWork, numbering: Numbering) -> None:
    from resources import work_items

    text = f"More than {_NEARLY:.0%} of a series of numbers of {numbering.system} are used up"
    await work_items.raise_once(unit, "numbers-run-out", numbering.system, text, about=numbering.by)


async def _values(unit: UnitOfWork, numbering: Numbering, about: Resource) -> dict[str, str]:
    """What stands for the parts that depend on the order."""
    values: dict[str, str] = {}
    if numbering.pattern.has("modality"):
        said = [c for i in about.get("input", ()) for c in codes(i.get("valueCodeableConcept"), terms.DCM)]
        request = about if about["resourceType"] == "ServiceRequest" else await unit.get(about.get("focus")) or about
        values["modality"] = said[0] if said else await activity_definition.modality(unit, request) or "OT"
    if numbering.pattern.has("site"):
        values["site"] = await _site(unit, about) or numbering.site
    return values


async def _site(unit: UnitOfWork, about: Resource) -> str:
    """The code of the first place or organization that the order, or what it is part of, names and that has one."""
    request: Resource | None = about if about["resourceType"] == "ServiceRequest" else await unit.get(about.get("focus"))
    while request is not None and request["resourceType"] == "ServiceRequest":
        for reference in (*request.get("locationReference", ()), *request.get("performer", ())):
            code = identifier_value(await unit.get(reference) or {}, SITE) or ""
            if _SITE_CODE.fullmatch(code):
                return code
        based_on = next(iter(request.get("basedOn", ())), None) if request.get("intent") == "filler-order" else None
        request = await unit.get(based_on) if based_on else None
    return ""


# NamingSystem


def _said(naming: Resource) -> list[Numbering]:
    """What a NamingSystem says of the systems that are ours. FhirError for a pattern that can't be."""
    found = extension(naming, NUMBERING)
    systems = [u["value"] for u in naming.get("uniqueId", ()) if u.get("value") in ASSIGNED]
    if found is None or not systems:
        return []
    where = "NamingSystem.extension"
    told = {e["url"]: next((v for k, v in e.items() if k.startswith("value")), None) for e in found.get("extension", ())}
    if unknown := told.keys() - {"pattern", "gapless", "per-year", "site"}:
        raise fail("value", f"{NUMBERING} has no part {min(unknown)[:40]!r}", where, status=422)
    if len(systems) > 1:
        raise fail("business-rule", "numbers of two systems need two NamingSystems", "NamingSystem.uniqueId")
    site, per_year = str(told.get("site") or ""), told.get("per-year", PER_YEAR)
    if not isinstance(per_year, int) or isinstance(per_year, bool):
        raise fail("value", f"per-year of {NUMBERING} is a valuePositiveInt", where, status=422)
    try:
        pattern = parse(str(told.get("pattern") or ""), per_year)
    except PatternError as error:
        raise fail("business-rule", f"the pattern {str(told.get('pattern'))[:40]!r} won't do: {error}", where) from None
    if pattern.has("site") and not _SITE_CODE.fullmatch(site):
        text = "a pattern with {site} needs the site for orders that name none: letters and digits, eight at most"
        raise fail("business-rule", text, where)
    return [Numbering(systems[0], pattern, f"NamingSystem/{naming.get('id')}", bool(told.get("gapless")), site)]


async def check(unit: UnitOfWork, change: Change) -> None:
    """A pattern whose numbers get too long or run out is refused when it is written; a system has one at most."""
    naming = change.after
    if naming is None or extension(naming, NUMBERING) is None:
        return
    if not _said(naming):
        raise fail("business-rule", f"{NUMBERING} is for one of {', '.join(sorted(ASSIGNED))}", "NamingSystem.uniqueId")
    if naming.get("status") != "active":
        return
    system = _said(naming)[0].system
    await unit.lock(f"numbering:{system}")
    for other in await unit.search_all("NamingSystem", [("value:exact", system), ("status", "active")]):
        if other["id"] != change.id and extension(other, NUMBERING) is not None:
            raise _taken(system, other)
    _of_transaction.pop(unit, None)


def _taken(system: str, other: Resource) -> FhirError:
    return fail(
        "duplicate", f"NamingSystem/{other['id']} says how {system} is assigned; retire it first", "NamingSystem.uniqueId"
    )


def register(registry: Registry, zone: tzinfo) -> None:
    """`zone` is the department's: years and days in numbers are its."""
    _zone[0] = zone
    registry.rule("NamingSystem", check)
