"""`$create-order` and `$cancel-order` of HL7's Imaging Service Request guide (imaging-service-request-ig, draft 0.1.0).

POST [base]/$create-order with a Bundle (type `collection`), or Parameters whose `order` is one:
    Patient (1), Encounter, Practitioner, PractitionerRole, Organization, Location, Coverage, Condition, and ServiceRequest: the
    order, and its requested procedures, `basedOn` the order
It answers a Bundle of the order with all that was made of it (the guide's OrderBundle).

POST ServiceRequest/[id]/$cancel-order, with or without Parameters (`reason`), answers Parameters: `bundle`, the order as it is
then, and `outcome`.

Whom and what the entries mean is told by their identifiers: what is known by one isn't made again, nor changed. The guide's
requested procedures have the intent `order`; here they are `filler-order` (docs/decisions/0008).
"""

from dataclasses import dataclass
from typing import Any, Final

from fhir_server import audit, judgement
from fhir_server.bundle_links import Links
from fhir_server.ids import new_id
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.references import Target, target
from fhir_server.registry import Registry, Resource
from fhir_server.staging import refuse_invalid
from fhir_server.unit_of_work import UnitOfWork
from resources import department_operation, order_operations, order_plan, order_view, patient, patient_identity
from resources.identifiers import carriers

# What may come with an order, in the order in which it is made.
_TYPES: Final = ("Patient", "Organization", "Practitioner", "PractitionerRole", "Location", "Encounter", "Coverage", "Condition")
_MOST: Final = 100  # entries


@dataclass(slots=True)
class _Given:
    """An entry: its resource, what that is to be here, and whether it is here already."""

    resource: Resource
    full_url: str | None
    path: str
    to: Target
    known: bool = False

    @property
    def based_on(self) -> set[Target | None]:
        return {target(r) for r in self.resource.get("basedOn", ())}


# $create-order


async def create_order(call: Call) -> Answer:
    """FhirError 400 for no such Bundle, 403 for who may not, 422 and 409 where the order can't be taken."""
    await department_operation.require(call, "create-order", {"ServiceRequest": "c"})
    entries = _entries(call.body)

    async def work(unit: UnitOfWork) -> tuple[Resource, str]:
        order = await _create(unit, call, entries)
        return await order_view.bundle(unit, order, call.base_url), order["id"]

    bundle, order_id = await call.interactions.transact(call.access, call.act, work)
    return Answer(bundle, 201, {"Location": f"{call.base_url}/ServiceRequest/{order_id}"})


def _entries(body: Resource | None) -> list[dict[str, Any]]:
    if body is not None and body.get("resourceType") == "Parameters":
        arguments.check_body("create-order", body, frozenset({"order"}))
        body = next((p.get("resource") for p in arguments.parts(body, "order")), None)
    entries = body.get("entry") if isinstance(body, dict) and body.get("resourceType") == "Bundle" else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and _is_resource(e.get("resource")) for e in entries):
        raise fail("structure", "$create-order is sent a Bundle of resources: the order and what belongs to it", status=400)
    if len(entries) > _MOST:
        raise fail("too-costly", f"an order has at most {_MOST} entries", "Bundle.entry", status=422)
    return entries


def _is_resource(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("resourceType"), str)


async def _create(unit: UnitOfWork, call: Call, entries: list[dict[str, Any]]) -> Resource:
    given = [await _meant(unit, call, i, entry) for i, entry in enumerate(entries)]
    links = Links(call.base_url)
    for one in given:
        if one.full_url:
            links.add(one.full_url, one.to, one.path)
    for one in given:
        links.rewrite(one.resource, one.full_url, one.path)
    requests = [g for g in given if g.to.type == "ServiceRequest"]
    orders = [r for r in requests if not r.based_on & {other.to for other in requests}]
    patients = [g for g in given if g.to.type == "Patient"]
    if len(orders) != 1 or len(patients) != 1:
        text = "there is one Patient, and one order; its requested procedures are based on it"
        raise fail("business-rule", text, "Bundle.entry")
    for one in sorted((g for g in given if not g.known and g not in requests), key=lambda g: _TYPES.index(g.to.type)):
        await _make(unit, one)
    try:
        return await _make_order(unit, orders[0], patients[0].to, [r for r in requests if r is not orders[0]])
    except FhirError as error:
        raise _placed(error, "ServiceRequest", orders[0].path) from None


def _placed(error: FhirError, kind: str, path: str) -> FhirError:
    """The refusal of a resource, with its place in the Bundle."""
    where = f"{path}.resource"
    issues = [Issue(i.code, i.diagnostics, _within(i.expression, kind, where), i.severity) for i in error.issues]
    return FhirError(*issues, status=error.status, headers=error.headers)


