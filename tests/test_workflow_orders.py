"""Orders by FHIR: rules that hold whatever door an order comes in by (resources/service_request.py, order_plan.py)."""

from tests.department import CT_CHEST, identifiers, unused


def number(value: str, code: str = "PLAC", system: str = "urn:example:ehr") -> dict:
    typed = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": code}]}
    return {"type": typed, "system": system, "value": value}


def test_an_order_on_hold_has_its_numbers_and_is_planned_when_it_is_released(ris):
    async def scenario():
        order = await ris.order(status="on-hold")
        assert identifiers(order).keys() == {"FILL", "ACSN"}
        assert await ris.procedures(order) == []
        await ris.become(order, "active")
        assert (await ris.step(order))["status"] == "requested"

    ris.run(scenario())


def test_only_an_order_that_replaces_a_finished_one_may_have_its_number(ris):
    async def scenario():
        patient, placer = await ris.patient(), number(unused("L"))
        old = await ris.order(patient, identifier=[placer])
        heir = {"identifier": [placer], "replaces": [{"reference": f"ServiceRequest/{old['id']}"}]}
        assert (await ris.refused(ris.order(patient, **heir))).code == "duplicate"
        await ris.become(old, "revoked")
        assert (await ris.refused(ris.order(patient, identifier=[placer]))).code == "duplicate"
        new = await ris.order(patient, **heir)
        assert (await ris.refused(ris.order(patient, identifier=[placer]))).code == "duplicate"
        assert (await ris.read(new))["status"] == "active"

    ris.run(scenario())


def test_the_accession_number_of_a_requested_procedure_is_not_another_patient_s_either(ris):
    async def scenario():
        accession = number(unused("A"), "ACSN", "urn:fhir-ris:accession-number")
        await ris.order(identifier=[accession])
        order = await ris.order()
        procedure = {
            "resourceType": "ServiceRequest", "status": "active", "intent": "filler-order", "code": CT_CHEST,
            "subject": order["subject"], "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}], "identifier": [accession],
        }  # fmt: skip
        assert (await ris.refused(ris.create(procedure))).code == "duplicate"

    ris.run(scenario())


def test_a_change_of_the_order_leaves_a_procedure_what_is_its_own(ris):
    async def scenario():
        order = await ris.order()
        procedure = await ris.procedure(order)
        await ris.update(procedure, note=[{"text": "with contrast"}])
        await ris.update(await ris.read(order), priority="stat")
        procedure = await ris.procedure(order)
        assert (procedure["priority"], procedure["note"]) == ("stat", [{"text": "with contrast"}])

    ris.run(scenario())


def test_an_order_with_children_is_still_planned_itself(ris):
    async def scenario():
        parent = await ris.order(status="draft")
        patient = await ris.read(parent["subject"]["reference"])
        await ris.order(patient, basedOn=[{"reference": f"ServiceRequest/{parent['id']}"}])
        await ris.become(parent, "active")
        assert len(await ris.procedures(parent)) == 1

    ris.run(scenario())


def test_a_stopped_examination_asks_what_now_unless_the_order_is_over(ris):
    async def scenario():
        order = await ris.order()
        performed = await ris.perform(order, "in-progress")
        await ris.become(performed, "stopped")
        step = await ris.step(order)
        assert len(await ris.work_items("examination-stopped", focus=f"Task/{step['id']}")) == 1

    ris.run(scenario())
