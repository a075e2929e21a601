"""FHIRPath Patch (FHIR R4 3.1.0.7): add, insert, delete, replace and move of the elements that FHIRPath expressions select.

Where R4 leaves it open: an empty patch changes nothing; `insert` at 0 begins a list that is not there; a `move` counts
`destination` in the list without the moved item; an element that loses all that it had goes too.
"""

import re
from collections.abc import Callable
from typing import Any

from fhir_server.definitions import Element
from fhir_server.elements import Resource, duplicate
from fhir_server.fhirpath import FhirPathError, Node, compile_expression, resource_node
from fhir_server.fhirpath.context import MAX_UNTRUSTED_WORK, MAX_WORK, Context
from fhir_server.patch.contents import Content, add, content, element_named, pairs, put_pairs, put_single
from fhir_server.patch.limits import Growth, check_identity, inapplicable, malformed, without_empty
from fhir_server.patch.operations import Operation, operations_of

_LAST_STEP = re.compile(r"(.+)\.([A-Za-z][A-Za-z0-9]*)", re.DOTALL)


def apply_fhirpath_patch(resource: Resource, parameters: Resource) -> Resource:
    """The resource with the operations applied in their order; all of them or, with a FhirError, none."""
    patching = _Patching(resource)
    for operation in operations_of(parameters):
        _OPERATIONS[operation.type](patching, operation)
        check_identity(patching.document, resource, operation.places["path"])
    return patching.result()


