"""What a report consists of, when some of it is written: what nobody touched stays as it was."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fhir_app import Resource, serving
from tests.reading_world import CT_CHEST, LOINC, ReadingRoom, parameters, reference, section
from tests.test_workflow_reading import ADDENDUM, FINDINGS, IMPRESSION, prior, refused, room_finding, text_of

COMPARED = "https://profiles.ihe.net/RAD/IDR/StructureDefinition/associatedStudy"
CHEST = "51185008"


@pytest.fixture(scope="module")
def room(mongodb_uri: str) -> Iterator[ReadingRoom]:
    with serving(mongodb_uri) as app:
        yield ReadingRoom(app)


def words(room: ReadingRoom, report: Resource) -> list[tuple[str, str]]:
    """What the sections of a report say, in their order, by their codes."""
    results = (room.read(r["reference"]) for r in report.get("result", ()) if "reference" in r)
    return [(o["code"].get("coding", [{}])[0].get("code", o["code"].get("text")), o["valueString"]) for o in results]


def written_elsewhere(room: ReadingRoom, draft: Resource, code: Resource, text: str) -> Resource:
    """The draft with one more section, by another door."""
    made = room.app.create({
        "resourceType": "Observation", "status": "preliminary", "code": code, "subject": draft["subject"], "valueString": text,
        "category": [{"coding": [{"system": "urn:fhir-ris:report-section", "code": "section"}]}],
    })  # fmt: skip
    return changed(room, draft, result=[*draft["result"], {"reference": f"Observation/{made['id']}"}])


def changed(room: ReadingRoom, report: Resource, **elements: Any) -> Resource:
    answer = room.app.put(room.read(report) | elements)
    assert answer.status_code == 200, answer.text
    return room.read(report)


def loinc(code: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code}]}


def test_a_correction_leaves_each_addendum_where_it_is(room):
    report = room.signed(room.study())
    path = f"DiagnosticReport/{report['id']}"
    for text in ("ADDENDUM ONE", "ADDENDUM TWO"):
        room.attending.done(f"{path}/$addend", parameters(text=text))
    corrected = room.attending.done(f"{path}/$correct", parameters(section(FINDINGS, "Nodule."), reason="Overlooked"))
    assert words(room, corrected) == [
        (FINDINGS, "Nodule."), (IMPRESSION, "No acute finding."), (ADDENDUM, "ADDENDUM ONE"), (ADDENDUM, "ADDENDUM TWO"),
    ]  # fmt: skip
    assert "ADDENDUM ONE" in text_of(corrected)


def test_what_is_written_leaves_other_sections_alone_also_those_with_one_code_and_those_with_none(room):
    draft = room.draft(room.study())
    path = f"DiagnosticReport/{draft['id']}"
    draft = written_elsewhere(room, draft, loinc(FINDINGS), "Second findings.")
    for name in ("Dose", "Device"):
        draft = written_elsewhere(room, draft, {"text": name}, f"{name} it is.")
    local = {"coding": [{"system": "urn:example:sections", "code": "x"}]}
    draft = written_elsewhere(room, draft, local, "By a code of theirs.")
    unknown = {"display": "Measured elsewhere"}
    draft = changed(room, draft, result=[*draft["result"], unknown])
    said = room.attending.done(f"{path}/$write", parameters(section(IMPRESSION, "Normal.")))
    others = [("Dose", "Dose it is."), ("Device", "Device it is."), ("x", "By a code of theirs.")]
    both = [(FINDINGS, "Clear lungs."), (FINDINGS, "Second findings."), (IMPRESSION, "Normal.")]
    assert words(room, said) == [*both, *others]
    assert said["result"][-1] == unknown
    # What is said of a code takes the place of all that it had.
    second = said["result"][1]["reference"]
    joined = room.attending.done(f"{path}/$write", parameters(section(FINDINGS, "Clear lungs.\n\nSecond findings.")))
    assert words(room, joined) == [(FINDINGS, "Clear lungs.\n\nSecond findings."), both[2], *others]
    assert room.read(second)["status"] == "entered-in-error"


def test_a_comparison_that_names_no_resource_here_stays_when_others_are_written(room):
    patient = room.patient()
    study, _ = prior(room, patient, "2024-01-01T08:00:00Z", CT_CHEST, "CT", CHEST)
    draft = room.draft(room.study(patient))
    outside = [
        {"url": COMPARED, "valueReference": to}
        for to in ({"display": "CT of 2019"}, {"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}})
    ]
    changed(room, draft, extension=outside)
    path = f"DiagnosticReport/{draft['id']}/$write"
    named = {"url": COMPARED, "valueReference": {"reference": study}}
    assert room.attending.done(path, parameters(reference("comparison", study)))["extension"] == [*outside, named]
    assert room.attending.done(path, parameters({"name": "comparison"}))["extension"] == outside


def test_a_comparison_that_is_there_stands_in_the_way_of_no_other(room):
    patient = room.patient()
    (hidden, _), (other, _) = (prior(room, patient, f"202{n}-01-01T08:00:00Z", CT_CHEST, "CT", CHEST) for n in (3, 4))
    path = f"DiagnosticReport/{room.draft(room.study(patient))['id']}/$write"
    room.attending.done(path, parameters(reference("comparison", hidden)))
    secret = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}]}
    assert room.app.put(room.read(hidden) | {"meta": secret}).status_code == 200
    both = room.attending.done(path, parameters(reference("comparison", hidden), reference("comparison", other)))
    assert [e["valueReference"]["reference"] for e in both["extension"]] == [hidden, other]
    left = room.attending.done(path, parameters(reference("comparison", other)))
    assert [e["valueReference"]["reference"] for e in left["extension"]] == [other]
    refused(room.attending.call(path, parameters(reference("comparison", hidden))), 422, "no examination")


def test_a_finding_that_another_report_uses_too_leaves_this_one_only(room):
    patient = room.patient()
    draft = room.draft(room.study(patient), None, {"name": "finding", "resource": room_finding()})
    (shared,) = draft["result"]
    other = room.app.create({
        "resourceType": "DiagnosticReport", "status": "final", "code": CT_CHEST, "subject": draft["subject"], "result": [shared],
    })  # fmt: skip
    path = f"DiagnosticReport/{draft['id']}/$write"
    gone = room.attending.done(path, parameters(reference("remove-finding", shared["reference"])))
    assert "result" not in gone
    assert room.read(shared["reference"])["status"] == "registered"
    assert room.read(other)["result"] == [shared]
