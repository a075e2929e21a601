"""What an invariant says when all that is known is which elements are there: most are decided by that alone.

`code.empty() or system.exists()` holds for whatever has a system, and for whatever has no code; nothing needs to be evaluated.
"""

from collections.abc import Callable

from fhir_server.fhirpath.syntax import Binary, Call, Literal, Member, Node, Special, TypeTest, parts

EMPTY, SOME, TRUE, FALSE, UNKNOWN = "empty", "some", "true", "false", "unknown"
"""What a part of an expression comes to: nothing, one or more items, a boolean, or any of these."""

_KEEP_EMPTY = frozenset("where select first last tail children descendants resolve extension repeat".split())
_LAMBDAS = frozenset("where select all exists repeat iif trace".split())
_LITERAL = {(True,): TRUE, (False,): FALSE, (): EMPTY}
_NOT = {TRUE: FALSE, FALSE: TRUE, EMPTY: EMPTY}


def _is_context(tree: Node) -> bool:
    """Whether it is what the invariant stands on: `$this`, written or not, or the name of its type."""
    return isinstance(tree, Special) or (isinstance(tree, Member) and tree.name[:1].isupper() and isinstance(tree.base, Special))


def mentioned(tree: Node) -> set[str]:
    """The elements of the context that the expression names."""
    if isinstance(tree, Member) and _is_context(tree.base):
        return set() if _is_context(tree) else {tree.name}
    inside = (tree.base,) if isinstance(tree, Call) and tree.name in _LAMBDAS else parts(tree)
    return {name for part in inside for name in mentioned(part)}


def verdict(tree: Node, present: frozenset[str]) -> str:
    """What the expression comes to on an element that has exactly these elements inside."""
    match tree:
        case Literal(values=values):
            return _LITERAL.get(values, SOME) if not values or type(values[0]) is bool else SOME
        case Special():
            return SOME
        case Member(base=base, name=name):
            if _is_context(base) and not _is_context(tree):
                return SOME if name in present else EMPTY
            return SOME if _is_context(tree) else _nothing_from_nothing(verdict(base, present))
        case Call(base=base, name=name, arguments=arguments):
            return _call(name, bool(arguments), verdict(base, present))
        case TypeTest(operand=operand):
            return _nothing_from_nothing(verdict(operand, present))
        case Binary(operator=operator, left=left, right=right):
            rule = _OPERATORS.get(operator)
            return rule(verdict(left, present), verdict(right, present)) if rule else UNKNOWN
        case _:
            return UNKNOWN


def _nothing_from_nothing(base: str) -> str:
    return EMPTY if base == EMPTY else UNKNOWN


def _call(name: str, has_arguments: bool, base: str) -> str:
    match name:
        case "exists" if base == EMPTY:
            return FALSE
        case "empty" | "all" | "isDistinct" if base == EMPTY:
            return TRUE
        case "hasValue" if base == EMPTY:
            return FALSE
        case "exists" if base != UNKNOWN and not has_arguments:
            return TRUE
        case "empty" if base != UNKNOWN:
            return FALSE
        case "not":
            return _NOT.get(base, UNKNOWN)
        case "trace":
            return base
    return _nothing_from_nothing(base) if name in _KEEP_EMPTY else UNKNOWN


def _and(left: str, right: str) -> str:
    if FALSE in {left, right}:
        return FALSE
    return TRUE if left == right == TRUE else UNKNOWN


def _or(left: str, right: str) -> str:
    if TRUE in {left, right}:
        return TRUE
    return FALSE if left == right == FALSE else UNKNOWN


def _implies(left: str, right: str) -> str:
    if left == FALSE or right == TRUE:
        return TRUE
    return FALSE if left == TRUE and right == FALSE else UNKNOWN


def _same(left: str, right: str) -> str:
    if EMPTY in {left, right}:
        return EMPTY
    if {left, right} <= {TRUE, FALSE}:
        return TRUE if left == right else FALSE
    return UNKNOWN


def _different(left: str, right: str) -> str:
    return _NOT.get(_same(left, right), UNKNOWN)


def _union(left: str, right: str) -> str:
    if left == right == EMPTY:
        return EMPTY
    return UNKNOWN if {left, right} <= {EMPTY, UNKNOWN} else SOME


_OPERATORS: dict[str, Callable[[str, str], str]] = {
    "and": _and,
    "or": _or,
    "implies": _implies,
    "xor": lambda left, right: UNKNOWN if EMPTY in {left, right} else _different(left, right),
    "=": _same,
    "!=": _different,
    "|": _union,
}
