"""The DICOM server: which SOP classes it serves, to whom, and where it listens."""

import asyncio
import contextlib
import os
import ssl
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from pymongo.errors import PyMongoError

from bridges.dicom import availability_service, dicom_metrics, mpps_service, serving
from bridges.dicom.availability import Availability
from bridges.dicom.callers import Caller
from bridges.dicom.mpps import PerformedSteps
from bridges.dicom.serving import Desk
from bridges.dicom.stations import Stations
from bridges.dicom.upper_layer import services
from bridges.dicom.upper_layer.acceptor import Acceptor, Limits, Observer
from bridges.dicom.upper_layer.association import Association, Times
from bridges.dicom.upper_layer.pdu import AssociateRequest
from bridges.dicom.upper_layer.requestor import VERIFICATION
from bridges.dicom.upper_layer.services import Operation, Peer, Rejection, Request, Response, Service
from bridges.dicom.worklist_service import WorklistFind
from fhir_server.interactions import Interactions
from fhir_server.tls_files import TlsFiles

log = structlog.get_logger()

_GRACE_SECONDS: Final = 1.0  # for requests under way when the server stops
_FLUSH_SECONDS: Final = 10.0
_RENEW_SECONDS: Final = 1.0  # between two looks at the files of TLS


class DicomServerError(Exception):
    """The server can't listen. The text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class DicomSettings:
    """Where to listen, as whom, and in which time zone the department is. Port 0 takes any free one.

    tls_port: where associations over TLS are taken, with these files; 0: any free one
    last_worklist_seconds: for how long a scanner is answered from memory while the database is away
    """

    host: str
    port: int
    ae_title: str
    zone: ZoneInfo
    tls_port: int = 0
    tls: TlsFiles | None = None
    last_worklist_seconds: float = 300
    times: Times = field(default_factory=Times)
    limits: Limits = field(default_factory=Limits)


class DicomServer:
    """Serves scanners from `start()` to `stop()`."""

    def __init__(self, interactions: Interactions, settings: DicomSettings) -> None:
        self.interactions = interactions
        self._settings = settings
        self._stations = Stations(interactions.store, settings.ae_title, settings.last_worklist_seconds)
        self._desk = Desk(interactions)
        self.services = self._services()
        self._acceptor: Acceptor | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._port, self._tls_port = settings.port, settings.tls_port
        self.listening = False

    def _services(self) -> list[Service]:
        """The SOP classes that are served: one line each."""
        desk, settings = self._desk, self._settings
        return [
            Service(VERIFICATION, {Operation.C_ECHO: _echo}),
            WorklistFind(desk, settings.zone, settings.last_worklist_seconds).service(),
            mpps_service.service(desk, PerformedSteps(self.interactions, settings.zone)),
            availability_service.service(desk, Availability(self.interactions, settings.zone)),
        ]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def tls_port(self) -> int:
        """The port for TLS."""
        return self._tls_port

    async def start(self) -> None:
        """Listen. DicomServerError when an address can't be had."""
        serving.configure_pydicom()
        settings = self._settings
        made = Acceptor(
            self.services,
            self._stations.admit,
            times=settings.times,
            limits=settings.limits,
            observer=_Recorder(self._desk),
        )
        self._port = await self._listen(made, settings.port, None)
        if settings.tls is not None:
            try:
                self._tls_port = await self._listen(made, settings.tls_port, settings.tls.server())
            except DicomServerError:
                await made.stop(0)
                raise
            self._beside.append(asyncio.create_task(self._renewing(made, settings.tls)))
        self._acceptor = made
        self._beside.append(asyncio.create_task(self._desk.habits.flushing(_FLUSH_SECONDS)))
        self.listening = True
        tls_port = self._tls_port if settings.tls is not None else None
        log.info("dicom.listening", host=settings.host, port=self.port, tls_port=tls_port, ae_title=settings.ae_title)

    async def _listen(self, made: Acceptor, port: int, tls: ssl.SSLContext | None) -> int:
        host = self._settings.host
        try:
            return await made.listen(host, port, tls)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise DicomServerError(f"DICOM can't listen on {host}:{port}: {why}") from None

    async def _renewing(self, made: Acceptor, files: TlsFiles) -> None:
        """Files that are replaced are taken for the next association; those that are open go on."""
        present = files.server()
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if (new := files.server()) is present:
                continue
            try:
                await made.renew(self._settings.host, self._tls_port, new)
                present = new
            except OSError as error:  # somebody else has the port: it is tried again
                log.error("dicom.tls_port_lost", reason=type(error).__name__)  # noqa: TRY400 - a line for an operator

    async def stop(self) -> None:
        """Stop listening, let requests under way end for a second, and abort what is still open."""
        if self._acceptor is None:
            return
        self.listening = False
        made, self._acceptor = self._acceptor, None
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        self._beside.clear()
        await made.stop(_GRACE_SECONDS)
        with contextlib.suppress(PyMongoError, TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._desk.habits.flush()
        await self._desk.close(_GRACE_SECONDS)
        log.info("dicom.stopped")


class _Recorder(Observer):
    """Each association and refusal in the audit trail, in the metrics, and among the scanner's habits."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def accepted(self, association: Association) -> None:
        dicom_metrics.ASSOCIATIONS.labels("accepted").inc()
        dicom_metrics.ASSOCIATIONS_OPEN.inc()
        self._desk.habits.accepted(association.calling)
        self._desk.record(association.caller, "association", None)

    def refused(self, request: AssociateRequest, peer: Peer, rejection: Rejection) -> None:
        why = f"{rejection.result}-{rejection.source}-{rejection.reason}"
        dicom_metrics.ASSOCIATIONS.labels(f"refused {why}").inc()
        self._desk.habits.refused(request.calling, rejection.text)
        self._desk.record(Caller(request.calling, peer.address), "association", rejection.text)
        log.info("dicom.refused", ae_title=request.calling, address=peer.address, reason=rejection.text)

    def failed(self, peer: Peer, reason: str) -> None:
        dicom_metrics.ASSOCIATIONS.labels("none").inc()
        log.info("dicom.no_association", address=peer.address, reason=reason)

    def ended(self, association: Association) -> None:
        del association
        dicom_metrics.ASSOCIATIONS_OPEN.dec()


async def _echo(_request: Request) -> Response:
    return Response(services.SUCCESS)
