"""The EHR's side of HL7 v2: what it sends, and the listener that its results come to."""

import asyncio
from datetime import UTC, datetime

from bridges.v2.ack import acknowledge
from bridges.v2.message import Message, parse
from bridges.v2.mllp import MllpServer, Peer


def stamp() -> str:
    """Now, as MSH-7 has it."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")


def registration(control_id: str, patient_id: str, family: str = "Muster", given: str = "Mara") -> bytes:
    """ADT^A04: an outpatient is registered."""
    return _message(
        f"MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|{stamp()}||ADT^A04^ADT_A01|{control_id}|P|2.5.1||||||UNICODE UTF-8",
        f"EVN|A04|{stamp()}",
        f"PID|1||{patient_id}^^^EXAMPLEHOSP^MR||{family}^{given}^^^^^L||19700131|F|||Beispielweg 1^^Musterstadt^^99999",
        f"PV1|1|O|RAD^WAIT||||4711^Referrer^Rolf^^^Dr.^^^EXAMPLEHOSP||||||||||||V{patient_id}^^^EXAMPLEHOSP^VN",
    )


def order(
    control_id: str, placer: str, patient_id: str, family: str = "Muster", given: str = "Mara", control: str = "NW"
) -> bytes:
    """ORM^O01: a CT of the chest is ordered (or, with CA, cancelled)."""
    return _message(
        f"MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|{stamp()}||ORM^O01^ORM_O01|{control_id}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||{patient_id}^^^EXAMPLEHOSP^MR||{family}^{given}^^^^^L||19700131|F",
        f"PV1|1|O|RAD^WAIT||||4711^Referrer^Rolf^^^Dr.^^^EXAMPLEHOSP||||||||||||V{patient_id}^^^EXAMPLEHOSP^VN",
        f"ORC|{control}|{placer}^EHR|||||^^^^^R||{stamp()}|||4711^Referrer^Rolf^^^Dr.^^^EXAMPLEHOSP",
        f"OBR|1|{placer}^EHR||24627-2^CT Chest^LN|||||||||Cough for six weeks|||4711^Referrer^Rolf^^^Dr.^^^EXAMPLEHOSP"
        "||||||||CT|||||||R05^Cough^I10",
    )


def _message(*segments: str) -> bytes:
    return "".join(s + "\r" for s in segments).encode()


async def send(port: int, message: bytes) -> Message:
    """Send one message over a fresh connection; the acknowledgement. ConnectionError when there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"\x0b" + message + b"\x1c\x0d")
        await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(b"\x1c\x0d"), 30)
        return parse(answer[1:-2])
    except asyncio.IncompleteReadError:
        raise ConnectionError("the connection was closed without an acknowledgement") from None
    finally:
        writer.close()


class Listener:
    """The EHR's listener. `answer` is what it acknowledges with; None: it never answers."""

    def __init__(self, port: int = 0) -> None:
        self._server = MllpServer("127.0.0.1", port, self._receive)
        self.received: list[Message] = []
        self.answer: str | None = "AA"
        self._arrived = asyncio.Condition()

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace=1)

    async def _receive(self, frame: bytes, _peer: Peer) -> bytes | None:
        message = parse(frame)
        async with self._arrived:
            self.received.append(message)
            self._arrived.notify_all()
        if self.answer is None:
            return None
        return acknowledge(message, self.answer, control_id=f"EHR{len(self.received)}", when=datetime.now(UTC))

    def of_type(self, kind: str, placer: str = "") -> list[Message]:
        """What has arrived of a type such as `ORU^R01`, in order; with `placer`, of that order."""
        found = [m for m in self.received if "^".join(m.type[:2]) == kind]
        return [m for m in found if placer.encode() in m.raw]

    async def expect(self, kind: str, count: int = 1, seconds: float = 30, placer: str = "") -> list[Message]:
        """Wait until that many different messages of a type have arrived. TimeoutError when they don't."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: len({m.control_id for m in self.of_type(kind, placer)}) >= count)
        return self.of_type(kind, placer)
