"""The audit trail at the screen: found, read, written, checked, and shown as it is when somebody has tampered with it."""

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from console.screens.trail import DOORS
from console.texts import LANGUAGES, catalogue
from fhir_server.audit import Act, audit_event
from fhir_server.audit_verify import CHECKS
from smart_auth.access import Access
from smart_auth.scopes import parse_scopes
from tests.console_world import ConsoleWorld, Resource, faults, press

HOSTILE = "=cmd|'<script>alert(1)</script>"


@pytest.fixture(scope="module")
def page(console: ConsoleWorld) -> Page:
    """A privacy officer's browser."""
    return console.at("privacy-officer", "/audit")


def searched(page: Page, **fields: str) -> None:
    """Send the filter with these fields (`kind` and `outcome` by their codes)."""
    page.goto("/audit")
    for name, value in fields.items():
        field = page.locator(f"main #{name}")
        if name in ("kind", "outcome"):
            field.select_option(value)
        else:
            field.fill(value)
    page.locator("main form[role=search] button").click()
    page.wait_for_load_state()


def read_by_somebody(console: ConsoleWorld, patient: Resource, who: str = "scheduler") -> str:
    """Somebody looks at a patient; the user's name."""
    user = console.user(who)
    console.cookie(user)
    console.app.run(_read(console, patient, user.name))
    return user.name


async def _read(console: ConsoleWorld, patient: Resource, name: str) -> None:
    access = Access("app", parse_scopes("user/*.rs"), "t", user=f"Practitioner/{name}", user_name=name, role="scheduler")
    interactions = console.app.ris.interactions
    await interactions.read(await access.settled(interactions.store.db), "Patient", patient["id"])


def test_events_are_found_by_who_patient_kind_outcome_and_day(console: ConsoleWorld, page: Page) -> None:
    patient = console.patient(name=[{"family": "Traceworth", "given": ["Tilda"]}])
    who = read_by_somebody(console, patient)
    searched(page, who=who)
    expect(page.locator("tbody tr").first).to_contain_text("Traceworth, Tilda")
    expect(page.locator("tbody tr").first).to_contain_text("read")
    assert f"who={who}" in page.url
    searched(page, patient="Traceworth")
    expect(page.locator("tbody th", has_text=who)).to_have_count(1)
    assert "Traceworth" not in page.url
    assert page.locator("main #patient").input_value() == "Traceworth"
    searched(page, who=who, kind="logins")
    expect(page.locator("tbody tr")).to_contain_text(["logged in"])
    searched(page, who=who, outcome="4")
    expect(page.get_by_text("Nothing is on record for this.")).to_be_visible()
    searched(page, who=who, until="2020-01-01")
    expect(page.get_by_text("Nothing is on record for this.")).to_be_visible()
    page.goto("/audit?from=<b>")
    expect(page.locator("#errors")).to_contain_text("<b> is not a day")
    complaints = [c for c in console.complaints if "Traceworth" in c]
    assert complaints == []


def test_one_event_is_shown_with_its_details_and_its_seal(console: ConsoleWorld, page: Page) -> None:
    who = read_by_somebody(console, console.patient())
    searched(page, who=who)
    press(page, "j")
    press(page, "Enter")
    expect(page.locator("h1")).to_contain_text("read")
    expect(page.locator(".head")).to_contain_text("as it was stored")
    expect(page.locator("main")).to_contain_text(who)
    id_ = page.url.rpartition("/")[2]
    console.app.in_mongodb("AuditEvent", {"$set": {"resource.agent.0.who.display": "nobody"}}, _id=id_)
    page.reload()
    expect(page.locator(".head")).to_contain_text("changed")
    expect(page.get_by_role("alert")).to_contain_text("not as it was stored")
    console.app.in_mongodb("AuditEvent", {"$set": {"resource.agent.0.who.display": who}}, _id=id_)
    page.reload()
    expect(page.locator(".head")).to_contain_text("as it was stored")


def test_it_is_paged_with_its_filter_and_patients_stay_out_of_addresses(console: ConsoleWorld, page: Page) -> None:
    patient = console.patient(name=[{"family": "Pagewell"}])
    for n in range(60):
        console.update(patient, birthDate=f"19{n % 90 + 10}-01-01")
    searched(page, patient="Pagewell")
    expect(page.locator("tbody tr")).to_have_count(50)
    first = page.locator("tbody tr a").first.get_attribute("href")
    press(page, "m")
    expect(page.locator("tbody tr")).not_to_have_count(50)
    assert page.locator("tbody tr").count() >= 11
    assert page.locator("tbody tr a").first.get_attribute("href") != first
    assert page.url.endswith("/audit")
    page.get_by_role("button", name="Newest").click()
    expect(page.locator("tbody tr")).to_have_count(50)


