"""S-24, S-29, and what of Inferno's kits is about scopes: what people are asked, what they grant, and what that opens."""

from collections.abc import Iterator

import pytest

from smart_auth.consent_words import sentence
from tests.smart_app import SmartApp, answered, department

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
LABORATORY = f"patient/Observation.rs?category={CATEGORY}|laboratory"


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


def test_s24_the_page_says_who_asks_for_what(server: SmartApp, user: str) -> None:
    app = server.client(name="Viewer of <invented> images")
    page = server.browser(user).authorize(app.request(f"launch/patient patient/*.rs {LABORATORY} offline_access"))
    assert "Viewer of &lt;invented&gt; images" in page.text
    assert "https://app.example" in page.text
    assert "Read and search for everything, of the one patient it is opened for" in page.text
    assert "every kind that may be added later" in page.text
    assert "only where category is laboratory" in page.text
    assert "It keeps access also after you have logged out." in page.text


def test_s24_who_denies_sends_the_app_away_with_its_state(server: SmartApp, user: str) -> None:
    app = server.client()
    browser, request = server.browser(user), app.request()
    told = answered(browser.consent(browser.authorize(request), answer="deny"))
    assert (told["error"], told["state"]) == ("access_denied", request["state"])
    assert "code" not in told


def test_s24_a_denial_is_not_remembered(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    browser.consent(browser.authorize(app.request()), answer="deny")
    assert 'value="consent"' in browser.authorize(app.request()).text


def test_s24_what_is_unticked_is_not_granted_and_not_open(server: SmartApp, user: str) -> None:
    app = server.client()
    scope = "launch/patient patient/Patient.rs patient/Observation.rs patient/Encounter.rs offline_access"
    body = app.tokens(server.browser(user), scope, ticks=lambda s: "Observation" not in s and s != "offline_access")
    assert body["scope"] == "launch/patient patient/Patient.rs patient/Encounter.rs"
    assert "refresh_token" not in body
    assert server.read(body["access_token"], "Patient/mara").status_code == 200
    assert server.read(body["access_token"], "Encounter?patient=mara").status_code == 200
    assert server.read(body["access_token"], "Observation?patient=mara").status_code == 403
    assert server.read(body["access_token"], "Observation/lab1").status_code == 403


def test_s24_who_unticks_everything_grants_nothing(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    assert answered(browser.consent(browser.authorize(app.request()), lambda _: False))["error"] == "access_denied"


def test_s24_who_unticks_all_data_is_not_asked_for_a_patient(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), ticks=lambda scope: scope == "openid")
    assert body["scope"] == "openid"
    assert "patient" not in body


def test_s24_a_scope_with_a_query_opens_what_fits_it_only(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), f"launch/patient {LABORATORY}")
    assert body["scope"] == f"launch/patient {LABORATORY}"
    assert server.read(body["access_token"], "Observation/lab1").status_code == 200
    assert server.read(body["access_token"], "Observation/vital1").status_code == 404
    found = server.read(body["access_token"], "Observation?patient=mara").json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["lab1"]


def test_s24_what_was_granted_is_not_asked_again(server: SmartApp, user: str) -> None:
    app, browser = server.client("openid user/*.rs"), server.browser(user)
    browser.grant(app.request("openid user/*.rs"))
    for scope in ("openid user/*.rs", "openid", "user/Patient.r openid"):
        assert "code" in answered(browser.authorize(app.request(scope)))


