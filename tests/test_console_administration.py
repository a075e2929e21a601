"""Administration at the screen: people, apps, the department's resources, and who must not."""

import json
import re
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from console.screens.administration import DOORS
from smart_auth.administration import version
from smart_auth.clients import Clients
from smart_auth.consents import Consents
from tests import people_app
from tests.console_steps.administration import generate_slots
from tests.console_world import DCM, LOINC, ConsoleWorld, Resource, faults, press
from tests.people_app import PASSWORD

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def page(console: ConsoleWorld) -> Page:
    """An administrator's browser, for most of what follows."""
    return console.at("admin", "/administration")


def confirmed(page: Page, dialog: str, button: str) -> None:
    """Open a dialog by its button and say yes."""
    page.locator(f"[data-opens='{dialog}']").click()
    page.locator(f"#{dialog} .buttons button", has_text=button).click()


def posted(client: httpx.Client, shown: str, path: str, **fields: str) -> httpx.Response:
    """A form sent with the token of the page at `shown`."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(shown).text)
    assert found
    return client.post(path, data={"csrf": found[1], **fields}, headers={"Sec-Fetch-Site": "same-origin"})


def audited(console: ConsoleWorld, event: str) -> list[Resource]:
    """The AuditEvents of an event."""
    return console.search("AuditEvent", subtype=event)


# People


def test_a_user_is_added_with_a_password_that_is_shown_once_and_must_be_changed(console: ConsoleWorld, page: Page) -> None:
    console.put({"resourceType": "Practitioner", "id": "nina", "name": [{"family": HOSTILE, "given": ["Nina"]}]})
    page.goto("/administration/users")
    press(page, "n")
    page.get_by_label("User name").fill("nina.new")
    page.get_by_label("Role").select_option("technologist")
    page.get_by_label("Person in the directory").fill("Practitioner/nina")
    page.get_by_role("button", name="Add").click()
    password = page.locator("#secret").inner_text()
    assert password not in page.url
    assert faults(page) == []

    browser = people_app.Browser(console.app).log_in("nina.new", password)
    assert browser.path.startswith("/account/password")
    assert not browser.logged_in
    (event,) = [e for e in audited(console, "user-add") if e["entity"][0]["description"] == "user nina.new"]
    assert event["agent"][0]["role"][0]["coding"][0]["code"] == "admin"
    assert password not in json.dumps(event)

    page.goto("/administration/users?role=technologist")
    row = page.locator("tr", has_text="nina.new")
    expect(row).to_contain_text(HOSTILE)
    expect(row).to_contain_text("one-time password")


def test_a_user_form_that_is_refused_says_why_and_keeps_what_was_typed(console: ConsoleWorld, page: Page) -> None:
    console.user("scheduler", "taken.name")
    page.goto("/administration/users/new")
    page.get_by_label("User name").fill("taken.name")
    page.get_by_label("Role").select_option("radiologist")
    page.get_by_label("Person in the directory").fill("Practitioner/x")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#errors")).to_contain_text("already")
    expect(page.get_by_label("User name")).to_have_value("taken.name")
    expect(page.get_by_label("Role")).to_have_value("radiologist")


def test_role_password_second_factor_and_sessions_are_changed_and_end_what_was(console: ConsoleWorld, page: Page) -> None:
    user = console.user("radiologist", "otto.reads")
    console.app.with_device(user)
    other = console.app.run(console.app.users.get(user.name))
    assert other is not None
    browser = people_app.Browser(console.app).log_in(console.user("radiologist", "paul.reads"), PASSWORD)

    page.goto("/administration/users/paul.reads")
    expect(page.locator("[data-part=logins] tbody tr")).to_have_count(1)
    page.get_by_role("button", name="End all sessions").click()
    expect(page.locator("#done")).to_be_visible()
    assert not browser.logged_in

    page.goto("/administration/users/otto.reads")
    expect(page.get_by_text("10 recovery codes left")).to_be_visible()
    confirmed(page, "factor", "Reset")
    expect(page.locator("#done")).to_contain_text("second factor is reset")
    page.get_by_label("Role").select_option("technologist")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_contain_text("Changed")
    confirmed(page, "password", "New one-time password")
    password = page.locator("#secret").inner_text()
    page.get_by_role("link", name="To the user").click()
    confirmed(page, "disable", "Disable")
    expect(page.locator("h1")).to_contain_text("disabled")
    assert not people_app.Browser(console.app).log_in("otto.reads", password).path.startswith("/account")
    page.get_by_role("button", name="Enable").click()
    expect(page.locator("h1")).to_contain_text("one-time password")
    assert people_app.Browser(console.app).log_in("otto.reads", password).path.startswith("/account/password")

    now = console.app.run(console.app.users.get("otto.reads"))
    assert now is not None
    assert (now.role, now.second_factor, now.must_change_password) == ("technologist", False, True)
    whose = [e["subtype"][0]["code"] for e in console.search("AuditEvent", entity=f"Practitioner/{user.name}", type="110113")]
    assert sorted(whose) == ["second-factor-reset", "user-change", "user-disable", "user-enable", "user-password"]


def test_nobody_shuts_out_themselves_and_a_form_sent_twice_does_nothing_twice(console: ConsoleWorld) -> None:
    me, other = console.user("admin", "eva.admin"), console.user("scheduler", "ben.plans")
    with console.http(me) as client:
        me_now = console.app.run(console.app.users.get(me.name))
        assert me_now is not None
        page = client.get(f"/administration/users/{me.name}")
        assert "This is you" in page.text
        for act in ("disable", "change", "password", "second-factor"):
            fields = {"version": version(me_now), "role": "scheduler", "fhir-user": me.fhir_user}
            answer = posted(client, "/administration/users", f"/administration/users/{me.name}/{act}", **fields)
            assert answer.status_code == 422, act
            assert "oneself" in answer.text

        shown = version(other)
        path = f"/administration/users/{other.name}/disable"
        assert posted(client, "/administration/users", path, version=shown).status_code == 303
        again = posted(client, "/administration/users", path, version=shown)
        assert again.status_code == 409
        assert "meanwhile" in again.text
        assert posted(client, "/administration/users", "/administration/users/nobody/disable", version="x").status_code == 404
    assert len([e for e in audited(console, "user-disable") if e["entity"][0]["description"] == f"user {other.name}"]) == 1


# Apps


def test_apps_are_added_looked_at_revoked_and_removed(console: ConsoleWorld, page: Page) -> None:
    page.goto("/administration/apps")
    press(page, "n")
    page.get_by_label("Client id").fill("shoe-viewer")
    page.get_by_label("Name shown to people").fill(HOSTILE)
    page.get_by_label("Scopes").fill("launch openid fhirUser user/Patient.rs")
    page.get_by_label("Redirect URIs").fill("http://elsewhere.example.org/back")
    page.get_by_label("a secret").check()
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#errors")).to_contain_text("https")
    expect(page.get_by_label("a secret")).to_be_checked()
    page.get_by_label("Redirect URIs").fill("https://elsewhere.example.org/back")
    page.get_by_role("button", name="Add").click()
    secret = page.locator("#secret").inner_text()
    client = console.app.run(Clients(console.app.db).get("shoe-viewer"))
    assert client is not None
    assert client.has_secret(secret)

    user = console.user("radiologist", "greta.uses")
    console.app.run(Consents(console.app.db).remember(user, client, ["user/Patient.rs"]))
    page.get_by_role("link", name="To the app").click()
    expect(page.locator("h1")).to_have_text(HOSTILE)
    expect(page.locator("main")).to_contain_text("https://elsewhere.example.org/back")
    page.get_by_role("link", name="greta.uses").click()
    expect(page.locator("main")).to_contain_text("shoe-viewer")
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("#done")).to_contain_text("no access any more")
    assert console.app.run(Consents(console.app.db).of_user(user)) == []

    page.goto("/administration/apps/shoe-viewer")
    expect(page.get_by_text("Nobody has given it access.")).to_be_visible()
    confirmed(page, "remove", "Remove")
    expect(page.locator("#done")).to_contain_text("removed")
    assert console.app.run(Clients(console.app.db).get("shoe-viewer")) is None
    events = [*audited(console, "client-add"), *audited(console, "client-remove")]
    assert [e["outcomeDesc"].partition(":")[0] for e in events] == ["shoe-viewer", "shoe-viewer"]


# The department's resources


def test_a_scanner_is_changed_in_a_form_and_all_else_of_it_is_kept(console: ConsoleWorld, page: Page) -> None:
    room = console.create({"resourceType": "Location", "name": f"Room {HOSTILE}", "status": "active"})
    kept = {
        "serialNumber": "S-1",
        "identifier": [
            {"system": "urn:example:inventory", "value": "4711"},
            {"system": "urn:fhir-ris:ae-title", "value": "CTOLD", "use": "official"},
        ],
        "extension": [{"url": "urn:example:other", "valueString": "kept"}],
        "note": [{"text": "kept"}],
    }
    scanner = console.scanner("CT", "old name", **kept)
    page.goto("/administration/scanners")
    page.get_by_role("link", name="old name").click()
    page.get_by_label("Name", exact=False).first.fill("CT two")
    page.get_by_label("AE title", exact=False).first.fill("CT2NEW")
    page.locator("#location").select_option(label=f"Room {HOSTILE}")
    page.get_by_label("Days back").fill("3")
    page.get_by_label("May call from").fill("10.1.2.0/24\n10.1.3.7")
    page.get_by_label("May call us by any AE title").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_have_text("Saved.")
    now = console.read(f"Device/{scanner['id']}")
    assert (now["serialNumber"], now["note"], now["identifier"][0]) == ("S-1", [{"text": "kept"}], kept["identifier"][0])
    assert now["identifier"][1] == {"system": "urn:fhir-ris:ae-title", "value": "CT2NEW", "use": "official"}
    assert now["location"] == {"reference": f"Location/{room['id']}"}
    extensions = [(e["url"].rpartition(":")[2], next(v for k, v in e.items() if k != "url")) for e in now["extension"]]
    assert extensions == [
        ("other", "kept"), ("dicom-address", "10.1.2.0/24"), ("dicom-address", "10.1.3.7"), ("dicom-any-called-title", True),
        ("worklist-days-back", 3),
    ]  # fmt: skip

    page.get_by_label("Days back").fill("")
    page.get_by_label("May call from").fill("10.1.3.7")
    page.get_by_label("Days ahead").fill("9999")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".wrong")).to_contain_text("worklist-days-ahead")
    expect(page.get_by_label("Days ahead")).to_have_value("9999")
    page.get_by_label("Days ahead").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    now = console.read(f"Device/{scanner['id']}")
    assert [e["url"].rpartition(":")[2] for e in now["extension"]] == ["other", "dicom-address", "dicom-any-called-title"]


def test_who_saves_later_is_told_and_sees_what_is_stored_now(console: ConsoleWorld, page: Page) -> None:
    room = console.create({"resourceType": "Location", "name": "Room A", "status": "active"})
    page.goto(f"/administration/locations/{room['id']}")
    page.get_by_label("Description").fill("by the stairs")
    console.update(room, description="near the lift")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#errors")).to_contain_text("somebody else has saved")
    expect(page.locator("main")).to_contain_text("Stored now: near the lift")
    expect(page.get_by_label("Description")).to_have_value("by the stairs")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    assert console.read(f"Location/{room['id']}")["description"] == "by the stairs"
    confirmed(page, "delete", "Delete")
    expect(page.locator("#done")).to_have_text("Deleted.")


def test_a_catalogue_entry_is_made_with_charges_and_is_found_by_its_code(console: ConsoleWorld, page: Page) -> None:
    page.goto("/administration/procedures")
    press(page, "n")
    for label, text in {"Title": "CT Chest", "Display of the code": "CT Chest", "Minutes": "20"}.items():
        page.get_by_label(label, exact=False).first.fill(text)
    page.locator("[id='code-system']").fill(LOINC)
    page.locator("[id='code']").fill("24627-2")
    page.locator("#modality").select_option("CT")
    page.get_by_label("An order must give a reason").check()
    page.locator("[id='charges.0.component']").select_option("technical")
    page.locator("[id='charges.0.code']").fill("71250")
    page.locator("[id='charges.0.quantity']").fill("1.5")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    (entry,) = console.search("ActivityDefinition", identifier=f"{LOINC}|24627-2", status="active")
    assert entry["timingDuration"]["code"] == "min"
    assert entry["topic"] == [{"coding": [{"system": DCM, "code": "CT"}]}]
    assert [e["url"] for e in entry["extension"]] == ["urn:fhir-ris:reason-required", "urn:fhir-ris:charge"]
    parts = {p["url"]: p for p in entry["extension"][1]["extension"]}
    assert str(parts["quantity"]["valueDecimal"]) == "1.5"

    page.locator("[id='charges.1.component']").select_option("professional")
    page.locator("[id='charges.1.code']").fill("71250")
    page.locator("[id='charges.0.component']").select_option("")
    for name in ("code", "quantity"):
        page.locator(f"[id='charges.0.{name}']").fill("")
    page.locator("[id='duration']").fill("twenty")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#errors")).to_contain_text("not a number")
    page.locator("[id='duration']").fill("25")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    (entry,) = console.search("ActivityDefinition", identifier=f"{LOINC}|24627-2")
    (charge,) = [e for e in entry["extension"] if e["url"] == "urn:fhir-ris:charge"]
    assert charge["extension"][0]["valueCode"] == "professional"
    page.get_by_role("button", name="Retire").click()
    expect(page.locator("h1")).to_contain_text("retired")


def test_hours_and_schedules_are_made_and_slots_follow(console: ConsoleWorld, page: Page) -> None:
    console.scanner("MR", "MR hours")
    page.goto("/administration/hours/new")
    page.locator("#name").fill("All days")
    page.locator("[id='open.0.days']").fill("mon tue wed thu fri sat sun")
    page.locator("[id='open.0.from']").fill("08:00")
    page.locator("[id='open.0.until']").fill("10:00")
    page.locator("[id='closed.0.description']").fill("Works outing")
    page.locator("[id='closed.0.first-day']").fill("2027-05-05")
    page.locator("[id='closed.0.last-day']").fill("2027-05-05")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    (hours,) = console.search("HealthcareService", name="All days")
    assert hours["availableTime"][0]["daysOfWeek"][0] == "mon"
    assert hours["availableTime"][0]["availableEndTime"] == "10:00:00"
    assert hours["notAvailable"][0]["during"] == {"start": "2027-05-05", "end": "2027-05-05"}

    page.goto("/administration/schedules/new")
    page.locator("[id='actors.0.of']").select_option(label="MR hours")
    page.locator("[id='minutes']").fill("30")
    page.locator("[id='days-ahead']").fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_contain_text("MR hours")
    page.locator("[id='actors.1.of']").select_option(label="All days")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    id_ = urlsplit(page.url).path.rpartition("/")[2]
    generate_slots(page, id_, {})
    assert len(console.search("Slot", schedule=f"Schedule/{id_}")) >= 4
    page.goto("/administration/schedules")
    expect(page.get_by_role("link", name="MR hours")).to_be_visible()


def test_a_template_is_imported_as_json_with_faults_at_their_lines(console: ConsoleWorld, page: Page) -> None:
    page.goto("/administration/questionnaires")
    press(page, "i")
    template = {
        "resourceType": "Questionnaire",
        "id": "chest-template",
        "status": "active",
        "title": "Chest",
        "item": [{"linkId": "1", "type": "text", "text": "Findings"}, {"linkId": "2", "type": "song", "text": HOSTILE}],
    }
    page.locator("#json").fill('{"resourceType": "Questionnaire",\n oops}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".problems")).to_contain_text("Line 2")
    page.locator("#json").fill(json.dumps(template))
    page.get_by_role("button", name="Check only").click()
    problem = page.locator(".problems li", has_text="Questionnaire.item[1].type")
    problem.get_by_role("button").click()
    chosen = "const t = document.getElementById('json'); return t.value.slice(t.selectionStart, t.selectionEnd)"
    assert '"song"' in page.evaluate(f"() => {{ {chosen} }}")
    assert faults(page) == []
    template["item"][1]["type"] = "text"  # type: ignore[index]
    page.locator("#json").fill(json.dumps(template))
    page.get_by_role("button", name="Check only").click()
    expect(page.locator("#good")).to_be_visible()
    assert console.search("Questionnaire", title="Chest") == []
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    (made,) = console.search("Questionnaire", title="Chest")
    assert made["item"][1]["text"] == HOSTILE
    page.locator("#json").fill(json.dumps(made | {"resourceType": "Patient"}))
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#errors")).to_contain_text("no Questionnaire")


def test_a_number_pattern_that_cannot_be_is_refused_beside_its_field(console: ConsoleWorld, page: Page) -> None:
    page.goto("/administration/number-patterns/new")
    page.locator("#name").fill("Accession numbers")
    page.locator("#numbers").select_option("urn:fhir-ris:accession-number")
    page.locator("#pattern").fill("A{yy}{n:30}")
    page.locator("#since").fill("2026-01-01")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#errors")).to_contain_text("won't do")
    page.locator("#pattern").fill("A{yy}{n:7}{check}")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#done")).to_be_visible()
    (naming,) = console.search("NamingSystem", value="urn:fhir-ris:accession-number")
    assert naming["uniqueId"] == [{"value": "urn:fhir-ris:accession-number", "type": "uri"}]


def test_endpoints_are_read_only(console: ConsoleWorld, page: Page) -> None:
    endpoint = {"resourceType": "Endpoint", "id": "ehr", "status": "active", "name": "EHR", "address": "mllp://127.0.0.1:1"}
    kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"}
    console.put(endpoint | {"connectionType": kind, "payloadType": [{"coding": [{"code": "ORU^R01"}]}]})
    page.goto("/administration/endpoints")
    page.get_by_role("link", name="EHR").click()
    expect(page.locator("#json")).to_have_attribute("readonly", "")
    expect(page.get_by_role("button", name="Save")).to_have_count(0)


# Everywhere


def _addresses() -> list[tuple[str, str]]:
    return [(door.method, door.path.replace("{id}", "x").replace("{name}", "x")) for door in DOORS]


@pytest.mark.parametrize("role", ["scheduler", "interface-admin", "auditor"])
def test_no_other_role_gets_to_any_address_or_form(console: ConsoleWorld, role: str) -> None:
    with console.http(role) as client:
        csrf = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
        assert csrf
        for method, path in _addresses():
            form = {"data": {"csrf": csrf[1], "version": "1"}} if method == "POST" else {}
            answer = client.request(method, path, headers={"Sec-Fetch-Site": "same-origin"}, **form)  # type: ignore[arg-type]
            assert answer.status_code == 403, f"{role}: {method} {path}"


def test_an_administrator_is_in_only_with_a_second_factor(console: ConsoleWorld) -> None:
    browser = people_app.Browser(console.app).log_in(console.user("admin", "no.factor"), PASSWORD)
    browser.open("/administration/users")
    assert browser.path.startswith(("/account/second-factor", "/login"))
    assert "no.factor</a>" not in browser.page.text


def test_it_goes_by_keyboard_alone_and_in_german(console: ConsoleWorld) -> None:
    """A user is found, gets another role, a new password, and is shut out."""
    user = console.user("privacy-officer", "kim.keys")
    page = console.at("admin", "/administration", language="de-DE")
    expect(page.get_by_role("heading", name="Verwaltung")).to_be_visible()
    page.goto("/administration/users")
    press(page, "f")
    page.keyboard.type("Dat")  # Datenschutz, which alone isn't sent yet
    press(page, "Enter")
    page.wait_for_url("**role=privacy-officer*")
    press(page, "j")
    press(page, "Enter")
    page.wait_for_url(f"**/{user.name}")
    press(page, "f")
    page.keyboard.type("MTR")
    press(page, "Tab")
    press(page, "Enter")
    expect(page.locator("#done")).to_be_visible()
    press(page, "p")
    press(page, "Enter")
    expect(page.locator("#secret")).to_be_visible()
    press(page, "u")
    expect(page.locator("[data-opens=disable]")).to_be_visible()
    press(page, "x")
    press(page, "Enter")
    expect(page.locator("h1")).to_contain_text("gesperrt")
    now = console.app.run(console.app.users.get(user.name))
    assert now is not None
    assert (now.role, now.disabled) == ("technologist", True)
    page.goto("/administration/users")
    press(page, "j")
    press(page, "Enter")
    page.wait_for_url("**/administration/users/*")
    press(page, "u")
    page.wait_for_url("**/administration/users")


def test_no_script_has_failed(console: ConsoleWorld) -> None:
    """Last: what the browsers have complained of, but for refusals that were meant."""
    assert [c for c in console.complaints if not re.search("status of 4(00|03|04|09|12|22)", c)] == []
