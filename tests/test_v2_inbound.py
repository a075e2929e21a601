"""ADT in, and what every received message has in common: who is meant, what is answered, what is kept, what comes twice."""

import asyncio
from collections.abc import Iterator

import pytest
from pymongo.errors import AutoReconnect

from bridges.v2 import inbound, receivers
from bridges.v2.message import parse
from bridges.v2.mllp import MllpServer
from tests.department import Department, code, condition, identifiers, place, text, unused, v2

MSH = "MSH|^~\\&|HIS|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||{kind}|{id}|P|{version}||||||{charset}"


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator[Department]:
    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        department.inbound.stranger_rate = 1000
        yield department
        department.run(department.close())


def msh(kind: str = "ADT^A04^ADT_A01", version: str = "2.5.1", charset: str = "UNICODE UTF-8", control_id: str = "") -> str:
    return MSH.format(kind=kind, version=version, charset=charset, id=control_id or unused("M"))


def pid(number: str, name: str = "Muster^Mara", birth: str = "19700131", sex: str = "F", **fields: str) -> str:
    """PID of the hospital's patient, or with CX as it stands. `f11="..."` sets PID-11."""
    values = {3: number if "^" in number else f"{number}^^^EXAMPLEHOSP^MR", 5: name, 7: birth, 8: sex}
    values |= {int(k[1:]): v for k, v in fields.items()}
    return "PID|" + "|".join(values.get(n, "") for n in range(1, max(values) + 1))


def pv1(**fields: str) -> str:
    """PV1: `pv1(f2="O", f19="V1")`."""
    values = {int(k[1:]): v for k, v in fields.items()}
    return "PV1|" + "|".join(values.get(n, "") for n in range(1, max(values) + 1))


def adt(number: str, event: str = "A04", visit: str = "", **fields: str) -> bytes:
    return v2(msh(f"ADT^{event}"), pid(number, **fields), *([visit] if visit else []))


async def patients(ris: Department, value: str) -> list[dict]:
    return await ris.search("Patient", identifier=value)


# Identity


@pytest.mark.parametrize("event", ["A01", "A04", "A05", "A08", "A28", "A31"])
def test_a_registration_makes_the_patient_and_a_second_one_finds_it(ris, event):
    async def scenario():
        number = unused("00")
        await ris.accepted(adt(number, event))
        await ris.accepted(adt(number, event, name="Muster^Mara^Maria"))
        (found,) = await patients(ris, number)
        assert found["identifier"][0]["value"] == number
        assert found["name"] == [{"family": "Muster", "given": ["Mara", "Maria"]}]
        assert found["birthDate"] == "1970-01-31"
        assert found["gender"] == "female"
        assert found["meta"]["versionId"] == "2"

    ris.run(scenario())


def test_all_of_a_pid_arrives_in_the_patient(ris):
    async def scenario():
        number = unused("P")
        await ris.accepted(
            msh(),
            f"PID|1||{number}^^^EXAMPLEHOSP&1.2.3.4&ISO^MR~A12^^^KVNR^NI||Muster^Mara^Maria^Jr^Dr.^PhD^L~Probe^^^^^^M||19700131|F"
            "|||Weg 1^Haus 2^Musterstadt^ST^99999^DEU^H||0301234567^PRN^PH~^PRN^CP^^49^171^555~^NET^Internet^mara@example.org"
            "|030765432^WPN^FX|deu|P|||||||||||||20260901|Y",
        )
        (found,) = await patients(ris, number)
        assert identifiers(found) == {"MR": number, "NI": "A12"}
        assert found["identifier"][0]["system"] == "urn:oid:1.2.3.4"
        assert found["identifier"][0]["assigner"] == {"display": "EXAMPLEHOSP"}
        assert found["name"] == [
            {
                "use": "official",
                "family": "Muster",
                "given": ["Mara", "Maria"],
                "prefix": ["Dr."],
                "suffix": ["Jr", "PhD"],
            },
            {"use": "maiden", "family": "Probe"},
        ]
        assert found["address"] == [
            {
                "use": "home",
                "line": ["Weg 1", "Haus 2"],
                "city": "Musterstadt",
                "state": "ST",
                "postalCode": "99999",
                "country": "DEU",
            }
        ]
        assert found["telecom"] == [
            {"system": "phone", "value": "0301234567", "use": "home"},
            {"system": "phone", "value": "+49171555", "use": "mobile"},
            {"system": "email", "value": "mara@example.org", "use": "home"},
            {"system": "fax", "value": "030765432", "use": "work"},
        ]
        assert found["communication"][0]["language"]["coding"][0]["code"] == "deu"
        # P is a domestic partner in table 0002, and polygamous in v3: the letters can't be carried over.
        assert found["maritalStatus"]["coding"][0]["code"] == "T"
        assert found["deceasedDateTime"] == "2026-09-01"

    ris.run(scenario())


