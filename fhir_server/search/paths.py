"""Compiles the part of FHIRPath that search parameter expressions use into extractors (FHIR R4 3.1.1, FHIRPath N1 4 to 6).

What there is: `|`, dotted paths through the elements of R4 (choices under their bare name), `as`, `is`, `=`, `!=`, `and`, `[n]`,
`%resource`, and the functions as, ofType, where, exists, extension, hasExtension and resolve. Anything else, and any element that
R4 does not have, is refused when compiling, so that a mistyped path can't quietly find nothing.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from fhir_server.definitions import RESOURCE_TYPES, Element, elements, kind

Node = tuple[str, Any]
"""A FHIR type (a backbone element goes by its path, such as `Observation.component`) and a value of it."""

_Run = Callable[[list[Node], list[Node]], list[Node]]  # from the nodes in focus, and %resource, to the nodes selected
_Types = frozenset[str]
_NO_NODES: list[Node] = []


class PathError(ValueError):
    """The expression is not in the subset, or not about the type that it is compiled for."""


class _OtherTypeError(PathError):
    """The path begins with another resource type: this part of a union is not meant for us."""


class CompiledPath:
    """Selects (type, value) pairs from a resource, or from a part of one (`resource` is then what it is a part of).

    `types` are the types that it may yield.
    """

    __slots__ = ("_asks_for_resource", "_root", "_run", "types")

    def __init__(self, root: str, run: _Run, types: _Types, *, asks_for_resource: bool) -> None:
        self._root, self._run, self.types = root, run, types
        self._asks_for_resource = asks_for_resource

    def __call__(self, node: dict[str, Any], resource: dict[str, Any] | None = None) -> list[Node]:
        if not self._asks_for_resource:
            return self._run([(self._root, node)], _NO_NODES)
        whole = node if resource is None else resource
        return self._run([(self._root, node)], [(whole.get("resourceType", self._root), whole)])


@cache
def compile_path(expression: str, resource_type: str) -> CompiledPath:
    """The extractor of an expression for a resource type, data type or backbone path.

    The operands of a union that are about other resource types are left out. Raises PathError.
    """
    try:
        parser = _Parser(expression, resource_type)
        compiled = parser.expression(frozenset({resource_type}))
        parser.expect_end()
    except PathError as error:
        raise type(error)(f"{expression!r} on {resource_type}: {error}") from None
    return CompiledPath(resource_type, compiled.run, compiled.types, asks_for_resource="%resource" in expression)


class _Part(NamedTuple):
    run: _Run
    types: _Types
    whole: bool = False  # what is in focus itself: one node


_TOKEN = re.compile(r"\s*(?:(?P<word>%?[A-Za-z_]\w*)|'(?P<text>[^']*)'|(?P<number>[0-9]+)|(?P<sign>!=|[().|=\[\]]))")
_BOOLEAN: _Types = frozenset({"boolean"})


class _Parser:
    """Recursive descent over the tokens, compiling as it goes: every rule takes the types in focus and returns a _Part."""

    def __init__(self, expression: str, root: str) -> None:
        self._root = root
        self._tokens: list[tuple[str, str]] = []
        end = 0
        while expression[end:].strip():
            match = _TOKEN.match(expression, end)
            if match is None or match.lastgroup is None:
                raise PathError(f"nothing understood at character {end}")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            end = match.end()
        self._tokens.append(("end", ""))
        self._at = 0

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _one(self, wanted: str) -> str:
        form, text = self._next()
        if form != wanted:
            raise PathError(f"a {wanted} expected, not {text!r}")
        return text

    def _take(self, text: str) -> bool:
        if self._tokens[self._at] in (("sign", text), ("word", text)):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise PathError(f"{text!r} expected, not {self._tokens[self._at][1]!r}")

    def expect_end(self) -> None:
        if self._tokens[self._at][0] != "end":
            raise PathError(f"{self._tokens[self._at][1]!r} not understood")

    def expression(self, focus: _Types) -> _Part:
        part = self._equality(focus)
        while self._take("and"):
            part = _Part(_both(part.run, self._equality(focus).run), _BOOLEAN)
        return part

    def _equality(self, focus: _Types) -> _Part:
        left = self._union(focus)
        for sign, wanted in (("=", True), ("!=", False)):
            if self._take(sign):
                return _Part(_equal(left.run, self._union(focus).run, wanted), _BOOLEAN)
        return left

    def _union(self, focus: _Types) -> _Part:
        parts: list[_Part] = []
        other: PathError | None = None
        while True:
            start = self._at
            try:
                parts.append(self._typed(focus))
            except _OtherTypeError as error:
                other = error
                self._at = start
                self._skip_operand()
            if not self._take("|"):
                break
        if not parts:
            raise other or PathError("nothing to select")
        if len(parts) == 1:
            return parts[0]
        return _Part(_all_of([p.run for p in parts]), frozenset().union(*(p.types for p in parts)))

    def _skip_operand(self) -> None:
        """To the `|` or `)` or end that follows an operand of a union."""
        depth = 0
        while (token := self._tokens[self._at])[0] != "end":
            if depth == 0 and token in (("sign", "|"), ("sign", ")")):
                return
            depth += (token == ("sign", "(")) - (token == ("sign", ")"))
            self._at += 1

    def _typed(self, focus: _Types) -> _Part:
        part = self._path(focus)
        if self._take("as"):
            return _only(part, self._type_name(part.types))
        if self._take("is"):
            return _Part(_is(part.run, self._one("word")), _BOOLEAN)
        return part

    def _path(self, focus: _Types) -> _Part:
        part = self._first(focus)
        while True:
            if self._take("."):
                part = self._step(part, self._one("word"))
            elif self._take("["):
                part = _Part(_item(part.run, int(self._one("number"))), part.types)
                self._expect("]")
            else:
                return part

    def _first(self, focus: _Types) -> _Part:
        form, text = self._next()
        if (form, text) == ("sign", "("):
            part = self.expression(focus)
            self._expect(")")
            return part
        if form == "text":
            return _Part(_constant(("string", text)), frozenset({"string"}))
        if text in ("true", "false"):
            return _Part(_constant(("boolean", text == "true")), _BOOLEAN)
        if text == "%resource":
            return _Part(lambda _nodes, resource: resource, frozenset({self._root.split(".")[0]}))
        if form != "word":
            raise PathError(f"{text!r} not understood")
        whole = _Part(lambda nodes, _resource: nodes, focus, whole=True)
        if text == self._root or (text in ("Resource", "DomainResource") and kind(self._root) == "resource"):
            return whole
        if text[0].isupper():
            raise _OtherTypeError(f"it is about {text}")
        return self._step(whole, text)

    def _step(self, part: _Part, name: str) -> _Part:
        if not self._take("("):
            return _child(part, name)
        result = self._function(part, name)
        self._expect(")")
        return result

    def _function(self, part: _Part, name: str) -> _Part:
        match name:
            case "as" | "ofType":
                return _only(part, self._type_name(part.types))
            case "where":
                return _Part(_where(part.run, self.expression(part.types).run), part.types)
            case "exists":
                return _Part(_exists(part.run), _BOOLEAN)
            case "resolve":
                return _Part(_resolve(part.run), RESOURCE_TYPES)
            case "extension" | "hasExtension":
                found = _extension(part.run, self._one("text"))
                return _Part(found, frozenset({"Extension"})) if name == "extension" else _Part(_exists(found), _BOOLEAN)
        raise PathError(f"{name}() is not supported")

    def _type_name(self, types: _Types) -> str:
        """The type that is asked for; R4's own expressions say DateTime for dateTime once."""
        name = self._one("word")
        found = next((t for t in types if t.lower() == name.lower()), None)
        if found is None:
            raise PathError(f"it is never a {name}, but one of: {', '.join(sorted(types))}")
        return found


