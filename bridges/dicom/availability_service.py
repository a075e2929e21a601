"""IAN on the network: N-CREATE requests to `Availability` (PS3.4 annex R)."""

from pydicom.uid import generate_uid

from bridges.dicom import dimse, serving
from bridges.dicom.availability import SOP_CLASS, Availability
from bridges.dicom.serving import Desk
from bridges.dicom.upper_layer.services import Operation, Request, Response, Service


def service(desk: Desk, availability: Availability) -> Service:
    """The Instance Availability Notification service."""

    async def create(request: Request) -> Response:
        uid = request.sop_instance or str(generate_uid(prefix=None))
        data = await serving.read(request, dimse.INVALID_ATTRIBUTE_VALUE)
        await availability.create(uid, data, serving.caller_of(request))
        return Response(sop_instance=uid)

    return Service(SOP_CLASS, {Operation.N_CREATE: desk.handler("ian-create", dimse.PROCESSING_FAILURE, create)})
