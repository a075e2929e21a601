"""What is found about an order when it comes in, by FHIR and HL7 v2 alike, and what becomes of it (`order_verdict.py`)."""

import asyncio

import pytest

from resources import order_verdict
from tests.department import CT_CHEST, DCM, LOINC, Department, Resource, code, identifiers, text, unused, v2

LOCAL = "urn:fhir-ris:v2-system:99RIS"  # 99RIS in OBR-4.3


def entry(local: str, *rules: tuple[str, str], modality: str = "CT", **elements) -> Resource:
    """A catalogue entry with the department's own code, and what is done about orders for it."""
    said = [
        {"url": order_verdict.INTAKE_RULE, "extension": [{"url": "finding", "valueCode": f}, {"url": "rule", "valueCode": r}]}
        for f, r in rules
    ]
    needs = [{"url": "urn:fhir-ris:reason-required", "valueBoolean": True}] if "missing-reason" in dict(rules) else []
    found = {
        "resourceType": "ActivityDefinition",
        "status": "active",
        "url": f"urn:example:catalogue:{local}",
        "identifier": [{"system": LOCAL, "value": local}],
        "kind": "ServiceRequest",
        "code": procedure(local),
        "topic": [{"coding": [{"system": DCM, "code": modality}]}],
        "extension": [*said, *needs],
    }
    return {k: v for k, v in (found | elements).items() if v}


def procedure(local: str) -> Resource:
    return {"coding": [{"system": LOCAL, "code": local}]}


async def registered(ris: Department) -> Resource:
    """A patient that both doors know."""
    return await ris.patient(identifier=[{"system": "urn:oid:1.2.3", "value": unused("P")}])


def orm(patient: Resource, local: str, placer: str, control: str = "NW", orc7: str = "") -> bytes:
    mrn = patient["identifier"][0]["value"]
    return v2(
        "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1",
        f"PID|1||{mrn}^^^EXAMPLEHOSP&1.2.3&ISO^MR||Muster^Mara",
        f"ORC|{control}|{placer}^EHR|||||{orc7}",
        f"OBR|1|{placer}^EHR||{local}^Some^99RIS",
    )


async def items(ris: Department, order: Resource, *, open_only: bool = True) -> dict[str, Resource]:
    found = await ris.search("Task", focus=f"ServiceRequest/{order['id']}", intent="order")
    return {t["code"]["coding"][0]["code"]: t for t in found if not open_only or t["status"] == "requested"}


# What is odd about an order: elements of it, beside the code of an entry with this rule.
ODD = {
    "missing-reason": {},
    "duplicate-order": {"reasonCode": [{"text": "cough"}]},
    "implausible-date": {"reasonCode": [{"text": "cough"}], "occurrenceDateTime": "2020-01-01T08:00:00Z"},
}
STATUS = {"missing-reason": 422, "duplicate-order": 409, "implausible-date": 422}


@pytest.mark.parametrize("finding", ODD)
@pytest.mark.parametrize("rule", ["accept", "work-item", "hold", "refuse"])
def test_by_the_catalogue_s_rule_an_order_is_taken_shown_held_or_refused(ris, finding, rule):
    async def scenario():
        local, patient = unused("PROC"), await ris.patient()
        await ris.create(entry(local, (finding, rule)))
        if finding == "duplicate-order":
            await ris.order(patient, code=procedure(local), reasonCode=[{"text": "fall"}])
        attempt = ris.order(patient, code=procedure(local), **ODD[finding])
        if rule == "refuse":
            refusal = await ris.refused(attempt)
            assert refusal.status == STATUS[finding]
            assert (refusal.issues[0].expression or "").startswith("ServiceRequest.")
            return
        order = await attempt
        shown = await items(ris, order)
        # For dates and duplicates the door itself wants a work item at least.
        expected = {"accept": finding if finding != "missing-reason" else None, "work-item": finding, "hold": "order-hold"}[rule]
        assert set(shown) == {expected} - {None}
        assert order["status"] == ("on-hold" if rule == "hold" else "active")
        assert len(await ris.procedures(order)) == (0 if rule == "hold" else 1)
        for item in shown.values():
            assert order_verdict.kinds_of(item) == {finding}

    ris.run(scenario())


