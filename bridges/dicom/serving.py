"""What all services share: reading data sets, answers to what fails, the audit trail."""

import asyncio
import contextlib
import io
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

import structlog
from pydicom import config as pydicom_config
from pydicom.filereader import read_dataset
from pymongo.errors import ConnectionFailure, PyMongoError

from bridges.dicom import character_sets, dicom_json, dicom_metrics, dimse
from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.habits import Habits
from bridges.dicom.upper_layer.provider import AssociationEnded
from bridges.dicom.upper_layer.services import Handler, Request, Response
from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError

log = structlog.get_logger()

ANSWER_SECONDS: Final = 25.0  # scanners give up after 30
_LARGE: Final = 64 * 1024  # bytes of a data set that is read in a thread, so that nobody else waits
# Of events of while the database is away: how many wait for it, and seconds between two tries.
_MOST_WAITING: Final = 20_000
_BETWEEN_TRIES: Final = 1.0


def configure_pydicom() -> None:
    """Settings of pydicom for the whole process: what scanners send is checked where it is used; its warnings quote values."""
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    character_sets.teach_pydicom()
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")


def caller_of(request: Request) -> Caller:
    caller = request.association.caller
    assert isinstance(caller, Caller)
    return caller


async def read(request: Request, otherwise: int, character_set: str = "") -> Attributes:
    """The data set of a request. Refused with this status when it isn't one.

    character_set: that of its texts where it declares none
    """
    work = partial(_attributes, request.data, request.context.explicit, character_set)
    try:
        return await asyncio.to_thread(work) if len(request.data) > _LARGE else work()
    except Exception:  # noqa: BLE001 - the library raises whatever it meets
        log.warning("dicom.unreadable_data_set", ae_title=request.association.calling)
        raise dimse.Refused(otherwise, "the data set can't be read") from None


def _attributes(data: bytes, explicit: bool, character_set: str) -> Attributes:
    found = read_dataset(io.BytesIO(data), not explicit, is_little_endian=True)
    return dicom_json.of_dataset(found, character_set.split("\\") if character_set else None)


class Desk:
    """Runs the services' handlers: each ends with a response in time, whatever happens."""

    def __init__(self, interactions: Interactions) -> None:
        self.interactions = interactions
        self.habits = Habits(interactions.store.db)
        self._under_way: set[asyncio.Task[None]] = set()
        self._held: deque[dict[str, Any]] = deque()  # events that the database hasn't taken yet
        self._holding: asyncio.Task[None] | None = None

    def handler(self, operation: str, otherwise: int, work: Callable[[Request], Awaitable[Response]]) -> Handler:
        """A handler that answers what `work` refuses or what fails in it; with status `otherwise` where nothing else fits.

        operation: its name in the audit trail and in the log
        """

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            response = await answer(request)
            dicom_metrics.REQUESTS.labels(operation, f"{response.status:04X}").inc()
            dicom_metrics.REQUEST_SECONDS.labels(operation).observe(time.perf_counter() - began)
            return response

        async def answer(request: Request) -> Response:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await work(request)
            except AssociationEnded:
                raise
            except Exception as error:  # noqa: BLE001 - the scanner gets a status, the log the reason
                refused = _refusal(error, otherwise, operation)
                self.record(caller_of(request), operation, f"{refused.status:04X}: {refused.comment}")
                return refused.response()

        return handle

    def record(self, caller: Caller, event: str, failed: str | None) -> None:
        """Record an association, or a refused request. Nobody waits for it: so that polling costs little."""
        self.record_when_possible(audit.audit_event(Act(event, "dicom", peer=caller.address), caller.access, (), failed=failed))

    def record_when_possible(self, event: dict[str, Any]) -> None:
        """Record what has happened; while the database is away, as soon as it is back."""
        if len(self._under_way) + len(self._held) >= _MOST_WAITING:
            log.error("dicom.audit_failed", reason="too many are waiting")
        elif self._held:
            self._held.append(event)
        else:
            self._start(self._write(event))

    async def _write(self, event: dict[str, Any]) -> None:
        try:
            await self._store(event)
        except (PyMongoError, TimeoutError):
            self._held.append(event)
            if self._holding is None:
                self._holding = asyncio.get_running_loop().create_task(self._hold())
        except Exception as error:  # noqa: BLE001 - there is nobody to tell
            log.error("dicom.audit_failed", reason=type(error).__name__)  # noqa: TRY400 - the trace says no more

    async def _hold(self) -> None:
        """Write what is held, in order, once the database takes it."""
        while self._held:
            await asyncio.sleep(_BETWEEN_TRIES)
            with contextlib.suppress(ConnectionFailure, TimeoutError):
                while self._held:
                    try:
                        await self._store(self._held[0])
                    except (ConnectionFailure, TimeoutError):
                        raise
                    except Exception as error:  # noqa: BLE001 - it would stand in the way of the others
                        log.error("dicom.audit_failed", reason=type(error).__name__)  # noqa: TRY400 - the trace says no more
                    self._held.popleft()
        self._holding = None

    async def _store(self, event: dict[str, Any]) -> None:
        await self.interactions.store.ensure("AuditEvent")
        await self.interactions.reads.write(event)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self, grace: float) -> None:
        """Wait for what is being recorded, at most so many seconds."""
        if waiting := [*self._under_way, *([self._holding] if self._holding else [])]:
            await asyncio.wait(waiting, timeout=grace)
        if self._holding is not None:
            self._holding.cancel()
        if self._held:
            log.error("dicom.audit_failed", reason="the database is away", events=len(self._held))


def _refusal(error: Exception, otherwise: int, operation: str) -> dimse.Refused:
    """The answer to a request that failed. What we didn't expect is logged, and told in general words."""
    if isinstance(error, dimse.Refused):
        return error
    if isinstance(error, FhirError):
        return dimse.Refused(otherwise, error.issues[0].diagnostics)
    if isinstance(error, TimeoutError):
        return dimse.Refused(otherwise, "it took too long; try again")
    if isinstance(error, PyMongoError):
        log.error("dicom.database", operation=operation, reason=type(error).__name__)
        return dimse.Refused(otherwise, "the database is not available; try again")
    log.error("dicom.failed", operation=operation, exc_info=error)
    return dimse.Refused(otherwise, "an internal error; it is in the server's log")
