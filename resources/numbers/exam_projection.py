"""Keeps the rows of the examinations in line with the resources: on every change, and anew for all of them.

What a resource says is read from all its versions each time, and a row is made of such parts alone: so it can't drift, and a
rebuilt row is the same.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from pymongo import DeleteOne, ReplaceOne

from fhir_server import outbox
from fhir_server.audit import Act
from fhir_server.foresight import Lookup
from fhir_server.interactions import Interactions
from fhir_server.references import target
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, service_request
from resources.numbers import milestones
from resources.numbers.exam_rows import COLLECTION, row
from resources.numbers.milestones import Part
from smart_auth.access import Access

Rows = dict[str, dict[str, Part]]  # id of the requested procedure -> "Task/1" -> what it says
_PORTION: Final = 50
_ACCESS: Final = Access.system("numbers")
_ACT: Final = Act("numbers", source="command-line", detail="rebuild")


async def project(unit: UnitOfWork, changes: list[Change]) -> None:
    """The projection. Changes that no figure depends on cost no access to the database."""
    ours = [c for c in changes if c.type in milestones.TYPES and not c.redirected and _concerns(c)]
    if not ours:
        return
    requests = [c for c in ours if c.type == "ServiceRequest"]
    await _lock(unit, requests)
    rows = await _stored(unit, {f"{c.type}/{c.id}" for c in ours if c.before is not None})
    anew = await _to_gather(unit, ours, rows)
    for change in ours:
        await _apply(unit, change, rows, anew)
    for id_ in anew:
        rows[id_] = await _gather(unit, id_)
    _write(unit, rows)


async def note_deliveries(unit: UnitOfWork, messages: Iterable[Resource]) -> None:
    """Messages of the outbox were delivered in this transaction: reports and charges have reached their receivers."""
    about = {a for m in messages if m["type"].startswith(("ORU", "DFT")) for a in m["about"] if a.startswith("ServiceRequest/")}
    rows = await _stored(unit, about) if about else {}
    for parts in rows.values():
        await _note_sent(unit, parts)
    _write(unit, rows)


async def rebuild(interactions: Interactions) -> AsyncIterator[int]:
    """Make all rows anew; yields how many are made so far. May run beside everything else."""
    db, done, last = interactions.store.db, 0, ""
    while True:
        at_hand = db["ServiceRequest"].find({"_id": {"$gt": last}}, {"resource.intent": 1}, sort=[("_id", 1)], limit=1000)
        found = await at_hand.to_list()
        if not found:
            break
        last = found[-1]["_id"]
        ids = [d["_id"] for d in found if d["resource"].get("intent") == "filler-order"]
        for start in range(0, len(ids), _PORTION):
            await _rebuilt(interactions, ids[start : start + _PORTION])
            done += len(ids[start : start + _PORTION])
            yield done
    await _drop_orphans(interactions)


async def _rebuilt(interactions: Interactions, ids: list[str]) -> None:
    async def work(unit: UnitOfWork) -> None:
        _write(unit, {id_: await _gather(unit, id_) for id_ in ids})

    await interactions.transact(_ACCESS, _ACT, work)


async def _drop_orphans(interactions: Interactions) -> None:
    """Rows whose requested procedure is gone."""
    db = interactions.store.db
    ids = [found["_id"] async for found in db[COLLECTION].find({}, {"_id": 1})]
    for start in range(0, len(ids), 1000):
        some = ids[start : start + 1000]
        there = {d["_id"] async for d in db["ServiceRequest"].find({"_id": {"$in": some}}, {"_id": 1})}
        if gone := [i for i in some if i not in there]:
            await db[COLLECTION].delete_many({"_id": {"$in": gone}})


# One change


def _concerns(change: Change) -> bool:
    """Whether a change may be of an examination. Of Tasks, many are not."""
    if change.type != "Task":
        return True
    return any(r is not None and milestones.is_ours(r) for r in (change.before, change.after))


async def _lock(unit: UnitOfWork, requests: list[Change]) -> None:
    """An order that changes while another transaction adds a procedure to it: each must see the other."""
    orders = {c.id for c in requests if c.before is not None and service_request.is_order(c.before)}
    for change in requests:
        if change.before is None and change.after and service_request.is_procedure(change.after):
            orders |= {i for i in _requests(change.after.get("basedOn", ())) if not _is_made_here(requests, i)}
    if orders:
        await unit.lock(*(f"numbers:{id_}" for id_ in sorted(orders)))


def _is_made_here(changes: list[Change], order_id: str) -> bool:
    return any(c.type == "ServiceRequest" and c.id == order_id and c.before is None for c in changes)


async def _to_gather(unit: UnitOfWork, ours: list[Change], rows: Rows) -> set[str]:
    """The examinations whose row is to be made of everything: more than the changes themselves decides what belongs to them."""
    anew: set[str] = set()
    for change in ours:
        if change.type == "ServiceRequest" and change.after and service_request.is_procedure(change.after):
            orders = _requests(change.after.get("basedOn", ()))
            joins = change.before is None and not all(_is_made_here(ours, i) for i in orders)
            moves = change.before is not None and orders != _requests(change.before.get("basedOn", ()))
            if joins or moves or (change.before is not None and change.id not in rows):
                anew.add(change.id)
        elif change.type == "ImagingStudy" and change.before is not None:
            was, now = (_requests((r or {}).get("basedOn", ())) for r in (change.before, change.after))
            anew |= {*was, *now} if was != now else set()
    return {id_ for id_ in anew if await _is_exam(unit, id_)}


async def _apply(unit: UnitOfWork, change: Change, rows: Rows, anew: set[str]) -> None:
    key = f"{change.type}/{change.id}"
    after = change.after
    if change.type == "ServiceRequest" and after is not None and service_request.is_order(after):
        belongs = {id_ for id_, parts in rows.items() if key in parts}
    else:
        belongs = await _exams(unit, after) if after is not None else set()
    said = await _part(unit, after) if after is not None and belongs else None
    for id_, parts in rows.items():
        if id_ not in belongs or said is None:
            parts.pop(key, None)
    if said is None:
        return
    for id_ in belongs - anew:
        if id_ not in rows:
            new = _is_new(unit, id_)
            stored = None if new else await _row(unit, id_)
            if stored is None and not new:
                anew.add(id_)
                continue
            rows[id_] = stored or {}
        rows[id_][key] = said
        if said["kind"] == "procedure":
            await _add_orders(unit, after or {}, rows[id_])


def _is_new(unit: UnitOfWork, procedure_id: str) -> bool:
    """Whether the request that is being done makes it: another one that shares the transaction may have made its row."""
    return any(c.type == "ServiceRequest" and c.id == procedure_id and c.before is None for c in unit.changes(unit.part))


async def _part(unit: UnitOfWork, resource: Resource) -> Part | None:
    return milestones.part([*await unit.earlier(resource["resourceType"], resource["id"]), resource])


async def _add_orders(unit: UnitOfWork, procedure: Resource, parts: dict[str, Part]) -> None:
    for id_ in _requests(procedure.get("basedOn", ())):
        order = await unit.read("ServiceRequest", id_)
        if order is not None and (said := await _part_now(unit, order)) is not None:
            parts[said["of"]] = said


async def _part_now(unit: UnitOfWork, resource: Resource) -> Part | None:
    """What a resource says, whether this transaction changes it or not."""
    earlier = await unit.earlier(resource["resourceType"], resource["id"])
    changed = not earlier or earlier[-1]["meta"]["versionId"] != resource["meta"]["versionId"]
    return milestones.part([*earlier, resource] if changed else earlier)


# Which examinations a resource tells of


async def _exams(unit: UnitOfWork, resource: Resource) -> set[str]:
    """The ids of the requested procedures."""
    kind = resource["resourceType"]
    if kind == "ServiceRequest":
        return {resource["id"]} if service_request.is_procedure(resource) else set()
    if kind == "DiagnosticReport":
        return {p["id"] for p in await diagnostic_report.signed_for(unit, resource)}
    if kind == "Task" and resource.get("intent") == "plan":
        references = [resource.get("focus", {})]
    else:
        references = resource.get("supportingInformation" if kind == "ChargeItem" else "basedOn", [])
    return {id_ for id_ in _requests(references) if await _is_exam(unit, id_)}


async def _is_exam(unit: UnitOfWork, id_: str) -> bool:
    found = await unit.read("ServiceRequest", id_)
    return found is not None and service_request.is_procedure(found)


def _requests(references: Iterable[Resource]) -> list[str]:
    return [to.id for r in references if (to := target(r)) is not None and to.type == "ServiceRequest"]


# Whole rows


async def _gather(unit: UnitOfWork, id_: str) -> dict[str, Part]:
    """All that belongs to an examination."""
    procedure = await unit.read("ServiceRequest", id_)
    if procedure is None or not service_request.is_procedure(procedure):
        return {}
    candidates = await _referring(unit, f"ServiceRequest/{id_}", milestones.TYPES - {"ServiceRequest"})
    for order_id in _requests(procedure.get("basedOn", ())):
        candidates += await _referring(unit, f"ServiceRequest/{order_id}", {"DiagnosticReport"})
    for study in [c for c in candidates if c["resourceType"] == "ImagingStudy"]:
        candidates += await _referring(unit, f"ImagingStudy/{study['id']}", {"DiagnosticReport"})
    parts: dict[str, Part] = {}
    for resource in (procedure, *candidates):
        key = f"{resource['resourceType']}/{resource['id']}"
        if key not in parts and id_ in await _exams(unit, resource) and (said := await _part_now(unit, resource)):
            parts[key] = said
    await _add_orders(unit, procedure, parts)
    await _note_sent(unit, parts)
    return parts


async def _referring(unit: UnitOfWork, to: str, types: Iterable[str]) -> list[Resource]:
    """The resources of these types that refer to one, own writes included."""
    await unit.flush()
    found: list[Resource] = []
    for kind in sorted(types):
        cursor = unit.db[kind].find({"search.t": f">{to}"}, {"_id": 1}, session=unit.session)
        found += [r for d in await cursor.to_list() if (r := await unit.read(kind, d["_id"])) is not None]
    return found


async def _note_sent(unit: UnitOfWork, parts: dict[str, Part]) -> None:
    """The part of the outbox: the reports and charges that were delivered, of the examination and of its order."""
    about = sorted(key for key, p in parts.items() if p["kind"] in {"procedure", "order"})
    where = {"about": {"$in": about}, "delivered": {"$exists": True}, "type": {"$in": ["ORU^R01", "DFT^P03"]}}
    told = {"_id": 0, "type": 1, "created": 1, "delivered": 1}
    found = await unit.db[outbox.COLLECTION].find(where, told, session=unit.session).to_list()
    parts.pop("outbox", None)
    if found:
        messages = sorted(found, key=lambda m: (m["created"], m["delivered"], m["type"]))
        parts["outbox"] = {"of": "outbox", "kind": "sent", "messages": messages}


# Storage


async def _stored(unit: UnitOfWork, keys: set[str]) -> Rows:
    """The rows that are made of one of these."""
    if not keys:
        return {}
    await unit.flush_rows(COLLECTION)
    return {d["_id"]: {p["of"]: p for p in d["parts"]} for d in await unit.beside(asked(keys))}


def asked(keys: Iterable[str]) -> Lookup:
    """The rows that are made of these ("Task/1"): what a change of them will ask for, for `View.foresee`."""
    return Lookup(COLLECTION, {"parts.of": {"$in": sorted(keys)}})


async def _row(unit: UnitOfWork, id_: str) -> dict[str, Part] | None:
    await unit.flush_rows(COLLECTION)
    found = await unit.db[COLLECTION].find_one({"_id": id_}, {"parts": 1}, session=unit.session)
    return {p["of"]: p for p in found["parts"]} if found else None


def _write(unit: UnitOfWork, rows: Rows) -> None:
    writes: list[ReplaceOne[dict[str, Any]] | DeleteOne] = []
    for id_, parts in rows.items():
        there = f"ServiceRequest/{id_}" in parts
        writes.append(ReplaceOne({"_id": id_}, row(id_, parts.values()), upsert=True) if there else DeleteOne({"_id": id_}))
    if writes:
        unit.put_rows(COLLECTION, writes)
