"""Authorization requests on their way through login, consent and picking a patient: MongoDB collection `oauth_requests`.

What was validated is kept here and named by a random id in the address; nothing of it comes back from the browser. A document,
by the SHA-256 of that id: the fields of `AuthorizationRequest`, `expires`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from smart_auth.tokens import new_bearer, token_id

REQUESTS = "oauth_requests"
_LIFETIME = timedelta(minutes=20)  # to log in, with a second factor, and to find a patient
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A valid request and what became of it so far.

    `parameters` as they came, but for `state`, which is percent-encoded; `scopes` what the client may have of what it asked;
    `launched` the context that a launch brought, `launch_user` the user that it is for; `user` who came with it last, `consented`
    what that user granted, and `chosen` the patient and encounter that he chose.
    """

    client_id: str
    registration: str
    parameters: Mapping[str, str]
    scopes: list[str]
    made: datetime
    launched: dict[str, Any] = field(default_factory=dict)
    launch_user: str | None = None
    user: str | None = None
    consented: list[str] | None = None
    chosen: dict[str, str] = field(default_factory=dict)

    @property
    def context(self) -> dict[str, Any]:
        """What the app will be told, as far as it is known."""
        return self.launched | self.chosen


class AuthorizationRequests:
    """The requests of all processes."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._requests = db.get_collection(
            REQUESTS, read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
        )

    async def keep(self, request: AuthorizationRequest) -> str:
        """Keep a request; the id to ask for it by."""
        name = new_bearer()
        document = {**asdict(request), "parameters": dict(request.parameters)}
        await self._requests.insert_one({"_id": token_id(name), **document, "expires": request.made + _LIFETIME})
        return name

    async def get(self, name: str) -> AuthorizationRequest | None:
        if len(name) > _LONGEST:
            return None
        document = await self._requests.find_one({"_id": token_id(name), "expires": {"$gt": datetime.now(UTC)}})
        return None if document is None else _request(document)

    async def note(self, name: str, held: Mapping[str, Any], **changed: Any) -> AuthorizationRequest | None:
        """Write down what became of it, if it still is as `held` says (compare and set); the request as it is then, else None."""
        document = await self._requests.find_one_and_update(
            {"_id": token_id(name), **held}, {"$set": changed}, return_document=ReturnDocument.AFTER
        )
        return None if document is None else _request(document)

    async def done(self, name: str, **held: Any) -> bool:
        """End it; False if it was ended already, by another answer to the same page, or is not as `held` says."""
        return (await self._requests.delete_one({"_id": token_id(name), **held})).deleted_count == 1


async def ensure_indexes(db: AsyncDatabase[dict[str, Any]]) -> None:
    await db[REQUESTS].create_index("expires", expireAfterSeconds=0)


def _request(document: Mapping[str, Any]) -> AuthorizationRequest:
    fields = {name: document[name] for name in AuthorizationRequest.__dataclass_fields__}
    return AuthorizationRequest(**fields | {"made": document["made"].replace(tzinfo=UTC)})
