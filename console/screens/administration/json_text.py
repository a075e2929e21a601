"""Where in a JSON text the element stands that a refusal names."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server import fhir_json
from fhir_server.outcome import FhirError, Issue

_LAST = re.compile(r"(\.?[A-Za-z_]+|\[\d+\])$")


@dataclass(frozen=True, slots=True)
class Problem:
    """An issue, and the line of the text that it is about (from 1); 0 where that is not known."""

    text: str
    expression: str
    line: int


def shown(typed: str, issues: Sequence[Issue]) -> tuple[str, list[Problem]]:
    """What was typed, indented as it will be where it can be read, and the issues with their lines in it."""
    try:
        resource = fhir_json.loads(typed)
    except FhirError:
        return typed, [Problem(i.diagnostics, i.expression or "", _syntax_line(typed)) for i in issues]
    lines = _lines(resource)
    problems = [Problem(i.diagnostics, i.expression or "", _line(lines, i.expression or "")) for i in issues]
    return fhir_json.dumps(resource, pretty=True).decode(), problems


def _syntax_line(text: str) -> int:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):  # a number of thousands of digits, a nesting of thousands of levels
        return 0
    return 0


def _line(lines: dict[str, int], expression: str) -> int:
    """Of the element, or of what it would stand in."""
    path = expression.partition(".")[2] or expression
    while path and path not in lines and _LAST.search(path):
        path = _LAST.sub("", path)
    return lines.get(path, 0)


def _lines(resource: Any) -> dict[str, int]:
    """The line of each element by its path, as `fhir_json.dumps` writes them."""
    found: dict[str, int] = {}
    line = 1

    def walk(value: Any, path: str) -> None:
        nonlocal line
        if not isinstance(value, (dict, list)) or not value:
            return
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            line += 1
            at = f"{path}[{name}]" if isinstance(value, list) else f"{path}.{name}" if path else str(name)
            found[at] = line
            walk(inner, at)
        line += 1

    walk(resource, "")
    return found
