"""The modality worklist, over real associations: matching as PS3.4 Annex K and C.2.2.2 have it, and what is on the list when."""

import asyncio
import fnmatch
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from bson import ObjectId
from pydicom.dataset import Dataset

from bridges.dicom import worklist, worklist_answers
from bridges.dicom.character_sets import ASCII, transliterated
from bridges.dicom.dicom_json import tag
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.server import DicomServer, DicomServerError, DicomSettings
from bridges.dicom.upper_layer import command
from bridges.dicom.upper_layer.items import UserInformation
from bridges.dicom.wild_cards import matcher
from bridges.dicom.worklist_rows import COLLECTION, WorklistRows
from fhir_server.elements import has_code
from fhir_server.references import ref
from fhir_server.registry import Change
from fhir_server.unit_of_work import UnitOfWork
from resources import terms, worklist_preferences
from tests.conftest import RunWithDb
from tests.dicom_client import (
    OUR_TITLE,
    ZONE,
    Answers,
    Department,
    Running,
    blocking,
    department,
    running_department,
    worklist_keys,
)
from tests.dicom_wire import WORKLIST, Wire, encoded, status

V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
ILLE, ELE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_numbers = iter(range(1, 1000))


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    """A department with four steps of two stations, which the matching tests ask for; other tests use stations of their own."""
    with running_department(mongodb_uri) as running:
        running.run(_fill(running.department))
        yield running


async def _fill(dep: Department) -> None:
    ct, mr = await dep.station("CT1", "CT"), await dep.station("MR1", "MR")
    await dep.scheduled("A1", ct, "2026-09-07T08:15", family="Müller", given="Zoë")
    await dep.scheduled("A2", ct, "2026-09-07T14:00", family="Muller", given="Anna")
    await dep.scheduled("A3", ct, "2026-09-08T09:30", family="Roe", given="Jane")
    await dep.scheduled("A4", mr, "2026-09-09T10:00", modality="MR", family="Doe", given="John")


def find(site: Running, keys: Dataset, **scanner: Any) -> Answers:
    return site.department.scanner(**scanner).find(keys)


def found(site: Running, root: dict[str, str] | None = None, **step: str) -> list[str]:
    """The ids of the patients of the matching tests that a query finds, in the order of the answers."""
    keys = worklist_keys(**step)
    for keyword, value in (root or {}).items():
        setattr(keys, keyword, value)
    answers = find(site, keys)
    assert answers.final.Status == 0x0000
    return [p for p in answers.patients if p.startswith("A")]


def dates(site: Running, date: str, time_: str = "") -> list[str]:
    return found(site, ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time_)


# Matching


def test_c_echo_is_answered(site: Running) -> None:
    assert site.department.scanner().echo() == 0x0000


def test_without_keys_all_steps_come_by_start_time(site: Running) -> None:
    assert found(site) == ["A1", "A2", "A3", "A4"]


def test_a_station_ae_title_matches_exactly_and_not_by_wildcard(site: Running) -> None:
    assert found(site, ScheduledStationAETitle="MR1") == ["A4"]
    assert found(site, ScheduledStationAETitle="MR?") == []
    assert found(site, ScheduledStationAETitle="mr1") == []


def test_a_modality_matches_and_several_mean_any_of_them(site: Running) -> None:
    assert found(site, Modality="MR") == ["A4"]
    assert found(site, Modality="CT\\MR") == ["A1", "A2", "A3", "A4"]
    assert found(site, Modality="US") == []


def test_a_single_date_matches_that_day_in_the_departments_zone(site: Running) -> None:
    assert dates(site, "20260907") == ["A1", "A2"]
    assert dates(site, "2026.09.08") == ["A3"]


def test_date_ranges_include_their_ends_and_may_be_open(site: Running) -> None:
    assert dates(site, "20260907-20260908") == ["A1", "A2", "A3"]
    assert dates(site, "-20260907") == ["A1", "A2"]
    assert dates(site, "20260908-") == ["A3", "A4"]


def test_a_date_range_and_a_time_range_are_one_interval(site: Running) -> None:
    # Matched one by one, the 14:00 step would be outside of 09:00 to 09:45.
    assert dates(site, "20260907-20260908", "0900-0945") == ["A2", "A3"]


def test_a_date_with_a_time_range_is_a_window_of_that_day(site: Running) -> None:
    assert dates(site, "20260907", "0800-1200") == ["A1"]
    assert dates(site, "20260907", "1200-") == ["A2"]


def test_a_time_without_a_date_is_that_time_of_any_day(site: Running) -> None:
    assert dates(site, "", "0900-1030") == ["A3", "A4"]
    assert dates(site, "", "0815") == ["A1"]
    assert dates(site, "", "08:15:00") == ["A1"]


def test_a_time_range_does_not_cross_midnight(site: Running) -> None:
    assert dates(site, "", "2200-0900") == []


