"""Operations on charges: `$release`, `$correct`, `$void` of a ChargeItem, `$charge` of a requested procedure or order.

    POST ChargeItem/[id]/$release   reason (string): needed where something is still unusual about it
    POST ChargeItem/[id]/$correct   reason (string), and what is to be another: code (CodeableConcept), quantity (decimal),
                                    modifier and diagnosis (CodeableConcept, any number: all that it has then)
    POST ChargeItem/[id]/$void      reason (string)
    POST ServiceRequest/[id]/$charge    charges by the catalogue what is due and was not charged

The first three answer the ChargeItem as it is then, `$correct` of a charge that was told already the one that takes its place;
`$charge` answers Parameters of `charge` (valueReference).
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fhir_server.elements import extension
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, ref
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import charge_item, department_operation, diagnostic_report, service_request, task
from resources.charge_item import CHARGE, MODIFIER, PROFESSIONAL, RELEASED, REPLACES, STANDS, TECHNICAL, VOIDED
from resources.charging import follow, making, review

_DEFINITION: Final = "urn:fhir-ris:OperationDefinition/"
_INSTANCE: Final = frozenset[Level]({"instance"})
_NEEDS: Final = {"ChargeItem": "ru"}


def register(registry: Registry) -> None:
    """Offer them."""
    of = frozenset({"ChargeItem"})
    for name, run in (("release", release), ("correct", correct), ("void", void)):
        definition = f"{_DEFINITION}ChargeItem-{name}"
        registry.operation(Operation(name, definition, _INSTANCE, run, of, affects_state=True, parameters={"reason": "string"}))
    definition = f"{_DEFINITION}ServiceRequest-charge"
    registry.operation(Operation("charge", definition, _INSTANCE, charge, frozenset({"ServiceRequest"}), affects_state=True))


async def release(call: Call) -> Answer:
    """A charge that was held goes out. FhirError 422 when it isn't held, or is still unusual and no reason is given."""
    arguments.check_body("release", call.body, frozenset({"reason"}))
    reason = arguments.one(call, "reason")

    async def work(unit: UnitOfWork, item: Resource) -> Resource:
        if item["status"] != "planned":
            raise fail("business-rule", f"the charge is {item['status']}, not held", "ChargeItem.status")
        if reason:
            kept = charge_item.without_extension(item, RELEASED)
            item = kept | {"extension": [*kept.get("extension", ()), {"url": RELEASED, "valueString": reason}]}
        if "no-charge-code" in await review.reasons(unit, item):
            raise fail("business-rule", "a charge without a code can't go out: it is corrected first", "ChargeItem.code")
        return await unit.update(item | {"status": "billable"})

    return await _changed(call, "release-charge", work)


async def void(call: Call) -> Answer:
    """A charge is taken back. FhirError 422 when it was already."""
    arguments.check_body("void", call.body, frozenset({"reason"}))
    reason = _reason(call, "void")

    async def work(unit: UnitOfWork, item: Resource) -> Resource:
        if item["status"] not in {*STANDS, "not-billable"}:
            raise fail("business-rule", f"the charge is {item['status']} already", "ChargeItem.status")
        return await making.void(unit, item, reason, VOIDED)

    return await _changed(call, "void-charge", work)


async def correct(call: Call) -> Answer:
    """A held charge is changed; one that was told is taken back, and another takes its place."""
    arguments.check_body("correct", call.body, frozenset({"reason", "code", "quantity", "modifier", "diagnosis"}))
    reason = _reason(call, "correct")
    changes = _changes(call)
    if not changes:
        raise fail("required", "$correct says what is to be another: code, quantity, modifier, diagnosis", status=400)

    async def work(unit: UnitOfWork, item: Resource) -> Resource:
        if item["status"] not in STANDS:
            raise fail("business-rule", f"the charge is {item['status']}: it can't be corrected", "ChargeItem.status")
        changed = _applied(item, changes)
        if item["status"] == "planned":
            return await review.look_again(unit, _noted(changed, reason))
        await making.void(unit, item, reason)
        own = [i for i in item.get("identifier", ()) if i.get("system") != CHARGE]
        numbers = [i["value"] for i in item.get("identifier", ()) if i.get("system") == CHARGE and "value" in i]
        bare = charge_item.without_extension(changed, RELEASED, REPLACES)
        anew = {k: v for k, v in bare.items() if k not in {"id", "meta"}} | {
            "status": "billable",
            "identifier": [*own, {"system": CHARGE, "value": f"{(numbers or [item['id']])[0]}-c{item['meta']['versionId']}"}],
            "extension": [*bare.get("extension", ()), {"url": REPLACES, "valueReference": ref(item)}],
        }
        security = item.get("meta", {}).get("security")
        return await unit.create(_noted(anew | ({"meta": {"security": security}} if security else {}), reason))

    return await _changed(call, "correct-charge", work)


