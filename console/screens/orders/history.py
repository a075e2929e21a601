"""What was decided on an order, by whom, when and why: from its versions, and its work items that are over."""

from collections.abc import Iterable
from dataclasses import dataclass

from console.asking import Found
from console.formats import NONE, concept
from console.screens.orders.facts import decision, kind, name_of, people
from console.visit import Visit
from fhir_server.elements import codes, extension
from fhir_server.registry import Resource
from resources import status_reason
from resources.coverage import marks
from resources.order_verdict import FINDING


@dataclass(frozen=True, slots=True)
class Decided:
    """A line: when, what (a status of the order, `overridden`, or the kind of a work item that was settled), who, why."""

    at: str
    what: str
    of: str  # order, override or item
    by: str
    reason: str


async def decided(visit: Visit, order: Resource, items: Iterable[Resource]) -> list[Decided]:
    """The newest first."""
    bundle = (await visit.desk.ask("GET", f"ServiceRequest/{order['id']}/_history", query=[("_count", "100")])).resource
    versions = [e["resource"] for e in (bundle or {}).get("entry", ()) if "resource" in e]
    versions.sort(key=lambda v: int(v["meta"]["versionId"]))
    closed = [i for i in items if i["status"] not in {"requested", "received"} and not codes(i.get("statusReason"), FINDING)]
    settlers = [n["authorReference"] for i in closed for n in i.get("note", ()) if "authorReference" in n]
    known = await people(visit, [*_named(versions), *settlers])
    lines = [*_statuses(versions, known), *_overrides(versions, known), *_items(closed, versions, known)]
    return sorted(lines, key=lambda line: line.at, reverse=True)


def _named(versions: list[Resource]) -> list[Resource]:
    by = [d[0] for v in versions if (d := decision(v))]
    return [*by, *(b for v in versions if (b := _override(v).get("by", {}).get("valueReference")))]


def _statuses(versions: list[Resource], known: Found) -> list[Decided]:
    lines: list[Decided] = []
    before: Resource = {}
    for version in versions:
        if version["status"] != before.get("status"):
            noted, why = decision(version), status_reason.of(version)
            new = noted if noted != decision(before) else None
            told = concept(why) if why and (new or why != status_reason.of(before)) else ""
            lines.append(
                Decided(version["meta"]["lastUpdated"], version["status"], "order", name_of(new[0], known) if new else "", told)
            )
        before = version
    return lines


def _overrides(versions: list[Resource], known: Found) -> list[Decided]:
    last = _override(versions[-1]) if versions else {}
    if not last:
        return []
    by, at, why = (last.get(name, {}) for name in ("by", "at", "reason"))
    who = name_of(by.get("valueReference"), known)
    return [Decided(at.get("valueInstant", ""), "overridden", "override", who, why.get("valueString", ""))]


def _override(version: Resource) -> dict[str, Resource]:
    """The parts of the mark of an override, by their names."""
    return {e["url"]: e for e in (extension(version, marks.OVERRIDE) or {}).get("extension", ())}


def _items(closed: Iterable[Resource], versions: list[Resource], known: Found) -> list[Decided]:
    """What was settled by a decision on the order, was so by whom the order then names; what else, says so itself."""
    lines: list[Decided] = []
    deciders = {d[1]: d[0] for v in versions if (d := decision(v))}
    for item in closed:
        at, why = item["meta"]["lastUpdated"], concept(item.get("statusReason"))
        note: Resource = next((n for n in reversed(item.get("note", [])) if "authorReference" in n or "authorString" in n), {})
        who = name_of(note.get("authorReference") or deciders.get(at), known) or str(note.get("authorString", ""))
        if why != NONE:
            lines.append(Decided(at, kind(item), "item", who, why))
    return lines


async def first(visit: Visit, order: Resource) -> tuple[str, str]:
    """Who decided on an order last, and when; ("", "") where that isn't known."""
    noted = decision(order)
    if noted is None:
        return "", ""
    return name_of(noted[0], await people(visit, [noted[0]])), noted[1]
