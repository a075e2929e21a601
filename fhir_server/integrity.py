"""Referential integrity: local references resolve, and what is referred to is not deleted (RIS_REFERENTIAL_INTEGRITY=strict).

MongoDB's transactions see a snapshot each, so one that refers to a resource and one that deletes it at the very same moment would
not see one another. They are made to meet: whoever refers writes one of a few lock documents of the target, whoever deletes
writes them all. Those who merely refer take turns with them, and processes use different ones while they are few: a popular
patient makes nobody wait.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.references import Target, conditional, named_version, target, walk

if TYPE_CHECKING:
    from fhir_server.unit_of_work import UnitOfWork

# References inside these lead to what is in them, or elsewhere.
_CARRIERS = frozenset({"Bundle"})
_SLOTS = 4


async def check(unit: "UnitOfWork", *, strict: bool) -> None:
    """Refuse what this transaction may not refer to or delete. FhirError 422, or `conflict` (409) for a deletion.

    References that were there before are left alone, so that a resource with a bad one can still be changed.
    """
    wanted: dict[Target, list[str]] = {}
    versions: dict[tuple[Target, str], list[str]] = {}
    links: set[tuple[str, str]] = set()
    deleted: list[Target] = []
    issues: list[Issue] = []
    for change in unit.changes():
        to = Target(change.type, change.id)
        if change.after is None:
            deleted.append(to)
        elif change.type not in _CARRIERS:
            known = {element["reference"] for _, element in walk(change.before, "")}
            for path, element in walk(change.after, unit.places.get(to, to.type)):
                if element["reference"] in known:
                    continue
                if (pointed_at := target(element)) is not None:
                    wanted.setdefault(pointed_at, []).append(path)
                    if number := named_version(element["reference"]):
                        versions.setdefault((pointed_at, number), []).append(path)
                    links.add((change.type, pointed_at.type))
                elif conditional(element):
                    issues.append(Issue("not-supported", "conditional references are resolved in transactions only", path))
    await unit.note_links(links)  # before the locks: who deletes one of these afterwards must know where to look
    # Whose records belong together is settled by the same locks (`redirection.py`), however references are checked.
    meeting = wanted if strict else [to for to in wanted if to.type == "Patient"]
    if meeting or deleted:
        turn = 2 * await unit.process_number() + unit.place_in_process
        await unit.lock(*_locks(unit, meeting, deleted if strict else [], turn))
        await unit.take_locks()
    if strict:
        gone = await unit.missing(wanted)
        issues += [Issue("value", f"{to} does not exist", path) for to in wanted if to in gone for path in wanted[to]]
        for to, number in await unit.missing_versions(key for key in versions if key[0] not in gone):
            text = f"{to} has no version {number}"
            issues += [Issue("value", text, path) for path in versions[to, number]]
    if issues:
        raise FhirError(*issues, status=422)
    if strict:
        await _refuse_if_referred_to(unit, deleted)


def _locks(unit: "UnitOfWork", wanted: Iterable[Target], deleted: Iterable[Target], turn: int) -> list[str]:
    """One lock of each resource that is referred to (those of this transaction are nobody else's yet), all of one deleted."""
    mine = [f"{to}/{turn % _SLOTS}" for to in wanted if not unit.is_new(to)]
    return mine + [f"{to}/{slot}" for to in deleted for slot in range(_SLOTS)]


async def hold(unit: "UnitOfWork", *targets: Target) -> None:
    """Until the end of this transaction nobody else refers anew to these, or has done so without our seeing it."""
    await unit.lock(*_locks(unit, [], targets, 0))
    await unit.take_locks()


async def _refuse_if_referred_to(unit: "UnitOfWork", deleted: list[Target]) -> None:
    if deleted and (found := await unit.referrer(deleted)):
        to, by = found
        raise fail("conflict", f"{to} can't be deleted: {by} refers to it", unit.places.get(to, to.type))
