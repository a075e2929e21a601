"""The screen of whoever looks after the interfaces: partners, scanners, their messages, alerts, tests of connections."""

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from bson import ObjectId
from playwright.sync_api import Page, Route, expect

from bridges.dicom.server import DicomServer, DicomSettings
from bridges.traffic import HOURS
from bridges.v2.delivery import Delivery
from console.screens.interfaces.charts import chart
from demo.ehr import Listener
from fhir_server import clock, metrics, outbox
from resources import work_items
from resources.alerts import Alerts
from tests.console_steps import interfaces as steps
from tests.console_world import ConsoleWorld, press
from tests.test_delivery import QUICK

ROLE = "interface-admin"
V2 = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"}
Resource = dict[str, Any]
_numbers = itertools.count(1)


def endpoint(console: ConsoleWorld, name: str, port: int = 9, kind: str = "ORU^R01", **elements: Any) -> Resource:
    """A partner that gets messages, or (kind `none`) only sends them."""
    begin = {
        "resourceType": "Endpoint",
        "status": "active",
        "name": name,
        "connectionType": V2,
        "address": f"mllp://127.0.0.1:{port}",
        "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": kind}]}],
    }
    return console.create(begin | elements)


def post(console: ConsoleWorld, partner: Resource, **changes: Any) -> str:
    """Put a message into a partner's queue; its id."""
    control_id = f"OUT{next(_numbers):05}"
    message = f"MSH|^~\\&|FHIR_RIS|RAD|EHR|HOSP|20260907||ORU^R01|{control_id}|P|2.5.1\rPID|1||1||Muster^Mara\r".encode()
    about = (f"ServiceRequest/{control_id.lower()}",)
    document = outbox.document(outbox.Outbound(f"Endpoint/{partner['id']}", "ORU^R01", control_id, message, about)) | changes

    async def insert() -> None:
        await console.app.db["outbox"].insert_one(document)
        console.app.ris.interactions.outbox_filled.set()

    console.app.run(insert())
    return str(document["_id"])


def stored(console: ConsoleWorld, id_: str) -> dict[str, Any]:
    found = console.app.run(console.app.db["outbox"].find_one({"_id": ObjectId(id_)}))
    assert found is not None
    return found


def adt(number: str, *, application: str = "HIS", kind: str = "ADT^A04") -> tuple[str, bytes]:
    """A control id and its message."""
    control_id = f"IN{next(_numbers):05}"
    head = f"MSH|^~\\&|{application}|HOSP|RIS|RAD|20260907081500||{kind}|{control_id}|P|2.5.1||||||UNICODE UTF-8"
    pid = f"PID|1||{number and number + '^^^EXAMPLEHOSP^MR'}||Beispielfrau^Berta||19700131|F"
    return control_id, f"{head}\r{pid}\r".encode()


@contextmanager
def delivering(console: ConsoleWorld) -> Iterator[None]:
    running = Delivery(console.app.ris.interactions, QUICK).running()
    console.app.run(running.__aenter__())
    try:
        yield
    finally:
        console.app.run(running.__aexit__(None, None, None))


@contextmanager
def listening(console: ConsoleWorld, port: int = 0, answer: str = "AA") -> Iterator[Listener]:
    async def begin() -> Listener:
        made = Listener(port)
        made.answer = answer
        await made.start()
        return made

    listener = console.app.run(begin())
    try:
        yield listener
    finally:
        console.app.run(listener.stop())


@pytest.fixture(scope="module")
def analyst(console: ConsoleWorld) -> Page:
    """The browser of an interface administrator, who has passed the second factor."""
    return console.at(ROLE, "/interfaces")


def row(page: Page, name: str) -> Any:
    return page.locator("tr", has=page.get_by_role("rowheader", name=name))


# Partners


