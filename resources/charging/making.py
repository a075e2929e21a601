"""Making charges by the catalogue, each once, and taking them back."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from fhir_server import clock
from fhir_server.references import ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, charge_item, imaging_study, task
from resources.charge_item import CHARGE, COMPONENT, MODIFIER, STANDS, VOIDED, WITHDRAWN, component
from resources.charging import catalogue, modifiers, review
from resources.charging.catalogue import Said
from resources.charging.modifiers import Done
from resources.security_labels import labelled


async def of_procedure(unit: UnitOfWork, procedure: Resource) -> list[Resource]:
    """All charges of a requested procedure, whoever made them: those that refer to it, or to its study."""
    studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    wanted = [f">ServiceRequest/{procedure['id']}", *(f">ImagingStudy/{s['id']}" for s in studies)]
    await unit.flush()
    rows = unit.db["ChargeItem"].find({"search.t": {"$in": wanted}}, {"_id": 1}, sort=[("_id", 1)], session=unit.session)
    found = [await unit.read("ChargeItem", row["_id"]) async for row in rows]
    return [c for c in found if c is not None and charge_item.procedure_id(c) in {"", procedure["id"]}]


async def charge(
    unit: UnitOfWork, procedure: Resource, which: str, report: Resource | None = None, *, discontinued: bool = False
) -> list[Resource]:
    """Charge a component of a requested procedure, but for what is charged already; what was made.

    discontinued: the examination was stopped with images taken: it is charged with modifier 53 and held for review
    """
    if procedure["status"] in {"revoked", "entered-in-error"}:
        return []
    entry = await activity_definition.catalogue_entry(unit, procedure)
    wanted = catalogue.of_component(entry, which)
    if not wanted:
        return []
    await unit.lock(f"charges:{procedure['id']}")
    had = [c for c in await of_procedure(unit, procedure) if component(c) == which]
    if not discontinued:
        had = [await _completed_after_all(unit, c) for c in had]
    if any(c["status"] in {*STANDS, "not-billable"} for c in had):
        return []
    steps = await task.steps_of(unit, procedure["id"])
    performers = [{"actor": r} for r in (report or {}).get("resultsInterpreter", ())]
    at = (report["issued"] if report and "issued" in report else _end(steps)) or clock.instant(unit.now)
    done = Done(procedure, steps, performers, at, discontinued)
    # The images may be in another study than was planned.
    studies = sorted(await imaging_study.of_procedure(unit, procedure["id"]), key=lambda s: "series" not in s)
    optional = {
        "service": [ref(r) for r in (*studies[:1], report) if r is not None],
        "reason": await diagnoses(unit, procedure, report),
        "performer": performers,
    }
    made: list[Resource] = []
    for number, said in enumerate(_without_doubles(wanted), len(had) + 1):
        item = _item(unit, said, done, number) | {element: value for element, value in optional.items() if value}
        item["extension"] += [{"url": MODIFIER, "valueCodeableConcept": m} for m in await modifiers.of(unit, said, done)]
        if discontinued:
            item = review.tagged(item | {"status": "planned"}, ["discontinued"])
        made.append(await unit.create(labelled(labelled(item, procedure), report or {})))
    return made


def _end(steps: list[Resource]) -> str | None:
    """When the examination ended, as far as its steps say: the date of service of the technical component."""
    periods = [s["executionPeriod"] for s in steps if s["status"] in {"completed", "failed"} and "executionPeriod" in s]
    told = [str(p.get("end") or p.get("start")) for p in periods]
    return max((at for at in told if "T" in at), key=datetime.fromisoformat, default=None)


def _without_doubles(wanted: list[Said]) -> list[Said]:
    """A code is charged once in a component; how often, its quantity says."""
    seen: set[tuple[str, str]] = set()
    found = []
    for one in wanted:
        if not catalogue.keys(one.code) or not catalogue.keys(one.code) <= seen:
            found.append(one)
        seen |= catalogue.keys(one.code)
    return found


async def _completed_after_all(unit: UnitOfWork, charge: Resource) -> Resource:
    """What was charged because the examination was stopped with images, held or released, makes way for the whole one."""
    if charge["status"] in STANDS and is_discontinued(charge):
        return await void(unit, charge, "the examination was completed")
    return charge


def _item(unit: UnitOfWork, said: Said, done: Done, number: int) -> Resource:
    procedure = done.procedure
    item: Resource = {
        "resourceType": "ChargeItem",
        "extension": [{"url": COMPONENT, "valueCode": said.component}],
        "identifier": [{"system": CHARGE, "value": f"{procedure['id']}-{said.component}-{number}"}],
        "status": "billable",
        "code": said.code or {"text": _text(procedure)},
        "subject": procedure["subject"],
        "occurrenceDateTime": done.at,
        "quantity": {"value": _units(said, done)},
        "enteredDate": clock.instant(unit.now),
        "supportingInformation": [ref(procedure)],
    }
    return item | ({"context": procedure["encounter"]} if "encounter" in procedure else {})


def _text(procedure: Resource) -> str:
    code = procedure.get("code", {})
    shown = (c.get("display") or c.get("code") for c in code.get("coding", ()))
    return str(code.get("text") or next(filter(None, shown), "not coded"))


def _units(said: Said, done: Done) -> object:
    steps = sum(s["status"] == "completed" for s in done.steps) or 1
    return said.quantity if not said.per_step or steps == 1 else Decimal(str(said.quantity)) * steps


async def diagnoses(unit: UnitOfWork, procedure: Resource, report: Resource | None = None) -> list[Resource]:
    """Why it was done and what was found, coded ones first: the order's reason, its Conditions, the report's conclusion."""
    found: list[Resource] = list(procedure.get("reasonCode", ()))
    for reference in procedure.get("reasonReference", ()):
        condition = await unit.get(reference)
        own = condition is not None and target(condition.get("subject")) == target(procedure["subject"])
        if condition is not None and own and condition["resourceType"] == "Condition" and "code" in condition:
            found.append(condition["code"])
    found += (report or {}).get("conclusionCode", [])
    distinct = [one for i, one in enumerate(found) if not any(_same(one, other) for other in found[:i])]
    return sorted(distinct, key=lambda one: not catalogue.keys(one))


def _same(one: Resource, other: Resource) -> bool:
    return one == other or bool(catalogue.keys(one) & catalogue.keys(other))


async def void(unit: UnitOfWork, charge: Resource, why: str, said_by: str = WITHDRAWN) -> Resource:
    """Take a charge back: whoever has the bill gets a credit under the number of the charge. `said_by`: VOIDED, by a person."""
    bare = charge_item.without_extension(charge, VOIDED, WITHDRAWN)
    reason = {"url": said_by, "valueString": why}
    return await unit.update(bare | {"status": "aborted", "extension": [*bare.get("extension", ()), reason]})


def is_discontinued(charge: Resource) -> bool:
    """Whether it is for an examination that was stopped."""
    told = {code for one in charge_item.modifiers(charge) for _, code in catalogue.keys(one)}
    return modifiers.DISCONTINUED in told or "discontinued" in review.held_for(charge)


async def withdraw(
    unit: UnitOfWork, procedure: Resource, which: Iterable[str], why: str, *, but_stopped: bool = False
) -> list[Resource]:
    """Take back what stands of these components; what was taken back. `but_stopped`: not what is for a stopped examination."""
    wanted = set(which)
    found = [c for c in await of_procedure(unit, procedure) if component(c) in wanted and c["status"] in STANDS]
    return [await void(unit, one, why) for one in found if not (but_stopped and is_discontinued(one))]
