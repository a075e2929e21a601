"""What leaves by HL7 v2: who gets which message when, and what stands in it."""

import base64
from collections.abc import Iterator
from decimal import Decimal

import pytest

from bridges.v2.message import Message
from tests.department import LOINC, Department, Resource, booking, lines, unused, v2
from tests.v2_case import valid

ALL = ("SIU^S12", "SIU^S13", "SIU^S14", "SIU^S15", "SIU^S17", "SIU^S26", "ORM^O01", "ORU^R01")


@pytest.fixture
def ehr(ris: Department) -> Iterator["Ehr"]:
    """A destination for everything, switched off afterwards."""
    ehrs: list[Ehr] = []

    class Make(Ehr):
        def __init__(self, *wants: str, **headers: str) -> None:
            super().__init__(ris, ris.run(ris.destination(*(wants or ALL), **headers)))
            ehrs.append(self)

    yield Make
    for made in ehrs:
        ris.run(ris.update(made.endpoint, status="off"))


class Ehr:
    def __init__(self, ris: Department, endpoint: Resource) -> None:
        self.ris = ris
        self.endpoint = endpoint

    async def got(self, *kinds: str) -> list[Message]:
        return await self.ris.sent(self.endpoint, *kinds)

    async def told(self) -> list[str]:
        """Each message in short: `SIU^S12`, `ORM SC`, `ORU F`."""
        found = []
        for message in await self.got():
            kind = "^".join(message.type[:2])
            detail = {"ORM": ("ORC", 5), "ORU": ("OBR", 25)}.get(message.type[0])
            found.append(f"{message.type[0]} {message.first(detail[0]).field(detail[1])}" if detail else kind)
        return found


async def v2_order(ris: Department, **fields: str) -> Resource:
    """An order as an EHR sends it, with everything in it that goes back."""
    patient, placer, doctor, visit = unused("P"), unused("L"), unused("D"), unused("V")
    obr = {4: "24627-2^CT Chest^LN^CTTHX^CT Thorax^99ALPHA", 24: "CT"} | {int(k[1:]): v for k, v in fields.items()}
    await ris.accepted(
        v2(
            "MSH|^~\\&|EHR|EXAMPLEHOSP|FHIR_RIS|RAD|20260907081500||ORM^O01|{id}|P|2.5.1||||||UNICODE UTF-8",
            f"PID|1||{patient}^^^EXAMPLEHOSP&1.2.3&ISO^MR||Müster^Mara^Ann^^Dr.^^L||19700131|F",
            f"PV1|1|I|RAD^WAIT^^EXAMPLEHOSP||||||||||||||||{visit}^^^EXAMPLEHOSP",
            f"ORC|NW|{placer}^EHR|||||^^^^^S||20260907080000|||{doctor}^Doktor^Dora^^^Dr.^^^EXAMPLEHOSP",
            "OBR|" + "|".join(obr.get(n, "") for n in range(1, max(obr) + 1)),
        )
    )
    return await ris.one("ServiceRequest", identifier=placer, intent="order")


def number(resource: Resource, code: str) -> str:
    return next(i["value"] for i in resource["identifier"] if i["type"]["coding"][0]["code"] == code)


# Who gets what


def test_one_order_from_booking_to_report(ris, ehr):
    async def scenario(ehr):
        order = await v2_order(ris)
        assert await ehr.told() == []
        appointment = await ris.book(order, await ris.scanner())
        assert await ehr.told() == ["SIU^S12", "ORM SC"]
        await ris.become(appointment, "arrived")
        performed = await ris.perform(order, "in-progress")
        await ris.become(performed, "completed")
        report = await ris.report(order, "preliminary")
        await ris.become(report, "final", conclusion="Final.")
        await ris.become(report, "corrected", conclusion="Corrected.")
        assert await ehr.told() == [
            "SIU^S12", "ORM SC", "SIU^S14", "ORM IP", "SIU^S14", "ORM A", "ORU P", "ORU F", "ORM CM", "ORU C",
        ]  # fmt: skip

    ris.run(scenario(ehr()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"start": "2026-09-08T08:05:00Z"}, ["SIU^S13", "ORM SC"]),
        ({"status": "arrived"}, ["SIU^S14"]),
        ({"status": "cancelled"}, ["SIU^S15", "ORM IP"]),
        ({"status": "noshow"}, ["SIU^S26", "ORM IP"]),
        ({"status": "entered-in-error"}, ["SIU^S17", "ORM IP"]),
        ({"comment": "please be early"}, []),
        ({}, []),
    ],
)
def test_what_happens_to_an_appointment_is_told(ris, ehr, change, told):
    async def scenario(ehr):
        appointment = await ris.book(await v2_order(ris), await ris.scanner())
        await ris.update(appointment, **change)
        assert (await ehr.told())[2:] == told

    ris.run(scenario(ehr()))


