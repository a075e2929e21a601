"""ADT: registration and updates by the master of patient identity (IHE RAD-1, RAD-12)."""

from bridges.v2.patient_in import master
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply
from bridges.v2.refused import no_segment
from bridges.v2.visit_in import visit


async def receive_adt(reception: Reception) -> Reply | None:
    """The patient as the master says, and the visit."""
    message, sender = reception.message, reception.sender
    pid = message.first("PID")
    if pid is None:
        raise no_segment("PID", "the patient (PID)")
    patient = await master(reception.unit, pid, sender)
    await visit(reception.unit, message.first("PV1"), patient, sender, People(reception.unit, sender), message.type[1])
    return None
