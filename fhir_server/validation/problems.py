"""What a check returns: nothing when all is well, else problems. The paths grow on the way out: good input pays nothing."""

from collections.abc import Callable
from typing import Any

Problem = tuple[str, str, str]
"""FHIR issue type, text, and the path below the value that was checked, such as `.name[0].given[1]` (empty: the value itself)."""

Check = Callable[[Any, int], list[Problem] | None]
"""A check of one JSON value at a depth (elements from the top of the resource)."""

MAX_PROBLEMS = 20


def problem(code: str, text: str, path: str = "") -> list[Problem]:
    return [(code, text, path)]


def below(step: str, problems: list[Problem]) -> list[Problem]:
    """The problems of a value as problems of what holds it; `step` is `.name` or `[2]`."""
    return [(code, text, step + path) for code, text, path in problems]
