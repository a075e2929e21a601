"""Lifecycles at the doors: who may bring a step about, and that what can't be is refused alike, whatever it comes through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from capability import workflow
from resources.lifecycle import LIFECYCLES, MISTAKE, NEW
from tests.fhir_app import FhirApp, Resource, serving
from tests.smart_world import CODE, Caller, World, ref

DOCUMENT = Path(__file__).parent.parent / "docs" / "workflow.md"
PATCH = "application/json-patch+json"


@pytest.fixture(scope="module")
def world(mongodb_uri: str) -> Iterator[World]:
    with serving(mongodb_uri) as app:
        yield World(app)


def test_the_printed_lifecycles_are_those_that_the_rules_judge_by() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert workflow.written(document) == document, "run python -m capability.workflow"


@pytest.mark.parametrize("table", LIFECYCLES, ids=lambda t: t.title)
def test_no_two_rows_of_a_lifecycle_say_different_things_of_the_same_step(table) -> None:
    steps = [(was, to, row.settles) for row in table.rows for was in row.was for to in row.becomes if was != to]
    assert len(steps) == len(set(steps)), sorted(s for s in steps if steps.count(s) > 1)
    assert any(MISTAKE in row.becomes for row in table.rows) or table.type not in {"Task", "ServiceRequest", "DiagnosticReport"}
    assert any(NEW in row.was for row in table.rows)


def report(app: FhirApp, status: str) -> Resource:
    body = {
        "resourceType": "DiagnosticReport",
        "status": status,
        "code": CODE,
        "subject": ref("Patient/a"),
        "conclusion": "Clear.",
    }
    return dict(app.send("POST", "DiagnosticReport", body).json())


def order(app: FhirApp, status: str = "active") -> Resource:
    body = {"resourceType": "ServiceRequest", "status": status, "intent": "order", "code": CODE, "subject": ref("Patient/a")}
    return dict(app.send("POST", "ServiceRequest", body).json())


def step_of(app: FhirApp, request: Resource) -> Resource:
    found = app.send("GET", f"ServiceRequest?based-on=ServiceRequest/{request['id']}").json()["entry"][0]["resource"]
    tasks = app.send("GET", f"Task?based-on=ServiceRequest/{found['id']}&intent=plan").json()["entry"]
    return dict(tasks[0]["resource"])


def answer(caller: Caller, resource: Resource, status: str) -> tuple[int, str]:
    """What comes of a PUT with this status, and in which words."""
    given = caller.put(resource | {"status": status})
    issues = given.json().get("issue", [{}])
    return given.status_code, str(issues[0].get("diagnostics", ""))


def test_only_a_radiologist_signs(world: World) -> None:
    technologist, radiologist = world.person("technologist"), world.person("radiologist")
    draft = report(world.app, "registered")
    assert answer(technologist, draft, "preliminary")[0] == 200
    assert answer(technologist, draft, "final")[0] == 403
    assert answer(radiologist, draft, "final")[0] == 200
    fresh = {k: v for k, v in draft.items() if k not in {"id", "meta"}}
    assert technologist.post(fresh | {"status": "final"}).status_code == 403
    assert radiologist.post(fresh | {"status": "final"}).status_code == 201


def test_who_books_does_not_examine_and_who_orders_does_neither(world: World) -> None:
    scheduler, technologist, referrer = (world.person(role) for role in ("scheduler", "technologist", "referrer"))
    step = step_of(world.app, order(world.app))
    status, text = answer(scheduler, step, "in-progress")
    assert (status, "technologist, radiologist" in text) == (403, True)
    assert answer(technologist, step, "in-progress")[0] == 200
    assert answer(scheduler, step, "completed")[0] == 403
    assert answer(technologist, step, "completed")[0] == 200
    done = order(world.app)
    assert answer(scheduler, done, "completed")[0] == 403
    assert answer(referrer, done, "on-hold")[0] in {200, 403}  # as far as the order is one of this referrer's patients


def test_a_step_that_can_t_be_is_refused_with_what_can(world: World) -> None:
    app = world.app
    revoked = order(app, "draft")
    assert app.send("PUT", f"ServiceRequest/{revoked['id']}", revoked | {"status": "revoked"}).status_code == 200
    final = report(app, "final")
    patch = [{"op": "replace", "path": "/status", "value": "preliminary"}]
    entry = {
        "resource": final | {"status": "preliminary"},
        "request": {"method": "PUT", "url": f"DiagnosticReport/{final['id']}"},
    }
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    batch = app.send("POST", "", bundle | {"type": "batch"}).json()["entry"][0]["response"]
    answers = [
        app.send("PUT", f"DiagnosticReport/{final['id']}", final | {"status": "preliminary"}),
        app.send("PATCH", f"DiagnosticReport/{final['id']}", patch, content_type=PATCH),
        app.send("POST", "", bundle),
    ]
    texts = [(a.status_code, a.json()["issue"][0]["diagnostics"]) for a in answers]
    texts.append((int(batch["status"][:3]), batch["outcome"]["issue"][0]["diagnostics"]))
    for status, text in texts:
        assert status == 422
        assert "is final and can't become preliminary (it can become: amended, appended, cancelled, corrected)" in text
    ended = app.send("PUT", f"ServiceRequest/{revoked['id']}", revoked | {"status": "active"})
    assert "nothing: it has ended" in ended.json()["issue"][0]["diagnostics"]


def test_what_hangs_together_is_not_torn_apart_by_hand(world: World) -> None:
    """A requested procedure is called off with its step; an order is completed by its report, not by saying so."""
    app = world.app
    request = order(app)
    step = step_of(app, request)
    assert app.send("PUT", f"ServiceRequest/{request['id']}", request | {"status": "completed"}).status_code == 422
    procedure = app.send("GET", step["focus"]["reference"]).json()
    assert app.send("PUT", f"ServiceRequest/{procedure['id']}", procedure | {"status": "completed"}).status_code == 422
    assert app.send("PUT", f"ServiceRequest/{procedure['id']}", procedure | {"status": "revoked"}).status_code == 200
    assert app.send("GET", f"Task/{step['id']}").json()["status"] == "cancelled"
    again = {k: step[k] for k in ("resourceType", "intent", "basedOn", "focus", "for", "code")}
    assert app.send("POST", "Task", again | {"status": "requested"}).status_code == 422