def test_another_station_is_told_as_a_change(ris, ehr):
    async def scenario(ehr):
        order = await v2_order(ris)
        appointment = await ris.book(order, await ris.scanner())
        other = await ris.scanner()
        await ris.update(appointment, participant=booking(order, other)["participant"])
        assert (await ehr.told())[2:] == ["SIU^S14"]
        assert (await ehr.got())[-1].first("AIG").get(3) == other["identifier"][0]["value"]

    ris.run(scenario(ehr()))


@pytest.mark.parametrize("status", ["proposed", "pending"])
def test_what_was_never_booked_is_not_told(ris, ehr, status):
    async def scenario(ehr):
        appointment = await ris.book(await v2_order(ris), await ris.scanner(), status=status)
        await ris.become(appointment, "cancelled")
        assert await ehr.told() == []

    ris.run(scenario(ehr()))


def test_a_walk_in_is_told_as_booked(ris, ehr):
    async def scenario(ehr):
        await ris.book(await v2_order(ris), await ris.scanner(), status="arrived")
        assert await ehr.told() == ["SIU^S12", "ORM SC"]

    ris.run(scenario(ehr()))


@pytest.mark.parametrize(("status", "told"), [("revoked", ["SIU^S15", "ORM CA"]), ("on-hold", ["ORM HD"])])
def test_what_happens_to_the_order_is_told(ris, ehr, status, told):
    async def scenario(ehr):
        order = await v2_order(ris)
        await ris.book(order, await ris.scanner())
        await ris.become(order, status)
        assert (await ehr.told())[2:] == told
        if status == "on-hold":
            await ris.become(order, "active")
            assert (await ehr.told())[-1] == "ORM SC"

    ris.run(scenario(ehr()))


def test_a_stopped_examination_is_told(ris, ehr):
    async def scenario(ehr):
        order = await v2_order(ris)
        await ris.perform(order, "stopped")
        assert await ehr.told() == ["ORM IP", "ORM DC"]

    ris.run(scenario(ehr()))


def test_each_destination_gets_what_it_wants_and_only_while_it_is_active(ris):
    async def scenario():
        schedule, results = await ris.destination("SIU^S12"), await ris.destination("ORU^R01", "ORM^O01")
        off = await ris.destination(*ALL)
        await ris.update(off, status="off")
        nothing = await ris.destination()
        rest = await ris.create(
            (await ris.destination(*ALL)) | {"connectionType": {"code": "hl7-fhir-rest"}, "address": "http://x"}
        )
        order = await v2_order(ris)
        await ris.book(order, await ris.scanner())
        await ris.report(order, "preliminary")
        kinds = [["^".join(m.type[:2]) for m in await ris.sent(d)] for d in (schedule, results, off, nothing, rest)]
        assert kinds == [["SIU^S12"], ["ORM^O01", "ORU^R01"], [], [], []]
        for endpoint in (schedule, results):
            await ris.update(endpoint, status="off")
        for endpoint in await ris.search("Endpoint", status="active"):
            await ris.update(endpoint, status="off")

    ris.run(scenario())


def test_a_transaction_is_told_by_what_it_ends_in_and_not_at_all_when_it_fails(ris, ehr):
    from fhir_server.audit import Act
    from tests.department import ACCESS

    async def scenario(ehr):
        order, scanner = await v2_order(ris), await ris.scanner()

        async def twice(unit):
            made = await unit.create(booking(order, scanner))
            await unit.update(made | {"start": "2026-09-08T08:10:00Z"})

        await ris.interactions.transact(ACCESS, Act("test"), twice)
        assert await ehr.told() == ["SIU^S12", "ORM SC"]
        assert (await ehr.got("SIU^S12"))[0].first("AIS").field(4) == "20260908101000+0200"

        async def failing(unit):
            await unit.create(booking(await ris.order(), scanner, "2026-09-08T12:00:00Z"))
            await unit.create(booking(await ris.order(), scanner, "2026-09-08T12:00:00Z"))

        await ris.refused(ris.interactions.transact(ACCESS, Act("test"), failing))
        assert len(await ehr.told()) == 2

    ris.run(scenario(ehr()))


