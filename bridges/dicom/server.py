"""The DICOM server: C-ECHO, Modality Worklist C-FIND, MPPS N-CREATE and N-SET.

pynetdicom runs each association in threads; what touches the database runs in our event loop, and the thread waits for it.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pymongo.errors import PyMongoError
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time from a table
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    Verification,
)

from bridges.dicom import associations, availability, dicom_json, dimse, worklist
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.mpps import Outcome, PerformedSteps
from bridges.dicom.pending_answers import PendingAnswers
from bridges.dicom.stations import Stations
from bridges.dicom.worklist import Caller
from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError

log = structlog.get_logger()
T = TypeVar("T")

_ANSWER_SECONDS = 25.0  # scanners give up after 30
_IDLE_SECONDS = 60
_NEGOTIATION_SECONDS = 10
_MAX_ASSOCIATIONS = 200
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 1.0  # for requests under way when the server stops
_ABORT_SECONDS = 1.0
_BURST = 25  # answers between two looks for a C-CANCEL
_TRANSFER_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_SOP_CLASSES = (
    Verification,
    ModalityWorklistInformationFind,
    ModalityPerformedProcedureStep,
    InstanceAvailabilityNotification,
)
# Result, source, diagnostic of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
_CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
_TEMPORARY_CONGESTION = (2, 3, 1)


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
        self._interactions = interactions
        self._settings = settings
        self._stations = Stations(interactions.store)
        self._performed = PerformedSteps(interactions, settings.zone)
        self._availability = availability.Availability(interactions, settings.zone)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: associations.AssociationListener | None = None
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self.listening = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.server_address[1]) if self._listener else self._settings.port

    async def start(self) -> None:
        """Listen. DicomServerError when the address can't be had."""
        associations.configure_library()
        self._loop = asyncio.get_running_loop()
        entity = AE(ae_title=self._settings.ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = _MAX_ASSOCIATIONS
        entity.maximum_pdu_size = associations.MAX_PDU
        entity.acse_timeout = _NEGOTIATION_SECONDS
        entity.dimse_timeout = _ANSWER_SECONDS
        entity.network_timeout = _IDLE_SECONDS
        for sop_class in _SOP_CLASSES:
            entity.add_supported_context(sop_class, _TRANSFER_SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_DIMSE_RECV, self._on_message),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_N_CREATE, self._on_create),
            (evt.EVT_N_SET, self._on_set),
        ]
        where = (self._settings.host, self._settings.port)
        try:
            listener = associations.AssociationListener(
                entity,
                where,
                self._settings.ae_title,
                entity.supported_contexts,
                evt_handlers=handlers,
                request_handler=associations.BoundedRequestHandler,
            )
        except OSError as error:
            raise DicomServerError(f"DICOM can't listen on {where[0]}:{where[1]}: {error.strerror or error}") from None
        self._listener = listener
        threading.Thread(target=listener.serve_forever, args=(_POLL_SECONDS,), name="dicom-listener", daemon=True).start()
        self.listening = True
        log.info("dicom.listening", host=where[0], port=self.port, ae_title=self._settings.ae_title)

    async def stop(self) -> None:
        """Stop listening, let requests under way end for a second, and abort what is still open."""
        if self._listener is None:
            return
        self.listening = False
        listener, self._listener = self._listener, None
        await _in_thread(listener.shutdown, 2 * _POLL_SECONDS + 0.1)
        under_way = [asyncio.wrap_future(f) for f in list(self._waiting)]
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=_GRACE_SECONDS)
            for future in late:
                future.cancel()
        established = [a for a in listener.active_associations if a.is_established]
        await asyncio.gather(*(_in_thread(a.abort, _ABORT_SECONDS) for a in established))
        for association in listener.active_associations:
            _close(association)
        log.info("dicom.stopped")

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run this in the event loop, and wait for it here, in the association's thread."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._waiting.add(future)
        try:
            return future.result(_ANSWER_SECONDS)
        except TimeoutError:
            future.cancel()
            raise dimse.Refused(dimse.UNABLE_TO_PROCESS, "it took too long; try again") from None
        except concurrent.futures.CancelledError:
            raise dimse.Refused(dimse.UNABLE_TO_PROCESS, "the server is stopping; try again") from None
        finally:
            self._waiting.discard(future)

    # Associations

    def _on_requested(self, event: evt.Event) -> None:
        """Unknown callers are refused, looked up afresh: a station that is registered now can call now."""
        association = event.assoc
        try:
            refusal = None if self._call(self._stations.admits(_caller(association).ae_title)) else _CALLING_AE_NOT_RECOGNISED
        except Exception:
            log.warning("dicom.stations_unknown", exc_info=True)
            refusal = _TEMPORARY_CONGESTION
        if refusal is not None:
            association.acse.send_reject(*refusal)
            try:
                known = refusal != _CALLING_AE_NOT_RECOGNISED
                self._audit(association, "association", "try again" if known else "the calling AE title is not registered")
            finally:
                association.kill()

    def _on_accepted(self, event: evt.Event) -> None:
        self._audit(event.assoc, "association", None)

    def _on_rejected(self, event: evt.Event) -> None:
        primitive = event.assoc.acceptor.primitive
        wrong_title = primitive is not None and primitive.diagnostic == 7
        why = "the called AE title is not ours" if wrong_title else "too many associations"
        self._audit(event.assoc, "association", why)

    def _audit(self, association: Association, event: str, failed: str | None) -> None:
        """Record an association, or a refused request. Nobody waits for it: so that polling costs little. A failure is logged."""
        caller = _caller(association)
        act = Act(event, "dicom", peer=caller.address)

        async def write() -> None:
            await self._interactions.store.ensure("AuditEvent")
            await self._interactions.reads.write(audit.audit_event(act, caller.access, (), failed=failed))

        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(write(), self._loop)
        self._waiting.add(future)
        future.add_done_callback(self._audited)

    def _audited(self, future: "concurrent.futures.Future[None]") -> None:
        self._waiting.discard(future)
        if future.cancelled() or future.exception() is not None:
            log.error("dicom.audit_failed", reason=None if future.cancelled() else type(future.exception()).__name__)

    def _on_message(self, event: evt.Event) -> None:
        connection = event.assoc.dul.socket
        if isinstance(connection, associations.BoundedSocket):
            connection.received = 0

    # Services

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int | Dataset, None]]:
        """C-FIND. The answers are sent from here, encoded by us: the library's encoder is most of the time of a query."""
        association, syntax = event.assoc, event.context.transfer_syntax
        try:
            identifier = _read(event, "identifier", dimse.IDENTIFIER_DOES_NOT_MATCH)
            query = WorklistQuery.of(identifier)
            found = self._call(worklist.find(self._interactions, query, identifier, _caller(association)))
            status = dimse.PENDING_WITH_UNSUPPORTED_KEYS if query.unsupported else dimse.PENDING
            answers = PendingAnswers(event, status)
            for number, attributes in enumerate(found, 1):
                if event.is_cancelled:
                    yield dimse.CANCELLED, None
                    return
                if not association.is_established:
                    return
                answer = query.answer(attributes)
                answers.send(dicom_json.encode(answer, explicit=syntax == ExplicitVRLittleEndian))
                if number % _BURST == 0:
                    answers.flush(_ANSWER_SECONDS)
        except Exception as error:  # noqa: BLE001 - the scanner gets a status, the log the reason
            yield self._refused(event, error, dimse.UNABLE_TO_PROCESS, "worklist"), None

    def _on_create(self, event: evt.Event) -> tuple[int | Dataset, Dataset | None]:
        """N-CREATE. Without an Affected SOP Instance UID we choose it (PS3.7 10.1.5.1.4)."""
        given = getattr(event.request, "AffectedSOPInstanceUID", None)
        uid = str(given or generate_uid(prefix=None))
        try:
            data = _read(event, "attribute_list", dimse.INVALID_ATTRIBUTE_VALUE)
            if str(event.request.AffectedSOPClassUID) == availability.SOP_CLASS:
                self._call(self._availability.create(uid, data, _caller(event.assoc)))
                outcome = Outcome()
            else:
                outcome = self._call(self._performed.create(uid, data, _caller(event.assoc)))
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(event, error, dimse.PROCESSING_FAILURE, "mpps-create"), None
        chosen = None
        if given is None:
            chosen = Dataset()
            chosen.AffectedSOPInstanceUID = uid
        return _status(outcome), chosen

    def _on_set(self, event: evt.Event) -> tuple[int | Dataset, None]:
        """N-SET"""
        try:
            data = _read(event, "modification_list", dimse.INVALID_ATTRIBUTE_VALUE)
            uid = str(getattr(event.request, "RequestedSOPInstanceUID", ""))
            outcome = self._call(self._performed.update(uid, data, _caller(event.assoc)))
        except Exception as error:  # noqa: BLE001 - as above
            return self._refused(event, error, dimse.PROCESSING_FAILURE, "mpps-set"), None
        return _status(outcome), None

    def _refused(self, event: evt.Event, error: Exception, otherwise: int, operation: str) -> Dataset:
        refused = _refusal(error, otherwise, operation)
        self._audit(event.assoc, operation, f"{refused.status:04X}: {refused.comment}")
        return refused.answer()


