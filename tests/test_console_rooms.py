"""The technologist's screen: the rooms of a day, an examination from the arrival to the end, safety, and whose it was."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect
from pydicom.uid import generate_uid

from bridges.dicom import dicom_json
from bridges.dicom.callers import Caller
from bridges.dicom.habits import Habits
from bridges.dicom.mpps import PerformedSteps
from resources import task
from resources.safety import questionnaires
from tests.console_steps import Refused, rooms
from tests.console_world import DCM, LOINC, ConsoleWorld, faults, press
from tests.dicom_client import Scheduled, mpps, mpps_end
from tests.examinations import CLEAN, IOHEXOL, readiness, tracked

MR_BRAIN = {"coding": [{"system": LOINC, "code": "24590-2", "display": "MR Brain"}]}
CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
NATIVE = {"coding": [{"system": "urn:example:protocols", "code": "native", "display": "Native"}]}
Resource = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def questions(console: ConsoleWorld) -> None:
    console.app.run(questionnaires.publish(console.app.ris.interactions))


@pytest.fixture(scope="module")
def technologist(console: ConsoleWorld) -> Page:
    return console.at("technologist", "/rooms")


@pytest.fixture(scope="module")
def radiologist(console: ConsoleWorld) -> Page:
    return console.at("radiologist", "/rooms")


def now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def scheduled(console: ConsoleWorld, modality: str = "CT", minutes: int = 10, **order: Any) -> Resource:
    """A step at a scanner of its own, in so many minutes."""
    code = {"code": MR_BRAIN} if modality == "MR" else {}
    requested = console.order(modality=modality, **code, **order)
    console.booked(requested, console.scanner(modality), now() + timedelta(minutes=minutes))
    (step,) = console.steps(requested)
    return step


def current(console: ConsoleWorld, step: Resource) -> Resource:
    return console.read(f"Task/{step['id']}")


def row(page: Page, step: Resource) -> Any:
    return page.locator("[data-row]", has=page.locator(f"#step-{step['id']}"))


class Scanner:
    """A scanner's performed steps, without the network."""

    def __init__(self, console: ConsoleWorld, title: str) -> None:
        self._console, self._caller = console, Caller(title, "127.0.0.1")
        self._steps = PerformedSteps(console.app.ris.interactions, ZoneInfo("UTC"))

    def begin(self, data: Any) -> Resource:
        data.PerformedProcedureStepStartDate, data.PerformedProcedureStepStartTime = f"{now():%Y%m%d}", f"{now():%H%M%S}"
        self.uid = str(generate_uid(prefix=None))
        self._console.app.run(self._steps.create(self.uid, dicom_json.of_dataset(data), self._caller))
        (found,) = self._console.search("Procedure", identifier=f"urn:dicom:uid|urn:oid:{self.uid}")
        return found

    def end(self) -> None:
        data = mpps_end()
        data.PerformedProcedureStepEndDate, data.PerformedProcedureStepEndTime = f"{now():%Y%m%d}", f"{datetime.now(UTC):%H%M%S}"
        self._console.app.run(self._steps.update(self.uid, dicom_json.of_dataset(data), self._caller))


def title_of(console: ConsoleWorld, step: Resource) -> str:
    return str(console.read(step["owner"]["reference"])["identifier"][0]["value"])


# The board


def test_a_patient_goes_from_list_to_done_by_keyboard_alone(console: ConsoleWorld) -> None:
    step = scheduled(console, priority="urgent")
    page = console.at("technologist", f"/rooms?scanner={step['owner']['reference'].partition('/')[2]}")
    expect(row(page, step)).to_contain_text("urgent")
    press(page, "j")
    press(page, "Tab")
    press(page, "Enter")  # arrived, from the list
    expect(page.locator("#done")).to_be_visible()
    expect(row(page, step)).to_contain_text("arrived")
    press(page, "j")
    press(page, "Enter")
    expect(page.locator("h1")).to_contain_text("CT Chest")
    for key, state in (("p", "prepared"), ("i", "in the room"), ("s", "started")):
        press(page, key)
        expect(page.locator(".path .now")).to_contain_text(state)
    press(page, "d")
    page.locator("dialog#complete").get_by_label("Images").press_sequentially("120")
    press(page, "Enter")
    expect(page.locator("#done")).to_have_text("The examination is done.")
    press(page, "l")
    expect(page.locator(".path .now")).to_contain_text("left")
    assert tracked(current(console, step)) == ["scheduled", "arrived", "prepared", "in-room", "in-progress", "done", "left"]
    (study,) = console.search("ImagingStudy", basedon=step["focus"]["reference"])
    assert study["numberOfInstances"] == 120


