"""What people decide about orders, over REST: accept, reject, hold, cancel, replace, add; HL7's create-order and cancel-order."""

from typing import Any

import httpx
import pytest

from bridges.v2.message import Message, parse
from resources import status_reason
from tests.fhir_app import FhirApp, Resource, entry, issues, load, unused
from tests.smart_world import Caller, World, label

DCM = "http://dicom.nema.org/resources/ontology/DCM"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
LOCAL = "urn:example:codes"
REASON = {"name": "reason", "valueCodeableConcept": {"coding": [{"system": "urn:example:why", "code": "dup"}], "text": "twice"}}


@pytest.fixture(scope="module")
def scheduler(world: World) -> Caller:
    return world.person("scheduler")


@pytest.fixture(scope="module")
def ehr(world: World) -> Caller:
    """An EHR: a backend client that places orders."""
    return world.caller("system/ServiceRequest.cru system/Patient.rs system/Task.rs")


@pytest.fixture(scope="module")
def placer(app: FhirApp) -> Resource:
    """The EHR's HL7 v2 side, which is told of its orders."""
    kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"}
    return app.create(
        {
            "resourceType": "Endpoint",
            "status": "active",
            "connectionType": kind,
            "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "ORM^O01"}]}],
            "address": "mllp://127.0.0.1:9",
            "header": ["receiving-application: EHR", "receiving-facility: EXAMPLEHOSP"],
        }
    )


def catalogue(app: FhirApp, **rules: str) -> str:
    """A procedure of the catalogue, with what is done about its orders; its code."""
    code = unused("PROC")
    said = [
        {
            "url": "urn:fhir-ris:intake-rule",
            "extension": [{"url": "finding", "valueCode": f.replace("_", "-")}, {"url": "rule", "valueCode": r}],
        }
        for f, r in rules.items()
    ]
    said += [{"url": "urn:fhir-ris:reason-required", "valueBoolean": True}] if "missing_reason" in rules else []
    definition = {
        "resourceType": "ActivityDefinition",
        "status": "active",
        "kind": "ServiceRequest",
        "url": f"urn:example:catalogue:{code}",
        "identifier": [{"system": LOCAL, "value": code}],
        "code": {"coding": [{"system": LOCAL, "code": code}]},
        "topic": [{"coding": [{"system": DCM, "code": "CT"}]}],
    }
    app.create(definition | ({"extension": said} if said else {}))
    return code


def order(app: FhirApp, code: str, **elements: Any) -> Resource:
    """An order as an EHR POSTs it, with a placer number."""
    number = {"type": {"coding": [{"system": V2_0203, "code": "PLAC"}]}, "system": "urn:oid:1.2.3.4", "value": unused("L")}
    subject = elements.pop("subject", None) or {"reference": f"Patient/{app.create({'resourceType': 'Patient'})['id']}"}
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [number],
        "code": {"coding": [{"system": LOCAL, "code": code}]}, "subject": subject,
    } | elements  # fmt: skip


def call(caller: Caller, what: Resource, operation: str, *parameters: Resource) -> httpx.Response:
    body = {"resourceType": "Parameters", "parameter": list(parameters)} if parameters else None
    return caller.send("POST", f"ServiceRequest/{what['id']}/${operation}", body)


def now(app: FhirApp, what: Resource) -> Resource:
    return load(app.get(f"{what['resourceType']}/{what['id']}"))


def work(app: FhirApp, what: Resource) -> dict[str, str]:
    """The work items about an order: kind to status."""
    found = app.search(f"Task?focus=ServiceRequest/{what['id']}&intent=order").get("entry", ())
    return {e["resource"]["code"]["coding"][0]["code"]: e["resource"]["status"] for e in found}


