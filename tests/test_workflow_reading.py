"""The reading room: worklist, claims, priors, and reports with their signatures, as people do them over FHIR."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bridges.v2.message import parse
from fhir_server import fhir_json
from fhir_server.search.index import index
from resources.reading import watch
from smart_auth.access import Access
from tests.fhir_app import Resource, load, serving, unused
from tests.reading_world import CT_CHEST, DCM, LOINC, ReadingRoom, parameters, reference, section

FINDINGS, IMPRESSION, RECOMMENDATION, ADDENDUM, COMPARISON = "59776-5", "19005-8", "18783-1", "55107-7", "18834-2"
STATUS = "urn:fhir-ris:reading-status"
OPEN = f"business-status={STATUS}|unread,{STATUS}|claimed,{STATUS}|preliminary"


@pytest.fixture(scope="module")
def room(mongodb_uri: str) -> Iterator[ReadingRoom]:
    with serving(mongodb_uri) as app:
        yield ReadingRoom(app)


def text_of(report: Resource) -> str:
    return form(report, "text/plain").decode()


def form(report: Resource, kind: str) -> bytes:
    (data,) = [f["data"] for f in report["presentedForm"] if f["contentType"].startswith(kind)]
    return base64.b64decode(data)


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    said = load(answer)["issue"][0]["diagnostics"]
    assert all(word in said for word in words), said


def states(reading: Resource) -> list[str]:
    return [c["code"] for c in reading.get("businessStatus", {}).get("coding", ())]


def target(room: ReadingRoom, minutes: int, priority: str = "", modality: str = "") -> None:
    """A rule: how long readings of this priority and modality may take."""
    rule: Resource = {
        "resourceType": "ActivityDefinition",
        "status": "active",
        "kind": "Task",
        "identifier": [{"system": "urn:fhir-ris:reading-target", "value": unused("rule")}],
        "timingDuration": {"value": minutes, "code": "min", "system": "http://unitsofmeasure.org"},
    }
    rule |= {"priority": priority} if priority else {}
    rule |= {"topic": [{"coding": [{"system": DCM, "code": modality}]}]} if modality else {}
    room.app.create(rule)


@pytest.fixture(scope="module")
def targets(room: ReadingRoom) -> None:
    target(room, 2880)
    target(room, 60, "stat")
    target(room, 30, "stat", "CT")
    target(room, 1440, "", "CT")


def allowed(reading: Resource) -> timedelta:
    return datetime.fromisoformat(reading["restriction"]["period"]["end"]) - datetime.fromisoformat(reading["authoredOn"])


# The worklist


def test_the_target_is_that_of_the_rule_that_says_most(room, targets):
    mr = {"orderDetail": [{"coding": [{"system": DCM, "code": "MR"}]}]}
    cases = [({}, 1440), ({"priority": "stat"}, 30), (mr, 2880), (mr | {"priority": "stat"}, 60), ({"priority": "asap"}, 1440)]
    for order, minutes in cases:
        assert allowed(room.study(**order)) == timedelta(minutes=minutes), order
    refused(room.app.send("POST", "ActivityDefinition", {
        "resourceType": "ActivityDefinition", "status": "active",
        "identifier": [{"system": "urn:fhir-ris:reading-target", "value": "nonsense"}],
    }), 422, "timingDuration")  # fmt: skip


def test_a_reading_that_becomes_urgent_has_less_time(room, targets):
    reading = room.study()
    room.app.put(room.order_of(reading) | {"priority": "stat"})
    now = room.read(reading)
    assert (now["priority"], allowed(now)) == ("stat", timedelta(minutes=30))


def test_the_worklist_knows_subspecialty_and_place(room, targets):
    place = room.app.create({"resourceType": "Location", "name": "South wing"})
    code = {"system": LOINC, "code": unused("L")}
    chest = {"coding": [{"system": "urn:example:subspecialty", "code": unused("chest")}]}
    room.app.create({
        "resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest",
        "identifier": [{"system": code["system"], "value": code["code"]}], "code": {"coding": [code]},
        "extension": [{"url": "urn:fhir-ris:reading-subspecialty", "valueCodeableConcept": chest}],
    })  # fmt: skip
    device = room.app.create({
        "resourceType": "Device", "status": "active", "location": {"reference": f"Location/{place['id']}"},
        "identifier": [{"system": "urn:fhir-ris:ae-title", "value": unused("AE")}],
        "type": {"coding": [{"system": DCM, "code": "CT"}]},
    })  # fmt: skip
    order = room.app.create({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"coding": [code]},
        "subject": {"reference": f"Patient/{room.patient()['id']}"}, "orderDetail": [{"coding": [{"system": DCM, "code": "CT"}]}],
    })  # fmt: skip
    (procedure,) = room.matches(f"ServiceRequest?based-on=ServiceRequest/{order['id']}&intent=filler-order")
    (step,) = room.matches(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan")
    period = {"start": "2026-09-08T08:00:00Z", "end": "2026-09-08T08:30:00Z"}
    scheduled = step | {"status": "accepted", "owner": {"reference": f"Device/{device['id']}"}, "restriction": {"period": period}}
    assert room.app.put(scheduled).status_code == 200
    reading = room.examined(order)
    assert reading["location"] == {"reference": f"Location/{place['id']}"}
    coding = chest["coding"][0]
    for query in (
        f"{OPEN}&performer={coding['system']}|{coding['code']}",
        f"{OPEN}&location=Location/{place['id']}",
        f"{OPEN}&location=Location/{place['id']}&performer={coding['code']}&priority=routine&due=gt2026-01-01",
    ):
        assert [r["id"] for r in room.matches(f"Task?{query}")] == [reading["id"]], query


@pytest.fixture(scope="module")
def full(room: ReadingRoom, targets: None) -> int:
    """A worklist of some open readings among very many that are done; how many are open."""
    for _ in range(3):
        room.study()
    done = room.study() | {"status": "completed"}
    del done["businessStatus"]

    async def fill() -> None:
        documents = []
        for n in range(4000):
            start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n)
            one = done | {
                "id": f"done-{n}",
                "authoredOn": start.isoformat(),
                "restriction": {"period": {"end": start.isoformat()}},
            }
            found = {"_id": one["id"], "version": 1, "method": "POST", "updated": start, "resource": fhir_json.to_bson(one)}
            documents.append(found | {"search": index(one)})
        await room.app.db["Task"].insert_many(documents)

    room.app.run(fill())
    return len(room.matches(f"Task?{OPEN}&_count=1000"))


@pytest.mark.parametrize(
    "query",
    [
        f"{OPEN}&_sort=-priority",
        f"{OPEN}&_sort=-priority,due",
        f"{OPEN}&_sort=due",
        f"{OPEN}&_sort=authored-on",
        f"{OPEN}&due=lt2030-01-01&_sort=due",
        f"business-status={STATUS}|unread&priority=stat&_sort=due",
        f"business-status={STATUS}|overdue&_sort=due",
        f"{OPEN}&performer=chest&_sort=-priority,due",
        f"{OPEN}&location=Location/south&_sort=-priority,due",
    ],
)
def test_one_index_serves_each_list_of_the_worklist(room, full, query):
    asked = [tuple(part.split("=", 1)) for part in query.split("&")]
    how = room.app.run(room.app.interactions.search(Access.system("test"), "Task", [*asked, ("_explain", "true")])).explanation
    assert len({one["name"] for one in how["indexes"]}) == 1
    assert "COLLSCAN" not in how["stages"]
    assert how["documents"] <= 2 * full + 20, how


# Who reads


def test_of_many_who_claim_at_once_one_gets_it(room):
    reading = room.study()
    people = [room.attending, room.other] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda p: p.call(f"Task/{reading['id']}/$claim"), people))
    owner = room.read(reading)["owner"]["reference"]
    for person, answer in zip(people, answers, strict=True):
        assert answer.status_code == (200 if person.who == owner else 409), answer.text
    assert states(room.read(reading)) == ["claimed"]
    assert owner in {room.attending.who, room.other.who}


def test_a_claimed_reading_is_taken_from_its_owner_by_nobody_in_passing(room):
    reading = room.attending.done(f"Task/{room.study()['id']}/$claim")
    path = f"Task/{reading['id']}"
    refused(room.other.call(f"{path}/$claim"), 409, "claimed")
    refused(room.other.call(f"{path}/$release"), 409, "claimed")
    refused(room.other.put(reading | {"owner": {"reference": room.other.who}}), 409, "$reassign")
    refused(room.other.put({k: v for k, v in reading.items() if k != "owner"}), 409, "$reassign")
    refused(room.app.put(reading | {"owner": {"reference": room.other.who}}), 409, "$reassign")
    assert room.read(reading) == reading
    refused(room.attending.call(f"{path}/$reassign", parameters(reference("owner", room.other.who))), 400, "reason")
    given = room.attending.done(f"{path}/$reassign", parameters(reference("owner", room.other.who), reason="End of my shift"))
    assert given["owner"] == {"reference": room.other.who}
    assert given["note"][0]["text"] == "Reassigned: End of my shift"
    free = room.other.done(f"{path}/$release")
    assert "owner" not in free
    assert (free["status"], states(free)) == ("requested", ["unread"])
    stale = room.other.put(free | {"owner": {"reference": room.other.who}}, If_Match='W/"1"')
    assert stale.status_code == 412
    assert room.resident.done(f"{path}/$claim")["owner"]["reference"] == room.resident.who


def test_who_is_no_reader_claims_nothing(room):
    reading = room.study()
    for role in ("technologist", "scheduler", "referrer"):
        assert room.world.person(role).send("POST", f"Task/{reading['id']}/$claim").status_code == 403, role
    (order,) = [room.order_of(reading)]
    (procedure,) = room.matches(f"ServiceRequest?based-on=ServiceRequest/{order['id']}&intent=filler-order")
    (step,) = room.matches(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan")
    refused(room.attending.call(f"Task/{step['id']}/$claim"), 422, "not the reading")
    room.signed(reading)
    refused(room.attending.call(f"Task/{reading['id']}/$claim"), 409, "completed")


def test_a_reading_is_arranged_by_readers_alone_and_stays_one(room):
    reading = room.study()
    for role in ("technologist", "scheduler"):
        person = room.person(role, "Tim", "Other")
        for element in ({"owner": {"reference": person.who}}, {"priority": "stat"}, {"restriction": {"repetitions": 1}}):
            refused(person.put(reading | element), 403, "radiologist")
        refused(person.put(reading | {"code": {"text": "Something else"}}), 422, "code")
    for element in ({"priority": "urgent"}, {"owner": {"reference": room.other.who}}):
        assert room.attending.put(room.read(reading) | element).status_code == 200, element
    assert states(room.read(reading)) == ["claimed"]


def test_a_reading_ends_with_its_signed_report_and_not_before(room):
    held, received, free = room.study(), room.study(), room.study()
    for who in (room.attending, room.app):
        refused(who.put(free | {"status": "completed"}), 422, "signed report")
    draft = room.draft(held)
    assert room.attending.put(room.read(held) | {"status": "on-hold"}).status_code == 200
    room.attending.done(f"DiagnosticReport/{draft['id']}/$sign")
    assert (room.read(held)["status"], room.order_of(held)["status"]) == ("completed", "completed")
    assert room.attending.put(received | {"status": "received"}).status_code == 200
    outside = {"resourceType": "DiagnosticReport", "status": "final", "code": CT_CHEST, "subject": received["for"],
               "basedOn": received["basedOn"], "conclusion": "Normal."}  # fmt: skip
    room.app.create(outside)
    assert (room.read(received)["status"], room.order_of(received)["status"]) == ("completed", "completed")


def test_an_overdue_reading_is_escalated_once(room, targets):
    reading = room.study(priority="stat")
    about = f"Task?focus=Task/{reading['id']}"
    soon, late = (datetime.now(UTC) + timedelta(minutes=m) for m in (29, 31))

    def look(now: datetime) -> None:
        room.app.run(watch.look(room.app.interactions, now))

    look(soon)
    assert room.matches(about) == []
    room.app.put(room.read(reading) | {"restriction": {"period": {"end": "2026-01-01T08:00:00Z"}}})
    look(late)
    look(late)
    assert states(room.read(reading)) == ["unread", "overdue"]
    (item,) = room.matches(about)
    assert item["code"]["coding"][0]["code"] == "reading-overdue"
    assert reading["id"] in [t["id"] for t in room.matches(f"Task?business-status={STATUS}|overdue")]
    assert room.app.put(item | {"status": "completed"}).status_code == 200
    look(late)
    assert [t["status"] for t in room.matches(about)] == ["completed"]
    claimed = room.attending.done(f"Task/{reading['id']}/$claim")
    assert states(claimed) == ["claimed", "overdue"]
    room.signed(reading)
    assert states(room.read(reading)) == []


# Priors


def prior(room: ReadingRoom, patient: Resource, started: str, code: Resource, modality: str, region: str) -> tuple[str, str]:
    """An examination of before, with its report: (study, report)."""
    study = room.app.create({
        "resourceType": "ImagingStudy", "status": "available", "subject": {"reference": f"Patient/{patient['id']}"},
        "started": started, "procedureCode": [code], "modality": [{"system": DCM, "code": modality}],
        "series": [{
            "uid": f"2.25.{unused('')}", "modality": {"system": DCM, "code": modality},
            "bodySite": {"system": "http://snomed.info/sct", "code": region},
        }],
    })  # fmt: skip
    report = room.app.create({
        "resourceType": "DiagnosticReport", "status": "final", "code": code, "subject": study["subject"],
        "imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}], "conclusion": "As it was.",
        "effectiveDateTime": started,
    })  # fmt: skip
    return f"ImagingStudy/{study['id']}", f"DiagnosticReport/{report['id']}"


def test_priors_come_nearest_first_with_their_reports_also_those_of_a_merged_record(room):
    patient, merged, stranger = room.patient(), room.patient(), room.patient()
    chest, knee = "51185008", "72696002"
    other = {"coding": [{"system": LOINC, "code": "other"}]}
    far = prior(room, patient, "2025-06-01T08:00:00Z", other, "MR", knee)
    old = prior(room, merged, "2020-01-01T08:00:00Z", CT_CHEST, "CT", chest)
    region = prior(room, patient, "2024-01-01T08:00:00Z", other, "DX", chest)
    same = prior(room, patient, "2021-01-01T08:00:00Z", CT_CHEST, "CT", chest)
    modality = prior(room, patient, "2025-01-01T08:00:00Z", other, "CT", knee)
    prior(room, stranger, "2025-01-01T08:00:00Z", CT_CHEST, "CT", chest)
    assert room.app.send("POST", f"Patient/{patient['id']}/$merge?prior={merged['id']}").status_code == 200
    reading = room.study(patient, bodySite=[{"coding": [{"system": "http://snomed.info/sct", "code": chest}]}])
    for path in (f"Task/{reading['id']}", reading["basedOn"][0]["reference"], reading["focus"]["reference"]):
        bundle = room.attending.get(f"{path}/$priors").json()
        names = [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in bundle["entry"]]
        assert names == [*same, *old, *region, *modality, *far], path
        assert [e["search"].get("score") for e in bundle["entry"]][0::2] == [1, 1, 0.29, 0.14, 0]
    few = room.attending.get(f"Task/{reading['id']}/$priors?_count=1").json()
    assert [e["search"]["mode"] for e in few["entry"]] == ["match", "include"]
    assert room.referrer.get(f"Task/{reading['id']}/$priors").status_code == 403


def test_priors_that_a_reader_may_not_see_are_not_listed(room):
    patient = room.patient()
    study, _ = prior(room, patient, "2024-01-01T08:00:00Z", CT_CHEST, "CT", "51185008")
    reading = room.study(patient)
    secret = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}
    assert room.app.put(room.read(study) | {"meta": secret}).status_code == 200
    assert room.attending.get(f"Task/{reading['id']}/$priors").json()["total"] == 0
    assert load(room.app.get(f"Task/{reading['id']}/$priors"))["total"] == 1


# Reports


def test_a_resident_writes_and_an_attending_finalises(room):
    reading = room.study()
    report = room.draft(reading, room.resident)
    path = f"DiagnosticReport/{report['id']}"
    assert room.read(reading)["owner"]["reference"] == room.resident.who
    preliminary = room.resident.done(f"{path}/$sign")
    assert preliminary["status"] == "preliminary"
    assert "Preliminary report" in form(preliminary, "text/html").decode()
    assert (room.read(reading)["status"], states(room.read(reading))) == ("in-progress", ["preliminary"])
    refused(room.resident.put(preliminary | {"status": "final"}), 403, "attending")
    refused(room.app.put(preliminary | {"status": "final"}), 422, "attending")
    final = room.attending.done(f"{path}/$sign")
    assert final["status"] == "final"
    assert [r["reference"] for r in final["resultsInterpreter"]] == [room.attending.who, room.resident.who]
    assert "Read by</th><td>Ada Attending; Rita Resident" in form(final, "text/html").decode()
    assert room.read(reading)["status"] == "completed"
    assert {room.read(r["reference"])["status"] for r in final["result"]} == {"final"}
    refused(room.resident.call(f"{path}/$addend", parameters(text="One more thing")), 403, "attending")
    refused(room.resident.call(f"{path}/$withdraw", parameters(reason="Not mine")), 403, "attending")
    refused(room.resident.put(room.read(path) | {"status": "entered-in-error"}), 403, "attending")
    assert room.read(path)["status"] == "final"
    signatures = room.attending.get(f"{path}/$verify").json()["parameter"]
    who = [p["part"][1]["valueReference"]["reference"] for p in signatures]
    assert who == [room.resident.who, room.attending.who]
    assert all(p["part"][3]["valueBoolean"] for p in signatures)


def test_a_report_is_addended_corrected_and_withdrawn_and_each_of_its_versions_stays_readable(room):
    reading = room.study()
    signed = room.signed(reading, section(FINDINGS, "Nodule in the left lobe, 8 mm."), section(IMPRESSION, "Nodule."))
    path = f"DiagnosticReport/{signed['id']}"
    assert signed["conclusion"] == "Nodule."
    refused(room.attending.call(f"{path}/$write", parameters(section(FINDINGS, "x"))), 409, "$correct")
    refused(room.attending.call(f"{path}/$sign"), 409, "final")
    addended = room.other.done(f"{path}/$addend", parameters(text="Seen in 2024 already."))
    assert addended["status"] == "appended"
    assert text_of(addended).startswith(text_of(signed))
    assert text_of(addended).endswith("Seen in 2024 already.")
    refused(room.attending.call(f"{path}/$correct", parameters(section(FINDINGS, "x"))), 400, "reason")
    right = parameters(section(FINDINGS, "Nodule in the right lobe, 8 mm."), reason="Wrong side")
    corrected = room.attending.done(f"{path}/$correct", right)
    assert corrected["status"] == "corrected"
    assert "right lobe" in text_of(corrected)
    assert "left lobe" not in text_of(corrected)
    new = room.attending.done(
        f"{path}/$correct", parameters(section(RECOMMENDATION, "CT in 3 months."), reason="New", status="amended")
    )
    assert new["status"] == "amended"
    refused(room.attending.call(f"{path}/$withdraw"), 400, "reason")
    gone = room.attending.done(f"{path}/$withdraw", parameters(reason="Of another patient"))
    assert gone["status"] == "entered-in-error"
    assert {room.read(r["reference"])["status"] for r in gone["result"]} == {"entered-in-error"}
    refused(room.attending.call(f"{path}/$withdraw", parameters(reason="Again")), 409, "entered-in-error")
    versions = [e["resource"] for e in room.app.search(f"{path}/_history")["entry"]]
    said = [(v["status"], "left" if "left lobe" in text_of(v) else "right") for v in versions if v["status"] != "registered"]
    assert said[::-1] == [
        ("final", "left"), ("appended", "left"), ("corrected", "right"), ("amended", "right"), ("entered-in-error", "right"),
    ]  # fmt: skip
    signatures = room.attending.get(f"{path}/$verify").json()["parameter"]
    assert [p["part"][3]["valueBoolean"] for p in signatures] == [True] * 5
    reasons = [p["reason"][0]["text"] for p in room.matches(f"Provenance?target={path}&_sort=recorded") if "reason" in p]
    assert reasons == ["Wrong side", "New", "Of another patient"]


def test_nobody_signs_what_another_has_changed_meanwhile_or_writes_in_anothers_draft(room):
    draft = room.draft(room.study(), room.resident)
    path = f"DiagnosticReport/{draft['id']}"
    mine = parameters(section(IMPRESSION, "Mine."))
    refused(room.other.call(f"{path}/$write", mine), 409, "claimed")
    refused(room.other.put(draft | {"conclusion": "Mine."}), 409, "claimed")
    room.resident.done(f"{path}/$write", parameters(section(IMPRESSION, "Fracture.")))
    old, now = (f'W/"{r["meta"]["versionId"]}"' for r in (draft, room.read(draft)))
    assert room.attending.send("POST", f"{path}/$sign", None, If_Match=old).status_code == 412
    assert room.resident.send("POST", f"{path}/$sign", None, If_Match=now).status_code == 200
    assert room.other.done(f"{path}/$write", mine)["status"] == "preliminary"
    room.attending.done(f"{path}/$sign")
    corrected = room.attending.done(f"{path}/$correct", parameters(section(IMPRESSION, "Normal."), reason="Mixed up"))
    refused(room.attending.put(corrected | {"conclusion": "Silently something else."}), 422, "$correct")


def test_a_withdrawn_report_leaves_its_study_to_be_read_again(room):
    reading = room.study()
    report = room.signed(reading)
    assert room.matches(f"Task?focus={reading['focus']['reference']}&{OPEN}") == []
    room.attending.done(f"DiagnosticReport/{report['id']}/$withdraw", parameters(reason="Wrong study was open"))
    (again,) = room.matches(f"Task?focus={reading['focus']['reference']}&{OPEN}")
    draft = room.draft(again, room.resident)
    room.resident.done(f"DiagnosticReport/{draft['id']}/$sign")
    room.attending.done(f"DiagnosticReport/{draft['id']}/$withdraw", parameters(reason="Wrong study again"))
    again = room.read(again)
    assert (again["status"], states(again), "owner" in again) == ("requested", ["unread"], False)
    assert room.signed(again)["status"] == "final"
    assert room.read(again)["status"] == "completed"


def test_a_report_that_says_nothing_is_not_signed(room):
    report = room.attending.done(f"Task/{room.study()['id']}/$start-report")
    refused(room.attending.call(f"DiagnosticReport/{report['id']}/$sign"), 422, "content")
    assert room.read(report)["status"] == "registered"


def test_what_lies_under_a_signed_report_changes_only_with_it_and_is_of_its_patient(room):
    reading = room.study()
    report = room.signed(reading)
    observation = room.read(report["result"][0]["reference"])
    stranger = {"reference": f"Patient/{room.patient()['id']}"}
    technologist = room.person("technologist", "Tom", "Tech")
    for element in ({"status": "entered-in-error"}, {"subject": stranger}, {"effectiveDateTime": "2020-01-01"}):
        for who in (technologist, room.app):
            refused(who.put(observation | element), 422, "signed report")
    mixed = room.draft(room.study())
    refused(room.attending.put(mixed | {"result": [*mixed["result"], report["result"][0]]}), 422, "another patient")
    own = room.read(mixed["result"][0]["reference"])
    assert technologist.put(own | {"subject": stranger}).status_code == 200
    refused(room.attending.call(f"DiagnosticReport/{mixed['id']}/$sign"), 422, "another patient")


def test_what_was_changed_behind_a_signature_is_found_out(room):
    report = room.signed(room.study())
    path = f"DiagnosticReport/{report['id']}"

    async def tamper(collection: str, id_: str, field: str, value: Any) -> Any:
        return await room.app.db[collection].find_one_and_update({"_id": id_}, {"$set": {field: value}})

    def valid() -> bool:
        (one,) = room.attending.get(f"{path}/$verify").json()["parameter"]
        return bool(one["part"][3]["valueBoolean"])

    observation = report["result"][0]["reference"].removeprefix("Observation/")
    (provenance,) = room.matches(f"Provenance?target={path}")
    for collection, id_, field, value in (
        ("DiagnosticReport", report["id"], "resource.conclusion", "All is well."),
        ("Observation", observation, "resource.valueString", "All is well."),
        ("Provenance", provenance["id"], "resource.signature.0.who.reference", room.other.who),
    ):
        assert valid()
        before = room.app.run(tamper(collection, id_, field, value))
        assert not valid(), collection
        room.app.run(tamper(collection, id_, "resource", before["resource"]))
    assert valid()


def test_only_people_in_the_role_sign(room):
    report = room.draft(room.study())
    path = f"DiagnosticReport/{report['id']}"
    assert room.app.send("POST", f"{path}/$sign").status_code == 403
    for role in ("technologist", "referrer", "admin"):
        assert room.world.person(role).send("POST", f"{path}/$sign").status_code == 403, role
    assert room.read(path)["status"] == "registered"


def test_a_template_gives_the_sections_and_its_text_blocks(room):
    code = {"system": LOINC, "code": unused("T")}
    template: Resource = {
        "resourceType": "Questionnaire", "status": "active", "title": "CT of the chest",
        "code": [{"system": "urn:fhir-ris:questionnaire", "code": "report-template"}],
        "useContext": [{
            "code": {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "focus"},
            "valueCodeableConcept": {"coding": [code]},
        }],
        "item": [
            {"linkId": "1", "code": [{"system": LOINC, "code": "55111-9"}], "text": "Technique", "type": "text",
             "initial": [{"valueString": "Without contrast."}]},
            {"linkId": "2", "code": [{"system": LOINC, "code": FINDINGS}], "text": "Findings", "type": "open-choice",
             "answerOption": [
                 {"valueCoding": {"code": "normal", "display": "Lungs are clear."}, "initialSelected": True},
                 {"valueCoding": {"code": "effusion", "display": "Pleural effusion."}},
                 {"valueCoding": {"code": "heart", "display": "The heart is large."}},
             ]},
            {"linkId": "3", "code": [{"system": LOINC, "code": IMPRESSION}], "text": "Impression", "type": "text"},
        ],
    }  # fmt: skip
    room.app.create(template)
    twice = template | {"item": [*template["item"], template["item"][0] | {"linkId": "4"}]}
    refused(room.app.send("POST", "Questionnaire", twice), 422, "LOINC code of its own")
    subject = room.study(code={"coding": [code]})
    made = room.attending.done(f"Task/{subject['id']}/$start-report")
    assert text_of(made) == "Technique\nWithout contrast.\n\nFindings\nLungs are clear."
    refused(room.attending.call(f"Task/{subject['id']}/$start-report"), 409, "has a report")
    refused(room.other.call(f"Task/{subject['id']}/$start-report"), 409, "claimed")
    assert room.read(subject)["status"] == "in-progress"
    other = room.study(code={"coding": [code]})
    refused(room.attending.call(f"Task/{other['id']}/$start-report", parameters(block="nothing")), 422, "effusion")
    blocks = [{"name": "block", "valueString": name} for name in ("effusion", "heart")]
    chosen = room.attending.done(f"Task/{other['id']}/$start-report", parameters(*blocks))
    assert "Pleural effusion.\nThe heart is large." in text_of(chosen)
    plain = room.attending.done(f"Task/{room.study()['id']}/$start-report")
    assert "result" not in plain


def test_findings_comparison_and_recommendation_are_data_and_text(room):
    patient = room.patient(name=[{"family": "Muster & Söhne", "given": ["<b>Mara</b>"]}], birthDate="1970-01-31")
    study, old = prior(room, patient, "2024-01-01T08:00:00Z", CT_CHEST, "CT", "51185008")
    strange, _ = prior(room, room.patient(), "2024-01-01T08:00:00Z", CT_CHEST, "CT", "51185008")
    reading = room.study(patient)
    size = {
        "resourceType": "Observation", "status": "final", "code": {"text": "Diameter of the nodule"},
        "valueQuantity": {"value": Decimal("8.0"), "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
    }  # fmt: skip
    report = room.draft(
        reading, None,
        section(IMPRESSION, "Nodule."), section(FINDINGS, "A <script>nodule</script> & more.\nSecond line."),
        section(RECOMMENDATION, "Follow-up in 3 months."), section(COMPARISON, "CT of 2024."),
        {"name": "finding", "resource": size}, reference("comparison", study), reference("comparison", old),
    )  # fmt: skip
    path = f"DiagnosticReport/{report['id']}"
    refused(room.attending.call(f"{path}/$write", parameters(reference("comparison", strange))), 422, "of this patient")
    for itself in (path, report["imagingStudy"][0]["reference"]):
        refused(room.attending.call(f"{path}/$write", parameters(reference("comparison", itself))), 422, "than itself")
    refused(room.attending.call(f"{path}/$write", parameters({"name": "section", "part": []})), 400, "code and text")
    assert "extension" not in room.attending.done(f"{path}/$write", parameters({"name": "comparison"}))
    room.attending.done(f"{path}/$write", parameters(reference("comparison", study), reference("comparison", old)))
    room.attending.done(f"{path}/$write", parameters(section("48767-8", "A remark.")))
    room.attending.done(f"{path}/$write", parameters(section("48767-8")))
    extra = room.attending.done(f"{path}/$write", parameters({"name": "finding", "resource": size | {"code": {"text": "Wrong"}}}))
    text_section, *_, sized, wrong = (r["reference"] for r in extra["result"])
    refused(room.attending.call(f"{path}/$write", parameters(reference("remove-finding", text_section))), 422, "no structured")
    refused(room.attending.call(f"{path}/$write", parameters({"name": "remove-finding"})), 400, "an Observation")
    gone = room.attending.done(f"{path}/$write", parameters(reference("remove-finding", wrong)))
    assert gone["result"][-1]["reference"] == sized
    signed = room.attending.done(f"{path}/$sign")
    url = "https://profiles.ihe.net/RAD/IDR/StructureDefinition/associatedStudy"
    assert [e["valueReference"]["reference"] for e in signed["extension"] if e["url"] == url] == [study, old]
    titles = ["Comparison", "Findings", "Structured findings", "Impression", "Recommendation"]
    assert [part.split("\n")[0] for part in text_of(signed).split("\n\n")] == titles
    assert "Diameter of the nodule: 8.0 mm" in text_of(signed)
    (finding,) = room.matches(f"Observation?patient=Patient/{patient['id']}&category=imaging&status:not=entered-in-error")
    assert (finding["status"], finding["performer"][0]["reference"]) == ("final", room.attending.who)
    html = form(signed, "text/html").decode()
    assert "A &lt;script&gt;nodule&lt;/script&gt; &amp; more.<br/>Second line." in html
    assert "Muster &amp; Söhne, &lt;b&gt;Mara&lt;/b&gt;" in html
    assert "<script>" not in html + signed["text"]["div"]
    assert form(signed, "application/pdf").startswith(b"%PDF")
    assert all({"size", "hash"} <= f.keys() for f in signed["presentedForm"])


def test_a_document_never_outlives_the_words_that_it_was_made_of(room):
    report = room.signed(room.study())
    changed = room.app.put(report | {"status": "corrected", "conclusion": "Fracture."})
    assert changed.status_code == 200
    assert not {"presentedForm", "text"} & load(changed).keys()


def test_a_text_that_came_in_one_piece_is_kept_when_it_is_addended_and_corrected(room):
    order = room.order_of(room.study())
    written = {
        "contentType": "text/plain; charset=iso-8859-1",
        "data": base64.b64encode("Häufig. Unauffällig.".encode("latin-1")).decode(),
    }
    whole = room.app.create({
        "resourceType": "DiagnosticReport", "status": "final", "code": order["code"], "subject": order["subject"],
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}], "presentedForm": [written],
    })  # fmt: skip
    addended = room.attending.done(f"DiagnosticReport/{whole['id']}/$addend", parameters(text="Compared."))
    titles, texts = zip(*(part.split("\n", 1) for part in text_of(addended).split("\n\n")), strict=True)
    assert titles == ("Findings", "Addendum")
    assert texts[0] == "Häufig. Unauffällig."
    more = parameters(section(IMPRESSION, "Normal."), reason="There was none")
    corrected = room.attending.done(f"DiagnosticReport/{whole['id']}/$correct", more)
    assert text_of(corrected).startswith("Findings\nHäufig. Unauffällig.\n\nImpression\nNormal.")


def test_a_finding_refers_to_nothing_that_isnt_there_for_its_author(room):
    hidden = {"meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}}
    other = room.app.create(room_finding() | {"subject": {"reference": f"Patient/{room.patient()['id']}"}} | hidden)
    report = room.draft(room.study())
    finding = room_finding() | {"derivedFrom": [{"reference": f"Observation/{other['id']}"}]}
    said = parameters({"name": "finding", "resource": finding})
    refused(room.attending.call(f"DiagnosticReport/{report['id']}/$write", said), 422, "does not exist")


def room_finding() -> Resource:
    return {"resourceType": "Observation", "status": "preliminary", "code": {"text": "Size"}, "valueString": "small"}


def test_what_is_written_of_a_labelled_order_is_labelled_alike(room):
    restricted = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
    report = room.signed(room.study(meta=restricted))
    made = [report, *(room.read(r["reference"]) for r in report["result"])]
    made += room.matches(f"Provenance?target=DiagnosticReport/{report['id']}")
    assert len(made) == 4
    assert [m["meta"]["security"] for m in made] == [restricted["security"]] * 4


def test_an_ehr_by_hl7_v2_gets_the_words_once_and_each_later_version(room):
    ehr = room.app.create({
        "resourceType": "Endpoint", "status": "active", "address": "mllp://127.0.0.1:9",
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
        "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "ORU^R01"}]}],
        "header": ["receiving-application: EHR", "receiving-facility: EXAMPLEHOSP", "report-style: c"],
    })  # fmt: skip
    report = room.signed(room.study())
    grade = {"name": "category", "valueCode": "RID49481"}
    room.attending.done(f"DiagnosticReport/{report['id']}/$critical", parameters(grade, finding="To be told"))
    room.attending.done(f"DiagnosticReport/{report['id']}/$addend", parameters(text="Seen before."))

    async def sent() -> list[Any]:
        found = room.app.db["outbox"].find({"destination": f"Endpoint/{ehr['id']}"}, sort=[("key", 1)])
        return [parse(bytes(d["message"])) async for d in found]

    messages = room.app.run(sent())
    room.app.put(ehr | {"status": "off"})
    told = []
    for message in messages:
        rows = [s for s in message.segments if s.name == "OBX"]
        obr = message.first("OBR")
        assert obr is not None
        told.append((obr.field(25), [(s.field(2), s.get(3)) for s in rows if s.field(2) != "HD"]))
    words = [("TX", FINDINGS), ("TX", IMPRESSION)]
    assert told[0] == ("F", words)
    assert len(told) == 2  # the critical result isn't news for it
    assert told[1][0] == "C"
    assert sorted(told[1][1]) == sorted([*words, ("TX", ADDENDUM)])


# Moved to another patient


def test_a_signed_report_that_is_moved_names_the_right_patient_and_a_radiologist_has_said_so(room):
    wrong, right = (room.patient(name=[{"family": name}]) for name in ("Wrongperson", "Rightperson"))
    reading = room.study(wrong)
    report, order = room.signed(reading), room.order_of(reading)
    body = parameters(
        reference("patient", f"Patient/{right['id']}"), {"name": "correctReports", "valueBoolean": True}, reason="wrong patient"
    )
    path = f"ServiceRequest/{order['id']}/$move"
    scheduler = room.person("scheduler", "Sue", "Scheduler")
    assert scheduler.call(path, body).status_code == 403
    assert report["id"] not in scheduler.call(path, parameters(*body["parameter"][::2])).text
    answer = room.attending.done(path, body)
    assert f"DiagnosticReport/{report['id']}" in {row["valueReference"]["reference"] for row in answer["parameter"]}
    now = room.read(report)
    shown = [now["text"]["div"], form(now, "text/html").decode()]
    assert now["status"] == "corrected"
    assert all("Rightperson" in text and "Wrongperson" not in text for text in shown)
    # A draft goes without; who may not see it, isn't told of it.
    reading = room.study(wrong)
    draft, order = room.draft(reading), room.order_of(reading)
    got = scheduler.done(f"ServiceRequest/{order['id']}/$move", parameters(*body["parameter"][::2]))
    assert draft["id"] not in str(got)
    assert "Wrongperson" not in room.read(draft)["text"]["div"]
