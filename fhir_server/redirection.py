"""Redirecting references: what refers to a record that another has replaced, comes to refer to that other one.

Rules say that the subject of a resource can't be changed, and rightly so for whoever writes it. When two records turn out to be
of one patient (FHIR R4 Patient.link, `replaced-by` and `replaces`), no resource changes its patient: the patient changes the
record. So these writes pass the rules and reactions of each resource; index, history, projections and audit see them as any.
The other use (`move`): an order that was made on the wrong patient goes to the right one with all that hangs on it, where each
rule alone would see it halfway. Whoever asks for that has seen to it that nothing contradicts itself afterwards.
What was redirected goes back (`restore`) where it was redirected, and nowhere else: a resource may name both records.
Provenance, AuditEvent and Bundle stay as they are: they tell what was.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fhir_server import integrity
from fhir_server.elements import duplicate
from fhir_server.references import Target, target, walk
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork

T = TypeVar("T")
Places = Mapping[str, list[bool]]
"""Where a resource refers to either record: by path without indices, for each reference there whether it was to the old one."""

_INDEX = re.compile(r"\[[0-9]+\]")


async def redirect(
    unit: UnitOfWork, old: Target, new: Target, *, first: Iterable[str] = (), limit: int
) -> list[tuple[str, Places]]:
    """Redirect at most `limit` of the resources that refer to `old`, and say which ("Task/1") and where.

    Fewer than `limit`: that was all.

    Links between the records themselves stay. Types in the order of `first`, then the others; the newest first.
    ValueError unless `old` says that `new` replaces it, or, to take such a merge back, `new` says so of `old`.
    """
    await _require_linked(unit, old, new)
    await integrity.hold(unit, old)
    found = await unit.referring(old, first, limit)
    for resource in found:
        unit.redirect(redirected(resource, old, new))
    return [(f"{r['resourceType']}/{r['id']}", places(r, old, new)) for r in found]


async def restore(unit: UnitOfWork, redirected_: Iterable[tuple[str, Places]], old: Target, new: Target) -> None:
    """Take back what was redirected from `old` to `new`, the last first, as far as it still is where it was."""
    await _require_linked(unit, old, new)
    await integrity.hold(unit, new)
    for reference, where in redirected_:
        resource = await unit.get(reference)
        if resource is not None and (changed := _restored(resource, where, old, new)) != resource:
            unit.redirect(changed)


def places(resource: Resource, old: Target, new: Target) -> Places:
    """Where a resource refers to `old`, with those to `new` beside it."""
    found = {path: [target(e) == old for e in elements] for path, elements in _by_path(resource, (old, new)).items()}
    return {path: were for path, were in found.items() if any(were)}


def _restored(resource: Resource, where: Places, old: Target, new: Target) -> Resource:
    """A copy with the references to `new` that were to `old`; by their order, as long as there are as many in the same place.

    Where some are gone, and all were to `old`, what is left was too. Else nobody can tell which they were: they stay.
    """
    made: Resource = duplicate(resource)
    present = _by_path(made, (new,))
    for path, were in where.items():
        elements = present.get(path, [])
        if len(elements) == len(were) or (len(elements) < len(were) and all(were)):
            for element, was in zip(elements, were, strict=False):
                if was:
                    element["reference"] = str(old)
    return made


def _by_path(resource: Resource, to: tuple[Target, ...]) -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for path, element in walk(resource, ""):
        if target(element) in to:
            found.setdefault(_INDEX.sub("", path), []).append(element)
    return found


def move(unit: UnitOfWork, resources: Iterable[Resource], old: Target, new: Target) -> list[Resource]:
    """Stage these resources with every reference to `old` as one to `new`; they are all that hang together."""
    made = [redirected(resource, old, new) for resource in resources]
    for resource in made:
        unit.redirect(resource)
    return made


async def _require_linked(unit: UnitOfWork, old: Target, new: Target) -> None:
    for record, other in ((old, new), (new, old)):
        links = (await unit.read(*record) or {}).get("link", ())
        if any(link.get("type") == "replaced-by" and target(link.get("other")) == other for link in links):
            return
    raise ValueError(f"neither of {old} and {new} replaces the other")


def redirected(element: T, old: Target, new: Target) -> T:
    """A copy in which every reference to `old`, or to a version of it, is one to `new`."""

    def copy(value: Any) -> Any:
        if isinstance(value, dict):
            made = {k: copy(v) if isinstance(v, (dict, list)) else v for k, v in value.items()}
            if target(value.get("reference")) == old:
                made["reference"] = str(new)
            return made
        return [copy(v) if isinstance(v, (dict, list)) else v for v in value] if isinstance(value, list) else value

    made: T = copy(element)
    return made
