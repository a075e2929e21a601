"""The connection to MongoDB: durable writes and majority reads by default, and a plain refusal of what can't serve us."""

import re
from typing import Any
from urllib.parse import unquote

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, InvalidURI, OperationFailure, PyMongoError

Document = dict[str, Any]

OLDEST_VERSION = (6, 0)
SERVER_SELECTION_SECONDS = 5
AUTHENTICATION_CODES = {18, 8000}  # AuthenticationFailed, and the same from Atlas


class DatabaseError(Exception):
    """MongoDB can't be used. The text is one line for the operator and never holds a credential."""


def address(uri: str) -> str:
    """The hosts of a MongoDB URI, without scheme, credentials, database and options."""
    hosts = uri.rsplit("@", 1)[-1].removeprefix("mongodb://").removeprefix("mongodb+srv://")
    return unquote(re.split(r"[/?]", hosts, maxsplit=1)[0])


async def connect(uri: str, database_name: str) -> AsyncDatabase[Document]:
    """A database that takes transactions, checked: reachable, a replica set or `mongos`, MongoDB 6 or later.

    Writes are acknowledged by the majority and journaled; reads see what the majority has.
    Dates come back without a zone, in UTC.
    The client belongs to the running event loop; close it with `await db.client.close()`. Raises `DatabaseError`.
    """
    where = address(uri)
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri,
            appname="fhir-ris",
            tz_aware=False,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            retryWrites=True,
            retryReads=True,
            uuidRepresentation="standard",
            serverSelectionTimeoutMS=SERVER_SELECTION_SECONDS * 1000,
            connectTimeoutMS=SERVER_SELECTION_SECONDS * 1000,
        )
    except (InvalidURI, ConfigurationError, ValueError, TypeError):
        # The driver's own words may quote the URI, password and all.
        raise DatabaseError(
            "RIS_MONGODB_URI is not a valid MongoDB URI: mongodb://[user:password@]host[:port][,...][/?options], "
            "with user and password percent-encoded"
        ) from None
    try:
        await _check(client, where)
    except BaseException:
        await client.close()
        raise
    return client[database_name]


async def _check(client: AsyncMongoClient[Document], where: str) -> None:
    try:
        hello = await client.admin.command("hello")
        build = await client.admin.command("buildInfo")
    except OperationFailure as error:
        if error.code in AUTHENTICATION_CODES:
            raise DatabaseError(f"MongoDB at {where} refused the user name or the password of RIS_MONGODB_URI") from None
        raise DatabaseError(f"MongoDB at {where} refused the connection (error code {error.code})") from None
    except PyMongoError as error:
        raise DatabaseError(
            f"no MongoDB that takes writes answers at {where} within {SERVER_SELECTION_SECONDS} s: {_reason(error)}"
        ) from None
    if not hello.get("setName") and hello.get("msg") != "isdbgrid":
        if hello.get("isreplicaset"):
            raise DatabaseError(f"the replica set at {where} has no configuration yet: run rs.initiate() in mongosh once")
        raise DatabaseError(
            f"MongoDB at {where} is a standalone server, and transactions need a replica set: "
            "start mongod with --replSet NAME and run rs.initiate() in mongosh once"
        )
    if hello.get("setName") and not hello.get("isWritablePrimary"):
        raise DatabaseError(f"MongoDB at {where} is not the primary: name the replica set's members, without directConnection")
    version = tuple(build["versionArray"][:2])
    if version < OLDEST_VERSION:
        raise DatabaseError(f"MongoDB at {where} is version {build['version']}: 6.0 or later is needed")


def _reason(error: PyMongoError) -> str:
    """The driver's reason in a few words: the first cause, without timeouts and topology."""
    first = str(error).split(" (configured timeouts", 1)[0].split(", Timeout:", 1)[0]
    return " ".join(first.split())[:200]
