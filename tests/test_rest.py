"""HTTP: who gets in, formats, methods, refusals of every kind of bad input, limits, and a database that goes away."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server import database, transactions
from fhir_server.mongod import EmbeddedMongod
from tests.fhir_app import JSON, FhirApp, issues, load, outcome, patient, post, serving

ROUTES = [
    ("POST", ""),
    ("POST", "/"),
    ("GET", "Patient"),
    ("POST", "Patient"),
    ("POST", "Patient/_search"),
    ("GET", "Patient/x"),
    ("HEAD", "Patient/x"),
    ("PUT", "Patient/x"),
    ("PATCH", "Patient/x"),
    ("DELETE", "Patient/x"),
    ("DELETE", "Patient"),
    ("OPTIONS", "Patient"),
    ("GET", "Patient/x/_history"),
    ("GET", "Patient/x/_history/1"),
    ("GET", "Patient/$everything"),
    ("GET", "Nonsense/x"),
    ("GET", "a/b/c/d/e"),
    ("GET", "_history"),
]


# Who gets in


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_nothing_is_said_but_that_one_is_needed(app: FhirApp, method: str, path: str) -> None:
    answer = app.send(method, path, scope=None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    if method != "HEAD":
        assert issues(answer) == [("login", None)]
    assert app.send(method, path, scope=None, Authorization="Bearer nonsense").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "Patient", "system/Patient.crud"),
        ("POST", "Patient/_search", "system/Patient.crud"),
        ("GET", "Patient/x", "system/Patient.cuds"),
        ("HEAD", "Patient/x", "system/Patient.cuds"),
        ("GET", "Patient/x/_history", "system/Patient.cuds"),
        ("GET", "Patient/x/_history/1", "system/Patient.cuds"),
        ("POST", "Patient", "system/Patient.ruds"),
        ("PUT", "Patient/x", "system/Patient.crds"),
        ("DELETE", "Patient/x", "system/Patient.crus"),
        ("GET", "Patient", "system/Observation.cruds"),
        ("GET", "Observation?subject:Patient.name=x", "system/Observation.cruds"),
    ],
)
def test_each_interaction_needs_its_scope(app: FhirApp, method: str, path: str, scope: str) -> None:
    app.put(patient(id="x"))
    form = path.endswith("_search")
    body = b"name=x" if form else patient(id="x", gender="male") if method in {"POST", "PUT"} else None
    kind = "application/x-www-form-urlencoded" if form else JSON
    answer = app.send(method, path, body, scope=scope, Content_Type=kind)
    assert answer.status_code == 403
    assert "insufficient_scope" in answer.headers["www-authenticate"]
    if method != "HEAD":
        assert issues(answer)[0][0] == "forbidden"
    assert app.send(method, path, body, Content_Type=kind).status_code in {200, 201, 204}


def test_metadata_is_for_everybody(app: FhirApp) -> None:
    answer = app.send("GET", "metadata", scope=None)
    assert (answer.status_code, answer.json()["fhirVersion"]) == (200, "4.0.1")
    assert app.send("HEAD", "metadata", scope=None).status_code == 200
    assert app.send("DELETE", "metadata", scope=None).status_code == 405


# Formats and methods


def test_head_answers_as_get_without_a_body(app: FhirApp) -> None:
    made = app.create(patient())
    for path in (f"Patient/{made['id']}", f"Patient/{made['id']}/_history/1", f"Patient?_id={made['id']}"):
        get, head = app.get(path), app.send("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers.get("etag") == get.headers.get("etag")
        assert head.headers["content-length"] == get.headers["content-length"]
    assert app.send("HEAD", "Patient/nobody").status_code == 404
    assert app.get(f"Patient/{made['id']}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "Patient/x", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("TRACE", "Patient", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("GET", "Patient/_search", "POST, OPTIONS"),
        ("PUT", "", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "Patient/x/_history", "GET, HEAD, OPTIONS"),
        ("DELETE", "Patient/x/_history/1", "GET, HEAD, OPTIONS"),
        ("POST", "Patient/x/Observation", "GET, HEAD, OPTIONS"),
        ("PUT", "$x", "GET, POST, HEAD, OPTIONS"),
    ],
)
def test_a_method_that_an_address_does_not_have_is_405(app: FhirApp, method: str, path: str, allowed: str) -> None:
    answer = app.send(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert issues(answer)[0][0] == "not-supported"


@pytest.mark.parametrize(
    "path", ["Nonsense", "Nonsense/1", "patient/1", "Resource/1", "Patient/1/2", "a/b/c/d", "Patient/", "$x"]
)
def test_an_address_that_is_nothing_is_404(app: FhirApp, path: str) -> None:
    answer = app.get(path)
    assert answer.status_code == 404
    outcome(answer)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json", 200),
        ("application/json", 200),
        ("application/fhir+json; fhirVersion=4.0", 200),
        ("text/html, application/json;q=0.9", 200),
        ("*/*", 200),
        ("application/fhir+xml", 406),
        ("text/html", 406),
    ],
)
def test_the_answer_is_json_or_none(app: FhirApp, accept: str, status: int) -> None:
    made = app.create(patient())
    answer = app.get(f"Patient/{made['id']}", Accept=accept)
    assert answer.status_code == status
    assert answer.headers["content-type"] == f"{JSON}; charset=utf-8"


def test_format_wins_over_accept(app: FhirApp) -> None:
    for value, status in (("json", 200), ("application/fhir+json", 200), ("application/fhir%2Bjson", 200), ("xml", 406)):
        assert app.get(f"Patient?_format={value}&_count=1", Accept="text/html").status_code == status, value


@pytest.mark.parametrize("kind", ["application/fhir+xml", "text/plain", "", "application/json-patch+json", "multipart/form-data"])
def test_what_is_sent_must_say_that_it_is_json(app: FhirApp, kind: str) -> None:
    for method, path in (("POST", "Patient"), ("PUT", "Patient/x"), ("POST", "")):
        assert app.send(method, path, b"{}", Content_Type=kind).status_code == 415
    assert app.send("POST", "Patient/_search", b"name=x", Content_Type=kind).status_code == 415
    assert (
        app.send("POST", "Patient", b'{"resourceType":"Patient"}', Content_Type="APPLICATION/JSON;charset=UTF-8").status_code
        == 201
    )


def test_if_none_match_saves_the_body(app: FhirApp) -> None:
    made = app.create(patient())
    for tag in ('W/"1"', 'W/"7", W/"1"', "*"):
        answer = app.get(f"Patient/{made['id']}", If_None_Match=tag)
        assert (answer.status_code, answer.content) == (304, b"")
    assert app.get(f"Patient/{made['id']}", If_None_Match='W/"2"').status_code == 200


def test_prefer_says_what_comes_back(app: FhirApp) -> None:
    minimal = app.send("POST", "Patient", patient(), Prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (201, b"")
    assert minimal.headers["location"].startswith(f"{app.base_url}/fhir/Patient/")
    said = app.send("POST", "Patient", patient(), Prefer="return=OperationOutcome")
    assert (said.status_code, load(said)["resourceType"]) == (201, "OperationOutcome")


def test_if_none_match_star_on_an_update_makes_a_resource_only_if_there_is_none(app: FhirApp) -> None:
    fresh = {"resourceType": "Patient", "id": "only-new", "active": True}
    assert app.send("PUT", "Patient/only-new", fresh, If_None_Match="*").status_code == 201
    again = app.send("PUT", "Patient/only-new", fresh | {"active": False}, If_None_Match="*")
    assert again.status_code == 412
    assert load(app.send("GET", "Patient/only-new"))["active"] is True
    assert app.send("PUT", "Patient/only-new", fresh, If_None_Match='W/"1"').status_code == 400


# Bad input

BAD = [
    (b"", "structure", None),
    (b"nonsense", "structure", None),
    (b"[]", "structure", None),
    (b"{", "structure", None),
    (b'{"resourceType":"Patient","active":true,"active":false}', "structure", None),
    (b'{"resourceType":"Patient","gender":NaN}', "structure", None),
    (b"\xff\xfe", "structure", None),
    (b'{"resourceType":"Patient","name":[{"family":"\\ud800"}]}', "structure", None),
    (b'{"active":true}', "required", "Resource.resourceType"),
    (b'{"resourceType":"Order"}', "structure", "Resource.resourceType"),
    (b'{"resourceType":5}', "structure", "Resource.resourceType"),
    (b'{"resourceType":"Observation"}', "structure", "Resource.resourceType"),
    (b'{"resourceType":"Patient","familly":"x"}', "structure", "Patient.familly"),
    (b'{"resourceType":"Patient","active":"true"}', "structure", "Patient.active"),
    (b'{"resourceType":"Patient","name":{"family":"x"}}', "structure", "Patient.name"),
    (b'{"resourceType":"Patient","meta":5}', "structure", "Patient.meta"),
    (b'{"resourceType":"Patient","link":[{"type":"refer"}]}', "required", "Patient.link[0].other"),
    (b'{"resourceType":"Patient","gender":"m"}', "code-invalid", "Patient.gender"),
    (b'{"resourceType":"Patient","birthDate":"2023-02-29"}', "value", "Patient.birthDate"),
    (b'{"resourceType":"Patient","name":[]}', "structure", "Patient.name"),
    (b'{"resourceType":"Patient","name":[{}]}', "invariant", "Patient.name[0]"),
    (b'{"resourceType":"Patient","birthDate":null}', "structure", "Patient.birthDate"),
    (
        b'{"resourceType":"Patient","managingOrganization":{"reference":"Patient/x"}}',
        "value",
        "Patient.managingOrganization.reference",
    ),
    (b'{"resourceType":"Patient","id":"a b"}', None, None),
]


@pytest.mark.parametrize(("body", "code", "expression"), BAD)
def test_bad_input_is_refused_with_its_place(app: FhirApp, body: bytes, code: str | None, expression: str | None) -> None:
    answer = app.send("POST", "Patient", body)
    if code is None:  # the id of what is created is ours anyway
        assert answer.status_code == 201
        return
    assert answer.status_code in {400, 422}
    assert issues(answer) == [(code, expression)]
    assert "Expecting" not in answer.text or body in {b"", b"nonsense", b"{"}


def test_the_address_and_the_body_must_agree(app: FhirApp) -> None:
    assert issues(app.send("PUT", "Patient/a", patient(id="b"))) == [("value", "Patient.id")]
    assert issues(app.send("PUT", "Patient/a", patient())) == [("value", "Patient.id")]
    assert issues(app.send("PUT", "Patient/a_b", patient(id="a_b"))) == [("value", "Patient.id")]
    assert issues(app.send("PUT", f"Patient/{'x' * 65}", patient(id="x" * 65))) == [("value", "Patient.id")]
    body = {"resourceType": "Observation", "id": "a"}
    assert issues(app.send("PUT", "Patient/a", body)) == [("structure", "Resource.resourceType")]
    assert issues(app.send("POST", "", patient())) == [("structure", "Resource.resourceType")]
    assert issues(app.send("POST", "", {"resourceType": "Bundle", "type": "searchset"})) == [("value", "Bundle.type")]


@pytest.mark.parametrize("path", ["Patient/%00", "Patient/%ff", "Patient/$where", "Patient/%7B%22$gt%22:1%7D", "Patient/é"])
def test_strange_ids_are_not_found(app: FhirApp, path: str) -> None:
    assert app.get(path).status_code == 404


def test_what_is_too_large_is_refused_with_413(app: FhirApp) -> None:
    def binary(size: int) -> bytes:
        return b'{"resourceType":"Binary","contentType":"x/y","data":"' + b"AAAA" * (size // 4) + b'"}'

    assert issues(app.send("POST", "Binary", binary(21 * 1024 * 1024))) == [("too-long", None)]
    assert issues(app.send("POST", "Binary", binary(17 * 1024 * 1024))) == [("too-long", None)]
    assert issues(app.bundle("transaction", post(json.loads(binary(17 * 1024 * 1024)))))[0][0] == "too-long"
    assert app.send("POST", "Binary", binary(9 * 1024 * 1024)).status_code == 201
    many = patient(identifier=[{"system": "urn:example:a-long-system-name" * 8, "value": f"{n:0200}"} for n in range(18000)])
    assert issues(app.send("POST", "Patient", many)) == [("too-long", None)]


def test_a_body_that_grows_beyond_the_limit_is_cut_off(app: FhirApp) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 1024 * 1024

    headers = {"Authorization": f"Bearer {app.token()}", "Content-Type": JSON}
    with suppress(httpx.WriteError, httpx.RemoteProtocolError):  # the server has hung up on us, which is as good
        assert app.http.post("Patient", content=chunks(), headers=headers).status_code == 413
    assert app.get("Patient?_count=1").status_code == 200


def test_deep_nesting_is_refused(app: FhirApp) -> None:
    for depth in (50, 100, 100_000):
        nested = b'{"url":"urn:x","extension":[' * depth + b'{"url":"urn:x","valueCode":"x"}' + b"]}" * depth
        answer = app.send("POST", "Patient", b'{"resourceType":"Patient","extension":[' + nested + b"]}")
        assert answer.status_code == 400, depth
        outcome(answer)
    assert app.send("POST", "Patient", b"[" * 1_000_000).status_code == 400


def test_many_faults_are_told_at_once_but_not_without_end(app: FhirApp) -> None:
    answer = app.send("POST", "Patient", patient(**{f"x{n}": 1 for n in range(1000)}))
    assert len(issues(answer)) == 20


def test_a_caller_who_hangs_up_harms_nobody(app: FhirApp) -> None:
    host, port = app.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        head = f"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {app.token()}\r\nContent-Type: {JSON}\r\n"
        caller.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        time.sleep(0.05)
    assert app.get("Patient?_count=1").status_code == 200


# A database that goes away


def test_while_mongodb_is_away_callers_are_told_to_wait_and_then_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SERVER_SELECTION_SECONDS", 0.5)  # else this test waits for half a minute
    monkeypatch.setattr(transactions, "_PATIENCE", 2)

    async def start() -> tuple[EmbeddedMongod, str]:
        mongod = EmbeddedMongod(tmp_path)
        return mongod, await mongod.start()

    mongod, uri = asyncio.run(start())
    with serving(uri) as app, ThreadPoolExecutor(20) as threads:
        made = app.create(patient())
        assert mongod._process is not None

        def ask(n: int) -> int:
            calls: list[tuple[str, str, Any]] = [
                ("GET", f"Patient/{made['id']}", None),
                ("POST", "Patient", patient()),
                ("GET", "Patient?name=x", None),
                ("PUT", f"Patient/{made['id']}", patient(id=made["id"], birthDate=f"19{n:02}")),
            ]
            method, path, body = calls[n % 4]
            answer = app.send(method, path, body)
            if answer.status_code not in {200, 201}:
                assert (answer.status_code, issues(answer)) == (503, [("transient", None)])
                assert answer.headers["retry-after"]
            return answer.status_code

        running = [threads.submit(ask, n) for n in range(24)]
        time.sleep(0.05)
        mongod._process.kill()
        mongod._process.wait()
        assert 503 in {r.result() for r in running}
        answers = [
            app.send("GET", "Patient/x"),
            app.send("POST", "Patient", patient()),
            app.bundle("transaction", post(patient())),
            app.bundle("batch", post(patient())),
        ]
        assert {a.status_code for a in answers} <= {503}
        asyncio.run(_again(mongod))
        deadline = time.monotonic() + 60
        while app.get(f"Patient/{made['id']}").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert app.create(patient())
        versions = [int(e["resource"]["meta"]["versionId"]) for e in load(app.get(f"Patient/{made['id']}/_history"))["entry"]]
        assert versions == list(range(len(versions), 0, -1))
    asyncio.run(mongod.stop())


async def _again(mongod: EmbeddedMongod) -> None:
    """Start the killed mongod on its data again."""
    await mongod.stop()
    await mongod.start()
