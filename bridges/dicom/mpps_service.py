"""MPPS on the network: N-CREATE and N-SET requests to `PerformedSteps` (PS3.4 annex F)."""

from typing import Final

from pydicom.uid import generate_uid

from bridges.dicom import dimse, serving
from bridges.dicom.mpps import PerformedSteps
from bridges.dicom.serving import Desk
from bridges.dicom.upper_layer.services import Operation, Request, Response, Service

SOP_CLASS: Final = "1.2.840.10008.3.1.2.3.3"


def service(desk: Desk, performed: PerformedSteps) -> Service:
    """The Modality Performed Procedure Step service."""

    async def create(request: Request) -> Response:
        """N-CREATE. Without an Affected SOP Instance UID we choose it (PS3.7 10.1.5.1.4)."""
        uid = request.sop_instance or str(generate_uid(prefix=None))
        data = await serving.read(request, dimse.INVALID_ATTRIBUTE_VALUE)
        outcome = await performed.create(uid, data, serving.caller_of(request))
        return Response(outcome.status, outcome.comment, sop_instance=uid)

    async def update(request: Request) -> Response:
        data = await serving.read(request, dimse.INVALID_ATTRIBUTE_VALUE)
        outcome = await performed.update(request.sop_instance, data, serving.caller_of(request))
        return Response(outcome.status, outcome.comment)

    return Service(
        SOP_CLASS,
        {
            Operation.N_CREATE: desk.handler("mpps-create", dimse.PROCESSING_FAILURE, create),
            Operation.N_SET: desk.handler("mpps-set", dimse.PROCESSING_FAILURE, update),
        },
    )
