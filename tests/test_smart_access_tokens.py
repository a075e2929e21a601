"""The life of an access token: the door it opens, its end, revocation and introspection."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.test_smart_token_endpoint import JWKS, SmartServer, assertion, authenticated, is_refused


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartServer]:
    running = SmartServer(mongodb_uri)
    yield running
    running.stop()


@pytest.fixture
def client(server: SmartServer) -> str:
    return server.client()


def post(server: SmartServer, path: str, client: str, token: str, **form: str) -> httpx.Response:
    return server.http.post(path, data={"token": token, **authenticated(client), **form})


def test_an_expired_token_is_refused(server: SmartServer, client: str) -> None:
    registered = server.run(server.clients.get(client))
    assert registered is not None
    token = server.run(server.tokens.issue(registered, "system/*.rs", lifetime=1))
    assert server.open(token) == 200
    time.sleep(1.1)
    assert server.open(token) == 401


def test_removing_a_client_ends_its_tokens_within_a_second(server: SmartServer, client: str) -> None:
    token, other = server.token(client), server.token(server.client())
    assert server.open(token) == server.open(other) == 200
    assert server.run(server.clients.remove(client))
    time.sleep(1)
    assert server.open(token) == 401
    assert server.open(other) == 200
    assert is_refused(server.ask(client))


def test_a_token_of_a_removed_client_is_not_good_for_a_new_one_of_that_name(server: SmartServer, client: str) -> None:
    removed = server.run(server.clients.get(client))
    assert removed is not None
    server.run(server.clients.remove(client))
    server.run(server.clients.add(client, "system/*.cruds", jwks=JWKS))
    late = server.run(server.tokens.issue(removed, "system/*.rs"))  # a request that was under way during the removal
    assert server.open(late) == 401
    assert server.open(server.token(client)) == 200


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ([], 'Bearer realm="fhir"'),
        ([("Authorization", "Bearer")], 'Bearer realm="fhir", error="invalid_token"'),
        ([("Authorization", "Bearer unknown")], 'Bearer realm="fhir", error="invalid_token"'),
        ([("Authorization", "Bearer " + "x" * 5000)], 'Bearer realm="fhir", error="invalid_token"'),
        ([("Authorization", "Basic dTpw")], 'Bearer realm="fhir"'),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], 'Bearer realm="fhir", error="invalid_request"'),
    ],
    ids=["none", "empty", "unknown", "long", "Basic", "two headers"],
)
def test_without_a_good_token_the_door_is_shut(server: SmartServer, headers: list[tuple[str, str]], challenge: str) -> None:
    answer = server.http.get("/guarded", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == challenge
    assert answer.json()["issue"][0]["code"] == "login"


def test_a_token_in_the_url_is_refused_also_beside_a_good_header(server: SmartServer, client: str) -> None:
    token = server.token(client)
    good: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"}}
    for url, given in ((f"/guarded?access_token={token}", {}), (f"/guarded?_count=1&access%5Ftoken={token}", good)):
        answer = server.http.get(url, **given)
        assert answer.status_code == 401
        assert token not in answer.text


def test_a_revoked_token_is_refused_at_once(server: SmartServer, client: str) -> None:
    token = server.token(client)
    assert server.open(token) == 200
    answer = post(server, "/oauth/revoke", client, token, token_type_hint="access_token")
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["cache-control"] == "no-store"
    assert server.open(token) == 401
    assert server.audited[-1] == ("revoke", True, client, "")


def test_revoking_what_is_no_token_is_fine(server: SmartServer, client: str) -> None:
    assert post(server, "/oauth/revoke", client, "unknown").status_code == 200


def test_a_client_cannot_revoke_the_token_of_another(server: SmartServer, client: str) -> None:
    token = server.token(client)
    assert is_refused(post(server, "/oauth/revoke", server.client(), token), "invalid_grant")
    assert server.open(token) == 200


def test_introspection_tells_a_client_of_its_token(server: SmartServer, client: str) -> None:
    token = server.token(client, "system/Patient.rs system/Task.read")
    answer = post(server, "/oauth/introspect", client, token)
    body = answer.json()
    assert 290 < body.pop("exp") - time.time() <= 300
    assert -10 < body.pop("iat") - time.time() <= 1
    assert body == {"active": True, "scope": "system/Patient.rs system/Task.read", "client_id": client, "token_type": "Bearer"}
    assert answer.headers["cache-control"] == "no-store"


def test_introspection_of_any_other_token_says_inactive_and_no_more(server: SmartServer, client: str) -> None:
    revoked, foreign = server.token(client), server.token(server.client())
    post(server, "/oauth/revoke", client, revoked)
    for token in (revoked, foreign, "unknown"):
        answer = post(server, "/oauth/introspect", client, token)
        assert (answer.status_code, answer.json()) == (200, {"active": False})


@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
def test_both_need_a_client_that_proves_itself_and_a_token(server: SmartServer, client: str, path: str) -> None:
    token = server.token(client)
    assert is_refused(server.http.post(path, data={"token": token}), status=401 if path == "/oauth/introspect" else 400)
    assert is_refused(post(server, path, client, token, client_assertion=assertion(client, aud="https://other.example")))
    assert is_refused(server.http.post(path, data=authenticated(client)), "invalid_request")
    used = authenticated(client)
    assert server.ask(client, **used).status_code == 200
    assert is_refused(server.http.post(path, data={"token": token, **used}))
    assert server.open(token) == 200
