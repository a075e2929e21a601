"""The orders' screen as people use it: inbox, order page, what must be decided, orders by hand, two records of one patient."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from resources.coverage import submit_operation
from tests.console_steps import Refused, orders
from tests.console_world import CT_CHEST, DCM, DEPARTMENT, LOINC, ConsoleWorld, Resource, faults, press

CATALOGUE = {
    "CT Chest": ("24627-2", "CT", ()),
    "US Abdomen": ("24558-9", "US", ()),
    "PET/CT whole body": ("44139-4", "PT", ("urn:fhir-ris:authorization-required",)),
}


def coded(name: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": CATALOGUE[name][0], "display": name}]}


def furnish(console: ConsoleWorld) -> None:
    """The catalogue."""
    for name, (code, modality, marks) in CATALOGUE.items():
        entry = {
            "resourceType": "ActivityDefinition",
            "status": "active",
            "kind": "ServiceRequest",
            "title": name,
            "identifier": [{"system": LOINC, "value": code}],
            "code": coded(name),
            "topic": [{"coding": [{"system": DCM, "code": modality}]}],
        }
        console.create(entry | ({"extension": [{"url": url, "valueBoolean": True} for url in marks]} if marks else {}))


@pytest.fixture(scope="module", autouse=True)
def catalogue(console: ConsoleWorld) -> None:
    furnish(console)


@pytest.fixture(scope="module")
def page(console: ConsoleWorld, catalogue: None) -> Page:
    """A scheduler's browser."""
    return console.at("scheduler", "/orders")


@pytest.fixture(scope="module")
def reader(console: ConsoleWorld, catalogue: None) -> Page:
    """A radiologist's browser."""
    return console.at("radiologist", "/orders")


def status(console: ConsoleWorld, order: Resource) -> str:
    return str(console.read(f"ServiceRequest/{order['id']}")["status"])


def item(code: str, about: str, patient: Resource, **elements: Any) -> Resource:
    """A work item that is open."""
    return {
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {"coding": [{"system": "urn:fhir-ris:task", "code": code}]},
        "focus": {"reference": about},
        "for": {"reference": f"Patient/{patient['id']}"},
        "authoredOn": "2026-11-28T10:00:00Z",
        "description": "somebody must look at this",
    } | elements


def detail(code: str, text: str = "", **value: Any) -> Resource:
    kind = {"coding": [{"system": "urn:fhir-ris:task-detail", "code": code}]} | ({"text": text} if text else {})
    return {"type": kind, **value}


# The inbox


def test_new_orders_come_by_urgency_and_are_accepted_by_keyboard_alone(console, page):
    routine, urgent = (console.order(status="draft", priority=p) for p in ("routine", "stat"))
    page.goto("/orders")
    rows = page.locator("[data-row]")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("emergency")
    expect(page.locator(".tabs [aria-current]")).to_contain_text("2")
    press(page, "a")  # on no row: nothing
    press(page, "j")
    press(page, "a")
    expect(page.locator("#done")).to_have_text("The order is accepted.")
    assert (status(console, urgent), status(console, routine)) == ("active", "draft")
    expect(rows).to_have_count(1)
    # What comes in is there without a reload, what somebody else decides is gone.
    odd = console.order(
        status="draft", code={"coding": [{"system": "urn:example:codes", "code": "X", "display": "Thermography"}]}
    )
    expect(page.get_by_role("row").filter(has_text="Thermography")).to_contain_text("Not in the catalogue")
    console.operation(f"ServiceRequest/{odd['id']}/$reject", [{"name": "reason", "valueString": "not done here"}])
    expect(page.get_by_role("row").filter(has_text="Thermography")).to_have_count(0)
    # The lists by their keys: what was accepted waits for its time.
    press(page, "4")
    expect(
        page.get_by_role("row").filter(has_text=console.read(urgent["subject"]["reference"])["name"][0]["family"])
    ).to_be_visible()
    expect(page.get_by_role("link", name="Book").first).to_have_attribute("href", re.compile("/schedule\\?order="))
    console.operation(f"ServiceRequest/{routine['id']}/$accept")
    press(page, "1")
    expect(page.get_by_text("No new orders.")).to_be_visible()


