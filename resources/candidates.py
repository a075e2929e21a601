"""Which order an examination or a study that nobody scheduled may belong to, and how sure that is.

The points of a candidate, at most 100:

| 50 | the accession number is the order's |
| 30 | the patient is the order's |
| 10 | the modality is the step's |
| 7, 5, 2 | it began within 1, 4, 24 hours of the scheduled time (2: also when the step has no time) |
| 3 | the station is the step's |

Only accession number and patient together make it certain (CERTAIN); everything else is proposed to a person.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from fhir_server.elements import concept
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_numbers, service_request, task, terms
from resources.identifiers import escaped

CERTAIN: Final = 80
SCORE: Final = "urn:fhir-ris:match-score"  # extension on Task.input: the points of a candidate
MOST: Final = 10
_WINDOW: Final = timedelta(hours=24)
_WAITING: Final = frozenset({"requested", "accepted", "ready", "on-hold", "in-progress"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an examination. `patient` and `station` are references: `Patient/1`, `Device/ct1`."""

    accession: str = ""
    patient: str = ""
    modality: str = ""
    began: datetime | None = None
    station: str = ""


@dataclass(slots=True)
class Candidate:
    """A step that it may be, of which requested procedure and order, with its points and what they are for."""

    step: Resource
    procedure: Resource
    score: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, points: int, reason: str) -> None:
        self.score += points
        self.reasons.append(reason)


async def find(unit: UnitOfWork, facts: Facts) -> list[Candidate]:
    """The candidates, the best first, at most ten."""
    steps: dict[str, Resource] = {}
    with_number: set[str] = set()
    for procedure in await by_accession(unit, facts.accession):
        for step in await task.steps_of(unit, procedure["id"]):
            steps[step["id"]] = step
            with_number.add(step["id"])
    if facts.patient:
        for step in await unit.search("Task", patient=facts.patient, intent="plan", status=",".join(sorted(_WAITING))):
            if task.is_step(step) and _in_window(step, facts.began):
                steps[step["id"]] = step
    found = []
    for step in steps.values():
        procedure_ = await unit.get(step.get("focus"))
        if procedure_ is None or not service_request.is_procedure(procedure_) or step["status"] == "cancelled":
            continue
        if (candidate := _scored(Candidate(step, procedure_), facts, numbered=step["id"] in with_number)) is not None:
            found.append(candidate)
    return sorted(found, key=lambda c: (-c.score, c.step["id"]))[:MOST]


async def by_accession(unit: UnitOfWork, accession: str) -> list[Resource]:
    """The requested procedures of the orders with this accession number."""
    found: dict[str, Resource] = {}
    for request in await unit.search("ServiceRequest", identifier=escaped(accession)) if accession else ():
        if order_numbers.accession_number(request) == accession:
            own = service_request.is_procedure(request)
            procedures = [request] if own else await service_request.procedures_of(unit, request["id"])
            found |= {p["id"]: p for p in procedures}
    return list(found.values())


def certain(candidates: list[Candidate]) -> Candidate | None:
    """The one candidate that needs nobody's judgement, if there is one: a second with the same points casts doubt on both."""
    best = [c for c in candidates if c.score >= CERTAIN and c.step["status"] in _WAITING]
    return best[0] if best and (len(best) == 1 or best[0].score > best[1].score) else None


def as_inputs(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Task.input of a work item: the requested procedures to choose from."""
    return [
        {
            "extension": [{"url": SCORE, "valueInteger": c.score}],
            "type": concept(terms.TASK_DETAIL, "candidate") | {"text": f"{c.score} of 100: {', '.join(c.reasons)}"},
            "valueReference": ref(c.procedure),
        }
        for c in candidates
    ]


def _scored(candidate: Candidate, facts: Facts, *, numbered: bool) -> Candidate | None:
    """None for a step of another modality, unless the accession number is its own."""
    step = candidate.step
    if numbered:
        candidate.add(50, "accession number")
    if facts.patient and step.get("for", {}).get("reference") == facts.patient:
        candidate.add(30, "patient")
    planned = task.modality(step)
    if planned is not None and planned == facts.modality:
        candidate.add(10, "modality")
    elif planned is not None and facts.modality and not numbered:
        return None
    points = _time_points(step, facts.began)
    if points:
        candidate.add(points, "time")
    if facts.station and step.get("owner", {}).get("reference") == facts.station:
        candidate.add(3, "station")
    return candidate


def _time_points(step: Resource, began: datetime | None) -> int:
    distance = _distance(step, began)
    if distance is None:
        return 2 if began is not None and _start(step) is None else 0
    return 7 if distance <= timedelta(hours=1) else 5 if distance <= timedelta(hours=4) else 2 if distance <= _WINDOW else 0


def _in_window(step: Resource, began: datetime | None) -> bool:
    distance = _distance(step, began)
    return distance is None or distance <= _WINDOW


def _distance(step: Resource, began: datetime | None) -> timedelta | None:
    planned = _start(step)
    return None if planned is None or began is None else abs(planned - began)


def _start(step: Resource) -> datetime | None:
    try:
        moment = datetime.fromisoformat(step.get("restriction", {}).get("period", {}).get("start", ""))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
