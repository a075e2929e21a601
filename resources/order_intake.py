"""What is looked at when an order comes in, by whatever door: the procedure catalogue, reason, duplicates, dates.

Each finding says what is odd; what then happens (take it, show it, hold the order, refuse it) is the stricter of what the door
has agreed with the sender and what the catalogue says (`order_verdict.py`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from fhir_server.elements import codings, identifier_of_type
from fhir_server.foresight import asked
from fhir_server.registry import Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, order_panel, terms
from resources.identifiers import token

Kind = Literal["unknown-procedure", "missing-reason", "duplicate-order", "implausible-date"]
KINDS: Final[tuple[Kind, ...]] = ("unknown-procedure", "missing-reason", "duplicate-order", "implausible-date")
DUPLICATE_DAYS: Final = 30
CATALOGUED: Final = asked("ActivityDefinition", {"status": "active"}, newest=1)
_OPEN: Final = "draft,active,on-hold"
_LOOKED_AT: Final = 100  # open orders of one patient for one procedure, the newest: a phantom may have thousands
_NAMED: Final = 10  # of those that are duplicates
_LATE: Final = timedelta(days=1)
_AHEAD: Final = timedelta(days=731)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is odd about an order. `element` is where; the text is for the placer and holds nothing about the patient.

    others: the orders that it is a duplicate of, at most ten
    """

    kind: Kind
    text: str
    element: str
    others: tuple[str, ...] = ()


async def examine(
    unit: UnitOfWork,
    order: Resource,
    patient: Resource,
    kinds: Collection[Kind] = KINDS,
    days: int = DUPLICATE_DAYS,
    entries: Collection[Resource] | None = None,
) -> list[Finding]:
    """What is odd about an order that is not stored yet, or is being changed.

    kinds: what is looked for
    days: how near to each other two alike orders are duplicates
    entries: those of the catalogue that the order names, where the caller has read them
    """
    found: list[Finding | None] = []
    if entries is None:
        entries = await order_panel.entries(unit, order) if {*kinds} - {"implausible-date"} else []
    if "unknown-procedure" in kinds or "missing-reason" in kinds:
        found += [_missing_reason(order, entries), await _unknown_procedure(unit, entries)]
    if "duplicate-order" in kinds:
        found.append(await _duplicate(unit, order, entries, days))
    found.append(_implausible_date(order, patient, unit.now))
    return [f for f in found if f and f.kind in kinds]


async def _unknown_procedure(unit: UnitOfWork, entries: Collection[Resource]) -> Finding | None:
    """Only where there is a catalogue at all."""
    if entries or not await unit.ask(CATALOGUED):
        return None
    return Finding("unknown-procedure", "the procedure is not in the department's catalogue", "ServiceRequest.code")


def _missing_reason(order: Resource, entries: Collection[Resource]) -> Finding | None:
    needed = any(activity_definition.needs_reason(entry) for entry in entries)
    if not needed or order.get("reasonCode") or order.get("reasonReference"):
        return None
    return Finding("missing-reason", "this procedure needs the reason for it", "ServiceRequest.reasonCode")


async def _duplicate(unit: UnitOfWork, order: Resource, entries: Collection[Resource], days: int) -> Finding | None:
    """Open orders of the same patient for the same procedure, wanted or ordered about the same time.

    The same procedure is the same code, or another one of the same catalogue entry: one placer's own code, the other's LOINC.
    """
    mine = _codes(order).union(*(_codes(entry) for entry in entries))
    subject = order["subject"].get("reference", "")
    if not mine or not subject or is_new(unit, subject):
        return None
    found: list[Resource] = []
    replaced = {r.get("reference") for r in order.get("replaces", ())}
    alike = ",".join(sorted(token(*code) for code in mine))
    for other in await unit.some("ServiceRequest", _LOOKED_AT, subject=subject, intent="order", status=_OPEN, code=alike):
        near = abs(_when(order, unit.now) - _when(other, unit.now)) <= timedelta(days=days)
        reference = f"ServiceRequest/{other['id']}"
        if other["id"] != order.get("id") and reference not in replaced and near:
            found.append(other)
    if not found:
        return None
    named = sorted(found, key=lambda other: str(other["id"]))[:_NAMED]
    text = f"an open order for the same procedure exists: {', '.join(number_of(other) for other in named)}"
    return Finding("duplicate-order", text, "ServiceRequest.code", tuple(f"ServiceRequest/{other['id']}" for other in named))


def number_of(order: Resource) -> str:
    """What people call an order by: its filler number, else the placer's, else where it is."""
    numbers = (identifier_of_type(order, terms.V2_0203, code) for code in ("FILL", "PLAC"))
    return next((str(n["value"]) for n in numbers if n and "value" in n), f"ServiceRequest/{order.get('id')}")


def is_new(unit: UnitOfWork, reference: str) -> bool:
    """Whether this transaction makes what is referred to: a new patient has no orders."""
    return any(f"{c.type}/{c.id}" == reference and c.before is None for c in unit.changes())


def _codes(order: Resource) -> set[tuple[str, str]]:
    return {(c.get("system", ""), c["code"]) for c in codings(order.get("code")) if "code" in c}


def wanted(order: Resource) -> str | None:
    """When an order is wanted, if it says so: the earliest time."""
    events = order.get("occurrenceTiming", {}).get("event", ())
    found = order.get("occurrenceDateTime") or order.get("occurrencePeriod", {}).get("start") or min(events, default=None)
    return str(found) if found else None


def _when(order: Resource, now: datetime) -> datetime:
    """When an order is wanted, else when it was ordered, else when it came."""
    said = wanted(order) or order.get("authoredOn") or order.get("meta", {}).get("lastUpdated")
    return dates.moment(said) if said else now


def _implausible_date(order: Resource, patient: Resource, now: datetime) -> Finding | None:
    """Wanted more than a day ago or more than two years ahead, ordered in the future, or either before birth."""
    authored, wish = order.get("authoredOn"), wanted(order)
    if authored and dates.moment(authored) > now + _LATE:
        return Finding("implausible-date", "the order is dated in the future", "ServiceRequest.authoredOn")
    if wish and dates.moment(wish) < now - (_LATE if "T" in wish else 2 * _LATE):
        return Finding("implausible-date", "the order is wanted in the past", "ServiceRequest.occurrence")
    if wish and dates.moment(wish) > now + _AHEAD:
        return Finding("implausible-date", "the order is wanted more than two years from now", "ServiceRequest.occurrence")
    birth = _birth(patient)
    for said, element in ((authored, "authoredOn"), (wish, "occurrence")):
        if birth and said and (day := said[:10]) < birth[: len(day)]:
            return Finding("implausible-date", "the order is dated before the patient's birth", f"ServiceRequest.{element}")
    return None


def _birth(patient: Resource) -> str | None:
    """The day of birth; None where it isn't known to the day."""
    birth = patient.get("birthDate", "")
    return str(date.fromisoformat(birth)) if len(birth) == 10 else None