def test_lists_are_paged_and_filtered(console, page):
    patient = console.patient()
    about = f"Patient/{patient['id']}"

    async def many() -> None:
        made = [item("unknown-station", about, patient, priority="urgent" if i else "stat") for i in range(51)]
        await asyncio.gather(*(console.app.ris.interactions.create(DEPARTMENT, m) for m in made))

    console.app.run(many())
    page.goto("/orders?tab=items&family=schedule")
    expect(page.locator("[data-row]")).to_have_count(50)
    expect(page.locator("[data-row]").first).to_contain_text("Scanner unknown")
    press(page, ".")
    expect(page.locator("[data-row]")).to_have_count(1)
    page.get_by_role("link", name="First page").click()
    page.locator("#priority").select_option("stat")
    expect(page.locator("[data-row]")).to_have_count(1)
    page.goto("/orders?tab=all")
    page.locator("#status").select_option("completed")
    expect(page.get_by_text("Nothing of this kind.")).to_be_visible()


# The order's page


def test_what_was_found_is_settled_with_a_reason_and_the_page_tells_who_decided(console, page):
    patient = console.patient()
    console.order(patient)
    order = console.order(patient, status="draft", reasonCode=[{"text": "<script>alert(1)</script>"}])
    page.goto("/orders")
    page.get_by_role("row").filter(has_text="Ordered twice?").get_by_role("link").click()
    expect(page.locator("dd").first).to_have_text("<script>alert(1)</script>")
    press(page, "a")
    page.keyboard.type("The ward wants both")
    press(page, "Tab")
    press(page, "Enter")
    expect(page.locator("#done")).to_be_visible()
    assert status(console, order) == "active"
    (task,) = console.search("Task", focus=f"ServiceRequest/{order['id']}", intent="order")
    assert (task["status"], task["statusReason"]) == ("completed", {"text": "The ward wants both"})
    name = page.locator(".person summary").inner_text().split("\n")[0]
    practitioner = console.read(f"Practitioner/{name}")["name"][0]
    history = page.locator(".history li").first
    expect(history).to_contain_text("The ward wants both")
    expect(page.locator(".history")).to_contain_text(f"{practitioner['family']}, {practitioner['given'][0]}")


def test_held_released_extended_and_replaced(console, page, reader):
    order = console.order()
    orders.hold(page, order["id"], {"reason": "The patient has a fever"})
    assert status(console, order) == "on-hold"
    expect(page.locator("[data-part=found]")).to_contain_text("The patient has a fever")
    page.goto("/orders?tab=hold")
    expect(page.locator("[data-row]").filter(has_text="The patient has a fever")).to_be_visible()
    orders.accept(page, order["id"], {})
    assert status(console, order) == "active"
    orders.add_procedure(page, order["id"], {"code": coded("US Abdomen"), "reason": "Free fluid seen"})
    expect(page.get_by_role("row").filter(has_text="US Abdomen")).to_be_visible()
    assert len(console.steps(order)) == 2
    with pytest.raises(Refused, match="has this procedure already"):
        orders.add_procedure(page, order["id"], {"code": coded("US Abdomen"), "reason": "Once more"})
    expect(page.locator("#add-reason")).to_have_value("Once more")
    orders.cancel(reader, order["id"], {"reason": "MR is better", "replacement": {"code": coded("US Abdomen")}})
    expect(reader.get_by_role("heading", level=1)).to_contain_text("US Abdomen")
    new = console.read(f"ServiceRequest/{reader.url.rpartition('/')[2].partition('?')[0]}")
    assert new["replaces"][0]["reference"] == f"ServiceRequest/{order['id']}"
    assert (status(console, order), new["reasonCode"]) == ("revoked", order["reasonCode"])


