"""Results that come in at the same time, again and in the wrong order, and what they make of the order and the reading."""

import asyncio
import base64

from tests.department import Department, code, condition, place, unused, v2

PID = "PID|1||{p}^^^EXAMPLEHOSP^MR||Muster^Mara||19700131|F"


def result(order: str, status: str, text: str, when: str = "", *obx: str) -> bytes:
    """An ORU^R01 of a reading service for the order with this placer number."""
    return v2(
        "MSH|^~\\&|READER|TELERAD|FHIR_RIS|RAD|20260907101500||ORU^R01^ORU_R01|{id}|P|2.5.1||||||UNICODE UTF-8",
        PID.format(p=f"P{order}"),
        f"ORC|RE|{order}^EHR",
        f"OBR|1|||24627-2^CT Chest^LN||||||||||||||||||{when}||RAD|{status}",
        *(obx or (f"OBX|1|TX|59776-5^Findings^LN||{text}||||||{status}",)),
    )


async def ordered(ris: Department) -> str:
    """The placer number of a new order."""
    number = unused("L")
    await ris.accepted(
        "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
        PID.format(p=f"P{number}"),
        f"ORC|NW|{number}^EHR",
        f"OBR|1|{number}^EHR||24627-2^CT Chest^LN||||||||||||||||||||CT",
    )
    return number


async def reports(ris: Department, number: str) -> list[dict]:
    order = await ris.one("ServiceRequest", identifier=number, intent="order")
    return await ris.search("DiagnosticReport", based_on=f"ServiceRequest/{order['id']}")


def text_of(report: dict) -> str:
    return base64.b64decode(report["presentedForm"][0]["data"]).decode()


def test_a_final_report_ends_the_reading_and_once_the_exam_is_done_the_order(ris):
    async def scenario():
        number = await ordered(ris)
        order = await ris.one("ServiceRequest", identifier=number, intent="order")
        await ris.perform(order)
        await ris.accepted(result(number, "P", "Clear?"))
        assert [r["status"] for r in await ris.readings(order)] == ["in-progress"]
        await ris.accepted(result(number, "F", "Clear."))
        assert [r["status"] for r in await ris.readings(order)] == ["completed"]
        assert (await ris.read(order))["status"] == "completed"

    ris.run(scenario())


def test_preliminary_and_final_at_the_same_time_make_one_report_that_is_final_or_refuse_the_preliminary(ris):
    async def scenario():
        for _ in range(4):
            number = await ordered(ris)
            acks = await asyncio.gather(
                ris.receive(result(number, "P", "Clear?")), ris.receive(result(number, "F", "Clear.")),
                ris.receive(result(number, "P", "Clear?")),
            )  # fmt: skip
            found = await reports(ris, number)
            assert [r["status"] for r in found] == ["final"]
            assert text_of(found[0]) == "Clear."
            assert code(acks[1]) == "AA"
            assert {(code(a), condition(a)) for a in acks if code(a) != "AA"} <= {("AE", "207")}

    ris.run(scenario())


def test_the_same_final_ten_times_at_once_is_one_report_in_one_version(ris):
    async def scenario():
        number = await ordered(ris)
        acks = await asyncio.gather(*(ris.receive(result(number, "F", "Clear.")) for _ in range(10)))
        assert {code(a) for a in acks} == {"AA"}
        found = await reports(ris, number)
        assert [(r["status"], r["meta"]["versionId"]) for r in found] == [("final", "1")]

    ris.run(scenario())


def test_corrections_in_the_wrong_order_end_with_the_one_issued_last(ris):
    async def scenario():
        number = await ordered(ris)
        await ris.accepted(result(number, "F", "Zero.", "20260907100000"))
        said = {"20260907110000": "One.", "20260907130000": "Three.", "20260907120000": "Two."}
        await asyncio.gather(*(ris.receive(result(number, "C", text, when)) for when, text in said.items()))
        found = await reports(ris, number)
        assert [(r["status"], text_of(r)) for r in found] == [("corrected", "Three.")]

    ris.run(scenario())


def test_every_version_of_a_corrected_report_stays_readable(ris):
    async def scenario():
        number = await ordered(ris)
        for status, text in (("P", "First."), ("F", "Second."), ("C", "Third.")):
            await ris.accepted(result(number, status, text))
        found = (await reports(ris, number))[0]
        versions = [(await ris.store.vread("DiagnosticReport", found["id"], n)).resource for n in (1, 2, 3)]
        assert [(v["status"], text_of(v)) for v in versions] == [
            ("preliminary", "First."), ("final", "Second."), ("corrected", "Third."),
        ]  # fmt: skip

    ris.run(scenario())


