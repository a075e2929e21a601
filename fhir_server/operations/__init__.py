"""FHIR operations (FHIR R4 3.2): what is asked by `$name` on the base, on a type or on one resource.

An operation is registered in the `Registry`, like rules and reactions; router and CapabilityStatement come from what is in it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fhir_server.audit import Act
from smart_auth.access import Access

if TYPE_CHECKING:
    from fhir_server.interactions import Interactions

Resource = dict[str, Any]
Level = Literal["system", "type", "instance"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who asks for what, about which type or resource.

    `parameters` are those of the address; `body` is what was posted, a Parameters resource or (where the operation takes just
    one) the resource itself; None with GET. `base_url` is our own FHIR base. `if_match` is the version that the caller has seen,
    which the dispatch has judged for every operation that changes something (`expectation.py`).
    """

    interactions: "Interactions"
    access: Access
    act: Act
    base_url: str
    resource_type: str | None = None
    id: str | None = None
    parameters: list[tuple[str, str]] = field(default_factory=list)
    body: Resource | None = None
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation gives back, for the edge to send. `native`: a Binary whose content is sent by HTTP as it is."""

    resource: Resource
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    native: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation and where it can be called. `types`: None is every type. Those that change something are called by POST only.

    `definition` is the canonical of its OperationDefinition, HL7's or our own; `parameters` those that it takes, with their FHIR
    types: those of a primitive type may stand in the address.
    """

    name: str
    definition: str
    levels: frozenset[Level]
    run: Callable[[Call], Awaitable[Answer]]
    types: frozenset[str] | None = None
    affects_state: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
