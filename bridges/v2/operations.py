"""What an interface operator does with messages: send again, process again, cancel. Each is on record with who did it."""

from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final
from urllib.parse import urlencode

from bridges.v2 import message_log, message_search, message_show
from bridges.v2.inbound import Inbound
from bridges.v2.message_search import Wanted
from bridges.v2.received import MAX_UNREADABLE
from bridges.v2.settlement import seen_to
from fhir_server import audit, clock, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

_SENT_AGAIN: Final = ("refused", "dead", "invalid", "delivered", "cancelled")
_MOST_REASON: Final = 200


class NotPossible(Exception):
    """The message isn't there, or isn't in a state in which this can be done. The text says so."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who may work on messages; `access` is who the audit trail shows."""

    interactions: Interactions
    access: Access
    zone: tzinfo

    async def find(self, wanted: Wanted) -> list[dict[str, Any]]:
        """The newest messages that are wanted. Who looks for those of a patient or an order learns of it: that is on record."""
        found = await message_search.find(self.interactions.store.db, wanted)
        asked = {"patient": wanted.patient, "order": wanted.order}
        if query := urlencode({name: value for name, value in asked.items() if value}):
            whose = dict.fromkeys(str(document["patient"]) for document in found if document.get("patient"))
            await self.interactions.record(self.access, Act("message-list", "v2-operator", query=query), audit.seen(whose))
        return found

    async def show(self, message_id: str, *, fields: bool = False, names: bool = True) -> str:
        """A message with its outcome, as text."""
        return message_show.shown(await self.open(message_id), fields=fields, names=names)

    async def open(self, message_id: str) -> dict[str, Any]:
        """The document of a message, received or sent. That it was shown is on record before it is."""
        document = await self._read(message_id)
        patient = [document["patient"]] if document.get("patient") else []
        seen = audit.seen(dict.fromkeys([*patient, *document["about"]]))
        await self.interactions.record(self.access, _act("show", document), seen)
        return document

    async def replay(self, message_id: str) -> str:
        """Send a message again, under its control id, or process one again that was refused or held; what is or will be done."""
        document = await self._read(message_id)
        if "destination" in document:
            await self._change(
                document, _SENT_AGAIN, {"state": "pending", "refusals": 0, "unanswered": 0, "error": None}, "replay"
            )
            return "it will be sent again"
        if document["outcome"] == "AA" and document.get("state") != message_log.HELD:
            raise NotPossible(f"message {message_id} was processed")
        if not document["sender"] and len(document["raw"]) >= MAX_UNREADABLE:
            raise NotPossible(f"message {message_id} could not be read, and only its beginning was kept")
        await self.interactions.record(self.access, _act("replay", document), audit.seen(document["about"]))
        outcome = await Inbound(self.interactions, self.zone).process_again(document)
        still = (await self._read(message_id)).get("state") == message_log.HELD
        return f"it was processed again: {outcome}" + (", and is held as before" if still else "")

    async def cancel(self, message_id: str, reason: str) -> None:
        """Don't send a message that waits."""
        document = await self._read(message_id)
        if "destination" not in document:
            raise NotPossible(f"message {message_id} was received; only one that waits to be sent can be cancelled")
        said = " ".join(reason.split())[:_MOST_REASON]
        if not said:
            raise NotPossible("a reason is needed")
        await self._change(
            document, ("pending", "refused", "dead", "invalid"), {"state": "cancelled", "error": f"cancelled: {said}"}, "cancel"
        )

    async def _change(self, document: dict[str, Any], states: tuple[str, ...], change: dict[str, Any], event: str) -> None:
        async def work(unit: UnitOfWork) -> None:
            state = {"state": change["state"], "at": clock.naive(unit.now)}
            said = change | ({"replayed": clock.naive(unit.now)} if event == "replay" else {})
            done = await unit.db[outbox.COLLECTION].update_one(
                {"_id": document["_id"], "state": {"$in": states}},
                {"$set": said, "$push": {"states": {"$each": [state], "$slice": -100}}},
                session=unit.session,
            )
            if not done.modified_count:
                raise NotPossible(f"message {document['_id']} is {document['state']}")
            if event == "cancel":
                with unit.as_department():
                    await seen_to(unit, document, "cancelled")

        await self.interactions.transact(self.access, _act(event, document), work, audit.seen(document["about"]))
        self.interactions.outbox_filled.set()

    async def _read(self, message_id: str) -> dict[str, Any]:
        document = await message_show.read(self.interactions.store.db, message_id)
        if document is None:
            raise NotPossible(f"there is no message {message_id}")
        return document


def _act(event: str, document: dict[str, Any]) -> Act:
    where = outbox.COLLECTION if "destination" in document else message_log.COLLECTION
    detail = f"{event} {where} {document['_id']} {document.get('control_id', '')[:200]}"
    return Act(f"message-{event}", source="v2-operator", detail=detail)
