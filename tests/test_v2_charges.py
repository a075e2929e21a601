"""What is charged, when, how often, and what is taken back: ChargeItems and the DFT^P03 that tell of them."""

from decimal import Decimal
from typing import Any

import pytest

from tests.department import Department, Resource, unused

CPT = "http://www.ama-assn.org/go/cpt"
HOUSE = "urn:example:procedures"
COUGH = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05", "display": "Cough"}]}


def charge(component: str | None, code: str, **more: Any) -> Resource:
    parts: list[Resource] = [{"url": "code", "valueCodeableConcept": {"coding": [{"system": CPT, "code": code}]}}]
    if component:
        parts.append({"url": "component", "valueCode": component})
    parts += [{"url": k, **v} for k, v in more.items()]
    return {"url": "urn:fhir-ris:charge", "extension": parts}


async def ordered(ris: Department, *charges: Resource, **elements: Any) -> Resource:
    """An order of a procedure whose catalogue entry has these charges."""
    code = unused("X")
    await ris.create(
        {
            "resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest",
            "identifier": [{"system": HOUSE, "value": code}],
        }
        | ({"extension": list(charges)} if charges else {})
    )  # fmt: skip
    return await ris.order(code={"coding": [{"system": HOUSE, "code": code}]}, **({"reasonCode": [COUGH]} | elements))


async def charges_of(ris: Department, order: Resource) -> list[tuple[str, str, str]]:
    """(component, code, status) of each."""
    found = await ris.search("ChargeItem", service=f"ImagingStudy/{(await ris.study(order))['id']}")
    rows = [(c["extension"][0]["valueCode"], c["code"]["coding"][0]["code"], c["status"]) for c in found]
    return sorted(rows)


async def billed(ris: Department, billing: Resource) -> list[list[str]]:
    """Of each message the transactions: `CG 71250 1`."""
    sent = await ris.sent(billing, "DFT^P03")
    return [[f"{f.field(6)} {f.field(7)} {f.field(10)}" for f in m.all("FT1")] for m in sent]


BOTH = (charge("technical", "T1"), charge("professional", "P1"))


def test_each_component_is_charged_once_when_its_work_is_done(ris):
    async def scenario():
        order = await ordered(ris, *BOTH)
        assert await charges_of(ris, order) == []
        await ris.perform(order)
        assert await charges_of(ris, order) == [("technical", "T1", "billable")]
        report = await ris.report(order, "preliminary")
        assert len(await charges_of(ris, order)) == 1
        await ris.become(report, "final")
        await ris.become(report, "amended", conclusion="Once more.")
        assert await charges_of(ris, order) == [("professional", "P1", "billable"), ("technical", "T1", "billable")]

    ris.run(scenario())


def test_a_charge_says_whose_it_is_for_what_and_by_whom(ris):
    async def scenario():
        modifier = {"valueCodeableConcept": {"coding": [{"system": CPT, "code": "26"}]}}
        order = await ordered(
            ris, charge("professional", "P1", modifier=modifier, quantity={"valueDecimal": Decimal(2)}),
            reasonCode=[{"text": "Cough for weeks"}, COUGH],
        )  # fmt: skip
        await ris.perform(order)
        report = await ris.report(order, issued="2026-09-08T09:15:00Z", resultsInterpreter=[{"display": "Reader, Rosa"}])
        (item,) = await ris.search("ChargeItem", service=f"DiagnosticReport/{report['id']}")
        assert item["subject"] == order["subject"]
        assert item["occurrenceDateTime"] == "2026-09-08T09:15:00Z"
        assert item["quantity"]["value"] == 2
        assert item["performer"] == [{"actor": {"display": "Reader, Rosa"}}]
        assert item["reason"] == [COUGH, {"text": "Cough for weeks"}]
        assert item["extension"][1]["valueCodeableConcept"]["coding"][0]["code"] == "26"
        assert item["supportingInformation"][0]["reference"] == f"ServiceRequest/{(await ris.procedure(order))['id']}"

    ris.run(scenario())


def test_a_procedure_that_the_catalogue_does_not_know_or_marks_as_not_charged_is_not_charged(ris):
    async def scenario():
        for order in (await ordered(ris, {"url": "urn:fhir-ris:not-charged", "valueBoolean": True}), await ris.order()):
            await ris.perform(order)
            await ris.report(order)
            assert await charges_of(ris, order) == []

    ris.run(scenario())