def test_what_the_scanner_and_others_do_is_seen_without_a_reload(
    console: ConsoleWorld, technologist: Page, radiologist: Page
) -> None:
    step = scheduled(console)
    technologist.goto("/rooms")
    open_page = console.at("technologist", f"/rooms/steps/{step['id']}")
    open_page.evaluate("window.neverReloaded = true")
    technologist.evaluate("window.neverReloaded = true")
    rooms.track(radiologist, step["id"], {"state": "arrived"})
    expect(row(technologist, step)).to_contain_text("arrived")
    expect(open_page.locator(".path .now")).to_contain_text("arrived")
    begun = Scanner(console, title_of(console, step))
    begun.begin(_mpps_of(console, step))
    expect(row(technologist, step)).to_contain_text("started")
    expect(open_page.locator(".path .now")).to_contain_text("started")
    begun.end()
    expect(open_page.locator(".path .now")).to_contain_text("done")
    assert open_page.evaluate("window.neverReloaded")
    assert technologist.evaluate("window.neverReloaded")


def test_who_is_late_and_which_scanner_is_not_as_usual_is_seen(console: ConsoleWorld, technologist: Page) -> None:
    step = scheduled(console, minutes=-25)
    title = title_of(console, step)
    seen = Habits(console.app.db)
    seen.asked(title, 1)
    console.app.run(seen.flush())
    technologist.goto("/rooms")
    expect(row(technologist, step)).to_contain_text(re.compile("2[5-9] mins? late"))
    room = technologist.locator("section.room", has=row(technologist, step))
    expect(room).to_contain_text("worklist asked")
    console.create(
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": "urn:fhir-ris:task", "code": "interface-alert"}]},
            "identifier": [{"system": "urn:fhir-ris:work-item", "value": f"interface-alert scanner-silent {title}"}],
            "description": f"The scanner {title} has not asked for its worklist since yesterday",
        }
    )
    expect(room).to_contain_text("Stopped asking its worklist.")
    technologist.goto(f"/rooms?day={now().date() + timedelta(days=1)}")
    expect(row(technologist, step)).to_have_count(0)


# An examination


def test_safety_stops_it_until_a_radiologist_clears_it(console: ConsoleWorld, technologist: Page, radiologist: Page) -> None:
    step = scheduled(console, "MR")
    said = {"questionnaire": "mri-safety", "answers": CLEAN["mri-safety"] | {"metal-in-eye": True}}
    rooms.answer(technologist, step["id"], said)
    expect(technologist.locator("[data-part=safety]")).to_contain_text("Possible metal in the eye")
    expect(technologist.locator("[data-opens=clear]")).to_have_count(0)
    (answers,) = console.search("QuestionnaireResponse", patient=step["for"]["reference"])
    assert answers["basedOn"] == [step["focus"]]
    with pytest.raises(Refused, match="can't start: Possible metal in the eye"):
        rooms.start(technologist, step["id"], {})
    with pytest.raises(Refused, match="reason says why"):
        rooms.clear_safety(radiologist, step["focus"]["reference"].partition("/")[2], {"reason": " "})
    rooms.clear_safety(radiologist, step["focus"]["reference"].partition("/")[2], {"reason": "X-ray of the orbits: none"})
    expect(radiologist.locator("[data-part=safety]")).to_contain_text("X-ray of the orbits: none")
    technologist.goto(f"/rooms/steps/{step['id']}")
    rooms.start(technologist, step["id"], {})
    assert current(console, step)["status"] == "in-progress"


