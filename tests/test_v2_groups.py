"""Messages that come at the same time are committed together; what becomes of one is no matter of the others."""

import asyncio
from collections import Counter

from bridges.v2.message import parse
from tests.department import code, unused, v2
from tests.v2_case import Case


def registration(number: str) -> bytes:
    return v2(
        "MSH|^~\\&|PARKER|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ADT^A04|{id}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|||{number}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
    )


def half_parked(number: str) -> bytes:
    """A cancellation of an order that isn't here, which would wait for it, and something that no filler does: refused."""
    return v2(
        "MSH|^~\\&|PARKER|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|||{number}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
        f"ORC|CA|{number}L^PARKER",
        "OBR|1|||24627-2^CT Chest^LN",
        f"ORC|ZZ|{number}M^PARKER",
        "OBR|1|||24627-2^CT Chest^LN",
    )


def test_a_refused_message_leaves_nothing_behind_though_others_are_committed_with_it(ris):
    async def scenario():
        case = Case(ris)
        await case.play("--- partner PARKER\naccept-unknown-order: park\n--- 0 Patient?identifier=none\n")
        await ris.update(case.endpoints["PARKER"], status="active")
        good, bad = [unused("G") for _ in range(60)], [unused("B") for _ in range(30)]
        messages = [registration(n) for n in good] + [half_parked(n) for n in bad]
        answers = await asyncio.gather(*(ris.answer(m) for m in messages))
        codes = Counter(code(parse(a)) for a in answers)
        assert codes == {"AA": 60, "AE": 30}
        assert await ris.db["parked_orders"].count_documents({}) == 0
        for number in good:
            assert len(await ris.search("Patient", identifier=number)) == 1
        for number in bad:
            assert await ris.search("Patient", identifier=number) == []
        await ris.update(case.endpoints["PARKER"], status="off")

    ris.run(scenario())