# What stands in it


@pytest.mark.parametrize("version", ["2.5.1", "2.4", "2.3.1"])
def test_a_booking_segment_by_segment(ris, ehr, version):
    async def scenario(ehr):
        order = await v2_order(ris)
        scanner = await ris.scanner()
        appointment = await ris.book(order, scanner)
        patient = (await ris.read(order["subject"]["reference"]))["identifier"][0]["value"]
        doctor = (await ris.read(order["requester"]["reference"]))["identifier"][0]["value"]
        visit = (await ris.read(order["encounter"]["reference"]))["identifier"][0]["value"]
        title, procedure, step = scanner["identifier"][0]["value"], await ris.procedure(order), await ris.step(order)
        placer, filler, accession = (number(order, c) for c in ("PLAC", "FILL", "ACSN"))
        start, end = "20260908100000+0200", "20260908103000+0200"
        code = "24627-2^CT Chest^LN^CTTHX^CT Thorax^99ALPHA"
        who = f"{doctor}^Doktor^Dora^^^Dr.^^^EXAMPLEHOSP"
        siu, orm = await ehr.got()
        identity = [
            f"PID|1||{patient}^^^EXAMPLEHOSP&1.2.3&ISO^MR||Müster^Mara^Ann^^Dr.^^L||19700131|F",
            f"PV1|1|I|RAD^WAIT^^EXAMPLEHOSP||||||||||||||||{visit}^^^EXAMPLEHOSP^VN",
        ]
        numbers = "" if version == "2.3.1" else f"|{placer}^EHR|{filler}^FHIR_RIS"
        assert lines(siu) == [
            (
                f"SCH|{placer}^EHR|{appointment['id']}^FHIR_RIS||||S12^^HL70003|{code}||30|min^minutes^UCUM|^^30^{start}^{end}|"
                f"{who}||||FHIR_RIS||||FHIR_RIS|||||Booked{numbers}"
            ),
            *identity,
            "RGS|1|A",
            f"AIS|1|A|{code}|{start}|||30|min^minutes^UCUM||Booked^^HL70278",
            f"AIG|1|A|{title}^Scanner {title}^L|EQUIPMENT^^L||||{start}|||30|min^minutes^UCUM||Booked^^HL70278",
        ]
        timing = f"^^^{start}^{end}^S"
        assert lines(orm) == [
            *identity,
            f"ORC|SC|{placer}^EHR|{filler}^FHIR_RIS||SC||{timing}||{orm.first('ORC').field(9)}|||{who}",
            (
                f"OBR|1|{placer}^EHR|{filler}^FHIR_RIS|{code}||||||||||||{who}||{accession}|"
                f"{procedure['identifier'][0]['value']}|{step['identifier'][0]['value']}||||CT|||{timing}|||||||||{start}||||||||{code}"
            ),
        ]
        for message, kind, shape in ((siu, "SIU^S12", "SIU_S12"), (orm, "ORM^O01", "ORM_O01")):
            assert message.msh.raw(9) == (kind if version == "2.3.1" else f"{kind}^{shape}")
            assert [message.msh.field(n) for n in (3, 4, 5, 6, 11, 12)] == ["FHIR_RIS", "RAD", "EHR", "EXAMPLEHOSP", "P", version]
            assert 0 < len(message.control_id) <= 20
        valid(siu)
        valid(orm)

    ris.run(scenario(ehr(hl7_version=version)))


async def reported(ris: Department, order: Resource, **elements) -> Resource:
    return await ris.report(order, "final", issued="2026-09-08T09:15:00Z", **elements)


