"""A department's examinations over FHIR, for tests: orders of a catalogue, scanners, bookings, answers, and who does what."""

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.fhir_app import FhirApp, Resource, load, unused
from tests.smart_world import Caller, World

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
ATC = "http://www.whocc.no/atc"
IOHEXOL = {"coding": [{"system": ATC, "code": "V08AB02", "display": "Iohexol"}]}
GADOBUTROL = {"coding": [{"system": ATC, "code": "V08CA09", "display": "Gadobutrol"}]}
_hours = itertools.count()
# Complete answers, nothing adverse.
CLEAN: dict[str, dict[str, Any]] = {
    "mri-safety": dict.fromkeys(
        ("cardiac-device", "neurostimulator", "aneurysm-clip", "metal-in-eye", "other-implant", "claustrophobia"), False
    ),
    "pregnancy": {"pregnant": "60001007"},
    "contrast-allergy": dict.fromkeys(("severe-reaction", "mild-reaction", "asthma", "hyperthyroidism"), False),
    "renal-function": {"kidney-disease": False, "metformin": False},
    "anticoagulants": dict.fromkeys(("anticoagulant", "platelet-inhibitor", "bleeding-disorder"), False),
    "needs": {"mobility": False, "isolation": False},
}


def coded(system: str, code: str, text: str | None = None) -> Resource:
    return {"coding": [{"system": system, "code": code}]} | ({"text": text} if text else {})


def ago(**by: float) -> str:
    return (datetime.now(UTC) - timedelta(**by)).isoformat(timespec="milliseconds")


def parameters(**given: Any) -> Resource:
    """Parameters: texts, numbers, booleans; `Patient/1` a reference; what has `coding` a CodeableConcept; lists repeat."""
    each = [(n.replace("_", "-"), v) for n, values in given.items() for v in (values if isinstance(values, list) else [values])]
    return {"resourceType": "Parameters", "parameter": [{"name": n, _kind(v): _value(v)} for n, v in each]}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "valueBoolean"
    if isinstance(value, int):
        return "valueInteger"
    if isinstance(value, Mapping):
        return "valueQuantity" if "value" in value else "valueCodeableConcept"
    return "valueReference" if _is_reference(value) else "valueString"


def _value(value: Any) -> Any:
    return {"reference": value} if isinstance(value, str) and _is_reference(value) else value


def _is_reference(value: str) -> bool:
    return value.split("/")[0] in {"Task", "ServiceRequest", "DetectedIssue", "Practitioner"}


