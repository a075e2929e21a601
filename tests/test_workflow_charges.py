"""Charges as a department knows them: modifiers, diagnoses, units, what is held for review, corrected, voided and reconciled."""

from decimal import Decimal
from typing import Any

import pytest
from typer.testing import CliRunner

from fhir_server import clock
from fhir_server.cli import app as cli
from resources.charging.reconciliation_operation import bounds, day_named
from tests.fhir_app import FhirApp, Resource, load, unused
from tests.smart_world import Caller, World, label

CPT = "http://www.ama-assn.org/go/cpt"
HOUSE = "urn:example:procedures"
SNOMED = "http://snomed.info/sct"
ICD = "http://hl7.org/fhir/sid/icd-10"
REVIEW = "urn:fhir-ris:charge-review"
DAY = "2026-09-08"


@pytest.fixture(scope="module")
def clerk(world: World) -> Caller:
    """Who looks after charges."""
    return world.person("admin", scope="user/*.cruds")


def coded(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


COUGH = coded(ICD, "R05")


def charge(component: str, code: str | None, **more: Any) -> Resource:
    parts: list[Resource] = [{"url": "component", "valueCode": component}]
    parts += [{"url": "code", "valueCodeableConcept": coded(CPT, code)}] if code else []
    return {"url": "urn:fhir-ris:charge", "extension": [*parts, *({"url": k, **v} for k, v in more.items())]}


class Desk:
    """An order, its examination and its report, over FHIR."""

    def __init__(self, app: FhirApp, *charges: Resource, patient: Resource | None = None, code: str = "", **order: Any) -> None:
        self.app = app
        self.code = code or unused("X")
        if not code:
            entry = {"resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest"}
            entry |= {"identifier": [{"system": HOUSE, "value": self.code}]}
            app.create(entry | ({"extension": list(charges)} if charges else {}))
        self.patient = patient or app.create({"resourceType": "Patient", "active": True})
        base = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "reasonCode": [COUGH]}
        base |= {"code": coded(HOUSE, self.code), "subject": {"reference": f"Patient/{self.patient['id']}"}}
        self.order = app.create(base | order)
        self.procedure = self._one(f"ServiceRequest?based-on=ServiceRequest/{self.order['id']}&intent=filler-order")
        self.study = self._one(f"ImagingStudy?basedon=ServiceRequest/{self.procedure['id']}")

    def _all(self, query: str) -> list[Resource]:
        return [e["resource"] for e in self.app.search(query).get("entry", ())]

    def _one(self, query: str) -> Resource:
        (found,) = self._all(query)
        return found

    def steps(self) -> list[Resource]:
        return self._all(f"Task?based-on=ServiceRequest/{self.procedure['id']}&intent=plan")

    def perform(self, status: str = "completed", step: Resource | None = None) -> Resource:
        step = step or self.steps()[0]
        made = self.app.create(
            {
                "resourceType": "Procedure",
                "status": "in-progress",
                "subject": self.order["subject"],
                "basedOn": [step["focus"]],
                "performedPeriod": {"start": f"{DAY}T08:05:00Z", "end": f"{DAY}T08:25:00Z"},
                "extension": [
                    {"url": "urn:fhir-ris:scheduled-procedure-step", "valueReference": {"reference": f"Task/{step['id']}"}}
                ],
            }
        )
        return self.change(made, status=status)

    def change(self, resource: Resource, **elements: Any) -> Resource:
        now = load(self.app.get(f"{resource['resourceType']}/{resource['id']}"))
        answer = self.app.put(now | elements)
        assert answer.status_code == 200, answer.text
        return load(answer)

    def report(self, **elements: Any) -> Resource:
        base = {"resourceType": "DiagnosticReport", "status": "final", "code": self.order["code"], "conclusion": "Clear."}
        base |= {"subject": self.order["subject"], "basedOn": [{"reference": f"ServiceRequest/{self.procedure['id']}"}]}
        return self.app.create(base | {"issued": f"{DAY}T09:00:00Z"} | elements)

    def charges(self) -> list[Resource]:
        return self._all(f"ChargeItem?service=ImagingStudy/{self.study['id']}&_sort=_lastUpdated")


def modifiers(item: Resource) -> list[str]:
    found = [e["valueCodeableConcept"] for e in item["extension"] if e["url"] == "urn:fhir-ris:charge-modifier"]
    return [m["coding"][0]["code"] for m in found]