@pytest.mark.parametrize("version", ["2.5.1", "2.3.1"])
def test_a_report_segment_by_segment(ris, ehr, version):
    async def scenario(ehr):
        order = await v2_order(ris)
        study, procedure = await ris.study(order), await ris.procedure(order)
        size = await ris.create(
            {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": LOINC, "code": "33728-7", "display": "Size"}]},
                "valueQuantity": {"value": Decimal("4.0"), "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
                "referenceRange": [{"text": "<6"}],
                "interpretation": [{"coding": [{"code": "N"}]}],
            }
        )
        await reported(
            ris,
            order,
            effectiveDateTime="2026-09-08T08:20:00Z",
            imagingStudy=[{"reference": f"ImagingStudy/{study['id']}"}],
            result=[{"reference": f"Observation/{size['id']}"}],
            resultsInterpreter=[{"display": "Reader, Rosa"}],
            presentedForm=[{"contentType": "text/plain", "data": base64.b64encode(b"Lungs are clear.").decode()}],
            conclusion="No acute finding.",
            conclusionCode=[{"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "Z03.8"}]}],
        )
        (oru,) = await ehr.got("ORU^R01")
        placer, filler, accession = (number(order, c) for c in ("PLAC", "FILL", "ACSN"))
        who, code = lines(oru)[2].split("|")[12], "24627-2^CT Chest^LN^CTTHX^CT Thorax^99ALPHA"
        uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
        coded = "CE" if version == "2.3.1" else "CWE"
        assert lines(oru)[2:] == [
            f"ORC|RE|{placer}^EHR|{filler}^FHIR_RIS||CM||||{oru.first('ORC').field(9)}|||{who}",
            (
                f"OBR|1|{placer}^EHR|{filler}^FHIR_RIS|{code}|||20260908102000+0200|||||||||{who}||"
                f"{accession}|{procedure['identifier'][0]['value']}|||20260908111500+0200||RAD|F|||||||&Reader&Rosa||||||||||||{code}"
            ),
            f"OBX|1|HD|113014^DICOM Study^DCM|1|{uid}||||||F",
            "OBX|2|NM|33728-7^Size^LN|1|4.0|mm^mm^UCUM|<6|N|||F",
            "OBX|3|TX|59776-5^Procedure findings^LN|1|Lungs are clear.||||||F",
            "OBX|4|TX|19005-8^Radiology Imaging study [Impression]^LN|1|No acute finding.||||||F",
            f"OBX|5|{coded}|19005-8^Radiology Imaging study [Impression]^LN|2|Z03.8^^I10||||||F",
        ]
        valid(oru)

    ris.run(scenario(ehr("ORU^R01", hl7_version=version)))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"valueQuantity": {"value": 5, "comparator": "<", "unit": "mm"}}, "SN|{c}|1|<^5|^mm"),
        ({"valueQuantity": {"value": Decimal("71.50"), "unit": "kg", "code": "k", "system": "urn:x"}}, "NM|{c}|1|71.50|k^kg^L"),
        ({"valueInteger": 3}, "NM|{c}|1|3|"),
        ({"valueRange": {"low": {"value": 1, "unit": "cm"}, "high": {"value": 2, "unit": "cm"}}}, "SN|{c}|1|^1^-^2|^cm"),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, "SN|{c}|1|^1^:^128|"),
        ({"valueBoolean": True}, "CWE|{c}|1|Y^Yes^HL70136|"),
        ({"valueCodeableConcept": {"text": "left"}}, "CWE|{c}|1|^left|"),
        ({"valueString": "a^b"}, "TX|{c}|1|a\\S\\b|"),
        ({"valueDateTime": "2026-09-08"}, "TS|{c}|1|20260908|"),
        ({"valueTime": "08:15:00"}, "TM|{c}|1|081500|"),
        ({"valuePeriod": {"start": "2026-09-08"}}, "TX|{c}|1|a Period, which is in the electronic report only|"),
        ({"dataAbsentReason": {"text": "not measured"}}, "TX|{c}|1|no value: not measured|"),
        ({"component": [{"code": {"text": "part"}, "valueInteger": 7}]}, "NM|^part|1.1|7|"),
        ({"note": [{"text": "seen twice"}]}, "TX|{c}|1.1|seen twice|"),
    ],
)  # fmt: skip
def test_no_result_is_lost_or_loses_what_it_means(ris, ehr, value, told):
    async def scenario(ehr):
        observation = await ris.create({"resourceType": "Observation", "status": "final", "code": {"text": "thing"}} | value)
        order = await ris.order()
        await reported(ris, order, result=[{"reference": f"Observation/{observation['id']}"}])
        (oru,) = await ehr.got("ORU^R01")
        assert lines(oru)[-2].partition("|")[2].partition("|")[2].startswith(told.replace("{c}", "^thing"))

    ris.run(scenario(ehr("ORU^R01")))


