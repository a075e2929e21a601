"""The ids (`jti`) of the client assertions seen, so that none is good twice: MongoDB collection `oauth_jti`.

A document: `_id` {iss, jti}, which is unique over all processes; `expires`, when MongoDB forgets it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

ASSERTION_IDS = "oauth_jti"
_MARGIN = timedelta(seconds=60)  # beyond the last moment an assertion is accepted: clocks of servers differ too


class AssertionIds:
    """The memory for assertion ids."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._ids = db.get_collection(ASSERTION_IDS, write_concern=WriteConcern("majority"))

    async def first_use(self, issuer: str, jti: str, accepted_until: float) -> bool:
        """Remember an assertion id until after `accepted_until` (Unix seconds); False if it was used before."""
        expires = datetime.fromtimestamp(accepted_until, UTC) + _MARGIN
        try:
            await self._ids.insert_one({"_id": {"iss": issuer, "jti": jti}, "expires": expires})
        except DuplicateKeyError:
            return False
        return True