def _status(outcome: Outcome) -> int | Dataset:
    return outcome.status if not outcome.comment else dimse.Refused(outcome.status, outcome.comment).answer()


def _read(event: evt.Event, name: str, otherwise: int) -> Attributes:
    """The data set of a request. Refused with this status when it isn't one."""
    try:
        return dicom_json.of_dataset(getattr(event, name))
    except Exception:  # noqa: BLE001 - the library raises whatever it meets
        log.warning("dicom.unreadable_data_set", ae_title=_caller(event.assoc).ae_title)
        raise dimse.Refused(otherwise, "the data set can't be read") from None


def _refusal(error: Exception, otherwise: int, operation: str) -> dimse.Refused:
    """The answer to a request that failed. What we didn't expect is logged, and told in general words."""
    if isinstance(error, dimse.Refused):
        return dimse.Refused(otherwise, error.comment) if error.status == dimse.UNABLE_TO_PROCESS else error
    if isinstance(error, FhirError):
        return dimse.Refused(otherwise, error.issues[0].diagnostics)
    if isinstance(error, PyMongoError):
        log.error("dicom.database", operation=operation, reason=type(error).__name__)
        return dimse.Refused(otherwise, "the database is not available; try again")
    log.error("dicom.failed", operation=operation, exc_info=error)
    return dimse.Refused(otherwise, "an internal error; it is in the server's log")


def _caller(association: Association) -> Caller:
    primitive = association.requestor.primitive
    title = str(primitive.calling_ae_title).strip() if primitive is not None else ""
    return Caller(title, str(association.requestor.address))


async def _in_thread(act: Callable[[], object], seconds: float) -> None:
    """Run what blocks in a daemon thread, and wait for it no longer than this."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            act()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop may be closed before a late thread ends
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), seconds)


def _close(association: Association) -> None:
    """Cut the connection of a peer that doesn't answer an abort."""
    association.dul.kill_dul()
    if association.dul.socket is not None:
        association.dul.socket.close()
