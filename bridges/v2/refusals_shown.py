"""Work items for refusals that nobody would see otherwise."""

from bridges.v2.received import Received
from bridges.v2.refused import Refused
from fhir_server.unit_of_work import UnitOfWork
from resources.work_items import raise_once


async def stranger(unit: UnitOfWork, received: Received, failure: Refused) -> None:
    """One open work item for an address, however many messages come from it."""
    text = f"HL7 v2 messages from {received.peer.host} are refused: {failure.errors[0].text}. Names: {received.key.sender[:100]}"
    await raise_once(unit, "unknown-sender", received.peer.host, text)


async def after_acceptance(unit: UnitOfWork, received: Received, failure: Refused) -> None:
    """A work item for a message that we took over and then refused, while its sender hears nothing of that."""
    sender = received.key.sender[:100]
    text = f"{received.label} {received.key.control_id[:100]} of {sender} was accepted and then refused ({failure.answer})"
    await raise_once(unit, "accepted-message-refused", f"{sender} {received.key.id}", text)
