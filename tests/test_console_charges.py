"""Charges that an administrator looks at: released, corrected, voided, charged anew, and a day that balances or not."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console_steps import HOW, Refused, done
from tests.console_steps.administration import charge, correct, findings, reconcile, release, void
from tests.console_world import ConsoleWorld, Resource, faults, press

CPT = "http://www.ama-assn.org/go/cpt"
ICD = "http://hl7.org/fhir/sid/icd-10"
COUGH = {"coding": [{"system": ICD, "code": "R05"}]}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(console: ConsoleWorld) -> Iterator[Page]:
    opened = console.at("admin", "/administration/charges")
    yield opened
    opened.context.close()


def charged(console: ConsoleWorld, **elements: object) -> Resource:
    """A charge without a diagnosis, which is held."""
    made = {
        "resourceType": "ChargeItem",
        "status": "billable",
        "code": {"coding": [{"system": CPT, "code": "71250"}]},
        "subject": {"reference": f"Patient/{console.patient()['id']}"},
        "occurrenceDateTime": "2026-09-08T10:00:00Z",
    }
    return console.create(made | elements)


def test_what_is_held_is_listed_with_its_reason_and_is_released(console: ConsoleWorld, page: Page) -> None:
    patient = console.patient(name=[{"family": HOSTILE}])
    held = charged(console, subject={"reference": f"Patient/{patient['id']}"})
    page.goto("/administration/charges")
    row = page.locator("tbody tr", has_text=HOSTILE)
    expect(row).to_contain_text("no diagnosis")
    page.goto(f"/administration/charges/{held['id']}")
    page.locator("#release-reason").evaluate("area => area.required = false")
    press(page, "r")
    page.locator("#release .buttons button").first.click()
    with pytest.raises(Refused, match="held for review"):
        done(page)
    expect(page.locator("#release")).to_be_visible()
    expect(page.locator("#release")).to_contain_text("held for review")
    assert faults(page) == []
    release(page, held["id"], {"reason": "Screening"})
    assert console.read(f"ChargeItem/{held['id']}")["status"] == "billable"


def test_the_list_shows_a_charge_that_is_held_meanwhile(console: ConsoleWorld, page: Page) -> None:
    page.goto("/administration/charges")
    patient = console.patient(name=[{"family": "Livewood"}])
    expect(page.get_by_text("Livewood")).to_have_count(0)
    charged(console, subject={"reference": f"Patient/{patient['id']}"})
    expect(page.get_by_text("Livewood")).to_be_visible()


def test_a_charge_is_corrected_in_its_place_or_by_another(console: ConsoleWorld, page: Page) -> None:
    held = charged(console)
    correct(page, held["id"], {"reason": "The report says so", "diagnosis": {"system": ICD, "code": "R05"}})
    now = console.read(f"ChargeItem/{held['id']}")
    assert (now["status"], now["reason"]) == ("billable", [COUGH])

    told = charged(console, reason=[COUGH])
    correct(page, told["id"], {"reason": "With contrast", "code": "71260", "modifier": ["LT", "59"]})
    assert console.read(f"ChargeItem/{told['id']}")["status"] == "aborted"
    anew = console.read(f"ChargeItem/{page.url.partition('?')[0].rpartition('/')[2]}")
    assert anew["code"]["coding"][0]["code"] == "71260"
    modifiers = [e for e in anew["extension"] if e["url"] == "urn:fhir-ris:charge-modifier"]
    assert [m["valueCodeableConcept"]["coding"][0]["code"] for m in modifiers] == ["LT", "59"]
    with pytest.raises(Refused, match="what is to be another"):
        correct(page, anew["id"], {"reason": "Nothing else"})
    with pytest.raises(Refused, match="not a number"):
        correct(page, anew["id"], {"reason": "Two", "quantity": "two"})


def test_a_charge_is_voided_once_and_the_later_one_is_told(console: ConsoleWorld, page: Page) -> None:
    held = charged(console)
    page.goto(f"/administration/charges/{held['id']}")
    other = console.at("admin", f"/administration/charges/{held['id']}")
    void(other, held["id"], {"reason": "Courtesy"})
    other.context.close()
    press(page, "v")
    page.locator("#void-reason").fill("A mistake")
    page.locator("#void .buttons button").first.click()
    expect(page.locator("#errors")).to_contain_text("meanwhile: it is voided now")
    expect(page.locator("h1")).to_contain_text("voided")
    extensions = console.read(f"ChargeItem/{held['id']}")["extension"]
    assert [e["valueString"] for e in extensions if e["url"] == "urn:fhir-ris:charge-voided"] == ["Courtesy"]


def test_a_day_that_does_not_balance_says_why_and_leads_to_what_mends_it(console: ConsoleWorld, page: Page) -> None:
    lone = charged(console, reason=[COUGH], occurrenceDateTime="2026-07-07T10:00:00Z")
    reconcile(page, "", {"date": "2026-07-07"})
    (found,) = findings(page)
    assert "charged, not done" in found
    page.get_by_role("link", name=f"ChargeItem/{lone['id']}").click()
    expect(page.locator("h1")).to_contain_text("sent")
    void(page, lone["id"], {"reason": "Nothing was done"})
    reconcile(page, "", {"date": "2026-07-07"})
    expect(page.get_by_text("The day balances.")).to_be_visible()
    page.goto("/administration/charges/reconciliation?date=<b>")
    expect(page.locator("#errors")).to_contain_text("<b> is not a day")


def test_what_is_due_of_an_order_is_charged(console: ConsoleWorld, page: Page) -> None:
    order = console.order()
    charge(page, order["id"], {})
    expect(page.locator("#done")).to_have_text("Nothing was due.")
    (step,) = console.steps(order)
    console.scanner()
    entry = {"resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest", "title": "CT Chest"}
    code = order["code"]["coding"][0]
    console.operation(f"Task/{step['id']}/$start")
    console.operation(f"Task/{step['id']}/$complete")
    console.create(entry | {"code": order["code"], "identifier": [{"system": code["system"], "value": code["code"]}]})
    charge(page, order["id"], {})
    expect(page.locator("#done")).to_have_text("Charged.")
    expect(page.locator("tbody tr")).to_contain_text("no charge code")


def test_every_operation_on_charges_has_its_way_at_the_screen() -> None:
    wanted = {("$release", "ChargeItem"), ("$correct", "ChargeItem"), ("$void", "ChargeItem"), ("$reconciliation", "ChargeItem")}
    assert wanted | {("$charge", "ServiceRequest")} <= HOW.keys()


def test_a_form_sent_twice_releases_once(console: ConsoleWorld) -> None:
    held = charged(console)
    path = f"/administration/charges/{held['id']}"
    with console.http("admin") as client:
        csrf = re.search(r'name="csrf" value="([^"]+)"', client.get(path).text)
        assert csrf
        form = {"csrf": csrf[1], "version": held["meta"]["versionId"], "reason": "Screening"}
        answers = [client.post(f"{path}/release", data=form, headers={"Sec-Fetch-Site": "same-origin"}) for _ in range(2)]
        assert [a.status_code for a in answers] == [303, 409]
    assert console.read(f"ChargeItem/{held['id']}")["meta"]["versionId"] == "2"