def told(app: FhirApp, placer: Resource, about: Resource) -> list[tuple[str, str, str]]:
    """What the placer is told of an order: ORC-1, ORC-5 and ORC-16."""

    async def read() -> list[Message]:
        where = {"destination": f"Endpoint/{placer['id']}", "about": f"ServiceRequest/{about['id']}"}
        return [parse(bytes(d["message"])) async for d in app.db["outbox"].find(where, sort=[("key", 1)])]

    orcs = [m.first("ORC") for m in app.run(read())]
    return [(o.field(1), o.field(5), o.get(16, 1)) for o in orcs if o is not None]


def test_an_order_that_was_held_is_accepted_by_a_person_with_a_reason_and_by_nobody_else(app, world, scheduler, ehr, placer):
    held = load(ehr.post(order(app, catalogue(app, missing_reason="hold"))))
    assert (held["status"], work(app, held)) == ("on-hold", {"order-hold": "requested"})
    # Its placer can't let it go on, nor may a technologist say so; a person needs a reason.
    assert issues(ehr.put(held | {"status": "active"})) == [("business-rule", "ServiceRequest.status")]
    for somebody in (world.person("technologist"), world.person("referrer"), ehr):
        assert call(somebody, held, "accept", REASON).status_code in {403, 404}
    assert issues(call(scheduler, held, "accept")) == [("business-rule", "Parameters.parameter")]
    answer = call(scheduler, held, "accept", {"name": "reason", "valueString": "asked the ward"})
    assert answer.status_code == 200, answer.text
    accepted = now(app, held)
    assert (accepted["status"], work(app, held)) == ("active", {"order-hold": "completed"})
    assert accepted["extension"][0]["valueCodeableConcept"] == {"text": "asked the ward"}
    assert len(app.ids(f"ServiceRequest?based-on=ServiceRequest/{held['id']}")) == 1
    assert told(app, placer, held) == [("SC", "IP", "")]
    assert call(scheduler, held, "accept").status_code == 200  # once more changes nothing
    assert now(app, held)["meta"]["versionId"] == accepted["meta"]["versionId"]


def test_nobody_goes_round_the_judgement_of_the_department(app, world, scheduler, ehr):
    strict = {"coding": [{"system": LOCAL, "code": catalogue(app, missing_reason="refuse")}]}
    draft = load(ehr.post(order(app, catalogue(app), status="draft")))
    assert issues(ehr.put(draft | {"status": "on-hold", "code": strict})) == [("required", "ServiceRequest.reasonCode")]
    held = load(ehr.post(order(app, catalogue(app, missing_reason="hold"))))
    (item,) = (e["resource"] for e in app.search(f"Task?focus=ServiceRequest/{held['id']}&intent=order")["entry"])
    client = world.caller("system/ServiceRequest.ru system/Task.rud")
    for somebody in (world.person("technologist"), client):
        for other in ({"status": "completed"}, {"status": "received"}, {"focus": {"reference": f"ServiceRequest/{draft['id']}"}}):
            assert somebody.put(item | other).status_code == 403
        assert somebody.put(held | {"status": "active"}).status_code in {403, 422}
    assert load(client.put(item | {"note": [{"text": "The ward is asked"}]}))["status"] == "requested"
    assert load(scheduler.put(now(app, item) | {"status": "completed"}))["status"] == "completed"


def test_a_draft_is_accepted_without_a_reason_unless_odd_things_were_found_about_it(app, scheduler, ehr, placer):
    code = catalogue(app, implausible_date="refuse")
    plain = load(ehr.post(order(app, code, status="draft")))
    assert call(scheduler, plain, "accept").status_code == 200
    assert now(app, plain)["status"] == "active"
    double = load(ehr.post(order(app, code, status="draft", subject=plain["subject"])))
    assert work(app, double) == {"duplicate-order": "requested"}
    assert call(scheduler, double, "accept").status_code == 422
    assert call(scheduler, double, "accept", REASON).status_code == 200
    assert work(app, double) == {"duplicate-order": "completed"}  # settled: both are wanted
    assert now(app, double)["status"] == "active"
    shown = load(ehr.post(order(app, catalogue(app, duplicate_order="work-item"), occurrenceDateTime="2020-01-01")))
    before = told(app, placer, shown)
    assert call(scheduler, shown, "accept", REASON).status_code == 200
    # It went on already: what is new is that somebody has looked at it, of which its placer isn't told.
    assert (work(app, shown), now(app, shown)["status"]) == ({"implausible-date": "completed"}, "active")
    assert told(app, placer, shown) == before
    late = order(app, code, status="draft", occurrenceDateTime="2020-01-01")
    assert issues(ehr.post(late)) == [("value", "ServiceRequest.occurrence")]