def test_leading_zeros_and_the_authority_tell_patients_apart(ris):
    async def scenario():
        number = unused("42")
        for cx in (f"{number}^^^A", f"0{number}^^^A", f"{number}^^^B", f"{number}^^^C&1.2.3&ISO", f"{number}^^^D&1.2.4&ISO"):
            await ris.accepted(adt(cx))
        assert len(await patients(ris, number)) == 4
        assert len(await patients(ris, f"0{number}")) == 1

    ris.run(scenario())


def test_an_authority_is_the_same_by_namespace_by_oid_and_by_both(ris):
    async def scenario():
        number = unused("N")
        for cx in (f"{number}^^^HOSP", f"{number}^^^HOSP&1.2.3.99&ISO", f"{number}^^^&1.2.3.99&ISO", f"{number}^^^HOSP"):
            await ris.accepted(adt(cx))
        (found,) = await patients(ris, number)
        assert len(found["identifier"]) == 1

        # An id that names no authority is the sending facility's.
        other = unused("N")
        await ris.accepted(adt(f"{other}^^^EXAMPLEHOSP"))
        await ris.accepted(adt(f"{other}^"))
        assert len(await patients(ris, other)) == 1

    ris.run(scenario())


@pytest.mark.parametrize(
    "authority",
    ["GAMMA CLINIC", "Klinik Köln", "A/B", "x&hosp.example.org&DNS", "&hosp.example.org&DNS", "&urn:example:mrn&URI", "50%"],
)
def test_an_authority_may_have_any_name_and_goes_out_as_it_came(ris, authority):
    async def scenario():
        number = unused("N")
        await ris.accepted(adt(f"{number}^^^{authority}^MR"))
        await ris.accepted(adt(f"{number}^^^{authority}^MR"))
        (found,) = await patients(ris, number)
        destination = await ris.destination("SIU^S12")
        await ris.book(await ris.order(found), None)
        (message,) = await ris.sent(destination)
        cx = message.first("PID").repetitions(3)[0]
        assert cx.get(1) == number
        assert (cx.get(4, 1) or cx.get(4, 2)) == (authority.split("&")[0] or authority.split("&")[1])

    ris.run(scenario())


@pytest.mark.parametrize("value", ["A\\F\\B", "A,B", "A$B", "A\\E\\B", "a b", "äö", "A\\R\\B"])
def test_odd_characters_in_an_identifier_don_t_double_the_patient(ris, value):
    async def scenario():
        number = unused(value)
        await ris.accepted(adt(number))
        await ris.accepted(adt(number, name="Muster^Marion"))
        assert len(await ris.search("Patient", given="Marion", birthdate="1970-01-31")) >= 1
        before = await ris.counts()
        await ris.accepted(adt(number, name="Muster^Marion"))
        assert await ris.counts() == before

    ris.run(scenario())


