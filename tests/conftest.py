"""One real MongoDB for the whole test session; a fresh database for each test that asks for one."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import httpx
import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.database import Document, connect
from fhir_server.garbage import spare_tables
from fhir_server.mongod import EmbeddedMongod

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests import console_world
    from tests.department import Department
    from tests.fhir_app import FhirApp
    from tests.smart_world import World

# A busy machine takes its time: five seconds, which httpx gives an answer, are no measure of ours.
for phase in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, phase, 60.0)
# Each client reads all the world's certificates, 50 ms, which no test on loopback needs more than once.
httpx._transports.default.create_ssl_context = functools.cache(httpx._transports.default.create_ssl_context)

# As in a server: thousands of tests and all that is imported are nothing to look through again and again.
spare_tables()

Result = TypeVar("Result")
RunWithDb = Callable[[Callable[[AsyncDatabase[Document]], Awaitable[Result]]], Result]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long random searches are compared with the oracle's (tests/test_search_oracle.py), and how big the chaos of v2 is."""
    parser.addoption("--oracle-seconds", type=float, default=None, help="go on with random searches for so long, in each group")
    parser.addoption("--oracle-seed", type=int, default=0, help="begin with this seed")
    parser.addoption(
        "--chaos-messages", type=int, default=150, help="how many v2 messages go through the chaos (test_v2_chaos.py)"
    )
    parser.addoption("--chaos-seed", type=int, default=1, help="of the chaos")


def pytest_collection_finish() -> None:
    spare_tables()


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a one-member replica set that lives as long as the session."""
    mongod = EmbeddedMongod(tmp_path_factory.mktemp("mongodb"))
    uri = asyncio.run(mongod.start())
    yield uri
    asyncio.run(mongod.stop())


@pytest.fixture
def database_name(mongodb_uri: str) -> Iterator[str]:
    """A database name of this test alone; the database is dropped afterwards."""
    name = f"test_{uuid4().hex[:12]}"
    yield name

    async def drop() -> None:
        async with AsyncMongoClient[Document](mongodb_uri) as client:
            await client.drop_database(name)

    asyncio.run(drop())


@pytest.fixture
def run_with_db(mongodb_uri: str, database_name: str) -> RunWithDb[Any]:
    """Runs a coroutine function on the test's database: `run_with_db(scenario)`, with `async def scenario(db)`.

    A client belongs to the event loop that it is used in, so each call has its own; the data stays from call to call.
    """

    def run(scenario: Callable[[AsyncDatabase[Document]], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            db = await connect(mongodb_uri, database_name)
            try:
                return await scenario(db)
            finally:
                await db.client.close()

        return asyncio.run(connected())

    return run


# What a module of tests plays with: made once, for all of its tests


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator["FhirApp"]:
    """The FHIR edge on a socket (tests/fhir_app.py)."""
    from tests.fhir_app import serving

    with serving(mongodb_uri) as running:
        yield running


@pytest.fixture(scope="module")
def world(app: "FhirApp") -> "World":
    """Two patients and callers with all kinds of tokens (tests/smart_world.py)."""
    from tests.smart_world import World

    return World(app)


@pytest.fixture(scope="module")
def ris(mongodb_uri: str) -> Iterator["Department"]:
    """A department without the doors of HTTP and DICOM (tests/department.py)."""
    from tests.department import Department

    with asyncio.Runner() as runner:
        department = Department(runner, mongodb_uri)
        yield department
        department.run(department.close())


# The console in browsers


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Debian's Chromium. For a module, not longer: Playwright's event loop is in the way of `asyncio.run`."""
    from playwright.sync_api import sync_playwright

    from tests import console_world

    if not console_world.CHROMIUM:
        pytest.skip(console_world.REASON)
    with sync_playwright() as playwright, console_world.chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def console(
    mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory, chromium: "Browser"
) -> Iterator["console_world.ConsoleWorld"]:
    """The console over a database of this module, and browsers at it (tests/console_world.py)."""
    from tests import console_world

    with console_world.console_world(mongodb_uri, tmp_path_factory.mktemp("console"), chromium) as world:
        yield world


@pytest.fixture(autouse=True)
def _pages_at_rest(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test its pages listen no more."""
    yield
    if "console" in request.fixturenames:
        request.getfixturevalue("console").rest()
