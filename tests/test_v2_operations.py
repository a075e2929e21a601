"""The message store as its operators see it: searched, shown, sent and processed again, cancelled, and on record."""

import base64
import os
import subprocess
from datetime import timedelta

import pytest

from bridges.v2 import message_search
from bridges.v2.delivery import Delivery
from bridges.v2.message_search import Wanted
from bridges.v2.operations import NotPossible, Operator
from fhir_server import clock
from smart_auth.access import Access
from tests import quick_command
from tests.department import ZONE, Department, code, unused, v2
from tests.test_delivery import QUICK, ids, line, listening, until
from tests.test_v2_orders import orm
from tests.v2_door import registered


@pytest.fixture
def operator(ris: Department) -> Operator:
    return Operator(ris.interactions, Access.system("command-line:analyst"), ZONE)


AUTHORITY = "^^^EXAMPLEHOSP^MR"


def adt(
    number: str, *more: str, kind: str = "ADT^A04", application: str = "HIS", street: str = "", authority: str = AUTHORITY
) -> bytes:
    head = f"MSH|^~\\&|{application}|HOSP|RIS|RAD|20260907081500||{kind}|{{id}}|P|2.5.1||||||UNICODE UTF-8"
    return v2(head, f"PID|1||{number and number + authority}||Muster^Mara||19700131|F|||{street}", *more)


def control_id(message: bytes) -> str:
    return message.split(b"|")[9].decode()


async def kept(ris: Department, message: bytes) -> dict:
    found = await ris.db["messages"].find_one({"control_id": control_id(message)})
    assert found is not None
    return found


# What is kept


def test_a_message_is_linked_to_what_it_touched_and_provenance_tells_which_message_it_was(ris):
    async def scenario():
        number, placer = unused("P"), unused("L")
        message = orm(number, placer)
        await ris.accepted(message)
        patient = await ris.one("Patient", identifier=number)
        order = await ris.one("ServiceRequest", identifier=placer, intent="order")
        stored = await kept(ris, message)
        assert stored["patient"] == f"Patient/{patient['id']}"
        kinds = {r.split("/")[0] for r in stored["about"]}
        assert (
            {"Patient", "ServiceRequest", "ImagingStudy", "Task", "Provenance"} >= kinds >= {"Patient", "ServiceRequest", "Task"}
        )

        (provenance,) = await ris.search("Provenance", target=f"ServiceRequest/{order['id']}")
        targets = {t["reference"] for t in provenance["target"]}
        assert targets == set(stored["about"])
        assert provenance["entity"][0]["what"]["identifier"] == {"system": "urn:fhir-ris:message", "value": str(stored["_id"])}
        assert provenance["agent"][0]["who"]["identifier"]["value"] == "EHR|EXAMPLEHOSP"
        assert provenance["activity"]["coding"][0]["code"] == "CREATE"

    ris.run(scenario())


def test_a_message_that_changes_nothing_has_no_provenance_but_is_found_by_its_patient(ris):
    async def scenario():
        number = unused("P")
        await ris.accepted(adt(number))
        before = await ris.db["Provenance"].count_documents({})
        again = adt(number)
        await ris.accepted(again)
        assert await ris.db["Provenance"].count_documents({}) == before
        patient = await ris.one("Patient", identifier=number)
        assert (await kept(ris, again))["patient"] == f"Patient/{patient['id']}"
        await ris.accepted(adt(number, street="Weg 1"))
        told = await ris.search("Provenance", target=f"Patient/{patient['id']}")
        assert sorted(p["activity"]["coding"][0]["code"] for p in told) == ["CREATE", "UPDATE"]

    ris.run(scenario())


def test_what_nobody_has_read_is_named(ris):
    async def scenario():
        message = adt(unused("P"), f"PV1|1|O|||||||||ROOM 7||||||||{unused('V')}", "ZXY|1|local", "ZXY|2|more")
        await ris.accepted(message)
        unmapped = (await kept(ris, message))["unmapped"]
        assert "ZXY" in unmapped
        assert unmapped.count("ZXY") == 1
        assert "PV1-11" in unmapped
        assert not {"PID-1", "PID-3", "PID-5", "PV1-1", "PV1-2", "MSH"} & set(unmapped)

    ris.run(scenario())


