"""`$merge` and `$unmerge` of a Patient, for people who look after identities (own; R6 has a `$merge` of another shape).

    POST /fhir/Patient/[survivor]/$merge      Parameters: prior, the id of the record that it takes the place of
    POST /fhir/Patient/[prior]/$unmerge       takes that back

Whoever may update both records may ask for it, but for apps of one patient and those who see part of the records only.
"""

from collections.abc import Callable
from typing import Final

from fhir_server.operations import Answer, Call, Level, Operation, Resource, arguments
from fhir_server.outcome import fail
from fhir_server.registry import Registry
from fhir_server.unit_of_work import UnitOfWork
from resources import patient_merge
from resources.patient import merged_into

_DEFINITION: Final = "urn:fhir-ris:OperationDefinition/Patient-"
_INSTANCE: Final = frozenset[Level]({"instance"})


async def merge(call: Call) -> Answer:
    """The survivor, when all of the prior record is its."""
    arguments.check_body("merge", call.body, frozenset({"prior"}))
    prior_id = (arguments.one(call, "prior") or "").removeprefix("Patient/")
    if not prior_id:
        raise fail("required", "$merge needs the prior record: the id of a Patient", "Parameters.parameter", status=400)
    if prior_id == call.id:
        raise fail("business-rule", "the record is to be merged into itself", "Parameters.parameter", status=422)

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        survivor, prior = await _record(unit, call, str(call.id)), await _record(unit, call, prior_id)
        for record in (survivor, prior):
            if merged_into(record) or not record.get("active", True):
                raise fail(
                    "business-rule", f"Patient/{record['id']} was merged already, or is not active", "Patient.link", status=422
                )
        await patient_merge.merge(unit, survivor, prior, [])
        merged = await unit.read("Patient", survivor["id"]) or survivor
        return lambda: unit.final(merged)

    stored = await call.interactions.transact(call.access, call.act, work)
    await patient_merge.finish(call.interactions)
    return Answer(stored())


async def unmerge(call: Call) -> Answer:
    """The prior record, active again."""
    arguments.check_body("unmerge", call.body, frozenset())

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        prior = await _record(unit, call, str(call.id))
        if into := merged_into(prior):
            await _record(unit, call, into.removeprefix("Patient/"))
        restored = await patient_merge.unmerge(unit, prior)
        return lambda: unit.final(restored)

    return Answer((await call.interactions.transact(call.access, call.act, work))())


async def _record(unit: UnitOfWork, call: Call, id_: str) -> Resource:
    """A record that the caller may update. FhirError 403, or 404 where it isn't there for the caller."""
    call.access.require("Patient", "u")
    if call.access.keeps_links():
        raise fail("forbidden", "whose records belong together is not for an app of one patient to say", "Patient.link")
    record = await unit.seen("Patient", id_, "u")
    if record is None or not call.access.covers(record, "r"):
        raise fail("not-found", f"there is no Patient/{id_[:64]}")
    return record


def register(registry: Registry) -> None:
    of = frozenset({"Patient"})
    registry.operation(
        Operation("merge", _DEFINITION + "merge", _INSTANCE, merge, of, affects_state=True, parameters={"prior": "string"})
    )
    registry.operation(Operation("unmerge", _DEFINITION + "unmerge", _INSTANCE, unmerge, of, affects_state=True))
