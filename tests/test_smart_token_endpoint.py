"""SMART Backend Services from outside: a real server, real keys, and every way to get it wrong that the standard names."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from starlette.requests import Request
from starlette.responses import JSONResponse

from fhir_server.database import connect
from fhir_server.outcome import FhirError, operation_outcome
from smart_auth.access import Access
from smart_auth.chart import Choice
from smart_auth.clients import Clients
from smart_auth.routes import authenticate, ensure_indexes, router
from smart_auth.tokens import Tokens

T = TypeVar("T")
BASE_URL = "https://ris.example"  # what the outside calls us is not where the socket is
TOKEN_URL = f"{BASE_URL}/oauth/token"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EC = ECKey.generate_key("P-384", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
JWKS = {"keys": [EC.as_dict(private=False), RSA.as_dict(private=False)]}
LEFT_OUT = object()


class NoChart:
    """Backend services have no pages, and so nothing to choose from."""

    async def patients(self, _access: Access, _text: str) -> list[Choice]:
        return []

    async def encounters(self, _access: Access, _patient: str) -> list[Choice]:
        return []

    async def is_of(self, _access: Access, _encounter: str, _patient: str) -> bool:
        return False

    async def sees(self, _access: Access, _references: Iterable[str]) -> bool:
        return False


class FromNow(int):
    """A claim that is a time, in seconds from when the assertion is made."""


class SmartServer:
    """The authorization server and one guarded page, on a loopback port, in a thread with an event loop of its own."""

    def __init__(self, mongodb_uri: str) -> None:
        self.audited: list[tuple[str, bool, str | None, str]] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(mongodb_uri),))
        self._thread.start()
        assert self._started.wait(120)

    async def _run(self, mongodb_uri: str) -> None:
        self.db = await connect(mongodb_uri, f"test_{uuid4().hex[:12]}")
        await ensure_indexes(self.db)
        self.clients, self.tokens = Clients(self.db), Tokens(self.db)
        self._loop = asyncio.get_running_loop()
        self._uvicorn = uvicorn.Server(uvicorn.Config(self._app(), log_config=None, access_log=False))
        listening = socket.create_server(("127.0.0.1", 0))
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        self._started.set()
        await self._uvicorn.serve(sockets=[listening])
        await self.db.client.drop_database(self.db.name)
        await self.db.client.close()

    def _app(self) -> FastAPI:
        async def audit(event: str, outcome: bool, client_id: str | None, detail: str, _user: str | None = None) -> None:
            self.audited.append((event, outcome, client_id, detail))

        async def guarded(request: Request) -> JSONResponse:
            access = await authenticate(self.tokens, request)
            return JSONResponse({"client": access.client_id, "scopes": [scope.text for scope in access.scopes]})

        async def refused(_request: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, FhirError)
            return JSONResponse(operation_outcome(*error.issues), error.status, error.headers)

        app = FastAPI(exception_handlers={FhirError: refused})
        app.include_router(router(self.db, self.tokens, BASE_URL, audit, data_dir=Path("/nowhere"), chart=NoChart()))
        app.add_route("/guarded", guarded)
        return app

    def stop(self) -> None:
        self.http.close()
        self._uvicorn.should_exit = True
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def client(self, scope: str = "system/*.cruds") -> str:
        """A new client with both keys; its id."""
        name = f"client-{uuid4().hex[:8]}"
        self.run(self.clients.add(name, scope, jwks=JWKS))
        return name

    def ask(self, client: str, scope: str = "system/*.rs", **form: str) -> httpx.Response:
        """A token request, in order but for what `form` changes."""
        given = {"grant_type": "client_credentials", "scope": scope, **authenticated(client), **form}
        return self.http.post("/oauth/token", data=given)

    def token(self, client: str, scope: str = "system/*.rs") -> str:
        answer = self.ask(client, scope)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def open(self, token: str) -> int:
        return self.http.get("/guarded", headers={"Authorization": f"Bearer {token}"}).status_code


def assertion(client: str, key: Any = EC, alg: str = "ES384", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A client assertion, in order but for what is given; LEFT_OUT leaves out."""
    now = int(time.time())
    full = {"iss": client, "sub": client, "aud": TOKEN_URL, "jti": uuid4().hex, "iat": now, "exp": now + 240, **claims}
    head = {"alg": alg, "kid": key.kid, "typ": "JWT", **(header or {})}
    full = {name: now + value if isinstance(value, FromNow) else value for name, value in full.items()}
    head, full = ({name: value for name, value in part.items() if value is not LEFT_OUT} for part in (head, full))
    return jwt.encode(head, full, key, algorithms=[alg], default_type=None)


