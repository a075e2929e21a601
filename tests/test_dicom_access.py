"""Who may connect: by AE title, address and certificate of the Device, and what each refusal is; what a scanner may see."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridges.dicom.server import DicomServer, DicomServerError, DicomSettings
from bridges.dicom.stations import CALLING_TITLE_UNKNOWN, Stations
from bridges.dicom.upper_layer import requestor
from bridges.dicom.upper_layer.messages import Message
from bridges.dicom.upper_layer.pdu import AssociateRequest
from bridges.dicom.upper_layer.requestor import VERIFICATION, CallFailed, Client, Remote
from bridges.dicom.upper_layer.services import Peer
from fhir_server import app, clock
from fhir_server.outcome import FhirError
from fhir_server.references import ref
from fhir_server.settings import load_settings
from fhir_server.start_error import StartError
from fhir_server.store import Store
from fhir_server.tls_files import TlsFiles
from resources import terms, worklist_preferences
from resources.worklist_preferences import EXTENSIONS, PREFIX
from tests.conftest import RunWithDb
from tests.dicom_client import OUR_TITLE, Department, Running, department, running_department, worklist_keys
from tests.dicom_tls import Authority
from tests.dicom_wire import Wire, status


@pytest.fixture(scope="module")
def site(mongodb_uri: str) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        running.run(_fill(running.department))
        yield running


async def _fill(dep: Department) -> None:
    """Two rooms; CT1 and CT2 in one, MR1 in the other; a step of each on the same day, and one today."""
    one, two = [await dep.create({"resourceType": "Location", "name": n}) for n in ("Room 1", "Room 2")]
    for title, modality, room, patient in (("CT1", "CT", one, "A1"), ("CT2", "CT", one, "A2"), ("MR1", "MR", two, "A3")):
        station = await dep.station(title, modality, location=ref(room))
        await dep.scheduled(patient, station, "2026-09-07T08:15", modality=modality)
    today = clock.now().astimezone(ZoneInfo("Europe/Amsterdam"))
    order = await dep.order(await dep.patient("TODAY"))
    start = today.replace(hour=12, minute=0, second=0, microsecond=0)
    await dep.book(order, await dep.station("CT-TODAY"), start.isoformat(), (start + dt.timedelta(minutes=20)).isoformat())
    for view in worklist_preferences.VIEWS:
        await dep.station(f"V-{view}"[:16].upper(), "CT", preferences={"worklist-view": view}, location=ref(one))


# Addresses, titles, numbers


@pytest.mark.parametrize(
    ("networks", "let_in"),
    [(["127.0.0.1"], True), (["10.0.0.0/8", "127.0.0.0/8"], True), (["10.0.0.0/8"], False), (["::1"], False)],
)
def test_a_scanner_may_call_from_its_addresses_only(site: Running, networks: list[str], let_in: bool) -> None:
    title = f"ADR{abs(hash(tuple(networks))) % 10**8}"
    site.run(site.department.station(title, preferences={"dicom-address": networks}))
    if let_in:
        assert site.department.scanner(title).echo() == 0
    else:
        assert site.department.scanner(title).refused() == (1, 3)
        time.sleep(0.3)
        events = site.run(site.department.search("AuditEvent", type="dicom", outcome="4"))
        mine = [e for e in events if e["agent"][0]["who"]["display"] == f"dicom:{title}"]
        assert mine[0]["outcomeDesc"] == "the calling AE title may not call from this address"


@pytest.mark.parametrize(("address", "let_in"), [("127.0.0.1", True), ("::1", True), ("192.0.2.7", False)])
def test_before_any_scanner_is_registered_only_this_machine_may_call(run_with_db: RunWithDb, address: str, let_in: bool) -> None:
    async def scenario(db: Any) -> None:
        stations = Stations(Store(db), OUR_TITLE, 0)
        verdict = await stations.admit(AssociateRequest(OUR_TITLE, "ANYBODY", ()), Peer(address))
        assert (verdict != CALLING_TITLE_UNKNOWN) is let_in

    run_with_db(scenario)


def test_making_the_last_scanner_inactive_lets_nobody_in(run_with_db: RunWithDb[None]) -> None:
    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            await dep.update(await dep.station("CT1"), status="inactive")
            stations = Stations(dep.interactions.store, OUR_TITLE, 0)
            for title in ("CT1", "ANYBODY"):
                assert await stations.admit(AssociateRequest(OUR_TITLE, title, ()), Peer("127.0.0.1")) == CALLING_TITLE_UNKNOWN

    run_with_db(scenario)


@pytest.mark.parametrize(
    "change",
    [{"status": "inactive"}, {"extension": [{"url": PREFIX + "dicom-address", "valueString": "10.0.0.0/8"}]}],
    ids=["inactive", "another address"],
)
def test_a_scanner_that_may_no_longer_call_loses_its_open_association(site: Running, change: dict[str, Any]) -> None:
    title = f"OPEN{len(change.get('status', ''))}"
    station = site.run(site.department.station(title))
    association = site.department.scanner(title).associate()
    assert association.send_c_echo().Status == 0
    site.run(site.department.update(station, **change))
    time.sleep(1.2)  # so long what was read of it serves
    assert "Status" not in association.send_c_echo()
    association.join(5)
    assert not association.is_established


def test_a_change_of_its_device_is_in_effect_on_the_open_association(site: Running) -> None:
    station = site.run(site.department.station("CHANGED"))
    with Wire(site.department.server.port) as wire:
        wire.established("CHANGED")
        keys = worklist_keys(ScheduledProcedureStepStartDate="20260907")
        wire.ask_worklist(keys)
        assert sum(status(m) == 0xFF00 for m in _answers(wire)) == 3
        limit = {"url": PREFIX + "worklist-limit", "valueInteger": 1}
        site.run(site.department.update(station, extension=[limit]))
        time.sleep(1.2)
        wire.ask_worklist(keys)
        assert sum(status(m) == 0xFF00 for m in _answers(wire)) == 1


def _answers(wire: Wire) -> Iterator[Message]:
    for message in wire.messages():
        yield message
        if status(message) == 0:
            return


def test_a_wrong_called_title_is_let_pass_for_a_scanner_that_can_not_do_better(site: Running) -> None:
    site.run(site.department.station("ANYTITLE", preferences={"dicom-any-called-title": True}))
    assert site.department.scanner("ANYTITLE", called="OLD_RIS").echo() == 0
    assert site.department.scanner("CT1", called="OLD_RIS").refused() == (1, 7)


def test_a_scanner_has_as_many_associations_as_its_device_allows(site: Running) -> None:
    site.run(site.department.station("FEW", preferences={"dicom-associations": 2}))
    held = [site.department.scanner("FEW").associate() for _ in range(2)]
    assert site.department.scanner("FEW").refused() == (2, 2)
    assert site.department.scanner("CT1").echo() == 0
    for association in held:
        association.release()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dicom-address", "hospital"), ("dicom-certificate", "abc"), ("worklist-view", "mine"), ("worklist-days-back", -1),
        ("worklist-limit", 0), ("worklist-over-limit", "panic"), ("character-set", "latin1"), ("name-groups", "two"),
        ("name-length", 3), ("empty-sequences", "maybe"), ("dicom-associations", 0), ("query-character-set", "x"),
    ],
)  # fmt: skip
def test_a_preference_that_means_nothing_is_refused_with_what_it_may_be(site: Running, name: str, value: Any) -> None:
    with pytest.raises(FhirError, match=name) as refused:
        site.run(site.department.station("WRONG", preferences={name: value}))
    assert EXTENSIONS[name].allowed in refused.value.issues[0].diagnostics


@pytest.mark.parametrize("name", ["dicom-adress", "worklist-veiw", "charset"])
def test_a_misspelt_preference_is_refused_with_those_that_there_are(site: Running, name: str) -> None:
    misspelt = [{"url": PREFIX + name, "valueString": "10.1.2.0/24"}]
    with pytest.raises(FhirError, match=name) as refused:
        site.run(site.department.station("MISSPELT", extension=misspelt))
    for known in ("urn:fhir-ris:dicom-address", "urn:fhir-ris:mpps-checks"):
        assert known in refused.value.issues[0].diagnostics


def test_a_preference_that_comes_twice_is_refused(site: Running) -> None:
    twice = {
        "resourceType": "Device",
        "identifier": [{"system": terms.AE_TITLE, "value": "TWICE"}],
        "extension": [{"url": PREFIX + "worklist-limit", "valueInteger": n} for n in (1, 2)],
    }
    with pytest.raises(FhirError, match="comes once"):
        site.run(site.department.create(twice))


def test_tls_settings_that_can_not_be_used_stop_the_start_with_their_names(tmp_path: Path) -> None:
    cert, key, _ = Authority(tmp_path).issue("ris")
    with pytest.raises(StartError, match="RIS_DICOM_TLS_KEY needs RIS_DICOM_TLS_CERT"):
        app._dicom_settings(load_settings(dicom_tls_key=key))
    with pytest.raises(StartError, match="RIS_DICOM_TLS_CERT and RIS_DICOM_TLS_KEY are no certificate with its key"):
        app._dicom_settings(load_settings(dicom_tls_cert=key, dicom_tls_key=cert))
    assert app._dicom_settings(load_settings(dicom_tls_cert=cert, dicom_tls_key=key)).tls is not None
    assert app._dicom_settings(load_settings()).tls is None


# Views and days


def patients(site: Running, title: str, **step: str) -> set[str]:
    found = site.department.scanner(title).find(worklist_keys(**step))
    assert found.final.Status == 0
    return set(found.patients)


@pytest.mark.parametrize(
    ("view", "seen"),
    [
        ("everything", {"A1", "A2", "A3", "TODAY"}),
        ("station", set()),
        ("modality", {"A1", "A2", "TODAY"}),
        ("location", {"A1", "A2"}),
    ],
)
def test_a_scanner_sees_what_its_view_shows_whatever_it_asks_for(site: Running, view: str, seen: set[str]) -> None:
    title = f"V-{view}"[:16].upper()
    assert patients(site, title) == seen
    assert patients(site, title, ScheduledStationAETitle="MR1") == seen & {"A3"}


def test_a_list_without_a_date_is_for_the_days_around_today(site: Running) -> None:
    site.run(site.department.station("DAYS", preferences={"worklist-days-back": 1, "worklist-days-ahead": 1}))
    assert patients(site, "DAYS") == {"TODAY"}
    assert patients(site, "DAYS", ScheduledProcedureStepStartDate="20260907") == {"A1", "A2", "A3"}
    assert patients(site, "DAYS", ScheduledProcedureStepStartTime="0800-0900") == set()
    keys = worklist_keys()
    keys.PatientID = "A1"
    assert site.department.scanner("DAYS").find(keys).patients == ["A1"]
    keys.PatientID, keys.PatientName = "", "Roe*"
    assert len(site.department.scanner("DAYS").find(keys).patients) == 4


def test_answers_are_in_the_scanners_character_set(site: Running) -> None:
    async def fill(dep: Department) -> None:
        station = await dep.station("CT-RU", preferences={"character-set": "ISO_IR 144"})
        await dep.station("CT-OLD", preferences={"character-set": "ISO_IR 6"})
        await dep.station("CT-144", preferences={"query-character-set": "ISO_IR 144"})
        await dep.scheduled("RU1", station, "2026-09-07T10:15", family="Люксембург", given="Роза")

    site.run(fill(site.department))
    keys = worklist_keys(ScheduledStationAETitle="CT-RU")
    for title, declared, name in (("CT-RU", "ISO_IR 144", "Люксембург^Роза"), ("CT-OLD", None, "Lyuksemburg^Roza")):
        (data,) = site.department.scanner(title).find(keys).data
        assert (data.get("SpecificCharacterSet"), str(data.PatientName)) == (declared, name)
    undeclared = worklist_keys()
    undeclared.PatientName = "Люксембург".encode("iso8859-5")
    assert site.department.scanner("CT-144").find(undeclared).patients == ["RU1"]


# TLS


def test_a_certificate_that_is_replaced_is_shown_from_then_on(run_with_db: RunWithDb[None], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key, before = authority.issue("ris")
    trusted = ssl.create_default_context(cafile=str(authority.file))

    async def scenario(db: Any) -> None:
        async with department(db, tls=TlsFiles(cert, key)) as dep:
            await dep.station("ANY")
            remote = Remote("127.0.0.1", dep.server.tls_port, OUR_TITLE, "ANY", trusted)

            def shown(client: Client) -> str:
                transport = client.association.provider.transport
                assert transport is not None
                return hashlib.sha256(transport.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest()

            async with requestor.associate(remote, [VERIFICATION], timeout=10) as open_one:
                assert shown(open_one) == before
                *_, after = authority.issue("ris")
                async with asyncio.timeout(60):
                    while True:
                        with contextlib.suppress(CallFailed):  # in the moment in which it listens anew
                            async with requestor.associate(remote, [VERIFICATION], timeout=10) as client:
                                if shown(client) == after:
                                    break
                        await asyncio.sleep(0.1)
                assert await open_one.echo() == 0

    run_with_db(scenario)


def test_one_port_is_not_both_plain_and_for_tls(run_with_db: RunWithDb[None], tmp_path: Path) -> None:
    cert, key, _ = Authority(tmp_path).issue("ris")

    async def scenario(db: Any) -> None:
        async with department(db) as dep:
            settings = DicomSettings("127.0.0.1", 0, OUR_TITLE, ZoneInfo("UTC"), tls=TlsFiles(cert, key))
            taken = replace(settings, tls_port=dep.server.port)
            with pytest.raises(DicomServerError, match="in use"):
                await DicomServer(dep.server.interactions, taken).start()
            free = dep.server.port
            await dep.server.stop()
            with pytest.raises(DicomServerError, match="in use"):
                await DicomServer(dep.server.interactions, replace(settings, port=free, tls_port=free)).start()

    run_with_db(scenario)


def test_over_tls_a_scanner_is_known_by_its_certificate(run_with_db: RunWithDb[None], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("ris")
    files = TlsFiles(cert, key, authority.file)

    def context(name: str | None) -> tuple[ssl.SSLContext, str]:
        made, fingerprint = ssl.create_default_context(cafile=str(authority.file)), ""
        if name is not None:
            own_cert, own_key, fingerprint = authority.issue(name)
            made.load_cert_chain(own_cert, own_key)
        return made, fingerprint

    async def call(dep: Department, title: str, tls: ssl.SSLContext | None) -> int:
        remote = Remote("127.0.0.1", dep.server.tls_port if tls else dep.server.port, OUR_TITLE, title, tls)
        async with requestor.associate(remote, [VERIFICATION], timeout=10) as client:
            return await client.echo()

    async def refused(dep: Department, title: str, tls: ssl.SSLContext | None, why: str) -> None:
        with pytest.raises(CallFailed, match=why):
            await call(dep, title, tls)

    async def scenario(db: Any) -> None:
        async with department(db, tls=files) as dep:
            one, fingerprint = context("ct1")
            other, _ = context("other")
            nobody, _ = context(None)
            await dep.station("BYPRINT", preferences={"dicom-certificate": f"sha256:{fingerprint.upper()}"})
            await dep.station("BYNAME", preferences={"dicom-certificate": ["CN=nobody", "CN=ct1"]})
            await dep.station("BYDNS", preferences={"dicom-certificate": "DNS=ct1.example"})
            await dep.station("ANY")
            for title in ("BYPRINT", "BYNAME", "BYDNS"):
                assert await call(dep, title, one) == 0
                await refused(dep, title, other, "result 1, source 1, reason 3")
                await refused(dep, title, None, "result 1, source 1, reason 3")
            assert await call(dep, "ANY", other) == 0
            assert await call(dep, "ANY", None) == 0
            await refused(dep, "ANY", nobody, "no connection|lost|aborted")

    run_with_db(scenario)