def why(item: Resource) -> set[str]:
    return {t["code"] for t in item["meta"].get("tag", ()) if t["system"] == REVIEW}


def parameters(**values: Any) -> Resource:
    rows = [{"name": k, (f"value{'String' if isinstance(v, str) else 'CodeableConcept'}"): v} for k, v in values.items()]
    return {"resourceType": "Parameters", "parameter": rows}


def another_step(desk: Desk) -> Resource:
    return desk.app.create({k: v for k, v in desk.steps()[0].items() if k not in {"id", "meta", "identifier"}})


PER_STEP: Any = {"per": {"valueCode": "step"}, "maximum": {"valueDecimal": Decimal(9)}}
BILLING: Resource = {
    "resourceType": "Endpoint",
    "status": "active",
    "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
    "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "DFT^P03"}]}],
    "address": "mllp://127.0.0.1:9",
    "header": ["receiving-application: BILLING", "receiving-facility: EXAMPLEHOSP"],
}
CT_SERIES = [{"uid": "1.2.3.4", "modality": coded("http://dicom.nema.org/resources/ontology/DCM", "CT")["coding"][0]}]


# What was done, and what became of it


def test_what_is_left_of_an_examination_is_charged_anew_when_a_step_is_withdrawn(app):
    desk = Desk(app, charge("technical", "76499", **PER_STEP))
    first, second = desk.steps()[0], another_step(desk)
    desk.perform(step=first)
    desk.perform(step=second)
    (item,) = desk.charges()
    assert (item["quantity"]["value"], item["occurrenceDateTime"]) == (2, f"{DAY}T08:25:00Z")
    desk.change(second, status="entered-in-error")
    assert sorted((c["status"], c["quantity"]["value"]) for c in desk.charges()) == [("aborted", 2), ("billable", 1)]


def test_what_was_stopped_is_charged_once_its_images_are_known_and_as_what_became_of_it(app, clerk):
    late, cancelled, whole = (Desk(app, charge("technical", "70450")) for _ in range(3))
    late.perform("stopped")
    assert late.charges() == []
    late.change(late.study, numberOfInstances=120)
    assert [why(c) for c in late.charges()] == [{"held", "discontinued"}]
    late.change(late.study, series=CT_SERIES)
    assert len(late.charges()) == 1
    for desk in (cancelled, whole):
        step = desk.steps()[0]
        desk.change(desk.study, series=CT_SERIES)
        desk.perform("stopped")
        (item,) = desk.charges()
        released = clerk.send("POST", f"ChargeItem/{item['id']}/$release", parameters(reason="as it was"))
        assert released.status_code == 200, released.text
    over = clerk.send("POST", f"ServiceRequest/{cancelled.order['id']}/$cancel", parameters(reason="not to be repeated"))
    assert over.status_code == 200, over.text
    assert [(c["status"], modifiers(c)) for c in cancelled.charges()] == [("billable", ["53"])]
    again = app.create({k: v for k, v in step.items() if k not in {"id", "meta", "identifier"}})
    whole.perform(step=again)
    assert [(c["status"], modifiers(c)) for c in whole.charges()] == [("aborted", ["53"]), ("billable", [])]


def test_a_charge_says_no_more_than_may_be_seen_of_report_and_conditions_and_another_diagnosis_is_told(app, clerk):
    stranger = app.create({"resourceType": "Patient", "active": True})
    secret, whose = coded(SNOMED, "86406008"), {"reference": f"Patient/{stranger['id']}"}
    hidden = app.create({"resourceType": "Condition", "subject": whose, "code": secret})
    of = {"reasonCode": [{"text": "x"}], "reasonReference": [{"reference": f"Condition/{hidden['id']}"}]}
    desk = Desk(app, charge("technical", "T1"), charge("professional", "P1"), **of)
    desk.perform()
    (item,) = desk.charges()
    assert item["reason"] == [{"text": "x"}]
    desk.report(meta=label("V"), conclusionCode=[secret])
    technical, professional = desk.charges()
    for one in (technical, professional):
        assert secret in one["reason"]
        assert clerk.get(f"ChargeItem/{one['id']}").status_code == 404
    end = app.create(BILLING)
    app.put(professional | {"reason": [COUGH]})
    about = {"type": "DFT^P03", "about": f"ChargeItem/{professional['id']}"}
    assert app.run(app.db["outbox"].count_documents(about)) == 1
    app.put(end | {"status": "off"})