def authenticated(client: str, *args: Any, **claims: Any) -> dict[str, str]:
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion(client, *args, **claims)}


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartServer]:
    running = SmartServer(mongodb_uri)
    yield running
    running.stop()


@pytest.fixture
def client(server: SmartServer) -> str:
    return server.client()


def is_refused(answer: httpx.Response, error: str = "invalid_client", status: int = 400) -> bool:
    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert body["error_description"]
    return (answer.status_code, body["error"]) == (status, error) and "access_token" not in body


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES384"), (RSA, "RS384")], ids=["ES384", "RS384"])
def test_a_good_assertion_gets_a_token_of_five_minutes(server: SmartServer, client: str, key: Any, alg: str) -> None:
    answer = server.ask(client, "system/*.rs", client_assertion=assertion(client, key, alg))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    body = answer.json()
    assert len(body.pop("access_token")) == 43  # 256 bits, base64url
    assert body == {"token_type": "Bearer", "expires_in": 300, "scope": "system/*.rs"}


def test_the_token_opens_the_door_with_its_scopes(server: SmartServer, client: str) -> None:
    token = server.token(client, "system/Patient.rs system/Task.read")
    page = server.http.get("/guarded", headers={"Authorization": f"bearer {token}"})
    assert page.json() == {"client": client, "scopes": ["system/Patient.rs", "system/Task.read"]}


def test_each_request_gets_a_token_of_its_own(server: SmartServer, client: str) -> None:
    assert server.token(client) != server.token(client)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": BASE_URL},
        {"aud": [TOKEN_URL]},
        {"exp": FromNow(300), "iat": LEFT_OUT},
        {"nbf": FromNow(0)},
    ],
    ids=["aud is the issuer", "aud in a list", "no iat", "nbf"],
)
def test_what_the_standard_leaves_to_the_client_is_accepted(server: SmartServer, client: str, claims: dict[str, Any]) -> None:
    assert server.ask(client, client_assertion=assertion(client, **claims)).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": FromNow(-30)}, id="expired"),
        pytest.param({"exp": FromNow(3600)}, id="exp too far ahead"),
        pytest.param({"exp": LEFT_OUT}, id="no exp"),
        pytest.param({"exp": "2100-01-01"}, id="exp is text"),
        pytest.param({"exp": float("nan")}, id="exp is not a number"),
        pytest.param({"exp": True}, id="exp is a boolean"),
        pytest.param({"iat": FromNow(3600)}, id="issued in the future"),
        pytest.param({"nbf": FromNow(3600)}, id="not valid yet"),
        pytest.param({"aud": "https://other.example/oauth/token"}, id="wrong aud"),
        pytest.param({"aud": TOKEN_URL + "/"}, id="aud with a slash more"),
        pytest.param({"aud": [TOKEN_URL, "https://other.example/oauth/token"]}, id="aud with a foreign one"),
        pytest.param({"aud": []}, id="empty aud"),
        pytest.param({"aud": {}}, id="aud is an object"),
        pytest.param({"aud": [[]]}, id="aud is a list of lists"),
        pytest.param({"aud": LEFT_OUT}, id="no aud"),
        pytest.param({"iss": "someone-else"}, id="wrong iss"),
        pytest.param({"iss": LEFT_OUT}, id="no iss"),
        pytest.param({"sub": LEFT_OUT}, id="no sub"),
        pytest.param({"sub": ["x"]}, id="sub is a list"),
        pytest.param({"sub": "nobody", "iss": "nobody"}, id="unknown client"),
        pytest.param({"jti": LEFT_OUT}, id="no jti"),
        pytest.param({"jti": ""}, id="empty jti"),
        pytest.param({"jti": 7}, id="jti is a number"),
        pytest.param({"jti": "x" * 300}, id="long jti"),
    ],
)
def test_wrong_claims_are_refused(server: SmartServer, client: str, claims: dict[str, Any]) -> None:
    assert is_refused(server.ask(client, client_assertion=assertion(client, **claims)))


