"""What a restricted caller may write: the resource, as it was and as it becomes, lies within its rights; so does what it names.

It is asked for each write of the caller itself, before the department's rules look at the resource, so that no refusal of theirs
tells of what the caller may not see. What follows from the write (rules, reactions) is the department's doing.
"""

import re
from typing import TYPE_CHECKING

from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target, target, walk
from fhir_server.registry import Resource
from smart_auth.access import Access
from smart_auth.scopes import Action

if TYPE_CHECKING:
    from fhir_server.unit_of_work import UnitOfWork

_INDEX = re.compile(r"\[[0-9]+\]")


async def of_write(unit: "UnitOfWork", to: Target, before: Resource | None, after: Resource) -> None:
    """FhirError `forbidden` (403) outside of the caller's rights; 422 for references to what isn't there for it."""
    require_within(unit.access, before, after)
    # What was named before may stay where it stood: elsewhere it may make the resource another patient's.
    known = {(_INDEX.sub("", path), element["reference"]) for path, element in walk(before, "")}
    place = unit.places.get(to, to.type)
    wanted: dict[Target, list[str]] = {}
    for path, element in walk(after, ""):
        if (_INDEX.sub("", path), element["reference"]) not in known and (pointed_at := target(element)) is not None:
            wanted.setdefault(pointed_at, []).append(place + path)
    by_type: dict[str, set[str]] = {}
    for pointed_at in wanted:
        if pointed_at != to:
            by_type.setdefault(pointed_at.type, set()).add(pointed_at.id)
    gone = {Target(t, i) for t, ids in by_type.items() for i in await unit.out_of_reach(t, ids)}
    # In the words of `integrity.check`, which says so of what isn't there for anybody.
    if issues := [Issue("value", f"{one} does not exist", path) for one in wanted if one in gone for path in wanted[one]]:
        raise FhirError(*issues, status=422)


def require_within(access: Access, before: Resource | None, after: Resource) -> None:
    """Refuse a write that leads out of the caller's rights, from within or from outside of them."""
    action: Action = "c" if before is None else "u"
    if not access.covers(after, action) or (before is not None and not access.covers(before, action)):
        raise _outside(after["resourceType"])
    if after["resourceType"] == "Patient" and access.keeps_links() and (before or {}).get("link") != after.get("link"):
        raise fail("forbidden", "whose records belong together is not for an app of one patient to say", "Patient.link")
    if before is not None and access.purpose and not _labels(before) <= _labels(after):
        raise fail(
            "forbidden", "security labels stay while a record is open in an emergency", f"{after['resourceType']}.meta.security"
        )


def _labels(resource: Resource) -> set[tuple[str | None, str | None]]:
    return {(label.get("system"), label.get("code")) for label in resource.get("meta", {}).get("security", ())}


def _outside(resource_type: str) -> FhirError:
    return fail("forbidden", f"this {resource_type} would be outside of what the access token may write", resource_type)
