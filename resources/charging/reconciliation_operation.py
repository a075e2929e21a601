"""`ChargeItem/$reconciliation?date=2026-09-08`: what of a day is not charged, or not rightly (`reconciliation.py`).

It answers Parameters: `date`, `count`, and for each finding a `finding` with the parts `kind` (valueCode), `about`
(valueReference) and `text`. What the caller may not see is only counted, as `hidden`. Without a date it is of yesterday.
"""

from datetime import date, datetime, timedelta
from typing import Final

from fhir_server import clock
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, zones
from resources.charging.reconciliation import Finding, reconcile

_YEARS: Final = range(1900, 2200)
_NEEDS: Final = {"ChargeItem": "rs", "ServiceRequest": "rs"}


def register(registry: Registry) -> None:
    """Offer it."""
    definition = "urn:fhir-ris:OperationDefinition/ChargeItem-reconciliation"
    of, levels = frozenset({"ChargeItem"}), frozenset[Level]({"type"})
    registry.operation(Operation("reconciliation", definition, levels, run, of, parameters={"date": "date"}))


async def run(call: Call) -> Answer:
    """FhirError 400 for what is no day, 403 for who may not."""
    arguments.check_body("reconciliation", call.body, frozenset({"date"}))
    await department_operation.require(call, "reconciliation", _NEEDS)
    day = day_named(arguments.one(call, "date"))
    findings = await reconcile(call.interactions.store, *bounds(day))

    async def work(unit: UnitOfWork) -> list[Finding]:
        return [f for f in findings if await _is_seen(unit, f)]

    seen = await call.interactions.transact(call.access, call.act, work)
    return Answer(_answer(day, seen, len(findings) - len(seen)))


async def _is_seen(unit: UnitOfWork, finding: Finding) -> bool:
    to = target(finding.about)
    return to is not None and await unit.seen(to.type, to.id, "r", copy=False) is not None


def day_named(text: str | None) -> date:
    """The day, yesterday where none is named. FhirError 400."""
    if text is None:
        return clock.now().astimezone(zones.department()).date() - timedelta(days=1)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text or day.year not in _YEARS:
        raise fail("invalid", "date is a day of a department, such as 2026-09-08", status=400)
    return day


def bounds(day: date) -> tuple[datetime, datetime]:
    """When the day begins in the department, and when the next one does."""
    first = datetime(day.year, day.month, day.day, tzinfo=zones.department())
    following = day + timedelta(days=1)
    return first, datetime(following.year, following.month, following.day, tzinfo=zones.department())


def _answer(day: date, findings: list[Finding], hidden: int) -> Resource:
    rows: list[Resource] = [
        {"name": "date", "valueDate": day.isoformat()},
        {"name": "count", "valueInteger": len(findings) + hidden},
    ]
    rows += [{"name": "hidden", "valueInteger": hidden}] if hidden else []
    for finding in findings:
        parts = [
            {"name": "kind", "valueCode": finding.kind},
            {"name": "about", "valueReference": {"reference": finding.about}},
            {"name": "text", "valueString": finding.text},
        ]
        rows.append({"name": "finding", "part": parts})
    return {"resourceType": "Parameters", "parameter": rows}
