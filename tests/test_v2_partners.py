"""Who may send HL7 v2, from where, what and how fast: what an Endpoint with `accept-application` says is kept to."""

import asyncio
import hashlib

import pytest

from bridges.v2.inbound import Inbound
from bridges.v2.message import parse
from bridges.v2.mllp import Peer
from bridges.v2.operations import NotPossible, Operator
from bridges.v2.partners import Partners
from bridges.v2.rates import Rates
from tests.department import ACCESS, ZONE, Department, code, condition, place, text, unused, v2
from tests.v2_door import calling, door, partner, registered


def adt(
    application: str = "HIS", facility: str = "HOSP", kind: str = "ADT^A04", processing: str = "P", version: str = "2.5.1",
    charset: str = "", segments: tuple[str, ...] = (), name: str = "Muster^Mara", number: str = "",
) -> bytes:  # fmt: skip
    head = f"MSH|^~\\&|{application}|{facility}|RIS|RAD|20260907081500||{kind}|{{id}}|{processing}|{version}||||||{charset}"
    who = f"PID|1||{number or unused('P')}^^^HOSP||{name}||19700131|F"
    return v2(head, *(segments or ("EVN|A04|20260907", who, "PV1|1|O")), charset="latin-1")


async def ask(ris: Department, message: bytes, host: str = "127.0.0.1"):
    from bridges.v2.message import parse

    return parse(await ris.inbound.handle(message, Peer(host, 40000)))


async def kept(ris: Department, message: bytes) -> dict:
    control_id = message.split(b"|")[9].decode()
    return await ris.db["messages"].find_one({"control_id": control_id})


# Who


def test_while_no_partner_is_registered_only_this_machine_may_send(ris):
    async def scenario():
        assert code(await ask(ris, adt())) == "AA"
        assert code(await ask(ris, adt(), "::1")) == "AA"
        stranger = await ask(ris, adt(), "192.0.2.9")
        assert (code(stranger), condition(stranger), place(stranger)) == ("AR", "103", "MSH-3")
        assert [await ris.inbound.admits(h) for h in ("127.0.0.1", "::1", "192.0.2.9", "unknown")] == [True, True, False, False]

    ris.run(scenario())