@pytest.mark.parametrize("names", [["iss", "sub"], ["jti"]], ids=["client id", "jti"])
def test_half_a_character_is_refused(server: SmartServer, client: str, names: list[str]) -> None:
    claims = {"iss": client, "sub": client, "aud": TOKEN_URL, "jti": uuid4().hex, "exp": int(time.time()) + 240}
    payload = json.dumps(claims | dict.fromkeys(names, "\ud800"))
    signed = jws.serialize_compact({"alg": "ES384", "kid": "ec", "typ": "JWT"}, payload, EC, algorithms=["ES384"])
    assert is_refused(server.ask(client, client_assertion=signed))


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"kid": "unknown"}, id="unknown kid"),
        pytest.param({"kid": "rsa"}, id="kid of a key of another type"),
        pytest.param({"kid": LEFT_OUT}, id="no kid"),
        pytest.param({"typ": LEFT_OUT}, id="no typ"),
        pytest.param({"typ": "at+jwt"}, id="other typ"),
        pytest.param({"jku": "https://app.example/jwks.json"}, id="jku"),
        pytest.param({"jwk": EC.as_dict(private=False), "kid": "own"}, id="a key in the header is not believed"),
    ],
)
def test_wrong_headers_are_refused(server: SmartServer, client: str, header: dict[str, Any]) -> None:
    assert is_refused(server.ask(client, client_assertion=assertion(client, header=header)))


@pytest.mark.parametrize("alg", ["RS256", "PS384", "RS512"])
def test_other_signatures_are_refused(server: SmartServer, client: str, alg: str) -> None:
    assert is_refused(server.ask(client, client_assertion=assertion(client, RSA, alg)))


def test_hs256_with_the_public_key_as_secret_is_refused(server: SmartServer, client: str) -> None:
    secret = OctKey.import_key(RSA.as_pem(private=False).replace(b"-----", b""), {"kid": "rsa"})
    assert is_refused(server.ask(client, client_assertion=assertion(client, secret, "HS256")))


def test_alg_none_is_refused(server: SmartServer, client: str) -> None:
    head, claims, _ = assertion(client, OctKey.generate_key(256, {"kid": "ec"}), "HS256").split(".")
    assert is_refused(server.ask(client, client_assertion=f"{head}.{claims}."))
    none = "eyJhbGciOiJub25lIiwia2lkIjoiZWMiLCJ0eXAiOiJKV1QifQ"  # {"alg":"none","kid":"ec","typ":"JWT"}
    assert is_refused(server.ask(client, client_assertion=f"{none}.{claims}."))


def test_the_signature_of_another_key_is_refused(server: SmartServer, client: str) -> None:
    other = ECKey.generate_key("P-384", {"kid": "ec"})
    assert is_refused(server.ask(client, client_assertion=assertion(client, other)))


