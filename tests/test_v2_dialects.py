"""The dialect of each Endpoint: what is refused when it is entered, how its changes are followed, how texts and PDFs go."""

import base64
import re
from pathlib import Path

import pytest

from bridges.v2 import destinations, outbound, version_structure
from bridges.v2.destination import HEADERS, KINDS, Destination
from bridges.v2.destinations import translations
from bridges.v2.mapping import TABLES, Layout
from bridges.v2.message import Message, Seg, parse
from bridges.v2.report_pdf import Heading, report_pdf
from bridges.v2.transliteration import write
from fhir_server import metrics
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.registry import Registry
from fhir_server.store import Store
from resources import registration
from resources.letters import plain
from tests.department import ACCESS, CT_CHEST, ZONE, Department, Resource, booking

# What is refused


def test_a_placer_that_could_only_be_told_of_steps_is_refused(ris):
    async def scenario():
        said = []
        for wants, role in ((("OMI^O23",), "placer"), (("OMI^O23", "SIU^S12"), "image-manager, placer")):
            refusal = await ris.refused(ris.destination(*wants, role=role))
            said.append((refusal.status, "a placer gets ORM^O01 or OMG^O19" in refusal.issues[0].diagnostics))
        assert said == [(422, True)] * 2
        both = await ris.destination("OMI^O23", "ORM^O01", role="image-manager, placer")
        order = await ris.order()
        await ris.book(order, await ris.scanner())
        told = [(m.type[0], m.first("ORC").field(1)) for m in await ris.sent(both)]
        assert sorted(told) == [("OMI", "NW"), ("ORM", "NW"), ("ORM", "SC")]
        await ris.update(both, status="off")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("report-style: f", "report-style is one of a, b, c, d, e"),
        ("newline: crlf", "newline is one of br, repeat, obx"),
        ("pdf: perhaps", "pdf is one of yes, no"),
        ("pdf-max-kb: 0", "pdf-max-kb is a number from 1 to 15000"),
        ("pdf-max-kb: 20000", "pdf-max-kb is a number from 1 to 15000"),
        ("role: pacs", "role is a list of placer, image-manager"),
        ("completed-at: once", "completed-at is one of exam, report"),
        ("time-offset: +0100", "time-offset is one of yes, no"),
        ("check-structure: strict", "check-structure is one of yes, no"),
        ("processing-id: X", "processing-id is one of P, T, D"),
        ("assigns-placer-numbers: maybe", "assigns-placer-numbers is one of yes, no"),
        ("concept-map: http://example.org/map", "concept-map is ConceptMap/id"),
        ("concept-map: ConceptMap/none", "there is no ConceptMap/none"),
    ],
)
def test_a_header_that_means_nothing_is_refused_with_what_it_may_be(ris, header, said):
    async def scenario():
        good = await ris.destination("ORU^R01")
        refusal = await ris.refused(ris.update(good, header=[header]))
        assert (refusal.status, said in refusal.issues[0].diagnostics) == (422, True), refusal.issues[0].diagnostics
        await ris.become(good, "off")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("wanted", "version", "said"),
    [
        ("ORU^R99", "2.5.1", f"ORU^R99 is not sent. What is sent: {', '.join(sorted(KINDS))}"),
        ("ORU", "2.5.1", "ORU is not sent"),
        ("OMI^O23", "2.4", "HL7 2.4 has no OMI^O23, which came with 2.5"),
        ("OMG^O19", "2.3.1", "HL7 2.3.1 has no OMG^O19"),
    ],
)
def test_a_message_that_is_never_sent_can_not_be_wanted(ris, wanted, version, said):
    async def scenario():
        refusal = await ris.refused(ris.destination(wanted, hl7_version=version))
        assert (refusal.status, said in refusal.issues[0].diagnostics) == (422, True), refusal.issues[0].diagnostics

    ris.run(scenario())


def test_payloads_that_are_not_ours_are_let_be(ris):
    async def scenario():
        made = await ris.destination("none")
        other = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/endpoint-payload-type", "code": "any"}]}
        await ris.become(made, "off", payloadType=[other])

    ris.run(scenario())


def test_every_header_is_in_the_documentation():
    text = (Path(__file__).parent.parent / "docs" / "hl7v2.md").read_text("utf-8")
    assert [h.name for h in HEADERS if f"`{h.name}`" not in text] == []


# What follows a change


class Process:
    """Another process over the same database."""

    def __init__(self, ris: Department) -> None:
        registry = Registry()
        registration.register(registry, uid_root="2.25")
        registry.projection(outbound.Outbound(ZONE).project, destinations.ASKED)
        self.ris = ris
        self.interactions = Interactions(Store(ris.db), registry)

    async def book(self) -> None:
        """One message for whoever wants SIU^S12."""
        await self.interactions.store.ensure(*sorted(self.interactions.registry.core_types))
        order, scanner = await self.ris.order(), await self.ris.scanner()
        await self.interactions.create(ACCESS, booking(order, scanner))


