"""Find, and the patient page: what is typed leads there, nobody finds what is not theirs, closed records open in an emergency."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from babel import Locale
from playwright.sync_api import Page, expect

from console.screens.find import typed
from fhir_server.search.values import escaped
from tests.console_world import ConsoleWorld, press, today

GB, US, DE = Locale("en", "GB"), Locale("en", "US"), Locale("de", "DE")
TODAY = date(2026, 11, 29)
_HL7 = "http://terminology.hl7.org/CodeSystem"
V3 = f"{_HL7}/v3-Confidentiality"
REASON = "Unconscious after a fall, allergies unknown"


@pytest.mark.parametrize(
    ("text", "locale", "words", "born", "number"),
    [
        ("Müller, Änne", DE, ("Müller", "Änne"), "", ""),
        ("31.1.1970", DE, (), "1970-01-31", "31.1.1970"),
        ("31.01.70 Müller", DE, ("Müller",), "1970-01-31", ""),
        ("Müller *02.03.85", DE, ("Müller",), "1985-03-02", ""),
        ("31/01/1970", GB, (), "1970-01-31", "31/01/1970"),
        ("1/31/1970", US, (), "1970-01-31", "1/31/1970"),
        ("31.1.1970", US, (), "1970-01-31", "31.1.1970"),
        ("1970-01-31", GB, (), "1970-01-31", "1970-01-31"),
        ("19700131", GB, (), "1970-01-31", "19700131"),
        ("31.2.1970", DE, (), "", "31.2.1970"),
        ("1.1.26", DE, (), "2026-01-01", "1.1.26"),
        ("A000000012", GB, (), "", "A000000012"),
        ("ACC 123", GB, (), "", "ACC 123"),
        ("  ", GB, (), "", ""),
    ],
)
def test_what_was_typed_is_understood(text: str, locale: Locale, words: tuple[str, ...], born: str, number: str) -> None:
    found = typed.read(text, locale, TODAY)
    assert (found.words, found.born, found.number) == (words, born, number)


def test_names_are_looked_for_as_they_may_be_written() -> None:
    assert set(typed.variants("Müller")) >= {"Müller", "mueller"}
    assert set(typed.variants("Mueller")) >= {"Mueller", "müller"}
    assert typed.plain("GROẞ") == typed.plain("gross")
    assert escaped("a,b|c$d\\") == "a\\,b\\|c\\$d\\\\"


@pytest.fixture(scope="module")
def people(console: ConsoleWorld) -> dict[str, Any]:
    """Patients of the same name written in two ways, one whose record is closed, one who was merged; orders."""
    aenne = console.patient(name=[{"family": "Müllerin", "given": ["Änne"]}], birthDate="1985-03-02")
    anton = console.patient(name=[{"family": "Muellerin", "given": ["Anton"]}], birthDate="1970-01-31")
    closed = console.patient(name=[{"family": "Verborgen"}], meta={"security": [{"system": V3, "code": "V"}]})
    prior = console.patient(name=[{"family": "Früher"}])
    placer = {
        "type": {"coding": [{"system": f"{_HL7}/v2-0203", "code": "PLAC"}]},
        "system": "urn:x",
    }
    order = console.order(aenne, priority="urgent", identifier=[placer | {"value": "PL-77,4"}])
    console.booked(order, console.scanner(), today(datetime.now(UTC), timedelta(hours=3)))
    console.create(
        {
            "resourceType": "AllergyIntolerance",
            "patient": {"reference": f"Patient/{aenne['id']}"},
            "code": {"text": "Iodinated contrast"},
            "criticality": "high",
            "clinicalStatus": {"coding": [{"system": f"{_HL7}/allergyintolerance-clinical", "code": "active"}]},
        }
    )
    console.create(
        {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "code": {"text": "CT Chest"},
            "subject": {"reference": f"Patient/{aenne['id']}"},
            "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}],
            "conclusion": "No finding",
        }
    )
    console.operation(f"Patient/{anton['id']}/$merge", [{"name": "prior", "valueString": prior["id"]}])
    accession = number(console.read(f"ServiceRequest/{order['id']}"), "ACSN")
    return {"aenne": aenne, "anton": anton, "closed": closed, "prior": prior, "order": order, "accession": accession}


def number(resource: dict[str, Any], code: str) -> str:
    return next(i["value"] for i in resource["identifier"] if i["type"]["coding"][0]["code"] == code)


def look_for(page: Page, text: str) -> None:
    press(page, "Escape")
    press(page, "/")
    page.keyboard.type(text)
    press(page, "Enter")
    page.wait_for_load_state()


def test_a_name_is_found_however_it_is_written(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("scheduler")
    for text in ("müllerin", "MUELLERIN", "Mullerin"):
        look_for(page, text)
        expect(page).to_have_url(re.compile("/find$"))
        expect(page.locator("#results tbody tr")).to_have_count(2 if text != "Mullerin" else 1)
    look_for(page, "müllerin")
    expect(page.locator("#results")).to_contain_text("Muellerin, Anton")
    page.locator("main h1").click()
    press(page, "j")
    press(page, "Enter")
    expect(page).to_have_url(re.compile("/patients/[^/?]+$"))


def test_one_exact_hit_leads_straight_there_and_no_address_tells_who(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("scheduler", language="de-DE")
    aenne, order = people["aenne"]["id"], people["order"]["id"]
    for text, path in (
        ("Müllerin Änne", f"/patients/{aenne}"),
        ("änne muellerin", f"/patients/{aenne}"),
        ("Mül 2.3.85", f"/patients/{aenne}"),
        (number(people["aenne"], "MR"), f"/patients/{aenne}"),
        (people["accession"], f"/orders/{order}"),
        (people["accession"].lower(), f"/orders/{order}"),
        ("PL-77,4", f"/orders/{order}"),
    ):
        look_for(page, text)
        expect(page).to_have_url(f"{console.base}{path}")
        page.goto("/")
    reader = console.at("radiologist")
    look_for(reader, people["accession"])
    expect(reader).to_have_url(f"{console.base}/exams/{order}")


def test_a_birth_date_alone_or_a_part_of_a_name_lists(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("scheduler", language="de-DE")
    look_for(page, "2.3.1985")
    expect(page).to_have_url(re.compile("/find$"))
    expect(page.locator("#results tbody tr")).to_have_count(1)
    look_for(page, "Änn")
    expect(page.locator("#results tbody tr")).to_have_count(1)
    look_for(page, "Nichtvorhanden")
    expect(page.locator("main")).to_contain_text("Nichts gefunden")
    assert page.locator("#q").input_value() == "Nichtvorhanden"


def test_results_are_paged(console: ConsoleWorld) -> None:
    for n in range(30):
        console.patient(name=[{"family": "Seitenreich", "given": [f"Nr{chr(97 + n % 26)}{n // 26}"]}])
    page = console.at("scheduler")
    look_for(page, "Seitenreich")
    expect(page.locator("#patients-title")).to_contain_text("30")
    expect(page.locator("#results tbody tr")).to_have_count(25)
    page.locator("main h1").click()
    press(page, "n")
    expect(page.locator("#results tbody tr")).to_have_count(5)
    assert page.url.endswith("/find")


def test_what_a_role_may_not_see_is_not_found(console: ConsoleWorld, people: dict[str, Any]) -> None:
    referrer = console.at("referrer")
    for text in ("müllerin", people["accession"], number(people["aenne"], "MR")):
        look_for(referrer, text)
        expect(referrer.locator("main")).to_contain_text("Nothing was found")
    scheduler = console.at("scheduler")
    look_for(scheduler, "Verborgen")
    expect(scheduler.locator("main")).to_contain_text("Nothing was found")
    expect(scheduler.locator("#emergency-title")).to_have_count(0)
    for role in ("auditor", "interface-admin"):
        page = console.at(role)
        look_for(page, "müllerin")
        expect(page.locator("main")).to_contain_text("no patients and no orders")
        assert page.goto(f"/patients/{people['aenne']['id']}").status == 403  # type: ignore[union-attr]
    with console.http("referrer") as client:
        assert client.get(f"/patients/{people['aenne']['id']}").status_code == 404


def test_the_patient_page_shows_what_the_role_may_see(console: ConsoleWorld, people: dict[str, Any]) -> None:
    reader, scheduler = (console.at(role, f"/patients/{people['aenne']['id']}") for role in ("radiologist", "scheduler"))
    for page in (reader, scheduler):
        expect(page.locator("h1")).to_have_text("Müllerin, Änne")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("scheduled")
    expect(reader.locator("main")).to_contain_text("Iodinated contrast")
    expect(reader.locator("tbody tr")).to_contain_text("preliminary")
    expect(scheduler.locator("main")).not_to_contain_text("Iodinated contrast")
    expect(scheduler.locator("main")).not_to_contain_text("preliminary")
    console.order(people["aenne"], code={"text": "CT Abdomen"})
    expect(reader.locator("tbody tr")).to_have_count(2)
    with console.http("privacy-officer") as client:
        office = client.get(f"/patients/{people['aenne']['id']}")
        assert office.status_code == 200
        assert "Müllerin, Änne" in office.text
        assert "CT Chest" not in office.text


def test_a_merged_record_is_shown_as_such(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("scheduler", f"/patients/{people['prior']['id']}")
    page.locator(".told.warn a").click()
    expect(page.locator("h1")).to_have_text("Muellerin, Anton")
    expect(page.locator("main")).to_contain_text("Merged record")
    look_for(page, "Früher")
    expect(page.locator("h1")).to_have_text(re.compile("Früher|Find"))


def test_a_closed_record_opens_in_an_emergency_and_closes_again(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("radiologist", f"/patients/{people['closed']['id']}")
    expect(page.locator("main")).not_to_contain_text("Verborgen")
    page.locator("#reason").fill("aaaaaaaaaaaaaaaaaaaa")
    page.locator("button.danger").click()
    expect(page.locator("#errors")).to_contain_text("say in words")
    page.locator("#reason").fill(REASON)
    page.locator("button.danger").click()
    expect(page.locator("h1")).to_have_text("Verborgen")
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("main")).to_contain_text("opened this record in an emergency")
    assert any(t["reasonCode"]["text"] == REASON for t in console.search("Task", code="break-glass-review"))
    page.get_by_role("button", name="End the emergency access").click()
    expect(page.locator("h1")).not_to_have_text("Verborgen")
    expect(page.locator("main")).not_to_contain_text("Verborgen")


def test_a_closed_record_opens_by_its_number(console: ConsoleWorld, people: dict[str, Any]) -> None:
    page = console.at("technologist")
    look_for(page, number(people["closed"], "MR"))
    page.get_by_text("The record may be closed").click()
    page.locator("#issuer").select_option("urn:example:mrn")
    page.locator("#reason").fill(REASON)
    page.get_by_role("button", name="Open the record").click()
    expect(page.locator("h1")).to_have_text("Verborgen")


def test_who_may_not_break_the_glass_gets_no_form_and_no_door(console: ConsoleWorld, people: dict[str, Any]) -> None:
    with console.http("scheduler") as client:
        page = client.get(f"/patients/{people['closed']['id']}")
        assert page.status_code == 404
        assert "/open" not in page.text
        csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert csrf
        headers = {"Origin": console.base, "Sec-Fetch-Site": "same-origin"}
        form = {"csrf": csrf[1], "reason": REASON}
        answer = client.post(f"/patients/{people['closed']['id']}/open", data=form, headers=headers)
        assert answer.status_code == 403
        assert "Verborgen" not in answer.text


def test_no_script_failed(console: ConsoleWorld) -> None:
    """Last in this file: it looks at what the browsers have complained of so far."""
    assert [c for c in console.complaints if "status of 40" not in c and "status of 422" not in c] == []
