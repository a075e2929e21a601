"""Who has seen an exam and who has done what to it: its AuditEvents, for those who may read these and nothing else of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource

KINDS: Final = ("seen", "called", "changed")
_MOST: Final = 300
_PARTS: Final = frozenset(
    "ServiceRequest Task Appointment Procedure ImagingStudy DiagnosticReport ChargeItem Observation Binary".split()
)
_MOST_PARTS: Final = 60


@dataclass(frozen=True, slots=True)
class Access:
    """One AuditEvent: who (and as what), what was done, to what. `kind`: one of KINDS; `action`: FHIR's code."""

    id: str
    at: datetime
    kind: str
    action: str
    event: str
    who: str
    role: str
    where: str
    refused: bool
    detail: str
    what: tuple[str, ...]


async def show(visit: Visit) -> Response:
    """The AuditEvents about the order and about what was made with it, newest first. FhirError 404 where there are none."""
    order = f"ServiceRequest/{visit.id()}"
    found = await _events(visit, [order])
    if not found:
        raise fail("not-found", "nothing is on record about such an exam")
    found |= await _events(visit, _made_with(order, found.values()))
    rows = sorted((_row(e) for e in found.values()), key=lambda r: (r.at, r.id), reverse=True)
    counts = {"": len(rows)} | {name: sum(r.kind == name for r in rows) for name in KINDS}
    kind = visit.asked("kind") if visit.asked("kind") in KINDS else ""
    shown = [r for r in rows if kind in ("", r.kind)][:_MOST]
    return visit.page("exam/trail.html", id=visit.id(), rows=shown, counts=counts, kind=kind, left_off=counts[kind] - len(shown))


async def _events(visit: Visit, about: list[str]) -> dict[str, Resource]:
    if not about:
        return {}
    found = await visit.desk.search("AuditEvent", entity=",".join(about), _sort="-date", _count=str(_MOST))
    return {e["id"]: e for e in found}


def _made_with(order: str, events: Iterable[Resource]) -> list[str]:
    """What was made in a transaction that changed the order: its procedures, steps, study, report."""
    made: dict[str, None] = {}
    for event in events:
        said = {e["what"]["reference"]: e.get("description") for e in event.get("entity", ()) if "reference" in e.get("what", {})}
        if said.get(order) in {"created", "updated"}:
            made |= {r: None for r, verb in said.items() if verb == "created" and r.partition("/")[0] in _PARTS and r != order}
    return list(made)[:_MOST_PARTS]


def _row(event: Resource) -> Access:
    agents: list[dict[str, Any]] = event.get("agent", [])
    person = next((a for a in agents if a.get("requestor")), agents[0] if agents else {})
    codes = [c.get("code", "") for r in person.get("role", ()) for c in r.get("coding", ())]
    where = next((a["network"]["address"] for a in agents if "network" in a), "")
    entities = [e["what"].get("reference", "") for e in event.get("entity", ()) if "what" in e]
    who = person.get("who", {})
    changed = {"created", "updated", "deleted"} & {e.get("description") for e in event.get("entity", ())}
    kind = "changed" if changed else "seen" if event.get("action") == "R" else "called"
    return Access(
        event["id"],
        datetime.fromisoformat(event["recorded"]),
        kind,
        event.get("action", "E"),
        next((c.get("code", "") for c in event.get("subtype", ())), ""),
        str(who.get("display") or who.get("reference") or ""),
        codes[0] if codes else "",
        str(where),
        event.get("outcome", "0") != "0",
        str(event.get("outcomeDesc", "")),
        tuple(dict.fromkeys(r for r in entities if r)),
    )
