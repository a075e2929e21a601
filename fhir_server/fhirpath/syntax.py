"""FHIRPath expressions as trees (FHIRPath N1, appendix B: grammar; 6.8: precedence of operators)."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir_server.fhirpath.temporal import Temporal
from fhir_server.fhirpath.tokens import FhirPathError, Token, tokens
from fhir_server.fhirpath.units import CALENDAR_UNITS, Quantity

MAX_NESTING = 40
"""Brackets inside brackets."""
MAX_DEPTH = 150
"""Steps and operators that wait for one another; what a compiled expression needs of Python's stack follows from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """`%name`."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Special:
    """`$this` and `$index`. What an expression begins with, if nothing else is written, is `$this`."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    base: "Node"
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    base: "Node"
    name: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """`base[index]`."""

    base: "Node"
    index: "Node"


@dataclass(frozen=True, slots=True, eq=False)
class Negative:
    operand: "Node"


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True, eq=False)
class TypeTest:
    """`operand is type`, `operand as type`, and ofType(), which takes any number of items."""

    operator: str
    operand: "Node"
    type_name: str


Node = Literal | Environment | Special | Member | Call | Item | Negative | Binary | TypeTest

THIS = Special("this")
_LEVELS = ("implies", "or xor", "and", "in contains", "= ~ != !~", "< > <= >=", "|", "is as", "+ - &", "* / div mod")
_PRECEDENCE = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators.split()}
_TYPE_FUNCTIONS = frozenset({"is", "as", "ofType"})
_NOT_NAMES = frozenset(_PRECEDENCE) - {"as", "contains", "in", "is"}


def parse(expression: str) -> Node:
    """The tree of an expression. Raises FhirPathError."""
    parser = _Parser(tokens(expression))
    tree = parser.expression()
    parser.expect_end()
    if _depth(tree) > MAX_DEPTH:
        raise FhirPathError(f"an expression has at most {MAX_DEPTH} steps that depend on each other")
    return tree


def parts(tree: Node) -> tuple[Node, ...]:
    """The trees directly inside a tree."""
    match tree:
        case Member(base=base):
            return (base,)
        case Call(base=base, arguments=arguments):
            return (base, *arguments)
        case Item(base=left, index=right) | Binary(left=left, right=right):
            return (left, right)
        case Negative(operand=operand) | TypeTest(operand=operand):
            return (operand,)
        case _:
            return ()


def _depth(tree: Node) -> int:
    depth, level = 0, [tree]
    while level:
        level = [part for node in level for part in parts(node)]
        depth += 1
    return depth


class _Parser:
    """Recursive descent; operators by precedence climbing."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._nesting = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _is_sign(self, sign: str) -> bool:
        return self._next.kind == "sign" and self._next.text == sign

    def _expect(self, sign: str) -> None:
        if not self._is_sign(sign):
            raise FhirPathError(f"{sign!r} is expected at character {self._next.position + 1}")
        self._at += 1

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise FhirPathError(f"{self._next.text[:40]!r} is not expected at character {self._next.position + 1}")

    def expression(self, lowest: int = 0) -> Node:
        left = self._unary()
        while True:
            token = self._next
            level = _PRECEDENCE.get(token.text, -1) if token.kind in {"sign", "word"} else -1
            if level < lowest:
                return left
            self._at += 1
            if token.text in {"is", "as"}:
                left = TypeTest(token.text, left, self._type_name())
            else:
                left = Binary(token.text, left, self.expression(level + 1))

    def _unary(self) -> Node:
        negative = False
        while self._is_sign("-") or self._is_sign("+"):
            negative ^= self._take().text == "-"
        operand = self._steps(self._term())
        return Negative(operand) if negative else operand

    def _steps(self, base: Node) -> Node:
        while True:
            if self._is_sign("."):
                self._at += 1
                base = self._invocation(base, self._take())
            elif self._is_sign("["):
                base = Item(base, self._bracketed("[", "]"))
            else:
                return base

    def _bracketed(self, opening: str, closing: str) -> Node:
        self._expect(opening)
        self._enter()
        inside = self.expression()
        self._nesting -= 1
        self._expect(closing)
        return inside

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise FhirPathError(f"brackets nest deeper than {MAX_NESTING} levels")

    def _term(self) -> Node:
        if self._is_sign("("):
            return self._bracketed("(", ")")
        if self._is_sign("{"):
            self._at += 1
            self._expect("}")
            return Literal(())
        token = self._take()
        match token.kind:
            case "text":
                return Literal((token.text,))
            case "number":
                return self._number(token.text)
            case "temporal":
                return Literal((_temporal(token.text),))
            case "environment":
                return Environment(token.text)
            case "special" if token.text in {"$this", "$index"}:
                return Special(token.text[1:])
            case "word" if token.text in {"true", "false"}:
                return Literal((token.text == "true",))
            case _:
                return self._invocation(THIS, token)

    def _number(self, text: str) -> Literal:
        number = Decimal(text) if "." in text else int(text)
        unit = self._next
        if unit.kind == "text":
            self._at += 1
            return Literal((Quantity(number, unit.text),))
        if unit.kind == "word" and unit.text in CALENDAR_UNITS:
            self._at += 1
            return Literal((Quantity(number, unit.text.removesuffix("s")),))
        return Literal((number,))

    def _invocation(self, base: Node, token: Token) -> Node:
        is_name = token.kind == "quoted" or (token.kind == "word" and (base is not THIS or token.text not in _NOT_NAMES))
        if not is_name:
            what = repr(token.text[:40]) if token.text else "the end"
            raise FhirPathError(f"a name is expected at character {token.position + 1}, not {what}")
        if not self._is_sign("("):
            return Member(base, token.text)
        self._at += 1
        if token.text in _TYPE_FUNCTIONS:
            name = self._type_name()
            self._expect(")")
            return TypeTest(token.text, base, name)
        return Call(base, token.text, self._arguments())

    def _arguments(self) -> tuple[Node, ...]:
        found: list[Node] = []
        self._enter()
        while not self._is_sign(")"):
            if found:
                self._expect(",")
            found.append(self.expression())
        self._nesting -= 1
        self._expect(")")
        return tuple(found)

    def _type_name(self) -> str:
        words = [self._take()]
        while self._is_sign("."):
            self._at += 1
            words.append(self._take())
        if any(word.kind not in {"word", "quoted"} for word in words):
            raise FhirPathError(f"the name of a type is expected at character {words[0].position + 1}")
        return ".".join(word.text for word in words)


def _temporal(text: str) -> Temporal:
    found = Temporal.parse(text.removeprefix("@").removesuffix("T"))
    if found is None:
        raise FhirPathError(f"{text} is not a date or time")
    return found
