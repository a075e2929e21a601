"""Reading at the screen: worklist, report with autosave, signing, what follows a report, critical results."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from smart_auth.users import User
from tests import console_steps, console_world
from tests.console_steps import reading as steps
from tests.console_world import CT_CHEST, LOINC, ConsoleWorld, Resource, faults, press
from tests.people_app import PASSWORD, Device

FINDINGS, IMPRESSION, COMPARISON, RECOMMENDATION, ADDENDUM = "59776-5", "19005-8", "18834-2", "18783-1", "55107-7"
_SNOMED = "http://snomed.info/sct"


def section(code: str, text: str) -> Resource:
    return {"part": [{"name": "code", "valueCode": code}, {"name": "text", "valueString": text}]}


class Room:
    """What these tests have: radiologists, a referrer, a template, and studies that wait to be read."""

    def __init__(self, console: ConsoleWorld) -> None:
        self.console = console
        self.ada = self.radiologist("405279007")
        self.otto = self.radiologist("405279007")
        self.referrer = console.user("referrer")
        for priority, minutes in (("stat", 30), ("urgent", 240)):
            console.create(_target(priority, minutes))
        self.template = console.create(_template())

    def radiologist(self, kind: str) -> User:
        user = self.console.user("radiologist")
        code = [{"coding": [{"system": _SNOMED, "code": kind}]}]
        self.console.create({"resourceType": "PractitionerRole", "practitioner": {"reference": user.fhir_user}, "code": code})
        return user

    def study(self, patient: Resource | None = None, **order: Any) -> Resource:
        """The reading of an examination that was just done."""
        asked = self.console.order(patient, **{"requester": {"reference": self.referrer.fhir_user}, **order})
        (step,) = self.console.steps(asked)
        link = {"url": "urn:fhir-ris:scheduled-procedure-step", "valueReference": {"reference": f"Task/{step['id']}"}}
        self.console.create(
            {
                "resourceType": "Procedure",
                "status": "completed",
                "subject": asked["subject"],
                "basedOn": [step["focus"]],
                "performedPeriod": {"start": "2026-09-08T08:05:00Z", "end": "2026-09-08T08:15:00Z"},
                "extension": [link],
            }
        )
        (reading,) = self.console.search("Task", based_on=step["focus"]["reference"], code="interpretation")
        return reading

    def report(self, reading: Resource) -> Resource:
        """The report of a reading as it is now."""
        found = self.console.search("DiagnosticReport", based_on=reading["basedOn"][0]["reference"])
        return next(r for r in found if r["status"] not in {"cancelled", "entered-in-error"})

    def said(self, report: Resource) -> dict[str, str]:
        """What the sections of a report say now, by their codes."""
        now = self.console.read(f"DiagnosticReport/{report['id']}")
        results = [self.console.read(r["reference"]) for r in now.get("result", ())]
        return {o["code"]["coding"][0]["code"]: o["valueString"] for o in results}

    def begun(self, page: Page, reading: Resource) -> Resource:
        """The draft that the person at this page begins, with its editor open."""
        steps.start_report(page, reading["id"], {})
        return self.report(reading)

    def signed(self, page: Page, reading: Resource) -> Resource:
        report = self.begun(page, reading)
        steps.write(
            page, report["id"], {"section": [section(FINDINGS, "Nodule in the left lobe."), section(IMPRESSION, "Nodule.")]}
        )
        steps.sign(page, report["id"], {})
        return self.report(reading)


def _target(priority: str, minutes: int) -> Resource:
    """Until when what is this urgent should be reported."""
    duration = {"value": minutes, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}
    name = [{"system": "urn:fhir-ris:reading-target", "value": priority}]
    made = {"resourceType": "ActivityDefinition", "status": "active", "kind": "Task", "identifier": name}
    return made | {"priority": priority, "timingDuration": duration}


def _template() -> Resource:
    focus = {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "focus"}
    blocks = {"normal": "Lungs clear, [side] pleura free.\nHeart ___ size.", "nodule": "Nodule of [size] mm."}
    options = [
        {"valueCoding": {"code": name, "display": text}} | ({"initialSelected": True} if name == "normal" else {})
        for name, text in blocks.items()
    ]
    return {
        "resourceType": "Questionnaire",
        "status": "active",
        "title": "CT of the chest",
        "code": [{"system": "urn:fhir-ris:questionnaire", "code": "report-template"}],
        "useContext": [{"code": focus, "valueCodeableConcept": CT_CHEST}],
        "item": [
            {"linkId": "1", "code": [{"system": LOINC, "code": FINDINGS}], "type": "open-choice", "answerOption": options},
            {"linkId": "2", "code": [{"system": LOINC, "code": IMPRESSION}], "text": "Impression", "type": "text"},
        ],
    }


@pytest.fixture(scope="module")
def room(console: ConsoleWorld) -> Room:
    return Room(console)


@pytest.fixture(scope="module")
def ada(room: Room) -> Page:
    """The browser of an attending, which most tests use."""
    return room.console.at(room.ada, "/reading")


def field(page: Page, code: str = FINDINGS) -> Any:
    return page.locator(f"[data-section='{code}']")


def saved(page: Page) -> None:
    expect(page.locator("#save-state")).to_have_class(re.compile(r"\bsaved\b"))


def state(page: Page) -> Any:
    return page.locator("#save-state")


# The worklist


def test_the_list_is_by_urgency_and_filtered_and_read_by_keyboard_alone(room: Room, ada: Page) -> None:
    site = [{"coding": [{"system": _SNOMED, "code": "51185008"}], "text": "Thorax"}]
    room.study()
    urgent = room.study(priority="urgent", bodySite=site)
    stat = room.study(priority="stat", modality="MR")
    ada.goto("/reading")
    rows = ada.locator("[data-row]")
    expect(rows.nth(0)).to_contain_text("emergency")
    expect(rows.nth(0)).to_contain_text(re.compile(r"in \d+ min"))
    expect(rows.nth(1)).to_contain_text("urgent")
    ada.get_by_label("Body site").select_option("Thorax")
    expect(rows).to_have_count(1)
    ada.get_by_role("link", name="Clear filters").click()
    ada.get_by_label("Modality").select_option("MR")
    expect(rows).to_have_count(1)
    # Claim what is first, begin, write, sign, go on: by keys alone.
    ada.goto("/reading")
    press(ada, "j")
    press(ada, "c")
    expect(ada.locator("#done")).to_have_text("It is yours.")
    assert room.console.read(f"Task/{stat['id']}")["owner"]["reference"] == room.ada.fhir_user
    press(ada, "b")
    expect(field(ada)).to_have_value(re.compile("Lungs clear"))
    press(ada, "F4")
    expect(field(ada)).to_be_focused()
    press(ada, "F2")
    ada.keyboard.type("left")
    press(ada, "F2")
    ada.keyboard.type("normal")
    expect(field(ada)).to_have_value("Lungs clear, left pleura free.\nHeart normal size.")
    press(ada, "F4")
    expect(field(ada, IMPRESSION)).to_be_focused()
    ada.keyboard.type("No acute finding.")
    press(ada, "F8")
    expect(ada.locator("#done")).to_have_text("The report is signed and on its way.")
    report = room.report(stat)
    assert report["status"] == "final"
    assert room.said(report) == {FINDINGS: "Lungs clear, left pleura free.\nHeart normal size.", IMPRESSION: "No acute finding."}
    press(ada, "n")
    expect(ada.locator("#done")).to_have_text("It is yours.")
    expect(ada).to_have_url(re.compile(urgent["id"]))
    press(ada, "r")
    expect(ada.locator("#done")).to_have_text("It is back on the list.")
    assert "owner" not in room.console.read(f"Task/{urgent['id']}")


def test_of_two_who_claim_one_is_told_who_was_first_and_open_lists_show_it(room: Room, ada: Page) -> None:
    reading = room.study()
    otto = room.console.at(room.otto, "/reading")
    row = otto.locator("[data-row]").filter(has=otto.locator(f"#r-{reading['id']}"))
    expect(row).to_be_visible()
    stale = room.console.at(room.otto, "about:blank")
    stale.route("**/events*", lambda route: route.abort())
    stale.goto("/reading?view=all&modality=CT")
    steps.claim(ada, reading["id"], {})
    expect(row).to_have_count(0)
    stale.locator("[data-row]").filter(has=stale.locator(f"#r-{reading['id']}")).get_by_role("button").click()
    expect(stale.locator("#errors")).to_contain_text("claimed by")
    expect(stale.locator("#first")).to_contain_text("Radiologist")
    expect(stale.locator("h1")).to_have_text("Reading")
    # It is the list that it came from, where one goes on.
    expect(stale).to_have_url(f"{room.console.base}/reading?view=all&modality=CT")
    otto.goto(f"/reading/{reading['id']}")
    expect(otto.locator("main")).to_contain_text("has claimed this")
    assert not otto.locator("#editor, [data-key=b], [data-key=r]").count()
    # Given to the other with a reason, it is the other's without a reload.
    steps.reassign(ada, reading["id"], {"owner": {"reference": room.otto.fhir_user}, "reason": "End of shift"})
    expect(otto.locator("[data-key=r]")).to_be_visible()
    now = room.console.read(f"Task/{reading['id']}")
    assert now["owner"]["reference"] == room.otto.fhir_user
    assert "End of shift" in now["note"][0]["text"]
    steps.release(otto, reading["id"], {})
    with pytest.raises(console_steps.Refused):
        steps.release(ada, reading["id"], {})
    for page in (otto, stale):
        page.context.close()


# The report page


def test_beside_the_editor_stand_order_history_and_priors(room: Room, ada: Page) -> None:
    console = room.console
    patient = console.patient()
    whose = {"reference": f"Patient/{patient['id']}"}
    console.create(
        {"resourceType": "AllergyIntolerance", "patient": whose, "code": {"text": "Iodine"}}
        | _active("allergyintolerance-clinical")
    )
    console.create(
        {"resourceType": "Condition", "subject": whose, "code": {"text": "Colon cancer"}} | _active("condition-clinical")
    )
    room.signed(ada, room.study(patient))
    reading = room.study(patient, priority="urgent", note=[{"text": "Patient is <b>anxious</b>"}])
    ada.goto(f"/reading/{reading['id']}")
    known = ada.locator(".known")
    for text in ("Cough for six weeks", "Iodine", "Colon cancer", "Patient is <b>anxious</b>", "Nodule in the left lobe."):
        expect(known).to_contain_text(text)
    report = room.begun(ada, reading)
    field(ada).fill("")
    ada.locator(".blocks").select_option(label="nodule")
    expect(field(ada)).to_have_value("Nodule of [size] mm.")
    ada.get_by_label("Add a section").select_option("Recommendation")
    expect(field(ada, RECOMMENDATION)).to_be_focused()
    ada.keyboard.type("Follow-up in 6 months.")
    saved(ada)
    assert room.said(report) == {FINDINGS: "Nodule of [size] mm.", RECOMMENDATION: "Follow-up in 6 months."}
    ada.reload()
    expect(field(ada, RECOMMENDATION)).to_have_value("Follow-up in 6 months.")


def test_a_report_is_compared_with_an_earlier_study_by_a_key(room: Room, ada: Page) -> None:
    patient = room.console.patient()
    room.signed(ada, room.study(patient))
    report = room.begun(ada, room.study(patient))
    (earlier,) = (s for s in room.console.search("ImagingStudy", patient=patient["id"]) if s["id"] != _study_of(room, report))
    room.console.update(earlier, started="2026-09-08T08:05:00Z")
    ada.reload()
    field(ada).fill("Smaller than before.")
    ada.locator(".prior summary").focus()
    press(ada, "m")
    expect(ada.locator("#done")).to_have_text("The report is compared with that study.")
    expect(field(ada, COMPARISON)).to_have_value("CT Chest, 8 Sept 2026")
    line = field(ada, COMPARISON).input_value()
    assert room.said(report) == {FINDINGS: "Smaller than before.", COMPARISON: line}
    assert [e["valueReference"]["reference"] for e in room.console.read(f"DiagnosticReport/{report['id']}")["extension"]] == [
        f"ImagingStudy/{earlier['id']}"
    ]
    field(ada, COMPARISON).fill(f"Outside films.\n{line}")
    ada.get_by_role("button", name="No longer compared").click()
    expect(ada.locator("#done")).to_have_text("The report is no longer compared with that study.")
    assert room.said(report) == {FINDINGS: "Smaller than before.", COMPARISON: "Outside films."}
    assert "extension" not in room.console.read(f"DiagnosticReport/{report['id']}")


def test_structured_findings_are_added_and_removed_beside_the_text(room: Room, ada: Page) -> None:
    report = room.begun(ada, room.study())
    name, value, unit = (ada.locator(f"#finding-{part}") for part in ("name", "value", "unit"))
    field(ada).fill("A nodule.")
    press(ada, "Escape")
    press(ada, "i")
    expect(name).to_be_focused()
    ada.keyboard.type("Diameter of the nodule")
    # What is typed and not added is not signed away.
    ada.locator("[data-key=F8]").click()
    expect(ada.locator("#save-trouble")).to_contain_text("not added yet")
    expect(name).to_be_focused()
    value.fill("about 8")
    unit.fill("mm")
    press(ada, "Enter")
    expect(ada.locator("#errors")).to_contain_text("about 8 is no number")
    expect(name).to_have_value("Diameter of the nodule")
    value.fill("<8,50")
    press(ada, "Enter")
    expect(ada.locator("#done")).to_have_text("The finding is added.")
    expect(name).to_have_value("")
    expect(field(ada)).to_have_value("A nodule.")
    expect(ada.locator(".finding-row")).to_contain_text("Diameter of the nodule: < 8.50 mm")
    name.fill("Shape")
    value.fill("round")
    press(ada, "Enter")
    expect(ada.locator(".finding-row")).to_have_count(2)
    size, shape = (room.console.read(r["reference"]) for r in room.console.read(f"DiagnosticReport/{report['id']}")["result"][1:])
    assert size["valueQuantity"] == {
        "comparator": "<", "value": Decimal("8.50"), "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm",
    }  # fmt: skip
    assert (shape["code"], shape["valueString"]) == ({"text": "Shape"}, "round")
    ada.locator(".finding-row button").nth(1).focus()
    press(ada, "-")
    expect(ada.locator("#done")).to_have_text("The finding is removed.")
    assert room.console.read(f"Observation/{shape['id']}")["status"] == "entered-in-error"
    field(ada, IMPRESSION).fill("Nodule.")
    ada.locator("[data-key=F8]").click()
    expect(ada.locator("main .report dl")).to_contain_text("Diameter of the nodule")
    expect(ada.locator("main .report dl")).not_to_contain_text("Shape")


def _add(page: Page, *parts: str) -> None:
    """Type a structured finding, and add it."""
    _type(page, *parts)
    page.keyboard.press("Enter")
    expect(page.locator("#finding-name")).to_have_value("")
    expect(page.locator("#done")).to_have_text("The finding is added.")


def _type(page: Page, *parts: str) -> None:
    for name, part in zip(("name", "value", "unit"), parts, strict=False):
        page.locator(f"#finding-{name}").fill(part)


def _findings(room: Room, report: Resource) -> list[str]:
    """What the structured findings of a report are called."""
    results = [room.console.read(r["reference"]) for r in room.console.read(f"DiagnosticReport/{report['id']}").get("result", ())]
    return [o["code"]["text"] for o in results if o["status"] != "entered-in-error" and "coding" not in o["code"]]


def _unheard(room: Room, path: str) -> Page:
    """A browser of the attending that no event reaches."""
    page = room.console.at(room.ada, "about:blank")
    page.route("**/events*", lambda route: route.abort())
    page.goto(path)
    return page


def test_nothing_is_signed_that_the_page_did_not_show(room: Room, ada: Page) -> None:
    patient = room.console.patient()
    room.signed(ada, room.study(patient))
    reading = room.study(patient)
    report = room.begun(ada, reading)
    page = _unheard(room, f"/reading/{reading['id']}")
    _add(ada, "Tumour", "80", "mm")
    field(page).fill("Lungs clear.")
    saved(page)
    page.locator("[data-key=F8]").click()
    expect(page.locator("#save-trouble")).to_have_text("Changed meanwhile: + Tumour: 80 mm. Read it, then sign again.")
    expect(page.locator(".finding-row")).to_contain_text("Tumour: 80 mm")
    # The same for what is gone, for another text, and for a comparison.
    ada.locator(".finding-row button").click()
    expect(ada.locator("#done")).to_have_text("The finding is removed.")
    field(ada, IMPRESSION).fill("Clear.")
    saved(ada)
    ada.locator(".prior summary").focus()
    press(ada, "m")
    expect(ada.locator("#done")).to_have_text("The report is compared with that study.")
    page.locator("[data-key=F8]").click()
    for said in ("Comparison; ", "Impression; ", "+ compared: CT Chest", "− Tumour: 80 mm"):
        expect(page.locator("#save-trouble")).to_contain_text(said)
    expect(page.locator(".finding-row")).to_have_count(0)
    expect(page.locator(".prior summary .chip")).to_contain_text("compared")
    assert room.report(reading)["status"] == "registered"
    # A script of before, or none: the server looks, too.
    with room.console.http(room.ada) as client:
        shown = client.get(f"/reading/{reading['id']}").text
        form = {"csrf": _value(shown, "csrf"), "version": _value(shown, "version"), "beside": "of before"}
        assert client.post(f"/reading/reports/{report['id']}/sign", data=form).status_code == 412
    page.locator("[data-key=F8]").click()
    expect(page.locator("#done")).to_have_text("The report is signed and on its way.")
    page.context.close()


def test_numbers_have_one_meaning_and_are_shown_as_the_reader_writes_them(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    for value, ways in (("1,200", "write 1200 or 1.2"), ("<1.234", "write 1234 or 1.2340"), ("-3.000", "write -3000 or -3")):
        _type(ada, "Volume", value, "mL")
        ada.keyboard.press("Enter")
        expect(ada.locator("#errors")).to_contain_text(f"{value} can be read in two ways: {ways}")
    for name, value in (("Ratio", "0,125"), ("Volume", "1200"), ("Dose", "1.20")):
        _add(ada, name, value, "mL")
    expect(ada.locator(".finding-row span")).to_have_text(["Ratio: 0.125 mL", "Volume: 1200 mL", "Dose: 1.20 mL"])
    german = room.console.at(room.ada, f"/reading/{reading['id']}", language="de-DE")
    expect(german.locator(".finding-row span")).to_have_text(["Ratio: 0,125 mL", "Volume: 1200 mL", "Dose: 1,20 mL"])
    german.goto(f"/reading/reports/{report['id']}")
    expect(german.locator(".report dl")).to_contain_text("1,20 mL")
    german.context.close()


def test_a_finding_is_removed_by_its_key_and_not_by_enter(room: Room, ada: Page) -> None:
    report = room.begun(ada, room.study())
    _add(ada, "Tumour", "80", "mm")
    press(ada, "j")
    expect(ada.locator(".finding-row")).to_be_focused()
    press(ada, "Enter")
    ada.reload()
    assert _findings(room, report) == ["Tumour"]
    press(ada, "j")
    press(ada, "-")
    expect(ada.locator("#done")).to_have_text("The finding is removed.")
    assert _findings(room, report) == []


def test_what_is_pressed_twice_is_done_once(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    sent: list[str] = []
    ada.on("request", lambda asked: sent.append(urlsplit(asked.url).path.rpartition("/")[2]) if asked.method == "POST" else None)
    field(ada, IMPRESSION).fill("Tumour.")
    _type(ada, "Tumour", "80", "mm")
    ada.evaluate("document.querySelectorAll('#findings [data-does=add]').forEach((one) => (one.click(), one.click()))")
    expect(ada.locator("#done")).to_have_text("The finding is added.")
    assert _findings(room, report) == ["Tumour"]
    ada.evaluate("document.querySelectorAll('[data-key=F8]').forEach((one) => (one.click(), one.click()))")
    expect(ada.locator("#done")).to_have_text("The report is signed and on its way.")
    assert [path for path in sent if path != "write"] == ["finding", "sign"]
    # Without the script, the second one is of a version that is no more.
    second = room.study()
    draft = room.begun(ada, second)
    with room.console.http(room.ada) as client:
        page = client.get(f"/reading/{second['id']}").text
        form = {"csrf": _value(page, "csrf"), "version": _value(page, "version"), "finding.name": "Cyst", "finding.value": "3"}
        answers = [client.post(f"/reading/reports/{draft['id']}/finding", data=form).status_code for _ in range(2)]
    assert answers == [303, 412]
    assert _findings(room, draft) == ["Cyst"]


def test_without_the_script_text_and_findings_are_one_form(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    page = room.console.at(room.ada, f"/reading/{reading['id']}", java_script_enabled=False)
    field(page).fill("A nodule.")
    _add(page, "Diameter", "8", "mm")
    expect(field(page)).to_have_attribute("data-stored", "A nodule.")
    assert _findings(room, report) == ["Diameter"]
    # What is typed and not added is neither signed away nor lost.
    field(page, IMPRESSION).fill("Nodule.")
    _type(page, "Shape", "round")
    page.locator("[data-key=F8]").click()
    expect(page.locator("#errors")).to_contain_text("not added yet")
    page.locator("[data-does=save]").click()
    expect(page.locator("#done")).to_have_text("Saved.")
    expect(page.locator("#finding-value")).to_have_value("round")
    assert room.report(reading)["status"] == "registered"
    page.locator("#finding-value").press("Enter")
    expect(page.locator(".finding-row")).to_have_count(2)
    page.locator("[data-key=F8]").click()
    expect(page.locator("#done")).to_have_text("The report is signed and on its way.")
    page.context.close()


def test_a_finding_that_is_typed_is_not_lost(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    _add(ada, "Diameter", "8", "mm")
    _type(ada, "Shape", "round")
    ada.reload()
    expect(ada.locator("#finding-name")).to_have_value("Shape")
    # Signed in another browser: it stands there to be copied.
    other = room.console.at(room.ada, f"/reading/{reading['id']}")
    field(other, IMPRESSION).fill("Nodule.")
    saved(other)
    other.locator("[data-key=F8]").click()
    expect(other.locator("#done")).to_be_visible()
    ada.reload()
    expect(ada.locator("[data-left]")).to_contain_text("Shape round")
    ada.get_by_role("button", name="Discard this text").click()
    assert ada.evaluate("sessionStorage.length") == 0
    # Given to somebody else, then added: it is refused, and stands there, too.
    reading = room.study()
    room.begun(ada, reading)
    _type(ada, "Shape", "round")
    steps.reassign(other, reading["id"], {"owner": {"reference": room.otto.fhir_user}, "reason": "End of shift"})
    ada.locator("#finding-value").press("Enter")
    expect(ada.locator("#errors")).to_be_visible()
    expect(ada.locator("#kept")).to_contain_text("Shape round")
    ada.reload()
    expect(ada.locator("[data-left]")).to_contain_text("Shape round")
    ada.get_by_role("button", name="Discard this text").click()
    # Also an addendum, on the page that an earlier one has led to.
    steps.addend(other, report["id"], {"text": "First."})
    at = other.url
    other.goto(f"/reading/reports/{report['id']}/addend")
    other.locator("#text").fill("Second.")
    other.goto(at)
    other.goto(f"/reading/reports/{report['id']}/addend")
    expect(other.locator("#text")).to_have_value("Second.")
    other.context.close()


def test_a_name_from_right_to_left_leaves_the_line_in_its_order(room: Room, ada: Page) -> None:
    patient = room.console.patient(name=[{"family": "כהן", "given": ["דוד"]}])
    ada.goto(f"/reading/{room.study(patient)['id']}")
    left = ada.locator(".patient").evaluate(
        """(place) => {
          const at = (node, from, to) => {
            const range = document.createRange();
            range.setStart(node, from);
            range.setEnd(node, to);
            return range.getBoundingClientRect().left;
          };
          const [name, facts] = [place.querySelector("strong").firstChild, place.querySelector(".facts").firstChild];
          const day = facts.data.search(/\\d/);
          return [at(name, 0, name.length), at(facts, day, day + 1), at(facts, day + 6, day + 7)];
        }"""
    )
    assert left == sorted(left)
    expect(ada.locator(".patient strong")).to_have_text("\u2068כהן, דוד\u2069")


def _study_of(room: Room, report: Resource) -> str:
    based_on = room.console.read(f"DiagnosticReport/{report['id']}")["basedOn"][0]["reference"]
    return str(room.console.search("ImagingStudy", basedon=based_on)[0]["id"])


def _active(system: str) -> Resource:
    coding = {"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": "active"}
    return {"clinicalStatus": {"coding": [coding]}}


def test_what_is_typed_while_the_server_is_away_is_saved_when_it_is_back(room: Room, ada: Page) -> None:
    report = room.begun(ada, room.study())
    ada.context.set_offline(True)
    field(ada).fill("Typed without a connection.")
    expect(state(ada)).to_have_text("not saved: kept in this tab")
    expect(ada.locator("#away")).to_contain_text("No connection")
    field(ada, IMPRESSION).fill("And more.")
    assert "away" not in room.said(report).get(FINDINGS, "")
    ada.context.set_offline(False)
    saved(ada)
    assert room.said(report) == {FINDINGS: "Typed without a connection.", IMPRESSION: "And more."}
    assert ada.evaluate("sessionStorage.length") == 0


def test_what_is_typed_outlives_a_session_for_its_author_alone(room: Room) -> None:
    page = room.console.at(room.otto, "/reading")
    reading = room.study()
    report = room.begun(page, reading)
    room.console.app.in_mongodb("oauth_sessions", {"$set": {"seen": datetime.now(UTC) - timedelta(hours=1)}}, user=room.otto.name)
    field(page).fill("Typed when the session had ended.")
    expect(page.locator("#away")).to_contain_text("kept in this tab")
    expect(page.locator("main")).to_be_empty()
    # After a login in another tab, what was typed is given back when one looks at this one again.
    other = page.context.new_page()
    other.goto("/login")
    _log_in(other, room.otto.name)
    expect(other.locator("h1")).to_be_visible()
    other.close()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(field(page)).to_have_value("Typed when the session had ended.")
    saved(page)
    room.console.app.in_mongodb("oauth_sessions", {"$set": {"seen": datetime.now(UTC) - timedelta(hours=1)}}, user=room.otto.name)
    field(page).fill("Typed when the second session had ended.")
    expect(page.locator("#away")).to_contain_text("kept in this tab")
    # Somebody else at this computer finds nothing of it.
    page.goto(f"/login?next=/reading/{reading['id']}")
    draft = page.evaluate("JSON.stringify(sessionStorage)")
    assert "session had ended" in draft
    _log_in(page, room.otto.name)
    saved(page)
    expect(field(page)).to_have_value("Typed when the second session had ended.")
    assert room.said(report)[FINDINGS] == "Typed when the second session had ended."
    page.evaluate("draft => Object.entries(JSON.parse(draft)).forEach(([k, v]) => sessionStorage.setItem(k, v))", draft)
    page.goto("/login?again")
    _log_in(page, room.ada.name)
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.context.close()


def _log_in(page: Page, name: str) -> None:
    page.locator("[name=name]").fill(name)
    page.locator("[name=password]").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_two_browsers_at_one_report_lose_nothing(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    other = room.console.at(room.ada, f"/reading/{reading['id']}")
    # What only one writes, the other sees as it is saved.
    field(ada).fill("First findings.")
    saved(ada)
    expect(field(other)).to_have_value("First findings.")
    # Both write the same section, and one of them another one, which crosses nothing.
    other.context.set_offline(True)
    field(other).fill("Findings of the other.")
    field(other, IMPRESSION).fill("Impression of the other.")
    expect(state(other)).to_have_text("not saved: kept in this tab")
    field(ada).fill("Findings of the one.")
    saved(ada)
    other.context.set_offline(False)
    expect(state(other)).to_have_text("not saved: changed in another browser")
    both = other.locator(".both-texts")
    expect(both).to_contain_text("Findings of the one.")
    expect(field(other)).to_have_value("Findings of the other.")
    assert faults(other) == []
    both.get_by_role("button", name="Keep both").click()
    saved(other)
    expect(field(ada)).to_have_value("Findings of the other.\n\nFindings of the one.")
    expect(field(ada, IMPRESSION)).to_have_value("Impression of the other.")
    assert room.said(report)[FINDINGS] == "Findings of the other.\n\nFindings of the one."
    # Signed in one browser, what the other was just typing is shown there, and not lost.
    other.context.set_offline(True)
    field(other).fill("Too late.")
    expect(state(other)).to_have_text("not saved: kept in this tab")
    ada.locator("[data-key=F8]").click()
    expect(ada.locator("#done")).to_be_visible()
    other.context.set_offline(False)
    expect(other.locator("#save-trouble")).not_to_be_empty()
    expect(field(other)).to_have_value("Too late.")
    other.once("dialog", lambda dialog: dialog.accept())
    other.reload()
    expect(other.locator("[data-left]")).to_contain_text("Too late.")
    other.get_by_role("button", name="Discard this text").click()
    assert other.evaluate("sessionStorage.length") == 0
    assert room.said(report)[FINDINGS] == "Findings of the other.\n\nFindings of the one."
    other.context.close()


def test_without_the_script_a_stale_page_shows_both_texts_and_overwrites_nothing(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.begun(ada, reading)
    with room.console.http(room.ada) as client:
        page = client.get(f"/reading/{reading['id']}").text
        form = {
            "csrf": _value(page, "csrf"),
            "version": report["meta"]["versionId"],
            "code": FINDINGS,
            f"section.{FINDINGS}": "Mine.",
        }
        field(ada).fill("Theirs.")
        saved(ada)
        answer = client.post(f"/reading/reports/{report['id']}/sign", data=form)
        assert answer.status_code == 412
        assert "Theirs." in answer.text
        assert "Mine.</textarea>" in answer.text
        assert room.report(reading)["status"] == "registered"
        assert client.post(f"/reading/reports/{report['id']}/sign", data=form | {"csrf": "x"}).status_code == 403
        again = form | {"version": _value(answer.text, "version")}
        assert client.post(f"/reading/reports/{report['id']}/sign", data=again).status_code == 303
    assert (room.report(reading)["status"], room.said(report)[FINDINGS]) == ("final", "Mine.")


def _value(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', page)
    assert found
    return found[1]


def test_a_residents_report_is_preliminary_until_an_attending_signs_it(room: Room, ada: Page) -> None:
    resident = room.console.at(room.radiologist("405277009"), "/reading")
    reading = room.study()
    report = room.begun(resident, reading)
    field(resident, IMPRESSION).fill("Probably nothing.")
    saved(resident)
    ada.goto("/reading?view=preliminary")
    steps.sign(resident, report["id"], {})
    expect(resident.locator("#done")).to_have_text("The report is preliminary.")
    ada.locator(f"#r-{reading['id']}").click()
    field(ada, IMPRESSION).fill("Nothing.")
    ada.locator("[data-key=F8]").click()
    expect(ada.locator("#done")).to_have_text("The report is signed and on its way.")
    assert room.report(reading)["status"] == "final"
    # What is the attending's own can be preliminary, too.
    other = room.study()
    draft = room.begun(ada, other)
    field(ada, IMPRESSION).fill("To be discussed.")
    ada.locator("[data-key=F9]").click()
    expect(ada.locator("#done")).to_have_text("The report is preliminary.")
    now = room.report(other)
    assert (now["id"], now["status"]) == (draft["id"], "preliminary")
    assert any(f["contentType"] == "application/pdf" for f in now["presentedForm"])
    resident.context.close()


# After it


def test_a_signed_report_is_addended_corrected_and_withdrawn_and_goes_out_as_text_and_pdf(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.signed(ada, reading)
    steps.addend(ada, report["id"], {"text": "Compared with 2024: <i>unchanged</i>."})
    assert room.report(reading)["status"] == "appended"
    expect(ada.locator(".report")).to_contain_text("<i>unchanged</i>")
    # Somebody else was faster with a correction: nothing is overwritten, and what was typed is still there.
    ada.goto(f"/reading/reports/{report['id']}/correct")
    ada.locator(f"#s-{FINDINGS}").fill("Nodule in the middle lobe.")
    ada.locator("#reason").fill("Wrong lobe")
    otto = room.console.at(room.otto, f"/reading/reports/{report['id']}")
    change = {"section": section(FINDINGS, "Nodule in the right lobe."), "reason": "Wrong side"}
    steps.correct(otto, report["id"], change)
    ada.locator("main form [data-key=F8]").click()
    expect(ada.locator("#errors")).to_be_visible()
    expect(ada.locator(f"#s-{FINDINGS}")).to_have_value("Nodule in the middle lobe.")
    expect(ada.locator(".report")).to_contain_text("Nodule in the right lobe.")
    assert room.said(report)[FINDINGS] == "Nodule in the right lobe."
    steps.verify(otto, report["id"], {})
    expect(otto.locator("#signatures tbody tr")).to_have_count(3)
    assert otto.locator("#signatures .chip.bad").count() == 0
    with room.console.http(room.referrer) as client:
        page = client.get(f"/reading/reports/{report['id']}").text
        links = re.findall(rf"/reading/reports/{report['id']}/documents/\d+", page)
        sent = [client.get(link) for link in dict.fromkeys(links)]
        kinds = {answer.headers["content-type"]: answer.content for answer in sent}
        assert "Nodule in the right lobe." in kinds["text/plain; charset=utf-8"].decode()
        assert kinds["application/pdf"].startswith(b"%PDF")
        assert client.get(f"/reading/reports/{report['id']}/documents/99").status_code == 404
    steps.withdraw(otto, report["id"], {"reason": "Another patient's study was open"})
    assert room.console.read(f"DiagnosticReport/{report['id']}")["status"] == "entered-in-error"
    (again,) = [t for t in room.console.search("Task", based_on=reading["basedOn"][0]["reference"]) if t["status"] == "requested"]
    ada.goto(f"/reading/{again['id']}")
    expect(ada.get_by_text("Withdrawn reports")).to_be_visible()
    with pytest.raises(console_steps.Refused, match="entered-in-error"):
        steps.addend(ada, report["id"], {"text": "Too late"})
    otto.context.close()


def test_a_kept_correction_reverts_nothing_that_another_has_corrected(room: Room, ada: Page) -> None:
    report = room.signed(ada, room.study())
    otto = room.console.at(room.otto, f"/reading/reports/{report['id']}")
    page = f"/reading/reports/{report['id']}/correct"

    def right(text: str) -> None:
        steps.correct(otto, report["id"], {"section": section(FINDINGS, text), "reason": "Wrong side"})

    ada.goto(page)
    ada.locator("#reason").fill("Typing error")
    ada.go_back()
    right("Nodule in the RIGHT lobe.")
    ada.goto(page)
    expect(ada.locator("#reason")).to_have_value("Typing error")
    expect(ada.locator(f"#s-{FINDINGS}")).to_have_value("Nodule in the RIGHT lobe.")
    ada.locator(f"#s-{IMPRESSION}").fill("Nodule, probably benign.")
    # Corrected while the page stands there: what was not touched on it is the other's.
    right("Nodule in the RIGHT upper lobe.")
    ada.locator("main form [data-key=F8]").click()
    expect(ada.locator("#errors")).to_be_visible()
    expect(ada.locator(f"#s-{FINDINGS}")).to_have_value("Nodule in the RIGHT upper lobe.")
    ada.locator("main form [data-key=F8]").click()
    expect(ada.locator("#done")).to_be_visible()
    assert room.said(report) == {FINDINGS: "Nodule in the RIGHT upper lobe.", IMPRESSION: "Nodule, probably benign."}
    # Both have changed a section: both texts stand there until one has chosen.
    ada.goto(page)
    ada.locator(f"#s-{FINDINGS}").fill("Nodule in the middle lobe.")
    ada.go_back()
    right("Nodule in the lower lobe.")
    for _ in range(2):
        ada.goto(page)
        expect(ada.locator(".both-texts")).to_contain_text("Nodule in the lower lobe.")
        expect(ada.locator(f"#s-{FINDINGS}")).to_have_value("Nodule in the middle lobe.")
        ada.locator("#reason").fill("Wrong lobe")
    ada.locator("main form [data-key=F8]").click()
    expect(ada.get_by_role("button", name="Keep mine")).to_be_focused()
    assert faults(ada) == []
    ada.get_by_role("button", name="Keep both").click()
    ada.locator("main form [data-key=F8]").click()
    expect(ada.locator("#done")).to_be_visible()
    assert room.said(report)[FINDINGS] == "Nodule in the middle lobe.\n\nNodule in the lower lobe."
    assert not ada.evaluate("id => Object.keys(sessionStorage).some((name) => name.includes(id))", report["id"])
    otto.context.close()


# Critical results


def test_a_critical_result_is_told_and_acknowledged(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.signed(ada, reading)
    referrer = room.console.at(room.referrer, "/reading/critical")
    expect(referrer.locator("main")).to_contain_text("No critical result is open.")
    stranger = room.console.at("referrer", "/reading/critical")
    steps.critical(ada, report["id"], {"category": "RID49480", "finding": "Pneumothorax on the left"})
    expect(ada.locator("main")).to_contain_text("open until somebody")
    (request,) = room.console.search("CommunicationRequest", subject=report["subject"]["reference"])
    # It is on the referrer's page without a reload, and on nobody else's.
    expect(referrer.locator(f"#c-{request['id']}")).to_be_visible()
    stranger.reload()
    expect(stranger.locator("main")).to_contain_text("No critical result is open.")
    assert stranger.goto(f"/reading/critical/{request['id']}").status == 404  # type: ignore[union-attr]
    # Nobody tells it to oneself, and without read-back it isn't told.
    expect(ada.locator(f"#by option[value='{room.ada.fhir_user}']")).to_have_count(0)
    steps.acknowledge(referrer, request["id"], {})
    expect(ada.locator("main")).to_contain_text("acknowledged")
    (told,) = room.console.search("Communication", based_on=f"CommunicationRequest/{request['id']}")
    assert told["recipient"] == [{"reference": room.referrer.fhir_user}]
    ada.goto(f"/reading/reports/{report['id']}")
    expect(ada.locator(".told.good")).to_contain_text("has acknowledged it")
    assert faults(ada) == []
    # By telephone, as the radiologist records it.
    steps.critical(ada, report["id"], {"category": "RID49481", "finding": "Also a fracture"})
    second = next(
        r
        for r in room.console.search("CommunicationRequest", status="active")
        if r["about"][0]["reference"].endswith(report["id"])
    )
    ada.goto(f"/reading/critical/{second['id']}")
    ada.locator("main [data-key=F8]").click()
    expect(ada.locator("[name=read-back]")).to_be_focused()  # the browser asks for it
    given = {"by": {"reference": room.referrer.fhir_user}, "medium": "PHONE", "read_back": True}
    steps.acknowledge(ada, second["id"], given)
    expect(ada.locator("main dl")).to_contain_text(re.compile("telephone.*read back"))
    for page in (referrer, stranger):
        page.context.close()


# Who may


def test_other_roles_get_nowhere_they_must_not(room: Room, ada: Page) -> None:
    reading = room.study()
    report = room.signed(ada, reading)
    reads = f"/reading/reports/{report['id']}"
    writes = [f"{reads}/{a}" for a in ("addend", "correct", "withdraw")]
    shown = ["/reading", f"/reading/{reading['id']}", *writes, f"{reads}/text"]
    done = [
        *writes,
        f"{reads}/write",
        f"{reads}/sign",
        "/reading/next",
        *(f"/reading/{reading['id']}/{a}" for a in ("claim", "start")),
    ]
    for role in ("technologist", "scheduler", "interface-admin", "auditor"):
        with room.console.http(role) as client:
            token = _value(client.get("/").text, "csrf")
            assert client.get(reads).status_code == (200 if role == "technologist" else 403), role
            for path in [*shown, "/reading/critical", f"{reads}/documents/0"]:
                expected = 200 if role == "technologist" and path.endswith("/0") else 403
                assert client.get(path).status_code == expected, f"{role} at {path}"
            for path in done:
                assert client.post(path, data={"csrf": token, "text": "x", "reason": "x"}).status_code == 403, f"{role} at {path}"
    with room.console.http("referrer") as client:  # who doesn't treat this patient
        assert client.get(reads).status_code == 404
        assert client.get(f"{reads}/documents/0").status_code == 404
        assert client.get("/reading").status_code == 403
    assert room.report(reading)["status"] == "final"


def test_it_speaks_german(room: Room) -> None:
    page = room.console.at(room.otto, "/reading", language="de-DE")
    expect(page.get_by_role("button", name="Nächste übernehmen")).to_be_visible()
    room.begun(page, room.study())
    expect(page.get_by_label("Beurteilung", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Signieren")).to_be_visible()
    page.context.close()


# With a second factor, and an outside viewer


@pytest.fixture
def strict(mongodb_uri: str, tmp_path: Path, chromium: Browser) -> Iterator[ConsoleWorld]:
    """A department that signs with a second factor, and has a viewer."""
    settings = {"sign_second_factor_minutes": 5, "viewer_url": "https://viewer.example/?study={study}"}
    with console_world.console_world(mongodb_uri, tmp_path, chromium, **settings) as world:
        yield world


def test_who_signs_is_asked_for_the_second_factor_and_comes_back_to_the_report(strict: ConsoleWorld) -> None:
    room = Room(strict)
    page = strict.at(room.ada, "/reading")
    reading = room.study()
    report = room.begun(page, reading)
    study = strict.read(reading["focus"]["reference"])
    uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
    expect(page.get_by_role("link", name="Images").first).to_have_attribute("href", f"https://viewer.example/?study={uid}")
    # Who has no second factor is told to set one up; the text is saved.
    field(page, IMPRESSION).fill("Signed twice.")
    page.locator("[data-key=F8]").click()
    expect(page.locator("#errors")).to_contain_text("You have no second factor yet")
    assert room.said(report)[IMPRESSION] == "Signed twice."
    device = strict.app.with_device(room.ada)
    _prove(page, strict.app, room.ada, device, f"/reading/{reading['id']}")
    _older(strict.app, room.ada)
    field(page, IMPRESSION).fill("Signed once.")
    page.locator("[data-key=F8]").click()
    _prove(page, strict.app, room.ada, device)
    expect(page).to_have_url(re.compile(f"/reading/{reading['id']}"))
    expect(field(page, IMPRESSION)).to_have_value("Signed once.")
    page.locator("[data-key=F8]").click()
    expect(page.locator("#done")).to_have_text("The report is signed and on its way.")
    # An addendum that was typed is there again after the login.
    _older(strict.app, room.ada)
    page.goto(f"/reading/reports/{report['id']}/addend")
    page.locator("#text").fill("Typed before the login.")
    page.locator("main form [data-key=F8]").click()
    _prove(page, strict.app, room.ada, device)
    expect(page.locator("#text")).to_have_value("Typed before the login.")
    page.locator("main form [data-key=F8]").click()
    expect(page.locator("#done")).to_be_visible()
    assert room.said(report)[ADDENDUM] == "Typed before the login."
    assert page.evaluate("sessionStorage.length") == 0
    page.context.close()


def _older(app: Any, user: User) -> None:
    """As if the login had been made an hour ago."""
    then = datetime.now(UTC) - timedelta(hours=1)
    app.in_mongodb("oauth_sessions", {"$set": {"authenticated_at": then}}, user=user.name)


def _prove(page: Page, app: Any, user: User, device: Device, path: str = "") -> None:
    """Log in with the second factor, as if its next code had come: at the login page that is shown, or on the way to a path."""
    app.in_mongodb("oauth_users", {"$set": {"second_factor.last_step": 0}}, _id=user.name)
    device.last = 0
    if path:
        page.goto(f"/login?again&next={path}")
    _log_in(page, user.name)
    page.locator("[name=code]").fill(device.code())
    page.locator("main form button, form .full").first.click()
    expect(page.locator("#content")).to_be_visible()


def test_no_script_failed_and_none_broke_the_policy(room: Room) -> None:
    """Last: it looks at what the browsers have complained of so far."""
    known = ("status of 4", "ERR_INTERNET_DISCONNECTED", "ERR_FAILED", "ERR_INCOMPLETE_CHUNKED", "ERR_NETWORK")
    assert [c for c in room.console.complaints if not any(part in c for part in known)] == []