def test_a_document_over_the_limit_is_refused_and_leaves_nothing(ris):
    async def scenario():
        number = await ordered(ris)
        large = base64.b64encode(b"%PDF-1.4" + bytes(8 * 1024 * 1024)).decode()
        before = await ris.counts()
        ack = await ris.receive(result(number, "F", "", "", f"OBX|1|ED|18748-4^Report^LN||^AP^PDF^Base64^{large}||||||F"))
        assert (code(ack), condition(ack), place(ack)) == ("AE", "102", "OBX-5.5")
        assert await ris.counts() == before

    ris.run(scenario())


def test_a_document_just_under_the_limit_is_kept_and_a_second_version_too(ris):
    async def scenario():
        number = await ordered(ris)
        for i, status in enumerate("PF"):
            pdf = base64.b64encode(b"%PDF-1.4" + bytes([i]) * (5 * 1024 * 1024)).decode()
            await ris.accepted(result(number, status, "", "", f"OBX|1|ED|18748-4^Report^LN||^AP^PDF^Base64^{pdf}||||||F"))
        found = (await reports(ris, number))[0]
        assert found["status"] == "final"
        assert found["presentedForm"][0]["size"] == 8 + 5 * 1024 * 1024

    ris.run(scenario())


def test_a_report_of_five_thousand_lines_is_one_text(ris):
    async def scenario():
        number = await ordered(ris)
        lines = [f"OBX|{i}|TX|59776-5^Findings^LN||Line {i}.||||||F" for i in range(1, 5001)]
        await ris.accepted(result(number, "F", "", "", *lines))
        text = text_of((await reports(ris, number))[0])
        assert (text.count("\n"), text[-11:]) == (4999, "\nLine 5000.")

    ris.run(scenario())


def test_two_schedulers_at_once_take_a_station_for_one_of_two_patients(ris):
    async def scenario():
        station = await ris.scanner()
        title = station["identifier"][0]["value"]
        numbers = [await ordered(ris), await ordered(ris)]

        def booked(number: str) -> bytes:
            return v2(
                "MSH|^~\\&|PLANNER|EXAMPLEHOSP|FHIR_RIS|RAD|20260907101500||SIU^S12^SIU_S12|{id}|P|2.5.1",
                f"SCH||S{number}^PLANNER|||||||30|min|^^30^20260910090000^20260910093000||||||||||||||Booked|{number}^EHR",
                PID.format(p=f"P{number}"),
                "RGS|1|A",
                f"AIG|1|A|{title}",
            )

        acks = await asyncio.gather(*(ris.receive(booked(n)) for n in numbers))
        assert sorted(code(a) for a in acks) == ["AA", "AE"]
        assert [a["status"] for n in numbers for a in await ris.search("Appointment", identifier=f"S{n}")] == ["booked"]

    ris.run(scenario())


async def two_examined(ris: Department) -> tuple[str, dict]:
    """The placer number of an order of two procedures that are both examined, and the order."""
    number = unused("L")
    await ris.accepted(
        "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
        PID.format(p=f"P{number}"),
        f"ORC|NW|{number}^EHR",
        f"OBR|1|{number}^EHR||CHEST^CT Chest^L||||||||||||||||||||CT",
        f"OBR|2|{number}^EHR||ABDO^CT Abdomen^L||||||||||||||||||||CT",
    )
    order = await ris.one("ServiceRequest", identifier=number, intent="order")
    for step in await ris.steps(order):
        await ris.perform(order, step=step)
    return number, order


async def readings(ris: Department, order: dict) -> dict[str, str]:
    """What is to be read, and whether it is."""
    found = {}
    for task in await ris.readings(order):
        procedure = await ris.read(task["basedOn"][0]["reference"])
        found[procedure["code"]["coding"][0]["code"]] = task["status"]
    return found


def test_a_report_of_one_procedure_leaves_the_reading_of_the_other_open(ris):
    async def scenario():
        number, order = await two_examined(ris)
        await ris.accepted(result(number, "F", "Tumour.").replace(b"24627-2^CT Chest^LN", b"ABDO^CT Abdomen^L"))
        assert await readings(ris, order) == {"CHEST": "requested", "ABDO": "completed"}
        assert (await ris.read(order))["status"] == "active"

    ris.run(scenario())


def test_a_report_that_says_of_no_procedure_ends_none_until_somebody_has_said_of_which_it_is(ris):
    async def scenario():
        number, order = await two_examined(ris)
        await ris.accepted(result(number, "F", "Tumour."))
        assert set((await readings(ris, order)).values()) == {"requested"}
        [report] = await reports(ris, number)
        assert await ris.search("Task", focus=f"DiagnosticReport/{report['id']}", code="unnamed-procedure")
        abdomen = next(p for p in await ris.procedures(order) if p["code"]["coding"][0]["code"] == "ABDO")
        named = {e: v for e, v in report.items() if e != "extension"} | {
            "status": "amended", "basedOn": [{"reference": f"ServiceRequest/{abdomen['id']}"}],
        }  # fmt: skip
        await ris.update(named)
        assert await readings(ris, order) == {"CHEST": "requested", "ABDO": "completed"}

    ris.run(scenario())
