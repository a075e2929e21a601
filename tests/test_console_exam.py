"""The page of one exam: what happened to it through every door, who sees what of it, and moving it to the right patient."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from smart_auth.roles import ROLES
from tests import exam_story, smart_world
from tests.console_steps import HOW, Refused, exam
from tests.console_world import ConsoleWorld, faults, press
from tests.exam_story import POLICY, Story

V = {"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}}
SEERS = {"scheduler", "technologist", "radiologist", "admin"}
_pages: dict[str, Page] = {}


@pytest.fixture(scope="module")
def story(console: ConsoleWorld) -> Iterator[Story]:
    """An exam from order to report, of which an EHR is told that can't be reached."""
    exam_story.destination(console)
    yield exam_story.whole(console)
    _pages.clear()


@pytest.fixture
def at(console: ConsoleWorld) -> Any:
    """A browser of a role, which goes to a path; logged in once."""

    def opened(role: str, path: str) -> Page:
        if role not in _pages:
            _pages[role] = console.at(role, path)
        elif _pages[role].url != console.base + path:
            _pages[role].goto(path)
        return _pages[role]

    return opened


def events(page: Page, kind: str) -> Any:
    return page.locator(f"article.event.{kind}")


def message_about(console: ConsoleWorld, story: Story) -> str:
    """The id of the message that the order came by."""
    found = console.app.run(console.app.db["messages"].find_one({"about": f"ServiceRequest/{story.order['id']}"}))
    return str(found["_id"])


def test_everything_that_happened_is_on_it(story: Story, at: Any) -> None:
    page = at("radiologist", story.path)
    expect(page.get_by_role("heading", name="CT Chest")).to_be_visible()
    expect(page.locator(".exam-who")).to_contain_text("Muster, Mara")
    now = page.locator(".exam-now")
    for text in (story.placer, "Referrer, Rolf", "final", "available", "1 series, 2 images"):
        expect(now).to_contain_text(text)
    expect(events(page, "received")).to_contain_text("ORM O01 from EHR · EXAMPLEHOSP")
    assert {e.split(" to ")[0] for e in events(page, "sent").locator("a").all_inner_texts()} >= {"ORU R01", "SIU S12", "ORM O01"}
    scanner = events(page, "dicom").all_inner_texts()
    assert [any(said in text for text in scanner) for said in ("began (N-CREATE)", "is done (N-SET)", "Images are there")] == [
        True
    ] * 3
    written = page.locator("article.change").filter(has_text="by ORM O01 from EHR")
    expect(written).to_contain_text("Order made · active")
    expect(page.locator("article.change").filter(has_text="Report preliminary → final")).to_have_count(1)


def test_its_head_is_one_line_and_a_charge_without_a_name_has_its_code_once(console: ConsoleWorld, story: Story, at: Any) -> None:
    (study,) = console.search("ImagingStudy", patient=story.order["subject"]["reference"])
    charge = {"resourceType": "ChargeItem", "status": "billable", "subject": story.order["subject"]}
    code = {"coding": [{"system": "urn:example:charges", "code": "T71250"}]}
    console.create(charge | {"code": code, "service": [{"reference": f"ImagingStudy/{study['id']}"}]})
    page = at("radiologist", story.path)
    page.reload()
    charges = page.locator(".exam-now li").filter(has_text="T71250")
    assert [text.count("T71250") for text in charges.all_inner_texts()] == [1]
    ends = page.locator(".exam-head .tools > *").evaluate_all("all => all.map(e => Math.round(e.getBoundingClientRect().bottom))")
    title = page.locator(".exam-head > div").first.bounding_box()
    assert title
    assert max(ends) - min(ends) < 20
    assert max(ends) < title["y"] + title["height"] + 20


def test_a_received_message_unfolds_by_field_beside_what_it_became(story: Story, at: Any) -> None:
    page = at("radiologist", story.path)
    link = events(page, "received").get_by_role("button")
    link.click()
    shown = page.locator(".unfolded")
    expect(shown.locator("tr").filter(has_text="OBR-13")).to_contain_text("Relevant clinical information")
    expect(shown.locator("tr").filter(has_text="OBR-13")).to_contain_text("Cough for six weeks")
    expect(shown.locator(".v2-raw").first).to_contain_text("MSH|^~\\&|EHR|EXAMPLEHOSP")
    expect(shown.locator(".exam-facts")).to_contain_text("Order Version 1")
    expect(shown).to_contain_text("MSA-1")  # and the answer
    # Insurance is not for radiologists (smart_auth/roles.py), neither by field nor in the line.
    expect(shown.locator(".v2-segment").filter(has_text="IN1")).to_contain_text("Not for your role")
    expect(shown).not_to_contain_text(POLICY)
    link.click()
    expect(page.locator(".unfolded")).to_have_count(0)


