"""Modality Performed Procedure Step, N-CREATE and N-SET (PS3.4 Annex F): what a scanner did becomes a Procedure.

The Procedure keeps the scanner's data set in a Binary (as it stands; its history has each earlier state). That the step, its
appointment and the reading worklist follow is the business of `resources/procedure.py`. An examination is never turned away
because we don't know its step or doubt its patient: it is kept, and a person is asked to look (a work item Task).
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import structlog

from bridges.dicom import (
    dicom_endpoints,
    dimse,
    mpps_begin,
    mpps_checks,
    mpps_data,
    mpps_forward,
    mpps_progress,
    mpps_records,
    mpps_steps,
)
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes, is_uid, text
from bridges.dicom.mpps_checks import Checked, Station
from bridges.dicom.mpps_records import DATA_SET, MAX_DATA_SET, by_uid, data_set_of
from fhir_server.audit import Act
from fhir_server.foresight import Asked
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import device, procedure, scanner_preferences

__all__ = ["DATA_SET", "MAX_DATA_SET", "Outcome", "PerformedSteps"]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status of a response that isn't a refusal: 0000, or a warning with its comment."""

    status: int = dimse.SUCCESS
    comment: str = ""

    @classmethod
    def of(cls, checked: Checked) -> "Outcome":
        return cls() if checked.warning is None else cls(checked.warning, checked.comment)


class PerformedSteps:
    """The MPPS service. `zone` is the department's, for times without an offset."""

    def __init__(self, interactions: Interactions, zone: ZoneInfo) -> None:
        self._interactions = interactions
        self._zone = zone

    async def create(self, uid: str, data: Attributes, caller: Caller) -> Outcome:
        """N-CREATE. Returns when it is committed; Refused otherwise, and then nothing of it is stored."""
        _check_uid(uid)

        async def work(unit: UnitOfWork) -> Checked:
            await unit.lock(f"mpps:{uid}")
            known = await by_uid(unit, uid)
            if known is not None:
                await self._note_repetition(unit, known, data, caller)
                raise dimse.Refused(dimse.DUPLICATE_SOP_INSTANCE, "this performed procedure step exists already")
            station = await _station(unit, text(data, "PerformedStationAETitle"), caller)
            modalities = device.modalities(station) if station else []
            sender = Station(caller.ae_title, modalities[0] if len(modalities) == 1 else "")
            strictness = scanner_preferences.of(station).checks
            checked = mpps_checks.check_new(data, strictness, sender, self._zone)
            performed = await mpps_begin.begin(unit, uid, checked, self._zone)
            await mpps_forward.forward(unit, "N-CREATE", uid, data, performed, caller.ae_title)
            return checked

        touched = (uid, *(item.step_id for item in mpps_data.scheduled(data) if item.step_id))
        titles = {text(data, "PerformedStationAETitle"), caller.ae_title} - {""}
        foreseen = [*(device.asked(title) for title in sorted(titles)), *mpps_steps.asked(data)]
        return Outcome.of(await self._transact("mpps-create", uid, caller, work, touched, foreseen))

    async def _note_repetition(self, unit: UnitOfWork, known: Resource, data: Attributes, caller: Caller) -> None:
        """Scanners do send a step twice. That another one comes under the same UID is worth a look."""
        first = await data_set_of(unit, known)
        log.info("mpps.sent_again", ae_title=caller.ae_title, same=first == data, status=known["status"])

    async def update(self, uid: str, change: Attributes, caller: Caller) -> Outcome:
        """N-SET. Refused with 0112 when there is no such step, with 0110 and Error ID A710 when it has ended."""
        _check_uid(uid)

        async def work(unit: UnitOfWork) -> Checked:
            await unit.lock(f"mpps:{uid}")
            performed = await by_uid(unit, uid)
            if performed is None:
                raise dimse.Refused(dimse.NO_SUCH_SOP_INSTANCE, "there is no such performed procedure step")
            if performed["status"] in procedure.ENDED:
                comment = "Performed Procedure Step Object may no longer be updated"
                raise dimse.Refused(dimse.PROCESSING_FAILURE, comment, dimse.MAY_NO_LONGER_BE_UPDATED)
            stored = await data_set_of(unit, performed)
            station = await _station(unit, text(stored, "PerformedStationAETitle"), caller)
            strictness = scanner_preferences.of(station).checks
            checked = mpps_checks.check_change(stored, change, strictness, self._zone)
            performed = await mpps_progress.progress(unit, performed, checked, self._zone)
            await mpps_forward.forward(unit, "N-SET", uid, change, performed, caller.ae_title)
            return checked

        return Outcome.of(await self._transact("mpps-set", uid, caller, work, (uid,)))

    async def _transact(
        self,
        event: str,
        uid: str,
        caller: Caller,
        work: Callable[[UnitOfWork], Awaitable[Checked]],
        touched: Iterable[str],
        foreseen: Iterable[Asked] = (),
    ) -> Checked:
        act = Act(event, "dicom", f"SOP instance {uid}", peer=caller.address)
        try:
            asked = [mpps_records.asked(uid), dicom_endpoints.asked(dicom_endpoints.MPPS), *foreseen]
            return await self._interactions.transact(caller.access, act, work, small=(), turns=touched, foreseen=asked)
        except FhirError as error:
            log.warning("mpps.refused", operation=event, sop_instance=uid, code=error.code)
            raise dimse.Refused(dimse.PROCESSING_FAILURE, f"{error.code}: {error.issues[0].diagnostics}") from error


async def _station(unit: UnitOfWork, title: str, caller: Caller) -> Resource | None:
    """The Device that performs it: of the title in the data set, else of the one that calls."""
    return await device.by_ae_title(unit, title) or await device.by_ae_title(unit, caller.ae_title)


def _check_uid(uid: str) -> None:
    if not is_uid(uid):
        raise dimse.Refused(dimse.INVALID_SOP_INSTANCE, "the SOP Instance UID is no UID")