def _noted(item: Resource, reason: str) -> Resource:
    return item | {"note": [*item.get("note", ()), {"text": f"Corrected: {reason}"}]}


def _changes(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, element, type_ in (
        ("code", "code", "valueCodeableConcept"),
        ("quantity", "quantity", "valueDecimal"),
        ("modifier", MODIFIER, "valueCodeableConcept"),
        ("diagnosis", "reason", "valueCodeableConcept"),
    ):
        values = [part.get(type_) for part in arguments.parts(call.body, name)]
        if any(value is None for value in values) or (element in {"code", "quantity"} and len(values) > 1):
            raise fail("value", f"{name} is a {type_}", "Parameters.parameter", status=400)
        if values:
            found[element] = values if element in {MODIFIER, "reason"} else values[0]
    return found


def _applied(item: Resource, changes: dict[str, Any]) -> Resource:
    changed = item | {e: v for e, v in changes.items() if e in {"code", "reason"}}
    if "quantity" in changes:
        changed["quantity"] = item.get("quantity", {}) | {"value": changes["quantity"]}
    if MODIFIER in changes:
        bare = charge_item.without_extension(changed, MODIFIER)
        extensions = [{"url": MODIFIER, "valueCodeableConcept": m} for m in changes[MODIFIER]]
        changed = bare | {"extension": [*bare.get("extension", ()), *extensions]}
    return changed


def _reason(call: Call, name: str) -> str:
    reason = arguments.one(call, "reason")
    if not reason:
        raise fail("required", f"${name} needs a reason", "Parameters.parameter", status=400)
    return reason


async def _changed(call: Call, name: str, change: Callable[[UnitOfWork, Resource], Awaitable[Resource]]) -> Answer:
    await department_operation.require(call, name, _NEEDS)

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        item = await department_operation.seen(unit, Target("ChargeItem", str(call.id)), "u")
        await unit.lock(f"charge:{item['id']}")
        with unit.as_department():
            changed = await change(unit, item)
        return lambda: unit.final(changed)

    return Answer((await call.interactions.transact(call.access, call.act, work))())


async def charge(call: Call) -> Answer:
    """What of an order's requested procedures is done and reported but not charged, is charged as the catalogue says now."""
    arguments.check_body("charge", call.body, frozenset())
    await department_operation.require(call, "charge", {"ChargeItem": "c", "ServiceRequest": "r"})

    async def work(unit: UnitOfWork) -> list[Resource]:
        request = await department_operation.seen(unit, Target("ServiceRequest", str(call.id)))
        with unit.as_department():
            of = [request] if service_request.is_procedure(request) else await service_request.procedures_of(unit, request["id"])
            return [made for procedure in of for made in await _charge_what_is_due(unit, procedure)]

    made = await call.interactions.transact(call.access, call.act, work)
    return Answer(department_operation.answer(("charge", ref(item)["reference"]) for item in made))


async def _charge_what_is_due(unit: UnitOfWork, procedure: Resource) -> list[Resource]:
    if procedure["status"] in {"revoked", "entered-in-error"}:
        return []
    ends = {s["status"] for s in await task.steps_of(unit, procedure["id"])}
    # What a person has taken back is settled (`reconciliation`).
    voided = {charge_item.component(c) for c in await making.of_procedure(unit, procedure) if extension(c, VOIDED)}
    made = [] if ends & task.OPEN or TECHNICAL in voided else await follow.charge_ended(unit, procedure, ends)
    requests = [f"ServiceRequest/{procedure['id']}", *(r["reference"] for r in procedure.get("basedOn", ()) if "reference" in r)]
    reports = await unit.search("DiagnosticReport", based_on=",".join(requests), status=",".join(follow.SIGNED))
    for report in [r for r in reports if not diagnostic_report.is_unnamed(r) and PROFESSIONAL not in voided][:1]:
        made += await making.charge(unit, procedure, PROFESSIONAL, report)
    return made
