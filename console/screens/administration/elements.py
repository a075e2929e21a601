"""Elements of a resource by a path, to be shown in a form and to be written back, with all else of the resource left as it is.

name                                 an element
type.coding[system=DCM].code         of the coding with this system; one is made when there is none
name[0].family                       of the first name
extension[url=urn:x]*.valueString    of all that have this url: several values
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fhir_server.registry import Resource

_STEP = re.compile(r"([A-Za-z]+)(?:\[([^\]]*)\](\*)?)?(?:\.|$)")
# What says in words what stands beside it: it goes when that changes.
_TOLD = {"code": "display", "reference": "display"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `where` chooses among the elements of a list, (name, value), or ("", "") for the first one."""

    name: str
    where: tuple[str, str] | None = None
    several: bool = False

    def chooses(self, element: Any) -> bool:
        """Whether this element of the list is meant."""
        key, value = self.where or ("", "")
        return isinstance(element, dict) and (not key or str(element.get(key)) == value)

    def made(self) -> Resource:
        """A new element of the list, which is then meant."""
        key, value = self.where or ("", "")
        return {key: value} if key else {}

    def is_bare(self, element: Resource) -> bool:
        """Whether nothing is left of it but what it is chosen by."""
        return element.keys() <= {(self.where or ("", ""))[0]}


@cache
def steps(path: str) -> tuple[Step, ...]:
    """The steps of a path."""
    found = []
    for name, where, several in _STEP.findall(path):
        chosen = None
        if where:
            key, _, value = where.partition("=")
            chosen = ("", "") if key.isdigit() else (key, value)
        found.append(Step(name, chosen, bool(several)))
    return tuple(found)


def plain(path: str) -> str:
    """The path as FHIRPath has it in issues: without what chooses."""
    return ".".join(step.name for step in steps(path))


def values(resource: Resource, path: str) -> list[Any]:
    """What stands there: several values where the path has a `*`, else one at most."""
    return list(_values(resource, steps(path)))


def _values(element: Any, path: Sequence[Step]) -> Iterator[Any]:
    if not path:
        yield element
        return
    step, rest = path[0], path[1:]
    there = element.get(step.name) if isinstance(element, dict) else None
    if there is None:
        return
    if step.where is None:
        yield from _values(there, rest)
        return
    chosen = [e for e in there if step.chooses(e)] if isinstance(there, list) else []
    for one in chosen if step.several else chosen[:1]:
        yield from _values(one, rest)


def write(resource: Resource, path: str, wanted: Sequence[Any]) -> None:
    """Have these values stand there, and nothing else changed; what is empty then is taken out."""
    if values(resource, path) != list(wanted):
        _write(resource, steps(path), list(wanted))


def _write(element: Resource, path: Sequence[Step], wanted: list[Any]) -> None:
    step, rest = path[0], path[1:]
    if step.where is None:
        _write_plain(element, step.name, rest, wanted)
        return
    listed: list[Any] = element.get(step.name, [])
    chosen = [e for e in listed if step.chooses(e)]
    if step.several:
        there = {str(v) for e in chosen for v in _values(e, rest)}
        still = {str(value) for value in wanted}
        gone = [e for e in chosen if still.isdisjoint(str(v) for v in _values(e, rest))]
        kept = [e for e in listed if not any(e is one for one in gone)]
        listed = kept + [_with(step, rest, value) for value in wanted if str(value) not in there]
    else:
        one = chosen[0] if chosen else step.made()
        _write(one, rest, wanted)
        if step.is_bare(one):
            listed = [e for e in listed if e is not one]
        elif not chosen:
            listed = [*listed, one]
    _put(element, step.name, listed)


def _with(step: Step, rest: Sequence[Step], value: Any) -> Resource:
    made = step.made()
    _write(made, rest, [value])
    return made


def _write_plain(element: Resource, name: str, rest: Sequence[Step], wanted: list[Any]) -> None:
    if not rest:
        _put(element, name, wanted[0] if wanted else None)
        element.pop(f"_{name}", None)  # extensions of what stood there before
        if name in _TOLD:
            element.pop(_TOLD[name], None)
        return
    inner = element.get(name, {})
    _write(inner, rest, wanted)
    _put(element, name, inner)


def _put(element: Resource, name: str, value: Any) -> None:
    if value is None or value in ({}, []):
        element.pop(name, None)
    else:
        element[name] = value
