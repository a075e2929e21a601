"""FHIRPath N1 over resources in memory: for R4's invariants, for profiles, and for FHIRPath Patch.

The functions and operators are those of FHIRPath N1 5 and 6 but for date arithmetic, aggregate() and unit conversion; FHIR adds
extension, hasValue, getValue, resolve (by the type that a literal reference names, or contained), memberOf (required bindings'
value sets). What is not there is refused when compiling, never quietly empty.
"""

from functools import lru_cache
from typing import Any

from fhir_server.fhirpath.compiler import Compiled, compile_tree, uses
from fhir_server.fhirpath.context import MAX_UNTRUSTED_WORK, MAX_WORK, Context
from fhir_server.fhirpath.items import Items, plain, truth
from fhir_server.fhirpath.nodes import Node, resource_node
from fhir_server.fhirpath.syntax import parse
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.tokens import FhirPathError
from fhir_server.fhirpath.units import Quantity

__all__ = ["Expression", "FhirPathError", "Node", "compile_expression", "evaluate", "resource_node", "select"]


class Expression:
    """A compiled expression, for any resource."""

    __slots__ = ("_run", "text")

    def __init__(self, text: str, run: Compiled) -> None:
        self.text, self._run = text, run

    def items(self, node: Node, context: Context) -> Items:
        return self._run([node], context)

    def is_met(self, node: Node, resource: Node, root: Node) -> bool:
        """Whether an invariant holds (FHIR R4 ElementDefinition.constraint).

        An empty result counts as not met, except where it comes from a comparison of values that have no definite order (dates of
        different precision, quantities in different units) or from a string test of an element that is not there.
        """
        context = Context(node, resource, root)
        result = truth(self._run([node], context))
        return result is True or (result is None and context.undecided)


@lru_cache(maxsize=4096)
def compile_expression(expression: str, *, trusted: bool = True) -> Expression:
    """An expression, compiled once. Raises FhirPathError.

    `trusted=False` is for what a peer sends: it refuses regular expressions (`matches`, `replaceMatches`), which can be made to
    take endless time.
    """
    tree = parse(expression)
    if not trusted and uses(tree, "matches", "replaceMatches"):
        raise FhirPathError("regular expressions are not allowed here")
    return Expression(expression, compile_tree(tree))


def select(expression: str, resource: dict[str, Any] | Node, *, trusted: bool = True, **variables: Any) -> Items:
    """What an expression selects from a resource: Nodes (with `location` and `path`) and plain values. Raises FhirPathError.

    A Node in place of the resource makes that element the context. `variables` are what `%name` stands for. `trusted=False` is
    for an expression that a peer sent: no regular expressions, and a tenth of the work.
    """
    node = resource if isinstance(resource, Node) else resource_node(resource)
    root = node
    while root.parent is not None:
        root = root.parent
    context = Context(node, root, root, variables, MAX_WORK if trusted else MAX_UNTRUSTED_WORK)
    return compile_expression(expression, trusted=trusted).items(node, context)


def evaluate(expression: str, resource: dict[str, Any] | Node, *, trusted: bool = True, **variables: Any) -> list[Any]:
    """The same as plain values: JSON of elements, str for dates and times. Raises FhirPathError."""
    found = [plain(item) for item in select(expression, resource, trusted=trusted, **variables)]
    return [str(value) if isinstance(value, Temporal | Quantity) else value for value in found if value is not None]
