"""One row for each examination (requested procedure): when it reached which milestone, and what it is counted by.

Written in the transaction that changes one of the resources that it is made of, like the worklist's rows; nothing of a patient is
in it. Collection `exam_milestones`:

    {_id: id of the requested procedure,
     parts: [{of: "Task/1", kind: "step", ...}],   what each resource says (`milestones.py`); `of` finds the row when it changes
     ordered: date, accepted: date, ...,           the milestones reached, UTC; `cancelled`
     times: 48 bytes,                              the same: twelve 32-bit seconds since 2000, little endian, `NEVER` for none
     runs: [{scanner, started, ended}],            how long which scanner was busy with it, each step that was begun and ended
     waiting: "read", since: date,                 what it waits for, and since when; not there when it is over
     modality, priority, scanner, code, technologist, reader, referrer}
"""

import struct
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from bson import Binary
from pymongo import IndexModel
from pymongo.asynchronous.database import AsyncDatabase

from resources import task
from resources.numbers.milestones import MILESTONES, Part

COLLECTION: Final = "exam_milestones"
DIMENSIONS: Final = ("modality", "priority", "scanner", "code", "technologist", "reader", "referrer")
NEVER: Final = -(2**31)
_EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - UTC without tzinfo, as MongoDB keeps it
_PACKED: Final = struct.Struct(f"<{len(MILESTONES)}i")
_OVER: Final = frozenset({"revoked", "entered-in-error"})


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    """A period is a range of one of these: of each milestone, of what scanners did, and of what waits."""
    dates = (*MILESTONES, "cancelled")
    partial = [IndexModel([(name, 1)], partialFilterExpression={name: {"$exists": True}}) for name in dates]
    waiting = IndexModel([("waiting", 1), ("since", 1)], partialFilterExpression={"waiting": {"$exists": True}})
    await db[COLLECTION].create_indexes([*partial, waiting, IndexModel([("parts.of", 1)]), IndexModel([("runs.ended", 1)])])


def row(id_: str, parts: Iterable[Part]) -> dict[str, Any]:
    """The row that these parts make, whatever order they come in."""
    kept = sorted(parts, key=lambda p: str(p["of"]))
    kinds: dict[str, list[Part]] = {}
    for one in kept:
        kinds.setdefault(one["kind"], []).append(one)
    made: dict[str, Any] = {"_id": id_, "parts": kept}
    procedure, orders = kinds.get("procedure", [{}])[0], kinds.get("order", [])
    if not procedure or any(p.get("status") == "entered-in-error" for p in (procedure, *orders)):
        return made
    steps = _counting(kinds.get("step", []))
    times = _times(kinds, procedure, orders, steps)
    made |= times | {"times": packed(times)}
    said = {
        "modality": _first(steps, "modality"),
        "priority": procedure["priority"],
        "scanner": _first(steps, "scanner"),
        "code": procedure.get("code"),
        "technologist": _first(kinds.get("performed", []), "technologist"),
        "reader": _first(kinds.get("report", []), "reader") or _first(kinds.get("reading", []), "reader"),
        "referrer": _first(orders, "referrer") or procedure.get("referrer"),
    }
    made |= {name: value for name, value in said.items() if value is not None}
    ran = [s for s in kinds.get("step", []) if {"scanner", "started", "ended"} <= s.keys()]
    if ran:
        made["runs"] = [{k: s[k] for k in ("scanner", "started", "ended")} for s in ran]
    return made | _waiting(times, procedure, orders, steps)


def packed(times: dict[str, datetime]) -> Binary:
    """Milestones as seconds in 48 bytes: a year of them is sent to us in one go. One before 1932 or after 2068 is as these."""
    return Binary(_PACKED.pack(*(_seconds(times[m]) if m in times else NEVER for m in MILESTONES)))


def _seconds(at: datetime) -> int:
    return max(NEVER + 1, min(int((at - _EPOCH).total_seconds()), -(NEVER + 1)))


def _counting(steps: list[Part]) -> list[Part]:
    """The steps that tell of the examination: those that go on or were done; else those stopped; else those cancelled."""
    good = [s for s in steps if s["status"] not in {"failed", "cancelled", "rejected"}]
    return good or [s for s in steps if s["status"] == "failed"] or steps


def _times(kinds: dict[str, list[Part]], procedure: Part, orders: list[Part], steps: list[Part]) -> dict[str, datetime]:
    requests = orders or [procedure]
    statuses = {s["status"] for s in steps}
    over = "completed" in statuses and not statuses & task.OPEN
    readings = [r for r in kinds.get("reading", []) if r.get("status") != "cancelled"]
    reports = kinds.get("report", [])
    found = {
        "ordered": _earliest(requests, "ordered"),
        "accepted": _earliest(requests, "accepted"),
        "scheduled": _earliest(steps, "scheduled"),
        "arrived": _earliest(steps, "arrived"),
        "started": _earliest(steps, "started"),
        "ended": max((s["ended"] for s in steps if "ended" in s), default=None) if over else None,
        "images": _earliest(kinds.get("study", []), "images"),
        "claimed": _earliest(readings, "claimed"),
        "preliminary": _earliest(reports, "preliminary"),
        "final": _earliest(reports, "final"),
        "cancelled": procedure.get("cancelled"),
    }
    sent = [m for p in kinds.get("sent", []) for m in p["messages"]]
    signed = _earliest(reports, "signed")
    if signed is not None:
        found["delivered"] = min((m["delivered"] for m in sent if _tells_of(m, "ORU", signed)), default=None)
    billed = [m["delivered"] for m in sent if m["type"].startswith("DFT")]
    charged = [c["charged"] for c in kinds.get("charge", [])]
    found["charged"] = min([*billed, *charged], default=None)
    return {name: at for name, at in found.items() if at is not None}


def _tells_of(message: dict[str, Any], kind: str, since: datetime) -> bool:
    """Whether a message that was delivered is of this kind, and was made since."""
    return bool(message["type"].startswith(kind) and message["created"] >= since)


def _waiting(times: dict[str, datetime], procedure: Part, orders: list[Part], steps: list[Part]) -> dict[str, Any]:
    """What an examination waits for: the work that is next, and since when it could be done."""
    if any(p.get("status") in _OVER for p in (procedure, *orders)) or "final" in times:
        return {}
    if "ended" in times:
        return {"waiting": "signature" if "preliminary" in times else "reading", "since": times["ended"]}
    statuses = {s["status"] for s in steps}
    if "in-progress" in statuses:
        waits, since = "end", times.get("started")
    elif procedure.get("status") == "on-hold" or statuses == {"on-hold"}:
        waits, since = "release", times.get("ordered")
    elif "ready" in statuses:
        waits, since = "start", times.get("arrived")
    elif "accepted" in statuses:
        waits, since = "arrival", times.get("scheduled")
    else:
        waits, since = "booking", times.get("accepted") or times.get("ordered")
    return {"waiting": waits, "since": since or times["ordered"]}


def _earliest(parts: Iterable[Part], name: str) -> datetime | None:
    return min((p[name] for p in parts if name in p), default=None)


def _first(parts: Iterable[Part], name: str) -> str | None:
    return next((p[name] for p in parts if name in p), None)