def test_a_charge_that_names_no_component_is_technical_and_several_are_each_charged(ris):
    async def scenario():
        order = await ordered(ris, charge(None, "T1"), charge("technical", "T2"))
        billing = await ris.destination("DFT^P03")
        await ris.perform(order)
        assert await charges_of(ris, order) == [("technical", "T1", "billable"), ("technical", "T2", "billable")]
        assert await billed(ris, billing) == [["CG T1 1", "CG T2 1"]]
        await ris.become(billing, "off")

    ris.run(scenario())


@pytest.mark.parametrize("status", ["stopped", "not-done"])
def test_what_was_not_examined_is_not_charged(ris, status):
    async def scenario():
        order = await ordered(ris, *BOTH)
        await ris.perform(order, status)
        assert await charges_of(ris, order) == []

    ris.run(scenario())


def test_what_is_withdrawn_is_taken_back_and_what_is_done_anew_is_charged_anew(ris):
    async def scenario():
        billing = await ris.destination("DFT^P03")
        order = await ordered(ris, *BOTH)
        await ris.perform(order)
        report = await ris.report(order)
        await ris.become(report, "entered-in-error")
        assert ("professional", "P1", "aborted") in await charges_of(ris, order)
        await ris.report(order)
        await ris.become(await ris.procedure(order), "entered-in-error")
        assert {s for _, _, s in await charges_of(ris, order)} == {"aborted"}
        told = await billed(ris, billing)
        assert told[:4] == [["CG T1 1"], ["CG P1 1"], ["CD P1 1"], ["CG P1 1"]]
        assert sorted(told[4]) == ["CD P1 1", "CD T1 1"]
        assert len(told) == 5
        await ris.become(billing, "off")

    ris.run(scenario())


def test_one_of_two_reports_that_is_withdrawn_takes_nothing_back(ris):
    async def scenario():
        order = await ordered(ris, *BOTH)
        await ris.perform(order)
        first = await ris.report(order)
        await ris.report(order, conclusion="A second opinion.")
        await ris.become(first, "entered-in-error")
        assert ("professional", "P1", "billable") in await charges_of(ris, order)

    ris.run(scenario())


async def charged(ris: Department) -> Resource:
    order = await ordered(ris, charge("technical", "T1"))
    await ris.perform(order)
    (item,) = await ris.search("ChargeItem", service=f"ImagingStudy/{(await ris.study(order))['id']}")
    return item


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"quantity": {"value": 3}}], [["CG T1 1"], ["CD T1 1", "CG T1 3"]]),
        ([{"note": [{"text": "seen"}]}], [["CG T1 1"]]),
        ([{"status": "billed"}], [["CG T1 1"]]),
        ([{"status": "billed"}, {"status": "aborted"}], [["CG T1 1"], ["CD T1 1"]]),
        ([{"status": "not-billable"}], [["CG T1 1"], ["CD T1 1"]]),
        ([{"status": "aborted"}, {"status": "entered-in-error"}], [["CG T1 1"], ["CD T1 1"]]),
    ],
)
def test_what_people_change_of_a_charge_is_told_as_charge_and_credit(ris, changes, told):
    async def scenario():
        billing = await ris.destination("DFT^P03")
        item = await charged(ris)
        for change in changes:
            item = await ris.update(item, **change)
        assert await billed(ris, billing) == told
        await ris.become(billing, "off")

    ris.run(scenario())


def test_a_deleted_charge_is_a_credit_and_what_is_taken_back_stays_so(ris):
    async def scenario():
        billing = await ris.destination("DFT^P03")
        await ris.delete(await charged(ris))
        aborted = await ris.become(await charged(ris), "aborted")
        assert (await ris.refused(ris.become(aborted, "billable"))).status == 422
        assert await billed(ris, billing) == [["CG T1 1"], ["CD T1 1"], ["CG T1 1"], ["CD T1 1"]]
        await ris.become(billing, "off")

    ris.run(scenario())


def test_only_who_wants_charges_gets_them(ris):
    async def scenario():
        other = await ris.destination("ORU^R01", "ORM^O01")
        await charged(ris)
        assert await billed(ris, other) == []
        await ris.become(other, "off")

    ris.run(scenario())
