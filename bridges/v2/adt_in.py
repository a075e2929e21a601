"""ADT: registration, visits, updates and merges by the master of patient identity (IHE RAD-1, RAD-12)."""

from typing import Final

from bridges.v2.ack import AckError
from bridges.v2.clinical_in import clinical
from bridges.v2.coverage_in import insurances, related_people
from bridges.v2.merge_in import receive_identifier_change, receive_merge
from bridges.v2.message import Message, Segment
from bridges.v2.message_log import HELD
from bridges.v2.patient_in import master, required_pid
from bridges.v2.people_in import People
from bridges.v2.reception import Receive, Reception, Reply
from bridges.v2.refused import Refused
from bridges.v2.visit_events import occurred, receive_visit

# Events about a person and a visit, and those about a person alone (HL7 v2.5.1 chapter 3).
VISIT_EVENTS: Final = ("A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A11", "A12", "A13", "A38")
PERSON_EVENTS: Final = ("A28", "A31")


async def receive_adt(reception: Reception) -> Reply | None:
    """The patient as the master says, the visit, and what the message tells of health and insurance."""
    unit, message, sender = reception.unit, reception.message, reception.sender
    patient = await master(unit, _only_pid(message), sender)
    if patient is None:
        return Reply(text="nothing was changed: a person must look at it", state=HELD)
    people = People(unit, sender)
    encounter = await receive_visit(reception, patient, people)
    await clinical(unit, message, sender, patient, encounter, occurred(reception))
    await insurances(unit, message, sender, patient, update=True)
    await related_people(unit, message, sender, patient)
    return None


def _only_pid(message: Message) -> Segment:
    """The one PID. These events are about one person (HL7 v2.5.1 3.3); whose were the allergies behind a second?"""
    pids = message.all("PID")
    if len(pids) > 1:
        text = "this message is about one person: a second PID can't stand here"
        raise Refused(AckError("PID", pids[1].number, code=100, text=text))
    return required_pid(pids[0] if pids else None)


# Trigger event -> what the message does.
ADT: Final[dict[str, Receive]] = {
    **dict.fromkeys((*VISIT_EVENTS, *PERSON_EVENTS), receive_adt),
    "A40": receive_merge,
    "A47": receive_identifier_change,
}
