"""What the authorization server puts on record: who, which app, which scopes, granted or refused; and no secret."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.smart_app import SmartApp, answered, department

Event = dict[str, Any]


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


def recorded(server: SmartApp, client_id: str) -> list[tuple[str, str, str]]:
    """(event, outcome, text) of what is on record about a client at the authorization server, in order."""

    async def read() -> list[Event]:
        source = {"resource.type.code": "oauth", "resource.agent.who.identifier.value": client_id}
        return [d["resource"] async for d in server.db["AuditEvent"].find(source, sort=[("$natural", 1)])]

    return [(e["subtype"][0]["code"], e["outcome"], e.get("outcomeDesc", "")) for e in server.run(read())]


def test_a_launch_is_on_record_from_the_ehr_to_the_end(server: SmartApp) -> None:
    app, browser = server.client(), server.browser(server.user())
    ehr = server.backend("system/*.rs urn:fhir-ris:launch")
    ehr_id = server.run(server.tokens.find(ehr)).client_id  # type: ignore[union-attr]
    launch = app.launch({"patient": "mara"}, ehr)
    scope = "launch openid patient/*.rs offline_access"
    code = answered(browser.consent(browser.authorize(app.request(scope, launch=launch))))["code"]
    body = app.redeem(code).json()
    body = app.refresh(body["refresh_token"]).json()
    app.post("/oauth/revoke", {"token": body["refresh_token"], "client_id": app.id})
    assert recorded(server, ehr_id) == [("launch", "0", f"of {app.id}")]
    assert recorded(server, app.id) == [
        ("consent", "0", scope),
        ("authorize", "0", scope),
        ("token", "0", scope),
        ("token", "0", scope),
        ("revoke", "0", ""),
    ]


def test_refusals_are_on_record_with_their_reason(server: SmartApp) -> None:
    app, browser = server.client(), server.browser(server.user())
    browser.authorize(app.request(aud="https://other.example/fhir"))
    browser.authorize(app.request(redirect_uri="https://evil.example/cb"))
    browser.consent(browser.authorize(app.request()), answer="deny")
    app.redeem("no code")
    told = recorded(server, app.id)
    assert [(event, outcome) for event, outcome, _ in told] == [("authorize", "4")] * 3 + [("token", "4")]
    for (_, _, text), reason in zip(told, ("aud is not", "not registered with", "access_denied", "invalid_grant"), strict=True):
        assert reason in text


def test_no_secret_is_on_record(server: SmartApp) -> None:
    app, browser = server.client(secret=True), server.browser(server.user())
    launch = app.launch({"patient": "mara"})
    code = answered(browser.consent(browser.authorize(app.request("launch openid offline_access", launch=launch))))["code"]
    body = app.redeem(code).json()
    httpx.post(f"{server.base}/oauth/introspect", data={"token": body["access_token"]}, auth=(app.id, app.secret or ""))

    async def everything() -> str:
        return json.dumps([d["resource"] async for d in server.db["AuditEvent"].find()], default=str)

    trail = server.run(everything())
    assert app.id in trail
    for secret in (launch, code, body["access_token"], body["refresh_token"], app.secret):
        assert secret not in trail