def test_a_partner_goes_away_and_comes_back_and_the_open_page_says_so(console: ConsoleWorld, analyst: Page) -> None:
    with delivering(console):
        with listening(console) as there:
            port = there.port
            partner = endpoint(console, "Travelling EHR", port)
            analyst.goto("/interfaces")
            mine = row(analyst, "Travelling EHR")
            expect(mine).to_contain_text("nothing yet")
            post(console, partner)
            expect(mine.locator(".chip")).to_have_text("up")
            expect(mine.get_by_role("img")).to_have_attribute("aria-label", re.compile("1 message in 24 hours"))
        post(console, partner)
        expect(mine.locator(".chip")).to_have_text("down")
        expect(mine).to_contain_text("no connection to 127.0.0.1")
        expect(mine).to_contain_text("the oldest")
        with listening(console, port) as back:
            expect(mine.locator(".chip")).to_have_text("up")
            expect(mine).not_to_contain_text("the oldest")
            assert [m.control_id for m in back.received]
    assert analyst.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_what_a_partner_refuses_is_set_aside_read_sent_again_or_cancelled(console: ConsoleWorld, analyst: Page) -> None:
    with delivering(console), listening(console, answer="AE") as there:
        partner = endpoint(console, "Fussy billing", there.port)
        path = f"/interfaces/partners/{partner['id']}"
        first, second = post(console, partner), post(console, partner)
        analyst.goto(path)
        aside = analyst.locator("[data-part=aside] tbody tr")
        expect(aside).to_have_count(2)
        expect(aside.first).to_contain_text("refused")
        expect(aside.first).to_contain_text("AE")
        alert = analyst.locator("[data-part=state]")
        expect(alert).to_contain_text("Set aside")

        analyst.goto(f"/interfaces/messages/{second}")
        press(analyst, "x")
        analyst.get_by_role("dialog").get_by_role("button", name="Don't send").click()  # a reason is needed
        expect(analyst.get_by_role("dialog")).to_be_visible()
        steps.cancel(analyst, second, {"reason": "the visit was cancelled"})
        expect(analyst.locator("[data-part=state]")).to_contain_text("cancelled: the visit was cancelled")
        assert stored(console, second)["state"] == "cancelled"

        there.answer = "AA"
        steps.replay(analyst, first, {})
        expect(analyst.locator("[data-part=state] .chip").first).to_have_text("delivered")  # shown by itself
        assert stored(console, first)["state"] == "delivered"

        there.answer = "AE"
        both = [post(console, partner), post(console, partner)]
        analyst.goto(path)
        expect(aside).to_have_count(2)
        there.answer = "AA"
        steps.replay_all(analyst, partner["id"], {})
        expect(aside).to_have_count(0)
        assert [stored(console, one)["state"] for one in both] == ["delivered", "delivered"]
    events = {event for event, _, _ in console.app.audited()}
    assert {"message-show", "message-replay", "message-cancel"} <= events


def test_of_two_who_see_to_a_message_the_slower_is_told(console: ConsoleWorld, analyst: Page) -> None:
    """The partner isn't in use, so that nothing is sent meanwhile."""
    partner = endpoint(console, "Done", status="off")
    message = post(console, partner, state="refused", error="AE: no")
    other = console.at(ROLE, f"/interfaces/messages/{message}")
    other.route("**/*", _not_by_itself)  # its page stays as it was
    steps.cancel(analyst, message, {"reason": "sent on paper"})
    press(other, "x")
    other.get_by_role("dialog").get_by_label("Reason").fill("too late")
    other.get_by_role("dialog").get_by_role("button", name="Don't send").click()
    expect(other.locator("#errors")).to_contain_text("is cancelled")
    expect(other.locator("[data-part=state]")).to_contain_text("sent on paper")
    assert "sent on paper" in stored(console, message)["error"]
    other.context.close()
    analyst.goto("/interfaces/messages/000000000000000000000000")
    expect(analyst.get_by_role("heading", level=1)).to_have_text("Not there")


def _not_by_itself(route: Route) -> None:
    if "x-ris-by-itself" in route.request.headers:
        route.fulfill(status=204)
    else:
        route.continue_()


