"""What this server knows beyond plain FHIR: rules, reactions and projections, by resource type. Filled by app.py from the rooms.

Three moments of a change (DESIGN.md section 4):
- a *rule* looks at one change as it is made, and may refuse it or complete it (assign an identifier);
- a *reaction* runs when the whole request is staged, and makes the other changes that must follow;
- a *projection* sees the net changes of the transaction and writes what is derived from them: worklist rows, outbound messages.
All three run in the transaction of the change. What one of them refuses, nobody commits.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fhir_server.foresight import Lookup
    from fhir_server.operations import Operation
    from fhir_server.references import Target
    from fhir_server.unit_of_work import UnitOfWork

Resource = dict[str, Any]


@dataclass(slots=True)
class Change:
    """One resource as it was when the transaction began, and as it is now. None: not there (yet, or any more).

    redirected: only its references follow a record that was replaced by another (`redirection.py`); else it says what it said
    """

    type: str
    id: str
    before: Resource | None
    after: Resource | None
    redirected: bool = False

    def became(self, element: str, *values: str) -> bool:
        """Whether this change brought `element` to one of these values."""
        was = self.before.get(element) if self.before else None
        return self.after is not None and self.after.get(element) in values and was not in values


Rule = Callable[["UnitOfWork", Change], Awaitable[None]]
Reaction = Callable[["UnitOfWork", Change], Awaitable[None]]
Projection = Callable[["UnitOfWork", list[Change]], Awaitable[None]]


@dataclass(slots=True)
class Registry:
    """The rules, reactions, projections and operations that the rooms have registered."""

    rules: dict[str, list[Rule]] = field(default_factory=dict)
    reads: dict[str, "list[Callable[[Resource], Iterable[Target]]]"] = field(default_factory=dict)
    reactions: dict[str, list[Reaction]] = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    asked: list["Lookup"] = field(default_factory=list)
    # By name, without the `$`; the same name may be there for several types.
    operations: dict[str, "list[Operation]"] = field(default_factory=dict)
    # Types whose collections and indexes are made at start, not at first use.
    core_types: set[str] = field(default_factory=set)

    def rule(self, resource_type: str, rule: Rule, reads: "Callable[[Resource], Iterable[Target]] | None" = None) -> None:
        """`reads`: what it reads of a resource that is made, which may not be valid; so it can be read ahead."""
        self.rules.setdefault(resource_type, []).append(rule)
        if reads is not None:
            self.reads.setdefault(resource_type, []).append(reads)

    def read_for(self, resource: Resource) -> "list[Target]":
        """What the rules will read when this is made."""
        return [to for reads in self.reads.get(resource["resourceType"], ()) for to in reads(resource)]

    def reaction(self, resource_type: str, reaction: Reaction) -> None:
        self.reactions.setdefault(resource_type, []).append(reaction)

    def projection(self, projection: Projection, *asked: "Lookup") -> None:
        """`asked`: what it asks for whatever has changed."""
        self.projections.append(projection)
        self.asked += asked

    def operation(self, operation: "Operation") -> None:
        self.operations.setdefault(operation.name, []).append(operation)

    def core(self, resource_types: Iterable[str]) -> None:
        self.core_types.update(resource_types)