def test_what_people_decide_about_charges_is_theirs_and_stays(app, world, clerk):
    technologist = world.person("technologist")
    desk = Desk(app)
    desk.perform()
    (item,) = desk.charges()
    for url in ("urn:fhir-ris:charge-released", "urn:fhir-ris:charge-voided"):
        forged = item | {"extension": [*item["extension"], {"url": url, "valueString": "x"}]}
        assert technologist.put(forged).status_code == 403
    released = [*item["extension"], {"url": "urn:fhir-ris:charge-released", "valueString": "x"}]
    assert app.put(item | {"status": "billable", "extension": released}).status_code == 422  # it has no code
    desk = Desk(app, charge("technical", "T1"), charge("professional", "P1"))
    desk.perform()
    (item,) = desk.charges()
    assert clerk.send("POST", f"ChargeItem/{item['id']}/$void", parameters(reason="Courtesy")).status_code == 200
    assert "parameter" not in load(clerk.send("POST", f"ServiceRequest/{desk.order['id']}/$charge")) or [
        c["status"] for c in desk.charges()
    ] == ["aborted"]
    for date in ("0001-01-01", "9999-12-31", "20260908", "2026-W05-1"):
        assert clerk.get(f"ChargeItem/$reconciliation?date={date}").status_code == 400


def test_a_day_is_right_with_a_step_still_to_come_and_with_a_report_of_the_study_alone(app, clerk):
    desk = Desk(app, charge("technical", "T1"), charge("professional", "P1"))
    first, second = desk.steps()[0], another_step(desk)
    desk.perform(step=first)
    assert findings(app, desk, clerk, DAY) == []
    desk.perform(step=second)
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": desk.order["code"], "conclusion": "Clear."}
    report |= {"subject": desk.order["subject"], "imagingStudy": [{"reference": f"ImagingStudy/{desk.study['id']}"}]}
    app.create(report | {"issued": f"{DAY}T09:00:00Z"})
    assert [c["status"] for c in desk.charges()] == ["billable", "billable"]
    assert findings(app, desk, clerk, DAY) == []


# Modifiers


def test_one_code_for_both_components_is_told_apart_and_says_the_side(app):
    side = [coded(SNOMED, "7771000")]
    desk = Desk(app, charge("technical", "73030"), charge("professional", "73030"), bodySite=side)
    desk.perform()
    desk.report()
    assert [modifiers(c) for c in desk.charges()] == [["LT", "TC"], ["LT", "26"]]


def test_both_sides_are_one_bilateral_charge_and_a_code_of_its_own_needs_no_component(app):
    sides = [coded(SNOMED, "7771000"), coded(SNOMED, "24028007")]
    desk = Desk(app, charge("technical", "73562"), bodySite=sides)
    desk.perform()
    assert [modifiers(c) for c in desk.charges()] == [["50"]]


def test_the_same_examination_again_on_one_day_is_a_repeat(app):
    first = Desk(app, charge("professional", "71045"))
    first.perform()
    first.report(resultsInterpreter=[{"display": "Reader, Rosa"}])
    for who, modifier in (("Reader, Rosa", "76"), ("Reader, Rolf", "77")):
        again = Desk(app, patient=first.patient, code=first.code)
        again.perform()
        again.report(resultsInterpreter=[{"display": who}])
        (item,) = again.charges()
        assert modifiers(item) == [modifier]
        app.send("DELETE", f"ChargeItem/{item['id']}")
    another_day = Desk(app, patient=first.patient, code=first.code)
    another_day.perform()
    another_day.report(issued="2026-09-10T09:00:00Z")
    assert modifiers(another_day.charges()[0]) == []


def test_an_examination_that_was_stopped_half_way_is_charged_reduced_unless_it_was_repeated(app):
    desk = Desk(app, charge("technical", "74178"))
    first = desk.steps()[0]
    other = {k: v for k, v in first.items() if k not in {"id", "meta", "identifier"}} | {"code": coded(HOUSE, "PELVIS")}
    second = app.create(other)
    desk.perform("completed", first)
    desk.perform("stopped", second)
    assert [modifiers(c) for c in desk.charges()] == [["52"]]