def _within(expression: str | None, kind: str, where: str) -> str | None:
    return where + expression[len(kind) :] if expression and expression.startswith(kind) else expression


async def _meant(unit: UnitOfWork, call: Call, i: int, entry: dict[str, Any]) -> _Given:
    """What an entry is here: the resource with its identifiers, or a new one."""
    path, resource = f"Bundle.entry[{i}]", dict(entry["resource"])
    kind, url = resource["resourceType"], entry.get("fullUrl")
    if kind not in {*_TYPES, "ServiceRequest"}:
        raise fail("not-supported", f"an order comes without {kind[:40]}", f"{path}.resource", status=422)
    try:
        refuse_invalid(resource)
    except FhirError as error:
        raise _placed(error, kind, path) from None
    if url is not None and not isinstance(url, str):
        raise fail("structure", "a fullUrl is a string", f"{path}.fullUrl")
    own = target(url, call.base_url) if url else None
    if own is not None and kind != "ServiceRequest" and await unit.seen(own.type, own.id, "r", copy=False):
        return _Given(resource, url, path, own, known=True)
    identifiers = [i for i in resource.get("identifier", ()) if i.get("value")]
    found: Resource | None = None
    if identifiers and kind == "Patient":
        found = await patient.match(unit, identifiers)
        await patient.claim(unit, [] if found else identifiers)
        if found and (differing := patient_identity.differences(found, resource)):
            with unit.as_department():
                await patient_identity.raise_mismatch(unit, found, differing, "An order that came by $create-order")
    elif identifiers and kind != "ServiceRequest":
        found = next(iter(await carriers(unit, kind, identifiers)), None)
    return _Given(resource, url, path, Target(kind, found["id"] if found else new_id()), known=found is not None)


async def _make(unit: UnitOfWork, one: _Given) -> None:
    """What is new is the caller's to make."""
    unit.access.require(one.to.type, "c")
    unit.places[one.to] = f"{one.path}.resource"
    await unit.create(one.resource, one.to.id)


async def _make_order(unit: UnitOfWork, one: _Given, subject: Target, procedures: list[_Given]) -> Resource:
    order = one.resource
    if order["status"] not in {"draft", "active"}:
        raise fail("business-rule", "a new order is a draft, or active", "ServiceRequest.status")
    if order["intent"] != "order" or target(order["subject"]) != subject:
        raise fail("business-rule", "the order is of intent order, for the Patient of the Bundle", "ServiceRequest.subject")
    stored = await unit.create(order, one.to.id)
    for procedure in procedures:
        unit.places[procedure.to] = f"{procedure.path}.resource"
        if unit.access.restricted:  # what the department makes of it, is judged as what was sent: by who sent it
            await judgement.of_write(unit, procedure.to, None, procedure.resource | {"id": procedure.to.id})
    with unit.as_department():
        for procedure in procedures:
            said = {e: v for e, v in procedure.resource.items() if e not in {"resourceType", "id", "status", "intent", "basedOn"}}
            if target(said["subject"]) != subject:
                where = f"{procedure.path}.resource.subject"
                raise fail("business-rule", "the requested procedure is for the Patient of the Bundle", where)
            await unit.create(order_plan.requested(unit, stored, said), procedure.to.id)
    await unit.react()
    return unit.final(stored)


# $cancel-order


async def cancel_order(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there, 422 and 409 for what can't be cancelled any more."""
    arguments.check_body("cancel-order", call.body, frozenset({"reason"}))
    await department_operation.require(call, "order-cancel", {"ServiceRequest": "u"})

    async def work(unit: UnitOfWork) -> Resource:
        order = await order_operations.the_order(unit, call)
        by = await order_operations.decider(unit, call)
        with unit.as_department():
            await order_operations.cancel(unit, order, order_operations.reason_of(call), by)
        return await order_view.bundle(unit, order, call.base_url)

    named = audit.seen([f"ServiceRequest/{call.id}"])
    bundle = await call.interactions.transact(call.access, call.act, work, named)
    outcome = operation_outcome(Issue("informational", "the order is cancelled", severity="information"))
    rows = [{"name": "bundle", "resource": bundle}, {"name": "outcome", "resource": outcome}]
    return Answer({"resourceType": "Parameters", "parameter": rows})


def register(registry: Registry) -> None:
    """Offer both."""
    base, system = "urn:fhir-ris:OperationDefinition/", frozenset[Level]({"system"})
    registry.operation(Operation("create-order", base + "create-order", system, create_order, affects_state=True))
    instance, types = order_operations.INSTANCE, order_operations.TYPES
    registry.operation(Operation("cancel-order", base + "cancel-order", instance, cancel_order, types, affects_state=True))