def test_a_sent_message_says_what_became_of_it(story: Story, at: Any) -> None:
    page = at("radiologist", story.path)
    page.get_by_role("link", name=re.compile("^Sent")).click()
    expect(events(page, "received")).to_have_count(0)
    report = events(page, "sent").filter(has_text="ORU R01").first
    expect(report).to_contain_text("waits to be sent")
    page.goto(str(report.get_by_role("button").get_attribute("href")))
    expect(page.locator("main")).to_contain_text("Lungs clear. No effusion.")


def test_a_version_shows_what_differs_from_the_one_before(story: Story, at: Any) -> None:
    assert story.report is not None
    page = at("radiologist", f"{story.path}/versions/DiagnosticReport/{story.report['id']}/2")
    row = page.locator("tr").filter(has_text="conclusion").first
    expect(row.locator("del")).to_have_text("Lungs clear.")
    expect(row.locator("ins")).to_have_text("Lungs clear. No effusion.")
    press(page, "[")
    expect(page).to_have_url(re.compile("/1$"))
    expect(page.locator("tr").filter(has_text="conclusion")).to_contain_text("Lungs clear.")
    press(page, "b")
    expect(page).to_have_url(re.compile(f"{story.path}$"))


def test_the_scanners_data_sets_are_readable(story: Story, at: Any) -> None:
    page = at("technologist", f"{story.path}?kind=dicom&sort=oldest")
    events(page, "dicom").nth(1).get_by_role("button").first.click()
    row = page.locator(".unfolded tr").filter(has_text="Performed Procedure Step Status")
    expect(row).to_contain_text("0040,0252")
    expect(row.locator("ins")).to_have_text("COMPLETED")
    expect(page.locator(".unfolded tr.depth-1").filter(has_text="Series Description")).to_contain_text("Lung 1.5 mm")


def test_it_goes_by_keyboard_alone(story: Story, at: Any) -> None:
    page = at("radiologist", story.path)
    press(page, "j")
    press(page, "j")
    press(page, "Enter")
    expect(page.locator(".unfolded")).to_have_count(1)
    press(page, "k")
    press(page, " ")
    expect(page.locator(".unfolded")).to_have_count(2)
    press(page, "t")
    expect(page.get_by_role("link", name="Newest first")).to_be_visible()
    expect(page.locator("article").first).to_contain_text("ORM O01 from EHR")


def test_what_changes_elsewhere_appears_and_what_was_unfolded_stays(console: ConsoleWorld, at: Any) -> None:
    other = exam_story.ordered(console)
    page = at("scheduler", other.path)
    events(page, "received").get_by_role("button").click()
    expect(page.locator(".unfolded")).to_contain_text("PID-5")
    console.update(other.order, priority="stat")
    expect(page.locator(".head .chip").filter(has_text="emergency")).to_be_visible()
    expect(page.locator("article.change").filter(has_text="priority")).to_have_count(1)
    expect(page.locator("article.received .unfolded")).to_contain_text("PID-5")


def test_in_german(console: ConsoleWorld, story: Story) -> None:
    page = console.at("technologist", story.path, language="de-DE", color_scheme="dark")
    expect(page.get_by_role("heading", name="Verlauf")).to_be_visible()
    expect(page.locator("article.dicom").first).to_contain_text("Bilder sind da")


# Who sees what


def test_a_scheduler_sees_neither_report_nor_results_not_even_in_messages(story: Story, at: Any) -> None:
    page = at("scheduler", story.path)
    expect(page.locator(".exam-now")).not_to_contain_text("Report")
    expect(page.locator("main")).not_to_contain_text("Report preliminary")
    page.goto(str(events(page, "sent").filter(has_text="ORU R01").first.get_by_role("button").get_attribute("href")))
    expect(page.locator(".v2-segment").filter(has_text="OBX").first).to_contain_text("Not for your role")
    expect(page.locator("main")).not_to_contain_text("Lungs clear")
    # The insurance it may see.
    page.goto(story.path)
    events(page, "received").get_by_role("button").click()
    expect(page.locator(".unfolded")).to_contain_text(POLICY)


def test_a_referrer_sees_the_own_patients_exam_with_the_report_and_no_messages(console: ConsoleWorld, story: Story) -> None:
    user = console.user("referrer")
    console.update(
        console.read(story.order["subject"]["reference"]), generalPractitioner=[{"reference": f"Practitioner/{user.name}"}]
    )
    page = console.at(user, story.path)
    expect(page.locator(".exam-text")).to_contain_text("Lungs clear. No effusion.")
    expect(page.locator(".exam-now")).to_contain_text("1 series, 2 images")
    expect(events(page, "sent")).to_have_count(0)
    expect(events(page, "received")).to_have_count(0)
    expect(page.get_by_role("link", name="Move to another patient")).to_have_count(0)
    assert faults(page) == []
    other = exam_story.ordered(console)
    page.goto(other.path)
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()