def test_a_message_is_filed_under_its_own_patient_and_orders_whoever_else_has_such_numbers(ris):
    async def scenario():
        number, placer = unused("P"), unused("L")
        elsewhere = adt(number, authority="^^^OTHERHOSP^MR")
        await ris.accepted(elsewhere)
        mine = adt(number)
        await ris.accepted(mine)
        again = adt(number)
        await ris.accepted(again)
        first, asked = orm(number, placer), orm(number, placer, "SS")
        await ris.accepted(first)
        await ris.accepted(orm(number, unused("L")))
        await ris.accepted(asked)
        theirs = await ris.one("Patient", identifier=f"urn:fhir-ris:v2-authority:OTHERHOSP|{number}")
        ours = await ris.one("Patient", identifier=f"urn:fhir-ris:v2-authority:EXAMPLEHOSP|{number}")
        order = await ris.one("ServiceRequest", identifier=placer, intent="order")
        for message, patient in ((elsewhere, theirs), (mine, ours), (again, ours), (first, ours), (asked, ours)):
            stored = await kept(ris, message)
            named = [r for r in stored["about"] if r.startswith("Patient/")]
            assert [stored["patient"], *named] == [f"Patient/{patient['id']}"] * 2
        found = await message_search.find(ris.db, Wanted(order=placer))
        assert [d["control_id"] for d in found] == [control_id(asked), control_id(first)]
        assert (await kept(ris, asked))["about"] == [f"Patient/{ours['id']}", f"ServiceRequest/{order['id']}"]

    ris.run(scenario())


def test_a_refused_message_is_found_by_its_patient_and_its_order(ris):
    async def scenario():
        number, placer = unused("P"), unused("L")
        await ris.accepted(orm(number, placer))
        contradicts = orm(number, placer, "SC")
        unknown = orm(number, unused("L"), "CA")
        no_sex = adt(number).replace(b"|F|", b"|Q9|")
        refused = (contradicts, unknown, no_sex)
        for message in refused:
            assert code(await ris.receive(message)) == "AE"
        by_patient = [d["control_id"] for d in await message_search.find(ris.db, Wanted(patient=number, status="AE"))]
        assert by_patient == [control_id(m) for m in reversed(refused)]
        by_order = await message_search.find(ris.db, Wanted(order=placer, status="AE"))
        assert [d["control_id"] for d in by_order] == [control_id(contradicts)]

    ris.run(scenario())


def test_a_merge_is_found_under_both_of_its_records(ris):
    async def scenario():
        stays, goes = unused("P"), unused("P")
        for number in (stays, goes):
            await ris.accepted(adt(number))
        records = [await ris.one("Patient", identifier=number) for number in (stays, goes)]
        merge, again = (adt(stays, f"MRG|{goes}{AUTHORITY}", kind="ADT^A40") for _ in range(2))
        reverse = adt(goes, f"MRG|{stays}{AUTHORITY}", kind="ADT^A40")
        for message in (merge, again):
            await ris.accepted(message)
        assert code(await ris.receive(reverse)) == "AE"
        for record in records:
            found = await message_search.find(ris.db, Wanted(patient=record["id"], kind="ADT^A40"))
            assert [d["control_id"] for d in found] == [control_id(m) for m in (reverse, again, merge)]
        assert (await kept(ris, merge))["patient"] == f"Patient/{records[0]['id']}"

    ris.run(scenario())


# Search