def test_an_incomplete_questionnaire_is_refused_and_keeps_what_was_said(console: ConsoleWorld, technologist: Page) -> None:
    step = scheduled(console, "MR")
    technologist.goto(f"/rooms/steps/{step['id']}/questions/mri-safety")
    technologist.locator("form.card").evaluate("form => form.noValidate = true")
    technologist.locator('[name="answer.claustrophobia"][value=true]').check()
    technologist.get_by_role("button", name="Keep the answers").click()
    expect(technologist.locator("#errors")).to_contain_text("not answered: cardiac-device")
    expect(technologist.locator('[name="answer.claustrophobia"][value=true]')).to_be_checked()
    assert faults(technologist) == []


def test_protocol_and_contrast(console: ConsoleWorld, technologist: Page, radiologist: Page) -> None:
    step = scheduled(console)
    procedure = step["focus"]["reference"].partition("/")[2]
    rooms.protocol(
        radiologist,
        procedure,
        {"protocol": NATIVE, "contrast": IOHEXOL, "preparation": "Nothing to eat", "pre_medication": {"text": "Cetirizine"}},
    )
    requested = console.read(f"ServiceRequest/{procedure}")
    assert requested["patientInstruction"] == "Nothing to eat"
    assert [e["valueCodeableConcept"] for e in requested["extension"] if e["url"] == "urn:fhir-ris:contrast-agent"] == [IOHEXOL]
    technologist.goto(f"/rooms/steps/{step['id']}")
    expect(technologist.locator("[data-part=protocol]")).to_contain_text("Iohexol")
    expect(technologist.locator("[data-part=protocol]")).to_contain_text("Cetirizine")
    rooms.track(technologist, step["id"], {"state": "in-room"})
    dose = {"value": 80, "unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL"}
    rooms.give_contrast(technologist, step["id"], {"agent": IOHEXOL, "dose": dose})
    expect(technologist.locator("[data-part=done]")).to_contain_text("Iohexol · 80 mL")
    (given,) = console.search("MedicationAdministration", patient=step["for"]["reference"])
    assert (given["medicationCodeableConcept"], given["dosage"]["dose"]["value"]) == (IOHEXOL, 80)
    console.create(
        {
            "resourceType": "AllergyIntolerance",
            "patient": step["for"],
            "criticality": "high",
            "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": "293637006"}], "text": "Contrast agent"},
        }
    )
    expect(technologist.locator("[data-part=allergies]")).to_contain_text("None known")
    technologist.reload()
    expect(technologist.locator("[data-part=allergies]")).to_contain_text("severe")
    with pytest.raises(Refused, match="A radiologist clears it, or say why"):
        rooms.give_contrast(technologist, step["id"], {"agent": IOHEXOL, "dose": {"value": "12.5"}})
    dialog = technologist.locator("dialog#contrast")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Dose in mL")).to_have_value("12.5")
    dialog.get_by_label("Given all the same").fill("Life at risk")
    dialog.get_by_role("button", name="Save").click()
    expect(technologist.locator("#done")).to_be_visible()
    assert len(console.search("MedicationAdministration", patient=step["for"]["reference"])) == 2


def test_rejected_images_and_an_examination_that_is_stopped_to_be_repeated(console: ConsoleWorld, technologist: Page) -> None:
    step = scheduled(console, minutes=-30)
    began = f"{now() - timedelta(minutes=5):%Y-%m-%dT%H:%M}"
    rooms.start(technologist, step["id"], {"at": began})
    assert current(console, step)["executionPeriod"]["start"].startswith(began)
    blur = {"coding": [{"system": DCM, "code": "111210"}]}
    rooms.repeat(technologist, step["id"], {"reason": blur, "images": 2})
    expect(technologist.locator("[data-part=done]")).to_contain_text("2 images rejected: Motion blur")
    failed = {"coding": [{"system": DCM, "code": "110501"}]}
    rooms.stop(technologist, step["id"], {"reason": failed, "repeat": True, "note": "Tube"})
    assert current(console, step)["status"] == "failed"
    new = technologist.url.partition("/rooms/steps/")[2].partition("?")[0]
    assert console.read(f"Task/{new}")["status"] == "requested"
    expect(technologist.locator("[data-part=done]")).to_contain_text("Other parts of this examination")
    rooms.complete(technologist, new, {"series": 2, "images": 90, "protocol": {"text": "Thorax native"}})
    assert console.read(f"Task/{new}")["status"] == "completed"
    rooms.repeat(technologist, new, {"reason": blur, "new_step": True})
    assert len(console.search("Task", based_on=step["focus"]["reference"], intent="plan")) == 3