async def last(ris: Department, endpoint: Resource) -> Message:
    return (await ris.sent(endpoint))[-1]


def test_what_one_process_changes_of_an_endpoint_the_next_message_of_another_follows(ris):
    async def scenario():
        here, there = Process(ris), Process(ris)
        ehr = await ris.destination("SIU^S12")
        await here.book()
        await there.book()
        assert (await last(ris, ehr)).version == "2.5.1"
        ehr = await ris.update(ehr, header=["hl7-version: 2.3.1"])
        await there.book()
        await here.book()
        assert [m.version for m in await ris.sent(ehr)] == ["2.5.1", "2.5.1", "2.3.1", "2.3.1"]
        ehr = await ris.become(ehr, "off")
        await there.book()
        await here.book()
        assert len(await ris.sent(ehr)) == 4
        await ris.become(ehr, "active")
        await here.book()
        await ris.delete(ehr)
        await there.book()
        assert len(await ris.sent(ehr)) == 5

    ris.run(scenario())


def test_a_changed_concept_map_is_followed_at_once(ris):
    async def scenario():
        def mapped(code: str) -> Resource:
            target = {"code": code, "equivalence": "equivalent"}
            group = {"source": "http://loinc.org", "target": "urn:x", "element": [{"code": "24627-2", "target": [target]}]}
            return {"resourceType": "ConceptMap", "status": "active", "group": [group]}

        process = Process(ris)
        made = await ris.create(mapped("A1"))
        ehr = await ris.destination("SIU^S12", concept_map=f"ConceptMap/{made['id']}")
        await process.book()
        assert (await last(ris, ehr)).first("AIS").raw(3) == "A1^^L^24627-2^CT Chest^LN"
        await ris.update(made, **mapped("B2"))
        await process.book()
        assert (await last(ris, ehr)).first("AIS").get(3) == "B2"
        await ris.become(ehr, "off")

    ris.run(scenario())


def test_an_endpoint_of_the_same_transaction_is_told_and_one_that_fails_leaves_nothing(ris):
    async def scenario():
        order, scanner, template = await ris.order(), await ris.scanner(), await ris.destination("SIU^S12")
        await ris.become(template, "off")

        async def both(unit):
            made = await unit.create({k: v for k, v in template.items() if k != "id"})
            await unit.create(booking(order, scanner))
            return made

        ehr = await ris.interactions.transact(ACCESS, Act("test"), both)
        assert len(await ris.sent(ehr)) == 1
        await ris.become(ehr, "off")

    ris.run(scenario())


# Texts


def test_letters_that_a_character_set_lacks_go_as_the_nearest_and_are_counted(ris):
    async def scenario():
        ehr = await ris.destination("ORU^R01", character_set="ASCII")
        await ris.report(await ris.order(), conclusion="Größe – 良い")
        oru = await last(ris, ehr)
        assert oru.all("OBX")[-1].text(5) == "Groesse - ??"
        where = f"Endpoint/{ehr['id']}"
        counted = [metrics.CHARACTERS.labels(where, by)._value.get() for by in ("near", "question-mark")]
        assert counted == [3, 2]
        await ris.become(ehr, "off")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("text", "codec", "expected"),
    [
        ("Ærøskøbing Łódź Þór Œuvre", "ascii", "Aeroeskoebing Lodz Thor Oeuvre"),
        ("Ærøskøbing Łódź", "iso8859-1", "Ærøskøbing Lódz"),
        ("e\u0301", "iso8859-1", "é"),
        ("≤ 5 µm, „x“… 10 €", "ascii", "<= 5 um, \"x\"... 10 EUR"),
        ("ﬁbrosis ½", "ascii", "fibrosis 1/2"),
        ("3½ cm", "ascii", "3 1/2 cm"),
        ("3½ cm, 2⅛ cm", "iso8859-1", "3½ cm, 2 1/8 cm"),
        ("10² and 10⁻⁵", "ascii", "10^2 and 10^-5"),
        ("10² and 10²⁵", "iso8859-1", "10² and 10^25"),
        ("left ≠ right, x ≰ 3, x ∉ y", "ascii", "left != right, x not <= 3, x ? y"),
        ("1②", "ascii", "1(2)"),
        ("＾｜～", "ascii", "???"),
        ("Ελλάδα", "ascii", "??????"),
    ],
)  # fmt: skip
def test_the_nearest_is_never_a_separator(text, codec, expected):
    assert plain(text, codec) == expected
    assert b"|" not in write([Seg("NTE", {3: text})], codec).data.removeprefix(b"NTE|||")


def test_an_unknown_character_set_is_no_silent_loss():
    with pytest.raises(ValueError, match="KLINGON"):
        write([], "KLINGON")


