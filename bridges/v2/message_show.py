"""A message of the store, and what became of it, as an interface analyst reads it."""

import re
from collections.abc import Iterator
from typing import Any, Final

from bson import ObjectId
from bson.errors import InvalidId
from pymongo.asynchronous.database import AsyncDatabase

from bridges.v2 import definitions, message_log
from bridges.v2.message import Message, MessageError, parse
from fhir_server import outbox

Document = dict[str, Any]
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


async def read(db: AsyncDatabase[Document], message_id: str) -> Document | None:
    """The document of a message, received or sent; None if there is none."""
    try:
        id_ = ObjectId(message_id)
    except InvalidId:
        return None
    return await db[message_log.COLLECTION].find_one({"_id": id_}) or await db[outbox.COLLECTION].find_one({"_id": id_})


def shown(document: Document, *, fields: bool = False, names: bool = True) -> str:
    """The message, a segment a line or (`fields`) a field a line, with its outcome."""
    sent = "destination" in document
    parts = [_readable(document["message" if sent else "raw"], fields=fields, names=names), ""]
    if sent:
        answer = document.get("answer") or document.get("error") or "no answer yet"
        parts += [f"{document['state']}, {document['attempts']} attempts, {answer}"]
    else:
        parts += ["answered:", _readable(document["ack"], fields=fields, names=names) or "not yet"]
        parts += [f"{what}: " + "; ".join(document[what]) for what in ("errors", "warnings") if document.get(what)]
        parts += ["not read: " + ", ".join(document["unmapped"])] if document.get("unmapped") else []
    parts += ["refers to: " + ", ".join(document["about"])]
    if document.get("states"):
        parts += ["states: " + ", ".join(f"{s['state']} {s['at']:%Y-%m-%d %H:%M:%S}" for s in document["states"])]
    return harmless("\n".join(parts))


def _readable(raw: bytes, *, fields: bool, names: bool) -> str:
    try:
        message = parse(bytes(raw))
    except MessageError:
        return repr(bytes(raw)) if raw else ""
    if fields:
        return "\n".join(_by_field(message, names=names))
    return bytes(raw).decode(message.codec, "replace").replace("\r", "\n").strip()


def harmless(text: str) -> str:
    """The text without what a terminal would take for commands."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _by_field(message: Message, *, names: bool) -> Iterator[str]:
    for segment in message.segments:
        known = definitions.fields(segment.name) if names else {}
        yield segment.name
        for number, text in enumerate(segment.values()):
            if number and text:
                name = f" {known[number].name}" if number in known else ""
                yield f"  {segment.name}-{number}{name}: {text}"
