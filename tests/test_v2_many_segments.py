"""Messages with many segments of a kind: refused beyond a number that nobody has, and each known one found again."""

import pytest

from bridges.v2.admission import MAX_SEGMENTS
from tests.department import code, condition, place, unused, v2

KINDS = {
    "AL1": ("AL1|{i}|DA|A{i}^x{i}^L", "AllergyIntolerance", "patient"),
    "DG1": ("DG1|{i}||A{i}^x{i}^L|x|20260101|A", "Condition", "patient"),
    "NK1": ("NK1|{i}|Fam{i}^Giv{i}|PAR", "RelatedPerson", "patient"),
    "GT1": ("GT1|{i}||Fam{i}^Giv{i}", "RelatedPerson", "patient"),
    "IN1": ("IN1|{i}|P{i}|C1|Comp" + "|" * 32 + "POL{i}", "Coverage", "beneficiary"),
}


def adt(number: str, segment: str, count: int) -> bytes:
    return v2(
        "MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ADT^A08|{id}|P|2.5.1",
        f"PID|1||{number}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F",
        *(segment.replace("{i}", str(i)) for i in range(1, count + 1)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_many_is_kept_once_however_often_it_comes_and_more_are_refused(ris, kind):
    segment, resource, whose = KINDS[kind]

    async def scenario():
        number = unused("P")
        for _ in range(2):
            await ris.accepted(adt(number, segment, MAX_SEGMENTS))
        patient = await ris.one("Patient", identifier=number)
        assert len(await ris.search(resource, **{whose: f"Patient/{patient['id']}"})) == MAX_SEGMENTS
        ack = await ris.receive(adt(number, segment, MAX_SEGMENTS + 1))
        assert (code(ack), condition(ack), place(ack)) == ("AE", "102", f"{kind}({MAX_SEGMENTS + 1})")

    ris.run(scenario())