def test_names_match_without_case_and_accents(site: Running) -> None:
    assert found(site, {"PatientName": "MULLER^ZOE"}) == ["A1"]
    assert found(site, {"PatientName": "muller"}) == ["A1", "A2"]


def test_a_component_group_that_restricts_nothing_counts_as_absent(site: Running) -> None:
    for wanted in ("Roe*=*", "Roe*=*=*", "Roe^*^*^*^*=*=*", "roe=*^*"):
        assert found(site, {"PatientName": wanted}) == ["A3"], wanted
    assert found(site, {"PatientName": "ZZZ*=*"}) == []
    assert found(site, {"PatientName": "*=*=*"}) == ["A1", "A2", "A3", "A4"]


def test_a_component_group_that_a_name_lacks_says_nothing_of_it(site: Running) -> None:
    def said(name: str) -> list[str]:
        return found(site, {"PatientName": name, "SpecificCharacterSet": "ISO_IR 192"})

    assert said("Roe^*=山田^*") == ["A3"]
    assert said("Smith^*=山田^*") == []
    assert said("=山田^太郎=やまだ^たろう") == []


@pytest.mark.parametrize("family", ["Sørensen", "ŁUKASZ", "Đorđević", "Æbelø", "Żółć", "Παπαδόπουλος", "Жукова", "İğdır", "Weiß"])
@pytest.mark.parametrize("stored_by", ["this version", "an earlier one"])
def test_a_name_is_found_by_what_a_scanner_without_its_letters_shows(site: Running, family: str, stored_by: str) -> None:
    id_ = f"R{next(_numbers)}"

    async def fill(dep: Department) -> None:
        station = await dep.station(f"OT{next(_numbers)}", "OT")
        await dep.scheduled(id_, station, "2031-09-07T08:15", modality="OT", family=family, given="Ada")
        if stored_by == "an earlier one":
            await dep.interactions.store.db[COLLECTION].update_one({"patient_ids": id_}, {"$unset": {"name_keys": 1}})

    site.run(fill(site.department))
    shown = transliterated(family, ASCII)
    assert shown.isascii()
    for wanted in (shown, family, f"{shown[:3]}*^a*", family.lower(), f"{family[:2]}*"):
        keys = worklist_keys(ScheduledProcedureStepStartDate="20310907")
        keys.PatientName, keys.SpecificCharacterSet = wanted, "ISO_IR 192"
        assert id_ in find(site, keys).patients


def test_names_match_with_wildcards(site: Running) -> None:
    assert found(site, {"PatientName": "Mull*"}) == ["A1", "A2"]
    assert found(site, {"PatientName": "*oe*"}) == ["A1", "A3", "A4"]
    assert found(site, {"PatientName": "?oe^J*"}) == ["A3", "A4"]
    assert found(site, {"PatientName": "^Jane"}) == ["A3"]
    assert found(site, {"PatientName": "[RD]oe*"}) == []


def test_many_wildcards_take_no_time(site: Running) -> None:
    begin = time.monotonic()
    assert found(site, {"PatientName": "*a" * 30 + "*b"}) == []
    assert time.monotonic() - begin < 5


def test_a_patient_id_matches_exactly(site: Running) -> None:
    assert found(site, {"PatientID": "A3"}) == ["A3"]
    assert found(site, {"PatientID": "a3"}) == []
    assert found(site, {"PatientID": "A?"}) == []


@pytest.mark.parametrize("keyword", ["AccessionNumber", "RequestedProcedureID", "StudyInstanceUID"])
def test_the_ids_of_order_procedure_and_study_match(site: Running, keyword: str) -> None:
    one = find(site, worklist_keys(ScheduledStationAETitle="MR1")).data[0]
    assert found(site, {keyword: str(getattr(one, keyword))}) == ["A4"]
    assert found(site, {keyword: "1.2.3"}) == []


def test_a_step_id_matches(site: Running) -> None:
    one = find(site, worklist_keys(ScheduledStationAETitle="MR1")).data[0]
    step_id = str(one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID)
    assert found(site, ScheduledProcedureStepID=step_id) == ["A4"]


def test_an_attribute_that_is_unknown_matches_no_value(site: Running) -> None:
    assert found(site, {"AdmissionID": "V1"}) == []


def test_a_star_is_universal(site: Running) -> None:
    assert found(site, {"PatientName": "*", "PatientID": "*"}, ScheduledStationAETitle="*", Modality="*") == [
        "A1",
        "A2",
        "A3",
        "A4",
    ]


def test_descriptions_match_with_wildcards(site: Running) -> None:
    assert len(found(site, {"RequestedProcedureDescription": "CT*"})) == 4
    assert found(site, {"RequestedProcedureDescription": "ct*"}) == []


def test_a_code_sequence_matches_within_one_item(site: Running) -> None:
    keys, code = worklist_keys(ScheduledStationAETitle="MR1"), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", ""
    keys.RequestedProcedureCodeSequence = [code]
    answers = find(site, keys)
    assert answers.patients == ["A4"]
    assert answers.data[0].RequestedProcedureCodeSequence[0].CodeMeaning == "CT Chest"
    code.CodingSchemeDesignator = "SCT"
    assert find(site, keys).data == []