def test_messages_are_found_by_everything_that_is_known_of_them(ris):
    async def scenario():
        async with registered(ris, "accept-application: EHR"), registered(ris, "accept-application: ADTSYS") as his:
            number, placer = unused("P"), unused("L")
            first, second = adt(number, application="ADTSYS"), orm(number, placer)
            refused = adt("", application="ADTSYS")
            began = clock.naive(clock.now()) - timedelta(seconds=1)
            for message in (first, second, refused):
                await ris.receive(message)
            patient = await ris.one("Patient", identifier=number)
            order = await ris.one("ServiceRequest", identifier=placer, intent="order")

            async def found(**wanted: object) -> list[str]:
                documents = await message_search.find(ris.db, Wanted(**wanted))
                return [d["control_id"] for d in documents]

            one, two, three = map(control_id, (first, second, refused))
            assert await found(patient=number) == [two, one]
            assert await found(patient=f"Patient/{patient['id']}", kind="ORM") == [two]
            assert await found(patient=patient["id"], kind="ADT^A04") == [one]
            assert await found(order=placer) == [two]
            assert await found(order=order["id"], status="AA") == [two]
            assert await found(control_id=one) == [one]
            assert await found(partner=his["id"]) == [three, one]
            assert await found(partner="ADTSYS|HOSP", status="AE") == [three]
            assert await found(partner="ADTSYS", since=began) == [three, one]
            assert await found(partner="ADTSYS", until=began) == []
            assert await found(partner="ADT") == []
            assert await found(limit=1) == [three]

    ris.run(scenario())


@pytest.mark.parametrize("outbound", [False, True])
@pytest.mark.parametrize(
    "wanted",
    [
        {}, {"patient": "4711"}, {"order": "4711"}, {"control_id": "4711"}, {"partner": "4711"}, {"kind": "ADT"},
        {"kind": "ADT^A04"}, {"status": "AE"}, {"status": "pending"},
    ],
)  # fmt: skip
def test_no_search_looks_at_every_message(ris, outbound, wanted):
    async def scenario():
        plans = []
        await ris.db.command("profile", 2)
        try:
            await message_search.find(ris.db, Wanted(outbound=outbound, **wanted))
            name = f"{ris.db.name}.{'outbox' if outbound else 'messages'}"
            plans = [p["planSummary"] async for p in ris.db["system.profile"].find({"ns": name, "op": "query"})]
        finally:
            await ris.db.command("profile", 0)
            await ris.db["system.profile"].drop()
        assert plans
        assert all("IXSCAN" in plan and "COLLSCAN" not in plan for plan in plans), plans

    ris.run(scenario())


# Show


def test_a_message_is_shown_by_segments_or_by_fields_with_their_names(ris, operator):
    async def scenario():
        number = unused("P")
        message = adt(number, "ZXY|local")
        await ris.accepted(message)
        id_ = str((await kept(ris, message))["_id"])
        whole = await operator.show(id_)
        assert f"\nPID|1||{number}{AUTHORITY}||Muster^Mara" in whole
        assert "answered:\nMSH|" in whole
        assert "not read: ZXY" in whole
        named = await operator.show(id_, fields=True)
        assert f"  PID-3 Patient identifier list: {number}{AUTHORITY}\n" in named
        assert "  ZXY-1: local\n" in named
        plain = await operator.show(id_, fields=True, names=False)
        assert f"  PID-3: {number}{AUTHORITY}\n" in plain
        events = await ris.db["AuditEvent"].find({"resource.subtype.code": "message-show"}).to_list()
        mine = [e["resource"] for e in events if id_ in e["resource"]["outcomeDesc"]]
        assert len(mine) == 3
        patient = await ris.one("Patient", identifier=number)
        assert mine[0]["entity"][0]["what"]["reference"] == f"Patient/{patient['id']}"
        assert mine[0]["agent"][0]["who"]["display"] == "command-line:analyst"

    ris.run(scenario())


def test_what_a_sender_wrote_is_no_command_to_the_terminal(ris, operator):
    async def scenario():
        number = unused("P")
        message = adt(number, "ZXY|\x1b[2J|[/red]").replace(b"|P|2.5.1", b"\x1b[31m|P|2.5.1")
        await ris.receive(message)
        stored = await ris.db["messages"].find_one({"patient": f"Patient/{(await ris.one('Patient', identifier=number))['id']}"})
        shown = await operator.show(str(stored["_id"]))
        assert "ZXY|\\x1b[2J|[/red]" in shown
        assert "\x1b" not in shown
        assert "\x1b" not in "".join(message_search.row(stored))

    ris.run(scenario())


@pytest.mark.parametrize("message_id", ["", "nothing", "0" * 24])
def test_what_is_no_message_is_said_to_be_none(ris, operator, message_id):
    async def scenario():
        for attempt in (operator.show(message_id), operator.replay(message_id), operator.cancel(message_id, "why")):
            with pytest.raises(NotPossible, match="there is no message"):
                await attempt

    ris.run(scenario())


