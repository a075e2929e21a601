"""Critical results: told in time to a named person who has understood, or escalated. And signing with a second factor."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from resources.reading import watch
from tests.department import Department
from tests.fhir_app import Resource, issues, load, serving
from tests.reading_world import RADLEX, Person, ReadingRoom, parameters, reference, section

CATEGORY_1, CATEGORY_2 = "RID49480", "RID49481"
CRITICAL = "urn:fhir-ris:communication|critical-result"
OPEN = f"CommunicationRequest?category={CRITICAL}&status=active&_sort=occurrence"


@pytest.fixture(scope="module")
def room(mongodb_uri: str) -> Iterator[ReadingRoom]:
    with serving(mongodb_uri, second_factor_minutes=30) as app:
        room = ReadingRoom(app)
        room.attending = strong(room, "Ada")
        yield room


def strong(room: ReadingRoom, given: str, *, minutes_ago: int = 0, amr: tuple[str, ...] = ("pwd", "otp", "mfa")) -> Person:
    """A radiologist who has logged in so long ago, by these proofs."""
    person = room.person("radiologist", given, "Attending", "405279007")
    token = room.app.run(room.app.tokens.find(person.bearer))
    assert token is not None
    assert token.grant is not None
    login = {"amr": list(amr), "auth_time": datetime.now(UTC) - timedelta(minutes=minutes_ago)}

    async def log_in() -> None:
        assert (await room.app.db["oauth_grants"].update_one({"_id": token.grant.grant_id}, {"$set": login})).modified_count

    room.app.run(log_in())
    room.app.tokens.forget(token.token_id)
    return person


def critical(room: ReadingRoom, report: Resource, category: str = CATEGORY_1, **more: str) -> Resource:
    body = parameters({"name": "category", "valueCode": category}, finding="Tension pneumothorax, left.", **more)
    return room.attending.done(f"DiagnosticReport/{report['id']}/$critical", body)


def acknowledged(by: str, **more: object) -> Resource:
    return parameters(reference("by", by), read_back=True, **more)


def work_items(room: ReadingRoom, report: Resource) -> dict[str, str]:
    """Kind -> status of the work items about a report."""
    found = room.matches(f"Task?focus=DiagnosticReport/{report['id']}")
    return {t["code"]["coding"][0]["code"]: t["status"] for t in found}


def look(room: ReadingRoom, minutes: int) -> None:
    room.app.run(watch.look(room.app.interactions, datetime.now(UTC) + timedelta(minutes=minutes)))


def test_a_critical_result_is_open_until_a_named_person_has_read_it_back(room):
    report = room.draft(room.study())
    request = critical(room, report)
    left = datetime.fromisoformat(request["occurrenceDateTime"]) - datetime.fromisoformat(request["authoredOn"])
    assert left == timedelta(hours=1)
    assert request["recipient"] == [{"reference": room.referrer.who}]
    assert request["about"] == [{"reference": f"DiagnosticReport/{report['id']}"}]
    assert work_items(room, report) == {"critical-result": "requested"}
    assert request["id"] in [r["id"] for r in room.matches(OPEN)]
    shown = room.read(report)["extension"][-1]
    assert shown["valueReference"] == {"reference": f"CommunicationRequest/{request['id']}"}
    path = f"CommunicationRequest/{request['id']}"
    assert room.attending.call(f"DiagnosticReport/{report['id']}/$critical", parameters(
        {"name": "category", "valueCode": CATEGORY_1}, finding="Again")).status_code == 409  # fmt: skip
    for body in (parameters(read_back=True), parameters(reference("by", room.referrer.who)), parameters()):
        assert room.attending.call(f"{path}/$acknowledge", body).status_code == 400
    assert room.attending.call(f"{path}/$acknowledge", acknowledged(room.attending.who)).status_code == 422
    long_ago = {"name": "at", "valueInstant": "2020-01-01T00:00:00Z"}
    early = parameters(long_ago, reference("by", room.referrer.who), read_back=True)
    assert room.attending.call(f"{path}/$acknowledge", early).status_code == 422
    told = room.attending.done(f"{path}/$acknowledge", acknowledged(room.referrer.who, medium="PHONE"))
    assert told["resourceType"] == "Communication"
    assert (told["status"], told["partOf"], told["basedOn"]) == ("completed", request["about"], [{"reference": path}])
    assert (told["sender"]["reference"], told["recipient"][0]["reference"]) == (room.attending.who, room.referrer.who)
    assert "told to Rolf Referrer (telephone), who has read it back" in told["text"]["div"]
    assert room.read(path)["status"] == "completed"
    assert work_items(room, report) == {"critical-result": "completed"}
    assert request["id"] not in [r["id"] for r in room.matches(OPEN)]
    assert room.attending.call(f"{path}/$acknowledge", acknowledged(room.referrer.who)).status_code == 409
    signed = room.attending.done(f"DiagnosticReport/{report['id']}/$sign")
    assert "acknowledged by Rolf Referrer" in signed["text"]["div"]


def test_a_referrer_acknowledges_for_itself_and_for_own_patients_only(room):
    request = critical(room, room.draft(room.study()))
    path = f"CommunicationRequest/{request['id']}/$acknowledge"
    stranger = room.person("referrer", "Sven", "Stranger")
    assert stranger.call(path).status_code == 404
    assert room.referrer.call(path, acknowledged(room.attending.who)).status_code == 400
    told = room.referrer.done(path)
    assert told["recipient"] == [{"reference": room.referrer.who}]
    assert room.world.person("technologist").send("POST", path).status_code == 403
    # What is to be told to somebody else is somebody else's to acknowledge, though the patient is its own.
    report = room.draft(room.study())
    said = parameters({"name": "category", "valueCode": CATEGORY_1}, reference("recipient", stranger.who), finding="Pneumothorax")
    other = room.attending.done(f"DiagnosticReport/{report['id']}/$critical", said)
    path, until = f"CommunicationRequest/{other['id']}/$acknowledge", time.monotonic() + 10
    while (answer := room.referrer.call(path)).status_code == 404 and time.monotonic() < until:
        time.sleep(0.1)  # whose patient it is, is looked up every second
    assert answer.status_code == 403


def test_what_nobody_acknowledges_in_time_is_escalated_once(room):
    report = room.draft(room.study())
    hour_ago = (datetime.now(UTC) - timedelta(minutes=50)).isoformat()
    request = critical(room, report, found=hour_ago)
    look(room, 9)
    assert work_items(room, report) == {"critical-result": "requested"}
    look(room, 11)
    look(room, 12)
    assert work_items(room, report) == {"critical-result": "requested", "critical-result-overdue": "requested"}
    assert len(room.matches(f"Task?focus=DiagnosticReport/{report['id']}")) == 2
    late = room.matches("CommunicationRequest?category=urn:fhir-ris:communication|overdue&status=active")
    assert [r["id"] for r in late] == [request["id"]]
    room.attending.done(f"CommunicationRequest/{request['id']}/$acknowledge", acknowledged(room.referrer.who))
    assert work_items(room, report) == {"critical-result": "completed", "critical-result-overdue": "completed"}


def test_a_request_that_cant_be_told_is_refused_and_an_odd_one_keeps_no_other_from_being_escalated(room):
    report = room.draft(room.study())
    hour_ago = (datetime.now(UTC) - timedelta(minutes=70)).isoformat()
    request = critical(room, report, found=hour_ago)
    posted = {k: v for k, v in request.items() if k not in {"id", "meta", "identifier"}}
    other = {"reference": f"Patient/{room.patient()['id']}"}
    for element, wrong in (
        ("about", None),
        ("about", [request["subject"]]),
        ("about", [*request["about"], *request["about"]]),
        ("subject", None),
        ("subject", other),
        ("occurrenceDateTime", None),
        ("occurrenceDateTime", "2026-09-08"),
    ):
        body = {k: v for k, v in (posted | {element: wrong}).items() if v is not None}
        assert issues(room.attending.post(body)) == [("business-rule", f"CommunicationRequest.{element}")], (element, wrong)
    moved = room.attending.put(request | {"about": [{"reference": f"DiagnosticReport/{room.draft(room.study())['id']}"}]})
    assert issues(moved) == [("business-rule", "CommunicationRequest.about")]

    async def keep_an_odd_one() -> None:
        """As one that was stored before these rules."""
        kept = room.app.db["CommunicationRequest"]
        stored = await kept.find_one({"_id": request["id"]})
        assert stored is not None
        odd = {k: v for k, v in stored["resource"].items() if k != "about"} | {"id": "a-odd"}
        await kept.insert_one(stored | {"_id": "a-odd", "resource": odd})

    room.app.run(keep_an_odd_one())
    try:
        look(room, 0)
    finally:
        room.app.run(room.app.db["CommunicationRequest"].delete_one({"_id": "a-odd"}))
    assert work_items(room, report) == {"critical-result": "requested", "critical-result-overdue": "requested"}


def test_a_request_that_was_written_by_hand_has_a_work_item_shows_on_the_report_and_goes_with_it(room):
    report = room.attending.done(f"DiagnosticReport/{room.draft(room.study())['id']}/$sign")
    category = [{"coding": [{"system": "urn:fhir-ris:communication", "code": "critical-result"}]}]
    posted = room.resident.post({
        "resourceType": "CommunicationRequest", "status": "active", "subject": report["subject"],
        "category": [*category, {"coding": [{"system": RADLEX, "code": CATEGORY_1}]}],
        "about": [{"reference": f"DiagnosticReport/{report['id']}"}], "occurrenceDateTime": "2090-01-01T08:00:00Z",
    })  # fmt: skip
    assert posted.status_code == 201, posted.text
    one, other = load(posted), critical(room, report, CATEGORY_2)
    again = {"name": "category", "valueCode": CATEGORY_1}
    path = f"DiagnosticReport/{report['id']}/$critical"
    assert room.attending.call(path, parameters(again, finding="Again")).status_code == 409
    shown = [e["valueReference"]["reference"] for e in room.read(report)["extension"]]
    assert shown == [f"CommunicationRequest/{r['id']}" for r in (one, other)]
    assert work_items(room, report) == {"critical-result": "requested"}
    assert room.attending.put(room.read(one) | {"status": "on-hold"}).status_code == 200
    room.attending.done(f"CommunicationRequest/{other['id']}/$acknowledge", acknowledged(room.referrer.who))
    assert work_items(room, report) == {"critical-result": "requested"}
    room.attending.done(f"DiagnosticReport/{report['id']}/$withdraw", parameters(reason="Of another patient"))
    assert (room.read(one)["status"], room.read(other)["status"]) == ("entered-in-error", "completed")
    assert work_items(room, report) == {"critical-result": "completed"}


def test_the_departments_own_limit_counts(room):
    room.app.create({
        "resourceType": "ActivityDefinition", "status": "active", "kind": "CommunicationRequest",
        "identifier": [{"system": "urn:fhir-ris:critical-limit", "value": CATEGORY_2}],
        "timingDuration": {"value": 6, "code": "h", "system": "http://unitsofmeasure.org"},
    })  # fmt: skip
    request = critical(room, room.draft(room.study()), CATEGORY_2)
    left = datetime.fromisoformat(request["occurrenceDateTime"]) - datetime.fromisoformat(request["authoredOn"])
    assert left == timedelta(hours=6)


def test_a_report_that_says_it_is_critical_leads_to_the_obligation_by_any_door(room):
    grade = {"coding": [{"system": RADLEX, "code": CATEGORY_1}]}
    report = room.draft(
        room.study(), None, section("19005-8", "Dissection."), {"name": "conclusion-code", "valueCodeableConcept": grade}
    )
    about = f"CommunicationRequest?identifier=urn:fhir-ris:critical-result|{report['id']} {CATEGORY_1}"
    assert room.matches(about) == []
    signed = room.attending.done(f"DiagnosticReport/{report['id']}/$sign")
    (request,) = room.matches(about)
    assert request["payload"] == [{"contentString": "Dissection."}]
    assert "to be told until" in signed["text"]["div"]
    (one,) = room.attending.get(f"DiagnosticReport/{report['id']}/$verify").json()["parameter"]
    assert one["part"][3]["valueBoolean"] is True
    room.attending.done(f"DiagnosticReport/{report['id']}/$addend", parameters(text="The surgeon is on the way."))
    assert len(room.matches(about)) == 1
    room.attending.done(f"CommunicationRequest/{request['id']}/$acknowledge", acknowledged(room.referrer.who))
    said = parameters(section("18783-1", "Surgery."), reason="It was missing")
    room.attending.done(f"DiagnosticReport/{report['id']}/$correct", said)
    assert len(room.matches(about)) == 1
    other = parameters(section("19005-8", "Tension pneumothorax."), reason="It is another finding")
    room.attending.done(f"DiagnosticReport/{report['id']}/$correct", other)
    (anew,) = room.matches(f"{about}&status=active")
    assert anew["payload"] == [{"contentString": "Tension pneumothorax."}]
    room.attending.done(f"DiagnosticReport/{report['id']}/$withdraw", parameters(reason="Of another patient"))
    assert (room.read(request)["status"], room.read(anew)["status"]) == ("completed", "entered-in-error")
    assert work_items(room, report) == {"critical-result": "completed"}


def test_an_acknowledgement_by_another_door_keeps_the_same_rules(room):
    report = room.draft(room.study())
    request = critical(room, report)
    told = {
        "resourceType": "Communication", "status": "completed", "subject": request["subject"], "partOf": request["about"],
        "basedOn": [{"reference": f"CommunicationRequest/{request['id']}"}], "sent": request["authoredOn"],
        "received": request["authoredOn"], "recipient": [{"reference": room.referrer.who}],
    }  # fmt: skip
    technologist, before, later = room.person("technologist", "Tom", "Tech"), "2020-01-01T08:00:00Z", "2090-01-01T08:00:00Z"
    assert technologist.post(told).status_code == 403
    for wrong in (
        {"sent": before}, {"received": before}, {"received": later}, {"sent": request["authoredOn"][:10]},
        {"recipient": [{"reference": room.attending.who}]}, {"sender": {"reference": room.referrer.who}},
    ):  # fmt: skip
        assert room.app.send("POST", "Communication", told | wrong).status_code == 422, wrong
    for element in ("recipient", "sent", "received", "partOf", "subject"):
        lacking = {k: v for k, v in told.items() if k != element}
        assert room.app.send("POST", "Communication", lacking).status_code == 422, element
    done = room.app.put(request | {"status": "completed"})
    assert issues(done) == [("business-rule", "CommunicationRequest.status")]
    attempt = told | {"status": "not-done", "statusReason": {"text": "voicemail"}}
    room.app.create({k: v for k, v in attempt.items() if k != "received"})
    assert room.read(request)["status"] == "active"
    room.app.create(told)
    assert room.read(request)["status"] == "completed"


def test_a_critical_result_of_an_outside_reader_by_hl7_v2_is_one_obligation_and_one_work_item(mongodb_uri):
    with asyncio.Runner() as runner:
        ris = Department(runner, mongodb_uri)

        async def scenario() -> None:
            msh = "MSH|^~\\&|READER|TELERAD|FHIR_RIS|RAD|20260907101500||{}|{{id}}|P|2.5.1||||||UNICODE UTF-8"
            pid = "PID|1||P1^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F"
            obr = "OBR|1|L1^EHR||24627-2^CT Chest^LN||||||||||||||||||||CT"
            await ris.accepted(msh.format("ORM^O01"), pid, "ORC|NW|L1^EHR", obr)
            message = (
                msh.format("ORU^R01^ORU_R01"),
                pid,
                "ORC|RE|L1^EHR",
                "OBR|1|||24627-2^CT Chest^LN||||||||||||||||||20260907101000||RAD|F",
                "OBX|1|TX|19005-8^Impression^LN||Dissection.||||||F||||RID49480^Cat 1^RADLEX",
            )
            await ris.accepted(*message)
            (report,) = await ris.search("DiagnosticReport")
            (request,) = await ris.search("CommunicationRequest")
            assert request["about"] == [{"reference": f"DiagnosticReport/{report['id']}"}]
            assert len(await ris.work_items("critical-result")) == 1
            await ris.accepted(*message[:-1], message[-1].replace("Dissection.", "Dissection, type A."))
            assert len(await ris.search("CommunicationRequest")) == 1

        ris.run(scenario())
        ris.run(ris.close())


# A second factor, where the department asks for one


def test_where_a_second_factor_is_asked_for_nobody_signs_without(room):
    report = room.draft(room.study())
    path = f"DiagnosticReport/{report['id']}"
    for who in (strong(room, "Pia", amr=("pwd",)), strong(room, "Lea", minutes_ago=31)):
        answer = who.call(f"{path}/$sign")
        assert answer.status_code == 401
        assert 'error="insufficient_user_authentication"' in answer.headers["WWW-Authenticate"]
        assert 'max_age="1800"' in answer.headers["WWW-Authenticate"]
    past = room.attending.put(report | {"status": "final"})
    assert issues(past) == [("business-rule", "DiagnosticReport.status")]
    assert room.read(path)["status"] == "registered"
    signed = strong(room, "Eva", minutes_ago=29).done(f"{path}/$sign")
    silent = room.attending.put(signed | {"status": "corrected", "conclusion": "Else."})
    assert issues(silent) == [("business-rule", "DiagnosticReport.status")]


def test_nobody_puts_a_critical_result_off(room):
    request = critical(room, room.draft(room.study()))
    scheduler = room.person("scheduler", "Sam", "Scheduler")
    for changes in (
        {"occurrenceDateTime": "2098-01-01T00:00:00Z"},
        {"payload": [{"contentString": "nothing"}]},
        {"recipient": []},
        {"priority": "routine"},
    ):
        changed = {k: v for k, v in (request | changes).items() if v != []}
        for person in (scheduler, *([room.attending] if "occurrenceDateTime" in changes else [])):
            answer = person.put(changed)
            assert answer.status_code == 422, answer.text
            assert "can't be changed" in answer.text
    assert room.read(request) == request
    assert room.attending.put(request | {"payload": [{"contentString": "Tension pneumothorax, right."}]}).status_code == 200