@pytest.mark.parametrize("item", [[], [Dataset()]])
def test_an_empty_step_sequence_matches_all_and_comes_back_whole(site: Running, item: list[Dataset]) -> None:
    keys = Dataset()
    keys.PatientID = "A4"
    keys.ScheduledProcedureStepSequence = item
    answers = find(site, keys)
    assert answers.patients == ["A4"]
    assert len(answers.data[0].ScheduledProcedureStepSequence) == 1
    assert answers.data[0].ScheduledProcedureStepSequence[0].Modality == "MR"


def test_step_keys_beside_the_sequence_are_taken_as_in_it(site: Running) -> None:
    keys = Dataset()
    keys.PatientID = ""
    keys.Modality, keys.ScheduledProcedureStepStartDate = "MR", "20260909"
    answers = find(site, keys)
    assert answers.patients == ["A4"]
    assert answers.data[0].Modality == "MR"
    assert answers.data[0].ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate == "20260909"


def test_keys_that_are_not_supported_are_ignored_and_said_so(site: Running) -> None:
    keys = worklist_keys(ScheduledStationAETitle="MR1")
    assert find(site, keys).statuses == [0xFF00]
    keys.QueryRetrieveLevel = ""
    keys.PatientComments = "nervous"
    answers = find(site, keys)
    assert answers.statuses == [0xFF01]
    assert answers.data[0].PatientComments == ""
    assert answers.data[0].QueryRetrieveLevel == ""


def code_key(**elements: str) -> Dataset:
    keys, code = worklist_keys(ScheduledStationAETitle="MR1"), Dataset()
    for keyword, value in elements.items():
        setattr(code, keyword, value)
    keys.RequestedProcedureCodeSequence = [code]
    return keys


@pytest.mark.parametrize(
    ("elements", "status"),
    [
        ({"CodeValue": "24627-2", "CodingSchemeVersion": "2.74"}, 0xFF01),
        ({"MappingResource": "DCMR"}, 0xFF01),
        ({"CodeValue": "24627-2", "CodingSchemeVersion": "", "MappingResource": ""}, 0xFF00),
    ],
)
def test_keys_of_a_code_that_can_not_be_matched_are_ignored_with_a_warning(
    site: Running, elements: dict[str, str], status: int
) -> None:
    assert find(site, code_key(**elements)).statuses == [status]
    other = find(site, code_key(**elements | {"CodeValue": "1"}))
    assert (other.statuses, other.final.Status) == ([], 0x0000)


def test_a_sequence_key_with_several_items_is_refused(site: Running) -> None:
    keys = code_key(CodeValue="1")
    keys.RequestedProcedureCodeSequence.append(code_key(CodeValue="24627-2").RequestedProcedureCodeSequence[0])
    assert find(site, keys).final.Status == 0xA900


def test_known_but_unfilled_return_keys_are_supported(site: Running) -> None:
    keys = worklist_keys(ScheduledStationAETitle="MR1")
    keys.PregnancyStatus, keys.Allergies, keys.ReferencedStudySequence = None, "", []
    answers = find(site, keys)
    assert answers.statuses == [0xFF00]
    assert "PregnancyStatus" in answers.data[0]


def test_only_what_was_asked_for_comes_back(site: Running) -> None:
    keys, item = Dataset(), Dataset()
    keys.PatientID, keys.AdmissionID = "A4", ""
    item.Modality = ""
    keys.ScheduledProcedureStepSequence = [item]
    data = find(site, keys).data[0]
    assert [e.keyword for e in data] == ["PatientID", "AdmissionID", "ScheduledProcedureStepSequence"]
    assert [e.keyword for e in data.ScheduledProcedureStepSequence[0]] == ["Modality"]
    assert data.AdmissionID == ""


@pytest.mark.parametrize("syntax", [ILLE, ELE])
def test_answers_are_the_same_in_both_transfer_syntaxes(site: Running, syntax: str) -> None:
    answers = find(site, worklist_keys(ScheduledStationAETitle="CT1"), transfer_syntaxes=(syntax,))
    assert answers.patients == ["A1", "A2", "A3"]
    assert answers.data[0].ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime == "081500"


# Refusals


def test_two_step_items_do_not_match_the_sop_class(site: Running) -> None:
    keys = Dataset()
    keys.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
    final = find(site, keys).final
    assert final.Status == 0xA900
    assert "one item" in final.ErrorComment


@pytest.mark.parametrize(("date", "time_"), [("20261332", ""), ("yesterday", ""), ("20260907-2026", ""), ("-", ""), ("", "2561")])
def test_a_malformed_date_or_time_is_refused_with_a_comment(site: Running, date: str, time_: str) -> None:
    final = find(site, worklist_keys(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time_)).final
    assert final.Status == 0xC001
    assert len(final.ErrorComment) > 10