def test_a_rejected_order_ends_with_its_reason_which_its_placer_is_told(app, scheduler, ehr, placer):
    held = load(ehr.post(order(app, catalogue(app, missing_reason="hold"))))
    assert issues(call(scheduler, held, "reject")) == [("required", "Parameters.parameter")]
    assert call(scheduler, held, "reject", REASON).status_code == 200
    assert (now(app, held)["status"], work(app, held)) == ("revoked", {"order-hold": "completed"})
    assert told(app, placer, held) == [("OC", "CA", "dup")]
    accepted = load(ehr.post(order(app, catalogue(app))))
    assert issues(call(scheduler, accepted, "reject", REASON)) == [("business-rule", "ServiceRequest.status")]
    assert call(scheduler, accepted, "hold", REASON).status_code == 200  # what is held now was accepted all the same
    assert issues(call(scheduler, accepted, "reject", REASON)) == [("business-rule", "ServiceRequest.status")]


def test_an_order_that_the_department_holds_waits_for_the_department(app, scheduler, ehr, placer):
    placed = load(ehr.post(order(app, catalogue(app))))
    assert call(scheduler, placed, "hold", REASON).status_code == 200
    held = now(app, placed)
    (step,) = app.search(f"Task?intent=plan&patient={placed['subject']['reference']}")["entry"]
    assert (held["status"], step["resource"]["status"], work(app, held)) == ("on-hold", "on-hold", {"order-hold": "requested"})
    assert told(app, placer, held) == [("SC", "HD", "dup")]
    assert ehr.put(held | {"status": "active"}).status_code == 422
    assert call(scheduler, held, "accept").status_code == 200
    assert status_reason.of(now(app, held)) is None  # why it was held is no reason for what it is now
    assert told(app, placer, held)[-1] == ("SC", "IP", "")


def test_an_order_is_cancelled_with_another_in_its_place(app, scheduler, ehr, placer):
    code = catalogue(app)
    old = load(ehr.post(order(app, code)))
    new = order(app, code, subject=old["subject"])
    answer = load(call(scheduler, old, "cancel", REASON, {"name": "replacement", "resource": new}))
    (heir,) = (p["valueReference"]["reference"] for p in answer["parameter"] if p["name"] == "replacement")
    replaced = load(app.get(heir))
    assert (now(app, old)["status"], replaced["status"]) == ("revoked", "active")
    assert replaced["replaces"] == [{"reference": f"ServiceRequest/{old['id']}"}]
    assert told(app, placer, old) == [("OC", "CA", "dup")]
    # A draft that waits in the inbox can take the place too: so a duplicate is settled.
    draft = load(ehr.post(order(app, code, status="draft", subject=old["subject"])))
    assert work(app, draft) == {"duplicate-order": "requested"}
    takes = {"name": "replacement", "valueReference": {"reference": f"ServiceRequest/{draft['id']}"}}
    assert call(scheduler, replaced, "cancel", REASON, takes).status_code == 200
    assert (now(app, draft)["status"], work(app, draft)) == ("active", {"duplicate-order": "completed"})


def test_nothing_is_cancelled_once_the_examination_has_begun(app, scheduler, ehr):
    placed = load(ehr.post(order(app, catalogue(app))))
    (step,) = (e["resource"] for e in app.search(f"Task?intent=plan&patient={placed['subject']['reference']}")["entry"])
    assert app.put(step | {"status": "in-progress"}).status_code == 200
    before = app.counts()
    new = order(app, catalogue(app), subject=placed["subject"])
    refused = call(scheduler, placed, "cancel", REASON, {"name": "replacement", "resource": new})
    assert refused.status_code == 409
    assert now(app, placed)["status"] == "active"
    assert app.counts()["ServiceRequest"] == before["ServiceRequest"] + 0


