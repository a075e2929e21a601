"""The messages about an exam: HL7 v2 received and sent, and what went to a PACS, with what became of them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from starlette.responses import Response

from bridges.v2 import message_show
from bridges.v2.message_search import Wanted
from bridges.v2.operations import Operator
from console import dicom_view, v2_view
from console.screens.exam import message_rights, record, versions, words
from console.screens.exam.record import Exam
from console.screens.exam.versions import Version
from console.visit import Visit
from fhir_server.outcome import fail

Document = dict[str, Any]
_MOST: Final = 200  # of each kind
_PROCESSED_IN: Final = timedelta(seconds=5)
# What a state means for who looks at it: the chip's kind.
_CHIPS: Final = {
    "AA": "good", "CA": "busy", "AE": "bad", "AR": "bad", "held": "warn", "parked": "warn", "played": "good",
    "refused-later": "bad", "given-up": "bad", "delivered": "good", "pending": "busy", "refused": "bad", "dead": "bad",
    "invalid": "bad", "cancelled": "quiet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message in the timeline. `partner`: the sender, or the Endpoint; `about`: references; `done`: when it was dealt with."""

    id: str
    sent: bool
    type: str
    partner: str
    control_id: str
    at: datetime
    state: str
    attempts: int = 0
    told: tuple[str, ...] = ()  # answer, error, warnings
    delivered: datetime | None = None
    about: frozenset[str] = frozenset()
    done: tuple[datetime, ...] = ()

    @property
    def chip(self) -> str:
        return _CHIPS.get(self.state, "quiet")


def row_of(document: Document) -> MessageRow:
    """A document of `messages` or `outbox`."""
    id_, kind, about = str(document["_id"]), document["type"], frozenset(document["about"])
    if "destination" in document:
        told = tuple(text for text in dict.fromkeys((document.get("answer"), document.get("error"))) if text)
        partner, delivered = str(document["destination"]).rpartition("/")[2], document.get("delivered")
        return MessageRow(
            id_, True, kind, partner, document["control_id"], _utc(document["created"]), document["state"], document["attempts"],
            told, _utc(delivered) if delivered else None, about,
        )  # fmt: skip
    told = (*document.get("errors", ()), *document.get("warnings", ()))
    sender = " · ".join(part for part in document["sender"].split("|") if part)
    state, done = document.get("state") or document["outcome"], tuple(_utc(s["at"]) for s in document.get("states") or ())
    control, at = document.get("control_id", ""), _utc(document["received"])
    return MessageRow(id_, False, kind, sender, control, at, state, told=told, about=about, done=done)


async def of_exam(visit: Visit, exam: Exam) -> list[MessageRow]:
    """The newest messages about the order and its procedures, as far as the reader learns of them."""
    if not message_rights.may_list(visit, exam):
        return []
    operator, orders = _operator(visit), ",".join(f"ServiceRequest/{r['id']}" for r in (exam.order, *exam.procedures))
    asked = [operator.find(Wanted(outbound=sent, order=orders, limit=_MOST)) for sent in (False, True)]
    found = [document for documents in await visit.desk.together(*asked) for document in documents]
    return [row_of(document) for document in await message_rights.visible(visit, exam, found)]


async def show(visit: Visit) -> Response:
    """One message, by segment and field, beside the resources that it became."""
    exam = await record.load(visit.desk, visit.id())
    document = await _of_this(visit, exam)
    row = row_of(document)
    became = [(v, words.name(visit.t, v.resource or v.before or {})) for v in await _became(visit, exam, document, row)]
    opened = await _operator(visit).open(row.id)
    hides = message_rights.hides(visit, document)
    shown: dict[str, Any] = {"attributes": None, "message": None, "answer": None}
    if message_rights.is_v2(document):
        unmapped = document.get("unmapped", [])
        shown["message"] = v2_view.view(opened["message" if row.sent else "raw"], unmapped=unmapped, hides=hides)
        answer = opened.get("ack") or b""
        shown["answer"] = v2_view.view(answer, hides=hides) if answer else None
    elif visit.allows("Binary", "r"):
        shown["attributes"] = dicom_view.rows(orjson.loads(opened["message"]))
    states = [(s["state"], _utc(s["at"])) for s in opened.get("states") or []]
    return visit.page("exam/message.html", exam=exam, row=row, became=became, states=states, **shown)


async def _of_this(visit: Visit, exam: Exam) -> Document:
    """The message of the address, if it is about this exam and for this reader. FhirError 404 for any other."""
    document = await message_show.read(visit.console.interactions.store.db, visit.id("message"))
    if (
        document is None
        or not exam.parts.keys() & set(document["about"])
        or not message_rights.may_list(visit, exam)
        or not await message_rights.visible(visit, exam, [document])
    ):
        raise fail("not-found", "there is no such message about this exam, or none that you may see")
    return document


async def _became(visit: Visit, exam: Exam, document: Document, row: MessageRow) -> list[Version]:
    """The versions of the exam's parts that a received message made; of one sent, what it is about, as it is now."""
    about = [name for name in document["about"] if name in exam.parts]
    found = await versions.of_parts(visit.desk, exam, about)
    if row.sent:
        newest = {v.reference: v for v in sorted(found, key=lambda v: v.number)}
        return list(newest.values())
    return [v for v in sorted(found, key=lambda v: v.at) if made_by(v, row)]


def made_by(version: Version, row: MessageRow) -> bool:
    """Whether a version was written while a received message was processed: just before that was put down."""
    if row.sent or version.reference not in row.about:
        return False
    return any(max(row.at, done - _PROCESSED_IN) <= version.at <= done for done in row.done)


def _operator(visit: Visit) -> Operator:
    return Operator(visit.console.interactions, visit.access, visit.console.settings.zone)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