def test_a_draft_is_rejected_and_a_requested_procedure_leads_to_its_order(console, page):
    draft, order = console.order(status="draft"), console.order()
    orders.reject(page, draft["id"], {"reason": "No such examination here"})
    assert status(console, draft) == "revoked"
    expect(page.locator(".decide")).to_have_count(0)
    (procedure,) = console.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}")
    page.goto(f"/orders/{procedure['id']}")
    expect(page).to_have_url(re.compile(f"/orders/{order['id']}$"))


def test_of_two_who_decide_at_once_the_second_is_told_who_was_first(console, page, reader):
    order = console.order(status="draft")
    page.goto(f"/orders/{order['id']}")
    press(page, "x")
    page.locator("#reject-reason").fill("No room this week")
    orders.accept(reader, order["id"], {})
    press(page, "Tab")
    press(page, "Enter")
    told = page.locator("#errors")
    expect(told).to_contain_text("was faster")
    expect(told).to_contain_text("Radiologist")
    expect(told).to_contain_text("active")
    assert status(console, order) == "active"
    # The page is the present one, and stays so: what is offered now, with what was typed.
    expect(page.locator("[data-opens=reject]")).to_have_count(0)
    console.update(order, note=[{"text": "patient will call back"}])
    expect(page.locator("main")).to_contain_text("patient will call back")
    press(page, "h")
    expect(page.locator("#hold-reason")).to_have_value("No room this week")