# Character sets


def test_ascii_answers_name_no_character_set(site: Running) -> None:
    assert "SpecificCharacterSet" not in find(site, worklist_keys(ScheduledStationAETitle="MR1")).data[0]


def test_accented_answers_are_in_latin_1(site: Running) -> None:
    data = find(site, worklist_keys(ScheduledProcedureStepStartDate="20260907", ScheduledProcedureStepStartTime="0815")).data[0]
    assert data.SpecificCharacterSet == "ISO_IR 100"
    assert str(data.PatientName) == "Müller^Zoë"


def test_other_scripts_are_in_utf_8_with_their_name_groups(site: Running) -> None:
    async def japanese(dep: Department) -> None:
        extension = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
        names = [
            {"family": "Yamada", "given": ["Tarou"]},
            {"family": "山田", "given": ["太郎"], "extension": [{"url": extension, "valueCode": "IDE"}]},
            {"family": "やまだ", "given": ["たろう"], "extension": [{"url": extension, "valueCode": "SYL"}]},
        ]
        patient = await dep.patient("J1", name=names)
        order = await dep.order(patient)
        await dep.book(order, await dep.station("CT-JP"), "2026-09-07T08:00:00+02:00", "2026-09-07T08:20:00+02:00")

    site.run(japanese(site.department))
    keys = worklist_keys(ScheduledStationAETitle="CT-JP")
    data = find(site, keys).data[0]
    assert data.SpecificCharacterSet == "ISO_IR 192"
    assert data.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    keys.SpecificCharacterSet, keys.PatientName = "ISO_IR 192", "山田*"
    assert len(find(site, keys).data) == 1
    for wanted, finds in (
        ("Yamada*=山田*", True),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("Yamada*=*=*", True),
        ("*=山田^*", True),
        ("=山田^太郎", True),
        ("Yamada*=鈴木*", False),
        ("Suzuki*=山田*", False),
        ("Suzuki*=*", False),
        ("山田*=Yamada*", False),
    ):
        keys.PatientName = wanted
        assert bool(find(site, keys).data) == finds, wanted


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192"])
def test_keys_are_read_in_the_querys_character_set(site: Running, character_set: str) -> None:
    keys = worklist_keys()
    keys.SpecificCharacterSet, keys.PatientName = character_set, "Müller^Zoë"
    assert find(site, keys).patients == ["A1"]


# Long lists


def test_a_list_is_cut_at_the_limit_with_the_earliest_kept(site: Running) -> None:
    async def ask(dep: Department) -> None:
        await dep.station("CT-CUT", preferences={"worklist-limit": 2})
        await dep.station("CT-OVER", preferences={"worklist-limit": 2, "worklist-over-limit": "refuse"})

    site.run(ask(site.department))
    keys = worklist_keys(ScheduledStationAETitle="CT1")
    answers = find(site, keys, ae_title="CT-CUT")
    assert (answers.patients, answers.final.Status) == (["A1", "A2"], 0)
    refused = find(site, keys, ae_title="CT-OVER")
    assert (refused.patients, refused.final.Status) == ([], 0xA700)
    assert "narrow" in refused.final.ErrorComment


def test_a_query_ends_when_the_scanner_cancels_it(site: Running) -> None:
    async def many(dep: Department) -> None:
        rows = dep.interactions.store.db["worklist"]
        row = await rows.find_one({"stations": "MR1"})
        assert row is not None
        row["attributes"]["00400100"]["Value"][0]["00400001"]["Value"] = ["CT-MANY"]
        await rows.insert_many([row | {"_id": f"copy{i}", "stations": ["CT-MANY"], "of": []} for i in range(400)])

    site.run(many(site.department))
    pending, final = 0, None
    with Wire(site.department.server.port, receive_buffer=4096) as wire:
        wire.established()
        wire.ask_worklist(worklist_keys(ScheduledStationAETitle="CT-MANY"), message_id=7)
        responses = wire.messages()
        assert status(next(responses)) == 0xFF00
        told: dict[int, Any] = {command.COMMAND_FIELD: command.C_CANCEL, command.RESPONDED_TO: 7}
        wire.say(1, told)
        for response in responses:
            final = status(response)
            if final != 0xFF00:
                break
            pending += 1
    assert final == 0xFE00
    assert 0 < pending < 400
    site.run(site.department.interactions.store.db["worklist"].delete_many({"stations": "CT-MANY"}))


# What is on the list


def at(site: Running, title: str) -> list[Dataset]:
    return find(site, worklist_keys(ScheduledStationAETitle=title)).data


