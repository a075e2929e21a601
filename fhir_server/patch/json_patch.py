"""JSON Patch (RFC 6902) with JSON Pointer (RFC 6901), on resources as fhir_json holds them.

Own code: a library gives neither an OperationOutcome that names the operation nor the limits on growth by `copy`.
An array that a patch has emptied goes, as FHIR JSON has no empty arrays.
"""

import re
from collections.abc import Callable
from typing import Any

from fhir_server.elements import Resource, duplicate
from fhir_server.patch.limits import (
    Growth,
    check_identity,
    check_operations,
    inapplicable,
    malformed,
    without_empty,
)

_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_SHOWN = 200

Tokens = list[str]


def apply_json_patch(resource: Resource, operations: list[Any]) -> Resource:
    """The resource with the operations applied in their order; all of them or, with a FhirError, none (RFC 6902 5)."""
    if not isinstance(operations, list):
        raise malformed("a JSON Patch is an array of operations", "patch")
    check_operations(operations, "patch")
    patching = _Patching(resource)
    for number, operation in enumerate(operations):
        patching.apply(operation, f"patch[{number}]")
        check_identity(patching.document, resource, f"patch[{number}].path")
    return patching.result()


class _Patching:
    """One patch at work. The document stands in an object of its own under the empty name, so that `""` is a path like others."""

    def __init__(self, resource: Resource) -> None:
        self._root: dict[str, Any] = {"": duplicate(resource)}
        self._growth = Growth(resource)
        self._reduced: list[dict[str, Any] | list[Any]] = []
        self._where = ""

    @property
    def document(self) -> Any:
        return self._root.get("")

    def result(self) -> Resource:
        document: Resource = self.document
        if any(not container for container in self._reduced):
            document = without_empty(document)
        return document

    def apply(self, operation: Any, where: str) -> None:
        self._where = where
        if not isinstance(operation, dict):
            raise malformed("an operation is an object", where)
        name = operation.get("op")
        apply = _OPERATIONS.get(name) if isinstance(name, str) else None
        if apply is None:
            raise malformed(f"op is one of {', '.join(_OPERATIONS)}", f"{where}.op")
        apply(self, operation)

    # --- operations (RFC 6902 4) ---

    def add(self, operation: dict[str, Any]) -> None:
        value, tokens = self._value(operation), self._pointer(operation, "path")
        self._growth.place(value, len(tokens) - 1, self._where)
        self._put(tokens, duplicate(value))

    def remove(self, operation: dict[str, Any]) -> None:
        self._take(self._pointer(operation, "path"), "path")

    def replace(self, operation: dict[str, Any]) -> None:
        value, tokens = self._value(operation), self._pointer(operation, "path")
        container, key = self._place(tokens, "path")
        self._growth.place(value, len(tokens) - 1, self._where)
        container[key] = duplicate(value)

    def move(self, operation: dict[str, Any]) -> None:
        source, target = self._pointer(operation, "from"), self._pointer(operation, "path")
        if len(source) < len(target) and target[: len(source)] == source:
            raise malformed("an element can't be moved into itself", f"{self._where}.from")
        value = self._take(source, "from")
        if len(target) > len(source):
            self._growth.place(value, len(target) - 1, self._where)
        self._put(target, value)

    def copy(self, operation: dict[str, Any]) -> None:
        source, target = self._pointer(operation, "from"), self._pointer(operation, "path")
        container, key = self._place(source, "from")
        value = container[key]
        self._growth.place(value, len(target) - 1, self._where)
        self._put(target, duplicate(value))

    def test(self, operation: dict[str, Any]) -> None:
        value = self._value(operation)
        container, key = self._place(self._pointer(operation, "path"), "path")
        if not _equal(container[key], value):
            raise inapplicable("the element is not what the patch expects it to be", f"{self._where}.value")

    # --- members of an operation ---

    def _value(self, operation: dict[str, Any]) -> Any:
        if "value" not in operation:
            raise malformed(f"{operation['op']} needs a value", f"{self._where}.value")
        return operation["value"]

    def _pointer(self, operation: dict[str, Any], member: str) -> Tokens:
        pointer = operation.get(member)
        where = f"{self._where}.{member}"
        if not isinstance(pointer, str):
            raise malformed(f"{operation['op']} needs a {member}, which is a JSON Pointer", where)
        if pointer and not pointer.startswith("/"):
            raise malformed("a JSON Pointer is empty or begins with /", where)
        if _BAD_ESCAPE.search(pointer):
            raise malformed("in a JSON Pointer ~ stands before 0 or 1 only", where)
        return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")]

    # --- places in the document ---

    def _container(self, tokens: Tokens, member: str) -> dict[str, Any] | list[Any]:
        container: Any = self._root
        for number, token in enumerate(tokens[:-1]):
            container = container[self._existing(container, token, tokens[: number + 1], member)]
        if not isinstance(container, dict | list):
            raise self._missing(tokens, member)
        return container

    def _place(self, tokens: Tokens, member: str) -> tuple[Any, str | int]:
        """The object or array of an element that is there, and its name or index in it."""
        container = self._container(tokens, member)
        return container, self._existing(container, tokens[-1], tokens, member)

    def _existing(self, container: Any, token: str, tokens: Tokens, member: str) -> str | int:
        if isinstance(container, dict) and token in container:
            return token
        if isinstance(container, list) and _INDEX.fullmatch(token) and int(token) < len(container):
            return int(token)
        raise self._missing(tokens, member)

    def _missing(self, tokens: Tokens, member: str) -> Exception:
        return inapplicable(f"there is nothing at {'/'.join(tokens)[:_SHOWN]}", f"{self._where}.{member}")

    def _take(self, tokens: Tokens, member: str) -> Any:
        container, key = self._place(tokens, member)
        self._reduced.append(container)
        return container.pop(key)

    def _put(self, tokens: Tokens, value: Any) -> None:
        container, last = self._container(tokens, "path"), tokens[-1]
        if isinstance(container, dict):
            container[last] = value
        elif last == "-":
            container.append(value)
        elif _INDEX.fullmatch(last) and int(last) <= len(container):
            container.insert(int(last), value)
        else:
            raise inapplicable(f"the array has no place {last[:_SHOWN]}", f"{self._where}.path")


_OPERATIONS: dict[str, Callable[[_Patching, dict[str, Any]], None]] = {
    "add": _Patching.add,
    "remove": _Patching.remove,
    "replace": _Patching.replace,
    "move": _Patching.move,
    "copy": _Patching.copy,
    "test": _Patching.test,
}


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values (RFC 6902 4.6): numbers by their value, so that 1.50 is 1.5; true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(item, other[name]) for name, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
