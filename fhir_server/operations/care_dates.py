"""When the care took place that a resource tells of: the date parameters that `start` and `end` of `$everything` look at.

"The date range relates to care dates, not record currency dates" (FHIR R4 Patient, operation everything): what has no such date,
as a type (an allergy, a coverage) or as a resource, is always in range.
"""

from typing import Any

from fhir_server.search.dates import EARLIEST, LATEST, of_text

_NAMED_DATE = """
    AdverseEvent Appointment CarePlan CareTeam ClinicalImpression Composition DiagnosticReport DocumentReference Encounter
    EpisodeOfCare Flag Immunization ImmunizationEvaluation ImmunizationRecommendation Invoice List Observation Procedure
    ResearchSubject RiskAssessment Schedule SupplyRequest
"""

# A resource is in range when one of these is, or when it has none of them.
CARE_DATES: dict[str, tuple[str, ...]] = dict.fromkeys(_NAMED_DATE.split(), ("date",)) | {
    "Account": ("period",),
    "AuditEvent": ("date",),
    "ChargeItem": ("occurrence",),
    "Claim": ("created",),
    "ClaimResponse": ("created",),
    "Communication": ("sent", "received"),
    "CommunicationRequest": ("occurrence", "authored"),
    "CoverageEligibilityRequest": ("created",),
    "CoverageEligibilityResponse": ("created",),
    "DetectedIssue": ("identified",),
    "DeviceRequest": ("event-date", "authored-on"),
    "DocumentManifest": ("created",),
    "ExplanationOfBenefit": ("created",),
    "ImagingStudy": ("started",),
    "MeasureReport": ("period", "date"),
    "Media": ("created",),
    "MedicationAdministration": ("effective-time",),
    "MedicationDispense": ("whenhandedover", "whenprepared"),
    "MedicationRequest": ("authoredon", "date"),
    "MedicationStatement": ("effective",),
    "NutritionOrder": ("datetime",),
    "Provenance": ("when", "recorded"),
    "QuestionnaireResponse": ("authored",),
    "RequestGroup": ("authored",),
    "ServiceRequest": ("occurrence", "authored"),
    "Specimen": ("collected",),
    "VisionPrescription": ("datewritten",),
}

# What lasts from one date to another.
SPANS: dict[str, tuple[str, str]] = {"Condition": ("onset-date", "abatement-date")}


def in_range(resource_type: str, start: str | None, end: str | None) -> dict[str, Any] | None:
    """The MongoDB condition that the care was between two FHIR dates, both included; None when there is nothing to ask."""
    if start is None and end is None:
        return None
    earliest = of_text(start)[0] if start else EARLIEST
    latest = of_text(end)[1] if end else LATEST
    if resource_type in SPANS:
        begin, finish = (f"search.d.{name}" for name in SPANS[resource_type])
        begun = {"$or": [{begin: None}, {f"{begin}.s": {"$lt": latest}}]}
        lasts = {"$or": [{finish: None}, {f"{finish}.e": {"$gt": earliest}}]}
        return {"$and": [begun, lasts]}
    paths = [f"search.d.{name}" for name in CARE_DATES.get(resource_type, ())]
    if not paths:
        return None
    overlap = {"s": {"$lt": latest}, "e": {"$gt": earliest}}
    conditions: list[dict[str, Any]] = [dict.fromkeys(paths)]  # none of them there
    for path in paths:
        # Of several intervals one must overlap on its own: the bounds could be met by two.
        conditions.append({path: {"$elemMatch": overlap}})
        conditions.append({f"{path}.0": {"$exists": False}, **{f"{path}.{member}": test for member, test in overlap.items()}})
    return {"$or": conditions}
