"""What became of messages that were sent, written down: those settled while one write is under way share the next one."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from pymongo import UpdateOne

from bridges.v2.ack import Ack
from bridges.v2.reply_in import learn_from_reply
from fhir_server import audit, clock, metrics, outbox
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from resources.numbers.exam_projection import note_deliveries
from smart_auth.access import Access

_MOST: Final = 100  # messages that are settled in one transaction, and may wait for it
REFUSED: Final = "message-refused"  # the work item about messages that were set aside


@dataclass(frozen=True, slots=True)
class Settled:
    """A message of the outbox and its end: `delivered`, `refused` by the receiver, or `dead`: never answered."""

    message: dict[str, Any]
    state: str
    ack: Ack

    def act(self) -> Act:
        message = self.message
        return Act(message["type"], source="v2-out", detail=f"{self.state} {message['control_id']} {message['destination']}")

    def change(self, now: Any) -> UpdateOne:
        """Its document from now on. Cancelled meanwhile or not, what was delivered was delivered."""
        delivered = self.state == "delivered"
        said: dict[str, Any] = {
            "state": self.state,
            "answer": f"{self.ack.code} {self.ack.text}".strip(),
            "error": None if delivered else described(self.ack),
        }
        if delivered:
            said["delivered"] = now
        state = {"state": self.state, "at": now}
        return UpdateOne(
            {"_id": self.message["_id"], "state": {"$in": ["pending", "cancelled", *([] if delivered else ["delivered"])]}},
            {"$set": said, "$inc": {"attempts": 1}, "$push": {"states": {"$each": [state], "$slice": -100}}},
        )


class Settlement:
    """The settlements of one destination, in their order.

    A message whose settlement is still to be written may be sent again, under its control id, when this process dies.
    """

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions
        self._outbox = interactions.store.db[outbox.COLLECTION]
        self._waiting: list[Settled] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, settled: Settled) -> None:
        """Have it written soon; returns at once unless many wait. Raises what kept an earlier one from being written."""
        if len(self._waiting) >= _MOST:
            await self.done()
        self._raise()
        self._waiting.append(settled)
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def done(self) -> None:
        """Wait until all are written; raises what kept one from being so."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._raise()

    def _raise(self) -> None:
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            self._waiting.clear()
            task.result()

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            await self._settle(group)
        self._task = None

    async def _settle(self, group: list[Settled]) -> None:
        access = Access.system("delivery")

        async def work(unit: UnitOfWork) -> None:
            now = clock.naive(unit.now)
            await self._outbox.bulk_write([settled.change(now) for settled in group], session=unit.session)
            for settled in group[1:]:
                unit.record(audit.audit_event(settled.act(), access, audit.seen(settled.message["about"])))
            await note_deliveries(unit, [settled.message for settled in group if settled.state == "delivered"])
            for settled in group:
                await _work_item(unit, settled)
                await learn_from_reply(unit, settled.message["about"], settled.ack)

        first = group[0]
        await self._interactions.transact(access, first.act(), work, entities=audit.seen(first.message["about"]))
        for settled in group:
            metrics.DELIVERIES.labels(settled.message["destination"], settled.state).inc()


async def _work_item(unit: UnitOfWork, settled: Settled) -> None:
    """A message that is set aside needs a person, and no more once it is delivered."""
    message = settled.message
    if settled.state == "delivered":
        if message.get("replayed"):
            await seen_to(unit, message, "delivered")
        return
    await _show(unit, message, settled.state)


def _subject(message: dict[str, Any]) -> str:
    """What its work item is about: messages to one destination about one order share it."""
    return f"{message['destination']} {next(iter(message['about']), message['control_id'])}"


async def _show(unit: UnitOfWork, message: dict[str, Any], state: str) -> None:
    why = "never answered" if state == "dead" else "refused"
    text = f"{message['type']} {message['control_id']} for {message['destination']} was {why}; it is set aside until replayed"
    about = await _there(unit, next(iter(message["about"]), None))
    patient = await _there(unit, message.get("patient"))
    await work_items.raise_once(unit, REFUSED, _subject(message), text, about=about, patient=patient)


async def seen_to(unit: UnitOfWork, message: dict[str, Any], reason: str) -> None:
    """A message isn't set aside any more: its work item is done, unless another of its subject is, which it then tells of."""
    alike = {"about.0": message["about"][0]} if message["about"] else {"about": [], "control_id": message["control_id"]}
    aside = {"destination": message["destination"], "state": {"$in": ["refused", "dead"]}, "_id": {"$ne": message["_id"]}}
    other = await unit.db[outbox.COLLECTION].find_one(aside | alike, {"message": 0}, sort=[("key", -1)], session=unit.session)
    if other is None:
        await work_items.close(unit, REFUSED, _subject(message), reason)
    else:
        await _show(unit, other, other["state"])


async def _there(unit: UnitOfWork, reference: str | None) -> str | None:
    """The reference, unless what it points to was deleted meanwhile."""
    return reference if reference and await unit.get({"reference": reference}) is not None else None


def described(ack: Ack) -> str:
    """A receiver's refusal, for the outbox: it may name a patient, and goes into no log."""
    return f"{ack.code}: {ack.text}"[:500]