def _element(type_name: str, name: str) -> Element | None:
    return None if kind(type_name.split(".")[0]) is None else elements(type_name).get(name)


def _child_types(element: Element) -> Iterator[tuple[str, str]]:
    """JSON name and type of what an element may hold."""
    for json_name, type_name in element.json_names.items():
        yield json_name, element.children or type_name


def _child(part: _Part, name: str) -> _Part:
    """`.name`; the type of each node decides under which names of the JSON its parts are looked for."""
    names = {t: tuple(_child_types(e)) for t in part.types if (e := _element(t, name)) is not None}
    if not names:
        raise PathError(f"there is no {name} in: {', '.join(sorted(part.types))}")
    before = part.run

    def run(nodes: list[Node], resource: list[Node]) -> list[Node]:
        found: list[Node] = []
        for type_name, value in before(nodes, resource):
            if type_name in names:
                _add_children(found, value, names[type_name])
        return found

    types = {t for pairs in names.values() for _, t in pairs}
    of_one = _children_of_one(next(iter(names.values()))) if part.whole and len(part.types) == 1 else run
    return _Part(of_one, frozenset(types - {"Resource"} | (RESOURCE_TYPES if "Resource" in types else set())))


def _children_of_one(pairs: tuple[tuple[str, str], ...]) -> _Run:
    """`.name` of the one node in focus: how nearly every search parameter begins."""

    def run(nodes: list[Node], _resource: list[Node]) -> list[Node]:
        found: list[Node] = []
        _add_children(found, nodes[0][1], pairs)
        return found

    return run