TEXT = "Lunge: 4 mm | 5^6 & 7~8 \\ 9\nNächste Zeile\r\n\r\nEnde – gut\t."


@pytest.mark.parametrize(
    ("charset", "expected"),
    [
        ("UNICODE UTF-8", TEXT),
        ("", TEXT),
        ("8859/1", TEXT.replace("–", "-")),
        ("ASCII", TEXT.replace("–", "-").replace("ä", "ae")),
    ],
)
def test_text_arrives_as_it_was_written_as_far_as_the_character_set_goes(ris, ehr, charset, expected):
    async def scenario(ehr):
        await reported(ris, await ris.order(), conclusion=TEXT)
        (oru,) = await ehr.got("ORU^R01")
        assert oru.msh.field(18) == (charset or "UNICODE UTF-8")
        assert len(oru.raw.decode(oru.codec).split("\r")) == 7
        assert oru.all("OBX")[1].text(5) == expected.replace("\r\n", "\n")
        assert "\\.br\\" in oru.all("OBX")[1].raw(5)

    ris.run(scenario(ehr("ORU^R01", **({"character_set": charset} if charset else {}))))


def test_documents_go_as_they_are_or_as_a_pointer(ris, ehr):
    async def scenario(ehr):
        pdf = base64.b64encode(b"%PDF-1.7 " + bytes(range(256)) * 20).decode()
        forms = [
            {"contentType": "application/pdf", "data": pdf},
            {"contentType": "text/html; charset=utf-8", "data": base64.b64encode(b"<p>x</p>").decode()},
            {"contentType": "text/plain;charset=iso-8859-1", "data": base64.b64encode("für".encode("latin-1")).decode()},
            {"contentType": "application/pdf", "url": "https://ris.example.org/report.pdf"},
        ]
        await reported(ris, await ris.order(), presentedForm=forms, conclusion="x")
        (oru,) = await ehr.got("ORU^R01")
        found = [(o.field(2), [o.get(5, n) for n in range(1, 6)]) for o in oru.all("OBX")[1:]]
        assert found == [
            ("TX", ["für", "", "", "", ""]),
            ("TX", ["x", "", "", "", ""]),
            ("ED", ["", "AP", "PDF", "Base64", pdf]),
            ("ED", ["", "TEXT", "HTML", "Base64", base64.b64encode(b"<p>x</p>").decode()]),
            ("RP", ["https://ris.example.org/report.pdf", "", "AP", "PDF", ""]),
        ]

    ris.run(scenario(ehr("ORU^R01")))


def test_a_report_that_is_only_a_narrative_is_sent_as_text(ris, ehr):
    async def scenario(ehr):
        div = '<div xmlns="http://www.w3.org/1999/xhtml"><p>Lungs  are\n clear &amp; dry.</p><p>Heart <b>normal</b>.</p></div>'
        patient = await ris.patient()
        order = await ris.order(patient)
        await ris.create(
            {
                "resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}, "subject": order["subject"],
                "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}], "text": {"status": "additional", "div": div},
            }
        )  # fmt: skip
        (oru,) = await ehr.got("ORU^R01")
        assert oru.all("OBX")[1].text(5) == "Lungs are clear & dry.\nHeart normal."

    ris.run(scenario(ehr("ORU^R01")))


def test_a_corrected_report_is_sent_whole_again_and_says_so(ris, ehr):
    async def scenario(ehr):
        order = await ris.order()
        report = await reported(ris, order)
        await ris.update(report, meta=report["meta"] | {"tag": [{"code": "seen"}]})
        await ris.become(report, "amended", conclusion="Amended.")
        await ris.become(report, "entered-in-error")
        told = [(m.first("OBR").field(25), {o.field(11) for o in m.all("OBX")}) for m in await ehr.got("ORU^R01")]
        assert told == [("F", {"F"}), ("C", {"C"}), ("X", {"X"})]

    ris.run(scenario(ehr("ORU^R01")))