def test_the_orders_of_a_requisition_are_decided_on_together(app, scheduler, ehr):
    shared = {"requisition": {"system": "urn:example:requisition", "value": unused("G")}}
    first = load(ehr.post(order(app, catalogue(app), status="draft", **shared)))
    second = load(ehr.post(order(app, catalogue(app), status="draft", subject=first["subject"])))
    app.create(
        {
            "resourceType": "RequestGroup", "status": "active", "intent": "order", "groupIdentifier": shared["requisition"],
            "action": [{"resource": {"reference": f"ServiceRequest/{second['id']}"}}],
        }
    )  # fmt: skip
    apart = load(ehr.post(order(app, catalogue(app), status="draft", subject=first["subject"])))
    answer = load(call(scheduler, first, "accept", {"name": "group", "valueBoolean": True}))
    assert [p["valueReference"]["reference"] for p in answer["parameter"]] == [
        f"ServiceRequest/{o['id']}" for o in (first, second)
    ]
    assert [now(app, o)["status"] for o in (first, second, apart)] == ["active", "active", "draft"]
    # One that has ended is no longer of the group that is decided on, unless it is the one that is named.
    assert call(scheduler, first, "cancel", REASON).status_code == 200
    answer = load(call(scheduler, second, "hold", REASON, {"name": "group", "valueBoolean": True}))
    assert [p["valueReference"]["reference"] for p in answer["parameter"]] == [f"ServiceRequest/{second['id']}"]
    assert call(scheduler, first, "hold", REASON, {"name": "group", "valueBoolean": True}).status_code == 422


def test_a_procedure_is_added_under_the_same_accession_number(app, world, scheduler, ehr):
    first, second = catalogue(app), catalogue(app)
    placed = load(ehr.post(order(app, first)))
    code = {"name": "code", "valueCodeableConcept": {"coding": [{"system": LOCAL, "code": second}]}}
    again = {"name": "code", "valueCodeableConcept": {"coding": [{"system": LOCAL, "code": first}]}}
    other = {"name": "code", "valueCodeableConcept": {"coding": [{"system": LOCAL, "code": "nowhere"}]}}
    assert call(world.person("referrer"), placed, "add-procedure", code, REASON).status_code == 403
    assert call(scheduler, placed, "add-procedure", again, REASON).status_code == 409
    assert issues(call(scheduler, placed, "add-procedure", other, REASON)) == [("code-invalid", "Parameters.parameter")]
    assert call(scheduler, placed, "add-procedure", code).status_code == 400
    for wrong in ({"code": 5}, {"code": "x", "system": 5}):
        number = {"name": "code", "valueCodeableConcept": {"coding": [wrong]}}
        assert issues(call(scheduler, placed, "add-procedure", number, REASON)) == [("value", "Parameters.parameter")]
    held = load(ehr.post(order(app, first, status="on-hold")))  # it would be planned without what it orders
    assert issues(call(scheduler, held, "add-procedure", code, REASON)) == [("business-rule", "ServiceRequest.status")]
    answer = load(call(scheduler, placed, "add-procedure", code, REASON))
    made = {p["name"]: load(app.get(p["valueReference"]["reference"])) for p in answer["parameter"]}
    assert set(made) == {"procedure", "step", "imaging-study"}
    procedures = [e["resource"] for e in app.search(f"ServiceRequest?based-on=ServiceRequest/{placed['id']}")["entry"]]
    assert len({p["identifier"][0]["value"] for p in procedures}) == 2  # each has its own id
    assert made["procedure"]["reasonCode"][-1] == REASON["valueCodeableConcept"]
    assert made["step"]["status"] == "requested"
    load(call(scheduler, placed, "cancel", REASON))
    assert call(scheduler, placed, "add-procedure", code, REASON).status_code == 422


