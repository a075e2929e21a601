"""Whatever arrives is answered, kept or refused whole, and never touches another patient: damaged messages, damaged streams.

Messages are those of the case files (tests/v2_cases), damaged at random; each plays in its own story, on a real MongoDB.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from os import environ
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridges.v2.message import Message, MessageError, parse
from bridges.v2.mllp import FrameReader, MllpServer, frame
from fhir_server.elements import concept
from resources.terms import V2_0203
from tests.department import PEER, Department, booking
from tests.v2_mutation import DAMAGES, Story, damaged, story

# The same few examples each time; `RIS_FUZZ=1000` tries that many others.
EXAMPLES = int(environ.get("RIS_FUZZ", "0"))
BOUNDED = settings(
    max_examples=EXAMPLES or 25, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
STORIES = st.integers(0, 9999)
DAMAGE = st.lists(st.tuples(st.integers(0, len(DAMAGES) - 1), st.integers(0, 2**32)), min_size=1, max_size=3)
# What says that the fault was ours.
OURS = (b"an internal error", b"not available now")


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.inbound.stranger_rate = 1000
        yield department
        department.run(department.close())


class Bystander:
    """A patient with an order, a booking and a report, whom no message of another patient may touch."""

    def __init__(self, ris: Department) -> None:
        self.ris = ris
        ris.run(self._admit())

    async def _admit(self) -> None:
        ris = self.ris
        identifier = [{"system": "urn:fhir-ris:v2-authority:EXAMPLEHOSP", "value": "BYSTANDER"}]
        numbers = [
            ("PLAC", "urn:fhir-ris:v2-authority:EHR", "LBYSTANDER"),
            ("ACSN", "urn:fhir-ris:accession-number", "ACCBYSTANDER"),
        ]
        self.patient = await ris.create({"resourceType": "Patient", "identifier": identifier, "active": True})
        self.order = await ris.order(
            self.patient, identifier=[{"type": concept(V2_0203, code), "system": s, "value": v} for code, s, v in numbers]
        )
        self.booking = await ris.create(
            booking(self.order, await ris.scanner())
            | {"identifier": [{"system": "urn:fhir-ris:v2-authority:PLANNER", "value": "SBYSTANDER"}]}
        )
        await ris.report(self.order, "preliminary")

    async def state(self) -> dict[str, Any]:
        """Everything of the patient, by id and version."""
        kinds = {"Patient": "_id", "ServiceRequest": "patient", "Appointment": "patient", "DiagnosticReport": "patient",
                 "Observation": "patient", "ImagingStudy": "patient", "Encounter": "patient"}  # fmt: skip
        found = [r for kind, name in kinds.items() for r in await self.ris.search(kind, **{name: self.patient["id"]})]
        return {f"{r['resourceType']}/{r['id']}": r["meta"]["versionId"] for r in found}


@pytest.fixture(scope="module")
def bystander(ris: Department) -> Bystander:
    return Bystander(ris)


async def answers(ris: Department, data: bytes) -> list[bytes]:
    """All answers of a message: one, or in enhanced mode up to two."""
    found = await asyncio.wait_for(_handled(ris, data), 60)
    return [found] if isinstance(found, bytes) else found


async def _handled(ris: Department, data: bytes) -> Any:
    found = await ris.inbound.handle(data, PEER)
    return found if isinstance(found, bytes) or found is None else [one async for one in found]


def control_id(data: bytes) -> str:
    """MSH-10 as it is read, of a message of which no more than the MSH can be read too; empty for what is no message."""
    head = re.split(rb"[\r\n]", data.lstrip(b" \t\r\n\x0b")[:10_000], maxsplit=1)[0]
    for readable in (data, head):
        with contextlib.suppress(MessageError):
            return parse(readable).control_id
    return ""


def is_original_mode(data: bytes) -> bool:
    try:
        msh = parse(data).msh
    except MessageError:
        return True
    return not (msh.raw(15) or msh.raw(16))


def check_answers(data: bytes, got: list[bytes] | None) -> list[Message]:
    """Each answer is a message that answers this one; in original mode there is exactly one."""
    read = [parse(a) for a in got or ()]
    if is_original_mode(data):
        assert len(read) == 1, got
    for ack in read:
        msa = ack.first("MSA")
        assert msa is not None
        assert msa.field(1) in {"AA", "AE", "AR", "CA", "CE", "CR"}
        assert msa.text(2) == control_id(data), ack.raw
        assert not any(text in ack.raw for text in OURS), ack.raw
    return read


async def play(ris: Department, of: Story, number: int) -> tuple[list[bytes], list[bytes]]:
    """The story up to one of its messages, which is what comes back, with the one before it."""
    index = number % len(of.messages)
    for message in of.messages[:index]:
        await answers(ris, b"\r".join(message) + b"\r")
    return of.messages[index], of.messages[max(0, index - 1)]


async def counts(ris: Department) -> dict[str, int]:
    """How many documents there are, work items aside: those tell people of a refusal."""
    found = {n: c for n, c in (await ris.counts()).items() if not n.startswith("Task")}
    return found | {"outbox": await ris.db["outbox"].count_documents({})}


@BOUNDED
@given(number=STORIES, which=st.integers(0, 9), damage=DAMAGE)
def test_a_damaged_message_is_answered_and_a_refused_one_leaves_nothing(ris, number, which, damage):
    async def scenario():
        message, _ = await play(ris, story(number), which)
        data = damaged(message, damage)
        before = await counts(ris)
        read = check_answers(data, await answers(ris, data))
        if read and all(ack.segments[1].field(1) in {"AE", "AR", "CE", "CR"} for ack in read):
            assert await counts(ris) == before

    with Muted():
        ris.run(scenario())


@BOUNDED
@given(number=STORIES, which=st.integers(0, 9), damage=DAMAGE, undamaged=st.booleans())
def test_a_message_with_another_patients_numbers_never_touches_that_patient(ris, bystander, number, which, damage, undamaged):
    async def scenario():
        message, _ = await play(ris, story(number), which)
        own = number_of(message)
        swapped = [
            line if line.startswith(b"PID") else line.replace(b"L" + own, b"LBYSTANDER").replace(b"ACC" + own, b"ACCBYSTANDER")
            .replace(b"S" + own, b"SBYSTANDER") for line in message
        ]  # fmt: skip
        data = b"\r".join(swapped) + b"\r" if undamaged else damaged(swapped, damage)
        before = await bystander.state()
        check_answers(data, await answers(ris, data))
        assert await bystander.state() == before

    with Muted():
        ris.run(scenario())


def number_of(message: list[bytes]) -> bytes:
    """The story's own number, which `P` stands before in PID-3."""
    pid = next((line for line in message if line.startswith(b"PID")), b"")
    return pid.partition(b"|P")[2].partition(b"^")[0] or b"none"


