"""What the HL7 v2 interface says of itself: the tables of docs/hl7v2.md, the conformance profiles, the ConceptMaps."""

from pathlib import Path
from xml.etree import ElementTree as ET

from bridges.v2.codes import CODE_MAPS
from bridges.v2.destination import KINDS
from bridges.v2.receivers import MESSAGES
from capability import concept_maps, v2_profile, v2_specification
from fhir_server.references import Target
from tests.department import ACCESS

DOCUMENT = Path(__file__).parent.parent / "docs" / "hl7v2.md"


def test_the_printed_tables_are_those_that_the_bridge_runs():
    document = DOCUMENT.read_text("utf-8")
    assert v2_specification.written(document) == document, "run python -m capability.v2_specification"


def test_there_is_a_profile_for_each_message_that_is_taken_or_sent():
    assert {(kind, event) for kind, event, direction in v2_profile.profiles() if direction == "in"} == set(MESSAGES)
    assert {f"{kind}^{event}" for kind, event, direction in v2_profile.profiles() if direction == "out"} == set(KINDS)
    for kind, event, direction in v2_profile.profiles():
        static = ET.fromstring(v2_profile.profile(kind, event, direction)).find("HL7v2xStaticDef")
        assert static is not None
        assert static.get("Role") == {"in": "Receiver", "out": "Sender"}[direction]


def test_a_profile_names_what_is_required_read_and_left_alone():
    root = ET.fromstring(v2_profile.profile("ADT", "A04", "in"))
    usage = {s.get("Name"): {f.get("Name"): f.get("Usage") for f in s.iter("Field")} for s in root.iter("Segment")}
    assert usage["PID"]["Patient identifier list"] == "R"
    assert usage["PID"]["Patient name"] == "O"
    assert usage["PID"]["County code"] == "X"


def test_the_code_maps_are_stored_once_and_found_by_their_url(ris):
    async def scenario():
        assert await concept_maps.publish(ris.interactions) == len(CODE_MAPS)
        assert await concept_maps.publish(ris.interactions) == 0
        (found,) = await ris.search("ConceptMap", url="urn:fhir-ris:concept-map:v2-sex")
        assert found["meta"]["versionId"] == "1"
        sexes = {e["code"]: e["target"][0]["code"] for e in found["group"][0]["element"]}
        assert sexes["F"] == "female"
        await ris.interactions.delete(ACCESS, "ConceptMap", "v2-sex")
        assert await concept_maps.publish(ris.interactions) == 1
        assert (await ris.store.read_many([Target("ConceptMap", "v2-sex")]))[Target("ConceptMap", "v2-sex")].resource is not None

    ris.run(scenario())
