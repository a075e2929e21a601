"""Modality Worklist on the network: C-FIND requests (PS3.4 annex K)."""

import asyncio
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
from pymongo.errors import PyMongoError

from bridges.dicom import dicom_metrics, dimse, serving, worklist
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.serving import Desk
from bridges.dicom.upper_layer.services import Operation, Request, Response, Service
from bridges.dicom.worklist import Worklist
from bridges.dicom.worklist_answers import Answers, LastGood

log = structlog.get_logger()

SOP_CLASS: Final = "1.2.840.10008.5.1.4.31"
_BURST = 25  # answers between two looks for a C-CANCEL
_LONGEST_IDENTIFIER = 256 * 1024  # bytes
_PATIENCE = 3.0  # seconds for the database, where there is an answer from before


class WorklistFind:
    """The Modality Worklist Information Model - FIND service.

    last_seconds: for how long the last answer to the same query serves while the database is away
    """

    def __init__(self, desk: Desk, zone: ZoneInfo, last_seconds: float) -> None:
        self._desk = desk
        self._zone = zone
        self._answers = Answers()
        self._last = LastGood(last_seconds)

    def service(self) -> Service:
        handler = self._desk.handler("worklist", dimse.UNABLE_TO_PROCESS, self._find)
        return Service(SOP_CLASS, {Operation.C_FIND: handler}, extended=extended)

    async def _find(self, request: Request) -> Response:
        caller = serving.caller_of(request)
        declared = caller.station.preferences.query_character_set
        if len(request.data) > _LONGEST_IDENTIFIER:
            raise dimse.Refused(dimse.IDENTIFIER_DOES_NOT_MATCH, "the identifier is too long")
        identifier = await serving.read(request, dimse.IDENTIFIER_DOES_NOT_MATCH, declared)
        query = WorklistQuery.of(identifier)
        found = await self._worklist(request, query, identifier, caller)
        dicom_metrics.WORKLIST_ANSWERS.inc(len(found.answers))
        self._desk.habits.asked(caller.ae_title, len(found.answers))
        status = dimse.PENDING_WITH_UNSUPPORTED_KEYS if found.unsupported else dimse.PENDING
        for start in range(0, len(found.answers), _BURST):
            if request.cancelled:
                return Response(dimse.CANCELLED)
            await request.pending(status, found.answers[start : start + _BURST])
            await asyncio.sleep(0)  # so that a C-CANCEL is heard
        return Response()

    async def _worklist(self, request: Request, query: WorklistQuery, identifier: Attributes, caller: Caller) -> Worklist:
        """The live worklist; the last good one while the database is away. Query and answers are in the audit trail before they
        are seen, or, when the database is away, as soon as it is back.
        """
        key = (caller, request.context.explicit, request.data)
        live = asyncio.ensure_future(self._live(request, query, identifier, caller))
        last = self._last.get(key)
        try:
            await asyncio.wait({live}, timeout=_PATIENCE if last else None)
            if live.done() and not isinstance(live.exception(), PyMongoError):
                found = live.result()
                self._last.put(key, found, len(request.data) + sum(map(len, found.answers)))
                return found
        finally:
            live.cancel()
        if last is None:
            return await live
        return self._from_memory(last, identifier, caller)

    def _from_memory(self, last: tuple[Any, float], identifier: Attributes, caller: Caller) -> Worklist:
        found: Worklist = last[0]
        log.warning("worklist.from_memory", ae_title=caller.ae_title, age_seconds=round(last[1]))
        dicom_metrics.WORKLISTS_FROM_MEMORY.inc()
        self._desk.record_when_possible(found.event(identifier, caller, f", as they were {last[1]:.0f} s before"))
        return found

    async def _live(self, request: Request, query: WorklistQuery, identifier: Attributes, caller: Caller) -> Worklist:
        interactions = self._desk.interactions
        db, explicit = interactions.store.db, request.context.explicit
        found = await worklist.find(db, self._answers, query, caller, self._zone, explicit=explicit)
        await interactions.store.ensure("AuditEvent")
        await interactions.reads.write(found.event(identifier, caller))
        return found


def extended(asked: bytes) -> bytes:
    """The answer to SOP class extended negotiation (PS3.4 K.5): the reserved bytes as they came; fuzzy semantic matching of names
    and timezone query adjustment (bytes 3 and 4) are not done.
    """
    return asked[:2] + bytes(max(len(asked) - 2, 0))