class _Patching:
    """One patch at work. The nodes that a path selects hold the very objects of the document, which are changed in place."""

    def __init__(self, resource: Resource) -> None:
        self.document = duplicate(resource)
        self._growth = Growth(resource)
        self._work = MAX_WORK
        self._has_removed = False

    def result(self) -> Resource:
        document: Resource = without_empty(self.document) if self._has_removed else self.document
        return document

    # --- operations ---

    def add(self, operation: Operation) -> None:
        parent = self._single(operation)
        element, key = element_named(parent.type, operation.name, operation.places["name"])
        self._add(operation, parent, element, key)

    def insert(self, operation: Operation) -> None:
        nodes = self._nodes(operation, operation.path)
        if not nodes:
            self._begin_list(operation)
            return
        holder, element, key = self._list(operation, nodes)
        new = self._content(operation, element, key, nodes[0].parent)
        items = pairs(holder, key)
        if operation.index > len(items):
            raise inapplicable(f"the list has {len(items)} items", operation.places["index"])
        items.insert(operation.index, new.pair)
        put_pairs(holder, key, items)

    def delete(self, operation: Operation) -> None:
        nodes = self._nodes(operation, operation.path)
        if len(nodes) > 1:
            raise inapplicable(f"the path selects {len(nodes)} elements; one at most can be deleted", operation.places["path"])
        for node in nodes:
            holder, element = self._home(operation, node)
            if node.index is None:
                put_single(holder, element, None)
            else:
                items = pairs(holder, node.key)
                del items[node.index]
                put_pairs(holder, node.key, items)
            self._has_removed = True

    def replace(self, operation: Operation) -> None:
        node = self._single(operation)
        holder, element = self._home(operation, node)
        new = self._content(operation, element, None, node.parent)
        if node.index is None:
            put_single(holder, element, new)
        else:
            items = pairs(holder, node.key)
            items[node.index] = new.pair
            put_pairs(holder, node.key, items)

    def move(self, operation: Operation) -> None:
        nodes = self._nodes(operation, operation.path)
        if not nodes:
            raise self._nothing(operation)
        holder, _, key = self._list(operation, nodes)
        items = pairs(holder, key)
        for name, index in (("source", operation.source), ("destination", operation.destination)):
            if index >= len(items):
                raise inapplicable(f"the list has {len(items)} items", operation.places[name])
        items.insert(operation.destination, items.pop(operation.source))
        put_pairs(holder, key, items)

    # --- what a path selects ---

    def _nodes(self, operation: Operation, path: str) -> list[Node]:
        """The elements of the document that a path selects. All paths of one patch share a budget of work."""
        root = resource_node(self.document)
        allowed = min(self._work, MAX_UNTRUSTED_WORK)
        context = Context(root, root, root, work=allowed)
        try:
            items = compile_expression(path, trusted=False).items(root, context)
        except FhirPathError as error:
            raise malformed(f"the path is not one that can be followed: {error}", operation.places["path"]) from None
        self._work -= allowed - context.work
        if any(not isinstance(item, Node) or _root(item) is not root for item in items):
            raise inapplicable("the path selects something that is not an element of the resource", operation.places["path"])
        return [item for item in items if isinstance(item, Node)]

    def _single(self, operation: Operation) -> Node:
        nodes = self._nodes(operation, operation.path)
        if not nodes:
            raise self._nothing(operation)
        if len(nodes) > 1:
            raise inapplicable(f"the path selects {len(nodes)} elements instead of one", operation.places["path"])
        return nodes[0]

    def _nothing(self, operation: Operation) -> Exception:
        return inapplicable("the path selects nothing", operation.places["path"])

    def _home(self, operation: Operation, node: Node) -> tuple[dict[str, Any], Element]:
        """The JSON object that an element stands in, and its definition."""
        if node.parent is None:
            raise inapplicable("the path selects the resource itself", operation.places["path"])
        element, _ = element_named(node.parent.type, node.name, operation.places["path"])
        return _inside(node.parent, operation.places["path"]), element

    def _list(self, operation: Operation, nodes: list[Node]) -> tuple[dict[str, Any], Element, str]:
        """The list that the nodes are, all of it: indexes into a selection of it would be ambiguous."""
        first = nodes[0]
        holder, element = self._home(operation, first)
        indexes = {node.index for node in nodes if node.parent is first.parent and node.key == first.key}
        if (
            first.index is None
            or len(indexes) != len(nodes)
            or len(nodes) != sum(p != (None, None) for p in pairs(holder, first.key))
        ):
            raise inapplicable("the path does not select a whole list", operation.places["path"])
        return holder, element, first.key

    # --- what is written ---

    def _begin_list(self, operation: Operation) -> None:
        last = _LAST_STEP.fullmatch(operation.path)
        parents = self._nodes(operation, last[1]) if last else []
        if last is None or len(parents) != 1:
            raise self._nothing(operation)
        element, key = element_named(parents[0].type, last[2], operation.places["path"])
        if element.max == 1:
            raise inapplicable("the path does not select a whole list", operation.places["path"])
        if operation.index:
            raise inapplicable("the list has 0 items", operation.places["index"])
        self._add(operation, parents[0], element, key)

    def _add(self, operation: Operation, parent: Node, element: Element, key: str | None) -> None:
        new = self._content(operation, element, key, parent)
        add(_inside(parent, operation.places["path"]), element, new, operation.places["path"])

    def _content(self, operation: Operation, element: Element, key: str | None, parent: Node | None) -> Content:
        new = content(element, key, operation.value, operation.places["value"])
        depth = len(parent.location if parent else ()) + 1 + (element.max != 1)
        self._growth.place([new.value, new.extra], depth - 1, operation.places["value"])
        return new


_OPERATIONS: dict[str, Callable[[_Patching, Operation], None]] = {
    "add": _Patching.add,
    "insert": _Patching.insert,
    "delete": _Patching.delete,
    "replace": _Patching.replace,
    "move": _Patching.move,
}


def _root(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node


def _inside(node: Node, where: str) -> dict[str, Any]:
    """The JSON object that holds what is inside an element: itself or, of a primitive, what `_name` has, made if need be."""
    if isinstance(node.value, dict):
        return node.value
    if node.extra is None:
        assert node.parent is not None
        node.extra = {}
        holder = _inside(node.parent, where)
        if node.index is None:
            holder[f"_{node.key}"] = node.extra
        else:
            items = pairs(holder, node.key)
            items[node.index] = (node.value, node.extra)
            put_pairs(holder, node.key, items)
    if not isinstance(node.extra, dict):
        raise inapplicable("what the path selects can't have elements inside", where)
    return node.extra
