"""Which messages are taken, and by what: MSH-9 -> receiver."""

from typing import Final

from bridges.v2.ack import AckError
from bridges.v2.adt_in import ADT
from bridges.v2.message import Message
from bridges.v2.order_in import receive_order
from bridges.v2.order_reply_in import receive_order_reply
from bridges.v2.reception import Receive
from bridges.v2.refused import Refused
from bridges.v2.result_in import receive_result
from bridges.v2.schedule_in import receive_schedule

# MSH-9.1 and 9.2 -> what the message does. What isn't here is answered AR.
MESSAGES: Final[dict[tuple[str, str], Receive]] = {
    **{("ADT", event): receive for event, receive in ADT.items()},
    ("ORM", "O01"): receive_order,
    ("OMG", "O19"): receive_order,
    ("OMI", "O23"): receive_order,
    ("ORR", "O02"): receive_order_reply,
    ("ORG", "O20"): receive_order_reply,
    ("ORI", "O24"): receive_order_reply,
    ("ORU", "R01"): receive_result,
    **{("SIU", event): receive_schedule for event in ("S12", "S13", "S14", "S15", "S16", "S17", "S26")},
}


def receiver(message: Message) -> Receive:
    """What a message of this type does. AR for types and events that we don't take."""
    kind, event, _ = message.type
    receive = MESSAGES.get((kind, event))
    if receive is not None:
        return receive
    known_kind = any(k == kind for k, _ in MESSAGES)
    text = f"{kind[:10]}^{event[:10]} is not a message that this system takes"
    error = AckError("MSH", 1, 9, 2 if known_kind else 1, code=201 if known_kind else 200, text=text)
    raise Refused(error, code="AR")
