"""Modality Worklist on the network: C-FIND requests (PS3.4 annex K)."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from bridges.dicom import dicom_json, dimse, serving, worklist
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.serving import Desk
from bridges.dicom.upper_layer.services import Operation, Request, Response, Service

SOP_CLASS: Final = "1.2.840.10008.5.1.4.31"
_BURST = 25  # answers between two looks for a C-CANCEL


def service(desk: Desk) -> Service:
    """The Modality Worklist Information Model - FIND service."""

    async def find(request: Request) -> Response:
        identifier = serving.read(request, dimse.IDENTIFIER_DOES_NOT_MATCH)
        query = WorklistQuery.of(identifier)
        found = await worklist.find(desk.interactions, query, identifier, serving.caller_of(request))
        answers = [dicom_json.encode(query.answer(a), explicit=request.context.explicit) for a in found]
        for burst in _bursts(answers):
            if request.cancelled:
                return Response(dimse.CANCELLED)
            await request.pending(dimse.PENDING_WITH_UNSUPPORTED_KEYS if query.unsupported else dimse.PENDING, burst)
            await asyncio.sleep(0)  # so that a C-CANCEL is heard
        return Response()

    return Service(SOP_CLASS, {Operation.C_FIND: desk.handler("worklist", dimse.UNABLE_TO_PROCESS, find)})


def _bursts(answers: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(answers), _BURST):
        yield answers[start : start + _BURST]