def test_an_auditor_sees_who_saw_it_and_nothing_else(console: ConsoleWorld, story: Story, at: Any) -> None:
    with console.http("radiologist") as client:
        assert client.get(f"{story.path}/messages/{message_about(console, story)}").status_code == 200
    page = at("auditor", story.path)
    expect(page.get_by_role("heading", name="Who saw and changed this exam")).to_be_visible()
    expect(page.locator("tr").filter(has_text="Radiologist").filter(has_text="message read").first).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("Muster")
    page.get_by_role("link", name=re.compile("^Changed")).click()
    expect(page.locator("tbody tr").filter(has_text="examination begun (MPPS)")).to_have_count(1)
    expect(page.locator("tbody")).not_to_contain_text("message-show")


@pytest.mark.parametrize("role", sorted(ROLES))
def test_each_role_gets_to_what_is_its_own_and_no_further(console: ConsoleWorld, story: Story, role: str) -> None:
    assert story.report is not None
    message = message_about(console, story)
    order, written = f"ServiceRequest/{story.order['id']}", f"DiagnosticReport/{story.report['id']}"
    version, report = (f"{story.path}/versions/{reference}/1" for reference in (order, written))
    reads_reports = {"technologist", "radiologist"}
    sees = 200 if role in SEERS else 404 if role == "referrer" else 403
    expected = {
        story.path: 200 if role in {"auditor", "privacy-officer"} else sees,
        version: sees,
        report: sees if sees != 200 or role in reads_reports else 404,
        f"{story.path}/messages/{message}": 200 if role in SEERS else 403,
        f"{story.path}/move": 200 if role in SEERS else 403,
    }
    with console.http(role) as client:
        found = {path: client.get(path).status_code for path in expected}
        csrf = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
        assert csrf
        moved = client.post(f"{story.path}/move", data={"csrf": csrf[1], "patient": "nobody", "reason": "x"}).status_code
    assert found == expected
    assert moved == (403 if role not in SEERS else 404)


def test_what_belongs_to_another_exam_is_not_shown_under_this_one(console: ConsoleWorld, story: Story) -> None:
    other = exam_story.ordered(console)
    own = f"versions/ServiceRequest/{story.order['id']}"
    foreign = [f"versions/ServiceRequest/{other.order['id']}/1", f"messages/{message_about(console, other)}"]
    foreign.append(f"versions/{story.order['subject']['reference']}/1")
    wrong = [f"{own}/0", f"{own}/x", f"{own}/99", "versions/Nothing/1/1", "messages/none"]
    with console.http("radiologist") as client:
        for path in (*foreign, *wrong):
            assert client.get(f"{story.path}/{path}").status_code == 404, path
        assert client.get(f"{other.path}/{foreign[1]}").status_code == 200
        (procedure,) = console.search("ServiceRequest", based_on=f"ServiceRequest/{other.order['id']}", intent="filler-order")
        assert client.get(f"/exams/{procedure['id']}").headers["location"] == other.path
        assert client.get("/exams/none").status_code == 404


def test_a_hidden_report_is_hidden_in_the_messages_that_tell_of_it(console: ConsoleWorld) -> None:
    other = exam_story.ordered(console)
    exam_story.reported(other)
    assert other.report is not None
    console.update(other.report, **V)
    about = {"about": f"DiagnosticReport/{other.report['id']}"}
    sent = console.app.run(console.app.db["outbox"].find_one(about))
    with console.http("radiologist") as client:
        assert "Lungs clear" not in client.get(other.path).text
        assert client.get(f"{other.path}/messages/{sent['_id']}").status_code == 404


def test_of_a_patient_who_has_denied_something_no_message_is_shown(console: ConsoleWorld) -> None:
    other = exam_story.ordered(console)
    kind = {"system": "http://hl7.org/fhir/resource-types", "code": "Coverage"}
    patient = other.order["subject"]["reference"].partition("/")[2]
    console.put(smart_world.consent(f"c-{patient}", patient, {"type": "deny", "class": [kind]}))
    with console.http("radiologist") as client:
        page = client.get(other.path)
        assert page.status_code == 200
        assert "ORM O01" not in page.text
        assert client.get(f"{other.path}/messages/{message_about(console, other)}").status_code == 404


# What can be done