def test_what_is_to_be_minded_is_shown_as_far_as_the_role_sees_it(console, page, reader):
    patient = console.patient()
    order, whose = console.order(patient), {"reference": f"Patient/{patient['id']}"}
    (procedure,) = console.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}")
    active = {"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}
    allergy = {"resourceType": "AllergyIntolerance", "patient": whose, "code": {"text": "Iodine contrast"}}
    console.create(allergy | {"clinicalStatus": {"coding": [active]}})
    issue = {"resourceType": "DetectedIssue", "status": "final", "severity": "high", "patient": whose, "detail": "Pacemaker"}
    console.create(issue | {"implicated": [{"reference": f"ServiceRequest/{procedure['id']}"}]})
    for browser, allergies in ((page, 0), (reader, 1)):
        browser.goto(f"/orders/{order['id']}")
        minded = browser.locator("[data-part=clinical]")
        expect(minded).to_contain_text("Pacemaker")
        expect(minded.get_by_text("Iodine contrast")).to_have_count(allergies)


def test_an_order_that_changes_under_an_open_page_is_shown_as_it_is(console, page):
    order, scanner = console.order(), console.scanner()
    page.goto(f"/orders/{order['id']}")
    expect(page.locator("[data-part=procedures]")).to_contain_text("to be scheduled")
    console.booked(order, scanner)
    expect(page.locator("[data-part=procedures]")).to_contain_text(scanner["deviceName"][0]["name"])
    expect(page.get_by_role("link", name="Book")).to_have_count(0)


def test_double_orders_stand_side_by_side_and_one_is_cancelled(console, page):
    patient = console.patient()
    first = console.order(patient, note=[{"text": "by wheelchair"}])
    second = console.order(patient, priority="urgent", reasonCode=[{"text": "Suspected embolism"}])
    page.goto("/orders?tab=items&family=order")
    page.get_by_role("row").filter(has_text=patient["name"][0]["family"]).filter(has_text="Ordered twice?").get_by_role(
        "link"
    ).click()
    table = page.locator(".compared")
    expect(table.get_by_role("row").filter(has_text="Reason")).to_contain_text("differs")
    expect(table.get_by_role("row").filter(has_text="Suspected embolism").locator(".marked")).to_have_count(2)
    expect(table.get_by_role("row").filter(has_text="CT Chest").locator(".marked")).to_have_count(0)
    press(page, "2")
    page.get_by_role("dialog").get_by_role("button", name="Yes, cancel the order").click()
    expect(page.locator("#done")).to_be_visible()
    assert (status(console, first), status(console, second)) == ("revoked", "active")
    expect(page.locator(".compared")).to_have_count(0)
    third = console.order(patient)
    page.goto(f"/orders/{second['id']}")  # the work item is the third one's; the second shows it too
    expect(page.locator(".compared")).to_contain_text(console.read(f"ServiceRequest/{third['id']}")["identifier"][-1]["value"])


# Orders by hand


def test_an_order_is_taken_by_hand_by_keyboard_alone(console, page):
    patient = console.patient(name=[{"family": "Zaubermann", "given": ["Zita"]}], birthDate="1981-04-05")
    page.goto("/orders")
    press(page, "n")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("zita Zaubermann 5.4.1981")
    press(page, "Enter")
    expect(page.locator(".picks a")).to_have_count(1)
    assert "auberm" not in page.url
    press(page, "j")
    press(page, "Enter")
    page.locator("#examination").focus()
    page.keyboard.type("CT Chest")
    page.locator("#reason").focus()
    page.keyboard.type("Fell from a ladder")
    page.locator("#priority").focus()
    page.keyboard.type("urgent")
    page.locator("#note").focus()
    press(page, "Tab")
    press(page, "Enter")
    expect(page.locator("#done")).to_have_text("The order is taken.")
    (order,) = console.search("ServiceRequest", subject=f"Patient/{patient['id']}", intent="order")
    assert (order["priority"], order["code"], order["reasonCode"]) == ("urgent", CT_CHEST, [{"text": "Fell from a ladder"}])
    expect(page.locator("[data-part=procedures]")).to_contain_text("to be scheduled")
    # A second one at once: taken, and shown as perhaps ordered twice.
    number = {"identifier": patient["identifier"]}
    again = {"entry": [{"resource": {"resourceType": "Patient"} | number}, {"resource": order}]}
    orders.create_order(page, "", {"order": again})
    expect(page.locator("[data-part=found]")).to_contain_text("Ordered twice?")


def test_a_form_that_is_sent_twice_makes_one_order(console, page):
    patient = console.patient()
    with console.http("scheduler") as client:
        form = client.get(f"/orders/new?patient={patient['id']}").text
        fields = dict(re.findall(r'<input type="hidden" name="(csrf|patient|key)" value="([^"]*)"', form))
        entry = re.search(r'<option value="([^"]+)"[^>]*>[^<]*CT Chest', form)
        assert entry
        fields |= {"examination": entry[1], "reason": "Cough"}
        with ThreadPoolExecutor(3) as at_once:
            answers = list(at_once.map(lambda _: client.post("/orders/new", data=fields), range(3)))
        answers.append(client.post("/orders/new", data=fields))
        assert {a.status_code for a in answers} == {303}
        assert len({a.headers["location"] for a in answers}) == 1
        assert len(console.search("ServiceRequest", subject=f"Patient/{patient['id']}", intent="order")) == 1
        # What was changed after "back" is another order.
        other = client.post("/orders/new", data=fields | {"reason": "Fever"})
        assert other.headers["location"] != answers[0].headers["location"]
        assert len(console.search("ServiceRequest", subject=f"Patient/{patient['id']}", intent="order")) == 2


def test_nobody_is_found_and_what_is_refused_keeps_what_was_typed(console, page):
    page.goto("/orders/new")
    page.locator("#q").fill("Nobody Ofthisname")
    page.locator("#q").press("Enter")
    expect(page.get_by_text("Nobody found.")).to_be_visible()
    page.goto(f"/orders/new?patient={console.patient()['id']}")
    page.locator("#examination").select_option(label="CT Chest")
    page.locator("#reason").fill("Typed before")
    page.locator("#wanted").evaluate("field => { field.type = 'text'; field.value = 'soon'; }")
    page.get_by_role("button", name="Take the order").click()
    expect(page.locator("#errors")).to_be_visible()
    assert "?patient=" in page.url  # where the form is, after a reload too
    expect(page.locator("#reason")).to_have_value("Typed before")
    expect(page.locator("#examination option:checked")).to_have_text("CT Chest")


# Who pays


def insured(console: ConsoleWorld) -> tuple[Resource, Resource]:
    """An order that needs an authorization, and the insurance that pays for it."""
    kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest"}
    payload = [{"coding": [{"system": "urn:example", "code": "any"}]}]
    endpoint = console.create(
        {"resourceType": "Endpoint", "status": "active", "connectionType": kind, "payloadType": payload, "address": "https://payer.example.org/fhir"}
    )  # fmt: skip
    payer = console.create(
        {"resourceType": "Organization", "name": "Example Health", "endpoint": [{"reference": f"Endpoint/{endpoint['id']}"}]}
    )
    patient = console.patient()
    whose, pays = {"reference": f"Patient/{patient['id']}"}, {"reference": f"Organization/{payer['id']}"}
    coverage = console.create({"resourceType": "Coverage", "status": "active", "beneficiary": whose, "payor": [pays]})
    order = console.order(patient, "PT", code=coded("PET/CT whole body"), insurance=[{"reference": f"Coverage/{coverage['id']}"}])
    return order, coverage


def test_a_payer_is_asked_and_its_answer_is_shown_when_it_comes(console, page, monkeypatch):
    monkeypatch.setattr(submit_operation, "LONGEST_WAIT", 0.0)
    order, coverage = insured(console)
    page.goto(f"/orders/{order['id']}")
    expect(page.locator("[data-part=cover]")).to_contain_text("needs authorization")
    asked = {
        "insurance": [{"coverage": {"reference": f"Coverage/{coverage['id']}"}}],
        "item": [{"detail": [{"reference": f"ServiceRequest/{order['id']}"}]}],
    }
    orders.submit(page, "", {"resource": asked})
    expect(page.locator("[data-part=cover]")).to_contain_text("asked")
    (waiting,) = console.search("CoverageEligibilityResponse", patient=order["subject"]["reference"])
    (request,) = console.search("CoverageEligibilityRequest", patient=order["subject"]["reference"])
    assert request["item"][0]["detail"] == asked["item"][0]["detail"]
    granted = [{"coverage": {"reference": f"Coverage/{coverage['id']}"}, "inforce": True}]
    console.update(waiting, outcome="complete", preAuthRef="AUTH-4711", insurance=granted)
    expect(page.locator("[data-part=cover]")).to_contain_text("AUTH-4711")
    # A scheduler can't do without the payer; a radiologist can, with a reason that says something.
    expect(page.locator("[data-opens=override]")).to_have_count(0)


def test_a_radiologist_has_it_booked_without_authorization(console, reader):
    order, _ = insured(console)
    with pytest.raises(Refused, match="10 to 500"):
        orders.override_authorization(reader, order["id"], {"reason": "urgent"})
    orders.override_authorization(reader, order["id"], {"reason": "Cord compression, the payer answers on Monday"})
    expect(reader.locator("[data-part=cover]")).to_contain_text("without authorization")
    expect(reader.locator(".history")).to_contain_text("Cord compression")
    console.booked(order, console.scanner("PT"))


# Identity


def test_a_mismatch_stands_side_by_side_and_records_of_one_patient_become_one(console, page):
    mara = console.patient(name=[{"family": "Zweifel", "given": ["Mara"]}])
    lea = console.patient(name=[{"family": "Zweifel", "given": ["Lea"]}], birthDate="1970-02-01")
    order = console.order(lea)
    said = [
        detail("known", "date of birth", valueString="1970-01-31"),
        detail("said", "date of birth", valueString="1970-02-01"),
        detail("candidate", valueReference={"reference": f"Patient/{lea['id']}"}),
    ]
    task = console.create(item("patient-mismatch", f"Patient/{mara['id']}", mara, input=said))
    page.goto("/orders?tab=items&family=identity")
    press(page, "j")
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Patient in doubt")
    row = page.locator(".compared").get_by_role("row").filter(has_text="Born")
    expect(row).to_contain_text("31 Jan 1970")
    expect(row).to_contain_text("1 Feb 1970")
    press(page, "m")
    expect(page.locator(".compared").get_by_role("row").filter(has_text="Name").locator(".marked")).to_have_count(2)
    expect(page.locator(".compared").get_by_role("row").filter(has_text="Sex").locator(".marked")).to_have_count(0)
    press(page, "1")
    page.get_by_role("dialog").get_by_role("button", name="Merge").press("Enter")
    expect(page.locator("#done")).to_have_text("The records are one now.")
    assert console.read(f"ServiceRequest/{order['id']}")["subject"]["reference"] == f"Patient/{mara['id']}"
    page.get_by_role("button", name="Take the merge back").click()
    expect(page.locator("#done")).to_have_text("The merge is taken back.")
    assert console.read(f"ServiceRequest/{order['id']}")["subject"]["reference"] == f"Patient/{lea['id']}"
    press(page, "s")
    page.keyboard.type("Two sisters, I called the ward")
    press(page, "Tab")
    press(page, "Enter")
    expect(page.locator("#done")).to_have_text("Settled.")
    closed = console.read(f"Task/{task['id']}")
    assert (closed["status"], closed["statusReason"]["text"]) == ("completed", "Two sisters, I called the ward")
    assert closed["note"][0]["authorReference"]["reference"].startswith("Practitioner/sche")


def test_records_are_found_and_merged_and_a_question_is_settled_once(console, page, reader):
    keep, prior = console.patient(), console.patient()
    page.goto("/orders/records")
    for patient in (keep, prior):
        page.locator("#q").fill(patient["identifier"][0]["value"])
        page.locator("#q").press("Enter")
        page.locator(".picks a").click()
    expect(page.locator(".compared thead th")).to_have_count(3)
    orders.merge(page, keep["id"], {"prior": prior["id"]})
    assert console.read(f"Patient/{prior['id']}")["active"] is False
    with pytest.raises(Refused, match="merged already"):
        orders.merge(page, keep["id"], {"prior": prior["id"]})
    task = console.create(item("order-changed", f"Patient/{keep['id']}", keep))
    page.goto(f"/orders/items/{task['id']}")
    press(page, "s")
    console.update(task, description="it is wanted even later")
    page.locator("#settle-reason").fill("Moved to Monday")
    page.get_by_role("dialog").get_by_role("button", name="Settle").click()
    expect(page.locator("#errors")).to_contain_text("changed meanwhile")
    expect(page.locator("main")).to_contain_text("it is wanted even later")
    assert console.read(f"Task/{task['id']}")["status"] == "requested"


def test_a_time_that_became_free_leads_to_who_waits_for_it(console, page):
    scanner, order, waits = console.scanner("MG"), console.order(modality="MG"), console.order(modality="MG")
    start = datetime.now(UTC).replace(hour=11, minute=0, second=0, microsecond=0) + timedelta(days=9)
    booked = console.booked(order, scanner, start)
    console.create(
        {
            "resourceType": "Appointment",
            "status": "waitlist",
            "basedOn": [{"reference": f"ServiceRequest/{waits['id']}"}],
            "participant": [{"actor": waits["subject"], "status": "needs-action"}],
        }
    )
    console.update(booked, status="cancelled")
    (item_,) = console.search("Task", code="urn:fhir-ris:task|freed-time", status="requested")
    page.goto(f"/orders/items/{item_['id']}")
    expect(page.locator("main")).to_contain_text("Time has become free")
    expect(page.locator("main")).to_contain_text("On the waiting list are 1 that could have this time")
    page.get_by_role("link", name="Waiting list").click()
    expect(page).to_have_url(re.compile(rf"/schedule\?list=waiting&day={start.date()}"))
    expect(page.locator("main")).to_contain_text(console.read(waits["subject"]["reference"])["name"][0]["family"])


# Who may, languages, accessibility


def test_each_role_gets_to_what_is_its_own_and_nowhere_else(console):
    draft, order, patient = console.order(status="draft"), console.order(), console.patient()
    task = console.create(item("order-changed", f"ServiceRequest/{order['id']}", patient))
    pages = {
        "/orders": "scheduler technologist radiologist referrer admin",
        f"/orders/{order['id']}": "scheduler technologist radiologist admin",
        f"/orders/items/{task['id']}": "scheduler technologist radiologist admin",
        "/orders/new": "scheduler radiologist referrer admin",
        f"/orders/new?patient={patient['id']}": "scheduler radiologist admin",
        f"/orders/records?one={patient['id']}": "scheduler admin",
    }
    forms = {
        "accept": "scheduler radiologist admin",
        "reject": "scheduler radiologist admin",
        "hold": "scheduler technologist radiologist admin",
        "cancel": "scheduler technologist radiologist referrer admin",
        "add-procedure": "scheduler technologist radiologist admin",
        "coverage": "scheduler admin",
        "override": "radiologist admin",
    }
    everybody = ("scheduler", "technologist", "radiologist", "referrer", "admin", "interface-admin", "auditor", "privacy-officer")
    for role in everybody:
        with console.http(role) as client:
            shown = {path: client.get(path).status_code for path in pages}
            # A referrer sees its own patients only: the others aren't there.
            assert {p for p, s in shown.items() if s == 200} == {p for p, roles in pages.items() if role in roles.split()}, role
            assert {s for s in shown.values() if s != 200} <= {403, 404}, role
            token = re.search('name="csrf" value="([^"]+)"', client.get("/").text)
            assert token
            for name, roles in forms.items():
                answer = client.post(f"/orders/{draft['id']}/{name}", data={"csrf": token[1], "version": "999"})
                assert (answer.status_code == 403) is (role not in roles.split()), (role, name, answer.status_code)
            settle = f"/orders/items/{task['id']}/settle"
            for path, need in (
                ("/orders/records/merge", "scheduler admin"),
                (settle, "scheduler technologist radiologist admin"),
            ):
                answer = client.post(path, data={"csrf": token[1], "version": "999", "reason": "x"})
                assert (answer.status_code == 403) is (role not in need.split()), (role, path)
    assert (status(console, draft), status(console, order)) == ("draft", "active")


def test_a_technologist_is_offered_what_a_technologist_may(console):
    page = console.at("technologist", f"/orders/{console.order(status='draft')['id']}")
    expect(page.locator("[data-opens=hold]")).to_be_visible()
    expect(page.locator(".decide [data-key=a], [data-opens=reject], [data-opens=override]")).to_have_count(0)


def test_every_page_is_in_german(console):
    page = console.at("scheduler", language="de-DE")
    patient, other = console.patient(), console.patient()
    console.order(patient)
    order, (pet, _) = console.order(patient, status="draft"), insured(console)
    doubt = [detail("known", "name", valueString="A")]
    task = console.create(item("patient-mismatch", f"Patient/{other['id']}", other, input=doubt))
    lists = {f"/orders?tab={tab}": "Aufträge" for tab in ("new", "hold", "items", "unscheduled", "all")}
    paths = lists | {
        f"/orders/{order['id']}": "CT Chest",
        f"/orders/{pet['id']}": "PET/CT whole body",
        f"/orders/items/{task['id']}": "Identität zweifelhaft",
        "/orders/new": "Neuer Auftrag",
        f"/orders/new?patient={patient['id']}": "Neuer Auftrag",
        f"/orders/records?one={patient['id']}&other={other['id']}": "Zwei Akten einer Person",
    }
    for path, title in paths.items():
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(f"^{re.escape(title)}"))
    page.goto(f"/orders/{order['id']}")
    press(page, "a")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert faults(page) == []


def test_no_script_of_these_pages_fails(console: ConsoleWorld) -> None:
    """Last in this file: it looks at what the browsers have complained of so far."""
    assert [c for c in console.complaints if not re.search("status of (403|4[0-9]{2})", c)] == []
