"""Which status may become which: each pair of each lifecycle is tried (DESIGN.md section 3)."""

import asyncio

import pytest

from fhir_server.outcome import FhirError
from tests.department import Resource, unused

# Status -> what it may become. Any may stay as it is, and any may become entered-in-error, which is the end.
LIFECYCLES = {
    "ServiceRequest": {
        "draft": "active on-hold revoked",
        "active": "on-hold revoked completed",
        "on-hold": "active revoked completed",
        "revoked": "",
        "completed": "",
        "unknown": "draft active on-hold revoked completed",
        "entered-in-error": "",
    },
    "Appointment": {
        "proposed": "pending waitlist booked arrived checked-in noshow cancelled",
        "pending": "proposed waitlist booked arrived checked-in noshow cancelled",
        "waitlist": "proposed pending booked arrived checked-in noshow cancelled",
        "booked": "arrived checked-in fulfilled cancelled noshow",
        "arrived": "booked checked-in fulfilled cancelled noshow",
        "checked-in": "arrived fulfilled cancelled",
        "fulfilled": "",
        "cancelled": "",
        "noshow": "",
        "entered-in-error": "",
    },
    "Task": {
        "draft": "requested accepted ready cancelled",
        "requested": "received accepted ready in-progress on-hold cancelled rejected completed",
        "received": "accepted rejected cancelled in-progress",
        "accepted": "requested ready in-progress on-hold cancelled completed",
        "ready": "requested accepted in-progress on-hold cancelled completed",
        "on-hold": "requested accepted ready in-progress cancelled",
        "in-progress": "completed failed on-hold accepted ready requested",
        "rejected": "",
        "cancelled": "",
        "failed": "",
        "completed": "",
        "entered-in-error": "",
    },
    "Procedure": {
        "preparation": "in-progress not-done on-hold stopped",
        "in-progress": "completed stopped on-hold not-done",
        "on-hold": "in-progress stopped not-done completed",
        "unknown": "in-progress completed stopped not-done",
        "not-done": "",
        "stopped": "",
        "completed": "",
        "entered-in-error": "",
    },
    "DiagnosticReport": {
        "registered": "partial preliminary final cancelled",
        "partial": "preliminary final cancelled",
        "preliminary": "partial final cancelled",
        "final": "amended corrected appended cancelled",
        "amended": "corrected appended cancelled",
        "corrected": "amended appended cancelled",
        "appended": "amended corrected cancelled",
        "unknown": "registered partial preliminary final cancelled",
        "cancelled": "",
        "entered-in-error": "",
    },
    "ImagingStudy": {
        "registered": "available cancelled",
        "available": "cancelled registered",
        "cancelled": "registered",
        "unknown": "registered available cancelled",
        "entered-in-error": "",
    },
}


def example(kind: str, patient: Resource) -> Resource:
    """A resource of this type that hangs on no other than its patient."""
    subject = {"reference": f"Patient/{patient['id']}"}
    text = {"text": "CT of the chest"}
    elements: dict[str, Resource] = {
        "ServiceRequest": {"intent": "order", "code": text, "subject": subject},
        "Appointment": {
            "start": "2026-09-08T08:00:00Z",
            "end": "2026-09-08T08:30:00Z",
            "participant": [{"actor": subject, "status": "accepted"}],
        },
        "Task": {"intent": "order", "code": text, "for": subject},
        "Procedure": {"subject": subject},
        "DiagnosticReport": {"code": text, "subject": subject, "conclusion": "No acute finding."},
        "ImagingStudy": {"subject": subject},
    }
    return {"resourceType": kind, **elements[kind]}


@pytest.mark.parametrize(("kind", "was"), [(k, s) for k, states in LIFECYCLES.items() for s in states])
def test_a_status_becomes_what_it_may_and_nothing_else(ris, kind, was):
    async def becomes(resource: Resource, status: str) -> bool:
        (answer,) = await asyncio.gather(ris.become(resource, status), return_exceptions=True)
        if isinstance(answer, FhirError):
            assert (answer.status, answer.issues[0].expression) == (422, f"{kind}.status")
            return "can't become" not in str(answer)  # else what the step needs isn't there
        return answer["status"] == (await ris.read(resource))["status"] == status

    async def scenario():
        patient = await ris.patient()
        possible = set()
        for status in LIFECYCLES[kind]:
            if await becomes(await ris.create(example(kind, patient) | {"status": was}), status):
                possible.add(status)
        assert possible == {*LIFECYCLES[kind][was].split(), was, "entered-in-error"}

    ris.run(scenario())


def test_hl7_v2_is_told_what_an_order_can_become(ris):
    async def scenario():
        number = unused("L")
        message = (
            "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
            f"PID|||P{number}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
        )
        obr = f"OBR|1|{number}^EHR||24627-2^CT Chest^LN||||||||||||||||||||CT"
        await ris.accepted(*message, f"ORC|NW|{number}^EHR", obr)
        order = await ris.one("ServiceRequest", identifier=number, intent="order")
        await ris.perform(order)
        await ris.report(order)
        ack = await ris.receive(*message, f"ORC|CA|{number}^EHR", obr)
        assert "is completed and can't become revoked (it can become: nothing: it has ended)" in ack.raw.decode()

    ris.run(scenario())
