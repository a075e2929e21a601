"""Looking at something every now and then, in one process of any number."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from fhir_server import leases
from fhir_server.background import beside
from fhir_server.leases import Lease
from fhir_server.outcome import FhirError

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def looking(
    db: AsyncDatabase[dict[str, Any]],
    name: str,
    look: Callable[[], Awaitable[object]],
    *,
    every: float,
    lease: float,
    at_once: bool = False,
) -> AsyncIterator[None]:
    """Call `look` every so many seconds while inside, where the lease `name` is ours; a look that fails is followed by the next.

    lease: seconds that it is held for, and renewed while a look takes its time; at_once: the first look does not wait
    """
    owner = uuid.uuid4().hex
    ours = Lease(db, name, owner, lease)

    async def go_on() -> None:
        if not at_once:
            await asyncio.sleep(every)
        while True:
            try:
                if await ours.held():
                    await look()
            except (PyMongoError, FhirError) as error:
                log.warning("this can't be looked at now", watch=name, reason=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next look may go well; the text may name a patient
                log.error("a look failed", watch=name, reason=type(error).__name__)  # noqa: TRY400 - as above
            await asyncio.sleep(every)

    try:
        async with beside(go_on()), beside(ours.keep()):
            yield
    finally:
        with contextlib.suppress(PyMongoError):
            await leases.give_back(db, owner)
