"""Home: what waits for each role, as counts that lead there; live."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from console.screens.home.waiting import TABLE
from smart_auth.roles import ROLES
from tests.console_world import ConsoleWorld, press, today

READING = "urn:fhir-ris:reading-status"


@pytest.fixture(scope="module")
def department(console: ConsoleWorld) -> dict[str, Any]:
    """Orders of each kind, a booking and a patient who has come, a reading and a report."""
    ct = console.scanner("CT")
    referrer = console.user("referrer")
    mine = {"requester": {"reference": referrer.fhir_user}}
    stat = console.order(priority="stat", **mine)
    console.order()
    console.order(status="draft", priority="urgent")
    waiting = console.order()
    booking = console.booked(waiting, ct, today(datetime.now(UTC), timedelta(minutes=5)))
    console.update(booking, status="arrived")
    read = console.order(priority="stat", **mine)
    console.booked(read, ct, today(datetime.now(UTC), timedelta(hours=2)))
    (step,) = console.steps(read)
    console.operation(f"Task/{step['id']}/$start")
    console.operation(f"Task/{step['id']}/$complete")
    return {"referrer": referrer, "stat": stat["id"], "waiting": waiting["id"], "scanner": ct["id"], "read": read["id"]}


def count(page: Page, name: str) -> str:
    return page.locator(f"#count-{name} strong").inner_text()


def test_a_scheduler_sees_what_waits_and_gets_there(console: ConsoleWorld, department: dict[str, Any]) -> None:
    page = console.at("scheduler")
    assert [count(page, n) for n in ("validate", "held", "unscheduled", "appointments")] == ["1", "0", "2", "2"]
    expect(page.locator("#count-unscheduled")).to_contain_text("1 emergency · 1 routine")
    first = page.locator(".urgent a").first
    expect(first).to_contain_text("emergency")
    assert first.get_attribute("href", timeout=1000) == f"/schedule?day={_day()}&order={department['stat']}"
    page.locator("#count-validate").focus()
    press(page, "Enter")
    expect(page).to_have_url(re.compile(r"/orders\?tab=new$"))


def test_the_list_is_walked_by_keyboard(console: ConsoleWorld, department: dict[str, Any]) -> None:
    page = console.at("scheduler")
    for _ in range(len(TABLE["scheduler"]) + 1):
        press(page, "j")
    expect(page.locator(".urgent a").first).to_be_focused()
    press(page, "Enter")
    expect(page).to_have_url(re.compile(f"order={department['stat']}$"))


def test_it_changes_by_itself(console: ConsoleWorld, department: dict[str, Any]) -> None:
    page = console.at("scheduler")
    before = int(count(page, "held"))
    order = console.order()
    console.update(order, status="on-hold")
    expect(page.locator("#count-held strong")).to_have_text(str(before + 1))
    console.update(order, status="revoked")
    expect(page.locator("#count-held strong")).to_have_text(str(before))


def test_a_technologist_sees_rooms_and_who_waits(console: ConsoleWorld, department: dict[str, Any]) -> None:
    page = console.at("technologist")
    assert count(page, "waiting") == "1"
    room = page.locator(".rooms tbody tr")
    expect(room).to_have_count(1)
    assert room.locator("td").all_inner_texts() == ["0", "1", "0", "1"]
    (step,) = console.steps(console.read(f"ServiceRequest/{department['waiting']}"))
    assert page.locator(".urgent a").get_attribute("href") == f"/rooms/steps/{step['id']}"
    expect(page.locator("#count-silent-scanners strong")).to_have_text("0")


def test_a_radiologist_sees_what_is_unread_mine_overdue_and_critical(console: ConsoleWorld, department: dict[str, Any]) -> None:
    reader = console.user("radiologist")
    page = console.at(reader)
    assert [count(page, n) for n in ("unread", "mine", "critical")] == ["1", "0", "0"]
    expect(page.locator("#count-unread")).to_contain_text("1 emergency")
    (reading,) = console.search("Task", business_status=f"{READING}|unread")
    assert page.locator("#readings a").get_attribute("href") == f"/reading/{reading['id']}"
    late = [{"coding": [{"system": READING, "code": code}]} for code in ("claimed", "overdue")]
    states = {"coding": [c for s in late for c in s["coding"]]}
    console.update(reading, owner={"reference": reader.fhir_user}, businessStatus=states, status="accepted")
    expect(page.locator("#count-mine strong")).to_have_text("1")
    expect(page.locator("#readings .chip", has_text=re.compile("over target|claimed by me"))).to_be_visible()
    others = console.at("radiologist")
    assert [count(others, n) for n in ("unread", "mine")] == ["0", "0"]


def test_a_referrer_sees_own_results_alone(console: ConsoleWorld, department: dict[str, Any]) -> None:
    whose = console.read(f"ServiceRequest/{department['read']}")["subject"]
    strange = console.patient()
    made = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT Chest"}, "conclusion": "As before"}
    now = datetime.now(UTC).isoformat()
    mine = console.create(made | {"subject": whose, "issued": now})
    console.create(made | {"subject": {"reference": f"Patient/{strange['id']}"}, "issued": now})
    page = console.at(department["referrer"])
    assert [count(page, n) for n in ("results", "open-orders", "acknowledge")] == ["1", "2", "0"]
    expect(page.locator("#results a")).to_have_count(1)
    assert page.locator("#results a").get_attribute("href") == f"/reading/reports/{mine['id']}"


def test_those_who_look_after_interfaces_charges_and_records_have_theirs(console: ConsoleWorld) -> None:
    console.app.run(console.app.db["outbox"].insert_one({"_id": "x", "key": 1, "destination": "Endpoint/x", "state": "dead"}))
    page = console.at("interface-admin")
    assert count(page, "letters") == "1"
    console.app.run(console.app.db["outbox"].delete_one({"_id": "x"}))
    admin = console.at("admin")
    assert count(admin, "charges") == "0"
    auditor = console.at("auditor")
    assert count(auditor, "emergencies") == "0"
    office = console.at("privacy-officer")
    assert count(office, "reviews") == "0"
    expect(office.locator("main")).to_contain_text("Nothing is left to review.")


def test_every_role_has_something_and_it_is_told_in_german(console: ConsoleWorld) -> None:
    assert TABLE.keys() == ROLES.keys()
    page = console.at("scheduler", language="de-DE")
    expect(page.locator("#count-unscheduled")).to_contain_text("Zu terminieren")
    assert [c for c in console.complaints if "status of 40" not in c] == []


def _day() -> str:
    return datetime.now(UTC).date().isoformat()
