"""Performed steps that are forwarded to a PACS: in order, under their own UID, whatever the PACS does meanwhile."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bridges.dicom.mpps_delivery import MppsDelivery, Timing
from fhir_server import outbox
from fhir_server.references import ref
from fhir_server.tls_files import TlsFiles
from tests.dicom_client import Resource, Running, mpps, mpps_end, running_department
from tests.dicom_tls import Authority
from tests.pacs import StepTaker, taking_steps
from tests.test_dicom_availability import endpoint

QUICK = Timing(look=0.05, first_pause=0.05, longest_pause=0.1, answer=5)


@pytest.fixture
def taker() -> Iterator[StepTaker]:
    with taking_steps() as running:
        yield running


@pytest.fixture
def site(mongodb_uri: str) -> Iterator[Running]:
    with running_department(mongodb_uri) as running:
        running.run(running.department.station("CT1"))
        running.run(outbox.ensure_indexes(running.department.interactions.store))
        yield running


@pytest.fixture
def delivering(site: Running) -> Iterator[None]:
    stack = AsyncExitStack()
    site.run(stack.enter_async_context(MppsDelivery(site.department.interactions, "FHIR_RIS", QUICK).running()))
    yield
    site.run(stack.aclose())


def to(site: Running, port: int, title: str = "PACS", **more: Any) -> Resource:
    return site.run(site.department.create(endpoint("dicom-mpps", f"dicom://{title}@127.0.0.1:{port}", **more)))


def perform(site: Running, *, name: str = "Roe^Jane", end: bool = True) -> str:
    uid, data = str(generate_uid(prefix=None)), mpps(None, patient_id="P1")
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = name
    data.add_new(0x00091010, "LO", "private")
    scanner = site.department.scanner()
    assert scanner.create(data, uid)[0].Status == 0x0000
    if end:
        assert scanner.set(mpps_end(), uid).Status == 0x0000
    return uid


def messages(site: Running, **where: Any) -> list[Resource]:
    async def work() -> list[Resource]:
        return await site.department.interactions.store.db[outbox.COLLECTION].find(where, sort=[("key", 1)]).to_list()

    return site.run(work())


def until(site: Running, states: list[str]) -> list[Resource]:
    deadline = time.monotonic() + 60
    while [m["state"] for m in messages(site)] != states:
        assert time.monotonic() < deadline, [(m["type"], m["state"], m.get("error")) for m in messages(site)]
        time.sleep(0.05)
    return messages(site)


def test_both_messages_reach_the_pacs_in_order_as_they_were_sent(site: Running, taker: StepTaker, delivering: None) -> None:
    to(site, taker.port)
    uid = perform(site, name="Müller^Zoë=山田^太郎")
    until(site, ["delivered", "delivered"])
    assert [(operation, u) for operation, u, _ in taker.received] == [("N-CREATE", uid), ("N-SET", uid)]
    begin, end = (data for _, _, data in taker.received)
    assert str(begin.PatientName) == "Müller^Zoë=山田^太郎"
    assert begin.PerformedProcedureStepStatus == "IN PROGRESS"
    assert begin.ScheduledStepAttributesSequence[0].AccessionNumber in {"", None}
    assert end.PerformedProcedureStepStatus == "COMPLETED"
    assert len(end.PerformedSeriesSequence[0].ReferencedImageSequence) == 3
    assert "PatientID" not in end


def test_over_tls_both_sides_know_each_other(site: Running, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("pacs")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    own_cert, own_key, _ = authority.issue("ris")

    def deliver(files: TlsFiles) -> AsyncExitStack:
        stack = AsyncExitStack()
        running = MppsDelivery(site.department.interactions, "FHIR_RIS", QUICK, files).running()
        site.run(stack.enter_async_context(running))
        return stack

    with taking_steps(tls=context) as pacs:
        endpoint_ = endpoint("dicom-mpps", f"dicoms://PACS@127.0.0.1:{pacs.port}")
        site.run(site.department.create(endpoint_))
        uid = perform(site)
        for stranger in (TlsFiles(), TlsFiles(None, None, authority.file)):  # who doesn't trust it, and whom it doesn't know
            stack = deliver(stranger)
            time.sleep(0.5)
            site.run(stack.aclose())
            assert [m["state"] for m in messages(site)] == ["pending", "pending"]
        assert messages(site)[0]["attempts"] > 0
        stack = deliver(TlsFiles(own_cert, tmp_path / "gone.key", authority.file))
        deadline = time.monotonic() + 60
        while "_CERT, _KEY and _CA can't be read" not in str(messages(site)[0].get("error")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        site.run(stack.aclose())
        stack = deliver(TlsFiles(own_cert, own_key, authority.file))
        until(site, ["delivered", "delivered"])
        site.run(stack.aclose())
        assert [(operation, u) for operation, u, _ in pacs.received] == [("N-CREATE", uid), ("N-SET", uid)]


def test_nothing_is_forwarded_when_the_step_was_refused(site: Running, taker: StepTaker, delivering: None) -> None:
    to(site, taker.port)
    data = mpps(None)
    del data.Modality
    assert site.department.scanner().create(data, "1.2.3")[0].Status == 0x0120
    assert messages(site) == []


def test_a_pacs_that_is_away_gets_everything_in_order_once_it_is_back(site: Running, delivering: None) -> None:
    with taking_steps() as gone:
        port = gone.port
    to(site, port)
    uid = perform(site)
    deadline = time.monotonic() + 60
    while not any(m["attempts"] for m in messages(site)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with taking_steps(port=port) as back:
        until(site, ["delivered", "delivered"])
        assert [(operation, u) for operation, u, _ in back.received] == [("N-CREATE", uid), ("N-SET", uid)]


def test_what_a_pacs_refuses_is_set_aside_after_a_few_tries(site: Running, taker: StepTaker, delivering: None) -> None:
    to(site, taker.port)
    taker.statuses = [0x0110]
    perform(site, end=False)
    (message,) = until(site, ["refused"])
    assert message["attempts"] == QUICK.refusals
    assert message["error"].startswith("0110")
    assert len(taker.received) == QUICK.refusals


def test_a_warning_is_no_refusal(site: Running, taker: StepTaker, delivering: None) -> None:
    to(site, taker.port)
    taker.statuses = [0x0107]
    perform(site)
    until(site, ["delivered", "delivered"])


def test_a_beginning_that_the_pacs_has_already_is_delivered(site: Running, taker: StepTaker, delivering: None) -> None:
    to(site, taker.port)
    taker.statuses = [0x0111]
    perform(site, end=False)
    until(site, ["delivered"])
    assert len(taker.received) == 1


def test_a_pacs_that_is_away_delays_no_other(site: Running, taker: StepTaker, delivering: None) -> None:
    with taking_steps() as gone:
        port = gone.port
    away, there = to(site, port), to(site, taker.port)
    perform(site)
    deadline = time.monotonic() + 60
    while len(messages(site, state="delivered")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pending = [m["destination"] for m in messages(site, state="pending")]
    assert pending == [f"dicom:{ref(away)['reference']}"] * 2
    assert f"dicom:{ref(there)['reference']}" not in pending


def test_a_step_is_not_sent_back_to_where_it_came_from(site: Running, taker: StepTaker) -> None:
    to(site, taker.port, title="CT1")
    perform(site)
    assert messages(site) == []


def test_an_endpoint_that_is_off_keeps_its_messages(site: Running, taker: StepTaker, delivering: None) -> None:
    where = to(site, taker.port)
    taker.statuses = [0x0000]

    async def off(status: str) -> None:
        found = await site.department.read(ref(where)["reference"])
        await site.department.update(found, status=status)

    uid = str(generate_uid(prefix=None))

    async def written() -> Dataset:
        # Switched off right after the message was written, before anybody looked.
        scanner = site.department.scanner()
        status, _ = await asyncio.to_thread(scanner.create, mpps(None, patient_id="P1"), uid)
        return status

    site.run(off("off"))
    site.run(off("active"))
    assert site.run(written()).Status == 0x0000
    until(site, ["delivered"])