def test_who_was_faster_wins_and_the_other_sees_the_present_state(console: ConsoleWorld) -> None:
    step = scheduled(console)
    user = console.user("technologist")
    with console.http("technologist") as slow:
        shown = slow.get(f"/rooms/steps/{step['id']}").text
        rooms.track(console.at(user), step["id"], {"state": "in-room"})
        csrf = re.search('name="csrf" value="([^"]+)"', shown)
        version = re.search('name="version" value="([^"]+)"', shown)
        assert csrf
        assert version
        fields = {"csrf": csrf[1], "version": version[1], "state": "start"}
        answer = slow.post(f"/rooms/steps/{step['id']}/move", data=fields, headers={"Origin": console.base})
    assert answer.status_code == 412
    assert "It is now: in the room" in answer.text
    assert f"Technologist {user.name[-4:]}" in answer.text
    assert "In the room" not in re.findall("<button[^>]*>([^<]*)", answer.text.partition('data-part="moves"')[2])[0]
    assert current(console, step)["status"] == "ready"


def test_check_in_and_a_patient_who_does_not_come(console: ConsoleWorld, technologist: Page) -> None:
    comes, missing = scheduled(console), scheduled(console, minutes=-40)
    one, other = str(task.appointment_of(comes)), str(task.appointment_of(missing))
    rooms.check_in(technologist, one.partition("/")[2], {})
    assert console.read(one)["status"] == "checked-in"
    rooms.no_show(technologist, other.partition("/")[2], {})
    assert console.read(other)["status"] == "noshow"
    assert current(console, missing)["status"] == "requested"


# Whose it was


def _mpps_of(console: ConsoleWorld, step: Resource) -> Any:
    procedure = console.read(step["focus"]["reference"])
    order = console.read(procedure["basedOn"][0]["reference"])
    (study,) = console.search("ImagingStudy", basedon=step["focus"]["reference"])
    patient = console.read(step["for"]["reference"])
    name = patient["name"][0]
    data = mpps(
        Scheduled(order, procedure, step, study, None, patient["identifier"][0]["value"]), station=title_of(console, step)
    )
    data.PatientName, data.PatientBirthDate = f"{name['family']}^{name['given'][0]}", patient["birthDate"].replace("-", "")
    return data


def test_an_examination_without_an_order_gets_the_right_one(console: ConsoleWorld, technologist: Page) -> None:
    right, wrong = scheduled(console), scheduled(console)
    patient = console.read(right["for"]["reference"])
    name = patient["name"][0]
    console.update(console.read(wrong["for"]["reference"]), name=[{"family": "Quast", "given": ["Quirin"]}], gender="male")
    data = mpps(None, patient_id=patient["identifier"][0]["value"], station=title_of(console, right))
    data.PatientName, data.PatientBirthDate = f"{name['family']}^{name['given'][0]}", patient["birthDate"].replace("-", "")
    performed = Scanner(console, title_of(console, right)).begin(data)
    technologist.goto("/rooms")
    press(technologist, "u")
    technologist.locator(f'a[href="/rooms/settle/Procedure/{performed["id"]}"]').click()
    technologist.get_by_label("Order by number").fill("Quast")
    press(technologist, "Enter")
    expect(technologist.locator("thead form")).to_have_count(2)
    for heading, marked in (("Name", True), ("Patient number", True), ("Sex", True), ("Born", False), ("Modality", False)):
        line = technologist.locator("tbody tr", has=technologist.get_by_role("rowheader", name=heading, exact=True)).locator("td")
        expect(line.nth(1)).not_to_have_class("marked")  # the one that is proposed
        expect(line.nth(2)).to_have_class("marked" if marked else "")
    press(technologist, "1")
    expect(technologist.locator("#done")).to_be_visible()
    assert console.read(f"Procedure/{performed['id']}")["subject"] == right["for"]
    assert current(console, right)["status"] == "in-progress"
    order = console.read(wrong["focus"]["reference"])["basedOn"][0]
    rooms.reconcile(technologist, performed["id"], {"order": order})
    assert console.read(f"Procedure/{performed['id']}")["subject"] == wrong["for"]
    assert current(console, right)["status"] == "accepted"