def test_an_order_on_the_wrong_patient_is_moved(console: ConsoleWorld, at: Any) -> None:
    wrong, right = exam_story.ordered(console), exam_story.ordered(console, "Richtig", "Rita")
    page = at("scheduler", wrong.path)
    version = wrong.now(wrong.order)["meta"]["versionId"]
    page.goto(f"{wrong.path}/move")
    page.get_by_label("The right patient").fill(right.number)
    press(page, "Enter")
    expect(page.get_by_role("radio")).to_have_count(1)
    page.get_by_label("Reason").fill("Ordered on the mother's record")
    # Somebody else is faster.
    console.update(wrong.order, priority="urgent")
    page.get_by_role("button", name="Move").click()
    expect(page.locator("#errors")).to_contain_text("version")
    expect(page.get_by_label("Reason")).to_have_value("Ordered on the mother's record")
    assert wrong.now(wrong.order)["meta"]["versionId"] != version
    page.get_by_role("button", name="Move").click()
    expect(page.locator("#done")).to_contain_text("moved to the right patient")
    expect(page.locator(".exam-who")).to_contain_text("Richtig, Rita")
    assert wrong.now(wrong.order)["subject"] == right.now(right.order)["subject"]
    # A radiologist sees the reason.
    page = at("radiologist", wrong.path)
    expect(events(page, "provenance").filter(has_text="moved to the right patient")).to_contain_text(
        "Ordered on the mother's record"
    )


def test_moving_a_signed_report_is_a_radiologists_to_say(console: ConsoleWorld, at: Any) -> None:
    wrong, right = exam_story.ordered(console), exam_story.ordered(console, "Richtig", "Rolf")
    exam_story.reported(wrong)
    given: dict[str, Any] = {"patient": right.order["subject"], "reason": "Two sisters"}
    page = at("radiologist", wrong.path)
    with pytest.raises(Refused, match="correctReports"):
        HOW["$move", "ServiceRequest"](page, wrong.order["id"], given)
    exam.move(page, wrong.order["id"], given | {"correctReports": True})
    assert wrong.report is not None
    assert wrong.now(wrong.report)["status"] == "corrected"
    assert wrong.now(wrong.report)["subject"] == right.order["subject"]


def test_nobody_is_found_for_a_number_that_nobody_has(console: ConsoleWorld, story: Story, at: Any) -> None:
    page = at("technologist", f"{story.path}/move")
    page.get_by_label("The right patient").fill("Nemo, Niemand|x\\")
    page.get_by_role("button", name="Look for").click()
    expect(page.locator("main")).to_contain_text("Nobody was found.")
    assert faults(page) == []


def test_a_closed_record_opens_in_an_emergency_and_closes_again(console: ConsoleWorld) -> None:
    other = exam_story.ordered(console, "Prominent", "Paula")
    patient = console.read(other.order["subject"]["reference"])
    console.update(patient, **V)
    page = console.at("radiologist", other.path)
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()
    press(page, "e")
    page.get_by_label("Patient number").fill(other.number)
    page.get_by_label("Who gave the number").fill(next(i["system"] for i in patient["identifier"] if i["value"] == other.number))
    page.get_by_label("Why").fill("Unconscious")
    page.get_by_label("Why").evaluate("field => field.removeAttribute('minlength')")
    page.get_by_label("Why").fill("short")
    page.get_by_role("button", name="Open the record").click()
    expect(page.locator("#errors")).to_contain_text("say in words why")
    expect(page.get_by_label("Patient number")).to_have_value(other.number)
    assert faults(page) == []
    page.get_by_label("Why").fill("Unconscious after a fall, allergies unknown")
    page.get_by_role("button", name="Open the record").click()
    expect(page.locator("#done")).to_have_text("The record is open.")
    expect(page.locator(".exam-who")).to_contain_text("Prominent, Paula")
    exam.mend_glass(page, patient["id"], {})
    page.goto(other.path)
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()
    with console.http("scheduler") as client:
        answer = client.get(other.path)
        assert answer.status_code == 404
        assert "Emergency access" not in answer.text


def test_what_is_hidden_of_a_record_opens_too(console: ConsoleWorld) -> None:
    other = exam_story.ordered(console)
    exam_story.reported(other)
    assert other.report is not None
    page = console.at("radiologist", other.path)
    patient = console.at("radiologist", f"/patients/{other.order['subject']['reference'].partition('/')[2]}")
    for one in (page, patient):  # nothing is closed, and so nothing is to be opened
        expect(one.locator("h1")).to_be_visible()
        expect(one.get_by_role("button", name="Emergency access")).to_have_count(0)
    console.update(other.report, **V)
    patient.reload()
    expect(patient.get_by_role("button", name="Emergency access")).to_be_visible()
    page.reload()
    expect(page.locator(".exam-now")).to_contain_text("Report")
    expect(page.locator(".exam-now")).not_to_contain_text("final")
    exam.break_glass(page, "", {"reason": "Bleeding, earlier findings are needed", "minutes": 10})
    expect(page.locator(".exam-now")).to_contain_text("final")


def test_no_script_breaks_the_policy_and_none_fails(console: ConsoleWorld) -> None:
    """Last in this file: it looks at what the browsers have complained of so far."""
    assert [c for c in console.complaints if not re.search("status of 4(03|04|09|12|22|00)", c)] == []
