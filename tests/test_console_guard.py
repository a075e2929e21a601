"""Every address of the console with every role: who gets nowhere; forms from elsewhere; nonsense in addresses and forms."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from console.formats import moment
from console.screen import Door, Screen
from console.screens import SCREENS, doors
from resources.numbers.exam_rows import NEVER, packed
from smart_auth.roles import ROLES
from tests.console_world import ConsoleWorld

_DOORS = [(screen, door) for screen in SCREENS for door in doors(screen)]
_HOSTILE = '"><script>alert(1)</script>\u202e'
_NONSENSE = ("%00", "%ff", "$everything", "_history", "x%3F_summary=count", "{id}%3F_elements=id", "1,2", "%2e%2e", "9" * 5000)
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
# Whom each role must not see: a patient restricted, one very restricted, and one who has denied it.
_HIDDEN = {
    "scheduler": ("Zqrestricted", "Zqvery", "Zqdenied"),
    "admin": ("Zqrestricted", "Zqvery", "Zqdenied"),
    "technologist": ("Zqvery", "Zqdenied"),
    "radiologist": ("Zqvery", "Zqdenied"),
    "referrer": ("Zqrestricted", "Zqvery", "Zqdenied", "Zqplain"),
    "interface-admin": ("Zqrestricted", "Zqvery", "Zqdenied", "Zqplain"),
}


@pytest.fixture(scope="module")
def orders(console: ConsoleWorld) -> list[dict[str, Any]]:
    """An order of each of four patients, whose names say how confidential they are and are hostile besides; with reports."""
    made = []
    for family, label in (("Zqplain", ""), ("Zqrestricted", "R"), ("Zqvery", "V"), ("Zqdenied", "")):
        meta = {"meta": {"security": [{"system": _CONFIDENTIALITY, "code": label}]}} if label else {}
        patient = console.patient(name=[{"family": family, "given": [_HOSTILE]}], **meta)
        about = {"reference": f"Patient/{patient['id']}"}
        order = console.order(patient, reasonCode=[{"text": f"{family} {_HOSTILE}"}], authoredOn="9999-12-31T23:59:59Z")
        report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": _HOSTILE}, "conclusion": family}
        form = {"contentType": "text/html", "data": "PHNjcmlwdD4="}
        console.create(
            report | {"subject": about, "basedOn": [{"reference": _procedure(console, order)}], "presentedForm": [form]}
        )
        if family == "Zqdenied":
            scope = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]}
            consent = {"resourceType": "Consent", "status": "active", "scope": scope, "category": [{"text": "Denied"}]}
            console.create(consent | {"patient": about, "policyRule": {"text": "Denied"}, "provision": {"type": "deny"}})
        made.append(order)
    return made


def _procedure(console: ConsoleWorld, order: dict[str, Any]) -> str:
    (procedure,) = console.search("ServiceRequest", based_on=f"ServiceRequest/{order['id']}")
    return f"ServiceRequest/{procedure['id']}"


def _ids(console: ConsoleWorld, path: str) -> list[str]:
    """What there is for an address to be about."""
    kinds = {"patients": "Patient", "orders": "ServiceRequest", "exams": "ServiceRequest", "rooms": "Task", "reading": "Task"}
    kind = "DiagnosticReport" if path.startswith("/reading/reports") else kinds.get(path.split("/")[1], "")
    return [r["id"] for r in console.search(kind, _sort="-_lastUpdated")[:5]] if kind else []


def _filled(path: str, part: str) -> str:
    return re.sub(r"\{[^}]*\}", part, path)


def _may(role: str, screen: Screen, door: Door) -> bool:
    needs = [need for need in ("" if door.alone else screen.needs, door.needs) if need]

    def can(one: str) -> bool:
        known = ROLES[role]
        return known.calls(one[1:]) if one.startswith("$") else bool(known.covering(*one.split(".")))  # type: ignore[arg-type]

    return all(any(can(one) for one in need.split()) for need in needs)


def _asked(client: httpx.Client, asked: list[tuple[str, str, dict[str, str], dict[str, str]]]) -> list[httpx.Response]:
    """Some at once: method, path, form, headers."""

    def one(each: tuple[str, str, dict[str, str], dict[str, str]]) -> httpx.Response:
        method, path, form, headers = each
        return client.request(method, path, data=form or None, headers=headers)

    with ThreadPoolExecutor(6) as threads:
        return list(threads.map(one, asked))


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_address_and_no_form_lets_in_a_role_that_it_is_not_for(
    console: ConsoleWorld, orders: list[dict[str, Any]], role: str
) -> None:
    with console.http(role) as client:
        csrf = _csrf(client)
        closed = [(s, d) for s, d in _DOORS if not _may(role, s, d)]
        asked = [
            (d.method, _filled(d.path, orders[0]["id"]), {"csrf": csrf} if d.method == "POST" else {}, {}) for _, d in closed
        ]
        answers = _asked(client, asked)
    assert [(a.request.method, a.url.path) for a in answers if a.status_code != 403] == []


def test_who_is_not_logged_in_is_sent_to_the_login_from_every_door(console: ConsoleWorld) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as client:
        answers = _asked(client, [(d.method, _filled(d.path, "x"), {}, {}) for _, d in _DOORS])
        by_itself = client.get("/orders", headers={"X-Ris-By-Itself": "1"})
    assert [a.url.path for a in answers if not a.headers.get("location", "").startswith("/login?next=%2F")] == []
    assert by_itself.status_code == 401


@pytest.mark.parametrize("role", sorted(_HIDDEN))
def test_pages_of_what_exists_show_nobody_who_is_hidden_and_never_fail(
    console: ConsoleWorld, orders: list[dict[str, Any]], role: str
) -> None:
    with console.http(role) as client:
        open_ = [d.path for s, d in _DOORS if d.method == "GET" and _may(role, s, d)]
        paths = {_filled(p, id_) for p in open_ for id_ in (_ids(console, p) if "{" in p else [""])}
        answers = _asked(client, [("GET", path, {}, {}) for path in sorted(paths)])
        named = [client.post("/find", data={"q": name, "csrf": _csrf(client)}) for name in _HIDDEN[role]]
    assert [a.url.path for a in answers if a.status_code >= 500] == []
    assert [a.url.path for a in answers if "<script>alert" in a.text] == []
    assert [(a.url.path, name) for a in answers for name in _HIDDEN[role] if name in a.text] == []
    for answer in named:
        assert (answer.status_code, "/patients/" in answer.text) == (200, False)


@pytest.mark.parametrize("role", ["radiologist", "admin", "interface-admin", "auditor"])
def test_nonsense_in_an_address_is_nothing_that_exists(console: ConsoleWorld, orders: list[dict[str, Any]], role: str) -> None:
    with console.http(role) as client:
        open_ = [d.path for s, d in _DOORS if d.method == "GET" and "{" in d.path and _may(role, s, d)]
        parts = itertools.cycle([n.replace("{id}", orders[0]["id"]) for n in _NONSENSE])
        paths = [_filled(path, part) for path in open_ for part in itertools.islice(parts, 2)]
        answers = _asked(client, [("GET", path, {}, {}) for path in paths])
    assert [(a.url.path[:80], a.status_code) for a in answers if a.status_code >= 500 or a.status_code == 200] == []


def test_no_form_is_taken_from_elsewhere_or_without_the_sessions_token(console: ConsoleWorld) -> None:
    forms = [d.path for _, d in _DOORS if d.method == "POST"]
    with console.http("admin") as client:
        csrf = _csrf(client)
        wrong: list[tuple[dict[str, str], dict[str, str]]] = [
            ({"csrf": "x"}, {}),
            ({"csrf": csrf}, {"Origin": "https://elsewhere.example"}),
            ({"csrf": csrf}, {"Sec-Fetch-Site": "same-site"}),
        ]
        asked = [("POST", _filled(p, "x"), *w) for p, w in zip(forms, itertools.cycle(wrong), strict=False)]
        answers = _asked(client, asked)
    assert {a.status_code for a in answers} == {403}


def _csrf(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


def test_moments_at_the_ends_of_time_can_be_told() -> None:
    assert moment("2016-12-31T23:59:60Z") == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)
    far = {"ordered": datetime(9999, 12, 31), "accepted": datetime(1, 1, 1)}  # noqa: DTZ001 - as MongoDB keeps it
    assert packed(far)[:8] == (-(NEVER + 1)).to_bytes(4, "little") + (NEVER + 1).to_bytes(4, "little", signed=True)
