"""Compiles FHIRPath trees into closures: from the items in focus (`$this`) and the context to the items selected."""

from collections.abc import Callable
from decimal import Decimal

from fhir_server.fhirpath.context import Context
from fhir_server.fhirpath.functions import FUNCTIONS
from fhir_server.fhirpath.items import Items, plain, single
from fhir_server.fhirpath.nodes import Node, is_known_type, is_type
from fhir_server.fhirpath.operators import LOGIC, OPERATORS
from fhir_server.fhirpath.syntax import (
    THIS,
    Binary,
    Call,
    Environment,
    Item,
    Literal,
    Member,
    Negative,
    Special,
    TypeTest,
    parts,
)
from fhir_server.fhirpath.syntax import Node as Tree
from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.tokens import FhirPathError
from fhir_server.fhirpath.units import Quantity

Compiled = Callable[[Items, Context], Items]

_CONSTANTS = {"ucum": "http://unitsofmeasure.org", "sct": "http://snomed.info/sct", "loinc": "http://loinc.org"}
_CANONICALS = {"vs-": "http://hl7.org/fhir/ValueSet/", "ext-": "http://hl7.org/fhir/StructureDefinition/"}


def compile_tree(tree: Tree) -> Compiled:
    """The closure of a tree. Raises FhirPathError for functions and types that there are not."""
    if isinstance(tree, Member | Call) and _is_fixed(tree):
        return _remembered(_compile(tree))
    return _compile(tree)


def _is_fixed(tree: Tree) -> bool:
    """Whether a path begins with `%resource` or the like, and so selects the same for every item in focus."""
    while isinstance(tree, Member) or (isinstance(tree, Call) and all(isinstance(a, Literal) for a in tree.arguments)):
        tree = tree.base
    return isinstance(tree, Environment)


def _remembered(run: Compiled) -> Compiled:
    def remembered(this: Items, context: Context) -> Items:
        known = context.memory.get(id(run))
        if known is None:
            known = context.memory[id(run)] = run(this, context)
        return known

    return remembered


def _compile(tree: Tree) -> Compiled:
    match tree:
        case Literal(values=values):
            items = list(values)
            return lambda _this, _context: items
        case Special(name="this"):
            return lambda this, _context: this
        case Special():
            return lambda _this, context: [context.index]
        case Environment(name=name):
            return _environment(name)
        case Member(base=base, name=name):
            return _first_member(name) if base is THIS else _member(_compile(base), name)
        case Call(base=base, name=name, arguments=arguments):
            return _call(_compile(base), name, arguments)
        case Item(base=base, index=index):
            return _item(_compile(base), compile_tree(index))
        case Negative(operand=operand):
            return _negative(compile_tree(operand))
        case TypeTest(operator=operator, operand=operand, type_name=type_name):
            return _type_test(operator, compile_tree(operand), type_name)
        case Binary(operator=operator, left=left, right=right):
            return _binary(operator, left, right)


def _environment(name: str) -> Compiled:
    match name:
        case "resource":
            return lambda _this, context: [context.resource]
        case "rootResource":
            return lambda _this, context: [context.root]
        case "context":
            return lambda _this, context: [context.context]
    canonical = next((url + name.removeprefix(prefix) for prefix, url in _CANONICALS.items() if name.startswith(prefix)), None)
    constant = _CONSTANTS.get(name, canonical)
    if constant is not None:
        return lambda _this, _context: [constant]

    def variable(_this: Items, context: Context) -> Items:
        if name not in context.variables:
            raise FhirPathError(f"there is no %{name}")
        value = context.variables[name]
        return value if isinstance(value, list) else [value]

    return variable


def _member(base: Compiled, name: str) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        found = [child for item in base(this, context) if type(item) is Node for child in item.child(name)]
        context.spend(1 + len(found))
        return found

    return run


def _first_member(name: str) -> Compiled:
    """The first step of a path: an element, or the type of what is in focus, which selects just that (FHIRPath N1 3.2)."""

    def run(this: Items, context: Context) -> Items:
        found = [child for item in this if type(item) is Node for child in item.child(name)]
        context.spend(1 + len(found))
        return found

    if not name[:1].isupper():
        return run
    return lambda this, _context: [item for item in this if type(item) is Node and is_type(item.type, name)]


def _call(base: Compiled, name: str, arguments: tuple[Tree, ...]) -> Compiled:
    function = FUNCTIONS.get(name)
    if function is None:
        raise FhirPathError(f"the function {name[:40]}() is not supported")
    if not function.least <= len(arguments) <= function.most:
        raise FhirPathError(f"{name}() does not take {len(arguments)} arguments")
    run = function.run
    compiled = [compile_tree(argument) for argument in arguments]
    lazy = function.lazy

    def call(this: Items, context: Context) -> Items:
        items = base(this, context)
        if not compiled:
            found = run(items, context)
        elif lazy:
            found = run(items, context, *compiled)
        else:
            arguments = [argument(this, context) for argument in compiled]
            context.spend(sum(map(len, arguments)))
            found = run(items, context, *arguments)
        context.spend(1 + len(items) + len(found))
        return found

    return call


def _item(base: Compiled, index: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        position = plain(single(index(this, context), "[]"))
        if type(position) is not int:
            raise FhirPathError("an index is a whole number")
        items = base(this, context)
        return items[position : position + 1] if position >= 0 else []

    return run


def _negative(operand: Compiled) -> Compiled:
    def run(this: Items, context: Context) -> Items:
        value = plain(single(operand(this, context), "-"))
        if value is not None and type(value) is not int and type(value) is not Decimal:
            raise FhirPathError("- takes a number")
        return [] if value is None else [-value]

    return run


def _binary(operator: str, left: Tree, right: Tree) -> Compiled:
    if operator in LOGIC:
        return LOGIC[operator](compile_tree(left), compile_tree(right))
    run, first, second = OPERATORS[operator], compile_tree(left), compile_tree(right)
    if operator == "|" and isinstance(left, Literal) and isinstance(right, Literal):
        items = list(dict.fromkeys(left.values + right.values))
        return lambda _this, _context: items

    def binary(this: Items, context: Context) -> Items:
        mine, other = first(this, context), second(this, context)
        context.spend(1 + len(mine) + len(other))
        return run(mine, other, context)

    return binary


def _type_test(operator: str, operand: Compiled, type_name: str) -> Compiled:
    if not is_known_type(type_name):
        raise FhirPathError(f"there is no type {type_name[:64]}")

    def test(this: Items, context: Context) -> Items:
        item = single(operand(this, context), "is")
        return [] if item is None else [_is(item, type_name)]

    def only(this: Items, context: Context) -> Items:
        return [item for item in operand(this, context) if _is(item, type_name)]

    return test if operator == "is" else only


def _is(item: object, type_name: str) -> bool:
    if isinstance(item, Node):
        return is_type(item.type, type_name)
    return is_type(_PLAIN_TYPES.get(type(item), _temporal_type(item)), type_name)


_PLAIN_TYPES = {bool: "boolean", int: "integer", Decimal: "decimal", str: "string", Quantity: "Quantity"}


def _temporal_type(item: object) -> str:
    assert isinstance(item, Temporal)
    return "time" if item.is_time else "dateTime" if len(item.parts) > 3 else "date"


def uses(tree: Tree, *functions: str) -> bool:
    """Whether a tree calls one of these functions."""
    return (isinstance(tree, Call) and tree.name in functions) or any(uses(part, *functions) for part in parts(tree))
