"""A reading room for tests: people with their tokens on a real server, and studies that wait to be read."""

from typing import Any

import httpx

from tests.fhir_app import FhirApp, Resource, load, unused
from tests.smart_world import Caller, World

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
RADLEX = "http://radlex.org"
CT_CHEST = {"coding": [{"system": LOINC, "code": "24627-2", "display": "CT Chest"}]}


def parameters(*rows: Resource, **named: Any) -> Resource:
    """A Parameters resource: `text="..."` is a valueString, an underscore in a name a hyphen."""
    simple = [{"name": n.replace("_", "-"), _kind(v): v} for n, v in named.items()]
    return {"resourceType": "Parameters", "parameter": [*rows, *simple]}


def _kind(value: Any) -> str:
    return "valueBoolean" if isinstance(value, bool) else "valueString"


def section(code: str, text: str = "") -> Resource:
    part = [{"name": "code", "valueCode": code}] + ([{"name": "text", "valueString": text}] if text else [])
    return {"name": "section", "part": part}


def reference(name: str, to: str) -> Resource:
    return {"name": name, "valueReference": {"reference": to}}


class ReadingRoom:
    """A server with attendings, a resident and a referrer; `study` makes one that waits to be read."""

    def __init__(self, app: FhirApp, world: World | None = None) -> None:
        self.app = app
        self.world = world or World(app)
        self.attending = self.person("radiologist", "Ada", "Attending", "405279007")
        self.other = self.person("radiologist", "Otto", "Other", "405279007")
        self.resident = self.person("radiologist", "Rita", "Resident", "405277009")
        self.referrer = self.person("referrer", "Rolf", "Referrer")

    def person(self, role: str, given: str, family: str, kind: str = "", **context: str) -> "Person":
        practitioner = self.app.create({"resourceType": "Practitioner", "name": [{"given": [given], "family": family}]})
        who = f"Practitioner/{practitioner['id']}"
        if kind:
            code = [{"coding": [{"system": SNOMED, "code": kind}]}]
            self.app.create({"resourceType": "PractitionerRole", "practitioner": {"reference": who}, "code": code})
        name = unused(given.lower())
        caller = self.world.caller("user/*.cruds", user=who, user_name=name, role=role, grant=unused("grant"), **context)
        return Person(self.app, caller.bearer, who)

    def patient(self, **elements: Any) -> Resource:
        number = {"system": "urn:example:mrn", "value": unused("RD")}
        return self.app.create({"resourceType": "Patient", "active": True, "identifier": [number]} | elements)

    def study(self, patient: Resource | None = None, **elements: Any) -> Resource:
        """The reading (Task) of an examination that was just done; `elements` are the order's."""
        whose = patient or self.patient()
        order = self.app.create(
            {
                "resourceType": "ServiceRequest",
                "status": "active",
                "intent": "order",
                "code": CT_CHEST,
                "subject": {"reference": f"Patient/{whose['id']}"},
                "requester": {"reference": self.referrer.who},
                "orderDetail": [{"coding": [{"system": DCM, "code": "CT"}]}],
            }
            | elements
        )
        return self.examined(order)

    def examined(self, order: Resource) -> Resource:
        (procedure,) = self.matches(f"ServiceRequest?based-on=ServiceRequest/{order['id']}&intent=filler-order")
        (step,) = self.matches(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan")
        performed = {
            "resourceType": "Procedure",
            "status": "completed",
            "subject": order["subject"],
            "basedOn": [step["focus"]],
            "performedPeriod": {"start": "2026-09-08T08:05:00Z", "end": "2026-09-08T08:15:00Z"},
            "extension": [
                {"url": "urn:fhir-ris:scheduled-procedure-step", "valueReference": {"reference": f"Task/{step['id']}"}}
            ],
        }
        self.app.create(performed)
        (reading,) = self.matches(f"Task?based-on=ServiceRequest/{procedure['id']}&code=interpretation")
        return reading

    def order_of(self, reading: Resource) -> Resource:
        procedure = self.read(reading["basedOn"][0]["reference"])
        return self.read(procedure["basedOn"][0]["reference"])

    def matches(self, query: str) -> list[Resource]:
        return [e["resource"] for e in self.app.search(query).get("entry", ()) if e["search"]["mode"] == "match"]

    def read(self, what: Resource | str) -> Resource:
        path = what if isinstance(what, str) else f"{what['resourceType']}/{what['id']}"
        answer = self.app.get(path)
        assert answer.status_code == 200, answer.text
        return load(answer)

    def draft(self, reading: Resource, who: "Person | None" = None, *rows: Resource) -> Resource:
        """A report that was begun, and written in."""
        author = who or self.attending
        report = author.done(f"Task/{reading['id']}/$start-report")
        said = rows or (section("59776-5", "Clear lungs."), section("19005-8", "No acute finding."))
        return author.done(f"DiagnosticReport/{report['id']}/$write", parameters(*said))

    def signed(self, reading: Resource, *rows: Resource) -> Resource:
        return self.attending.done(f"DiagnosticReport/{self.draft(reading, None, *rows)['id']}/$sign")


class Person(Caller):
    """Somebody with a token; `who` is the reference to it."""

    def __init__(self, app: FhirApp, bearer: str, who: str) -> None:
        super().__init__(app, bearer)
        self.who = who

    def call(self, path: str, body: Resource | None = None) -> httpx.Response:
        return self.send("POST", path, body)

    def done(self, path: str, body: Resource | None = None) -> Resource:
        """What an operation answers, which must succeed."""
        answer = self.call(path, body)
        assert answer.status_code in {200, 201}, answer.text
        return load(answer)