def test_with_one_registered_all_others_are_strangers(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-facility: HOSP") as endpoint:
            message = adt()
            assert code(await ask(ris, message, "192.0.2.9")) == "AA"
            assert (await kept(ris, message))["partner"] == f"Endpoint/{endpoint['id']}"
            for names in (("EHR", "HOSP"), ("HIS", "ELSEWHERE"), ("his", "HOSP"), ("", "")):
                refused = await ask(ris, adt(*names))
                assert (code(refused), condition(refused)) == ("AR", "103"), names
                assert text(refused) == "this sender is not known here"

    ris.run(scenario())


def test_a_stranger_s_message_is_taken_once_the_stranger_is_registered(ris):
    async def scenario():
        async with registered(ris, "accept-application: FIRST"):
            message = adt("LATER")
            assert code(await ask(ris, message)) == "AR"
            async with registered(ris, "accept-application: LATER"):
                assert code(await ask(ris, message)) == "AA"
                assert [s["state"] for s in (await kept(ris, message))["states"]] == ["AR", "AA"]

    ris.run(scenario())


def test_a_stranger_that_repeats_another_s_message_gets_no_answer_of_it_and_changes_nothing(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-address: 127.0.0.1"):
            message = adt()
            assert code(await ask(ris, message)) == "AA"
            before = await kept(ris, message)
            stranger = await ask(ris, message, "127.0.0.88")
            assert (code(stranger), condition(stranger)) == ("AR", "103")
            assert await kept(ris, message) == before
            # Nor of one that was accepted and isn't processed yet.
            waiting = adt()
            received = await ris.inbound._receive(waiting, Peer("127.0.0.1", 40000))
            assert (await ris.inbound._accept(received))[0] == "CA"
            assert code(await ask(ris, waiting, "127.0.0.88")) == "AR"
            assert (await kept(ris, waiting))["outcome"] == "CA"
            assert code(await ask(ris, waiting)) == "AA"

    ris.run(scenario())


def test_what_can_t_be_read_is_braked_and_only_so_much_of_it_is_kept(ris):
    async def scenario():
        inbound = Inbound(ris.interactions, ZONE, Partners(ris.store, max_age=0))
        peer, frame = Peer("127.0.0.1", 40000), b"no message " + b"x" * 1_000_000
        assert code(parse(await inbound.handle(frame, peer))) == "AR"
        (stored,) = await ris.db["messages"].find({"digest": hashlib.sha256(frame).hexdigest()}).to_list()
        assert bytes(stored["raw"]) == frame[:65536]
        with pytest.raises(NotPossible, match="beginning"):
            await Operator(ris.interactions, ACCESS, ZONE).replay(str(stored["_id"]))
        now = asyncio.get_running_loop().time()
        assert inbound._rates.delay("unreadable 127.0.0.1", 1.0, now + 1) == 0
        assert [inbound._rates.delay("unreadable 127.0.0.1", 1.0, now + 1) for _ in range(9)][-1] > 1
        for _ in range(100):
            inbound._unreadable.take("127.0.0.1")
        assert code(parse(await inbound.handle(b"one more", peer))) == "AR"
        assert await ris.db["messages"].count_documents({"raw": b"one more"}) == 0

    ris.run(scenario())


def test_a_stranger_opens_one_work_item_however_often_it_tries(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS"):
            for _ in range(3):
                await ask(ris, adt("NOBODY"), "127.0.0.77")
            (item,) = [i for i in await ris.work_items("unknown-sender") if "127.0.0.77" in i["description"]]
            assert "NOBODY|HOSP" in item["description"]

    ris.run(scenario())


def test_who_comes_from_an_address_of_nobody_is_cut_off_at_once_counted_and_on_record(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-address: 127.0.0.5, 127.0.1.0/24"), door(ris) as server:
            async with calling(server, "127.0.0.5") as known, calling(server, "127.0.1.77") as other:
                assert code(await known.ask(adt())) == "AA"
                assert code(await other.ask(adt())) == "AA"
            for _ in range(3):
                async with calling(server, "127.0.0.6") as stranger:
                    with pytest.raises(ConnectionError):
                        await stranger.ask(adt())
            events = [e["resource"] async for e in ris.db["AuditEvent"].find({"resource.subtype.code": "connection"})]
            (event,) = [e for e in events if e["agent"][0]["network"]["address"] == "127.0.0.6"]
            assert event["outcome"] == "4"
            assert event["outcomeDesc"] == "connection refused: address"

    ris.run(scenario())


def test_the_right_address_with_another_s_name_is_refused(ris):
    async def scenario():
        async with (
            registered(ris, "accept-application: HIS", "accept-address: 192.0.2.0/24"),
            registered(ris, "accept-application: EHR", "accept-address: 2001:db8::/32, 198.51.100.7"),
        ):
            assert code(await ask(ris, adt("HIS"), "192.0.2.7")) == "AA"
            assert code(await ask(ris, adt("HIS"), "::ffff:192.0.2.7")) == "AA"
            assert code(await ask(ris, adt("EHR"), "2001:db8::1")) == "AA"
            refused = await ask(ris, adt("EHR"), "192.0.2.7")
            assert (code(refused), text(refused)) == ("AR", "this sender is not known at its address")

    ris.run(scenario())


def test_of_two_descriptions_that_fit_the_closer_one_counts(ris):
    async def scenario():
        async with (
            registered(ris, "accept-application: HIS"),
            registered(ris, "accept-application: HIS", "accept-facility: HOSP", "accept-messages: ORM^O01"),
        ):
            assert condition(await ask(ris, adt())) == "201"
            assert code(await ask(ris, adt(facility="OTHER"))) == "AA"

    ris.run(scenario())


def test_two_endpoints_can_t_describe_the_same_sender(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-address: 192.0.2.0/24") as first:
            error = await ris.refused(ris.create(partner("accept-application: HIS", "accept-address: 192.0.2.64/26")))
            assert f"Endpoint/{first['id']} describes this sender already" in str(error)
            async with registered(ris, "accept-application: HIS", "accept-address: 198.51.100.1"):
                await ris.update(await ris.read(first), name="the same as before")
            off = await ris.create(partner("accept-application: HIS", "accept-address: 192.0.2.1") | {"status": "off"})
            await ris.refused(ris.become(off, "active"))

    ris.run(scenario())


def test_a_partner_that_is_switched_off_is_a_stranger(ris):
    async def scenario():
        async with registered(ris, "accept-application: OTHER"):
            async with registered(ris, "accept-application: HIS"):
                assert code(await ask(ris, adt())) == "AA"
            assert code(await ask(ris, adt())) == "AR"

    ris.run(scenario())


# What


@pytest.mark.parametrize(
    ("headers", "message", "answer"),
    [
        (["accept-messages: ADT^*"], {}, "AA"),
        (["accept-messages: ORM^O01, ADT^A04"], {}, "AA"),
        (["accept-messages: ADT^A08"], {}, "AR 201 MSH-9.2"),
        ([], {"processing": "T"}, "AR 202 MSH-11"),
        ([], {"processing": "D^A"}, "AR 202 MSH-11"),
        ([], {"processing": ""}, "AA"),
        (["accept-processing: T"], {"processing": "T"}, "AA"),
        (["accept-processing: T"], {}, "AR 202 MSH-11"),
        (["accept-processing: P, D"], {"processing": "D"}, "AA"),
        ([], {"version": ""}, "AA"),
        ([], {"version": "2.9"}, "AA"),
        ([], {"version": "HL7 2.3"}, "AA"),
        ([], {"version": "3.0"}, "AA"),
        ([], {"version": "4.0.1"}, "AR 203 MSH-12"),
        ([], {"version": "two"}, "AR 203 MSH-12"),
    ],
)
def test_what_a_partner_may_send_is_what_was_agreed(ris, headers, message, answer):
    async def scenario():
        async with registered(ris, "accept-application: HIS", *headers):
            ack = await ask(ris, adt(**message))
            told = code(ack) if code(ack) == "AA" else f"{code(ack)} {condition(ack)} {place(ack)}"
            assert told == answer

    ris.run(scenario())


PID = "PID|1||{n}^^^HOSP||Muster^Mara||19700131|F"


@pytest.mark.parametrize(
    ("segments", "where"),
    [
        (("EVN|A04|20260907", PID, "PV1|1|O", "ZXY|local"), None),
        ((PID, "PV1|1|O"), "EVN"),
        (("EVN|A04|20260907", "PV1|1|O", PID), "PID"),
        (("EVN|A04|20260907", PID), "PV1"),
        (("EVN|A04|20260907", PID, "PV1|1"), "PV1-2"),
        (("EVN|A04|20260907", PID, "PV1|1|O~I"), "PV1-2"),
        (("EVN|A04|20260907", PID, "PV1|1|O", "OBR|1|1||X"), "OBR"),
    ],
)
def test_structure_is_judged_where_a_partner_wants_it(ris, segments, where):
    async def scenario():
        for validation in ("strict", "warn", "none"):
            async with registered(ris, "accept-application: HIS", f"accept-validation: {validation}"):
                message = adt(segments=tuple(s.replace("{n}", unused("P")) for s in segments))
                ack = await ask(ris, message)
                warnings = (await kept(ris, message))["warnings"]
                if where and validation == "strict":
                    assert (code(ack), place(ack)) == ("AE", where)
                else:
                    assert code(ack) == "AA"
                    assert [w.partition(":")[0] for w in warnings] == ([where] if where and validation == "warn" else [])

    ris.run(scenario())


def test_an_order_is_judged_by_the_grammar_that_real_orders_follow(ris):
    order = (
        PID,
        "PV1|1|O",
        "ORC|NW|{p}^HIS",
        "OBR|1|{p}^HIS||24627-2^CT Chest^LN||||||||||||||||||||CT",
        "NTE|1||one",
        "NTE|2||two",
        "ZDS|1.2.3^100^Application^DICOM",
    )

    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-validation: strict"):
            filled = [s.replace("{n}", unused("P")) for s in order]
            number = unused("L")
            message = adt(kind="ORM^O01", segments=tuple(s.replace("{p}", number) for s in filled))
            assert code(await ask(ris, message)) == "AA"
            without = adt(kind="ORM^O01", segments=(filled[0], filled[3].replace("{p}", number)))
            assert place(await ask(ris, without)) == "ORC"

    ris.run(scenario())


def test_times_and_characters_are_read_as_the_partner_writes_them(ris):
    async def scenario():
        async with registered(
            ris, "accept-application: HIS", "accept-character-set: 8859/15", "accept-time-zone: America/New_York"
        ):
            number = unused("P")
            who = f"PID|1||{number}^^^HOSP||M\xfcller^M\xa4ra||19700131|F" + "|" * 21 + "20260907080000"
            segments = ("EVN|A04|20260907", who)
            assert code(await ask(ris, adt(segments=segments))) == "AA"
            found = await ris.one("Patient", identifier=number)
            assert found["name"][0] == {"family": "Müller", "given": ["M€ra"]}
            assert found["deceasedDateTime"] == "2026-09-07T08:00:00-04:00"

    ris.run(scenario())


# How fast


def test_a_partner_may_send_a_burst_and_then_its_rate():
    rates = Rates()
    assert [round(rates.delay("his", 10, 100.0), 3) for _ in range(50)] == [0.0] * 50
    assert [round(rates.delay("his", 10, 100.0), 3) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert rates.delay("ehr", 10, 100.0) == 0.0
    assert rates.delay("his", 10, 100.4) == pytest.approx(0.0, abs=0.001)
    # Who was quiet for long has a burst again, and no more than that.
    assert [round(rates.delay("his", 10, 1000.0), 3) for _ in range(51)] == [0.0] * 50 + [0.1]


def test_who_sends_faster_waits_and_gets_every_answer_in_order(ris):
    async def scenario():
        async with registered(ris, "accept-application: HIS", "accept-rate: 20"), door(ris) as server:
            messages = [adt() for _ in range(104)]
            async with calling(server) as caller:
                await caller.send(*messages)
                answers = [await caller.answer() for _ in messages]
            assert [a.segments[1].raw(2).encode() for a in answers] == [m.split(b"|")[9] for m in messages]
            assert {code(a) for a in answers} == {"AA"}

    ris.run(scenario())


# What an Endpoint may say


@pytest.mark.parametrize(
    "header",
    [
        "accept-facility: HOSP",
        "expect-every: 30m",
    ],
)
def test_what_is_said_of_a_sender_without_its_name_is_refused(ris, header):
    error = ris.run(ris.refused(ris.create(partner(header))))
    assert "accept-application" in str(error)


@pytest.mark.parametrize(
    "header",
    [
        "accept-application: ",
        "accept-facility: ",
        "accept-address: 192.0.2.300",
        "accept-address: his.example.org",
        "accept-address: ",
        "accept-certificate: ",
        "accept-messages: ADT",
        "accept-messages: ADT^A1",
        "accept-rate: 0",
        "accept-rate: fast",
        "accept-rate: -1",
        "accept-time-zone: Mars/Olympus",
        "accept-character-set: KLINGON",
        "accept-processing: X",
        "accept-validation: maybe",
        "accept-response: none",
        "accept-unknown-order: accept",
        "accept-unknown-procedure: park",
        "accept-missing-reason: no",
        "accept-duplicate-order: merge",
        "accept-implausible-date: fix",
        "accept-concept-map: my map",
        "accept-adress: 192.0.2.1",
        "expect-every: sometimes",
        "expect-every: 0m",
        "ack-mode: loud",
        "tls-server-name: a b",
        "alert-after: soon",
    ],
)
def test_a_header_that_says_nothing_we_understand_is_refused_by_its_name(ris, header):
    said = [header] if header.startswith("accept-application") else ["accept-application: HIS", header]
    error = ris.run(ris.refused(ris.create(partner(*said))))
    assert header.partition(":")[0] in str(error)
    assert error.issues[0].expression == "Endpoint.header"


def test_a_change_counts_when_what_was_read_is_a_second_old(ris):
    async def scenario():
        partners = Partners(ris.store, max_age=1)
        before = await partners.directory()
        async with registered(ris, "accept-application: HIS"):
            assert await partners.directory() is before
            partners._read -= 1.1  # a second and a bit later
            assert [p.application for p in (await partners.directory()).partners] == ["HIS"]

    ris.run(scenario())