def test_a_procedure_that_is_not_in_the_catalogue_is_shown_or_what_the_entry_for_all_others_says(ris):
    async def scenario():
        await ris.create(entry(unused("PROC")))
        order = await ris.order(code=procedure("nowhere"))
        assert set(await items(ris, order)) == {"unknown-procedure"}
        rule = ("unknown-procedure", "refuse")
        general = await ris.create(entry("any", rule, identifier=[{"system": order_verdict.CATALOGUE, "value": "any"}]))
        refusal = await ris.refused(ris.order(code=procedure("nowhere")))
        assert (refusal.status, refusal.code, refusal.issues[0].expression) == (422, "code-invalid", "ServiceRequest.code")
        patient = await registered(ris)
        refused = await ris.receive(orm(patient, "nowhere", unused("L")))
        assert code(refused) == "AE"  # by HL7 v2 too
        await ris.update(general, status="retired")

    ris.run(scenario())


def test_a_rule_that_there_is_not_is_refused_when_the_catalogue_is_written(ris):
    async def scenario():
        for rule in (("missing-reason", "delay"), ("wrong-colour", "hold")):
            assert (await ris.refused(ris.create(entry(unused("PROC"), rule)))).code == "code-invalid"

    ris.run(scenario())


def test_a_draft_waits_with_what_was_found_until_it_is_put_right(ris):
    async def scenario():
        local = unused("PROC")
        await ris.create(entry(local, ("missing-reason", "hold"), ("implausible-date", "work-item")))
        draft = await ris.order(status="draft", code=procedure(local), occurrenceDateTime="2020-01-01T08:00:00Z")
        shown = await items(ris, draft)
        assert (draft["status"], set(shown)) == ("draft", {"order-hold", "implausible-date"})
        draft = await ris.update(draft, reasonCode=[{"text": "cough"}])
        assert set(await items(ris, draft)) == {"implausible-date"}
        assert (await ris.read(shown["order-hold"]))["statusReason"]["coding"][0]["code"] == "no-longer-so"
        await ris.update(draft, status="active", occurrenceDateTime=None)
        assert await items(ris, draft) == {}
        assert (await ris.step(draft))["status"] == "requested"

    ris.run(scenario())


def test_a_draft_that_its_placer_makes_active_is_held_where_it_must_be_looked_at(ris):
    async def scenario():
        local = unused("PROC")
        await ris.create(entry(local, ("missing-reason", "hold")))
        draft = await ris.order(status="draft", code=procedure(local))
        held = await ris.become(draft, "active")
        assert held["status"] == "on-hold"
        assert set(await items(ris, held)) == {"order-hold"}
        assert await ris.procedures(held) == []
        assert (await ris.become(held, "active"))["status"] == "active"  # the department itself
        assert await items(ris, held) == {}

    ris.run(scenario())


@pytest.mark.parametrize("first", ["fhir", "v2"])
def test_duplicates_are_found_over_both_doors_though_each_has_its_own_code(ris, first):
    async def scenario():
        local, loinc, patient, placer = unused("PROC"), unused("9999-"), await registered(ris), unused("L")
        both = {"coding": [*procedure(local)["coding"], {"system": LOINC, "code": loinc}]}
        names = [{"system": LOCAL, "value": local}, {"system": LOINC, "value": loinc}]
        await ris.create(entry(local, code=both, identifier=names))
        by_fhir = {"code": {"coding": [{"system": LOINC, "code": loinc}]}}
        if first == "fhir":
            old = await ris.order(patient, **by_fhir)
            await ris.accepted(orm(patient, local, placer))
            new = await ris.one("ServiceRequest", identifier=placer, intent="order")
        else:
            await ris.accepted(orm(patient, local, placer))
            old = await ris.one("ServiceRequest", identifier=placer, intent="order")
            new = await ris.order(patient, **by_fhir)
        item = (await items(ris, new))["duplicate-order"]
        assert [r["reference"] for r in item["basedOn"]] == [f"ServiceRequest/{o['id']}" for o in (new, old)]
        assert identifiers(old)["FILL"] in item["description"]
        # Whoever finds that one of them is to go, cancels it: nobody else need look.
        await ris.become(old, "revoked")
        assert (await ris.read(item))["status"] == "completed"

    ris.run(scenario())


