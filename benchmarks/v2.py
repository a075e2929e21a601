"""The HL7 v2 bridge: parsing, orders and updates in, results out, and a long burst.

python -m benchmarks.v2 [parse] [orders] [updates] [results] [burst] [--seconds 15] [--connections 8] [--burst 50000]

parse: a 15-segment order parsed and 20 of its fields read, beside PyPI `hl7` and hl7apy in the same run
orders: ORM^O01 NW over MLLP, fully processed and committed when acknowledged; at 1 and at `--connections` connections
updates: ADT^A08 that changes nothing
results: ORU^R01 delivered to one receiver that answers at once, in order; the outbox is filled before the time begins
burst: so many messages, half orders, half updates; memory at every tenth, and what is left in the outbox
"""

import argparse
import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import uvloop
from pymongo import AsyncMongoClient

from benchmarks.load import Result, machine
from benchmarks.stand import Stand, memory, standing
from bridges.v2.message import parse
from bridges.v2.mllp import FrameReader, frame
from bridges.v2.mllp_client import MllpClient
from fhir_server import outbox


def _message(*segments: str) -> str:
    """Segments as a message."""
    return "\r".join((*segments, ""))


_PARTS = ("parse", "orders", "updates", "results", "burst")
_HEAD = "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||{kind}|{id}|P|2.5.1||||||UNICODE UTF-8"
_PID = (
    "PID|1||{patient}^^^EXAMPLEHOSP^MR||Muster^Mara^Lea||19700131|F|||Am Beispiel 1^^Musterstadt^^01234^DE||^PRN^PH^^49^30^555000"
)
_PV1 = "PV1|1|O|RAD^1||||815^Referrer^Rolf||||||||||||{visit}"
_ORDER = _message(
    _HEAD,
    _PID,
    _PV1,
    "ORC|NW|L{n}^EHR|||||^^^20260907140000^^R||20260907081500|||815^Referrer^Rolf^^^Dr.",
    "OBR|1|L{n}^EHR||24627-2^CT Chest^LN|||||||||cough for three weeks|||||||||||CT|||||||R05^Cough^I10",
)
_UPDATE = f"{_HEAD}\rEVN|A08|20260907081500\r{_PID}\r"
# An order as a large site sends it: 15 segments.
LARGE = _message(
    _HEAD.format(kind="ORM^O01", id="M1"),
    "NTE|1||a note on the message",
    _PID.format(patient="P1"),
    "NTE|1||a note on the patient",
    _PV1.format(visit="V1"),
    "PV2|||^follow-up",
    "IN1|1|PLAN^Plan|INS1|Example Insurance|||||||20260101|20261231|||||Muster^Mara|SEL|19700131",
    "GT1|1||Muster^Mara",
    "AL1|1|DA|^Iodinated contrast^L|SV|Hives|20200101",
    "ORC|NW|L1^EHR|F1^RIS|G1^EHR|||^^^20260907140000^^S||20260907081500|||815^Referrer^Rolf^^^Dr.|||||WARD^Ward 1",
    "OBR|1|L1^EHR|F1^RIS|24627-2^CT Chest^LN|||||||||cough \\T\\ fever|||815^Referrer^Rolf||A1|R1|S1||||CT"
    "|||^^^20260907140000^^S||||R05^Cough^I10",
    "NTE|1||please call",
    "DG1|1||R05^Cough^I10",
    "OBX|1|NM|29463-7^Body weight^LN||70|kg|||||F",
    "ZDS|1.2.3.4^100^Application^DICOM",
).encode()
_FIELDS = (
    ("MSH", 3, 1), ("MSH", 10, 1), ("PID", 3, 1), ("PID", 3, 5), ("PID", 5, 1), ("PID", 5, 2), ("PID", 7, 1), ("PID", 8, 1),
    ("PV1", 2, 1), ("PV1", 19, 1), ("ORC", 1, 1), ("ORC", 2, 1), ("ORC", 7, 6), ("OBR", 4, 1), ("OBR", 4, 2), ("OBR", 13, 1),
    ("OBR", 18, 1), ("OBR", 24, 1), ("OBX", 5, 1), ("ZDS", 1, 1),
)  # fmt: skip


# Parsing