def test_what_only_needs_a_look_is_looked_at(console: ConsoleWorld, technologist: Page) -> None:
    step = scheduled(console)
    rooms.start(technologist, step["id"], {})
    rooms.stop(technologist, step["id"], {"reason": {"coding": [{"system": DCM, "code": "110513"}]}})
    technologist.goto("/rooms/settle")
    line = technologist.locator("tr", has=technologist.locator(f'a[href="/rooms/steps/{step["id"]}"]'))
    line.get_by_role("button", name="Looked at").click()
    expect(technologist.locator("#done")).to_be_visible()
    (item,) = console.search("Task", focus=f"Task/{step['id']}", intent="order")
    assert item["status"] == "completed"


# Who may, how it looks


def test_each_address_and_form_is_for_its_roles_alone(console: ConsoleWorld) -> None:
    step = scheduled(console)
    performed = Scanner(console, title_of(console, step)).begin(mpps(None, patient_id="NOBODY-KNOWN"))
    settle = f"/rooms/settle/Procedure/{performed['id']}"
    page = f"/rooms/steps/{step['id']}"
    names = "move complete stop repeat contrast protocol clear check-in no-show questions/pregnancy"
    forms = [f"{page}/{name}" for name in names.split()]
    with console.http("scheduler") as client:
        addresses = ["/rooms", page, f"{page}/questions/pregnancy", "/rooms/settle", settle, f"/rooms/of/{step['id']}"]
        assert {client.get(a).status_code for a in addresses} == {403}
        csrf = re.search('name="csrf" value="([^"]+)"', client.get("/orders").text)
        assert csrf
        sent = {"data": {"csrf": csrf[1], "state": "start"}, "headers": {"Origin": console.base}}
        assert {client.post(a, **sent).status_code for a in (*forms, settle, f"{settle}/find", "/rooms/items/x")} == {403}
    with console.http("technologist") as client:
        csrf = re.search('name="csrf" value="([^"]+)"', client.get("/rooms").text)
        assert csrf
        sent = {"data": {"csrf": csrf[1], "reason": "x", "issue": "y"}, "headers": {"Origin": console.base}}
        assert client.post(f"{page}/clear", **sent).status_code == 403
        assert client.get("/rooms/steps/nobody").status_code == 404
    with console.http("radiologist") as client:
        assert client.get(page).status_code == 200
        assert client.get(settle).status_code == 403
    with console.http("admin") as client:
        assert client.get(page).status_code == 403
        assert "NOBODY-KNOWN" in client.get(settle).text
    assert current(console, step)["status"] == "accepted"


def test_it_speaks_german(console: ConsoleWorld) -> None:
    step = scheduled(console, "MR", minutes=-15)
    page = console.at("technologist", "/rooms", language="de-DE")
    expect(page.locator("h1")).to_contain_text("Räume")
    page.goto(f"/rooms/steps/{step['id']}")
    expect(page.locator("body")).to_contain_text("Fragebögen")
    page.goto(f"/rooms/steps/{step['id']}/questions/pregnancy")
    expect(page.locator("body")).to_contain_text("Möglicherweise schwanger")


def test_readiness_is_on_the_board(console: ConsoleWorld, technologist: Page) -> None:
    step = scheduled(console, "MR")
    rooms.answer(
        technologist, step["id"], {"questionnaire": "mri-safety", "answers": CLEAN["mri-safety"] | {"cardiac-device": True}}
    )
    assert readiness(current(console, step)) == "stopped"
    technologist.goto("/rooms")
    expect(row(technologist, step)).to_contain_text("stopped by safety")


def test_no_script_fails(console: ConsoleWorld) -> None:
    """Last in this file: what the browsers have complained of so far."""
    assert [c for c in console.complaints if not re.search("status of (4..)", c)] == []
