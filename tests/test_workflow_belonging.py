"""What the parts of an examination hang on: they stay with their order and their patient, and what was done isn't deleted."""

from typing import Any

import pytest

from fhir_server.references import ref
from smart_auth.access import Access
from smart_auth.circumstances import Circumstances
from smart_auth.scopes import parse_scopes
from tests.department import Department, Resource

SYSTEM = Access("app", parse_scopes("system/*.cruds"), "t")


def person(role: str) -> Access:
    who = {"user": f"Practitioner/{role}", "user_name": role, "role": role}
    return Access("app", parse_scopes("user/*.cruds"), "t", **who, circumstances=Circumstances())


TECHNOLOGIST, SCHEDULER, RADIOLOGIST = person("technologist"), person("scheduler"), person("radiologist")
STEP_OF = "urn:fhir-ris:scheduled-procedure-step"


async def refused(ris: Department, access: Access, resource: Resource, said: str, **changes: Any) -> None:
    """The resource as it is stored can't be changed like this."""
    now = await ris.read(resource)
    changed = {k: v for k, v in (now | changes).items() if v is not None}
    error = await ris.refused(ris.interactions.update(access, changed))
    assert said in str(error), error
    assert await ris.read(resource) == now


async def examined(ris: Department) -> Resource:
    order = await ris.order()
    await ris.perform(order)
    return order


@pytest.mark.parametrize("access", [SYSTEM, SCHEDULER], ids=["a system", "a person"])
def test_requested_procedures_steps_and_studies_stay_with_their_order(ris, access):
    async def scenario():
        order, other = await ris.order(), await ris.order()
        procedure, study = await ris.procedure(order), await ris.study(order)
        elsewhere = [ref(await ris.procedure(other))]
        for part, foreign in ((procedure, [ref(other)]), (await ris.step(order), elsewhere), (study, elsewhere)):
            who = SYSTEM if part is study else access  # studies are for examiners
            await refused(ris, who, part, "stays so", basedOn=None)
            await refused(ris, who, part, "stays so", basedOn=foreign)
        await refused(ris, SYSTEM, study, "another patient's", basedOn=[*study["basedOn"], *elsewhere])
        # Two examinations of one patient can have their images in one study.
        second = await ris.procedure(await ris.order(await ris.read(order["subject"]["reference"])))
        await ris.interactions.update(SYSTEM, study | {"basedOn": [*study["basedOn"], ref(second)]})

    ris.run(scenario())


def test_what_is_performed_is_the_same_patients(ris):
    async def scenario():
        order, other = await ris.order(), await ris.order()
        theirs = await ris.step(other)
        performed: Resource = {"resourceType": "Procedure", "status": "completed", "subject": order["subject"]}
        named = [{"url": STEP_OF, "valueReference": ref(theirs)}]
        for wrong in ({"extension": named}, {"basedOn": [theirs["focus"]]}):
            error = await ris.refused(ris.interactions.create(TECHNOLOGIST, performed | wrong))
            assert "another patient's" in str(error)
        running = await ris.perform(order, "in-progress")
        await refused(ris, TECHNOLOGIST, running, "stays so", extension=named)
        await refused(ris, TECHNOLOGIST, running, "stays so", basedOn=[theirs["focus"]], extension=None)
        assert ((await ris.step(order))["status"], (await ris.step(other))["status"]) == ("in-progress", "requested")

    ris.run(scenario())


def test_a_study_is_read_once_and_for_its_patient(ris):
    async def scenario():
        order, other = await examined(ris), await examined(ris)
        (reading,) = await ris.readings(order)
        (theirs,) = await ris.readings(other)
        for access in (RADIOLOGIST, SYSTEM):
            await refused(ris, access, reading, "stays so", basedOn=theirs["basedOn"])
            await refused(ris, access, reading, "stays so", basedOn=None)
        again = {k: v for k, v in reading.items() if k not in {"id", "meta"}}
        assert "to be read already" in str(await ris.refused(ris.interactions.create(RADIOLOGIST, again)))
        await ris.report(other)  # whose reading has ended
        wrong = again | {"basedOn": theirs["basedOn"]}
        assert "another patient's" in str(await ris.refused(ris.interactions.create(RADIOLOGIST, wrong)))
        assert len(await ris.readings(order)) == 1

    ris.run(scenario())


def test_a_signed_report_stays_with_its_order_and_study(ris):
    async def scenario():
        order, other = await examined(ris), await examined(ris)
        study = ref(await ris.study(order))
        report = await ris.report(order, "amended", imagingStudy=[study])
        await refused(ris, SYSTEM, report, "stays so", basedOn=None)
        await refused(ris, SYSTEM, report, "stays so", basedOn=None, status="corrected")
        await refused(ris, SYSTEM, report, "stays so", imagingStudy=None)
        await refused(ris, SYSTEM, report, "another patient", basedOn=[ref(other)])
        # What else is corrected, is.
        await ris.interactions.update(SYSTEM, report | {"status": "corrected", "conclusion": "Another."})

    ris.run(scenario())


def test_a_booking_keeps_its_patient(ris):
    async def scenario():
        order = await ris.order()
        booking = await ris.book(order, await ris.scanner())
        stations = [p for p in booking["participant"] if not p["actor"]["reference"].startswith("Patient/")]
        await refused(ris, SCHEDULER, booking, "stays so", participant=stations)
        await ris.interactions.update(SCHEDULER, await ris.read(booking) | {"status": "noshow"})

    ris.run(scenario())


def test_what_was_planned_done_or_charged_is_not_deleted(ris):
    async def scenario():
        order = await ris.order()
        charge = await ris.create(
            {"resourceType": "ChargeItem", "status": "billable", "code": {"text": "CT"}, "subject": order["subject"]}
        )
        (reading,) = await ris.readings(await examined(ris))
        for part in (await ris.step(order), await ris.procedure(order), reading, charge):
            error = await ris.refused(ris.interactions.delete(SYSTEM, part["resourceType"], part["id"]))
            assert "can't be deleted" in str(error)
        draft = await ris.order(status="draft")
        await ris.interactions.delete(SYSTEM, "ServiceRequest", draft["id"])

    ris.run(scenario())


def test_a_signature_stays(ris):
    async def scenario():
        report = await ris.report(await examined(ris))
        kind = {"system": "urn:iso-astm:E1762-95:2013", "code": "1.2.840.10065.1.12.1.1"}
        signed = await ris.create(
            {
                "resourceType": "Provenance",
                "target": [ref(report)],
                "recorded": "2026-09-08T09:00:00Z",
                "agent": [{"who": {"display": "A"}}],
                "signature": [{"type": [kind], "when": "2026-09-08T09:00:00Z", "who": {"display": "A"}, "data": "QQ=="}],
            }
        )
        await refused(ris, SYSTEM, signed, "signature", signature=None)
        assert "signature" in str(await ris.refused(ris.interactions.delete(SYSTEM, "Provenance", signed["id"])))

    ris.run(scenario())