def test_of_two_who_decide_the_second_is_refused_and_the_order_says_who_was_first(app, scheduler, world):
    placed = app.create(order(app, catalogue(app), status="draft"))
    path, seen = f"ServiceRequest/{placed['id']}", f'W/"{placed["meta"]["versionId"]}"'
    load(scheduler.send("POST", f"{path}/$accept", If_Match=seen))
    why = {"resourceType": "Parameters", "parameter": [REASON]}
    assert world.person("admin").send("POST", f"{path}/$reject", why, If_Match=seen).status_code == 412
    # The same of two who settle what was found about an order that went on.
    double = app.create(order(app, placed["code"]["coding"][0]["code"], subject=placed["subject"]))
    path, seen = f"ServiceRequest/{double['id']}", f'W/"{double["meta"]["versionId"]}"'
    load(scheduler.send("POST", f"{path}/$accept", why, If_Match=seen))
    assert world.person("admin").send("POST", f"{path}/$accept", why, If_Match=seen).status_code == 412
    stored = load(app.get(path))
    (decision,) = [e for e in stored["extension"] if e["url"] == "urn:fhir-ris:decision"]
    assert decision["extension"][0]["valueReference"]["display"] == "example-scheduler"
    # Nobody writes that by hand; who leaves it out gets it back.
    forged = stored | {"extension": [decision | {"extension": [{"url": "by", "valueReference": {"display": "somebody else"}}]}]}
    assert scheduler.send("PUT", path, forged).status_code == 422
    assert decision in load(scheduler.send("PUT", path, {k: v for k, v in stored.items() if k != "extension"}))["extension"]


# HL7's Imaging Service Request guide


def guide_bundle(app: FhirApp, *procedures: str, mrn: str, **elements: Any) -> Resource:
    base = "http://ehr.example/fhir"

    def request(id_: str, code: str, **more: Any) -> Resource:
        found = order(app, code, subject={"reference": "Patient/p"}) | {"encounter": {"reference": f"{base}/Encounter/e"}}
        return entry("POST", "x", found | more, f"{base}/ServiceRequest/{id_}")

    based = {"basedOn": [{"reference": "ServiceRequest/o"}], "identifier": [{"system": "urn:example:rp", "value": "x"}]}
    patient = {"resourceType": "Patient", "identifier": [{"system": "urn:example:mrn", "value": mrn}]}
    visit = {
        "resourceType": "Encounter", "status": "in-progress", "subject": {"reference": "Patient/p"},
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "identifier": [{"system": "urn:example:visit", "value": f"V-{mrn}"}],
    }  # fmt: skip
    entries = [
        entry("POST", "x", patient, f"{base}/Patient/p"),
        entry("POST", "x", visit, f"{base}/Encounter/e"),
        request("o", procedures[0], **elements),
        *(request(f"r{i}", code, **based) for i, code in enumerate(procedures)),
    ]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{k: v for k, v in e.items() if k != "request"} for e in entries],
    }


def kinds(bundle: Resource) -> list[str]:
    return sorted(e["resource"]["resourceType"] for e in bundle["entry"])