@BOUNDED
@given(
    picks=st.lists(st.tuples(STORIES, DAMAGE | st.none()), min_size=1, max_size=4),
    junk=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\x0b", b"")), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=8),
    torn=st.integers(0, 200),
)
def test_a_damaged_stream_on_a_real_connection_gets_an_answer_for_each_frame(ris, picks, junk, cuts, torn):
    """Frames split, run together, with junk between, and the last one torn off: answered in their order, then a clean end."""
    messages = []
    for number, damage in picks:
        message = story(number).messages[0]
        messages.append(damaged(message, damage) if damage else b"\r".join(message) + b"\r")
    stream = b"".join(junk[i % len(junk)] + b"\x0b" + m + b"\x1c\r" for i, m in enumerate(messages))
    stream += frame(b"MSH|^~\\&|torn")[:torn] if torn < 12 else b""
    reader = FrameReader()
    framed = reader.feed(stream) + reader.finish()

    async def scenario():
        server = MllpServer("127.0.0.1", 0, ris.inbound.handle)
        await server.start()
        try:
            got = await asyncio.wait_for(converse(server.port, stream, cuts), 60)
        finally:
            await server.stop(1)
        expected = [m for m in framed if is_original_mode(m)]
        assert not [a for a in got if any(text in a for text in OURS)]
        ids = [parse(a).segments[1].text(2) for a in got]
        for message in framed:
            if not is_original_mode(message):
                ids = [i for i in ids if i != control_id(message)]
        assert ids == [control_id(m) for m in expected if not in_enhanced(framed, m)]

    with Muted():
        ris.run(scenario())


def in_enhanced(framed: list[bytes], message: bytes) -> bool:
    """Whether another message of this control id is in enhanced mode: then its answers can't be told apart."""
    return any(control_id(m) == control_id(message) and not is_original_mode(m) for m in framed)


async def converse(port: int, stream: bytes, cuts: list[int]) -> list[bytes]:
    """Send a stream in pieces, close our side, and read what comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found, frames, turn = [], FrameReader(), 0
    least = len(stream) // 2000  # a large stream in single bytes would only be slow
    with suppress(ConnectionError):
        while stream:
            cut = max(least, cuts[turn % len(cuts)])
            writer.write(stream[:cut])
            await writer.drain()
            stream, turn = stream[cut:], turn + 1
        writer.write_eof()
        while data := await reader.read(65536):
            found += frames.feed(data)
    found += frames.finish()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return found


class Muted:
    """What a damaged message has logged says nothing here."""

    def __enter__(self) -> None:
        logging.disable(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)
