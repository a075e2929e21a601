"""If-Match of a call on one resource (FHIR R4 3.1.0.5), judged for every operation that writes, in its own transaction."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from fhir_server.audit import Act
from fhir_server.foresight import Asked, Lookup
from fhir_server.interactions import Interactions, check_version
from fhir_server.operations import Call
from fhir_server.references import Target
from fhir_server.store import Document
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

T = TypeVar("T")


class Expecting(Interactions):
    """Interactions whose transactions begin with the version that a call names, until one of them has changed something.

    What an operation does in further transactions follows from the first, which may have made the next version itself.
    """

    def __init__(self, call: Call) -> None:
        vars(self).update(vars(call.interactions))  # the same store, trail and turns
        self._of, self._caller, self._if_match = call.interactions, call.access, call.if_match
        self._to = Target(str(call.resource_type), str(call.id))

    async def transact(
        self,
        access: Access,
        act: Act,
        work: Callable[[UnitOfWork], Awaitable[T]],
        entities: Iterable[Document] = (),
        *,
        small: Iterable[Target] | None = None,
        turns: Iterable[str] = (),
        foreseen: Iterable[Asked | Target | Lookup] = (),
    ) -> T:
        async def judged(unit: UnitOfWork) -> tuple[T, UnitOfWork]:
            await self._judge(unit)
            return await work(unit), unit

        result, unit = await self._of.transact(access, act, judged, entities, small=small, turns=turns, foreseen=foreseen)
        if unit.changes():
            self._if_match = None
        return result

    async def _judge(self, unit: UnitOfWork) -> None:
        """By the rights of the caller, whoever's the transaction is: the version of what it may not read is not told."""
        found = await unit.read(self._to.type, self._to.id)
        hidden = found is not None and self._caller.restricted and not self._caller.covers(found, "r")
        check_version(str(self._to), None if hidden else found, self._if_match)
