"""Instance Availability Notification, N-CREATE (PS3.4 annex R): the PACS says which instances can be had, and from where.

It names no patient. The same notification again changes nothing.
"""

from typing import Final
from zoneinfo import ZoneInfo

import structlog

from bridges.dicom import dimse, study_arrival
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes, is_uid, items, tag, text
from bridges.dicom.study_arrival import Arrived
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from resources.imaging_series import AVAILABILITIES, ArrivedSeries

log = structlog.get_logger()

SOP_CLASS: Final = "1.2.840.10008.5.1.4.33"
_MOST_INSTANCES: Final = 20_000


class Availability:
    """The IAN service."""

    def __init__(self, interactions: Interactions, zone: ZoneInfo) -> None:
        self._interactions = interactions
        self._zone = zone

    async def create(self, uid: str, data: Attributes, caller: Caller) -> None:
        """N-CREATE. Returns when it is committed; Refused otherwise."""
        if not is_uid(uid):
            raise dimse.Refused(dimse.INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID")
        arrived = arrived_of(data)

        async def work(unit: UnitOfWork) -> None:
            await study_arrival.settle(unit, arrived, self._zone)

        act = Act("ian-create", "dicom", f"study {arrived.study_uid}", peer=caller.address)
        try:
            await self._interactions.transact(caller.access, act, work)
        except FhirError as error:
            log.warning("ian.refused", study=arrived.study_uid, code=error.code)
            raise dimse.Refused(dimse.PROCESSING_FAILURE, f"{error.code}: {error.issues[0].diagnostics}") from error


def arrived_of(data: Attributes) -> Arrived:
    """What a notification says (PS3.4 table R.3.2-1). Refused when it lacks what it must have."""
    study_uid = _required_uid(data, "StudyInstanceUID")
    if tag("ReferencedPerformedProcedureStepSequence") not in data:
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE, "ReferencedPerformedProcedureStepSequence is missing")
    steps = items(data, "ReferencedPerformedProcedureStepSequence")
    series = [_series(item) for item in _required_items(data, "ReferencedSeriesSequence")]
    if sum(len(s.instances) for s in series) > _MOST_INSTANCES:
        raise dimse.Refused(dimse.RESOURCE_LIMITATION, f"more than {_MOST_INSTANCES} instances in one notification")
    performed = [_required_uid(s, "ReferencedSOPInstanceUID") for s in steps if text(s, "ReferencedSOPInstanceUID")]
    return Arrived(study_uid, series, performed=performed, notified=True)


def _series(item: Attributes) -> ArrivedSeries:
    found = ArrivedSeries(_required_uid(item, "SeriesInstanceUID"))
    for instance in _required_items(item, "ReferencedSOPSequence"):
        sop_class = _required_uid(instance, "ReferencedSOPClassUID")
        uid = _required_uid(instance, "ReferencedSOPInstanceUID")
        state = _required(instance, "InstanceAvailability")
        if state not in AVAILABILITIES:
            raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, "InstanceAvailability is none of PS3.3 C.4.23.1.1")
        found.retrieve_ae_title = found.retrieve_ae_title or _required(instance, "RetrieveAETitle")
        found.instances[uid] = (sop_class, state)
    # A series is no better available than its least available instance that isn't lost.
    states = [state for _, state in found.instances.values()]
    there = [state for state in states if state != "UNAVAILABLE"]
    found.availability = max(there or states, key=AVAILABILITIES.index)
    return found


def _required(data: Attributes, keyword: str) -> str:
    if tag(keyword) not in data:
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE, f"{keyword} is missing")
    if not (found := text(data, keyword)):
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value")
    return found


def _required_uid(data: Attributes, keyword: str) -> str:
    found = _required(data, keyword)
    if not is_uid(found):
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, f"{keyword} is no UID")
    return found


def _required_items(data: Attributes, keyword: str) -> list[Attributes]:
    if tag(keyword) not in data:
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE, f"{keyword} is missing")
    if not (found := items(data, keyword)):
        raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no items")
    return found
