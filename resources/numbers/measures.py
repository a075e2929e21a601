"""The figures that there are, each a Measure: its groups, what it may be broken down by, and what computes it.

The Measure resources are stored at the start, so that clients find them; what is computed is what stands here.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fhir_server.audit import Act
from fhir_server.elements import concept
from fhir_server.interactions import Interactions
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.numbers import counts, interfaces, scanners, turn_around
from resources.numbers.question import EXAM_DIMENSIONS, ONLY, Db, Figure, Question
from smart_auth.access import Access

MEASURE: Final = "urn:fhir-ris:Measure/"  # the canonical of a Measure, without its id
FIGURE: Final = "urn:fhir-ris:figure"  # code system of groups: `ended-final-median`
DIMENSION: Final = "urn:fhir-ris:figure-dimension"  # code system of stratifiers: `modality`
_POPULATION: Final = "http://terminology.hl7.org/CodeSystem/measure-population"
_SCORING: Final = "http://terminology.hl7.org/CodeSystem/measure-scoring"


@dataclass(frozen=True, slots=True)
class Figures:
    """A Measure. `groups`: name to the statistics of it; `by`: its dimensions; `first`: those it has unless others are asked for.

    basis: the milestone that puts an examination into the period, where it can be chosen
    only: what it may be narrowed to
    """

    title: str
    description: str
    evaluate: Callable[[Db, Question], Awaitable[list[Figure]]]
    groups: Mapping[str, Sequence[str]]
    by: tuple[str, ...]
    first: tuple[str, ...] = ()
    basis: str = ""
    only: tuple[str, ...] = ()


def _counted(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {name: ("age",) if name == "oldest" else ("count",) for name in names}


FIGURES: Final[Mapping[str, Figures]] = {
    "turn-around": Figures(
        "Turn-around times",
        "Minutes between milestones of the examinations that ended (or reached another milestone) in the period. These are the "
        "usual spans; any two milestones may be asked for.",
        turn_around.evaluate,
        {f"{a}-{b}": tuple(turn_around.PERCENTILES) for a, b in turn_around.SPANS},
        EXAM_DIMENSIONS,
        basis=turn_around.BASIS,
        only=ONLY,
    ),
    "volumes": Figures(
        "Volumes",
        "Examinations that were ordered, scheduled, performed, reported and cancelled in the period.",
        counts.volumes,
        _counted(tuple(counts.VOLUMES)),
        EXAM_DIMENSIONS,
        ("modality",),
        only=ONLY,
    ),
    "backlog": Figures(
        "Backlog",
        "Examinations that wait now, since a moment in the period: what for, and how long.",
        counts.backlog,
        _counted(counts.WAITING),
        (*EXAM_DIMENSIONS, counts.AGE),
        (counts.AGE,),
        only=ONLY,
    ),
    "scanners": Figures(
        "Scanners",
        "Offered, booked and used time of each scanner in the period, and patients who didn't come.",
        scanners.evaluate,
        scanners.GROUPS,
        scanners.DIMENSIONS,
        ("scanner",),
        only=scanners.DIMENSIONS,
    ),
    "critical-results": Figures(
        "Critical results",
        "Critical results of the period: all, those nobody has acknowledged yet, and those whose time is over.",
        interfaces.critical,
        _counted(interfaces.CRITICAL),
        (interfaces.PRIORITY,),
        (interfaces.PRIORITY,),
    ),
    "interfaces": Figures(
        "Interface health",
        "Messages of the period by partner, received, failed, sent, delivered and set aside; what is queued now, and since when.",
        interfaces.health,
        _counted(interfaces.INTERFACE),
        (interfaces.PARTNER,),
        (interfaces.PARTNER,),
    ),
}


def code(group: str, statistic: str) -> str:
    """The code of a group of a Measure."""
    return f"{group}-{statistic}"


def measure(name: str) -> Resource:
    """The Measure resource."""
    figures = FIGURES[name]
    population = concept(_POPULATION, "measure-population")
    return {
        "resourceType": "Measure",
        "id": name,
        "url": MEASURE + name,
        "name": figures.title.replace(" ", "").replace("-", ""),
        "title": figures.title,
        "status": "active",
        "subjectCodeableConcept": concept("http://hl7.org/fhir/resource-types", "ServiceRequest"),
        "description": figures.description,
        "scoring": concept(_SCORING, "continuous-variable"),
        "group": [
            {
                "code": concept(FIGURE, code(group, statistic)),
                "population": [{"code": population, "criteria": {"language": "text/plain", "expression": group}}],
                "stratifier": [
                    {"code": concept(DIMENSION, d), "criteria": {"language": "text/plain", "expression": d}} for d in figures.by
                ],
            }
            for group, statistics in figures.groups.items()
            for statistic in statistics
        ],
    }


async def install(interactions: Interactions) -> None:
    """Store the Measures. What is there already as it should be, gets no new version."""

    async def work(unit: UnitOfWork) -> None:
        for name in FIGURES:
            await unit.update(measure(name))

    await interactions.store.ensure("Measure")
    await interactions.transact(Access.system("numbers"), Act("numbers", source="server", detail="measures"), work)
