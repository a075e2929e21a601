"""One patient: who it is, what must be known, the orders and reports; opened in an emergency where the record is closed."""

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from console import emergency
from console.asking import Found
from console.screen import Door, Screen, does, shows
from console.screens.patient import orders
from console.visit import Visit
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from resources.safety.findings import stands

SCREEN = Screen("patient", "/patients", "p", "Patient.r")
_HIDDEN = frozenset({"not-found", "deleted"})


@dataclass(frozen=True, slots=True)
class Alert:
    """An allergy or a flag: `severe` ones are shown first, and marked."""

    resource: Resource
    severe: bool


async def show(visit: Visit) -> Response:
    """The page; to those who may open closed records, the way to do so where nothing is seen."""
    try:
        patient = await visit.desk.read(f"Patient/{visit.id()}")
    except FhirError as error:
        if error.code not in _HIDDEN or not emergency.may(visit):
            raise
        return await _closed(visit)
    about = f"Patient/{patient['id']}"
    (rows, following, loose), allergies, flags, coverages, others = await visit.desk.together(
        orders.of_patient(visit, patient["id"]),
        _of(visit, "AllergyIntolerance", patient=about),
        _of(visit, "Flag", patient=about),
        _of(visit, "Coverage", patient=about, status="active", _include="Coverage:payor"),
        _linked(visit, patient),
    )
    return visit.page(
        "patient/index.html",
        patient=patient,
        orders=rows,
        following=following,
        later=bool(visit.asked("page")),
        loose=[(r, orders.report_address(visit, r)) for r in loose],
        warnings=_warnings(allergies, flags),
        knows=visit.allows("AllergyIntolerance", "s"),
        coverages=coverages,
        into=[o for kind, o in others if kind == "replaced-by"],
        of=[o for kind, o in others if kind == "replaces"],
        open=emergency.is_open(visit, patient["id"]),
        breaks=await emergency.opens_more(visit, patient["id"]),
        stale=emergency.is_stale(visit),
    )


async def _closed(visit: Visit) -> Response:
    visit.status = max(visit.status, 404)
    return visit.page("patient/closed.html", id=visit.id(), stale=emergency.is_stale(visit))


async def _of(visit: Visit, kind: str, **parameters: Any) -> Found:
    if not visit.allows(kind, "s"):
        return Found([])
    found: Found = await visit.desk.search(kind, **parameters, _count="100")
    return found


async def _linked(visit: Visit, patient: Resource) -> list[tuple[str, Resource]]:
    """The records that were merged into this one, or that it was merged into, those that the reader sees."""
    links = {str(x.get("other", {}).get("reference", "")).partition("/")[2]: str(x.get("type")) for x in patient.get("link", ())}
    if not links or not visit.allows("Patient", "s"):
        return []
    found = await visit.desk.search("Patient", _id=",".join(sorted(links)), _count="50")
    return [(links[other["id"]], other) for other in found]


def _warnings(allergies: Found, flags: Found) -> list[Alert]:
    """What stands of allergies and flags; the grave ones first."""
    made = []
    for allergy in filter(stands, allergies):
        grave = {r.get("severity") for r in allergy.get("reaction", ())}
        made.append(Alert(allergy, allergy.get("criticality") == "high" or "severe" in grave))
    made += [Alert(flag, False) for flag in filter(stands, flags)]
    return sorted(made, key=lambda warning: not warning.severe)


async def open_record(visit: Visit) -> Response:
    """Break the glass of the record at this address."""
    await emergency.open_record(visit, visit.id())
    return visit.to(f"/patients/{visit.id()}", "patient-opened")


async def close_record(visit: Visit) -> Response:
    """End it."""
    await emergency.close(visit, visit.id())
    return visit.to(f"/patients/{visit.id()}", "patient-closed")


DOORS: list[Door] = [
    shows("/patients/{id}", show),
    does("/patients/{id}/open", open_record, show),
    does("/patients/{id}/close", close_record, show),
]