def test_claims_changed_after_signing_are_refused(server: SmartServer, client: str) -> None:
    head, _, signature = assertion(client).split(".")
    _, claims, _ = assertion(client).split(".")
    assert is_refused(server.ask(client, client_assertion=f"{head}.{claims}.{signature}"))


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "a.b.c",
        "..",
        "IngiIDogImFsZyI.e30.x",
        "W10.e30.x",
        "W" * 40_000,
        "W1tb" * 5000 + ".e30.x",
        "eyJhbGciOlsxXX0.e30.x",
        "é.é.é",
    ],
)
def test_what_is_no_jwt_is_refused(server: SmartServer, client: str, text: str) -> None:
    assert is_refused(server.ask(client, client_assertion=text))


def test_a_replayed_assertion_is_refused(server: SmartServer, client: str) -> None:
    form = authenticated(client)
    assert server.ask(client, **form).status_code == 200
    assert is_refused(server.ask(client, **form))


def test_of_parallel_replays_one_gets_a_token(server: SmartServer, client: str) -> None:
    form = authenticated(client)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask(client, **form).status_code, range(8)))
    assert sorted(answers) == [200] + [400] * 7


def test_what_a_replay_draws_opens_nothing(server: SmartServer, client: str) -> None:
    form = {"grant_type": "client_credentials", "scope": "system/*.rs", **authenticated(client)}
    assert server.http.post("/oauth/token", data=form).status_code == 200
    again = server.http.post("/oauth/token", data=form)
    assert again.status_code == 400
    assert "access_token" not in again.text


def test_other_keys_count_at_once(server: SmartServer, client: str) -> None:
    server.token(client)
    other = ECKey.generate_key("P-384", {"kid": "other"})
    server.run(server.clients.remove(client))
    server.run(server.clients.add(client, "system/*.cruds", jwks={"keys": [other.as_dict(private=False)]}))
    answer = server.ask(client, client_assertion=assertion(client, other, "ES384"))
    assert answer.status_code == 200, answer.text
    assert server.open(answer.json()["access_token"]) == 200
    assert server.ask(client).json()["error"] == "invalid_client"


def test_a_removed_client_gets_nothing_that_opens_anything(server: SmartServer, client: str) -> None:
    server.token(client)
    server.run(server.clients.remove(client))
    answer = server.ask(client)
    assert answer.status_code != 200 or server.open(answer.json()["access_token"]) == 401
    time.sleep(1)
    assert server.ask(client).json()["error"] == "invalid_client"


def test_two_clients_may_use_the_same_jti(server: SmartServer, client: str) -> None:
    other = server.client()
    for name in (client, other):
        assert server.ask(name, client_assertion=assertion(name, jti="one")).status_code == 200


def test_the_client_id_in_the_body_must_be_the_clients_own(server: SmartServer, client: str) -> None:
    assert is_refused(server.ask(client, client_id=server.client()))
    assert server.ask(client, client_id=client).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
        {"client_assertion_type": ""},
        {"client_assertion": ""},
        {"client_secret": "beside the assertion"},
    ],
)
def test_other_ways_of_authentication_are_refused(server: SmartServer, client: str, form: dict[str, str]) -> None:
    assert is_refused(server.ask(client, **form))


def test_http_basic_is_refused_with_its_challenge(server: SmartServer, client: str) -> None:
    answer = server.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(client, "secret"))
    assert is_refused(answer, status=401)
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_a_subset_of_the_scopes_is_granted(server: SmartServer) -> None:
    answer = server.ask(server.client("system/Patient.rs"), "system/Patient.r system/Task.rs launch/patient")
    assert answer.json()["scope"] == "system/Patient.r"


def test_a_wildcard_is_narrowed_to_the_registration(server: SmartServer) -> None:
    answer = server.ask(server.client("system/Patient.cruds system/Task.r"), "system/*.rs")
    assert answer.json()["scope"] == "system/Patient.rs system/Task.r"


@pytest.mark.parametrize("scope", ["", "system/Patient.c", "patient/*.rs", "system/Observation.rs?no-parameter=x", "openid"])
def test_a_request_of_which_nothing_can_be_granted_is_refused(server: SmartServer, scope: str) -> None:
    assert is_refused(server.ask(server.client("system/*.rs"), scope), "invalid_scope")