def test_an_examination_that_was_stopped_with_images_is_held_and_makes_way_for_the_whole_one(app):
    desk = Desk(app, charge("technical", "70450"))
    series = [{"uid": "1.2.3.4", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}}]
    desk.change(desk.study, series=series)
    step = desk.steps()[0]
    desk.perform("stopped")
    (item,) = desk.charges()
    assert (item["status"], modifiers(item), why(item)) == ("planned", ["53"], {"held", "discontinued"})
    again = app.create({k: v for k, v in step.items() if k not in {"id", "meta", "identifier"}})
    desk.perform("completed", again)
    assert [(c["status"], modifiers(c)) for c in desk.charges()] == [("aborted", ["53"]), ("billable", [])]


def test_units_count_the_steps_where_the_catalogue_says_so(app):
    desk = Desk(app, charge("technical", "76499", per={"valueCode": "step"}, maximum={"valueDecimal": Decimal(1)}))
    second = app.create({k: v for k, v in desk.steps()[0].items() if k not in {"id", "meta", "identifier"}})
    desk.perform(step=desk.steps()[0])
    desk.perform(step=second)
    (item,) = desk.charges()
    assert item["quantity"]["value"] == 2
    assert why(item) == {"held", "unusual-units"}


# Review


def test_what_lacks_a_diagnosis_waits_for_the_report_and_then_goes_by_itself(app):
    desk = Desk(app, charge("technical", "T1"), charge("professional", "P1"), reasonCode=[{"text": "Cough"}])
    desk.perform()
    (item,) = desk.charges()
    assert (item["status"], why(item)) == ("planned", {"held", "no-diagnosis"})
    held = [e["resource"]["id"] for e in app.search(f"ChargeItem?_tag={REVIEW}|held&_count=500")["entry"]]
    assert item["id"] in held
    refused = app.put(item | {"status": "billable"})
    assert refused.status_code == 422
    desk.report(conclusionCode=[coded(SNOMED, "233604007")])
    assert [(c["status"], c["reason"][0]["coding"][0]["code"], why(c)) for c in desk.charges()] == [
        ("billable", "233604007", set()),
        ("billable", "233604007", set()),
    ]


def test_what_lacks_a_coverage_waits_for_it_where_the_catalogue_asks_for_one(app):
    asks = [{"url": REVIEW, "valueCode": code} for code in ("diagnosis", "coverage")]
    desk = Desk(app, charge("technical", "T1"), *asks)
    desk.perform()
    assert why(desk.charges()[0]) == {"held", "no-coverage"}
    patient = {"reference": f"Patient/{desk.patient['id']}"}
    app.create({"resourceType": "Coverage", "status": "active", "beneficiary": patient, "payor": [{"display": "Payer"}]})
    assert desk.charges()[0]["status"] == "billable"


def test_what_the_catalogue_has_no_code_for_is_held_corrected_and_goes_out(app, clerk, world):
    desk = Desk(app)
    desk.perform()
    (item,) = desk.charges()
    assert why(item) == {"held", "no-charge-code"}
    path = f"ChargeItem/{item['id']}"
    assert world.person("technologist").send("POST", f"{path}/$release", parameters(reason="x")).status_code == 403
    assert clerk.send("POST", f"{path}/$release", parameters(reason="Nothing else to do")).status_code == 422
    corrected = clerk.send("POST", f"{path}/$correct", parameters(reason="Code found", code=coded(CPT, "76499")))
    assert corrected.status_code == 200, corrected.text
    assert corrected.json()["id"] == item["id"]
    assert corrected.json()["status"] == "billable"


def test_a_held_charge_is_released_with_a_reason_by_who_may(app, clerk):
    desk = Desk(app, charge("technical", "T1"), reasonCode=[{"text": "Check-up"}])
    desk.perform()
    (item,) = desk.charges()
    path = f"ChargeItem/{item['id']}/$release"
    assert clerk.send("POST", path).status_code == 422
    released = clerk.send("POST", path, parameters(reason="Screening without a finding"))
    assert released.status_code == 200, released.text
    assert released.json()["status"] == "billable"
    assert why(released.json()) == set()
    assert clerk.send("POST", path, parameters(reason="again")).status_code == 422


