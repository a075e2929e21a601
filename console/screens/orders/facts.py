"""What the pages say of an order: its numbers, who ordered it and when, what was found about it."""

from collections.abc import Iterable
from dataclasses import dataclass

from console.asking import Found
from console.formats import NONE, concept, human_name
from console.visit import Visit
from fhir_server.elements import codes, extension
from fhir_server.registry import Resource
from resources import status_reason, terms
from resources.coverage import marks
from resources.device import name as device_name
from resources.order_verdict import FINDING
from resources.task import OPEN

OPEN_STATUSES = ",".join(sorted(OPEN))


@dataclass(frozen=True, slots=True)
class Finding:
    """What validation found about an order: its kind, in words, and the work item that tells of it."""

    kind: str
    text: str
    item: str


@dataclass(frozen=True, slots=True)
class Row:
    """An order in a list. `version` is what the page shows; `patient` is None where it may not be seen; `why` it is on hold."""

    id: str
    version: str
    status: str
    priority: str
    examination: Resource | None
    patient: Resource | None
    reason: str
    why: str
    by: str
    wanted: str | None
    since: str
    findings: list[Finding]


def row(order: Resource, found: Found, items: Iterable[Resource] = ()) -> Row:
    """An order and what came with it. `items`: work items about it."""
    return Row(
        order["id"],
        order["meta"]["versionId"],
        order["status"],
        order.get("priority", "routine"),
        order.get("code"),
        found.of(order.get("subject")),
        reason(order),
        concept(status_reason.of(order)) if order["status"] == "on-hold" and status_reason.of(order) else "",
        name_of(order.get("requester"), found),
        wanted(order),
        order["meta"]["lastUpdated"],
        findings(items),
    )


def findings(items: Iterable[Resource]) -> list[Finding]:
    """What open work items say that was found."""
    told = ((i, c.get("valueCodeableConcept", {})) for i in items if i["status"] in OPEN for c in i.get("input", ()))
    return [Finding(kind, what.get("text", ""), item["id"]) for item, what in told for kind in codes(what, FINDING)]


def reason(request: Resource) -> str:
    """Why it was ordered, in a line."""
    told = [concept(c) for c in request.get("reasonCode", ())]
    told += [str(r["display"]) for r in request.get("reasonReference", ()) if "display" in r]
    return "; ".join(told)


def wanted(request: Resource) -> str | None:
    """When it is to be done, if anybody has said so."""
    found = request.get("occurrenceDateTime") or request.get("occurrencePeriod", {}).get("start")
    return str(found) if found else None


def name_of(reference: Resource | None, found: Found) -> str:
    """What somebody, or something, that a Reference leads to is called."""
    resource = found.of(reference)
    if resource is not None:
        name = resource.get("name")
        called = name if isinstance(name, str) else human_name(resource)
        called = called if called != NONE else device_name(resource)
        if called:
            return called
    return str((reference or {}).get("display") or "")


def kind(item: Resource) -> str:
    """The kind of a work item, such as `patient-mismatch`."""
    return next(iter(codes(item.get("code"), terms.TASK_CODE)), "")


def decision(order: Resource) -> tuple[Resource, str] | None:
    """Who decided on an order last (a Reference), and when."""
    noted = extension(order, marks.DECISION)
    by, at = (extension(noted, name) or {} for name in ("by", "at")) if noted else ({}, {})
    return (by["valueReference"], at["valueInstant"]) if by and at else None


async def people(visit: Visit, references: Iterable[Resource]) -> Found:
    """The Practitioners that are referred to, to call them by their names."""
    ids = {str(r["reference"]).partition("/")[2] for r in references if str(r.get("reference", "")).startswith("Practitioner/")}
    if not ids or not visit.can("Practitioner.s"):
        return Found([])
    return await visit.desk.search("Practitioner", _id=",".join(sorted(ids)))