# PDF


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


def test_a_made_pdf_is_the_same_each_time_and_takes_as_many_pages_as_it_needs():
    above = Heading("CT Chest", [("Patient", "Müller, Łucja 良")])
    short = {"conclusion": "No acute finding."}
    long = {"conclusion": "\n".join(f"Line {n} " + "word " * 60 for n in range(100))}
    assert report_pdf(short, [], above) == report_pdf(short, [], above)
    assert report_pdf(short, [], above).startswith(b"%PDF")
    assert pages(report_pdf(short, [], above)) == 1
    assert pages(report_pdf(long, [], above)) > 5
    assert report_pdf(short, [], above) != report_pdf(short, [], Heading("MR", []))


def test_a_receiver_gets_the_pdf_that_was_made_of_the_report(ris):
    async def scenario():
        ehr = await ris.destination("ORU^R01", report_style="d")
        await ris.report(await ris.order(), conclusion="Clear.")
        (document,) = [o for o in (await last(ris, ehr)).all("OBX") if o.field(2) == "ED"]
        assert base64.b64decode(document.get(5, 5)).startswith(b"%PDF")
        await ris.become(ehr, "off")

    ris.run(scenario())


# Structure


def message(*segments: str, kind: str = "ORU^R01^ORU_R01", version: str = "2.5.1") -> Message:
    head = f"MSH|^~\\&|A|B|C|D|20260907||{kind}|1|P|{version}"
    return parse("".join(s + "\r" for s in (head, *segments)).encode())


PID, OBR, OBX = "PID|1||1||X", "OBR|1|||1^CT^L", "OBX|1|TX|1^x^L|1|text||||||F"


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ((PID, OBR, OBX), []),
        ((PID, OBR, "ZXY|1", OBX, OBX), []),
        ((PID, OBX, OBR), ["OBX[1] is out of place in ORU_R01"]),
        ((PID,), ["ORU_R01 is incomplete"]),
        ((PID, "OBR|1", OBX), ["OBR[1]-4 is required"]),
        (("PID|1||1||X||19700131~19700201", OBR, OBX), ["PID[1]-7 repeats"]),
        ((PID, OBR, OBX + "|" * 40 + "x"), ["OBX[1] has fields beyond 25"]),
        ((PID, OBR, OBX, "QQQ|1"), ["QQQ[1] is out of place in ORU_R01", "HL7 2.5.1 has no segment QQQ"]),
    ],
)
def test_a_message_is_held_against_the_definitions_of_its_version(segments, said):
    assert version_structure.problems(message(*segments)) == said


@pytest.mark.parametrize(
    ("kind", "version", "said"),
    [
        ("ORM^O01", "9.9", ["HL7 9.9 has no definitions here"]),
        ("XXX^X01", "2.3.1", ["HL7 2.3.1 has no message structure XXX_X01"]),
        ("ORM^O01", "2.3.1", []),
        ("OMI^O23^OMI_O23", "2.5.1", ["OMI_O23 is incomplete"]),
    ],
)
def test_each_version_has_its_own_structures(kind, version, said):
    found = version_structure.problems(message(PID, "ORC|NW", OBR, kind=kind, version=version))
    assert found == said


def test_the_layouts_write_fields_that_the_standard_has_each_once():
    segments = version_structure._tables("2.5.1", "segments")
    layouts = [t for t in TABLES if isinstance(t, Layout)]
    assert {"MSH", "EVN", "PID", "PV1", "ORC", "OBR", "TQ1", "IPC", "ZDS", "OBX", "SCH", "RGS", "AIS", "AIG", "AIL", "AIP",
            "FT1", "PR1", "NTE"} <= {layout.segment for layout in layouts}  # fmt: skip
    for layout in layouts:
        numbers = [f.field for f in layout.fields]
        assert len(set(numbers)) == len(numbers), layout.title
        if layout.segment in segments:
            known = {int(name.rpartition("_")[2]) for name, *_ in segments[layout.segment][1]}
            assert set(numbers) <= known, layout.title


# Codes


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "24627-2^CT Chest^LN"),
        (["code-first: C4"], "24627-2^CT Chest^LN"),
    ],
)
def test_without_translation_the_codes_stay_in_their_order(headers, code):
    to = Destination.of({"id": "1", "header": headers}, ZONE)
    assert Seg("X01", {1: to.code(CT_CHEST)}).written(parse(b"MSH|^~\\&|").separators) == f"X01|{code}"


def test_a_translation_that_means_less_is_none():
    targets = [
        {"code": "n", "equivalence": "narrower"},
        {"code": "w", "equivalence": "wider"},
        {"code": "e", "equivalence": "equal"},
    ]
    found = translations({"group": [{"source": "s", "target": "t", "element": [{"code": "c", "target": targets}]}]})
    assert found == {("s", "c"): {"system": "t", "code": "w"}}