def parse_rates(seconds: float) -> None:
    """Messages a second of the three, one after the other in this run, each the best of three rounds."""
    rates = {name: max(_rate(read, seconds) for _ in range(3)) for name, read in _readers().items()}
    own = rates["fhir-ris"]
    print(f"parse and read {len(_FIELDS)} fields of a {len(LARGE.splitlines())}-segment order")
    for name, rate in rates.items():
        print(f"  {name:10} {rate:10.0f}/s" + ("" if rate == own else f"   ours is {own / rate:.1f} times as fast"))


def _readers() -> dict[str, Callable[[], list[str]]]:
    import hl7
    from hl7apy.core import Message as HL7apyMessage
    from hl7apy.parser import parse_message

    text = LARGE.decode()

    def ours() -> list[str]:
        message = parse(LARGE)
        return [s.get(field, component) for name, field, component in _FIELDS if (s := message.first(name))]

    def theirs() -> list[str]:
        message = hl7.parse(text)
        return [_of_hl7(message, *place) for place in _FIELDS]

    def hl7apy() -> list[str]:
        message: HL7apyMessage = parse_message(text, find_groups=False)
        return [_of_hl7apy(message, *place) for place in _FIELDS]

    return {"fhir-ris": ours, "hl7": theirs, "hl7apy": hl7apy}


def _of_hl7(message: Any, name: str, field: int, component: int) -> str:
    try:
        return str(message.extract_field(name, 1, field, 1, component, 1))
    except (KeyError, IndexError, LookupError):
        return ""


def _of_hl7apy(message: Any, name: str, field: int, component: int) -> str:
    segment = getattr(message, name.lower())[0]
    value = getattr(segment, f"{name.lower()}_{field}", None)
    parts = value.to_er7().split("^") if value is not None and len(value) else [""]
    return parts[component - 1] if component <= len(parts) else ""


