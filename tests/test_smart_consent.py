"""S-24, S-29, and what of Inferno's kits is about scopes: what people are asked, what they grant, and what that opens."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from smart_auth.authlib_bridge import Bridge
from smart_auth.authorization import Authorization, Unknown
from smart_auth.authorization_requests import AuthorizationRequest, AuthorizationRequests
from smart_auth.consent_words import sentence
from smart_auth.endpoints import Endpoints
from smart_auth.sessions import Session
from smart_auth.signing_keys import SigningKeys, signing_key_file
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


class TwoPeople:
    """Two users on one authorization request, step by step below the pages: what each writes, in an order that is given."""

    def __init__(self, server: SmartApp) -> None:
        self.server, self.app = server, server.client()
        self.endpoints = Endpoints(server.base)
        self.requests = AuthorizationRequests(server.db)
        self.authorization = Authorization(server.db, self._bridge(), self.endpoints)
        self.ann, self.bob = self._session(), self._session()

    def _bridge(self) -> Bridge:
        return Bridge(
            self.server.db,
            self.server.tokens,
            self.endpoints,
            SigningKeys(self.server.db, signing_key_file(self.server.data_dir)),
        )

    def _session(self) -> Session:
        name = self.server.user()
        user = self.server.run(self.server.users.get(name))
        assert user is not None
        return Session(name, user, ("pwd",), datetime.now(UTC), "")

    def begin(self, scope: str = "launch/patient patient/*.rs") -> str:
        return self.server.run(self.authorization.begin(list(self.app.request(scope).items())))

    def step(self, name: str, session: Session) -> AuthorizationRequest:
        return self.server.run(self.authorization.step(name, session))[1]

    def state(self, name: str) -> tuple[str | None, list[str] | None, dict[str, str]]:
        request = self.server.run(self.requests.get(name))
        assert request is not None
        return request.user, request.consented, request.chosen


@pytest.fixture(scope="module")
def two(server: SmartApp) -> TwoPeople:
    return TwoPeople(server)


def test_what_one_user_consents_to_does_not_count_for_another_who_came_meanwhile(server: SmartApp, two: TwoPeople) -> None:
    name = two.begin()
    two.step(name, two.bob)
    two.step(name, two.ann)  # between Bob's look at the request and what he writes
    with pytest.raises(Unknown):
        server.run(two.authorization.consent(name, two.bob, ["launch/patient", "patient/*.rs"]))
    assert two.state(name) == (two.ann.user.name, None, {})
    remembered = {"user": two.bob.user.name, "consented": None}
    assert server.run(two.requests.note(name, remembered, consented=["patient/*.rs"])) is None
    assert two.state(name) == (two.ann.user.name, None, {})


def test_the_patient_that_one_user_chose_is_not_that_of_another(server: SmartApp, two: TwoPeople) -> None:
    name = two.begin()
    two.step(name, two.bob)
    server.run(two.authorization.consent(name, two.bob, ["launch/patient", "patient/*.rs"]))
    of_bob = two.step(name, two.bob)
    two.step(name, two.ann)
    for kind, id_ in (("patient", "max"), ("encounter", None)):
        with pytest.raises(Unknown):
            server.run(two.authorization.choose(name, two.bob, of_bob, kind, id_))  # type: ignore[arg-type]
    server.run(two.authorization.consent(name, two.ann, ["launch/patient", "patient/*.rs"]))
    with pytest.raises(Unknown):
        server.run(two.authorization.choose(name, two.bob, of_bob, "patient", "max"))
    assert two.state(name)[::2] == (two.ann.user.name, {})


def test_no_code_is_made_of_what_another_user_granted(server: SmartApp, two: TwoPeople) -> None:
    name = two.begin("user/*.rs")
    two.step(name, two.bob)
    server.run(two.authorization.consent(name, two.bob, ["user/*.rs"]))
    for session in (two.ann, two.bob):
        if session is two.bob:
            two.step(name, two.ann)  # after which there is nothing that anybody granted
        with pytest.raises(Unknown):
            server.run(two.authorization.finish(name, session))
    stale = {"user": two.bob.user.name, "consented": ["user/*.rs"], "chosen": {}}
    assert not server.run(two.requests.done(name, **stale))
    assert two.state(name) == (two.ann.user.name, None, {})


def test_an_app_that_would_not_ask_again_is_listed_and_can_be_ended(server: SmartApp) -> None:
    app, browser = server.client(), server.browser(server.user())
    app.tokens(browser, "user/*.rs")
    server.run(server.db["oauth_grants"].delete_many({"client_id": app.id}))
    page = browser.http.get("/account/apps")
    assert f'name="client_id" value="{app.id}"' in page.text
    assert "would get it again without asking you" in page.text
    browser.submit(page, client_id=app.id)
    assert app.id not in browser.http.get("/account/apps").text
    assert 'value="consent"' in browser.authorize(app.request("user/*.rs")).text


def test_where_there_is_nothing_to_tick_to_allow_is_consent(server: SmartApp, user: str) -> None:
    app, browser = server.client(), server.browser(user)
    page = browser.authorize(app.request("launch/patient"))
    assert "checkbox" not in page.text
    assert app.redeem(answered(browser.pick(browser.consent(page), "mara"))["code"]).json()["patient"] == "mara"
    again = browser.authorize(server.client().request("launch/patient"))
    assert answered(browser.consent(again, answer="deny"))["error"] == "access_denied"


def test_what_is_not_read_of_a_request_is_not_kept(server: SmartApp) -> None:
    app = server.client()
    server.browser().authorize(app.request(nonce="n", junk="x" * 30_000, ui_locales="de"))
    kept = server.run(server.db["oauth_requests"].find_one({"client_id": app.id}))
    assert kept is not None
    assert set(kept["parameters"]) == {*app.request(), "nonce"}


@pytest.mark.parametrize("prompt", ["none login", "consent none", "none none"])
def test_to_ask_and_not_to_ask_is_invalid(server: SmartApp, user: str, prompt: str) -> None:
    told = answered(server.browser(user).authorize(server.client().request("user/*.rs", prompt=prompt)))
    assert told["error"] == "invalid_request"


def test_a_native_app_at_another_port_is_asked_for_each_time(server: SmartApp, user: str) -> None:
    known = "http://127.0.0.1:49151/cb"
    app, browser = server.client(redirect_uris=[known]), server.browser(user)
    for _ in range(2):
        page = browser.authorize(app.request("user/*.rs", redirect_uri="http://127.0.0.1:49152/cb"))
        assert browser.consent(page).headers["location"].startswith("http://127.0.0.1:49152/cb?code=")
    assert browser.authorize(app.request("user/*.rs", redirect_uri=known)).headers["location"].startswith(f"{known}?code=")