def test_a_charge_that_was_told_is_corrected_by_a_credit_and_another_charge(app, clerk):
    desk = Desk(app, charge("technical", "T1"))
    desk.perform()
    (item,) = desk.charges()
    desk.change(item, status="billed")
    assert app.put(desk.charges()[0] | {"quantity": {"value": 9}}).status_code == 422
    path = f"ChargeItem/{item['id']}"
    assert clerk.send("POST", f"{path}/$correct", parameters(code=COUGH)).status_code == 400
    new = clerk.send("POST", f"{path}/$correct", parameters(reason="Wrong code", code=coded(CPT, "T9")))
    assert new.status_code == 200, new.text
    old, made = desk.charges()
    assert (old["status"], made["status"], made["id"]) == ("aborted", "billable", new.json()["id"])
    assert {"url": "urn:fhir-ris:charge-replaces", "valueReference": {"reference": path}} in made["extension"]
    assert made["identifier"][0]["value"].startswith(old["identifier"][0]["value"])
    assert clerk.send("POST", f"{path}/$void", parameters(reason="again")).status_code == 422
    assert clerk.send("POST", f"ChargeItem/{made['id']}/$void", parameters(reason="Courtesy")).status_code == 200
    assert [c["status"] for c in desk.charges()] == ["aborted", "aborted"]


def test_nobody_charges_the_same_twice_by_hand(app):
    desk = Desk(app, charge("technical", "T1"))
    desk.perform()
    (item,) = desk.charges()
    again = {k: v for k, v in item.items() if k not in {"id", "meta", "identifier"}}
    assert app.send("POST", "ChargeItem", again).status_code == 409
    assert app.send("POST", "ChargeItem", again | {"code": coded(CPT, "A9579")}).status_code == 201


# Reconciliation


def findings(app: FhirApp, desk: Desk, caller: Caller, day: str = DAY) -> list[str]:
    """The kinds of findings about what is on this desk."""
    answer = caller.get(f"ChargeItem/$reconciliation?date={day}")
    assert answer.status_code == 200, answer.text
    mine = {f"ServiceRequest/{r['id']}" for r in (desk.order, desk.procedure)} | {f"ChargeItem/{c['id']}" for c in desk.charges()}
    found = []
    for row in answer.json()["parameter"]:
        parts = {p["name"]: p for p in row.get("part", ())}
        if parts and parts["about"]["valueReference"]["reference"] in mine:
            found.append(parts["kind"]["valueCode"])
    return sorted(found)


def set_raw(app: FhirApp, item: Resource, **elements: Any) -> None:
    """What no door lets through, as a fault would leave it."""
    changes = {f"resource.{k}": v for k, v in elements.items()}
    app.run(app.db["ChargeItem"].update_one({"_id": item["id"]}, {"$set": changes}))


def test_the_day_is_right_when_all_is_charged_and_says_what_is_missing_when_not(app, clerk):
    desk = Desk(app, charge("technical", "T1"), charge("professional", "P1"))
    desk.perform()
    desk.report()
    assert findings(app, desk, clerk) == []
    for item in desk.charges():
        set_raw(app, item, status="aborted")
    assert findings(app, desk, clerk) == ["examination-without-charge", "report-without-charge"]
    made = clerk.send("POST", f"ServiceRequest/{desk.order['id']}/$charge")
    assert made.status_code == 200, made.text
    assert len(made.json()["parameter"]) == 2
    assert findings(app, desk, clerk) == []
    assert clerk.send("POST", f"ServiceRequest/{desk.order['id']}/$charge").json().get("parameter", []) == []
    for item in [c for c in desk.charges() if c["status"] == "billable"]:
        assert clerk.send("POST", f"ChargeItem/{item['id']}/$void", parameters(reason="Courtesy")).status_code == 200
    assert findings(app, desk, clerk) == []


def test_an_examination_that_the_catalogue_does_not_know_is_found_and_one_that_is_not_charged_is_not(app, clerk):
    unknown = Desk(app, code=unused("N"))
    free = Desk(app, {"url": "urn:fhir-ris:not-charged", "valueBoolean": True})
    for desk in (unknown, free):
        desk.perform()
    assert findings(app, unknown, clerk) == ["examination-without-charge"]
    assert findings(app, free, clerk) == []