def test_a_trail_that_was_tampered_with_is_shown_as_such(console: ConsoleWorld) -> None:
    page = console.at("auditor", "/audit/checks")
    press(page, "c")
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("section h2").first).to_contain_text("whole")
    page.goto("/audit")
    expect(page.locator(".head")).to_contain_text("whole")
    (event,) = console.search("AuditEvent", subtype="audit-verify")
    assert event["agent"][0]["role"][0]["coding"][0]["code"] == "auditor"

    made = console.search("AuditEvent", subtype="create")[-1]
    console.app.in_mongodb("AuditEvent", {"$set": {"resource.outcome": "4"}}, _id=made["id"])
    page.goto("/audit/checks")
    page.get_by_role("button", name="Check the newest").click()
    expect(page.locator("section").first).to_contain_text("1 fault")
    expect(page.locator("section").first).to_contain_text(f"AuditEvent/{made['id']} was changed")
    assert faults(page) == []
    page.goto("/audit")
    expect(page.locator(".head")).to_contain_text("not whole")
    # What a check has found can't be made better afterwards.
    console.app.in_mongodb(CHECKS, {"$set": {"count": 0, "faults": []}}, count=1)
    expect(page.locator(".head")).to_contain_text("not whole")
    page.goto("/audit/checks")
    expect(page.locator("section").first).to_contain_text("this result was changed")
    console.app.in_mongodb("AuditEvent", {"$set": {"resource.outcome": "0"}}, _id=made["id"])
    page.context.close()


def test_what_is_shown_is_written_as_csv_that_no_spreadsheet_runs(console: ConsoleWorld, page: Page) -> None:
    async def event() -> None:
        access = Access("csv-app", (), "", user_name=HOSTILE, role="scheduler")
        await console.app.ris.interactions.reads.write(audit_event(Act("read", detail=HOSTILE), access, ()))

    console.app.run(event())
    searched(page, who="csv-app")
    expect(page.locator("tbody tr")).to_contain_text([HOSTILE])
    with page.expect_download() as download:
        page.get_by_role("button", name="As CSV").click()
    text = download.value.path().read_text("utf-8-sig")
    head, row = list(csv.reader(io.StringIO(text)))
    assert head[:2] == ["When", "Who"]
    assert row[1] == f"'{HOSTILE}"
    assert row[7] == f"'{HOSTILE}"
    assert not [cell for cell in row if cell[:1] in ("=", "+", "-", "@")]


def opened(console: ConsoleWorld, name: str) -> Resource:
    """The review of a record that was opened in an emergency."""
    code = {"coding": [{"system": "urn:fhir-ris:task-code", "code": "break-glass-review"}]}
    return console.create(
        {
            "resourceType": "Task",
            "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]},
            "status": "requested",
            "intent": "order",
            "code": code,
            "description": "anna (radiologist) opened this record in an emergency",
            "focus": {"reference": f"Patient/{console.patient(name=[{'family': name}])['id']}"},
            "reasonCode": {"text": "Unconscious, <b>trauma</b>"},
            "authoredOn": "2026-09-08T10:00:00Z",
        }
    )


def test_the_privacy_officer_reviews_emergency_access_and_the_later_one_is_told(console: ConsoleWorld, page: Page) -> None:
    review = opened(console, "Glasswell")
    page.goto("/audit")
    press(page, "r")
    article = page.locator("article", has_text="Glasswell")
    expect(article).to_contain_text("Unconscious, <b>trauma</b>")
    other = console.at("privacy-officer", "/audit/reviews")
    article.get_by_label("What was found").fill("It was needed")
    article.get_by_role("button", name="Review is done").click()
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("article", has_text="Glasswell")).to_have_count(0)
    now = console.read(f"Task/{review['id']}")
    assert (now["status"], now["note"][0]["text"]) == ("completed", "It was needed")
    expect(other.locator("article", has_text="Glasswell")).to_have_count(0)  # told without a reload
    other.context.close()
    page.goto("/audit/reviews?show=done")
    expect(page.locator("article", has_text="Glasswell")).to_contain_text("It was needed")


def test_what_is_put_on_record_has_a_word_in_every_language() -> None:
    """Codes are found where they are written; HL7 v2 messages have their own names."""
    rooms = [Path(__file__).parent.parent / room for room in ("fhir_server", "resources", "bridges", "smart_auth", "console")]
    source = "\n".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    ways = (
        r'Act\(\s*"([a-z-]+)"',
        r'(?:\.tell|_?recorded)\(\s*\w+, "([a-z-]+)"',
        r'desk\.handler\("([a-z-]+)"',
        r'\bendpoint\("(\w+)"',
    )
    codes = {code for way in ways for code in re.findall(way, source)}
    assert {"create", "login", "mpps-create", "introspect", "message-list", "user-add"} <= codes
    for language in LANGUAGES:
        assert [c for c in sorted(codes) if f"trail.events.{c}" not in catalogue(language)] == []


def test_an_auditor_has_no_reviews_and_others_have_no_trail(console: ConsoleWorld) -> None:
    paths = [(door.method, door.path.replace("{id}", "x")) for door in DOORS]
    for role in ("auditor", "admin", "radiologist"):
        with console.http(role) as client:
            csrf = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
            assert csrf
            for method, path in paths:
                if role == "auditor" and not path.startswith("/audit/reviews"):
                    continue
                form = {"data": {"csrf": csrf[1]}} if method == "POST" else {}
                answer = client.request(method, path, headers={"Sec-Fetch-Site": "same-origin"}, **form)  # type: ignore[arg-type]
                assert answer.status_code == 403, f"{role}: {method} {path}"
            if role == "auditor":
                assert "/audit/reviews" not in client.get("/audit").text
                assert client.get("/audit/events/nothing").status_code == 404


def test_it_speaks_german(console: ConsoleWorld) -> None:
    page = console.at("privacy-officer", "/audit", language="de-AT")
    expect(page.get_by_role("heading", name="Protokoll")).to_be_visible()
