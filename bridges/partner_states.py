"""How it stands with each partner (Endpoint): is it there, what waits for it, what came and went last.

up          it answered when it was last asked, or has sent something as usual
down        what is sent to it, or asked of it, isn't answered
refusing    it answers, and doesn't take the message that is next
silent      it has sent nothing for longer than usual (`bridges/v2/alerts.py`)
quiet       there has been nothing yet
off         its Endpoint isn't active
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pymongo.asynchronous.database import AsyncDatabase

from bridges import contacts
from bridges.contacts import Contact
from bridges.dicom import dicom_endpoints
from bridges.traffic import Queue, Rate, Traffic
from bridges.v2.destination import is_v2
from bridges.v2.partner import headers
from fhir_server import outbox
from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources.coverage import payers

V2: Final = "hl7v2-mllp"
WORST: Final = ("down", "refusing", "silent", "off", "up", "quiet")


@dataclass(frozen=True, slots=True)
class PartnerState:
    """One partner. `kind`: V2, one of DICOM's (`bridges/dicom/dicom_endpoints.py`), `hl7-fhir-rest`, or what its Endpoint says.

    destination: how it is called in the outbox; "" for one that nothing is sent to
    sends: whether it is one that sends us messages
    """

    endpoint: Resource
    kind: str
    destination: str
    sends: bool
    state: str = "quiet"
    why: str = ""
    delivered: datetime | None = None
    received: datetime | None = None
    queue: Queue | None = None
    aside: int = 0
    out: Rate = field(default_factory=Rate)
    came: Rate = field(default_factory=Rate)
    contact: Contact | None = None

    @property
    def reference(self) -> str:
        return f"Endpoint/{self.endpoint['id']}"

    @property
    def name(self) -> str:
        return str(self.endpoint.get("name") or self.endpoint["id"])

    @property
    def last(self) -> datetime | None:
        """When there was last anything from it."""
        return max((m for m in (self.delivered, self.received) if m is not None), default=None)


def kind_of(endpoint: Resource) -> str:
    """What a partner is, by its Endpoint."""
    return dicom_endpoints.kind_of(endpoint) or str(endpoint.get("connectionType", {}).get("code", ""))


def destination_of(endpoint: Resource) -> str:
    """How it is called in the outbox; "" when nothing is sent to it."""
    kind, reference = kind_of(endpoint), f"Endpoint/{endpoint['id']}"
    if is_v2(endpoint):
        wants = {c.get("code") for payload in endpoint.get("payloadType", ()) for c in codings(payload)}
        return "" if wants == {"none"} else reference
    if kind == dicom_endpoints.MPPS:
        return f"{outbox.DICOM}{reference}"
    return f"{outbox.PAYER}{reference}" if kind == payers.FHIR_REST else ""


async def of(db: AsyncDatabase[dict[str, Any]], endpoints: Sequence[Resource]) -> list[PartnerState]:
    """How it stands with these, in their order."""
    traffic = Traffic(db)
    known = [(e, kind_of(e), destination_of(e), is_v2(e) and "accept-application" in headers(e)) for e in endpoints]
    to = [destination for _, _, destination, _ in known if destination]
    senders = [f"Endpoint/{e['id']}" for e, _, _, sends in known if sends]
    queues, aside = await asyncio.gather(traffic.queues(to), traffic.aside(to))
    out, came, newest = await asyncio.gather(traffic.sent(to), traffic.received(senders), traffic.newest(to, senders))
    met = await contacts.last(db, [f"Endpoint/{e['id']}" for e in endpoints])
    alerts = set(await db["alerts"].distinct("_id"))
    states = []
    for endpoint, kind, destination, sends in known:
        reference = f"Endpoint/{endpoint['id']}"
        queue, contact, delivered = queues.get(destination), met.get(reference), newest.get(destination)
        received = newest.get(f"from {reference}") if sends else None
        going, why = _going(queue, contact, delivered) if kind in _ASKED else ("quiet", "")
        coming = "silent" if f"silent {reference}" in alerts else "up" if received else "quiet"
        state = min((going, coming if sends else "quiet"), key=WORST.index)
        if endpoint.get("status") != "active":
            state, why = "off", ""
        states.append(
            PartnerState(
                endpoint, kind, destination, sends, state, why, delivered, received, queue, aside.get(destination, 0),
                out.get(destination) or Rate(), came.get(reference) or Rate(), contact,
            )
        )  # fmt: skip
    return states


_ASKED: Final = frozenset({V2, dicom_endpoints.MPPS, dicom_endpoints.QIDO, payers.FHIR_REST})


def _going(queue: Queue | None, contact: Contact | None, delivered: datetime | None) -> tuple[str, str]:
    """How it is with what we send or ask, and what is said of it."""
    if queue is not None and queue.error:
        return "refusing" if queue.refused else "down", queue.error
    if contact is not None and (delivered is None or contact.at > delivered):
        return ("up" if contact.ok else "down"), contact.text
    return ("up" if delivered else "quiet"), ""