def test_settings_are_changed_and_the_slower_of_two_is_told(console: ConsoleWorld, analyst: Page) -> None:
    partner = endpoint(console, "Archive", header=["receiving-application: PACS"])
    path = f"/interfaces/partners/{partner['id']}"
    other = console.at(ROLE, path)
    press(other, "e")
    headers = ["receiving-application: PACS", "ack-timeout: 20"]
    steps.change_partner(analyst, partner["id"], {"name": "Archive 2", "header": headers})
    expect(analyst.locator("[data-part=settings]")).to_contain_text("20")
    assert console.read(f"Endpoint/{partner['id']}")["header"] == headers

    dialog = other.get_by_role("dialog")
    dialog.get_by_label("Address").fill("mllp://127.0.0.1:4711")
    dialog.get_by_role("button", name="Save").click()
    expect(other.locator("#errors")).to_contain_text(re.compile("version", re.IGNORECASE))
    expect(dialog.get_by_label("Address")).to_have_value("mllp://127.0.0.1:4711")
    expect(dialog.get_by_role("alert")).to_contain_text("Archive 2")  # what the other one has stored
    assert console.read(f"Endpoint/{partner['id']}")["address"] == partner["address"]
    dialog.get_by_role("button", name="Save").click()  # knowing it
    expect(other.locator("#done")).to_be_visible()
    assert console.read(f"Endpoint/{partner['id']}")["address"] == "mllp://127.0.0.1:4711"

    analyst.goto(path)
    press(analyst, "e")
    mine = analyst.get_by_role("dialog")
    mine.get_by_label("Headers").fill("report-style: z")
    mine.get_by_label("SIU^S12").check()
    mine.get_by_role("button", name="Save").click()
    expect(mine.get_by_role("alert")).to_contain_text("report-style")
    expect(mine.get_by_label("Headers")).to_have_value("report-style: z")
    mine.get_by_label("Headers").fill("report-style: b")
    mine.get_by_role("button", name="Save").click()
    expect(analyst.locator("#done")).to_be_visible()
    now = console.read(f"Endpoint/{partner['id']}")
    assert {p["coding"][0]["code"] for p in now["payloadType"]} == {"ORU^R01", "SIU^S12"}
    assert now["header"] == ["report-style: b"]
    other.context.close()


# Tests of connections


def test_a_test_message_is_answered_or_not(console: ConsoleWorld, analyst: Page) -> None:
    with listening(console, answer="AR") as there:
        partner = endpoint(console, "Reachable", there.port)
        analyst.goto(f"/interfaces/partners/{partner['id']}")
        expect(analyst.locator("[data-part=state] .chip").first).to_have_text("nothing yet")
        press(analyst, "t")
        expect(analyst.locator("#done")).to_have_text("The test was answered.")
        expect(analyst.locator("#contact")).to_contain_text("AR")
        expect(analyst.locator("[data-part=state] .chip").first).to_have_text("up")
        (message,) = there.received
        assert (message.msh.raw(9), message.all("PID")) == ("NMD^N02^NMD_N02", [])
    steps.call_partner(analyst, partner["id"], {})
    expect(analyst.locator("#done")).to_have_text("The test was not answered.")
    expect(analyst.locator("#contact")).to_contain_text("no connection")
    expect(analyst.locator("[data-part=state] .chip").first).to_have_text("down")
    assert "connection-test" in {event for event, _, _ in console.app.audited()}


