"""FHIRPath's operators (FHIRPath N1 6). Operands come evaluated, but for the boolean ones, which need not ask both."""

from collections.abc import Callable
from decimal import Decimal, DecimalException

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.items import Items, compare, distinct, equal, equal_items, equivalent, plain, single, truth
from fhir_server.fhirpath.tokens import FhirPathError

Operator = Callable[[Items, Items, Context], Items]
Compiled = Callable[[Items, Context], Items]


def _boolean(value: bool | None) -> Items:
    return [] if value is None else [value]


# --- boolean logic with three values (FHIRPath N1 6.5) ----------------------------------------------------------------


def _and(left: Compiled, right: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        first = truth(left(this, context))
        if first is False:
            return [False]
        second = truth(right(this, context))
        return [False] if second is False else _boolean(None if first is None or second is None else True)

    return run


def _or(left: Compiled, right: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        first = truth(left(this, context))
        if first is True:
            return [True]
        second = truth(right(this, context))
        return [True] if second is True else _boolean(None if first is None or second is None else False)

    return run


def _implies(left: Compiled, right: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        first = truth(left(this, context))
        if first is False:
            return [True]
        second = truth(right(this, context))
        return [True] if second is True else _boolean(None if first is None else second)

    return run


def _xor(left: Compiled, right: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        first, second = truth(left(this, context)), truth(right(this, context))
        return _boolean(None if first is None or second is None else first != second)

    return run


LOGIC: dict[str, Callable[[Compiled, Compiled], Compiled]] = {"and": _and, "or": _or, "implies": _implies, "xor": _xor}


# --- equality, order, membership --------------------------------------------------------------------------------------


def _equal(left: Items, right: Items, context: Context) -> Items:
    verdict = equal(left, right)
    if verdict is None and left and right:
        context.undecided = True
    return _boolean(verdict)


def _not_equal(left: Items, right: Items, context: Context) -> Items:
    return [not verdict for verdict in _equal(left, right, context)]


def _ordered(holds: Callable[[int], bool]) -> Operator:
    def run(left: Items, right: Items, context: Context) -> Items:
        if not left or not right:
            return []
        order = compare(single(left, "a comparison"), single(right, "a comparison"))
        if order is None:
            context.undecided = True
            return []
        return [holds(order)]

    return run


def _in(left: Items, right: Items, _context: Context) -> Items:
    item = single(left, "in")
    return [] if item is None else [any(equal_items(item, other) for other in right)]


# --- arithmetic -------------------------------------------------------------------------------------------------------


_MAX_DIGITS = 28  # beyond which decimal arithmetic is not exact; an overflow is empty (FHIRPath N1 6.6)


def _arithmetic(name: str, run: Callable[[Decimal, Decimal], Decimal]) -> Operator:
    def operator(left: Items, right: Items, context: Context) -> Items:
        mine, other = plain(single(left, name)), plain(single(right, name))
        if mine is None or other is None:
            return []
        if name == "+" and type(mine) is str and type(other) is str:
            return _concatenate(left, right, context)
        if not {type(mine), type(other)} <= {int, Decimal}:
            raise FhirPathError(f"{name} takes numbers here")
        if not other and name in {"/", "div", "mod"}:
            return []
        try:
            result = run(Decimal(mine), Decimal(other))
            if not result.is_finite() or result.adjusted() > _MAX_DIGITS:
                return []
            whole = name in {"div", "mod"} or (name != "/" and type(mine) is int and type(other) is int)
            return [int(result) if whole and result == int(result) else result]
        except (DecimalException, OverflowError):
            return []

    return operator


def _concatenate(left: Items, right: Items, context: Context) -> Items:
    joined = _string(left) + _string(right)
    context.spend(len(joined) // 100)
    return [joined]


def _string(items: Items) -> str:
    value = plain(single(items, "&"))
    if value is not None and type(value) is not str:
        raise FhirPathError("& takes strings")
    return value or ""


OPERATORS: dict[str, Operator] = {
    "=": _equal,
    "!=": _not_equal,
    "~": lambda left, right, _: [equivalent(left, right)],
    "!~": lambda left, right, _: [not equivalent(left, right)],
    "<": _ordered(lambda order: order < 0),
    ">": _ordered(lambda order: order > 0),
    "<=": _ordered(lambda order: order <= 0),
    ">=": _ordered(lambda order: order >= 0),
    "in": _in,
    "contains": lambda left, right, context: _in(right, left, context),
    "|": lambda left, right, _: distinct(left + right),
    "&": _concatenate,
    "+": _arithmetic("+", lambda a, b: a + b),
    "-": _arithmetic("-", lambda a, b: a - b),
    "*": _arithmetic("*", lambda a, b: a * b),
    "/": _arithmetic("/", lambda a, b: a / b),
    "div": _arithmetic("div", lambda a, b: a // b),
    "mod": _arithmetic("mod", lambda a, b: a % b),
}
