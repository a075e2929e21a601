"""The DICOM server: which SOP classes it serves, to whom, and where it listens."""

import os
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import structlog

from bridges.dicom import availability_service, mpps_service, serving, worklist_service
from bridges.dicom.availability import Availability
from bridges.dicom.callers import Caller
from bridges.dicom.mpps import PerformedSteps
from bridges.dicom.serving import Desk
from bridges.dicom.stations import Stations
from bridges.dicom.upper_layer import acceptor, services
from bridges.dicom.upper_layer.acceptor import Acceptor
from bridges.dicom.upper_layer.association import Association
from bridges.dicom.upper_layer.pdu import AssociateRequest
from bridges.dicom.upper_layer.requestor import VERIFICATION
from bridges.dicom.upper_layer.services import Admission, Operation, Peer, Rejection, Request, Response, Service
from fhir_server.interactions import Interactions

log = structlog.get_logger()

_GRACE_SECONDS = 1.0  # for requests under way when the server stops
CALLING_TITLE_UNKNOWN = Rejection(1, 1, 3, "the calling AE title is not registered")
CALLED_TITLE_WRONG = Rejection(1, 1, 7, "the called AE title is not ours")


class DicomServerError(Exception):
    """The server can't listen. The text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class DicomSettings:
    """Where to listen, as whom, and in which time zone the department is. Port 0 takes any free one."""

    host: str
    port: int
    ae_title: str
    zone: ZoneInfo


class DicomServer:
    """Serves scanners from `start()` to `stop()`."""

    def __init__(self, interactions: Interactions, settings: DicomSettings) -> None:
        self.interactions = interactions
        self._settings = settings
        self._stations = Stations(interactions.store)
        self._desk = Desk(interactions)
        self.services = self._services()
        self._acceptor: Acceptor | None = None
        self._port = settings.port
        self.listening = False

    def _services(self) -> list[Service]:
        """The SOP classes that are served: one line each."""
        desk, zone = self._desk, self._settings.zone
        return [
            Service(VERIFICATION, {Operation.C_ECHO: _echo}),
            worklist_service.service(desk),
            mpps_service.service(desk, PerformedSteps(self.interactions, zone)),
            availability_service.service(desk, Availability(self.interactions, zone)),
        ]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    async def start(self) -> None:
        """Listen. DicomServerError when the address can't be had."""
        serving.configure_pydicom()
        where = (self._settings.host, self._settings.port)
        made = Acceptor(self.services, self._admit, observer=_Recorder(self._desk))
        try:
            self._port = await made.listen(*where)
        except OSError as error:
            raise DicomServerError(
                f"DICOM can't listen on {where[0]}:{where[1]}: {os.strerror(error.errno) if error.errno else error}"
            ) from None
        self._acceptor = made
        self.listening = True
        log.info("dicom.listening", host=where[0], port=self.port, ae_title=self._settings.ae_title)

    async def stop(self) -> None:
        """Stop listening, let requests under way end for a second, and abort what is still open."""
        if self._acceptor is None:
            return
        self.listening = False
        made, self._acceptor = self._acceptor, None
        await made.stop(_GRACE_SECONDS)
        await self._desk.close(_GRACE_SECONDS)
        log.info("dicom.stopped")

    async def _admit(self, request: AssociateRequest, peer: Peer) -> Admission | Rejection:
        """Unknown callers are refused, looked up afresh: a station that is registered now can call now."""
        if request.called != self._settings.ae_title:
            return CALLED_TITLE_WRONG
        try:
            known = await self._stations.admits(request.calling)
        except Exception:
            log.warning("dicom.stations_unknown", exc_info=True)
            return acceptor.TEMPORARY_CONGESTION
        return Admission(Caller(request.calling, peer.address)) if known else CALLING_TITLE_UNKNOWN


class _Recorder(acceptor.Observer):
    """Each association and refusal in the audit trail."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def accepted(self, association: Association) -> None:
        self._desk.record(association.caller, "association", None)

    def refused(self, request: AssociateRequest, peer: Peer, rejection: Rejection) -> None:
        self._desk.record(Caller(request.calling, peer.address), "association", rejection.text)

    def failed(self, peer: Peer, reason: str) -> None:
        log.info("dicom.no_association", address=peer.address, reason=reason)


async def _echo(_request: Request) -> Response:
    return Response(services.SUCCESS)
