"""Merging two records of one patient: the survivor takes the place of the prior one, and everything follows (IHE RAD-12, A40).

One transaction where the prior record has at most PORTION resources. Where there are more, the first transaction links the
records, redirects what is worked on (steps, orders, bookings; the newest first) and notes in the collection `merges` what is
under way; the rest follows in portions, each a transaction of its own. Whatever ends in between, the next start goes on with it.

    merges       {_id: id of the prior Patient, into: id of the survivor, state: under-way | done, learned: [...identifiers], at}
    merge_moves  {merge: id of the prior Patient, moved: "Task/1", places: [{path, were}]}, so that a merge can be taken back:
                 which of the references to the two records in each place were to the prior one (`redirection.Places`)
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import structlog
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.background import beside
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError, fail
from fhir_server.redirection import Places, places, redirect, restore
from fhir_server.references import Target, ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.identifiers import same
from resources.patient import merged_into
from resources.security_labels import labelled
from smart_auth.access import Access

log = structlog.get_logger()

MERGES = "merges"
MOVES = "merge_moves"
PORTION = 250
# What is worked on comes first: should there be more than a portion, nobody waits for the rest. What is denied of one record is
# denied of both meanwhile (`smart_auth/circumstances.py` looks at `merges`).
_FIRST = ("Task", "ServiceRequest", "Appointment", "Procedure", "ImagingStudy", "Encounter", "DiagnosticReport")
_LARGEST_UNDONE = 5_000
_ACCESS = Access.system("merge")
_ACT = Act("merge", source="v2")


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[MERGES].create_indexes([IndexModel([("state", 1)])])
    await db[MOVES].create_indexes([IndexModel([("merge", 1)])])


async def merge(unit: UnitOfWork, survivor: Resource, prior: Resource, retired: Iterable[Resource]) -> bool:
    """Let `survivor` take the place of `prior`; whether there is more to do than one transaction holds (`finish`).

    The survivor gets all identifiers of the prior record: with use `old` those that are `retired`, and those under an authority
    by which it has one itself. It also gets its security labels.
    """
    learned = _learned(survivor, prior, list(retired))
    link = {"other": ref(prior), "type": "replaces"}
    told = _with(labelled(survivor, prior), "identifier", [*survivor.get("identifier", ()), *learned])
    await unit.update(_with(told, "link", [*survivor.get("link", ()), link]))
    replaced = {"other": ref(survivor), "type": "replaced-by"}
    with unit.as_department():
        await unit.update(prior | {"active": False, "link": [*prior.get("link", ()), replaced]})
    row = {"_id": prior["id"], "into": survivor["id"], "state": "under-way", "learned": learned, "at": clock.naive(unit.now)}
    await unit.db[MERGES].replace_one({"_id": prior["id"]}, row, upsert=True, session=unit.session)
    return await _move(unit, prior["id"], survivor["id"])


def _learned(survivor: Resource, prior: Resource, retired: list[Resource]) -> list[Resource]:
    own = survivor.get("identifier", [])
    authorities = {i.get("system") for i in own if i.get("use") != "old" and i.get("system")}
    found: list[Resource] = []
    for identifier in [*prior.get("identifier", ()), *retired]:
        if any(same(identifier, known) for known in (*own, *found)):
            continue
        old = identifier.get("system") in authorities or any(same(identifier, i) for i in retired)
        found.append(identifier | {"use": "old"} if old else identifier)
    return found


async def _move(unit: UnitOfWork, prior: str, survivor: str) -> bool:
    """Redirect the next portion; whether there is more."""
    moved = await redirect(unit, Target("Patient", prior), Target("Patient", survivor), first=_FIRST, limit=PORTION)
    more = len(moved) == PORTION
    merges = unit.db[MERGES]
    if moved:
        rows = [{"merge": prior, "moved": reference, "places": _kept(where)} for reference, where in moved]
        await unit.db[MOVES].insert_many(rows, session=unit.session)
        # The survivor may have been merged in its turn: then these must follow it there.
        again = {"$set": {"state": "under-way"}}
        follows = await merges.update_one({"_id": survivor, "state": "done"}, again, session=unit.session)
        more = more or follows.modified_count > 0
    if len(moved) < PORTION:
        await merges.update_one({"_id": prior}, {"$set": {"state": "done"}}, session=unit.session)
    return more


async def sweep(unit: UnitOfWork, prior: Resource) -> bool:
    """For a merge that is asked for again: bring along what has come to the prior record since. Whether there is more."""
    row = await unit.db[MERGES].find_one({"_id": prior["id"]}, session=unit.session)
    return await _move(unit, prior["id"], row["into"]) if row else False


async def finish(interactions: Interactions) -> None:
    """Bring every merge that is under way to its end."""
    merges = interactions.store.db[MERGES]
    while row := await merges.find_one({"state": "under-way"}):

        async def portion(unit: UnitOfWork, prior: str = row["_id"]) -> bool:
            row = await unit.db[MERGES].find_one({"_id": prior, "state": "under-way"}, session=unit.session)
            return await _move(unit, prior, row["into"]) if row else False

        while await interactions.transact(_ACCESS, _ACT, portion):
            pass


@contextlib.asynccontextmanager
async def finishing(interactions: Interactions, every: float = 30.0) -> Any:
    """While this lasts, merges that were left under way (by an end of a process, or of the database) are gone on with."""
    async with beside(_keep_finishing(interactions, every)):
        yield


async def _keep_finishing(interactions: Interactions, every: float) -> None:
    while True:
        try:
            await finish(interactions)
        except (FhirError, PyMongoError) as error:
            log.warning("a merge of patients could not be finished now", reason=type(error).__name__)
        await asyncio.sleep(every)


async def unmerge(unit: UnitOfWork, prior: Resource) -> Resource:
    """Take a merge back: what came with the prior record goes back to it, as far as it is still the survivor's.

    What was the survivor's before, and what was made since, stays with it; people must see to the latter. So does what can't
    be told apart (`redirection.restore`). A link that a system wrote moved nothing, and is taken away.
    The prior record as it is now.
    FhirError `business-rule` when it wasn't merged, or the survivor was merged in its turn (that is to be taken back first).
    """
    survivor = await unit.get(merged_into(prior))
    if survivor is None:
        raise fail("business-rule", "this record was not merged into another", "Patient.link")
    written: dict[str, Any] = {"state": "done", "learned": []}
    row = await unit.db[MERGES].find_one({"_id": prior["id"], "into": survivor["id"]}, session=unit.session) or written
    if merged_into(survivor):
        raise fail("business-rule", "the record that it was merged into was merged itself: take that back first", "Patient.link")
    if row["state"] != "done":
        raise fail("conflict", "the merge is under way", "Patient.link")
    # The last first: a resource that came to refer to the prior record anew was moved again.
    found = unit.db[MOVES].find({"merge": prior["id"]}, sort=[("_id", -1)], limit=_LARGEST_UNDONE + 1, session=unit.session)
    moves = await found.to_list()
    if len(moves) > _LARGEST_UNDONE:
        raise fail("too-costly", f"more than {_LARGEST_UNDONE} resources would have to be moved back", "Patient.link")
    old, new = Target("Patient", prior["id"]), Target("Patient", survivor["id"])
    await restore(unit, [(move["moved"], await _places(unit, move, old, new)) for move in moves], old, new)
    kept = [i for i in survivor.get("identifier", ()) if not _is_learned(i, row["learned"])]
    await unit.update(_linked(_with(survivor, "identifier", kept), without=f"Patient/{prior['id']}"))
    await unit.db[MOVES].delete_many({"merge": prior["id"]}, session=unit.session)
    await unit.db[MERGES].delete_one({"_id": prior["id"]}, session=unit.session)
    with unit.as_department():
        return await unit.update(_linked(prior | {"active": True}, without=f"Patient/{survivor['id']}"))


def _kept(where: Places) -> list[dict[str, Any]]:
    return [{"path": path, "were": were} for path, were in where.items()]


async def _places(unit: UnitOfWork, move: dict[str, Any], old: Target, new: Target) -> Places:
    """Where a resource was redirected. Merges of before that was kept left it to the history: the last version of the old one."""
    if "places" in move:
        return {place["path"]: place["were"] for place in move["places"]}
    was = (places(version, old, new) for version in reversed(await unit.earlier(*move["moved"].split("/"))))
    return next(filter(None, was), {})


def _is_learned(identifier: Resource, learned: list[Resource]) -> bool:
    """Whether an identifier came with the prior record. It may have learned its type or OID since."""
    return identifier in learned or any(same(identifier, other) for other in learned)


def _linked(patient: Resource, without: str) -> Resource:
    links = [link for link in patient.get("link", ()) if link["other"].get("reference") != without]
    return _with(patient, "link", links)


def _with(patient: Resource, element: str, values: list[Resource]) -> Resource:
    """The patient with these values of an element; without it where there are none."""
    rest = {k: v for k, v in patient.items() if k != element}
    return rest | ({element: values} if values else {})
