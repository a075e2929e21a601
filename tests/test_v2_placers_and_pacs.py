"""Placer numbers that are learned from replies, and what a PACS is told of procedures with several steps."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from bridges.v2.ack import acknowledge
from bridges.v2.delivery import Delivery
from bridges.v2.message import Message, Seg, parse
from bridges.v2.mllp import MllpServer, Peer
from fhir_server.audit import Act
from tests.department import ACCESS, DCM, Department, Resource, booking, unused
from tests.test_delivery import until
from tests.test_v2_roundtrip import PATIENT
from tests.v2_case import valid

# Placer numbers


class Numberer:
    """A HIS that answers SN with the number of `give`, in an ORR (NA)."""

    def __init__(self, give: str, code: str = "AA") -> None:
        self.give, self.code = give, code
        self.received: list[Message] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = MllpServer("127.0.0.1", 0, self._answer)
        await server.start()
        try:
            yield server.port
        finally:
            await server.stop(grace=1)

    async def _answer(self, frame: bytes, _peer: Peer) -> bytes:
        message = parse(frame)
        self.received.append(message)
        orc = Seg("ORC", {1: "NA", 2: self.give, 3: message.first("ORC").field(3)})
        obr = Seg("OBR", {1: 1})
        return acknowledge(
            message, self.code, control_id=unused("R"), when=datetime.now(UTC), extra_segments=[orc, obr],
            response=("ORR", "O02", "ORR_O02"), facility="EXAMPLEHOSP",
        )  # fmt: skip


def placer(order: Resource) -> list[str]:
    return [i["value"] for i in order["identifier"] if i.get("type", {}).get("coding", [{}])[0].get("code") == "PLAC"]


async def asked(ris: Department, his: Numberer, orders: int = 1) -> list[Resource]:
    """Orders made here, after the HIS has answered what it was asked."""
    async with his.listening() as port:
        endpoint = await ris.destination("ORM^O01", assigns_placer_numbers="yes")
        endpoint = await ris.update(endpoint, address=f"mllp://127.0.0.1:{port}")
        made = [await ris.order() for _ in range(orders)]
        async with Delivery(ris.interactions, PATIENT).running():

            async def settled() -> bool:
                where = {"destination": f"Endpoint/{endpoint['id']}", "state": "pending"}
                return await ris.db["outbox"].count_documents(where) == 0

            await until(settled)
        await ris.become(endpoint, "off")
    return [await ris.read(order) for order in made]


def test_the_placer_number_of_the_answer_is_the_orders(ris):
    async def scenario():
        his = Numberer(give := unused("PL"))
        (order,) = await asked(ris, his)
        assert [m.first("ORC").field(1) for m in his.received] == ["SN"]
        assert placer(order) == [give]
        await ris.become(order, "revoked")  # from now on it is told under its number

    ris.run(scenario())


def test_a_number_that_another_order_has_is_shown_to_a_person(ris):
    async def scenario():
        his = Numberer(give := unused("PL"))
        first, second = await asked(ris, his, orders=2)
        assert placer(first) == [give]
        assert placer(second) == []
        (item,) = await ris.work_items("placer-number-refused")
        assert item["focus"]["reference"] == f"ServiceRequest/{second['id']}"

    ris.run(scenario())


def test_a_refusal_assigns_nothing(ris):
    async def scenario():
        (order,) = await asked(ris, Numberer(unused("PL"), code="AE"))
        assert placer(order) == []

    ris.run(scenario())


def test_an_order_that_came_with_its_number_asks_for_none(ris):
    async def scenario():
        his = await ris.destination("ORM^O01", assigns_placer_numbers="yes")
        number = {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}]}}
        await ris.order(identifier=[number | {"system": "urn:x", "value": unused("PL")}])
        assert await ris.sent(his) == []
        await ris.become(his, "off")

    ris.run(scenario())


# Several steps


async def two_steps(ris: Department) -> Resource:
    """An order whose requested procedure has two steps."""
    order = await ris.order()
    procedure = await ris.procedure(order)
    detail = {"coding": [{"system": "urn:fhir-ris:task-detail", "code": "modality"}]}
    await ris.create(
        {
            "resourceType": "Task", "status": "requested", "intent": "plan", "code": {"text": "contrast series"},
            "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
            "input": [{"type": detail, "valueCodeableConcept": {"coding": [{"system": DCM, "code": "CT"}]}}],
        }
    )  # fmt: skip
    return order


@pytest.mark.parametrize(("kind", "version"), [("OMI^O23", "2.5.1"), ("ORM^O01", "2.3.1")])
def test_the_steps_of_a_procedure_are_one_message_and_it_is_done_with_the_last(ris, kind, version):
    async def scenario():
        pacs = await ris.destination(kind, role="image-manager", hl7_version=version)
        order = await two_steps(ris)
        await ris.book(order, await ris.scanner())
        (scheduled,) = await ris.sent(pacs)
        valid(scheduled)
        if kind == "OMI^O23":
            assert (len(scheduled.all("OBR")), len(scheduled.all("IPC"))) == (1, 2)
            assert len({i.field(4) for i in scheduled.all("IPC")}) == 2
            assert len({i.field(3) for i in scheduled.all("IPC")}) == 1
        else:
            assert [s.name for s in scheduled.segments][2:] == ["ORC", "OBR", "ORC", "OBR", "ZDS"]
            assert [o.field(1) for o in scheduled.all("OBR")] == ["1", "2"]
            assert len({o.field(20) for o in scheduled.all("OBR")}) == 2
        first, second = await ris.steps(order)
        await ris.perform(order, "completed", first)
        assert len(await ris.sent(pacs)) == 1
        await ris.perform(order, "completed", second)
        done = (await ris.sent(pacs))[1:]
        assert [(m.first("ORC").field(1), m.first("ORC").field(5)) for m in done] == [("XO", "CM")]
        await ris.become(pacs, "off")

    ris.run(scenario())


def test_a_procedure_that_is_given_up_in_part_is_done_when_its_other_step_is(ris):
    async def scenario():
        pacs = await ris.destination("OMI^O23")
        order = await two_steps(ris)
        await ris.book(order, await ris.scanner())
        first, second = await ris.steps(order)
        await ris.become(first, "cancelled")
        await ris.perform(order, "completed", second)
        pairs = [(m.first("ORC").field(1), m.first("ORC").field(5), len(m.all("IPC"))) for m in await ris.sent(pacs)]
        assert pairs == [("NW", "SC", 2), ("CA", "CA", 1), ("XO", "CM", 1)]
        await ris.become(pacs, "off")

    ris.run(scenario())


def test_two_image_managers_are_each_told_what_they_have_not_heard(ris):
    async def scenario():
        old = await ris.destination("OMI^O23")
        appointment = await ris.book(await ris.order(), await ris.scanner())
        new = await ris.destination("OMI^O23")
        await ris.update(appointment, start="2026-09-08T08:05:00Z")
        told = [[m.first("ORC").field(1) for m in await ris.sent(p)] for p in (old, new)]
        assert told == [["NW", "XO"], ["NW"]]
        for pacs in (old, new):
            await ris.become(pacs, "off")

    ris.run(scenario())


def test_who_tells_us_of_a_booking_is_not_told_of_it_and_who_ordered_is_told_the_status(ris):
    async def scenario():
        planner, other = await ris.destination("SIU^S12", "ORM^O01"), await ris.destination("SIU^S12", "ORM^O01")
        order, scanner = await ris.order(), await ris.scanner()

        async def from_the_planner(unit):
            unit.origin = f"Endpoint/{planner['id']}"
            await unit.create(booking(order, scanner))

        await ris.interactions.transact(ACCESS, Act("test"), from_the_planner)
        told = [["^".join(m.type[:2]) for m in await ris.sent(d)] for d in (planner, other)]
        assert told == [["ORM^O01"], ["SIU^S12", "ORM^O01"]]
        for endpoint in (planner, other):
            await ris.become(endpoint, "off")

    ris.run(scenario())
