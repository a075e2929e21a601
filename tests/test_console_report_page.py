"""What the report page shows and keeps of a report and its patient that came by other doors than this page."""

from base64 import b64decode
from collections.abc import Iterator
from decimal import Decimal

import pytest
from playwright.sync_api import Page, expect

from tests.console_world import LOINC, ConsoleWorld, Resource, press
from tests.test_console_reading import COMPARISON, FINDINGS, IMPRESSION, Room, field, saved

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


def test_all_that_is_signed_is_seen_beside_the_editor_and_in_the_readers_numbers(room: Room) -> None:
    page = room.console.at(room.otto, "/reading", language="de-DE")
    report = room.begun(page, room.study())
    said = room.console.read(report["result"][0]["reference"])["valueString"]
    mm = {"system": "http://unitsofmeasure.org", "code": "mm"}
    parts = [
        {"code": {"text": text}, "valueQuantity": {"value": Decimal(n), **mm}} for text, n in (("long", "8.50"), ("short", "4"))
    ]
    observation(room, report, {"text": "Nodule"}, component=parts)
    observation(room, report, {"text": "Enhancing"}, valueBoolean=True)
    observation(room, report, {"text": "Seen at"}, valueDateTime="2024-03-01T08:00:00Z")
    observation(room, report, {"text": "Pneumothorax"})
    section(room, report, {"text": "Dose"}, valueString="DLP 300 mGy*cm")
    section(room, report, loinc(FINDINGS), valueCodeableConcept={"text": "Coded"})
    page.reload()
    rows = page.locator(".finding-row span")
    shown = ["Nodule: long 8,50 mm; short 4 mm", "Enhancing: Ja", "Seen at: 01.03.2024, 08:00:00", "Pneumothorax: –"]
    expect(rows).to_have_text([*shown, f"{FINDINGS}: Coded"])
    expect(page.locator("[data-part=other-sections]")).to_contain_text("DLP 300 mGy*cm")
    expect(field(page)).to_have_value(said)
    field(page, IMPRESSION).fill("Normal.")
    press(page, "F8")
    expect(page.locator("#done")).to_be_visible()
    for text in ("Dose", "DLP 300 mGy*cm", "long 8,50 mm"):
        expect(page.locator("main .report")).to_contain_text(text)
    forms = room.console.read(f"DiagnosticReport/{report['id']}")["presentedForm"]
    form = next(f for f in forms if f["contentType"].startswith("text/plain"))
    words = b64decode(form["data"]).decode()
    for text in (
        "Nodule: long 8.50 mm; short 4 mm",
        "Enhancing: yes",
        "Seen at: 2024-03-01 08:00 UTC",
        "Pneumothorax\n",
        "DLP 300",
    ):
        assert text in words
    page.context.close()


# Comparisons


def compared(room: Room, page: Page, count: int, **elements: object) -> tuple[Resource, list[Resource]]:
    """A draft that is open at this page, and so many earlier studies of its patient."""
    patient = room.console.patient()
    studies = [
        room.console.create(
            {"resourceType": "ImagingStudy", "status": "available", "subject": {"reference": f"Patient/{patient['id']}"}}
            | {"started": "2024-03-01T08:00:00Z", "description": "CT Chest"} | elements
        )
        for _ in range(count)
    ]  # fmt: skip
    return room.begun(page, room.study(patient)), studies


def names(room: Room, report: Resource) -> list[Resource]:
    return [e["valueReference"] for e in room.console.read(f"DiagnosticReport/{report['id']}").get("extension", ())]


def compare(page: Page, study: Resource) -> None:
    page.locator(f".known button[value='ImagingStudy/{study['id']}']").evaluate("button => button.click()")


def test_what_a_report_names_and_no_list_has_is_shown_and_taken_away(room: Room, ada: Page) -> None:
    console = room.console
    report, (secret, wrong, third) = compared(room, ada, 3)
    outside = {"display": "CT of 2019, elsewhere"}
    named = [*({"reference": f"ImagingStudy/{s['id']}"} for s in (secret, wrong)), outside]
    url = "https://profiles.ihe.net/RAD/IDR/StructureDefinition/associatedStudy"
    console.update(console.read(f"DiagnosticReport/{report['id']}"), extension=[{"url": url, "valueReference": r} for r in named])
    label = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}
    console.update(secret, meta=secret["meta"] | label, description="Secret")
    console.update(wrong, status="entered-in-error", description="Wrong")
    ada.reload()
    rows = ada.locator("p.prior")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("An examination that is not shown to you")
    expect(rows.nth(1)).to_contain_text("Wrong 1 Mar 2024")
    expect(rows.nth(2)).to_contain_text("CT of 2019, elsewhere")
    expect(ada.locator("main")).not_to_contain_text("Secret")
    compare(ada, third)
    expect(ada.locator("#done")).to_have_text("The report is compared with that study.")
    for study in (secret, wrong, third):
        compare(ada, study)
        expect(ada.locator("#done")).to_contain_text("no longer compared")
        expect(ada.locator(f"button[name=apart][value='ImagingStudy/{study['id']}']")).to_have_count(0)
    assert names(room, report) == [outside]


def test_a_line_stays_as_long_as_another_study_has_the_same(room: Room, ada: Page) -> None:
    report, (one, other) = compared(room, ada, 2)
    for study in (one, other):
        compare(ada, study)
        expect(ada.locator(f"button[name=apart][value='ImagingStudy/{study['id']}']")).to_have_count(1)
    expect(field(ada, COMPARISON)).to_have_value("CT Chest, 1 Mar 2024")
    compare(ada, one)
    expect(ada.locator("#done")).to_have_text("The report is no longer compared with that study.")
    expect(field(ada, COMPARISON)).to_have_value("CT Chest, 1 Mar 2024")
    compare(ada, other)
    expect(ada.locator("details.prior button[name=apart]")).to_have_count(0)
    assert COMPARISON not in room.said(report)


def test_a_line_is_found_in_each_language_and_what_was_rewritten_is_left_to_the_author(room: Room, ada: Page) -> None:
    report, (study, *_) = compared(room, ada, 1)
    compare(ada, study)
    expect(field(ada, COMPARISON)).to_have_value("CT Chest, 1 Mar 2024")
    german = room.console.at(room.ada, ada.url, language="de-AT")
    compare(german, study)
    expect(german.locator("#done")).to_have_text("Der Befund ist nicht mehr mit dieser Untersuchung verglichen.")
    assert COMPARISON not in room.said(report)
    compare(german, study)
    expect(field(german, COMPARISON)).to_have_value("CT Chest, 01.03.2024")
    field(german, COMPARISON).fill("CT Chest, 01.03.2024, von auswärts")
    compare(german, study)
    expect(german.locator("#done")).to_contain_text("wurde im Abschnitt Vergleich nicht gefunden")
    assert room.said(report)[COMPARISON] == "CT Chest, 01.03.2024, von auswärts"
    german.context.close()


def states(system: str, clinical: str, verified: str) -> Resource:
    said = {
        "clinicalStatus": ("clinical", clinical),
        "verificationStatus": ("ver-status" if system == _CONDITION else "verification", verified),
    }
    return {e: {"coding": [{"system": f"{system}{kind}", "code": code}]} for e, (kind, code) in said.items() if code}
