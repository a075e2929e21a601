"""Break-glass: a record opened in an emergency, for one patient and one session, on record and under review."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from smart_auth.break_glass import close_what_is_over
from smart_auth.break_glass_log import BREAK_GLASS
from tests.fhir_app import FhirApp, Resource, unused
from tests.smart_world import Caller, World, consent, label, observation, ref, report, resource

REASON = "Unconscious after a fall, allergies unknown"


@pytest.fixture
def vip(world: World) -> str:
    """A patient whose whole record is very restricted, with a report."""
    id_ = unused("vip")
    identifier = [{"system": "urn:example:mrn", "value": f"MRN-{id_}"}]
    world.app.put(resource("Patient", id_, meta=label("V"), identifier=identifier, name=[{"family": "Prominent"}]))
    world.app.put(report(f"r-{id_}", id_))
    return id_


def parameters(**given: str | int) -> Resource:
    rows = [{"name": n, "valueInteger" if isinstance(v, int) else "valueString": v} for n, v in given.items()]
    return {"resourceType": "Parameters", "parameter": rows}


def break_glass(caller: Caller, patient: str, **given: str | int) -> httpx.Response:
    return caller.send("POST", f"Patient/{patient}/$break-glass", parameters(**{"reason": REASON, **given}))


def radiologist(world: World, **context: str) -> Caller:
    """One with a session of its own."""
    return world.person("radiologist", **{"grant": unused("grant"), **context})


def test_the_record_opens_at_once_for_its_patient_and_its_session_only(world: World, vip: str) -> None:
    world.app.put(resource("Patient", f"{vip}-2", meta=label("V")))
    mine, other = radiologist(world), radiologist(world)
    assert mine.get(f"Patient/{vip}").status_code == 404
    answer = break_glass(mine, vip)
    assert answer.status_code == 200
    assert answer.json()["parameter"][0]["valueReference"] == ref(f"Patient/{vip}")
    assert mine.get(f"Patient/{vip}").status_code == 200
    assert mine.found(f"DiagnosticReport?subject=Patient/{vip}") == [f"DiagnosticReport/r-{vip}"]
    assert mine.get(f"Patient/{vip}-2").status_code == 404
    assert other.get(f"Patient/{vip}").status_code == 404


def test_other_tokens_of_the_same_session_see_it_too(world: World, vip: str) -> None:
    grant = unused("grant")
    assert break_glass(world.person("radiologist", grant=grant), vip).status_code == 200
    assert world.person("radiologist", grant=grant).get(f"Patient/{vip}").status_code == 200
    # Of another person it opens nothing, even under the same grant.
    assert world.person("technologist", grant=grant).get(f"Patient/{vip}").status_code == 404


def test_it_opens_no_more_than_role_and_scopes_allow(world: World, vip: str) -> None:
    caller = world.person("technologist", "user/Patient.rs user/DiagnosticReport.rs", grant=unused("grant"))
    assert break_glass(caller, vip).status_code == 200
    assert caller.get(f"DiagnosticReport/r-{vip}").status_code == 200
    assert caller.get("Observation").status_code == 403
    assert caller.get("AuditEvent").status_code == 403


def test_what_a_patient_denied_opens_too(world: World) -> None:
    patient = unused("denies")
    world.app.put(resource("Patient", patient))
    world.app.put(observation(f"o-{patient}", patient))
    world.app.put(consent(f"c-{patient}", patient, {"type": "deny"}))
    caller = radiologist(world)
    assert caller.get(f"Observation/o-{patient}").status_code == 404
    assert break_glass(caller, patient).status_code == 200
    assert caller.get(f"Observation/o-{patient}").status_code == 200


def test_its_beginning_is_on_record_and_the_privacy_officer_is_told(world: World, vip: str) -> None:
    before = len(world.app.audit())
    caller = radiologist(world)
    break_glass(caller, vip, minutes=15)
    (event,) = [e for e in world.app.audit(before) if e["type"]["code"] == "110113"]
    assert event["subtype"][0]["code"] == "110127"
    assert event["agent"][0]["who"]["reference"] == "Practitioner/rad"
    assert event["agent"][0]["purposeOfUse"][0]["coding"][0]["code"] == "BTG"
    assert event["entity"][0]["what"] == ref(f"Patient/{vip}")
    assert REASON in event["outcomeDesc"]
    assert "15 minutes" in event["outcomeDesc"]
    officer = world.person("privacy-officer")
    (review,) = [t for t in tasks(officer) if t["focus"] == ref(f"Patient/{vip}")]
    assert review["reasonCode"]["text"] == REASON
    assert review["requester"] == ref("Practitioner/rad")
    assert officer.get(review["input"][0]["valueReference"]["reference"]).json()["id"] == event["id"]
    assert officer.put(review | {"status": "completed"}).status_code == 200
    # It is nobody else's, not even of those who opened the record.
    for role in ("radiologist", "technologist", "scheduler", "admin"):
        assert world.person(role).get(f"Task/{review['id']}").status_code == 404
    assert caller.get(f"Task/{review['id']}").status_code == 404
    assert officer.found("Task?code:not=x") == officer.found("Task")
    assert officer.get("Task/ta").status_code == 404


def tasks(caller: Caller) -> list[Resource]:
    return [e["resource"] for e in caller.get("Task?_count=1000").json().get("entry", ())]


def test_it_ends_when_the_person_says_so_and_that_is_on_record(world: World, vip: str) -> None:
    caller = radiologist(world)
    assert caller.send("POST", f"Patient/{vip}/$mend-glass").status_code == 404
    break_glass(caller, vip)
    before = len(world.app.audit())
    assert caller.send("POST", f"Patient/{vip}/$mend-glass").status_code == 200
    assert caller.get(f"Patient/{vip}").status_code == 404
    assert [e["subtype"][0]["code"] for e in world.app.audit(before) if e["type"]["code"] == "110113"] == ["110138"]


def test_it_ends_with_its_time_and_that_is_on_record_once(world: World, vip: str) -> None:
    app, caller = world.app, radiologist(world)
    break_glass(caller, vip)
    app.run(app.db[BREAK_GLASS].update_many({"patient": vip}, {"$set": {"until": datetime.now(UTC) - timedelta(seconds=1)}}))
    app.run(_forget(app))
    assert caller.get(f"Patient/{vip}").status_code == 404
    before = len(app.audit())
    assert app.run(close_what_is_over(app.interactions)) == 1
    assert app.run(close_what_is_over(app.interactions)) == 0
    (event,) = app.audit(before)
    assert (event["type"]["code"], event["subtype"][0]["code"]) == ("110113", "110138")


async def _forget(app: FhirApp) -> None:
    """What happens within a second by itself."""
    app.tokens._cache.clear()


@pytest.mark.parametrize("given", [{"reason": ""}, {"reason": "x"}, {"reason": "aaaaaaaaaaaaaaa"}, {"reason": "x" * 501},
                                   {"minutes": 0}, {"minutes": 61}, {"minutes": "all"}, {"hours": 1}])  # fmt: skip
def test_it_needs_a_reason_in_words_and_lasts_an_hour_at_most(world: World, vip: str, given: dict[str, str | int]) -> None:
    caller = radiologist(world)
    assert break_glass(caller, vip, **given).status_code == 400
    assert caller.get(f"Patient/{vip}").status_code == 404


def test_the_reason_does_not_go_into_an_address(world: World, vip: str) -> None:
    caller = radiologist(world)
    assert caller.send("POST", f"Patient/{vip}/$break-glass?reason={REASON}").status_code == 400
    assert caller.get(f"Patient/{vip}/$break-glass").status_code == 405


def test_who_may_not_is_refused_and_that_is_on_record(world: World, vip: str) -> None:
    callers = [world.person(r) for r in ("scheduler", "referrer", "interface-admin", "admin", "auditor", "privacy-officer")]
    callers += [
        world.caller("system/*.cruds"),
        world.patient("patient/*.cruds", patient=vip),
        world.person("radiologist", "patient/*.cruds", patient="a"),
        world.person("radiologist", "user/Observation.rs"),
        world.caller("user/*.cruds", role="radiologist", user="Practitioner/rad"),
    ]
    for caller in callers:
        before = len(world.app.audit())
        for patient in (vip, "nobody"):
            assert break_glass(caller, patient).status_code == 403
        assert [e["outcome"] for e in world.app.audit(before)] == ["4", "4"]
        assert caller.send("POST", f"Patient/{vip}/$mend-glass").status_code == 403


def test_a_hidden_record_is_found_by_its_identifier(world: World, vip: str) -> None:
    caller = radiologist(world)
    asked = parameters(reason=REASON, identifier=f"urn:example:mrn|MRN-{vip}")
    answer = caller.send("POST", "Patient/$break-glass", asked)
    assert answer.json()["parameter"][0]["valueReference"] == ref(f"Patient/{vip}")
    assert caller.get(f"Patient/{vip}").status_code == 200
    for identifier in ("urn:example:mrn|none", f"MRN-{vip}", ""):
        asked = parameters(reason=REASON, identifier=identifier)
        assert caller.send("POST", "Patient/$break-glass", asked).status_code in {400, 404}


def test_a_record_that_is_not_there_opens_nothing_and_the_attempt_is_on_record(world: World) -> None:
    caller, before = radiologist(world), len(world.app.audit())
    assert break_glass(caller, "nobody").status_code == 404
    (event,) = [e for e in world.app.audit(before) if e["type"]["code"] == "110113"]
    assert event["outcome"] == "4"
    assert [t for t in tasks(world.person("privacy-officer")) if t["focus"] == ref("Patient/nobody")] == []


def test_a_login_of_long_ago_is_not_enough_and_the_refusal_says_what_is(world: World, vip: str) -> None:
    caller, before = radiologist(world, grant=(grant := unused("grant"))), len(world.app.audit())
    aged(world, grant, timedelta(minutes=6))
    answer = break_glass(caller, vip)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'max_age="300"' in challenge
    assert answer.json()["issue"][0]["code"] == "login"
    assert caller.get(f"Patient/{vip}").status_code == 404
    (event,) = [e for e in world.app.audit(before) if e["type"]["code"] == "110113"]
    assert (event["outcome"], "too long ago" in event["outcomeDesc"]) == ("4", True)
    aged(world, grant, timedelta(minutes=4))
    assert break_glass(caller, vip).status_code == 200


def test_what_is_open_stays_open_when_the_login_grows_old_and_can_be_closed(world: World, vip: str) -> None:
    caller = radiologist(world, grant=(grant := unused("grant")))
    assert break_glass(caller, vip).status_code == 200
    aged(world, grant, timedelta(minutes=20))
    assert caller.get(f"Patient/{vip}").status_code == 200
    assert caller.send("POST", f"Patient/{vip}/$mend-glass").status_code == 200


def aged(world: World, grant: str, age: timedelta) -> None:
    """As if the login that a grant stands on had been so long ago."""
    then = {"$set": {"auth_time": datetime.now(UTC) - age}}
    assert world.app.run(world.app.db["oauth_grants"].update_one({"_id": grant}, then)).matched_count == 1
    world.app.run(_forget(world.app))