def _add_children(found: list[Node], value: dict[str, Any], pairs: tuple[tuple[str, str], ...]) -> None:
    """What stands under these JSON names, with the types that go with them."""
    for json_name, child_type in pairs:
        child = value.get(json_name)
        if child is None:
            continue
        if child_type == "Resource":
            found += [(item["resourceType"], item) for item in (child if type(child) is list else (child,))]
        elif type(child) is list:
            found += [(child_type, item) for item in child if item is not None]
        else:
            found.append((child_type, child))


def _only(part: _Part, wanted: str) -> _Part:
    before = part.run
    return _Part(lambda nodes, resource: [n for n in before(nodes, resource) if n[0] == wanted], frozenset({wanted}))


def _truth(nodes: list[Node]) -> bool:
    return bool(nodes) and nodes[0][1] is True


def _both(left: _Run, right: _Run) -> _Run:
    return lambda nodes, resource: [("boolean", _truth(left(nodes, resource)) and _truth(right(nodes, resource)))]


def _equal(left: _Run, right: _Run, wanted: bool) -> _Run:
    def run(nodes: list[Node], resource: list[Node]) -> list[Node]:
        one, other = left(nodes, resource), right(nodes, resource)
        if not one or not other:
            return []
        return [("boolean", ([v for _, v in one] == [v for _, v in other]) is wanted)]

    return run


def _all_of(runs: list[_Run]) -> _Run:
    return lambda nodes, resource: [found for run in runs for found in run(nodes, resource)]


def _constant(node: Node) -> _Run:
    return lambda _nodes, _resource: [node]


def _item(before: _Run, index: int) -> _Run:
    return lambda nodes, resource: before(nodes, resource)[index : index + 1]


def _where(before: _Run, condition: _Run) -> _Run:
    return lambda nodes, resource: [n for n in before(nodes, resource) if _truth(condition([n], resource))]


def _exists(before: _Run) -> _Run:
    return lambda nodes, resource: [("boolean", bool(before(nodes, resource)))]


def _is(before: _Run, wanted: str) -> _Run:
    return lambda nodes, resource: [("boolean", name == wanted) for name, _ in before(nodes, resource)]


def _extension(before: _Run, url: str) -> _Run:
    def run(nodes: list[Node], resource: list[Node]) -> list[Node]:
        holders = (value for _, value in before(nodes, resource) if type(value) is dict)
        return [("Extension", e) for value in holders for e in value.get("extension", ()) if e.get("url") == url]

    return run


_REFERRED = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)(?:/[^/?#]+(?:/_history/[^/?#]+)?$|\?)")


def referred_type(reference: dict[str, Any]) -> str | None:
    """The resource type that a Reference names, by its `type` or its literal `Type/id`; None when it names none."""
    name = reference.get("type")
    if name is not None:
        return str(name).removeprefix("http://hl7.org/fhir/StructureDefinition/")
    match = _REFERRED.search(reference.get("reference", ""))
    return match[1] if match else None


def _resolve(before: _Run) -> _Run:
    """Nothing is fetched: a Reference stands for what it names, which is all that `is` asks for."""

    def run(nodes: list[Node], resource: list[Node]) -> list[Node]:
        references = (value for name, value in before(nodes, resource) if name == "Reference")
        return [(name, reference) for reference in references if (name := referred_type(reference)) in RESOURCE_TYPES]

    return run