def test_s24_what_is_wider_than_what_was_granted_is_asked_again(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    browser.grant(app.request("openid user/Patient.rs"))
    for scope in ("openid user/Patient.cruds", "openid user/*.rs", "openid user/Patient.rs offline_access"):
        assert 'value="consent"' in browser.authorize(app.request(scope)).text


def test_s24_what_was_unticked_is_asked_again(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    browser.grant(app.request("openid user/Patient.rs"), ticks=lambda scope: scope == "openid")
    assert 'value="consent"' in browser.authorize(app.request("openid user/Patient.rs")).text


def test_s24_each_user_and_each_app_is_asked(server: SmartApp, user: str) -> None:
    app, other = server.client(), server.client()
    server.browser(user).grant(app.request("openid"))
    assert 'value="consent"' in server.browser(user).authorize(other.request("openid")).text
    assert 'value="consent"' in server.browser(server.user()).authorize(app.request("openid")).text


def test_s24_an_app_may_have_people_asked_again(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    browser.grant(app.request("openid"))
    assert 'value="consent"' in browser.authorize(app.request("openid", prompt="consent")).text


def test_s24_a_client_of_the_same_name_is_another_one(server: SmartApp, user: str) -> None:
    app, browser = server.client("openid"), server.browser(user)
    browser.grant(app.request("openid"))
    server.run(server.clients.remove(app.id))
    server.run(server.clients.add(app.id, "openid", redirect_uris=["https://app.example/callback"]))
    assert 'value="consent"' in browser.authorize(app.request("openid")).text


def test_s24_a_page_that_was_changed_by_its_reader_grants_no_more_than_was_asked(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    page = browser.authorize(app.request("openid user/Patient.r"))
    ticked = {f"scope-{number}": "yes" for number in range(50)}
    redirect = browser.submit(page, step="consent", answer="allow", scope="user/*.cruds", **ticked)
    assert app.redeem(answered(redirect)["code"]).json()["scope"] == "openid user/Patient.r"


@pytest.mark.parametrize(
    "scope",
    [
        "launch/patient patient/*.rs patient/Observation.rs",
        "launch/patient patient/Patient.read patient/Observation.read",
        "patient/*.* launch/patient",
        "openid fhirUser user/*.read user/Task.cruds",
        "user/Observation.write user/Observation.rs?category=laboratory&status=final",
    ],
)
def test_s29_scopes_come_back_as_they_were_written(server: SmartApp, user: str, scope: str) -> None:
    assert (
        server.client("launch/patient openid fhirUser patient/*.* user/*.*").tokens(server.browser(user), scope)["scope"] == scope
    )


def test_s29_what_is_no_scope_is_left_out_whole(server: SmartApp, user: str) -> None:
    wrong = [
        "patient/Observation.dus", "patient/Observation.rr", "patient/Observaton.rs", "patient/Observation.rs?code:in=x",
        "patient/Observation.rs?subject.name=x", "patient/Observation.rs?_has:x=y", "patient/Observation.rs?active",
        "patient/Observation.rs?category=a&category=b", "patient/Observation.read-only", "patient/Observation.rsXYZ",
        "PATIENT/Observation.rs", "nonsense", "system/Observation.rs",
    ]  # fmt: skip
    body = server.client().tokens(server.browser(user), " ".join(["openid", *wrong]))
    assert body["scope"] == "openid"


def test_the_user_limits_the_scopes(server: SmartApp) -> None:
    app = server.client()
    body = app.tokens(server.browser(server.user("scheduler")), "user/*.cruds")
    assert server.read(body["access_token"], "Patient/mara").status_code == 200
    assert server.read(body["access_token"], "DiagnosticReport?subject=Patient/mara").status_code == 403


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        ("patient/ImagingStudy.rs", "Read and search for which images there are, of the one patient it is opened for"),
        ("user/ServiceRequest.cud", "Add, change and delete orders, that you may see and do yourself"),
        ("user/BodyStructure.r", "Read body structure entries, that you may see and do yourself"),
        (
            f"user/Observation.s?category={CATEGORY}|laboratory,{CATEGORY}|imaging&status=final",
            (
                "Search for findings, measurements and laboratory values, that you may see and do yourself,"
                " only where category is laboratory or imaging and status is final"
            ),
        ),
        ("launch/imagingstudy", "Which imaging study you have open or choose"),
        ("openid", "Know that it is you who logged in"),
    ],
)
def test_each_scope_is_a_sentence(scope: str, text: str) -> None:
    assert sentence(scope).text == text
