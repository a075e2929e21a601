"""What an evaluation knows besides the items in focus, and how much work it may still do."""

from typing import Any

from fhir_server.fhirpath.items import Items
from fhir_server.fhirpath.nodes import Node
from fhir_server.fhirpath.tokens import FhirPathError

MAX_WORK = 1_000_000
"""Nodes and items that one evaluation may visit: a second or two of work."""

MAX_UNTRUSTED_WORK = 100_000
"""The same for an expression that comes from a peer."""


class Context:
    """One evaluation. `undecided` is set when a comparison had its operands and could not decide, as with `2026` <= `2026-05`,
    and when a test of a string had no string to test."""

    __slots__ = ("context", "index", "memory", "resource", "root", "undecided", "variables", "work")

    def __init__(
        self, context: Node, resource: Node, root: Node, variables: dict[str, Any] | None = None, work: int = MAX_WORK
    ) -> None:
        self.context, self.resource, self.root = context, resource, root
        self.variables = variables or {}
        self.index = 0
        self.undecided = False
        self.work = work
        self.memory: dict[int, Items] = {}

    def spend(self, work: int) -> None:
        self.work -= work
        if self.work < 0:
            raise FhirPathError("the evaluation takes more work than is allowed")