def _rate(read: Callable[[], list[str]], seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        read()
        count += 1
    return count / (time.perf_counter() - began)


# Over MLLP


class Numbers:
    """Messages with names that nothing else has."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = itertools.count(1)

    def order(self) -> tuple[str, bytes]:
        """(control id, a new order for a new patient)."""
        n = f"{self._prefix}{next(self._count)}"
        return n, _ORDER.format(kind="ORM^O01", id=n, n=n, patient=f"P{n}", visit=f"V{n}").encode()

    def update(self, patients: int) -> tuple[str, bytes]:
        """(control id, an update of one of so many patients that says what is known)."""
        number = next(self._count)
        n = f"{self._prefix}U{number}"
        return n, _UPDATE.format(kind="ADT^A08", id=n, patient=f"P{self._prefix}A{number % patients}").encode()


async def send_for(
    stand: Stand, messages: Iterable[tuple[str, bytes]], connections: int, *, seconds: float = 1e9, count: int | None = None
) -> Result:
    """Send over so many connections, each waiting for its acknowledgement; every one must be AA."""
    port = int(stand.server.settings["RIS_MLLP_PORT"])
    stream = iter(messages) if count is None else itertools.islice(iter(messages), count)
    result = Result([], 0.0, Counter(), 0.0)
    began, cpu = time.perf_counter(), time.process_time()

    async def connection() -> None:
        client = MllpClient("127.0.0.1", port)
        try:
            for control_id, message in stream:
                if time.perf_counter() - began > seconds:
                    return
                sent = time.perf_counter()
                ack = await client.send(message, control_id)
                result.times.append((time.perf_counter() - sent) * 1000)
                result.statuses[200 if ack.code == "AA" else 500] += 1
        finally:
            await client.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    result.seconds = time.perf_counter() - began
    result.generator = (time.process_time() - cpu) / result.seconds
    return result


async def orders(stand: Stand, arguments: argparse.Namespace) -> None:
    numbers = Numbers("O")
    await send_for(stand, iter(numbers.order, None), 4, seconds=3)
    for connections in (1, arguments.connections):
        with stand.watched() as said:
            result = await send_for(stand, iter(numbers.order, None), connections, seconds=arguments.seconds)
            print(f"ORM^O01 NW, {connections} connections   {result}\n    {said(len(result.times))}", flush=True)


async def updates(stand: Stand, arguments: argparse.Namespace) -> None:
    numbers = Numbers("A")
    patients = 50
    first = Numbers("A")
    await send_for(stand, (first.update(patients) for _ in range(patients)), 1)
    again = (numbers.update(patients) for _ in itertools.count())
    for _ in range(patients):
        next(again)  # these control ids have been used
    with stand.watched() as said:
        result = await send_for(stand, again, arguments.connections, seconds=arguments.seconds)
        print(
            f"ADT^A08 without change, {arguments.connections} connections   {result}\n    {said(len(result.times))}", flush=True
        )


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[tuple[int, list[str]]]:
    """A receiver that answers AA at once: its port, and the control ids in the order in which they came."""
    came: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        while data := await reader.read(65536):
            for message in frames.feed(data):
                control_id = message.split(b"|", 10)[9].decode()
                came.append(control_id)
                writer.write(frame(f"MSH|^~\\&|EHR|X|RIS|Y|20260907||ACK|A{len(came)}|P|2.5.1\rMSA|AA|{control_id}\r".encode()))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()


async def results(stand: Stand, arguments: argparse.Namespace) -> None:
    """Put so many results into the outbox, then give their Endpoint its address."""
    count = arguments.results
    body = "\r".join(
        (
            _HEAD,
            _PID,
            "OBR|1|L1^EHR|F1|24627-2^CT Chest^LN",
            *(f"OBX|{i}|TX|59776-5^Findings^LN|1|line {i}" for i in range(1, 30)),
            "",
        )
    )
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stand.mongodb_uri)
    box = client["ris"][outbox.COLLECTION]
    ids = [f"R{i}" for i in range(count)]
    await box.insert_many(
        outbox.document(outbox.Outbound("Endpoint/fast", "ORU^R01", i, body.format(kind="ORU^R01", id=i, patient="P1").encode()))
        for i in ids
    )
    async with receiving() as (port, came):
        await stand.app.ok("PUT", "Endpoint/fast", _endpoint(port))
        while not came:  # noqa: ASYNC110 - it is another process that fills it
            await asyncio.sleep(0.01)
        with stand.watched() as said:
            began = time.perf_counter()
            while await box.count_documents({"destination": "Endpoint/fast", "state": "pending"}):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.2)
            rate = count / (time.perf_counter() - began)
            in_order = "in order" if list(dict.fromkeys(came)) == ids else "NOT in order"
            print(
                f"ORU^R01 to one receiver   {rate:8.0f}/s   {in_order}, {len(came)} sent for {count}\n    {said(count)}",
                flush=True,
            )
    await client.close()


def _endpoint(port: int) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": "fast",
        "status": "active",
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
        "payloadType": [{"coding": [{"system": "urn:fhir-ris:v2-message", "code": "ORU^R01"}]}],
        "address": f"mllp://127.0.0.1:{port}",
    }


async def burst(stand: Stand, arguments: argparse.Namespace) -> None:
    numbers, known = Numbers("B"), Numbers("B")
    await send_for(stand, (known.update(50) for _ in range(50)), 1)
    mixed = (numbers.order() if i % 2 else numbers.update(50) for i in itertools.count(1))
    assert stand.server.process is not None
    pid, tenth = stand.server.process.pid, max(1, arguments.burst // 10)
    for part in range(10):
        result = await send_for(stand, mixed, arguments.connections, count=tenth)
        sent, now = (part + 1) * tenth, memory(pid)[0]
        print(f"  {sent:6} messages   {result.rate:6.0f}/s   server {now:5.0f} MB   errors {result.errors}", flush=True)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stand.mongodb_uri)
    left = await client["ris"][outbox.COLLECTION].count_documents({"state": "pending"})
    print(f"burst of {10 * tenth}: {left} left in the outbox", flush=True)
    await client.close()


async def over_mllp(parts: list[str], arguments: argparse.Namespace) -> None:
    async with standing() as stand:
        for part, measure in (("orders", orders), ("updates", updates), ("results", results), ("burst", burst)):
            if part in parts:
                await measure(stand, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", default=[], choices=[*_PARTS, []])
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--results", type=int, default=3000)
    parser.add_argument("--burst", type=int, default=50000)
    arguments = parser.parse_args()
    parts = arguments.parts or list(_PARTS)
    print(machine())
    if "parse" in parts:
        parse_rates(1.0)
    if len([p for p in parts if p != "parse"]):
        uvloop.run(over_mllp(parts, arguments))


if __name__ == "__main__":
    main()