def test_a_charge_of_nothing_and_one_made_twice_are_found(app, clerk):
    today = clock.now().date().isoformat()
    desk = Desk(app, charge("technical", "T1"))
    base = {"resourceType": "ChargeItem", "status": "billable", "subject": desk.order["subject"], "reason": [COUGH]}
    base |= {"occurrenceDateTime": f"{today}T10:00:00Z", "service": [{"reference": f"ImagingStudy/{desk.study['id']}"}]}
    of = {"supportingInformation": [{"reference": f"ServiceRequest/{desk.procedure['id']}"}]}
    app.create(base | {"code": coded(CPT, "A1")})
    app.create(base | of | {"code": coded(CPT, "A2")})
    assert findings(app, desk, clerk, today) == ["charge-without-examination"] * 2
    desk.perform()
    double = app.create(base | of | {"code": coded(CPT, "A3")})
    set_raw(app, double, code=coded(CPT, "A2"))
    assert findings(app, desk, clerk, today) == ["charge-twice", "charge-without-examination"]


def test_messages_that_have_not_arrived_and_charges_without_one_are_found(app, clerk):
    desk = Desk(app, charge("technical", "T1"))
    desk.perform()
    today = clock.now().date().isoformat()
    endpoint = app.create(BILLING)
    assert "charge-not-sent" in findings(app, desk, clerk)
    other = Desk(app, charge("technical", "T1"))
    other.perform()
    assert findings(app, other, clerk, today) == ["message-not-delivered"]
    delivered = {"$set": {"state": "delivered"}}
    app.run(app.db["outbox"].update_many({"destination": f"Endpoint/{endpoint['id']}"}, delivered))
    assert findings(app, other, clerk, today) == findings(app, other, clerk) == []
    app.put(endpoint | {"status": "off"})


def test_reconciliation_is_for_who_may_and_reads_by_indexes_only(app, clerk, world):
    assert world.person("referrer").get("ChargeItem/$reconciliation").status_code == 403
    assert clerk.get("ChargeItem/$reconciliation?date=yesterday").status_code == 400
    first, last = bounds(day_named(DAY))

    async def stages() -> list[str]:
        naive = [moment.replace(tzinfo=None) for moment in (first, last)]
        during = {"$gte": naive[0], "$lt": naive[1]}
        plans = []
        for kind, where in (
            ("Task", {"$or": [{"search.d.period.e": during}, {"search.d.period.s": during}]}),
            ("Task", {"updated": during}),
            ("ChargeItem", {"search.d.occurrence.s": during}),
            ("ChargeItem", {"search.t": {"$in": [">ServiceRequest/1"]}}),
            ("DiagnosticReport", {"search.d.issued.s": during}),
            ("outbox", {"type": "DFT^P03", "key": {"$gte": 1, "$lt": 2}}),
        ):
            plans.append(str((await app.db[kind].find(where).explain())["queryPlanner"]["winningPlan"]))
        return plans

    for plan in app.run(stages()):
        assert "COLLSCAN" not in plan, plan


def test_half_a_merge_by_hand_is_refused(app, world):
    numbers = ([{"system": "urn:example:mrn", "value": unused("M")}] for _ in range(2))
    prior, survivor = (app.create({"resourceType": "Patient", "active": True, "identifier": one}) for one in numbers)
    replaced = {"link": [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]}
    scheduler = world.person("scheduler", grant=unused("g"))
    assert scheduler.put(prior | {"active": False} | replaced).status_code == 422
    assert scheduler.send("POST", f"Patient/{survivor['id']}/$merge?prior={prior['id']}").status_code == 200
    merged = load(app.get(f"Patient/{prior['id']}"))
    assert scheduler.put({k: v for k, v in merged.items() if k != "link"}).status_code == 422
    assert scheduler.send("POST", f"Patient/{prior['id']}/$unmerge").status_code == 200


def test_the_command_that_looks_for_what_was_not_charged_is_on_record(app, tmp_path):
    mongodb = {"RIS_MONGODB_URI": app._uri, "RIS_MONGODB_DATABASE": app.db.name, "RIS_DATA_DIR": str(tmp_path)}
    before = len(app.audit())
    done = CliRunner().invoke(cli, ["charges", "check", "--date", "2020-02-29"], env=mongodb)
    assert (done.exit_code, done.output) == (0, "2020-02-29: all charges are right\n")
    subtypes = [code["code"] for event in app.audit(before) for code in event["subtype"]]
    assert "charges-check" in subtypes