def test_the_answer_says_what_order_visit_and_catalogue_know(site: Running) -> None:
    async def full(dep: Department) -> None:
        room = await dep.create({"resourceType": "Location", "name": "CT room 2, first floor east"})
        station = await dep.station("CT-FULL", location=ref(room))
        doctor = await dep.create(
            {
                "resourceType": "Practitioner",
                "name": [{"family": "Poe", "given": ["Ann", "B."], "prefix": ["Dr."], "suffix": ["MD"]}],
            }
        )
        ward = await dep.create({"resourceType": "Location", "name": "Ward 7"})
        patient = await dep.patient(
            "F1",
            identifier=[
                {"value": "OTHER", "system": "urn:oid:2.999.7"},
                {"value": "0012", "system": "urn:oid:2.999.1", "type": {"coding": [{"system": V2_0203, "code": "MR"}]}},
            ],
            name=[
                {"use": "usual", "family": "X"},
                {"use": "official", "family": "O=Neil\\", "given": ["Mary", "Sue"], "suffix": ["Jr"]},
            ],
        )
        encounter = await dep.create(
            {
                "resourceType": "Encounter",
                "status": "in-progress",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": ref(patient),
                "identifier": [{"value": "V77", "type": {"coding": [{"system": V2_0203, "code": "VN"}]}}],
                "location": [{"location": ref(ward), "status": "active"}],
            }
        )
        order = await dep.order(
            patient,
            requester=ref(doctor),
            encounter=ref(encounter),
            authoredOn="2026-09-01T10:00:00+02:00",
            identifier=[
                {"value": "PLACER1", "system": "urn:example:ehr", "type": {"coding": [{"system": V2_0203, "code": "PLAC"}]}}
            ],
            code={
                "coding": [{"system": "urn:example:codes", "code": "CT-CHEST-WITH-CONTRAST", "display": "d" * 80}],
                "text": "CT chest\\abdomen " + "x" * 80,
            },
            reasonCode=[
                {"text": "Cough", "coding": [{"system": "http://snomed.info/sct", "code": "49727002", "display": "Cough"}]}
            ],
            note=[{"text": "Please call first"}],
        )
        await dep.book(order, station, "2026-12-01T23:30:00Z", "2026-12-01T23:50:00Z")

    site.run(full(site.department))
    keys = worklist_keys(ScheduledStationAETitle="CT-FULL")
    for keyword in (
        "PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest CurrentPatientLocation "
        "TimezoneOffsetFromUTC ReasonForTheRequestedProcedure ImagingServiceRequestComments IssueDateOfImagingServiceRequest"
    ).split():
        setattr(keys, keyword, "")
    keys.OtherPatientIDsSequence = keys.ReasonForRequestedProcedureCodeSequence = []
    data = find(site, keys).data[0]
    step = data.ScheduledProcedureStepSequence[0]
    assert data.PatientName == "O Neil^Mary^Sue^^Jr"
    assert (data.PatientID, data.IssuerOfPatientID, data.OtherPatientIDsSequence[0].PatientID) == ("0012", "2.999.1", "OTHER")
    assert (data.PatientBirthDate, data.PatientSex) == ("19700304", "F")
    assert data.RequestingPhysician == data.ReferringPhysicianName == "Poe^Ann^B.^Dr.^MD"
    assert (data.AdmissionID, data.CurrentPatientLocation) == ("V77", "Ward 7")
    assert (data.PlacerOrderNumberImagingServiceRequest, data.RequestedProcedurePriority) == ("PLACER1", "HIGH")
    assert data.AccessionNumber.startswith("A")
    assert len(data.RequestedProcedureDescription) == 64
    assert "\\" not in data.RequestedProcedureDescription
    code = data.RequestedProcedureCodeSequence[0]
    assert (code.LongCodeValue, "CodeValue" in code, len(code.CodeMeaning)) == ("CT-CHEST-WITH-CONTRAST", False, 64)
    assert data.ReasonForRequestedProcedureCodeSequence[0].CodeValue == "49727002"
    assert (data.ReasonForTheRequestedProcedure, data.ImagingServiceRequestComments) == ("Cough", "Please call first")
    assert data.IssueDateOfImagingServiceRequest == "20260901"
    # 23:30 UTC is half past midnight of the next day in the department.
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20261202", "003000")
    assert data.TimezoneOffsetFromUTC == "+0100"
    assert (step.ScheduledStationName, step.ScheduledProcedureStepLocation) == ("Scanner CT-FULL", "CT room 2, first")
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"


def test_arrival_shows_and_the_start_takes_the_step_off_the_list(site: Running) -> None:
    async def book(dep: Department) -> Any:
        return await dep.scheduled("L1", await dep.station("CT-LIFE"), "2026-09-07T08:15")

    dep, scheduled = site.department, site.run(book(site.department))
    assert [d.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus for d in at(site, "CT-LIFE")] == ["SCHEDULED"]
    arrived = site.run(dep.update(scheduled.appointment, status="arrived"))
    assert [d.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus for d in at(site, "CT-LIFE")] == ["ARRIVED"]
    step = site.run(dep.read(f"Task/{scheduled.step['id']}"))
    site.run(dep.update(step, status="in-progress"))
    assert at(site, "CT-LIFE") == []
    assert arrived["status"] == "arrived"


