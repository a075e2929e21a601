"""`$priors` of a reading (Task), a requested procedure (ServiceRequest) or a study: what of this patient was examined before.

GET Task/[id]/$priors?_count=20 answers a searchset: the patient's earlier studies as matches, the nearest first, each followed by
its reports (included). Near is the same examination, then the same body region, then the same modality; of those alike the newest
comes first. `entry.search.score` tells how near (1 the same, 0 neither). Records that were merged into the patient's count too.
The caller sees what it sees otherwise: the answer is made of its own searches.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_server import audit, clock
from fhir_server.elements import codes, codings
from fhir_server.operations import Answer, Call, Level, Operation, arguments
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, department_operation, terms

_NEEDS: Final = {"ImagingStudy": "rs", "DiagnosticReport": "rs"}
_LOOKED_AT: Final = 200  # of the patient's studies, the newest
_DEFAULT: Final = 20
_PARAMETERS: Final = {"_count": "integer"}
_SAME, _REGION, _MODALITY = 4, 2, 1

Code = tuple[str, str]
Catalogue = dict[frozenset[Code], Resource]
"""The entries that were looked up, by the codes of their procedures; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a study is like: its procedure codes, body regions and modalities."""

    procedures: frozenset[Code] = frozenset()
    regions: frozenset[Code] = frozenset()
    modalities: frozenset[str] = frozenset()

    def nearness(self, other: "Features") -> int:
        """7 for the same examination of the same region by the same modality, 0 for nothing in common."""
        alike = ((_SAME, "procedures"), (_REGION, "regions"), (_MODALITY, "modalities"))
        return sum(weight for weight, name in alike if getattr(self, name) & getattr(other, name))


async def priors(call: Call) -> Answer:
    """FhirError 403 for who may not, 404 for what isn't there."""
    arguments.check_body("priors", call.body, frozenset(_PARAMETERS))
    await department_operation.require(call, "priors", _NEEDS)
    count = arguments.count(call, _DEFAULT)
    current = (await call.interactions.read(call.access, str(call.resource_type), str(call.id))).resource or {}

    async def look(unit: UnitOfWork) -> tuple[Features, list[str], set[str]]:
        return await _current(unit, current)

    wanted, patients, own = await call.interactions.transact(call.access, call.act, look, audit.seen([_name(current)]))
    if not patients:
        raise fail("business-rule", "it is of no patient", f"{call.resource_type}.subject")
    of_patient = ("patient", ",".join(patients))
    asked = [of_patient, ("status", "available,registered"), ("_sort", "-started"), ("_count", str(_LOOKED_AT))]
    studies = (await call.interactions.search(call.access, "ImagingStudy", asked)).matches
    reports = (
        await call.interactions.search(call.access, "DiagnosticReport", [of_patient, ("_sort", "-date"), ("_count", "1000")])
    ).matches
    reports = [r for r in reports if r["status"] not in {"entered-in-error", "cancelled", "registered"}]
    earlier = [s for s in studies if s["id"] not in own and _is_prior(s, reports)]

    async def compare(unit: UnitOfWork) -> list[tuple[int, Resource]]:
        await unit.load(to for s in earlier for r in s.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest")
        known: Catalogue = {}
        return [(wanted.nearness(await features(unit, study, known)), study) for study in earlier]

    found = await call.interactions.transact(call.access, call.act, compare)
    found.sort(key=lambda one: str(one[1].get("started", "")), reverse=True)
    found.sort(key=lambda one: one[0], reverse=True)
    return Answer(_bundle(call, found[:count], reports))


def _name(resource: Resource) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id')}"


def _is_prior(study: Resource, reports: list[Resource]) -> bool:
    """A study that was made: one that only is to be, isn't a prior, unless a report speaks of it."""
    return study["status"] == "available" or "series" in study or bool(_reports_of(study, reports))


def _reports_of(study: Resource, reports: list[Resource]) -> list[Resource]:
    based = {r.get("reference") for r in study.get("basedOn", ())}
    me = f"ImagingStudy/{study['id']}"
    return [
        r
        for r in reports
        if any(i.get("reference") == me for i in r.get("imagingStudy", ()))
        or ("imagingStudy" not in r and any(b.get("reference") in based for b in r.get("basedOn", ())))
    ]


async def _current(unit: UnitOfWork, current: Resource) -> tuple[Features, list[str], set[str]]:
    """What the present study is like, whose it is (merged records included), and which studies are its own."""
    subject = target(current.get("subject") or current.get("for"))
    kind = current.get("resourceType")
    study = current if kind == "ImagingStudy" else await unit.get(current.get("focus"))
    request = current if kind == "ServiceRequest" else None
    if study is not None and study["resourceType"] == "ImagingStudy":
        like, own = await features(unit, study, {}), {study["id"]}
    elif request is not None:
        like = await _of_request(unit, request, {})
        own = {s["id"] for s in await unit.search("ImagingStudy", basedon=_name(request))}
    else:
        raise fail("business-rule", "priors are asked for of a study, its reading or its requested procedure", "Task.focus")
    return like, [f"Patient/{p}" for p in await _records(unit, subject.id)] if subject else [], own


async def _records(unit: UnitOfWork, patient_id: str) -> list[str]:
    """The record, and those that were merged into it or that it was merged into."""
    found = [patient_id]
    for record in found:  # which grows
        patient = await unit.read("Patient", record)
        for link in (patient or {}).get("link", ()):
            other = target(link.get("other"))
            if link.get("type") in {"replaces", "replaced-by"} and other is not None and other.id not in found:
                found.append(other.id)
    return found


async def features(unit: UnitOfWork, study: Resource, known: Catalogue) -> Features:
    """What a study is like: by its own codes, its requested procedures and the procedure catalogue."""
    series = study.get("series", ())
    regions = {(c.get("system", ""), c.get("code", "")) for s in series if (c := s.get("bodySite"))}
    modalities = {c["code"] for c in [*study.get("modality", ()), *(s.get("modality", {}) for s in series)] if "code" in c}
    found = [Features(_codes(study.get("procedureCode")), frozenset(regions), frozenset(modalities))]
    for reference in study.get("basedOn", ()):
        request = await unit.get(reference)
        if request is not None and request["resourceType"] == "ServiceRequest":
            found.append(await _of_request(unit, request, known))
    return Features(*(frozenset().union(*(getattr(f, name) for f in found)) for name in ("procedures", "regions", "modalities")))


async def _of_request(unit: UnitOfWork, request: Resource, known: Catalogue) -> Features:
    procedures = _codes(request.get("code"))
    if procedures not in known:
        known[procedures] = await activity_definition.catalogue_entry(unit, request) or {}
    entry = known[procedures]
    said = [codes(element, terms.DCM) for element in (request.get("orderDetail"), request.get("category"), entry.get("topic"))]
    modalities = next((m for m in said if m), [])
    return Features(procedures, _codes(request.get("bodySite")) | _codes(entry.get("bodySite")), frozenset(modalities))


def _codes(concepts: Any) -> frozenset[Code]:
    return frozenset((c.get("system", ""), c["code"]) for c in codings(concepts) if "code" in c)


def _bundle(call: Call, found: list[tuple[int, Resource]], reports: list[Resource]) -> Resource:
    entries: list[Resource] = []
    for nearness, study in found:
        score = round(Decimal(nearness) / (_SAME + _REGION + _MODALITY), 2)
        entries.append(_entry(call, study, {"mode": "match", "score": score}))
        told = {_name(e["resource"]) for e in entries}
        mine = [r for r in _reports_of(study, reports) if _name(r) not in told]
        entries += [_entry(call, report, {"mode": "include"}) for report in mine]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "timestamp": clock.instant(clock.now())}
    return bundle | {"total": len(found)} | ({"entry": entries} if entries else {})


def _entry(call: Call, resource: Resource, search: Resource) -> Resource:
    return {"fullUrl": f"{call.base_url}/{_name(resource)}", "resource": resource, "search": search}


def register(registry: Registry) -> None:
    """Offer it."""
    types = frozenset({"Task", "ServiceRequest", "ImagingStudy"})
    definition = "urn:fhir-ris:OperationDefinition/priors"
    levels = frozenset[Level]({"instance"})
    registry.operation(Operation("priors", definition, levels, priors, types, parameters=_PARAMETERS))