def test_a_patient_is_found_by_any_identifier_whatever_their_order_and_learns_new_ones(ris):
    async def scenario():
        a, b, c = unused("A"), unused("B"), unused("C")
        await ris.accepted(adt(f"{a}^^^HOSP~{b}^^^REGION"))
        await ris.accepted(adt(f"{b}^^^REGION~{a}^^^HOSP"))
        await ris.accepted(adt(f"{c}^^^STATE~{b}^^^REGION"))
        await ris.accepted(adt(f"{c}^^^STATE"))
        (found,) = await patients(ris, a)
        assert [i["value"] for i in found["identifier"]] == [a, b, c]

    ris.run(scenario())


def test_the_same_name_and_birth_date_are_not_the_same_patient(ris):
    async def scenario():
        a, b = unused("A"), unused("B")
        await ris.accepted(adt(a, name="Doppel^Dora"))
        await ris.accepted(adt(b, name="Doppel^Dora"))
        assert len(await ris.search("Patient", family="Doppel")) == 2

    ris.run(scenario())


def test_identifiers_of_two_patients_in_one_message_are_refused_and_change_nothing(ris):
    async def scenario():
        a, b = unused("A"), unused("B")
        await ris.accepted(adt(a))
        await ris.accepted(adt(b))
        before = await ris.counts()
        ack = await ris.receive(adt(f"{a}^^^EXAMPLEHOSP~{b}^^^EXAMPLEHOSP", name="Other^Name"))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "PID-3", "205")
        assert await ris.counts() == before
        assert (await patients(ris, a))[0]["name"][0]["family"] == "Muster"

    ris.run(scenario())