# Again


def test_a_refused_message_is_processed_again_when_its_cause_is_mended(ris, operator):
    async def scenario():
        number, placer = unused("P"), unused("L")
        cancel = orm(number, placer, "CA")
        assert code(await ris.receive(cancel)) == "AE"
        first = await kept(ris, cancel)
        id_ = str(first["_id"])
        assert await operator.replay(id_) == "it was processed again: AE"
        await ris.accepted(orm(number, placer))
        assert await operator.replay(id_) == "it was processed again: AA"
        assert (await ris.one("ServiceRequest", identifier=placer, intent="order"))["status"] == "revoked"
        stored = await kept(ris, cancel)
        assert [s["state"] for s in stored["states"]] == ["AE", "AE", "AA"]
        assert stored["received"] == first["received"]
        with pytest.raises(NotPossible, match="was processed"):
            await operator.replay(id_)
        # The sender that sends it again now gets the answer of the last time.
        assert code(await ris.receive(cancel)) == "AA"
        events = await ris.db["AuditEvent"].find({"resource.subtype.code": "message-replay"}).to_list()
        assert sum(id_ in e["resource"]["outcomeDesc"] for e in events) == 2

    ris.run(scenario())


def test_a_message_that_named_somebody_wholly_different_is_processed_when_the_record_was_corrected(ris, operator):
    async def scenario():
        number = unused("P")
        await ris.accepted(adt(number))
        other = adt(number, "AL1|1|DA|^Latex|SV").replace(b"Muster^Mara||19700131", b"Neumann^Berta||19950707")
        await ris.accepted(other)
        (held,) = await message_search.find(ris.db, Wanted(patient=number, status="held"))
        id_ = str(held["_id"])
        assert await operator.replay(id_) == "it was processed again: AA, and is held as before"
        patient = await ris.one("Patient", identifier=number)
        assert patient["name"][0]["family"] == "Muster"
        await ris.update(patient, name=[{"family": "Neumann", "given": ["Berta"]}])
        assert await operator.replay(id_) == "it was processed again: AA"
        assert (await ris.one("Patient", identifier=number))["birthDate"] == "1995-07-07"
        assert len(await ris.search("AllergyIntolerance", patient=f"Patient/{patient['id']}")) == 1
        stored = await kept(ris, other)
        assert [s["state"] for s in stored["states"]] == ["held", "held", "AA"]
        assert "state" not in stored
        with pytest.raises(NotPossible, match="was processed"):
            await operator.replay(id_)

    ris.run(scenario())


def test_a_delivered_message_is_sent_again_under_its_control_id(ris, operator):
    async def scenario():
        async with listening() as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            (posted,) = await to.post()
            await until(to.settled)
            (document,) = await to.documents()
            await operator.replay(str(document["_id"]))
            await until(to.settled)
            assert ids(ehr) == [posted, posted]
            assert ehr.received[0].raw == ehr.received[1].raw
            assert [s["state"] for s in (await to.documents())[0]["states"]] == ["delivered", "pending", "delivered"]

    ris.run(scenario())


def test_a_message_that_was_cancelled_is_not_sent_and_the_next_one_is(ris, operator):
    async def scenario():
        async with listening() as ehr:
            to = await line(ris, ehr.port)
            first, second = await to.post(2)
            document = (await to.documents())[0]
            with pytest.raises(NotPossible, match="reason"):
                await operator.cancel(str(document["_id"]), "  ")
            await operator.cancel(str(document["_id"]), "sent by phone")
            async with Delivery(ris.interactions, QUICK).running():
                await until(to.settled)
            assert ids(ehr) == [second]
            assert await to.states() == ["cancelled", "delivered"]
            assert (await to.documents())[0]["error"] == "cancelled: sent by phone"
            with pytest.raises(NotPossible, match="is delivered"):
                await operator.cancel(str((await to.documents())[1]["_id"]), "too late")
            assert first not in ids(ehr)

    ris.run(scenario())