def test_a_cancelled_booking_leaves_the_list(site: Running) -> None:
    async def book(dep: Department) -> Any:
        return await dep.scheduled("L2", await dep.station("CT-CANCEL"), "2026-09-07T08:15")

    scheduled = site.run(book(site.department))
    assert len(at(site, "CT-CANCEL")) == 1
    site.run(site.department.update(scheduled.appointment, status="cancelled"))
    assert at(site, "CT-CANCEL") == []


def test_an_order_on_hold_leaves_the_list_and_comes_back_when_released(site: Running) -> None:
    async def book(dep: Department) -> Any:
        return await dep.scheduled("L3", await dep.station("CT-HOLD"), "2026-09-07T08:15")

    dep, scheduled = site.department, site.run(book(site.department))
    held = site.run(dep.update(scheduled.order, status="on-hold"))
    assert at(site, "CT-HOLD") == []
    active = site.run(dep.update(held, status="active"))
    assert len(at(site, "CT-HOLD")) == 1
    site.run(dep.update(active, status="revoked"))
    assert at(site, "CT-HOLD") == []


def test_a_rename_shows_at_once_and_an_inactive_patient_leaves_the_list(site: Running) -> None:
    async def book(dep: Department) -> Any:
        await dep.scheduled("L4", await dep.station("CT-NAME"), "2026-09-07T08:15")
        return (await dep.search("Patient", identifier="L4"))[0]

    dep, patient = site.department, site.run(book(site.department))
    patient = site.run(dep.update(patient, name=[{"family": "Newname", "given": ["Jane"]}]))
    assert [str(d.PatientName) for d in at(site, "CT-NAME")] == ["Newname^Jane"]
    keys = worklist_keys(ScheduledStationAETitle="CT-NAME")
    keys.PatientName = "newname*"
    assert len(find(site, keys).data) == 1
    patient = site.run(dep.update(patient, active=False))
    assert at(site, "CT-NAME") == []
    site.run(dep.update(patient, active=True))
    assert len(at(site, "CT-NAME")) == 1


def test_renames_that_come_at_once_all_show_and_their_rows_are_looked_for_together(site: Running) -> None:
    """Changes that share a transaction; patients without a step among them."""

    async def rename(dep: Department) -> tuple[int, int]:
        station = await dep.station("CT-MANY")
        for n in range(6):
            await dep.scheduled(f"MANY{n}", station, f"2026-09-07T{8 + n:02d}:15")
        for n in range(6, 12):
            await dep.patient(f"MANY{n}")
        patients = [(await dep.search("Patient", identifier=f"MANY{n}"))[0] for n in range(12)]
        await dep.interactions.store.db.command("profile", 2)
        await asyncio.gather(*(dep.update(p, name=[{"family": f"Renamed{n}"}]) for n, p in enumerate(patients)))
        await dep.interactions.store.db.command("profile", 0)
        profile = dep.interactions.store.db["system.profile"]
        looks = await profile.count_documents({"command.find": COLLECTION})
        await profile.drop()
        return looks, len(patients)

    looks, changed = site.run(rename(site.department))
    shown = {(str(d.PatientID), str(d.PatientName)) for d in at(site, "CT-MANY")}
    assert shown == {(f"MANY{n}", f"Renamed{n}") for n in range(6)}
    assert len(at(site, "CT-MANY")) == 6
    assert looks < changed


def test_a_station_that_is_renamed_takes_its_steps_along(site: Running) -> None:
    async def book(dep: Department) -> Any:
        station = await dep.station("CT-OLD")
        await dep.scheduled("L5", station, "2026-09-07T08:15")
        return await dep.update(station, identifier=[{"system": terms.AE_TITLE, "value": "CT-NEW"}])

    site.run(book(site.department))
    assert at(site, "CT-OLD") == []
    assert len(at(site, "CT-NEW")) == 1


def test_a_step_that_is_scheduled_without_an_appointment_is_on_the_list_at_once(site: Running) -> None:
    async def schedule(dep: Department) -> None:
        station = await dep.station("CT-WALKIN")
        scheduled = await dep.scheduled_of(await dep.order(await dep.patient("L6")))
        period = {"start": "2026-09-07T08:15:00+02:00"}
        await dep.update(scheduled.step, status="ready", owner=ref(station), restriction={"period": period})

    site.run(schedule(site.department))
    assert [str(d.PatientID) for d in at(site, "CT-WALKIN")] == ["L6"]


def test_a_change_that_no_row_depends_on_costs_no_access(site: Running) -> None:
    rows = WorklistRows(ZONE)
    changes = [
        Change("Observation", "1", None, {"resourceType": "Observation"}),
        Change("Patient", "1", None, {"resourceType": "Patient", "id": "1"}),
        Change(
            "Patient", "1", {"resourceType": "Patient", "telecom": []}, {"resourceType": "Patient", "telecom": [{"value": "1"}]}
        ),
        Change("Task", "1", None, {"resourceType": "Task", "intent": "order", "status": "accepted"}),
        Change("Task", "1", None, {"resourceType": "Task", "intent": "plan", "status": "requested"}),
    ]
    site.run(rows.project(cast("UnitOfWork", None), changes))


