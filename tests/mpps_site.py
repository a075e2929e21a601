"""A department with scanners whose performed steps are checked strictly, normally and leniently, and what tests do with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from fhir_server.references import ref
from resources import scanner_preferences, terms
from tests.dicom_client import Department, Resource, Running, Scheduled, mpps, running_department

DEVICES = {"STRICT": "strict", "NORMAL": "normal", "LENIENT": "lenient"}
patients = iter(range(1, 1000))


@contextmanager
def serving_department(mongodb_uri: str) -> Iterator[Running]:
    """A department with a scanner of each strictness."""
    with running_department(mongodb_uri) as running:
        for title, checks in DEVICES.items():
            preference = [{"url": scanner_preferences.CHECKS, "valueCode": checks}]
            running.run(running.department.station(title, extension=preference))
        yield running


def schedule(site: Running, station: str = "NORMAL", **patient: Any) -> Scheduled:
    number = next(patients)

    async def work(dep: Department) -> Scheduled:
        (device,) = await dep.search("Device", identifier=station)
        start = f"2026-09-{number // 20 + 1:02d}T{number % 20:02d}:15"
        return await dep.scheduled(f"R{number}", device, start, **patient)

    return site.run(work(site.department))


def create(site: Running, data: Dataset, station: str = "NORMAL", uid: str | None = None) -> tuple[Dataset, str]:
    uid = uid or str(generate_uid(prefix=None))
    return site.department.scanner(station).create(data, uid)[0], uid


def change(site: Running, data: Dataset, uid: str, station: str = "NORMAL") -> Dataset:
    return site.department.scanner(station).set(data, uid)


def began(site: Running, station: str = "NORMAL", data: Dataset | None = None) -> tuple[Scheduled, str]:
    scheduled = schedule(site, station)
    status, uid = create(site, data or mpps(scheduled, station=station), station)
    assert status.Status == 0x0000, status
    return scheduled, uid


def procedure(site: Running, uid: str) -> Resource:
    (found,) = site.run(site.department.search("Procedure", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}"))
    return found


def stored(site: Running, uid: str) -> bool:
    return bool(site.run(site.department.search("Procedure", identifier=f"{terms.DICOM_UID}|urn:oid:{uid}")))


def now(site: Running, resource: Resource) -> Resource:
    return site.run(site.department.read(ref(resource)["reference"]))


def items_about(site: Running, code: str, resource: Resource) -> list[Resource]:
    return [t for t in site.run(site.department.work_items(code)) if t["focus"] == ref(resource)]


def reason(code: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", "why"
    return [item]