class Examinations:
    """What most tests begin with. `technologist`, `radiologist` and `scheduler` are people with these roles."""

    def __init__(self, app: FhirApp) -> None:
        self.app = app
        self.world = world = World(app)
        self.technologist = world.person("technologist", grant=unused("g"))
        self.radiologist = world.person("radiologist", grant=unused("g"))
        self.scheduler = world.person("scheduler", grant=unused("g"))

    def patient(self, **elements: Any) -> Resource:
        mrn = [{"system": "urn:example:mrn", "value": unused("E")}]
        made = {"resourceType": "Patient", "active": True, "identifier": mrn, "gender": "female", "birthDate": "1990-04-01"}
        return self.app.create(made | elements)

    def entry(self, modality: str, *extensions: Resource) -> Resource:
        """A catalogue entry; the code that orders it."""
        code = {"system": "urn:example:catalogue", "code": unused("C")}
        self.app.create(
            {
                "resourceType": "ActivityDefinition",
                "status": "active",
                "kind": "ServiceRequest",
                "identifier": [{"system": code["system"], "value": code["code"]}],
                "code": {"coding": [code]},
                "topic": [coded(DCM, modality)],
                "extension": list(extensions),
            }
            | ({} if extensions else {"extension": [{"url": "urn:example:none", "valueBoolean": True}]})
        )
        return {"coding": [code], "text": f"Examination {code['code']}"}

    def order(self, patient: Resource, modality: str = "CT", **elements: Any) -> Resource:
        """The requested procedure of an accepted order."""
        made = {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": coded(LOINC, "24627-2"),
            "subject": {"reference": f"Patient/{patient['id']}"},
            "orderDetail": [coded(DCM, modality)],
        } | elements
        if "code" in elements:  # the catalogue says which modality
            del made["orderDetail"]
        order = self.app.create(made)
        return self.first(f"ServiceRequest?based-on=ServiceRequest/{order['id']}&intent=filler-order")

    def scanner(self, modality: str = "CT") -> Resource:
        title = [{"system": "urn:fhir-ris:ae-title", "value": unused("AE")}]
        return self.app.create({"resourceType": "Device", "status": "active", "identifier": title, "type": coded(DCM, modality)})

    def book(self, procedure: Resource, scanner: Resource) -> httpx.Response:
        """The scheduler books an hour of its own."""
        begin = datetime(2027, 3, 1, tzinfo=UTC) + timedelta(hours=next(_hours))
        booking = {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": procedure["basedOn"],
            "start": begin.isoformat(),
            "end": (begin + timedelta(minutes=30)).isoformat(),
            "participant": [
                {"actor": procedure["subject"], "status": "accepted"},
                {"actor": {"reference": f"Device/{scanner['id']}"}, "status": "accepted"},
            ],
        }
        return self.scheduler.post(booking)

    def booked(self, procedure: Resource, scanner: Resource | None = None) -> Resource:
        """The step, scheduled."""
        modality = self.step(procedure)["input"][0]["valueCodeableConcept"]["coding"][0]["code"]
        answer = self.book(procedure, scanner or self.scanner(modality))
        assert answer.status_code == 201, answer.text
        return self.step(procedure)

    def answer(self, patient: Resource, name: str, **adverse: Any) -> httpx.Response:
        """The patient answers a questionnaire to the technologist: nothing adverse but what is given."""
        said = CLEAN[name] | {k.replace("_", "-"): v for k, v in adverse.items()}
        items = [{"linkId": q, "answer": [_answer(v)]} for q, v in said.items() if v is not None]
        return self.technologist.post(
            {
                "resourceType": "QuestionnaireResponse",
                "questionnaire": f"urn:fhir-ris:questionnaire:{name}|1.0.0",
                "status": "completed",
                "subject": {"reference": f"Patient/{patient['id']}"},
                "authored": ago(minutes=1),
                "item": items,
            }
        )

    def egfr(self, patient: Resource, value: float, days: int) -> Resource:
        return self.app.create(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": coded(LOINC, "62238-1"),
                "subject": {"reference": f"Patient/{patient['id']}"},
                "effectiveDateTime": ago(days=days),
                "valueQuantity": {"value": value, "unit": "mL/min/1.73m2"},
            }
        )

    # Looking at it

    def read(self, reference: str) -> Resource:
        return load(self.app.get(reference))

    def all(self, query: str) -> list[Resource]:
        return [e["resource"] for e in self.app.search(query).get("entry", ())]

    def first(self, query: str) -> Resource:
        found = self.all(query)
        assert len(found) == 1, [f"{r['resourceType']}/{r['id']}" for r in found]
        return found[0]

    def steps(self, procedure: Resource) -> list[Resource]:
        return self.all(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan&_sort=_lastUpdated")

    def step(self, procedure: Resource) -> Resource:
        return self.first(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan")

    def issues(self, procedure: Resource) -> dict[str, str]:
        """The rules that speak against it, with what each does; cleared ones in brackets."""
        found = self.all(f"DetectedIssue?implicated=ServiceRequest/{procedure['id']}")
        stand = [i for i in found if i["status"] == "final"]
        return {
            i["code"]["coding"][0]["code"]: f"({i['extension'][0]['valueCode']})"
            if "mitigation" in i
            else i["extension"][0]["valueCode"]
            for i in stand
        }

    def row(self, step: Resource) -> Resource | None:
        """The attributes that scanners are told of a step."""
        found = self.app.run(self.app.db["worklist"].find_one({"_id": step["id"]}))
        return None if found is None else found["attributes"]

    def items(self, kind: str, about: str) -> list[Resource]:
        return self.all(f"Task?code=urn:fhir-ris:task|{kind}&focus={about}&status=requested")

    def do(self, who: Caller, step: Resource, operation: str, **given: Any) -> httpx.Response:
        return who.send("POST", f"{step['resourceType']}/{step['id']}/${operation}", parameters(**given))

    def done(self, who: Caller, step: Resource, operation: str, **given: Any) -> dict[str, str]:
        """Do it; the references that it answers with, by name."""
        answer = self.do(who, step, operation, **given)
        assert answer.status_code == 200, answer.text
        return {p["name"]: p["valueReference"]["reference"] for p in load(answer).get("parameter", ())}


def readiness(step: Resource) -> str:
    found = (e["valueCode"] for e in step.get("extension", ()) if e["url"] == "urn:fhir-ris:readiness")
    return next(found, "")


def tracked(step: Resource) -> list[str]:
    """The states that a step was in, in order."""
    rows = [e["extension"] for e in step.get("extension", ()) if e["url"] == "urn:fhir-ris:tracked"]
    return [part["valueCode"] for row in rows for part in row if part["url"] == "state"]


def _answer(value: Any) -> Resource:
    if isinstance(value, bool):
        return {"valueBoolean": value}
    return {"valueCoding": {"system": SNOMED, "code": value}} if value.isdigit() else {"valueString": value}
