"""What waits for its order is looked at: whose order is here is received again, what has waited too long goes to a person."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from pymongo.errors import PyMongoError

from bridges.v2 import order_parked, parked_messages
from bridges.v2.order_in import perform
from fhir_server.background import beside
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError

log = structlog.get_logger()


async def sweep(interactions: Interactions) -> None:
    """Look once. An order may have come by FHIR, or a process died between its commit and the messages that waited for it."""
    await order_parked.play_left(interactions, perform)
    await parked_messages.play_left(interactions)
    await order_parked.expire(interactions)


@asynccontextmanager
async def sweeping(interactions: Interactions, every: float = 60.0) -> AsyncIterator[None]:
    """While this lasts, what waits is looked at: at once, and then every so many seconds."""
    async with beside(_keep_sweeping(interactions, every)):
        yield


async def _keep_sweeping(interactions: Interactions, pause: float) -> None:
    while True:
        try:
            await sweep(interactions)
        except (FhirError, PyMongoError) as error:
            log.warning("parked messages could not be looked at", reason=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - it goes on; the error's text may name a patient
            log.error("parked messages could not be looked at", error=type(error).__name__)  # noqa: TRY400 - as above
        await asyncio.sleep(pause)
