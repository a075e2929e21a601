"""What the report page shows and keeps of a report and its patient that came by other doors than this page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console_world import LOINC, ConsoleWorld, Resource
from tests.test_console_reading import FINDINGS, IMPRESSION, Room, field, saved

_ALLERGY = "http://terminology.hl7.org/CodeSystem/allergyintolerance-"
_CONDITION = "http://terminology.hl7.org/CodeSystem/condition-"


@pytest.fixture(scope="module")
def room(console: ConsoleWorld) -> Room:
    return Room(console)


@pytest.fixture(scope="module")
def ada(room: Room) -> Iterator[Page]:
    page = room.console.at(room.ada, "/reading")
    yield page
    page.context.close()


def section(room: Room, report: Resource, code: Resource, **value: object) -> Resource:
    """One more section of a report, by another door."""
    kind = [{"coding": [{"system": "urn:fhir-ris:report-section", "code": "section"}]}]
    return observation(room, report, code, category=kind, **value)


def observation(room: Room, report: Resource, code: Resource, **elements: object) -> Resource:
    """One more Observation of a report, by another door."""
    made = {"resourceType": "Observation", "status": "preliminary", "code": code, "subject": report["subject"]} | elements
    observation = room.console.create(made)
    now = room.console.read(f"DiagnosticReport/{report['id']}")
    result = [*now.get("result", ()), {"reference": f"Observation/{observation['id']}"}]
    return room.console.update(now, result=result)


def loinc(code: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code}]}


def test_two_sections_of_one_code_stand_in_one_field_and_nothing_of_them_is_lost(room: Room, ada: Page) -> None:
    report = room.begun(ada, room.study())
    report = section(room, report, loinc(FINDINGS), valueString="Second findings.")
    ada.reload()
    both = f"{room.console.read(report['result'][0]['reference'])['valueString']}\n\nSecond findings."
    expect(field(ada)).to_have_value(both)
    field(ada, IMPRESSION).fill("Normal.")
    saved(ada)
    now = room.console.read(f"DiagnosticReport/{report['id']}")
    assert [r["reference"] for r in now["result"][:2]] == [r["reference"] for r in report["result"]]
    field(ada).fill(f"{both} And more.")
    saved(ada)
    assert room.said(report) == {FINDINGS: f"{both} And more.", IMPRESSION: "Normal."}


def test_what_was_refuted_or_is_over_is_no_allergy_and_no_condition(room: Room, ada: Page) -> None:
    console, patient = room.console, room.console.patient()
    subject = {"reference": f"Patient/{patient['id']}"}
    allergy = {"resourceType": "AllergyIntolerance", "patient": subject}
    condition = {"resourceType": "Condition", "subject": subject}
    for name, clinical, verified in (
        ("Iodine", "active", "confirmed"), ("Latex", "active", "refuted"), ("Nickel", "", "entered-in-error"),
        ("Penicillin", "resolved", "confirmed"),
    ):  # fmt: skip
        console.create(allergy | {"code": {"text": name}} | states(_ALLERGY, clinical, verified))
    for name, verified in (("Asthma", "confirmed"), ("Gout", "refuted")):
        console.create(condition | {"code": {"text": name}} | states(_CONDITION, "active", verified))
    reading = room.study(patient)
    procedure = console.read(reading["basedOn"][0]["reference"])
    for address, part in (
        (f"/reading/{reading['id']}", ".known"),
        (f"/orders/{procedure['basedOn'][0]['reference'][15:]}", "main"),
    ):
        ada.goto(address)
        known = ada.locator(part)
        expect(known).to_contain_text("Iodine")
        for name in ("Latex", "Nickel", "Penicillin", "Gout"):
            expect(known).not_to_contain_text(name)
    ada.goto(f"/reading/{reading['id']}")
    expect(ada.locator(".known")).to_contain_text("Asthma")


def states(system: str, clinical: str, verified: str) -> Resource:
    said = {
        "clinicalStatus": ("clinical", clinical),
        "verificationStatus": ("ver-status" if system == _CONDITION else "verification", verified),
    }
    return {e: {"coding": [{"system": f"{system}{kind}", "code": code}]} for e, (kind, code) in said.items() if code}