def test_of_two_alike_orders_at_once_one_is_refused_where_duplicates_are(ris):
    async def scenario():
        local, patient = unused("PROC"), await ris.patient()
        await ris.create(entry(local, ("duplicate-order", "refuse")))
        done = await asyncio.gather(*(ris.order(patient, code=procedure(local)) for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(one, dict) for one in done) == 1

    ris.run(scenario())


def test_all_duplicates_are_named_and_those_that_are_left_when_one_ends(ris):
    async def scenario():
        patient = await ris.patient()
        first, second, third = await asyncio.gather(*(ris.order(patient, code={"coding": [{"code": "d"}]}) for _ in range(3)))
        found = await ris.work_items("duplicate-order", patient=f"Patient/{patient['id']}")
        assert sorted(len(item["basedOn"]) for item in found) == [2, 3]  # of orders at once too, the later see the earlier
        await ris.become(first, "revoked")
        left = await ris.work_items("duplicate-order", patient=f"Patient/{patient['id']}", status="requested")
        two = {f"ServiceRequest/{o['id']}" for o in (second, third)}
        assert [{r["reference"] for r in item["basedOn"]} for item in left] == [two]

    ris.run(scenario())


def test_what_an_order_says_of_its_time_and_visit_is_looked_at(ris):
    async def scenario():
        leap = await ris.order(occurrenceDateTime="2016-12-31T23:59:60Z", authoredOn="2016-12-31T23:59:60Z")
        assert "implausible-date" in await items(ris, leap)
        mine, other = await ris.patient(), await ris.patient()
        whose = {"reference": f"Patient/{other['id']}"}
        visit = await ris.create(
            {"resourceType": "Encounter", "status": "in-progress", "class": {"code": "IMP"}, "subject": whose}
        )
        there = {"encounter": {"reference": f"Encounter/{visit['id']}"}}
        await ris.order(other, **there)
        refusal = await ris.refused(ris.order(mine, **there))
        assert (refusal.code, refusal.issues[0].expression) == ("business-rule", "ServiceRequest.encounter")

    ris.run(scenario())


# Orders of several procedures


def test_a_panel_becomes_as_many_procedures_as_it_has_whatever_door_it_comes_by(ris):
    async def scenario():
        chest, liver, panel = unused("PROC"), unused("PROC"), unused("PANEL")
        await ris.create(entry(chest))
        await ris.create(entry(liver, modality="US"))
        composed = [{"type": "composed-of", "resource": f"urn:example:catalogue:{local}"} for local in (chest, liver)]
        await ris.create(entry(panel, relatedArtifact=composed))
        patient, placer = await registered(ris), unused("L")
        await ris.accepted(orm(patient, panel, placer))
        by_v2 = await ris.one("ServiceRequest", identifier=placer, intent="order")
        by_fhir = await ris.order(code=procedure(panel))
        named = [f"urn:example:catalogue:{local}|1" for local in (chest, liver)]
        by_canonical = await ris.order(code={"text": "chest and liver"}, instantiatesCanonical=named)
        for order in (by_v2, by_fhir, by_canonical):
            procedures = await ris.procedures(order)
            assert {p["code"]["coding"][0]["code"] for p in procedures} == {chest, liver}
            steps = await ris.steps(order)
            assert sorted(s["input"][0]["valueCodeableConcept"]["coding"][0]["code"] for s in steps) == ["CT", "US"]
            studies = [s for p in procedures for s in await ris.search("ImagingStudy", basedon=f"ServiceRequest/{p['id']}")]
            assert len({s["identifier"][0]["value"] for s in studies}) == 2
            assert "unknown-procedure" not in await items(ris, order)

    ris.run(scenario())


def test_a_draft_with_its_procedures_is_planned_when_it_is_accepted(ris):
    async def scenario():
        draft = await ris.order(status="draft")
        for side in ("left", "right"):
            await ris.create(
                {
                    "resourceType": "ServiceRequest", "status": "draft", "intent": "filler-order", "code": CT_CHEST,
                    "subject": draft["subject"], "basedOn": [{"reference": f"ServiceRequest/{draft['id']}"}],
                    "bodySite": [{"text": side}],
                }
            )  # fmt: skip
        assert await ris.steps(draft) == []
        await ris.become(draft, "active")
        assert [s["status"] for s in await ris.steps(draft)] == ["requested", "requested"]

    ris.run(scenario())


# Orders that have to do with each other


def test_an_order_that_replaces_another_ends_it_once_it_is_accepted(ris):
    async def scenario():
        old = await ris.order()
        patient = await ris.read(old["subject"]["reference"])
        takes = {"replaces": [{"reference": f"ServiceRequest/{old['id']}"}]}
        new = await ris.order(patient, status="draft", **takes)
        assert (await ris.read(old))["status"] == "active"
        await ris.become(new, "active")
        assert (await ris.read(old))["status"] == "revoked"
        assert "duplicate-order" not in await items(ris, new)  # it is no duplicate of what it replaces
        assert (await ris.refused(ris.order(patient, **takes))).code == "duplicate"
        local = unused("PROC")
        await ris.create(entry(local, ("missing-reason", "hold")))
        held = await ris.order(patient, code=procedure(local), replaces=[{"reference": f"ServiceRequest/{new['id']}"}])
        assert (held["status"], (await ris.read(new))["status"]) == ("on-hold", "revoked")
        assert (await ris.refused(ris.order(**takes))).issues[0].expression == "ServiceRequest.replaces"
        # Not itself, nor what is no imaging order: a requested procedure, a laboratory's.
        lab = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": old["subject"]}
        blood = await ris.create(lab | {"category": [{"text": "Laboratory"}]})
        last = await ris.order(patient, code={"text": "last"})
        for wrong in (blood, await ris.procedure(last), last):
            named = [{"reference": f"ServiceRequest/{wrong['id']}"}]
            assert (await ris.refused(ris.update(await ris.read(last), replaces=named))).code == "business-rule"
            assert (await ris.read(wrong))["status"] == "active"

    ris.run(scenario())


def test_an_order_whose_examination_has_begun_can_not_be_replaced(ris):
    async def scenario():
        old = await ris.order()
        await ris.book(old, await ris.scanner(), status="arrived")
        await ris.become(await ris.step(old), "in-progress")
        patient = await ris.read(old["subject"]["reference"])
        before = await ris.counts()
        refusal = await ris.refused(ris.order(patient, replaces=[{"reference": f"ServiceRequest/{old['id']}"}]))
        assert (refusal.code, await ris.counts()) == ("conflict", before)

    ris.run(scenario())


def test_orders_that_share_a_requisition_are_of_one_patient(ris):
    async def scenario():
        shared = {"requisition": {"system": "urn:example:requisition", "value": unused("G")}}
        first = await ris.order(**shared)
        patient = await ris.read(first["subject"]["reference"])
        await ris.order(patient, code={"text": "another"}, **shared)
        refusal = await ris.refused(ris.order(**shared))
        assert (refusal.code, refusal.issues[0].expression) == ("business-rule", "ServiceRequest.requisition")

    ris.run(scenario())


@pytest.mark.parametrize("status", ["active", "draft"])
def test_nothing_is_ordered_by_either_door_for_a_patient_whose_record_is_not_active(ris, status):
    async def scenario():
        patient = await registered(ris)
        waiting = await ris.order(patient, status="draft")
        known = await ris.order(patient)
        await ris.update(await ris.read(patient), active=False)
        refusal = await ris.refused(ris.order(patient, status=status))
        assert (refusal.status, refusal.issues[0].expression) == (422, "ServiceRequest.subject")
        ack = await ris.receive(orm(patient, unused("PROC"), unused("L")))
        assert code(ack) == "AE"
        assert "not active" in str(refusal)
        assert "not active" in text(ack)
        await ris.refused(ris.become(waiting, "active"))
        await ris.become(known, "on-hold")  # what was ordered goes on
        await ris.become(known, "active")

    ris.run(scenario())