def test_a_patient_who_was_merged_away_is_not_made_anew(ris):
    async def scenario():
        survivor = await ris.patient()
        gone = unused("G")
        await ris.accepted(adt(gone))
        (old,) = await patients(ris, gone)
        link = [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
        await ris.update(old, active=False, link=link)
        ack = await ris.receive(adt(gone))
        assert (code(ack), place(ack), condition(ack)) == ("AE", "PID-3", "204")
        assert len(await patients(ris, gone)) == 1

    ris.run(scenario())


def test_twenty_messages_at_once_about_a_new_patient_make_one(ris):
    async def scenario():
        number, doctor, number_of_visit = unused("N"), unused("D"), unused("V")
        visit = pv1(f2="O", f7=f"{doctor}^Referrer^Rolf", f19=number_of_visit)
        acks = await asyncio.gather(*(ris.receive(adt(number, visit=visit)) for _ in range(20)))
        assert [code(a) for a in acks] == ["AA"] * 20
        assert len(await patients(ris, number)) == 1
        assert len(await ris.search("Practitioner", identifier=doctor)) == 1
        assert len(await ris.search("Encounter", identifier=number_of_visit)) == 1

    ris.run(scenario())


# Demographics


def test_an_update_changes_what_it_says_and_keeps_what_it_leaves_out(ris):
    async def scenario():
        number = unused("N")
        fields = {"f11": "Weg 1^^Stadt", "f13": "111", "f14": "222", "f16": "M"}
        await ris.accepted(adt(number, **fields))
        await ris.accepted(adt(number, "A08", name="Neu^Mara", birth="", sex="", f13="333"))
        (found,) = await patients(ris, number)
        assert found["name"][0]["family"] == "Neu"
        assert (found["birthDate"], found["gender"]) == ("1970-01-31", "female")
        assert found["address"][0]["city"] == "Stadt"
        assert {(t["use"], t["value"]) for t in found["telecom"]} == {("home", "333"), ("work", "222")}

    ris.run(scenario())


def test_two_quotes_delete(ris):
    async def scenario():
        number = unused("N")
        everything = {"f11": "Weg 1^^Stadt", "f13": "111", "f14": "222", "f15": "deu", "f16": "M", "f29": "20260901", "f30": "Y"}
        await ris.accepted(adt(number, **everything))
        await ris.accepted(adt(number, "A08", birth='""', sex='""', **dict.fromkeys(everything, '""')))
        (found,) = await patients(ris, number)
        assert found.keys() == {"resourceType", "id", "meta", "identifier", "active", "name"}

    ris.run(scenario())


def test_somebody_reported_dead_by_mistake_lives(ris):
    async def scenario():
        number = unused("N")
        await ris.accepted(adt(number, f29="20260901"))
        await ris.accepted(adt(number, "A08", f30="N"))
        (found,) = await patients(ris, number)
        assert "deceasedDateTime" not in found
        assert found["deceasedBoolean"] is False

    ris.run(scenario())


def test_blanks_are_nothing(ris):
    async def scenario():
        number = unused("N")
        await ris.accepted(adt(number, name="Muster^ ^  ", birth="  ", sex=" ", f11=" ^ ^Stadt", f13=" ", f16=" ", f30=" "))
        (found,) = await patients(ris, number)
        assert found["name"] == [{"family": "Muster"}]
        assert found.keys() == {"resourceType", "id", "meta", "identifier", "active", "name", "address"}

    ris.run(scenario())


def test_a_partial_birth_date_stays_partial(ris):
    async def scenario():
        number = unused("N")
        await ris.accepted(adt(number, birth="1970"))
        assert (await patients(ris, number))[0]["birthDate"] == "1970"

    ris.run(scenario())


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("PID|1||{n}^^^EXAMPLEHOSP||Muster^Mara||19701331|F", "PID-7"),
        ("PID|1||{n}^^^EXAMPLEHOSP||Muster^Mara||31.01.1970|F", "PID-7"),
        ("PID|1||{n}^^^EXAMPLEHOSP||Muster^Mara||19700131|Q", "PID-8"),
        ("PID|1||{n}^^^EXAMPLEHOSP||Muster^Mara||19700131|F|||||||||||||||||||||2026090199", "PID-29"),
        ("PID|1||||Muster^Mara||19700131|F", "PID-3"),
        ('PID|1||""||Muster^Mara||19700131|F', "PID-3"),
        ("PID|1||^^^EXAMPLEHOSP||Muster^Mara||19700131|F", "PID-3"),
        ("NTE|1||no patient", "PID"),
    ],
)
@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
def test_what_can_t_be_taken_is_refused_with_its_place_and_nothing_is_written(ris, line, where, version):
    async def scenario():
        before = await ris.counts()
        ack = await ris.receive(v2(msh(version=version), line.replace("{n}", unused("N"))))
        assert (code(ack), place(ack)) == ("AE", where)
        assert bool(ack.first("ERR").raw(1)) == (version == "2.3.1")
        assert text(ack)
        assert await ris.counts() == before
        assert await ris.db["messages"].count_documents({"control_id": ack.segments[1].field(2), "outcome": "AE"}) == 1

    ris.run(scenario())


# Visits and doctors


