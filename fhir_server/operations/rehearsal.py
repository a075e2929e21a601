"""A write that is judged and never kept: rules, reactions and references have their say in a transaction that is rolled back."""

from collections.abc import Awaitable, Callable

from fhir_server.interactions import Interactions
from fhir_server.operations import Call
from fhir_server.unit_of_work import UnitOfWork


class _RolledBack(Exception):
    """The end of a rehearsal in which nothing was refused."""


async def rehearse(call: Call, work: Callable[[UnitOfWork], Awaitable[object]]) -> None:
    """Run `work` and all that follows from it, then forget it. FhirError is what would have been refused."""
    interactions: Interactions = call.interactions

    async def judged(unit: UnitOfWork) -> None:
        await work(unit)
        await unit.react()
        await unit.complete()
        raise _RolledBack

    try:
        await interactions.transact(call.access, call.act, judged)
    except _RolledBack:
        return
