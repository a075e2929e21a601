"""No string of a resource may hold control characters other than tab, line feed and carriage return (FHIR R4 2.24.0.1).

Looking at every string costs as much as the rest of the validation, so the whole resource is looked at in one piece first: as
JSON, where such characters show up as escapes.
"""

import re
from typing import Any

from fhir_server.validation.problems import Problem, below, problem

_ESCAPED = re.compile(rb"\\(?:u|b|f)")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def check_characters(resource: dict[str, Any], written: bytes) -> list[Problem] | None:
    """The check of a resource whose shape is valid already; `written` is its JSON (or `\\u`, where it can't be written)."""
    return _search(resource) if b"\\" in written and _ESCAPED.search(written) else None


def _search(value: Any) -> list[Problem]:
    if type(value) is str:
        return problem("value", "A string must not hold control characters") if _FORBIDDEN.search(value) else []
    if type(value) is dict:
        return [found for key, item in value.items() for found in below(f".{key}", _search(item))]
    if type(value) is list:
        return [found for index, item in enumerate(value) for found in below(f"[{index}]", _search(item))]
    return []