def test_a_visit_is_found_by_its_number_and_brought_up_to_date(ris):
    async def scenario():
        number, visit = unused("N"), unused("V")
        doctors = {"f7": "4711^Referrer^Rolf^^^Dr.", "f8": "815^Second^Sara"}
        first = pv1(f2="P", f3="RAD^WAIT^^EXAMPLEHOSP", f19=f"{visit}^^^EXAMPLEHOSP", **doctors)
        await ris.accepted(adt(number, "A05", first))
        encounter = await ris.one("Encounter", identifier=visit)
        assert (encounter["status"], encounter["class"]["code"]) == ("planned", "PRENC")
        assert identifiers(encounter) == {"VN": visit}
        assert encounter["subject"]["reference"] == f"Patient/{(await patients(ris, number))[0]['id']}"
        assert encounter["location"][0]["location"]["display"] == "RAD/WAIT/EXAMPLEHOSP"
        roles = {p["type"][0]["coding"][0]["code"]: p["individual"]["display"] for p in encounter["participant"]}
        assert roles == {"ATND": "Referrer, Rolf", "REF": "Second, Sara"}

        await ris.accepted(adt(number, "A01", pv1(f2="I", f3="WARD^2", f19=visit, f44="20260907081500")))
        encounter = await ris.one("Encounter", identifier=visit)
        assert (encounter["status"], encounter["class"]["code"]) == ("in-progress", "IMP")
        assert encounter["location"][0]["location"]["display"] == "WARD/2"
        assert encounter["period"] == {"start": "2026-09-07T08:15:00+02:00"}
        assert len(encounter["participant"]) == 2

        await ris.accepted(adt(number, "A08", pv1(f19=visit)))
        encounter = await ris.one("Encounter", identifier=visit)
        assert (encounter["status"], encounter["class"]["code"]) == ("in-progress", "IMP")

    ris.run(scenario())


def test_the_same_visit_number_of_another_patient_is_another_visit(ris):
    async def scenario():
        visit = unused("V")
        for number in (unused("N"), unused("N")):
            await ris.accepted(adt(number, visit=pv1(f2="O", f19=visit)))
        found = await ris.search("Encounter", identifier=visit)
        assert len({e["subject"]["reference"] for e in found}) == 2

    ris.run(scenario())


def test_a_patient_class_of_the_site_s_own_stops_nobody(ris):
    async def scenario():
        for given, kept in (("R", "R"), ("", "UNK")):
            visit = unused("V")
            await ris.accepted(adt(unused("N"), visit=pv1(f2=given, f19=visit)))
            assert (await ris.one("Encounter", identifier=visit))["class"]["code"] == kept

    ris.run(scenario())


def test_a_message_without_a_visit_number_makes_no_visit(ris):
    async def scenario():
        before = len(await ris.search("Encounter"))
        await ris.accepted(adt(unused("N"), visit=pv1(f2="O", f3="RAD")))
        assert len(await ris.search("Encounter")) == before

    ris.run(scenario())


def test_doctors_are_not_doubled_and_ids_of_other_authorities_are_other_people(ris):
    async def scenario():
        doctor = unused("D")
        for xcn in (f"{doctor}^Arzt^Anna", f"{doctor}^Arzt^A.", f"{doctor}^Arzt^Anna^^^^^^OTHER", f"{doctor}^^^^^^^^EXAMPLEHOSP"):
            await ris.accepted(adt(unused("N"), visit=pv1(f2="O", f7=xcn, f19=unused("V"))))
        assert len(await ris.search("Practitioner", identifier=doctor)) == 2

    ris.run(scenario())


# Character sets


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("8859/1", "latin-1"),
        ("UNICODE UTF-8", "utf-8"),
        ("", "latin-1"),
        ("", "utf-8"),
        ("8859/1", "utf-8"),
        ("8859/15", "latin-1"),
    ],
)
def test_a_name_is_read_right_although_the_declared_character_set_is_missing_or_wrong(ris, declared, codec):
    async def scenario():
        number = unused("N")
        message = v2(msh(charset=declared), pid(number, name="Déficit^Jürgen"), charset=codec)
        await ris.accepted(message)
        assert (await patients(ris, number))[0]["name"][0] == {"family": "Déficit", "given": ["Jürgen"]}

    ris.run(scenario())


def test_escapes_and_other_separators_are_understood(ris):
    async def scenario():
        number = unused("N")
        header = msh().replace("|", "#").replace("^~\\&", "$%!*").replace("^", "$")
        await ris.accepted(v2(header, f"PID#1##{number}$$$EXAMPLEHOSP##M!F!ü ^$Ma!S!ra##19700131#F"))
        assert (await patients(ris, number))[0]["name"][0] == {"family": "M#ü ^", "given": ["Ma$ra"]}

    ris.run(scenario())


