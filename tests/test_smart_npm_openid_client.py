"""A client that we did not write, and a strict one: npm's openid-client holds the server to the standards and to its own word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from joserfc.jwk import ECKey, RSAKey

from tests.npm import unpacked
from tests.openid_client import NODE, PACKAGES, OpenidClient, Refused, openid_client
from tests.smart_app import REDIRECT, App, SmartApp, department

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node here")
SCOPE = "openid fhirUser offline_access launch/patient patient/*.rs"
KEYS = {
    "ES384": ECKey.generate_key("P-384", {"kid": "ec", "alg": "ES384"}),
    "RS384": RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS384"}),
}
JWKS = {"keys": [key.as_dict(private=False) for key in KEYS.values()]}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("npm"), *PACKAGES)


@pytest.fixture(scope="module")
def server(modules: Path, mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


@pytest.fixture
def theirs(modules: Path) -> Iterator[OpenidClient]:
    with openid_client(modules) as running:
        yield running


def discover(theirs: OpenidClient, app: App, way: str = "none", **how: Any) -> dict[str, Any]:
    if way == "private_key_jwt":
        how = {"jwk": KEYS[how.pop("alg", "ES384")].as_dict(private=True), "typ": "JWT", **how}
    settings = {"issuer": app.server.base, "algorithm": "oidc", "client_id": app.id, "secret": app.secret, **how}
    found: dict[str, Any] = theirs("discover", way=way, **settings)
    return found


def authorized(theirs: OpenidClient, app: App, user: str, scope: str = SCOPE, **parameters: Any) -> str:
    """The URL at which a user comes back who has allowed everything."""
    request = {"redirect_uri": REDIRECT, "aud": app.server.fhir, "scope": scope, **parameters}
    url = urlsplit(theirs("authorize", **request))
    redirect = app.server.browser(user).grant(dict(parse_qsl(url.query)))
    return str(redirect.headers["location"])


def refused(theirs: OpenidClient, command: str, **parameters: Any) -> dict[str, Any]:
    with pytest.raises(Refused) as raised:
        theirs(command, **parameters)
    return raised.value.about


@pytest.mark.parametrize("algorithm", ["oidc", "oauth2"])
def test_it_finds_the_server_by_both_documents(server: SmartApp, theirs: OpenidClient, algorithm: str) -> None:
    found = discover(theirs, server.client(), algorithm=algorithm)
    assert found["pkce"] is True
    assert found["token_endpoint"] == f"{server.base}/oauth/token"


@pytest.mark.parametrize(
    ("way", "id_token_alg"),
    [("none", "RS256"), ("none", "ES384"), ("client_secret_basic", "RS256"), ("client_secret_post", "ES384"),
     ("private_key_jwt", "RS256")],
)  # fmt: skip
def test_it_logs_in_verifies_the_id_token_and_refreshes(
    server: SmartApp, theirs: OpenidClient, user: str, way: str, id_token_alg: str
) -> None:
    proof = {"jwks": JWKS} if way == "private_key_jwt" else {"secret": way != "none"}
    app = server.client(id_token_alg=id_token_alg, **proof)
    discover(theirs, app, way, id_token_alg=id_token_alg)
    tokens = theirs("returned", url=authorized(theirs, app, user))
    assert tokens["claims"]["fhirUser"] == f"{server.fhir}/Practitioner/rita"
    assert tokens["patient"] == "mara"
    assert theirs("read", url=f"{server.fhir}/Patient/mara", token=tokens["access_token"])["status"] == 200
    again = theirs("refresh", token=tokens["refresh_token"])
    assert again["access_token"] != tokens["access_token"]
    assert again["refresh_token"] != tokens["refresh_token"]
    assert theirs("read", url=f"{server.fhir}/Patient/mara", token=again["access_token"])["status"] == 200


def test_it_is_told_how_long_ago_the_user_logged_in(server: SmartApp, theirs: OpenidClient, user: str) -> None:
    app = server.client()
    discover(theirs, app)
    claims = theirs("returned", url=authorized(theirs, app, user, max_age=3600))["claims"]
    assert claims["auth_time"] <= claims["iat"]


def test_it_is_told_who_answers_and_takes_no_answer_of_another_server(server: SmartApp, theirs: OpenidClient, user: str) -> None:
    app = server.client()
    discover(theirs, app)
    url = authorized(theirs, app, user)
    assert refused(theirs, "returned", url=url.replace("iss=", "iss=x"))["code"] == "OAUTH_INVALID_RESPONSE"
    assert refused(theirs, "returned", url=url.replace("&iss=", "&was="))["code"] == "OAUTH_INVALID_RESPONSE"
    assert theirs("returned", url=url)["access_token"]


def test_it_is_told_what_was_wrong(server: SmartApp, theirs: OpenidClient, user: str) -> None:
    app = server.client()
    discover(theirs, app)
    told = refused(theirs, "returned", url=authorized(theirs, app, user), pkceCodeVerifier="x" * 43)
    assert (told["code"], told["error"], told["status"]) == ("OAUTH_RESPONSE_BODY_ERROR", "invalid_grant", 400)
    told = refused(theirs, "refresh", token="x" * 43)
    assert (told["code"], told["error"], told["status"]) == ("OAUTH_RESPONSE_BODY_ERROR", "invalid_grant", 400)
    url = urlsplit(theirs("authorize", redirect_uri=REDIRECT, aud=server.fhir, scope=f"{SCOPE} launch/encounter"))
    browser = server.browser(user)
    denied = browser.consent(browser.authorize(dict(parse_qsl(url.query))), answer="deny").headers["location"]
    told = refused(theirs, "returned", url=denied)
    assert (told["code"], told["error"]) == ("OAUTH_AUTHORIZATION_RESPONSE_ERROR", "access_denied")


def test_it_understands_what_it_is_challenged_with(server: SmartApp, theirs: OpenidClient) -> None:
    confidential = server.client(secret=True)
    discover(theirs, confidential, "client_secret_basic", secret="wrong")
    told = refused(theirs, "refresh", token="x" * 43)
    assert (told["status"], told["challenges"]) == (401, [{"scheme": "basic", "realm": "oauth"}])
    told = refused(theirs, "read", url=f"{server.fhir}/Patient/mara", token="unknown")
    assert (told["status"], told["challenges"]) == (401, [{"scheme": "bearer", "realm": "fhir", "error": "invalid_token"}])


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
@pytest.mark.parametrize("audience", ["issuer", "token_endpoint"])
def test_it_comes_as_a_backend_service(server: SmartApp, theirs: OpenidClient, alg: str, audience: str) -> None:
    """For the issuer by default (draft-ietf-oauth-rfc7523bis), and for the token endpoint as SMART has it."""
    app = server.client("system/*.rs", redirect_uris=[], launch_uri=None, jwks=JWKS)
    aimed = {} if audience == "issuer" else {"audience": f"{server.base}/oauth/token"}
    discover(theirs, app, "private_key_jwt", alg=alg, **aimed)
    token = theirs("backend", scope="system/Patient.rs")
    assert (token["scope"], token["expires_in"]) == ("system/Patient.rs", 300)
    assert "refresh_token" not in token
    assert theirs("read", url=f"{server.fhir}/Patient/max", token=token["access_token"])["body"]["id"] == "max"
    assert theirs("introspect", token=token["access_token"])["scope"] == "system/Patient.rs"
    theirs("revoke", token=token["access_token"])
    assert theirs("introspect", token=token["access_token"]) == {"active": False}
    assert refused(theirs, "backend", scope="system/Patient.cud user/*.rs nonsense")["error"] == "invalid_scope"


def test_smart_wants_to_be_told_that_its_assertion_is_a_jwt(server: SmartApp, theirs: OpenidClient) -> None:
    """`typ` is required in the header there, and this client leaves it out unless its app puts it in."""
    app = server.client("system/*.rs", redirect_uris=[], launch_uri=None, jwks=JWKS)
    discover(theirs, app, "private_key_jwt", typ=None)
    told = refused(theirs, "backend", scope="system/Patient.rs")
    assert (told["error"], told["error_description"]) == ("invalid_client", "typ of the client_assertion must be JWT")


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_it_asks_about_a_token_and_ends_it(server: SmartApp, theirs: OpenidClient, user: str, way: str) -> None:
    app = server.client(**({"jwks": JWKS} if way == "private_key_jwt" else {"secret": True}))
    discover(theirs, app, way)
    tokens = theirs("returned", url=authorized(theirs, app, user))
    about = theirs("introspect", token=tokens["access_token"])
    assert (about["active"], about["client_id"], about["scope"]) == (True, app.id, SCOPE)
    assert (about["iss"], about["sub"], about["patient"]) == (server.base, tokens["claims"]["sub"], "mara")
    theirs("revoke", token=tokens["refresh_token"])
    assert theirs("introspect", token=tokens["access_token"]) == {"active": False}
    assert refused(theirs, "refresh", token=tokens["refresh_token"])["error"] == "invalid_grant"
    assert theirs("revoke", token="unknown") is None


def test_a_public_app_ends_its_token_too(server: SmartApp, theirs: OpenidClient, user: str) -> None:
    app = server.client()
    discover(theirs, app)
    tokens = theirs("returned", url=authorized(theirs, app, user))
    theirs("revoke", token=tokens["access_token"])
    told = refused(theirs, "read", url=f"{server.fhir}/Patient/mara", token=tokens["access_token"])
    assert told["challenges"][0]["error"] == "invalid_token"