# Who may call, and what is recorded


def test_what_was_asked_and_shown_is_in_the_audit_trail(site: Running) -> None:
    find(site, worklist_keys(ScheduledStationAETitle="MR1"), ae_title="MR1")
    events = site.run(site.department.search("AuditEvent", subtype="worklist"))
    (patient,) = site.run(site.department.search("Patient", identifier="A4"))
    mine = next(e for e in events if e["agent"][0]["who"]["display"] == "dicom:MR1")
    assert mine["agent"][0]["network"]["address"] == "127.0.0.1"
    assert [e["what"]["reference"] for e in mine["entity"] if "what" in e] == [f"Patient/{patient['id']}"]
    assert any("query" in e for e in mine["entity"])


def test_an_unknown_caller_is_refused_and_recorded_until_it_is_registered(site: Running) -> None:
    assert site.department.scanner("STRANGER").refused() == (1, 3)
    time.sleep(0.2)
    events = site.run(site.department.search("AuditEvent", type="dicom", outcome="4"))
    assert any(e["agent"][0]["who"]["display"] == "dicom:STRANGER" for e in events)
    station = site.run(site.department.station("STRANGER", "US"))
    time.sleep(1.1)
    assert site.department.scanner("STRANGER").echo() == 0x0000
    site.run(site.department.update(station, status="inactive"))
    time.sleep(1.1)
    assert site.department.scanner("STRANGER").refused() == (1, 3)


def test_a_call_for_somebody_else_is_refused(site: Running) -> None:
    assert site.department.scanner(called="OTHER_PACS").refused() == (1, 7)


def test_anybody_may_call_while_no_station_is_registered(run_with_db: RunWithDb[None]) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            assert await blocking(dep.scanner("ANYBODY").echo) == 0x0000

    run_with_db(scenario)


def test_stopping_takes_less_than_three_seconds_with_an_association_open(run_with_db: RunWithDb[None]) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            association = await blocking(dep.scanner("ANYBODY").associate)
            # A peer that neither reads nor closes.
            silent = socket.create_connection(("127.0.0.1", dep.server.port))
            begin = time.monotonic()
            await dep.server.stop()
            assert time.monotonic() - begin < 3
            assert not dep.server.listening
            silent.close()
            await blocking(association.kill)

    run_with_db(scenario)


def test_a_port_in_use_is_said_in_one_line(site: Running) -> None:
    server = DicomServer(site.department.interactions, DicomSettings("127.0.0.1", site.department.server.port, OUR_TITLE, ZONE))
    with pytest.raises(DicomServerError, match=r"^DICOM can't listen on 127\.0\.0\.1:\d+: Address already in use$"):
        site.run(server.start())
    assert not server.listening


def test_rubbish_and_endless_pdus_end_their_own_connection_only(site: Running) -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00" + struct.pack(">I", 2**31), b"\x01\x00\x00\x00\x00\x04abcd"):
        with socket.create_connection(("127.0.0.1", site.department.server.port), timeout=5) as connection:
            connection.sendall(rubbish)
            while connection.recv(4096):
                pass
    assert site.department.scanner().echo() == 0x0000


def test_dcmtk_finds_the_same(site: Running) -> None:
    findscu = shutil.which("findscu")
    if findscu is None:
        pytest.skip("DCMTK's findscu is not installed")
    keys = ["PatientID", "ScheduledProcedureStepSequence[0].ScheduledStationAETitle=MR1"]
    command = [findscu, "-v", "-W", "-aet", "CT1", "-aec", OUR_TITLE, "127.0.0.1", str(site.department.server.port)]
    done = subprocess.run(command + [a for k in keys for a in ("-k", k)], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout + done.stderr).count("[A4") == 1


def test_dcmtk_echoes(site: Running) -> None:
    echoscu = shutil.which("echoscu")
    if echoscu is None:
        pytest.skip("DCMTK's echoscu is not installed")
    where = ["127.0.0.1", str(site.department.server.port)]
    subprocess.run([echoscu, "-aet", "CT1", "-aec", OUR_TITLE, *where], capture_output=True, timeout=30, check=True)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom, of what it reads
def test_damaged_identifiers_cost_a_status_and_harm_nobody(site: Running) -> None:
    whole, chance = (
        encoded(worklist_keys(ScheduledStationAETitle="MR1", ScheduledProcedureStepStartDate="20260909")),
        random.Random(5),
    )
    seen = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        seen.add(_status_of(site, bytes(damaged)))
    assert 0x0000 in seen
    assert seen & {0xA900, 0xC001}
    assert seen <= {0x0000, 0xA900, 0xC001}
    assert site.department.scanner().echo() == 0x0000