def test_a_report_of_two_examinations_of_one_order_is_one_message(ris, ehr):
    async def scenario(ehr):
        order = await ris.order()
        await ris.create(
            {
                "resourceType": "ServiceRequest", "status": "active", "intent": "filler-order", "code": {"text": "CT neck"},
                "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}], "subject": order["subject"],
            }
        )  # fmt: skip
        await reported(ris, order)
        assert len(await ehr.got("ORU^R01")) == 1

    ris.run(scenario(ehr("ORU^R01")))


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "20260908100000+0200"),
        ({"time_zone": "America/New_York"}, "20260908040000-0400"),
        ({"time_zone": "Asia/Kolkata", "time_offset": "no"}, "20260908133000"),
    ],
)
def test_times_are_those_of_the_destination(ris, ehr, headers, told):
    async def scenario(ehr):
        await ris.book(await ris.order(), await ris.scanner())
        assert (await ehr.got("SIU^S12"))[0].first("AIS").field(4) == told

    ris.run(scenario(ehr("SIU^S12", **headers)))


def test_places_and_people_of_a_booking_are_told(ris, ehr):
    async def scenario(ehr):
        order = await ris.order()
        room = await ris.create({"resourceType": "Location", "name": "CT room 1"})
        person = await ris.create({"resourceType": "Practitioner", "name": [{"family": "Tech", "given": ["Toni"]}]})
        appointment = booking(order, await ris.scanner())
        appointment["participant"] += [
            {"actor": {"reference": f"Location/{room['id']}"}, "status": "accepted"},
            {"actor": {"reference": f"Practitioner/{person['id']}"}, "status": "accepted"},
        ]
        await ris.create(appointment)
        (siu,) = await ehr.got("SIU^S12")
        when = "20260908100000+0200|||30|min^minutes^UCUM||Booked^^HL70278"
        assert lines(siu)[-2:] == [f"AIL|1|A|CT room 1|ROOM^^L||{when}", f"AIP|1|A|^Tech^Toni|STAFF^^L||{when}"]
        valid(siu)

    ris.run(scenario(ehr("SIU^S12")))


def test_the_doctor_behind_a_role_is_named_and_foreign_identifiers_have_their_authority(ris, ehr):
    async def scenario(ehr):
        mrn = {"system": "http://hospital.example.org/mrn", "value": unused("M")}
        doctor = await ris.create(
            {
                "resourceType": "Practitioner",
                "identifier": [{"system": "urn:oid:1.2.9", "value": "77"}],
                "name": [{"family": "Doc"}],
            }
        )
        role = await ris.create(
            {"resourceType": "PractitionerRole", "practitioner": {"reference": f"Practitioner/{doctor['id']}"}}
        )
        patient = await ris.patient(identifier=[mrn])
        await reported(ris, await ris.order(patient, requester={"reference": f"PractitionerRole/{role['id']}"}))
        (oru,) = await ehr.got("ORU^R01")
        assert oru.first("ORC").raw(12) == "77^Doc^^^^^^^&1.2.9&ISO"
        assert oru.first("PID").raw(3) == f"{mrn['value']}^^^&http://hospital.example.org/mrn&URI"
        assert oru.first("PID").field(7) == ""

    ris.run(scenario(ehr("ORU^R01")))


# Destinations that can't be


@pytest.mark.parametrize(
    "change",
    [
        {"address": "http://ehr.example.org"},
        {"address": "mllp://"},
        {"address": "mllp://host:99999"},
        {"header": ["hl7-version: 9.9"]},
        {"header": ["character-set: KLINGON"]},
        {"header": ["time-zone: Mars/Olympus"]},
        {"header": ["ack-timeout: soon"]},
        {"header": ["ack-timeout: 0"]},
    ],
)
def test_an_endpoint_that_no_message_can_be_written_for_is_refused_when_it_is_entered(ris, change):
    async def scenario():
        good = await ris.destination()
        assert (await ris.refused(ris.create(good | change))).status == 422
        assert (await ris.refused(ris.update(good, **change))).status == 422

    ris.run(scenario())
