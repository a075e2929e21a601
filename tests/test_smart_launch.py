"""Launches of apps from outside: standalone and from an EHR, over the real pages (S-20, Inferno's launch groups)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from smart_auth.tokens import token_id
from tests.smart_app import SmartApp, answered, department

LAUNCH_SCOPE = "launch openid fhirUser launch/imagingstudy patient/*.rs"
CONTEXT: dict[str, Any] = {
    "patient": "mara",
    "encounter": "e1",
    "fhirContext": [{"reference": "ImagingStudy/study1"}],
    "intent": "read-study",
    "need_patient_banner": False,
}


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


@pytest.fixture(scope="module")
def ehr(server: SmartApp) -> str:
    """The token of an outside EHR that may mint launches."""
    return server.backend("system/*.rs urn:fhir-ris:launch")


def mint(server: SmartApp, bearer: str | None, body: Any, **headers: str) -> httpx.Response:
    authorization = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    kind = {"Content-Type": "application/json"}
    return httpx.post(f"{server.base}/launch", content=json.dumps(body), headers={**authorization, **kind, **headers})


def test_a_standalone_launch_lets_the_user_choose_a_patient_and_shows_no_other(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), patient="max")
    assert body["patient"] == "max"
    assert body["need_patient_banner"] is True
    assert "encounter" not in body
    assert server.read(body["access_token"], "Patient/max").status_code == 200
    assert server.read(body["access_token"], "Patient/mara").status_code == 404


def test_a_standalone_launch_lets_the_user_choose_a_visit_too(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), "launch/patient launch/encounter patient/*.rs", encounter="e1")
    assert (body["patient"], body["encounter"]) == ("mara", "e1")
    assert server.read(body["access_token"], "Encounter/e1").status_code == 200


def test_who_chooses_no_visit_grants_none(server: SmartApp, user: str) -> None:
    body = server.client().tokens(server.browser(user), "launch/patient launch/encounter patient/*.rs", encounter="")
    assert "encounter" not in body
    assert body["scope"] == "launch/patient patient/*.rs"


def test_a_visit_of_another_patient_cannot_be_chosen(server: SmartApp, user: str) -> None:
    browser, app = server.browser(user), server.client()
    page = browser.pick(browser.consent(browser.authorize(app.request("launch/encounter patient/*.rs"))), "mara")
    assert 'value="e2"' not in page.text
    assert browser.submit(page, step="encounter", encounter="e2", answer="choose").status_code == 400


def test_patient_scopes_without_a_patient_ask_for_one(server: SmartApp, user: str) -> None:
    assert server.client().tokens(server.browser(user), "patient/Patient.rs")["patient"] == "mara"


def test_a_patient_that_does_not_exist_cannot_be_chosen(server: SmartApp, user: str) -> None:
    browser, app = server.browser(user), server.client()
    page = browser.consent(browser.authorize(app.request()))
    for patient in ("nobody", "", "../Practitioner/rita", "mara/_history/1"):
        assert browser.submit(page, step="patient", patient=patient, answer="choose").status_code == 400


def test_a_user_chooses_among_the_patients_that_the_role_may_see(server: SmartApp) -> None:
    browser, app = server.browser(server.user("referrer", "nobody-refers")), server.client()
    page = browser.consent(browser.authorize(app.request()))
    found = browser.submit(page, step="search", text="Muster")
    assert "Nobody found that you may see" in found.text
    assert browser.submit(found, step="patient", patient="mara", answer="choose").status_code == 400


@pytest.mark.parametrize("text", ["Muster Mara", "1970-01-31", "muster"])
def test_patients_are_found_by_name_and_birth_date(server: SmartApp, user: str, text: str) -> None:
    browser, app = server.browser(user), server.client()
    page = browser.consent(browser.authorize(app.request()))
    found = browser.submit(page, step="search", text=text)
    assert "Muster, Mara" in found.text
    assert ("Muster, Max" in found.text) is (text == "muster")


def test_choosing_a_patient_can_be_cancelled(server: SmartApp, user: str) -> None:
    browser, app = server.browser(user), server.client()
    page = browser.consent(browser.authorize(app.request()))
    assert answered(browser.submit(page, step="patient", answer="deny"))["error"] == "access_denied"


def test_an_ehr_launch_brings_its_context_without_asking_for_it(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    browser = server.browser(user)
    redirect = browser.consent(browser.authorize(app.request(LAUNCH_SCOPE, launch=app.launch(CONTEXT, ehr))))
    body = app.redeem(answered(redirect)["code"]).json()
    assert body["scope"] == LAUNCH_SCOPE
    assert {name: body[name] for name in CONTEXT} == CONTEXT
    assert httpx.get(body["smart_style_url"]).json()["color_background"]
    assert server.read(body["access_token"], "ImagingStudy/study1").status_code == 200
    assert server.read(body["access_token"], "Encounter/e1").status_code == 200
    assert server.read(body["access_token"], "Patient/max").status_code == 404


def test_the_context_comes_again_with_each_refresh(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    browser = server.browser(user)
    request = app.request(f"{LAUNCH_SCOPE} offline_access", launch=app.launch(CONTEXT, ehr))
    body = app.redeem(answered(browser.consent(browser.authorize(request)))["code"]).json()
    again = app.refresh(body["refresh_token"]).json()
    assert {name: again[name] for name in CONTEXT} == CONTEXT
    assert server.read(again["access_token"], "Patient/mara").status_code == 200


def test_a_launch_without_a_study_grants_no_launch_imagingstudy(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    browser = server.browser(user)
    request = app.request(LAUNCH_SCOPE, launch=app.launch({"patient": "mara"}, ehr))
    body = app.redeem(answered(browser.consent(browser.authorize(request)))["code"]).json()
    assert body["scope"] == "launch openid fhirUser patient/*.rs"
    assert "fhirContext" not in body


def test_a_launch_without_a_patient_asks_for_one(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), LAUNCH_SCOPE, request={"launch": app.launch({"intent": "look"}, ehr)})
    assert (body["patient"], body["intent"]) == ("mara", "look")


def test_the_launch_scope_without_a_launch_is_not_granted(server: SmartApp, user: str) -> None:
    assert server.client().tokens(server.browser(user), "launch patient/*.rs")["scope"] == "patient/*.rs"


def test_the_launch_uri_is_ready_to_open(server: SmartApp, ehr: str) -> None:
    app = server.client(launch_uri="https://app.example/launch?tenant=1")
    body = mint(server, ehr, {"client_id": app.id, "patient": "mara"}).json()
    url = urlsplit(body["launch_uri"])
    assert url._replace(query="").geturl() == "https://app.example/launch"
    assert parse_qs(url.query) == {"tenant": ["1"], "iss": [server.fhir], "launch": [body["launch"]]}
    assert len(body["launch"]) == 43  # 256 bits, base64url
    assert body["expires_in"] == 300


def test_s20_a_launch_is_good_once(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    launch = app.launch({"patient": "mara"}, ehr)
    browser = server.browser(user)
    assert "code" in answered(browser.consent(browser.authorize(app.request(LAUNCH_SCOPE, launch=launch))))
    assert answered(browser.authorize(app.request(LAUNCH_SCOPE, launch=launch)))["error"] == "invalid_request"


def test_s20_a_launch_for_another_app_is_refused_and_stays_good_for_its_own(server: SmartApp, user: str, ehr: str) -> None:
    app, other = server.client(), server.client()
    launch = app.launch({"patient": "mara"}, ehr)
    assert answered(server.browser(user).authorize(other.request(LAUNCH_SCOPE, launch=launch)))["error"] == "invalid_request"
    browser = server.browser(user)
    assert "code" in answered(browser.consent(browser.authorize(app.request(LAUNCH_SCOPE, launch=launch))))


def test_s20_a_launch_for_another_user_is_refused(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    launch = app.launch({"patient": "mara", "user": server.user()}, ehr)
    assert answered(server.browser(user).authorize(app.request(LAUNCH_SCOPE, launch=launch)))["error"] == "access_denied"


def test_s20_a_launch_for_this_user_is_not(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    launch = app.launch({"patient": "mara", "user": user}, ehr)
    browser = server.browser(user)
    assert "code" in answered(browser.consent(browser.authorize(app.request(LAUNCH_SCOPE, launch=launch))))


@pytest.mark.parametrize("launch", ["guessed", "x" * 43, "x" * 5000, "é"])
def test_s20_a_guessed_launch_is_refused(server: SmartApp, user: str, launch: str) -> None:
    app = server.client()
    assert answered(server.browser(user).authorize(app.request(LAUNCH_SCOPE, launch=launch)))["error"] == "invalid_request"


def test_s20_an_old_launch_is_refused(server: SmartApp, user: str, ehr: str) -> None:
    app = server.client()
    launch = app.launch({"patient": "mara"}, ehr)
    kept = server.documents()["oauth_launches"]
    mine = next(document for document in kept if document["_id"] == token_id(launch))
    assert timedelta(seconds=290) < mine["expires"].replace(tzinfo=UTC) - datetime.now(UTC) <= timedelta(seconds=300)
    past = {"$set": {"expires": datetime.now(UTC) - timedelta(seconds=1)}}
    server.run(server.db["oauth_launches"].update_one({"_id": mine["_id"]}, past))
    assert answered(server.browser(user).authorize(app.request(LAUNCH_SCOPE, launch=launch)))["error"] == "invalid_request"


def test_a_user_who_is_logged_in_mints_launches_for_himself(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    session = server.run(server.db["oauth_sessions"].find_one({"user": user}, sort=[("authenticated_at", -1)]))
    assert session is not None
    page = browser.http.get("/account/apps")
    csrf = {"X-CSRF-Token": browser_csrf(page.text)}
    body = {"client_id": app.id, "patient": "mara"}
    assert browser.http.post("/launch", json=body).status_code == 403
    assert browser.http.post("/launch", json=body, headers={"X-CSRF-Token": "0" * 64}).status_code == 403
    assert browser.http.post("/launch", json={**body, "user": "somebody"}, headers=csrf).status_code == 400
    minted = browser.http.post("/launch", json=body, headers=csrf)
    assert minted.status_code == 201
    other = server.browser(server.user())
    request = app.request(LAUNCH_SCOPE, launch=minted.json()["launch"])
    assert answered(other.authorize(request))["error"] == "access_denied"


def browser_csrf(text: str) -> str:
    return text.partition('name="csrf" value="')[2].partition('"')[0]


def test_s20_only_who_has_the_right_mints_launches(server: SmartApp, user: str) -> None:
    app = server.client()
    body = {"client_id": app.id, "patient": "mara"}
    persons = app.tokens(server.browser(user))["access_token"]
    assert mint(server, None, body).status_code == 401
    assert mint(server, "unknown", body).status_code == 401
    assert mint(server, server.backend("system/*.cruds"), body).status_code == 403
    assert mint(server, persons, body).status_code == 403


def test_s20_a_launch_opens_nothing_that_its_maker_may_not_read(server: SmartApp) -> None:
    app = server.client()
    blind = server.backend("system/Practitioner.rs urn:fhir-ris:launch")
    assert mint(server, blind, {"client_id": app.id, "patient": "mara"}).status_code == 403
    seeing = server.backend("system/Patient.rs urn:fhir-ris:launch")
    unknown = mint(server, seeing, {"client_id": app.id, "patient": "nobody"})
    forbidden = mint(server, blind, {"client_id": app.id, "patient": "mara"})
    assert (unknown.status_code, unknown.json()) == (forbidden.status_code, forbidden.json())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"client_id": "nobody"},
        {"patient": ["mara"]},
        {"patient": "Patient/mara"},
        {"patient": "mara", "extra": 1},
        {"patient": "mara", "user": "nobody"},
        {"patient": "mara", "user": 7},
        {"fhirContext": {"reference": "ImagingStudy/study1"}},
        {"fhirContext": [{}]},
        {"fhirContext": ["ImagingStudy/study1"]},
        {"fhirContext": [{"reference": "https://other.example/ImagingStudy/1"}]},
        {"fhirContext": [{"reference": "Nonsense/1"}]},
        {"fhirContext": [{"reference": "Patient/mara"}]},
        {"fhirContext": [{"reference": "ImagingStudy/study1", "role": ""}]},
        {"fhirContext": [{"reference": "ImagingStudy/study1", "note": "x"}]},
        {"intent": ""},
        {"intent": "\ud800"},
        {"patient": "mara", "user": "\ud800"},
        {"need_patient_banner": "yes"},
        "text",
        [],
    ],
)
def test_what_is_no_context_is_refused(server: SmartApp, ehr: str, body: Any) -> None:
    if isinstance(body, dict) and body:
        body.setdefault("client_id", server.client().id)
    answer = mint(server, ehr, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_an_app_without_a_launch_uri_is_not_launched(server: SmartApp, ehr: str) -> None:
    assert mint(server, ehr, {"client_id": server.client(launch_uri=None).id}).status_code == 400


def test_a_patient_in_another_role_may_be_in_the_context(server: SmartApp, ehr: str) -> None:
    items = [{"reference": "Patient/max", "role": "https://example.org/donor"}, {"canonical": "https://example.org/q"}]
    assert mint(server, ehr, {"client_id": server.client().id, "patient": "mara", "fhirContext": items}).status_code == 201


def test_a_visit_of_another_patient_is_no_context_of_a_launch(server: SmartApp, ehr: str) -> None:
    app = server.client()
    refused = mint(server, ehr, {"client_id": app.id, "patient": "mara", "encounter": "e2"})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert mint(server, ehr, {"client_id": app.id, "patient": "max", "encounter": "e2"}).status_code == 201
