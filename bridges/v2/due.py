"""What a message is before it is written: its kind, whom it is about, and who gets it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from bridges.v2.destination import Destination
from bridges.v2.order_facts import OrderFacts, Render
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Due:
    """A message that is due to whoever wants its kind, such as `SIU^S12`; `to` chooses among these.

    about, patient: what it is found by in the outbox
    """

    kind: str
    render: Render
    about: tuple[str, ...] = ()
    patient: str = ""
    to: Callable[[Destination], bool] | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        render: Render,
        facts: OrderFacts,
        to: Callable[[Destination], bool] | None = None,
        more: Iterable[Resource] = (),
    ) -> "Due":
        """A message about an order, and about `more` of it."""
        about = (*facts.about, *(f"{one['resourceType']}/{one['id']}" for one in more))
        return cls(kind, render, about, f"Patient/{facts.patient['id']}", to)

    def is_for(self, destination: Destination) -> bool:
        return self.kind in destination.wants and (self.to is None or self.to(destination))


@dataclass(frozen=True, slots=True)
class Context:
    """What is decided in: the transaction, its net changes, and the destinations that there are."""

    unit: UnitOfWork
    changes: list[Change]
    destinations: tuple[Destination, ...]

    def wanted(self, *kinds: str) -> bool:
        """Whether anybody wants one of these."""
        return any(kind in d.wants for d in self.destinations for kind in kinds)

    def unless_told_by(self) -> Callable[[Destination], bool]:
        """Everybody but who told us this (`UnitOfWork.origin`)."""
        origin = self.unit.origin
        return lambda destination: destination.reference != origin


# The messages that one change makes due.
Messages = Callable[[Context, Change], Awaitable[list[Due]]]