def test_an_order_is_created_and_cancelled_as_the_guide_has_it(app, ehr, world):
    first, second, mrn = catalogue(app), catalogue(app), unused("MRN")
    client = world.caller("system/*.cruds")
    body = guide_bundle(app, first, second, mrn=mrn)
    assert issues(ehr.send("POST", "$create-order", body))[0][0] == "forbidden"  # it may not make patients
    answer = client.send(
        "POST", "$create-order", {"resourceType": "Parameters", "parameter": [{"name": "order", "resource": body}]}
    )
    assert answer.status_code == 201, answer.text
    made = load(answer)
    assert kinds(made) == sorted(
        ["Patient", "Encounter", *["ServiceRequest"] * 3, *["Task"] * 2, *["ImagingStudy"] * 2]
    )  # fmt: skip
    placed = next(e["resource"] for e in made["entry"] if e["resource"].get("intent") == "order")
    assert answer.headers["location"].endswith(f"ServiceRequest/{placed['id']}")
    # The same patient and visit are known by then.
    again = load(client.send("POST", "$create-order", guide_bundle(app, first, mrn=mrn)))
    assert made["entry"][0]["resource"]["id"] == again["entry"][0]["resource"]["id"]
    assert len(app.ids(f"Encounter?identifier=V-{mrn}")) == 1
    ended = load(client.send("POST", f"ServiceRequest/{placed['id']}/$cancel-order"))
    parts = {p["name"]: p["resource"] for p in ended["parameter"]}
    assert parts["outcome"]["issue"][0]["severity"] == "information"
    assert {e["resource"]["status"] for e in parts["bundle"]["entry"] if e["resource"]["resourceType"] == "Task"} == {"cancelled"}
    seen = load(ehr.send("POST", f"ServiceRequest/{placed['id']}/$cancel-order"))["parameter"][0]["resource"]
    assert "ImagingStudy" not in kinds(seen)  # the EHR has no scope for it


def test_a_created_order_is_judged_like_any_other_and_nothing_of_a_refused_one_stays(app, world):
    client, mrn = world.caller("system/*.cruds"), unused("MRN")
    refuses, holds = catalogue(app, missing_reason="refuse"), catalogue(app, missing_reason="hold")
    before = app.counts()["ServiceRequest"]
    refused = client.send("POST", "$create-order", guide_bundle(app, refuses, mrn=mrn))
    assert issues(refused) == [("required", "Bundle.entry[2].resource.reasonCode")]
    assert (app.counts()["ServiceRequest"], app.ids(f"Patient?identifier={mrn}")) == (before, [])
    held = load(client.send("POST", "$create-order", guide_bundle(app, holds, holds, mrn=mrn)))
    assert {e["resource"]["status"] for e in held["entry"] if e["resource"]["resourceType"] in {"ServiceRequest", "Task"}} == {
        "on-hold"
    }
    draft = load(client.send("POST", "$create-order", guide_bundle(app, holds, mrn=mrn, status="draft")))
    assert kinds(draft) == ["Encounter", "Patient", "ServiceRequest", "ServiceRequest"]


def test_a_created_order_s_procedures_name_only_what_its_sender_may_see(app, world):
    vip = app.create({"resourceType": "Patient", "meta": label("V")})
    hidden = app.create({"resourceType": "Condition", "subject": {"reference": f"Patient/{vip['id']}"}, "code": {"text": "x"}})
    sender = world.person("scheduler", grant=unused("g"))
    refusals = []
    for id_ in (hidden["id"], "none"):
        bodies = [guide_bundle(app, catalogue(app), mrn=unused("MRN")) for _ in range(2)]
        for body in bodies:
            del body["entry"][1]
            for sent in body["entry"][1:]:
                del sent["resource"]["encounter"]
        assert sender.send("POST", "$create-order", bodies[0]).status_code == 201
        bodies[1]["entry"][-1]["resource"]["reasonReference"] = [{"reference": f"Condition/{id_}"}]
        refused = sender.send("POST", "$create-order", bodies[1])
        refusals.append((refused.status_code, refused.text.replace(id_, "")))
    assert refusals[0][0] == 422
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"resourceType": "Bundle", "type": "collection"},
        {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": "urn:uuid:1"}]},
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {"resourceType": "Patient"}}]},
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {"resourceType": "Device"}}]},
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {"resourceType": "Patient", "name": "M"}}]},
        {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": {"resourceType": "ServiceRequest", "basedOn": 1}}],
        },
        {"resourceType": "Bundle", "type": "collection", "entry": {"resource": 1}},
        {"resourceType": "Patient"},
    ],
)
def test_what_is_no_order_is_refused(world, wrong):
    answer = world.caller("system/*.cruds").send("POST", "$create-order", wrong)
    assert answer.status_code in {400, 422}
    assert issues(answer)
