"""The round trip over real MLLP: an order in, its status, schedule, result and charges out, field by field, in every version and
style; one receiver and the sender are PyPI `hl7`'s, which is not our code."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import hl7
import pytest
from hl7.mllp import open_hl7_connection, start_hl7_server

from bridges.v2.delivery import Delivery
from bridges.v2.message import Message, parse
from bridges.v2.mllp import MllpServer
from demo.ehr import Listener
from tests.department import Department, Resource, unused
from tests.test_delivery import QUICK
from tests.v2_case import _part as part
from tests.v2_case import valid

VERSIONS = ("2.3.1", "2.4", "2.5.1")
STYLES = ("a", "b", "c", "d", "e")
WANTS = ("ORM^O01", "SIU^S12", "SIU^S14", "ORU^R01", "DFT^P03")
TOLD = ["SIU^S12", "ORM SC", "SIU^S14", "ORM IP", "SIU^S14", "ORM A", "DFT CG", "ORU F", "ORM CM", "DFT CG"]
PATIENT = replace(QUICK, lease=6, connect=5, ack=20)  # a repetition would count as a message more
CPT = "http://www.ama-assn.org/go/cpt"


class Receiver:
    """A receiver of one version and style: ours, or the server of PyPI `hl7`."""

    def __init__(self, version: str, style: str) -> None:
        self.version, self.style = version, style
        self.received: list[Message] = []
        self.endpoint: Resource = {}

    @contextlib.asynccontextmanager
    async def listening(self, ris: Department, *wants: str, **headers: str) -> AsyncIterator[None]:
        foreign = (self.version, self.style) == ("2.4", "c")
        async with self._hl7() if foreign else self._own() as port:
            made = await ris.destination(*wants, hl7_version=self.version, report_style=self.style, **headers)
            self.endpoint = await ris.update(made, address=f"mllp://127.0.0.1:{port}")
            try:
                yield
            finally:
                await ris.become(self.endpoint, "off")

    @contextlib.asynccontextmanager
    async def _own(self) -> AsyncIterator[int]:
        listener = Listener()
        self.received = listener.received
        await listener.start()
        try:
            yield listener.port
        finally:
            await listener.stop()

    @contextlib.asynccontextmanager
    async def _hl7(self) -> AsyncIterator[int]:
        async def serve(reader, writer) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    message = await reader.readmessage()
                    self.received.append(parse(str(message).encode()))
                    writer.writemessage(message.create_ack())
                    await writer.drain()
            writer.close()

        server = await start_hl7_server(serve, host="127.0.0.1", port=0, encoding="utf-8")
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    def told(self) -> list[str]:
        """In short, in the order of arrival."""
        detail = {"ORM": "ORC-5", "ORU": "OBR-25", "DFT": "FT1-6"}
        return [
            f"{m.type[0]} {part(m, detail[m.type[0]])}" if m.type[0] in detail else "^".join(m.type[:2]) for m in self.received
        ]

    def of(self, kind: str, which: int = 0) -> Message:
        return [m for m in self.received if m.type[0] == kind][which]


def incoming(version: str, n: str) -> str:
    """The order as the EHR sends it, in the message that goes with its version: what stands in it must come back everywhere."""
    kind = {"2.3.1": "ORM^O01", "2.4": "OMG^O19^OMG_O19", "2.5.1": "OMI^O23^OMI_O23"}[version]
    code, uid = f"X{n}^CT Thorax^99ALPHA^24627-2^CT Chest^LN", f"1.2.826.0.1.3680043.{n}"
    timing = "" if version == "2.5.1" else "^^^20260908080000+0000^^S"
    fields = {1: "1", 2: f"L{n}^EHR", 4: code, 13: "Cough", 24: "CT", 31: "R05^Cough^I10", 44: code}
    if version != "2.5.1":
        fields |= {18: f"A{n}", 19: f"RP{n}", 20: f"SPS{n}"}
    obr = "OBR|" + "|".join(fields.get(number, "") for number in range(1, 45))
    head = [
        f"MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||{kind}|{unused('M')}|P|{version}||||||UNICODE UTF-8",
        f"PID|1||P{n}^^^EXAMPLEHOSP&1.2.3&ISO^MR||Müster^Mara^Ann^^Dr.^^L||19700131|F|||Weg 1^^Musterstadt^^01234^DE^H",
        f"PV1|1|I|RAD^WAIT^^EXAMPLEHOSP||||815^Referrer^Rolf^^^^^^EXAMPLEHOSP||||||||||||V{n}^^^EXAMPLEHOSP",
        f"ORC|NW|L{n}^EHR|||||{timing}||20260907080000|||D{n}^Doktor^Dora^^^Dr.^^^EXAMPLEHOSP",
    ]
    rest = [obr, f"ZDS|{uid}^100^Application^DICOM"]
    if version == "2.5.1":
        rest = ["TQ1|1||||||20260908080000+0000||S", obr, f"IPC|A{n}|RP{n}|{uid}|SPS{n}|CT"]
    return "\r".join([*head, *rest, ""])


async def sent_by_hl7(server: MllpServer, message: str) -> str:
    """MSA-1 of the answer that the client of PyPI `hl7` reads."""
    reader, writer = await open_hl7_connection("127.0.0.1", server.port, encoding="utf-8")
    try:
        writer.writemessage(hl7.parse(message))
        await writer.drain()
        answer = await asyncio.wait_for(reader.readmessage(), 20)
        return str(answer.segment("MSA")[1])
    finally:
        writer.close()


def charge(component: str, modifier: str) -> Resource:
    code = {"coding": [{"system": CPT, "code": "71250", "display": "CT chest"}]}
    return {
        "url": "urn:fhir-ris:charge",
        "extension": [
            {"url": "component", "valueCode": component},
            {"url": "code", "valueCodeableConcept": code},
            {"url": "modifier", "valueCodeableConcept": {"coding": [{"system": CPT, "code": modifier}]}},
        ],
    }


async def played(ris: Department, n: str) -> Resource:
    """From the order that has come to the signed report."""
    order = await ris.one("ServiceRequest", identifier=f"L{n}", intent="order")
    appointment = await ris.book(order, await ris.scanner())
    await ris.become(appointment, "arrived")
    performed = await ris.perform(order, "in-progress")
    await ris.become(performed, "completed")
    await ris.report(
        order, "final", issued="2026-09-08T09:15:00Z", effectiveDateTime="2026-09-08T08:20:00Z",
        resultsInterpreter=[{"display": "Reader, Rosa"}], conclusion="Größe 4 mm | unverändert",
    )  # fmt: skip
    return order


def compare(message: Message, expected: dict[str, str], where: str) -> None:
    differ = {path: (part(message, path), value) for path, value in expected.items() if part(message, path) != value}
    assert not differ, f"{where}: {differ} in {message.raw.decode()}"


def patient_fields(n: str) -> dict[str, str]:
    return {
        "PID-3": f"P{n}^^^EXAMPLEHOSP&1.2.3&ISO^MR", "PID-5": "Müster^Mara^Ann^^Dr.^^L", "PID-7": "19700131", "PID-8": "F",
        "PID-11": "Weg 1^^Musterstadt^^01234^DE^H", "PV1-2": "I", "PV1-3": "RAD^WAIT^^EXAMPLEHOSP", "PV1-7.1": "815",
        "PV1-7.2": "Referrer", "PV1-19": f"V{n}^^^EXAMPLEHOSP^VN",
    }  # fmt: skip


def order_fields(n: str, numbers: dict[str, str]) -> dict[str, str]:
    return {
        "ORC-2": f"L{n}^EHR", "ORC-3": f"{numbers['filler']}^FHIR_RIS", "ORC-12": f"D{n}^Doktor^Dora^^^Dr.^^^EXAMPLEHOSP",
        "OBR-2": f"L{n}^EHR", "OBR-3": f"{numbers['filler']}^FHIR_RIS", "OBR-4": f"X{n}^CT Thorax^99ALPHA^24627-2^CT Chest^LN",
        "OBR-16": f"D{n}^Doktor^Dora^^^Dr.^^^EXAMPLEHOSP", "OBR-18": numbers["accession"], "OBR-19": numbers["procedure"],
        "OBR-31": "R05^Cough^I10", "OBR-44": f"X{n}^CT Thorax^99ALPHA^24627-2^CT Chest^LN",
    }  # fmt: skip


def value(resource: Resource, code: str) -> str:
    return next(i["value"] for i in resource["identifier"] if i["type"]["coding"][0]["code"] == code)


def check_receiver(receiver: Receiver, n: str, numbers: dict[str, str]) -> None:
    where = f"{receiver.version} ({receiver.style})"
    assert receiver.told() == TOLD, where
    start, end = "20260908100000+0200", "20260908103000+0200"
    shared, of_order = patient_fields(n), order_fields(n, numbers)
    for message in receiver.received:
        valid(message)
        compare(message, shared | {"MSH-12": receiver.version, "MSH-5": "EHR", "MSH-6": "EXAMPLEHOSP"}, where)
    status = {"ORC-1": "SC", "ORC-7.4": start, "ORC-7.6": "S", "OBR-20": numbers["step"], "OBR-24": "CT", "OBR-36": start}
    compare(receiver.of("ORM"), of_order | status, where)
    scheduled = {"SCH-1": f"L{n}^EHR", "SCH-11.4": start, "SCH-11.5": end, "SCH-25": "Booked", "AIS-4": start, "AIS-7": "30"}
    later = {"SCH-26": f"L{n}^EHR", "SCH-27": f"{numbers['filler']}^FHIR_RIS"} if receiver.version != "2.3.1" else {"SCH-26": ""}
    compare(receiver.of("SIU"), scheduled | later | {"AIS-3": of_order["OBR-4"]}, where)
    result = {"OBR-7": "20260908102000+0200", "OBR-22": "20260908111500+0200", "OBR-25": "F", "OBR-32": "&Reader&Rosa"}
    compare(receiver.of("ORU"), of_order | result | {"ORC-5": "CM", "OBX[1]-5": numbers["study"]}, where)
    check_text(receiver.of("ORU"), receiver.style, where)
    for which, modifier in enumerate(("TC", "26")):
        charged = {"FT1-6": "CG", "FT1-7": "71250^CT chest^C4", "FT1-10": "1", "FT1-21": of_order["ORC-12"]}
        more = {"FT1-23": of_order["ORC-3"], "FT1-25": "71250^CT chest^C4", "FT1-26.1": modifier, "PR1-3.1": "71250"}
        compare(receiver.of("DFT", which), charged | more | {"FT1-19": "R05^Cough^I10"}, where)


def check_text(oru: Message, style: str, where: str) -> None:
    said = [o for o in oru.all("OBX") if o.field(2) == "TX"]
    documents = [o for o in oru.all("OBX") if o.field(2) == "ED"]
    assert len(documents) == (style in "de"), where
    assert [o.text(5) for o in said] == ([] if style == "d" else ["Größe 4 mm | unverändert"]), where
    code = "18748-4" if style in "ab" else "19005-8"
    assert all(o.field(3) == code and o.field(11) == "F" for o in said), where


@pytest.mark.parametrize("version", VERSIONS)
def test_an_order_comes_back_as_status_schedule_result_and_charge_in_every_version_and_style(ris, version):
    async def scenario():
        n = unused("")
        await ris.create(
            {
                "resourceType": "ActivityDefinition", "status": "active", "kind": "ServiceRequest",
                "identifier": [{"system": "urn:fhir-ris:v2-system:99ALPHA", "value": f"X{n}"}],
                "extension": [charge("technical", "TC"), charge("professional", "26")],
            }
        )  # fmt: skip
        server = MllpServer("127.0.0.1", 0, ris.inbound.handle)
        await server.start()
        receivers = [Receiver(version, s) for s in STYLES]
        managers = [Receiver(version, "a")]  # the server of PyPI hl7 is one of the others
        async with contextlib.AsyncExitStack() as stack:
            for receiver in receivers:
                await stack.enter_async_context(receiver.listening(ris, *WANTS))
            for manager in managers:
                kind = "OMI^O23" if manager.version == "2.5.1" else "ORM^O01"
                await stack.enter_async_context(manager.listening(ris, kind, role="image-manager"))
            await stack.enter_async_context(Delivery(ris.interactions, PATIENT).running())
            assert await sent_by_hl7(server, incoming(version, n)) == "AA"
            order = await played(ris, n)
            async with asyncio.timeout(60):
                while any(len(r.received) < len(TOLD) for r in receivers) or any(len(m.received) < 2 for m in managers):
                    await asyncio.sleep(0.05)
        await server.stop(grace=1)
        numbers = {
            "filler": value(order, "FILL"), "accession": f"A{n}", "procedure": f"RP{n}", "step": f"SPS{n}",
            "study": f"1.2.826.0.1.3680043.{n}",
        }  # fmt: skip
        for receiver in receivers:
            check_receiver(receiver, n, numbers)
        for manager in managers:
            check_manager(manager, n, numbers)

    ris.run(scenario())


def check_manager(manager: Receiver, n: str, numbers: dict[str, str]) -> None:
    """What the PACS is told: scheduled and done, with the Study UID where its dialect has it."""
    pairs = [(part(m, "ORC-1"), part(m, "ORC-5")) for m in manager.received]
    assert pairs == [("NW", "SC"), ("XO", "CM")], manager.version
    if manager.version == "2.5.1":
        places = {"IPC-1.1": "accession", "IPC-2.1": "procedure", "IPC-3.1": "study", "IPC-4.1": "step"}
    else:
        places = {"OBR-18": "accession", "OBR-19": "procedure", "ZDS-1.1": "study", "OBR-20": "step"}
    for message in manager.received:
        valid(message)
        compare(message, patient_fields(n) | {"ORC-2": f"L{n}^EHR"}, manager.version)
        compare(message, {place: numbers[name] for place, name in places.items()}, manager.version)