class _Answers(BaseHTTPRequestHandler):
    """A PACS or payer that answers everything with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: Any) -> None: ...


def test_pacs_and_payers_are_asked_by_http(console: ConsoleWorld, analyst: Page) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/base"
    made = [
        endpoint(console, f"By {code}", connectionType=V2 | {"code": code}, address=base, payloadType=[{"text": "what it has"}])
        for code in ("dicom-qido-rs", "hl7-fhir-rest")
    ]
    for one, answer in zip(made, ("QIDO-RS", "HTTP 200"), strict=True):
        steps.call_partner(analyst, one["id"], {})
        expect(analyst.locator("#done")).to_have_text("The test was answered.")
        expect(analyst.locator("#contact")).to_have_text(answer)
    server.shutdown()
    server.server_close()
    for one in made:
        steps.call_partner(analyst, one["id"], {})
        expect(analyst.locator("#done")).to_have_text("The test was not answered.")


def test_a_scanner_shows_its_habits_and_is_called(console: ConsoleWorld, analyst: Page) -> None:
    now = clock.naive(clock.now())
    scanner = console.scanner("CT", "Kellerwald")
    # Whoever calls us back must be registered too: the test calls our own server, which calls itself as FHIR_RIS.
    console.scanner("CT", "FHIR_RIS")
    seen = {"asked": now, "filled": now, "answers": 7, "accepted": now, "days": {f"{now:%Y%m%d}": {"n": 41}}}
    path = f"/interfaces/scanners/{scanner['id']}"
    analyst.goto(path)
    expect(analyst.locator("[data-part=worklist]")).to_contain_text("has not called yet")
    console.app.run(console.app.db["dicom_scanners"].insert_one({"_id": "KELLERWALD", **seen}))
    expect(analyst.locator("[data-part=worklist]")).to_contain_text("7 entries")  # without a reload
    expect(analyst.locator("[data-part=worklist]")).to_contain_text("asks as usual")
    expect(analyst.get_by_role("img")).to_have_attribute("aria-label", re.compile("41 queries in 14 days, 41 today"))
    expect(analyst.get_by_role("button", name="Test")).to_have_count(0)

    settings = DicomSettings("127.0.0.1", 0, "FHIR_RIS", ZoneInfo("UTC"))
    server = DicomServer(console.app.ris.interactions, settings)
    console.app.run(server.start())
    press(analyst, "e")
    dialog = analyst.get_by_role("dialog")
    dialog.get_by_label("Address").fill(f"dicom://FHIR_RIS@127.0.0.1:{server.port}")
    dialog.get_by_role("button", name="Save").click()
    expect(analyst.locator("#done")).to_be_visible()
    steps.call_scanner(analyst, scanner["id"], {})
    expect(analyst.locator("#contact")).to_have_text("C-ECHO 0000")
    console.app.run(server.stop())
    steps.call_scanner(analyst, scanner["id"], {})
    expect(analyst.locator("#done")).to_have_text("The test was not answered.")

    refused = {"refused": now, "refused_since": now, "refused_times": 3, "why": "the calling AE title is not registered"}
    console.app.run(console.app.db["dicom_scanners"].insert_one({"_id": "GHOST", **refused}))
    analyst.goto("/interfaces")
    expect(row(analyst, "GHOST")).to_contain_text("3 × the calling AE title is not registered")


# Messages


def test_messages_are_searched_and_read_by_field(console: ConsoleWorld, analyst: Page) -> None:
    sender = endpoint(console, "Registration desk", kind="none", header=["accept-application: DESK", "accept-facility: HOSP"])
    control_id, message = adt("MRN777", application="DESK")
    assert b"MSA|AA" in console.v2(message)
    bad, refused = adt("", application="DESK")
    assert b"MSA|AE" in console.v2(refused)

    analyst.goto("/interfaces/messages")
    analyst.get_by_label("Partner").select_option("Registration desk")
    analyst.get_by_label("Type").fill("adt^a04")
    analyst.get_by_label("Outcome").select_option("refused (AE)")
    press(analyst, "Enter")
    analyst.get_by_role("button", name="Search", exact=False).first.click()
    expect(analyst.locator("tbody tr")).to_have_count(1)
    expect(analyst.locator("tbody tr")).to_contain_text(bad)

    analyst.goto("/interfaces/messages")
    analyst.get_by_label("Patient number").fill("MRN777")
    analyst.get_by_role("button", name="Search by number").click()
    expect(analyst.locator("tbody tr")).to_have_count(1)
    assert "MRN777" not in analyst.url
    analyst.locator("tbody a", has_text=control_id).click()
    segment = analyst.locator(".v2-segment", has_text="PID-5")
    expect(segment).to_contain_text("Beispielfrau")
    expect(analyst.get_by_role("heading", name="Acknowledgement")).to_be_visible()
    became = analyst.locator(".about")
    expect(became).to_contain_text("Patient/")
    expect(became.locator("a")).to_have_count(0)  # this role reads no patient

    analyst.goto(f"/interfaces/partners/{sender['id']}")
    expect(analyst.locator("[data-part=received]")).to_contain_text("the patient identifier is missing")
    analyst.locator("[data-part=received] form button").click()  # it is refused again, and the page is there
    expect(analyst.locator("#done")).to_be_visible()
    third, more = adt("MRN778", application="DESK")
    console.v2(more)
    expect(analyst.locator("[data-part=received]")).to_contain_text(third)  # without a reload


def test_a_long_list_is_read_page_by_page_each_message_once(console: ConsoleWorld, analyst: Page) -> None:
    partner = endpoint(console, "Many", status="off")
    ids = {post(console, partner, state="delivered", key=1_000 + n // 60) for n in range(130)}  # many of one moment
    analyst.goto(f"/interfaces/messages?way=out&partner={quote('Endpoint/' + partner['id'])}")
    seen: list[str] = []
    while True:
        links = analyst.locator("tbody td a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
        seen += [link.rpartition("/")[2] for link in links]
        older = analyst.get_by_role("link", name="Older")
        if not older.count():
            break
        press(analyst, "o")
        expect(analyst.locator(f"a[href='{links[0]}']")).to_have_count(0)
    assert (len(seen), set(seen)) == (130, ids)
    analyst.goto("/interfaces/messages?place=elsewhere")
    expect(analyst.locator("#errors")).to_be_visible()


# Alerts


def test_alerts_are_seen_and_settled_and_other_tasks_are_not(console: ConsoleWorld, analyst: Page) -> None:
    partner = endpoint(console, "Quiet sender", kind="none", header=["accept-application: QUIET"])
    raised = Alerts(console.app.ris.interactions, "alerts", "v2", metrics.ALERTS)
    text = "It has sent nothing for an hour"
    analyst.goto("/interfaces")
    other = console.create({"resourceType": "Task", "status": "requested", "intent": "order", "description": "Not for them"})
    console.app.run(raised.settle({f"silent Endpoint/{partner['id']}": text}))
    expect(analyst.locator("[data-part=alerts]")).to_contain_text(text)  # without a reload
    expect(analyst.locator("main")).not_to_contain_text("Not for them")
    expect(row(analyst, "Quiet sender")).to_contain_text("silent")
    mine = analyst.locator("[data-part=alerts] tr", has_text=text)
    mine.get_by_role("button").focus()
    press(analyst, "d")
    expect(analyst.locator("#done")).to_have_text("The alert is settled.")
    expect(mine).to_have_count(0)
    about = f"interface-alert silent Endpoint/{partner['id']}"
    tasks = console.search("Task", identifier=f"{work_items.SUBJECT}|{about}")
    assert [(t["description"], t["status"]) for t in tasks] == [(text, "completed")]
    with console.http(ROLE) as client:
        token = re.search('name="csrf" value="([^"]+)"', client.get("/interfaces").text)
        assert token is not None
        form = {"csrf": token[1], "version": "1"}
        assert client.post(f"/interfaces/alerts/{other['id']}", data=form, headers={"Origin": console.base}).status_code in {
            403,
            404,
        }
    assert console.read(f"Task/{other['id']}")["status"] == "requested"


# Everybody else, and everything else


@pytest.mark.parametrize("role", ["admin", "scheduler"])
def test_other_roles_get_nowhere(console: ConsoleWorld, role: str) -> None:
    partner, scanner = endpoint(console, "Not yours"), console.scanner("MR")
    message = post(console, partner, state="refused")
    pages = [f"/partners/{partner['id']}", f"/scanners/{scanner['id']}", "/messages", f"/messages/{message}", ""]
    forms = [f"/partners/{partner['id']}", f"/partners/{partner['id']}/test", f"/partners/{partner['id']}/replay", "/messages"]
    forms += [f"/messages/{message}/replay", f"/messages/{message}/cancel", f"/scanners/{scanner['id']}/test", "/alerts/x"]
    with console.http(role) as client:
        token = re.search('name="csrf" value="([^"]+)"', client.get("/").text)
        assert token is not None
        for path in pages:
            assert client.get(f"/interfaces{path}").status_code == 403, path
        for path in forms:
            sent = client.post(f"/interfaces{path}", data={"csrf": token[1], "reason": "x"}, headers={"Origin": console.base})
            assert sent.status_code == 403, path
    assert stored(console, message)["state"] == "refused"


def test_the_pages_by_keyboard_and_in_german(console: ConsoleWorld) -> None:
    partner = endpoint(console, "Tastatur")
    console.scanner("MR", "Waldblick")
    post(console, partner, state="dead", error="no acknowledgement")
    page = console.at(ROLE, "/interfaces", language="de-DE")
    expect(page.get_by_role("heading", level=1)).to_have_text("Schnittstellen")
    page.get_by_role("link", name="Tastatur").focus()
    press(page, "Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tastatur")
    press(page, "j")
    press(page, "r")
    expect(page.locator("#done")).to_have_text("Sie geht noch einmal.")
    press(page, "m")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nachrichten")
    press(page, "u")
    page.get_by_role("link", name="Waldblick").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Waldblick")
    page.context.close()


def test_charts_tell_what_passed_and_what_failed() -> None:
    made = chart([0, 4, 2] + [0] * (HOURS - 3), "6 messages", [0, 1] + [0] * (HOURS - 2))
    up, half, down = made.bars
    assert (up.height, half.height) == (27, 13.5)
    assert down.failed
    assert down.y > made.line >= up.y + up.height


def test_no_script_breaks_the_policy(console: ConsoleWorld) -> None:
    """Last in this file."""
    expected = re.compile("status of (40[34]|412|422)")
    assert [c for c in console.complaints if not expected.search(c)] == []