def _status_of(site: Running, identifier: bytes) -> int:
    """The final status of a C-FIND with these bytes as its identifier."""
    with Wire(site.department.server.port) as wire:
        wire.established()
        told: dict[int, Any] = {
            command.AFFECTED_SOP_CLASS: WORKLIST,
            command.COMMAND_FIELD: command.C_FIND,
            command.MESSAGE_ID: 1,
        }
        wire.say(1, told, identifier)
        return next(s for m in wire.messages() if (s := status(m)) not in {0xFF00, 0xFF01})


def test_identifiers_that_are_made_to_be_expensive_are_refused(site: Running) -> None:
    many = worklist_keys()
    many.PatientName = "\\".join(f"A*{n}*" for n in range(1000))
    dates = worklist_keys(
        ScheduledProcedureStepStartDate="\\".join(["20260907"] * 50), ScheduledProcedureStepStartTime="08\\09\\10"
    )
    long = worklist_keys()
    long.PatientComments = "x" * 300_000
    deep = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ScheduledProcedureStepSequence = [deep]
        deep = outer
    for keys in (many, dates, long, deep):
        assert _status_of(site, encoded(keys)) == 0xA900


@pytest.mark.parametrize(
    "values", [["a?b*" * 600], [f"*{n}*" for n in range(60)], ["x" * 1025]], ids=["long pattern", "many values", "long value"]
)
def test_wild_cards_longer_or_more_than_any_scanner_needs_are_refused(site: Running, values: list[str]) -> None:
    keys = worklist_keys()
    keys.PatientName = "\\".join(v[:330] for v in values)
    assert _status_of(site, encoded(keys)) == 0xA900
    keys = worklist_keys()
    keys.ScheduledProcedureStepSequence[0].add_new(0x00400007, "LO", "\\".join(values))
    assert _status_of(site, encoded(keys)) == 0xA900


def test_wild_cards_match_as_any_run_and_any_one_character() -> None:
    chance = random.Random(8)
    for _ in range(20_000):
        key = "".join(chance.choice("ab?*") for _ in range(chance.randrange(8)))
        text = "".join(chance.choice("ab") for _ in range(chance.randrange(8)))
        assert matcher(key)(text) is (fnmatch.fnmatchcase(text, key)), (key, text)


def test_others_get_their_turn_while_the_rows_of_a_query_are_looked_at(run_with_db: RunWithDb[None]) -> None:
    turns, seen = 0, set[int]()

    class Slow(WorklistQuery):
        def matches(self, attributes: Any) -> bool:
            seen.add(turns)
            return super().matches(attributes)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.scheduled("A1", await dep.station("CT1"), "2026-09-07T08:15")
            row = await db[COLLECTION].find_one({})
            # As many as come in one batch, during which nothing waits for the database.
            await db[COLLECTION].insert_many([row | {"_id": f"copy{n}"} for n in range(99)])
            query = Slow.of({tag("PatientName"): {"vr": "PN", "Value": [{"Alphabetic": "*x*"}]}})
            ticking = asyncio.create_task(count())
            assert [row async for row in worklist._rows(db, query, {})] == []
            ticking.cancel()

    run_with_db(scenario)
    assert len(seen) >= 4


def test_kept_answers_stay_with_their_query_when_somebody_makes_up_thousands_of_shapes() -> None:
    answers, preferences, version = worklist_answers.Answers(), worklist_preferences.of({}), ObjectId()
    slow = answers.kind(("A",), preferences, explicit=False)  # it waits for the database
    others = [answers.kind(("B", n), preferences, explicit=True) for n in range(2_100)]
    slow.put("step", version, {tag("PatientID"): {"vr": "LO", "Value": ["P1"]}})
    assert [kind.get("step", version) for kind in others] == [None] * len(others)


def test_extended_negotiation_is_answered_with_what_is_not_done(site: Running) -> None:
    with Wire(site.department.server.port) as wire:
        accept = wire.established(user=UserInformation(16384, "2.25.1", extended={WORKLIST: b"\1\1\1\1"}))
    assert accept.user.extended == {WORKLIST: b"\1\1\0\0"}


def test_several_steps_of_one_procedure_are_several_answers(site: Running) -> None:
    async def second(dep: Department) -> None:
        station = await dep.station("CT-TWO")
        one = await dep.scheduled("T1", station, "2026-09-07T08:15")
        copy = {k: v for k, v in one.step.items() if k not in {"id", "meta", "identifier", "businessStatus"}}
        copy["input"] = [i for i in copy["input"] if not has_code(i["type"], terms.TASK_DETAIL, "appointment")]
        period = {"start": "2026-09-07T10:15:00+02:00"}
        await dep.create(copy | {"restriction": {"period": period}, "status": "accepted", "owner": ref(station)})

    site.run(second(site.department))
    answers = at(site, "CT-TWO")
    assert [len(d.ScheduledProcedureStepSequence) for d in answers] == [1, 1]
    assert len({d.StudyInstanceUID for d in answers}) == 1
    assert len({d.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for d in answers}) == 2