# What is not for us


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("ADT^A99", "201"),
        ("ADT^A24^ADT_A24", "201"),
        ("ORM^O99", "201"),
        ("BAR^P01^BAR_P01", "200"),
        ("DFT^P03", "200"),
        ("ORU^R30^ORU_R30", "201"),
        ("SIU^S19", "201"),
        ("XXX^Z99", "200"),
        ("", "200"),
        ("ORM", "201"),
    ],
)
def test_messages_of_other_types_are_rejected_once_and_for_all(ris, kind, error):
    async def scenario():
        before = await ris.counts()
        message = v2(msh(kind), pid(unused("N")))
        first, second = await ris.answer(message), await ris.answer(message)
        ack = parse(first)
        assert (code(ack), condition(ack), place(ack).split(".")[0]) == ("AR", error, "MSH-9")
        assert first == second
        assert await ris.counts() == before

    ris.run(scenario())


@pytest.mark.parametrize(
    "frame", [b"", b"   ", b"hello", b"\x00\xff\xfe" * 9, b"MSH", b"MSH|^~", b"PID|1||42", b"MSH|||||", b"{}"]
)
def test_garbage_is_answered_ar_and_kept(ris, frame):
    async def scenario():
        for _ in range(2):
            ack = await ris.receive(frame)
            assert code(ack) == "AR"
            assert ack.segments[1].raw(2) == ""
        assert await ris.db["messages"].count_documents({"raw": frame, "outcome": "AR"}) == 1

    ris.run(scenario())


def test_a_message_within_another_is_refused_and_neither_is_processed(ris):
    async def scenario():
        number, other = unused("N"), unused("N")
        message = adt(number) + b"NTE|1||text \x0b" + adt(other)
        ack = await ris.receive(message)
        assert (code(ack), condition(ack)) == ("AR", "100")
        assert ack.segments[1].field(2) == message.split(b"|")[9].decode()
        for one in (number, other):
            assert await ris.search("Patient", identifier=one) == []

    ris.run(scenario())


def test_a_message_with_too_many_segments_is_answered_by_its_control_id(ris):
    async def scenario():
        message = adt(unused("N")) + b"ZZZ|a\r" * 50_001
        ack = await ris.receive(message)
        control_id = message.split(b"|")[9].decode()
        assert (code(ack), ack.segments[1].field(2)) == ("AR", control_id)
        assert (await ris.db["messages"].find_one({"control_id": control_id}))["outcome"] == "AR"

    ris.run(scenario())


def test_a_message_that_is_too_large_to_be_kept_is_answered(ris):
    async def scenario():
        ack = await ris.receive(adt(unused("N"), f11="x" * inbound.MAX_SIZE))
        assert code(ack) == "AR"

    ris.run(scenario())


# The same message again


def test_the_same_message_again_gets_the_same_answer_byte_for_byte_and_changes_nothing(ris):
    async def scenario():
        number = unused("N")
        message = adt(number)
        first = await ris.answer(message)
        await ris.accepted(adt(number, "A08", name="Later^Mara"))
        before = await ris.counts(), await ris.db["AuditEvent"].count_documents({})
        assert await ris.answer(message) == first
        assert (await ris.counts(), await ris.db["AuditEvent"].count_documents({})) == before
        assert (await patients(ris, number))[0]["name"][0]["family"] == "Later"

    ris.run(scenario())


def test_a_refused_message_again_gets_the_same_refusal(ris):
    async def scenario():
        message = adt("^^^NOBODY")
        assert await ris.answer(message) == await ris.answer(message)

    ris.run(scenario())


def test_the_same_control_id_with_another_content_is_another_message(ris):
    async def scenario():
        control_id, numbers = unused("M"), [unused("N"), unused("N")]
        for number in numbers:
            await ris.accepted(v2(msh(control_id=control_id), pid(number)))
        assert [len(await patients(ris, n)) for n in numbers] == [1, 1]

    ris.run(scenario())