@pytest.mark.parametrize(
    ("grant_type", "error"),
    [("", "invalid_request"), ("password", "unsupported_grant_type"), ("implicit", "unsupported_grant_type")],
)
def test_other_grant_types_are_refused(server: SmartServer, client: str, grant_type: str, error: str) -> None:
    assert is_refused(server.ask(client, grant_type=grant_type), error)


def test_a_parameter_given_twice_is_refused(server: SmartServer, client: str) -> None:
    form = {"grant_type": "client_credentials", "scope": ["system/*.rs", "system/*.cruds"], **authenticated(client)}
    assert is_refused(server.http.post("/oauth/token", data=form), "invalid_request")


def test_parameters_in_the_url_are_refused(server: SmartServer, client: str) -> None:
    form = {"grant_type": "client_credentials", **authenticated(client)}
    assert is_refused(server.http.post("/oauth/token?scope=system/*.rs", data=form), "invalid_request")


def test_an_oversized_body_is_refused(server: SmartServer) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert is_refused(server.http.post("/oauth/token", content=b"a=" + b"x" * 70_000, headers=form), "invalid_request", 413)


@pytest.mark.parametrize("body", [b"a=%ff", b"\xff=1", b"&".join(b"p%d=1" % n for n in range(300))])
def test_a_malformed_form_is_refused(server: SmartServer, body: bytes) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert is_refused(server.http.post("/oauth/token", content=body, headers=form), "invalid_request")


def test_json_is_refused(server: SmartServer, client: str) -> None:
    assert is_refused(server.http.post("/oauth/token", json={"grant_type": "client_credentials"}), "invalid_request")


def test_a_request_is_audited_granted_or_refused(server: SmartServer, client: str) -> None:
    server.ask(client, "system/*.rs")
    assert server.audited[-1] == ("token", True, client, "system/*.rs")
    server.ask(client, client_assertion=assertion(client, aud="https://other.example"))
    *known, detail = server.audited[-1]
    assert known == ["token", False, None]
    assert detail.startswith("invalid_client: aud of the client_assertion")
    assert detail.endswith(f"the client says it is {client}")
    server.ask(client, "openid")
    assert server.audited[-1][:3] == ("token", False, client)


def test_an_unknown_client_is_told_no_more_than_a_wrong_key(server: SmartServer, client: str) -> None:
    unknown = server.ask("nobody")
    wrong = server.ask(client, client_assertion=assertion(client, header={"kid": "unknown"}))
    assert unknown.json() == wrong.json()


def test_the_token_is_neither_stored_nor_logged_in_clear(
    server: SmartServer, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = server.token(client)
    assert server.open(token) == 200

    async def stored() -> str:
        return "".join([repr(d) for name in await server.db.list_collection_names() async for d in server.db[name].find()])

    documents = server.run(stored())
    assert client in documents
    assert token not in documents
    assert token not in caplog.text


def test_mongodb_forgets_what_has_expired(server: SmartServer, client: str) -> None:
    server.token(client)

    async def expiries() -> list[float]:
        found = []
        for name in ("oauth_tokens", "oauth_jti"):
            indexes = await server.db[name].index_information()
            assert indexes["expires_1"]["expireAfterSeconds"] == 0
            newest = await server.db[name].find_one(sort=[("$natural", -1)])
            assert newest is not None
            found.append(newest["expires"].replace(tzinfo=UTC).timestamp() - time.time())
        return found

    token, jti = server.run(expiries())
    assert 290 < token <= 300
    assert jti > 240 + 10  # the assertion's life and the leeway


def test_plain_http_to_the_outside_is_refused_at_the_start(server: SmartServer) -> None:
    async def audit(*_: object) -> None: ...

    with pytest.raises(ValueError, match="access tokens need https"):
        router(server.db, server.tokens, "http://ris.example", audit, data_dir=Path("/nowhere"), chart=NoChart())