def test_a_message_that_is_never_answered_is_set_aside_for_a_person_and_the_next_one_goes(ris, operator):
    async def scenario():
        timing = QUICK.__class__(look=0.05, first_pause=0.01, longest_pause=0.02, connect=0.5, ack=0.05, unanswered=3)
        async with listening(answer=None) as ehr, Delivery(ris.interactions, timing).running():
            to = await line(ris, ehr.port)
            order = await ris.order()
            (first,) = await to.post()
            await ris.db["outbox"].update_one(
                {"control_id": first},
                {"$set": {"about": [f"ServiceRequest/{order['id']}"], "patient": order["subject"]["reference"]}},
            )
            await until(to.settled)
            assert (await to.states(), ids(ehr)) == (["dead"], [first] * 3)
            (item,) = await ris.work_items("message-refused", focus=f"ServiceRequest/{order['id']}")
            assert item["for"] == {"reference": order["subject"]["reference"]}
            ehr.answer = "AA"
            await to.post()
            await until(to.settled)
            assert await to.states() == ["dead", "delivered"]
            await operator.cancel(str((await to.documents())[0]["_id"]), "the order is over")
            (item,) = await ris.work_items("message-refused", focus=f"ServiceRequest/{order['id']}")
            assert item["status"] == "completed"

    ris.run(scenario())


def test_the_work_item_of_an_order_stays_as_long_as_one_of_its_messages_is_set_aside(ris, operator):
    async def scenario():
        order = await ris.order()
        about = f"ServiceRequest/{order['id']}"
        async with listening(answer="AE") as ehr, Delivery(ris.interactions, QUICK).running():
            to = await line(ris, ehr.port)
            ids_ = await to.post(2)
            await ris.db["outbox"].update_many({"control_id": {"$in": ids_}}, {"$set": {"about": [about]}})
            await until(to.settled)
            first, second = await to.documents()
            assert await to.states() == ["refused", "refused"]
            await operator.cancel(str(second["_id"]), "sent by phone")
            (item,) = await ris.work_items("message-refused", focus=about)
            assert item["status"] == "requested"
            assert first["control_id"] in item["description"]
            ehr.answer = "AA"
            await operator.replay(str(first["_id"]))
            await until(to.settled)
            (item,) = await ris.work_items("message-refused", focus=about)
            assert item["status"] == "completed"

    ris.run(scenario())


def test_a_search_by_patient_or_order_is_on_record(ris, operator):
    async def scenario():
        number = unused("P")
        await ris.accepted(adt(number))
        (document,) = await operator.find(Wanted(patient=number))
        await operator.find(Wanted(kind="ADT"))
        events = await ris.db["AuditEvent"].find({"resource.subtype.code": "message-list"}).to_list()
        asked = [[e for e in event["resource"]["entity"] if "query" in e] for event in events]
        assert [base64.b64decode(q["query"]).decode() for (q,) in asked] == [f"patient={number}"]
        assert events[0]["resource"]["entity"][0]["what"]["reference"] == document["patient"]
        assert events[0]["resource"]["agent"][0]["who"]["display"] == "command-line:analyst"

    ris.run(scenario())


# The command line


def test_the_commands_work_beside_a_running_server(ris, mongodb_uri, tmp_path):
    number = unused("P")
    message = adt(number)
    ris.run(ris.accepted(message))

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RIS_")}
        settings = {"RIS_MONGODB_URI": mongodb_uri, "RIS_MONGODB_DATABASE": ris.db.name, "RIS_DATA_DIR": str(tmp_path)}
        return quick_command.run("messages", *arguments, env=environment | settings, cwd=tmp_path)

    listed = command("list", "--patient", number, "--plain")
    assert listed.returncode == 0, listed.stderr
    id_, _, kind, control, sender, state, *_ = listed.stdout.splitlines()[0].split("\t")
    assert (kind, control, sender, state) == ("ADT^A04", control_id(message), "HIS|HOSP", "AA")
    assert f"PID-3 Patient identifier list: {number}" in command("show", id_, "--fields").stdout
    refused = command("replay", id_)
    assert (refused.returncode, refused.stderr) == (2, f"fhir-ris: message {id_} was processed\n")
    assert command("cancel", id_, "--reason", "none").returncode == 2