def test_a_message_without_a_control_id_is_known_by_its_content(ris):
    async def scenario():
        message = v2(msh(control_id="-").replace("|-|", "||"), pid(unused("N")))
        assert await ris.answer(message) == await ris.answer(message)

    ris.run(scenario())


@pytest.mark.parametrize("refused", [False, True])
def test_ten_connections_with_the_same_message_get_one_answer(ris, refused):
    from demo.ehr import send

    async def scenario():
        server = MllpServer("127.0.0.1", 0, ris.inbound.handle)
        await server.start()
        message = adt("^^^NOBODY" if refused else unused("N"), f11=unused("Weg"))
        answers = await asyncio.gather(*(send(server.port, message) for _ in range(10)))
        assert len({a.raw for a in answers}) == 1
        assert code(answers[0]) == ("AE" if refused else "AA")
        await server.stop()

    ris.run(scenario())


# When something is wrong with us


def test_an_internal_error_is_rejected_and_the_message_is_processed_when_it_comes_again(ris, monkeypatch):
    async def broken(*_):
        raise ZeroDivisionError("Muster^Mara")

    async def scenario():
        number = unused("N")
        message = adt(number)
        with monkeypatch.context() as patch:
            patch.setitem(receivers.MESSAGES, ("ADT", "A04"), broken)
            for _ in range(2):
                ack = await ris.receive(message)
                assert (code(ack), condition(ack)) == ("AR", "207")
                assert b"Muster" not in ack.raw
        assert await patients(ris, number) == []
        await ris.accepted(message)
        await ris.accepted(message)
        assert len(await patients(ris, number)) == 1
        assert await ris.db["messages"].count_documents({"control_id": parse(message).control_id}) == 1

    ris.run(scenario())


@pytest.mark.parametrize("where", ["Answers.of", "keep"])
def test_without_mongodb_a_message_is_rejected_and_processed_when_it_comes_again(ris, monkeypatch, where):
    def away(*_, **__):
        raise AutoReconnect("away")

    async def scenario():
        number = unused("N")
        message = adt(number)
        with monkeypatch.context() as patch:
            patch.setattr(f"bridges.v2.message_log.{where}", away)
            assert code(await ris.receive(message)) == "AR"
        assert await patients(ris, number) == []
        await ris.accepted(message)
        assert len(await patients(ris, number)) == 1

    ris.run(scenario())


# What is recorded


def test_every_message_is_kept_as_it_came_with_what_it_did_and_audited(ris):
    async def scenario():
        number = unused("N")
        message = adt(number)
        await ris.accepted(message)
        (found,) = await patients(ris, number)
        kept = await ris.db["messages"].find_one({"about": f"Patient/{found['id']}"})
        assert bytes(kept["raw"]) == message
        assert (kept["type"], kept["outcome"], kept["sender"]) == ("ADT^A04", "AA", "HIS|EXAMPLEHOSP")
        events = await ris.search("AuditEvent", entity=f"Patient/{found['id']}")
        told = [(e["subtype"][0]["code"], e["agent"][0]["who"]["display"]) for e in events]
        assert ("ADT^A04", "v2:HIS|EXAMPLEHOSP") in told

    ris.run(scenario())


def test_the_answer_goes_back_to_the_sender_in_its_own_dialect(ris):
    async def scenario():
        ack = await ris.receive(v2(msh(version="2.3.1", charset="8859/1", control_id="c1 x"), pid(unused("N"))))
        assert [ack.msh.field(n) for n in (3, 4, 5, 6, 9, 12, 18)] == [
            "FHIR_RIS", "RAD", "HIS", "EXAMPLEHOSP", "ACK", "2.3.1", "8859/1",
        ]  # fmt: skip
        assert ack.segments[1].raw(2) == "c1 x"

    ris.run(scenario())
