"""The FHIR REST edge for tests: the real application on a real socket over the test's MongoDB, without the MLLP and DICOM ports.

Each server has a database of its own and an event loop in a thread of its own; tests talk to it by HTTP, as its users do.
"""

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from bridges.dicom import worklist_rows
from bridges.payer import outbound as payer_outbound
from bridges.v2 import destinations, outbound
from capability.statement import capability_statement, terminology_capabilities
from fhir_server import fhir_json, outbox
from fhir_server.database import connect
from fhir_server.front import Front
from fhir_server.interactions import Interactions
from fhir_server.operations import standard
from fhir_server.registry import Registry
from fhir_server.rest import Rest
from fhir_server.store import Store
from resources import numbers, reconcile_operation, registration
from resources.reading.signature import Signer
from resources.reading.signing import ReportSigning
from resources.scheduling import operations as scheduling_operations
from smart_auth import break_glass_log
from smart_auth.break_glass import BreakGlass
from smart_auth.clients import Client
from smart_auth.routes import authenticate
from smart_auth.tokens import Tokens, ensure_indexes
from tests import databases

T = TypeVar("T")
Resource = dict[str, Any]
JSON = "application/fhir+json"
ALL = "system/*.cruds"
_numbers = itertools.count(1)


def unused(prefix: str = "x") -> str:
    """A name that no other test of this run uses."""
    return f"{prefix}{next(_numbers)}"


class FhirApp:
    """A running server. Requests carry a token with `scope` unless `token` says otherwise (None: no token at all)."""

    def __init__(
        self, mongodb_uri: str, *, strict: bool = True, core: bool = False, rules: Callable[[Registry], None] | None = None,
        second_factor_minutes: int = 0,
    ) -> None:  # fmt: skip
        """`core`: make the core types' collections at the start; `rules`: what the registry holds instead of the department's;
        `second_factor_minutes`: so long ago a second factor may have been shown when a report is signed (0: none is needed)."""
        self._second_factor_minutes = second_factor_minutes
        self._uri, self._strict, self._core, self._rules = mongodb_uri, strict, core, rules
        self.logs: MutableSequence[Any] = []
        self._tokens: dict[str, str] = {}
        self._issuing = threading.Lock()
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        assert self._started.wait(120)
        if self._failed is not None:
            raise self._failed

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failed = error
            self._started.set()
            raise

    async def _run(self) -> None:
        self.db = await connect(self._uri, databases.take(self._uri))
        self.registry = Registry()
        standard.register(self.registry)
        self.tokens = Tokens(self.db)
        BreakGlass(self.tokens).register(self.registry)
        if self._rules is None:
            registration.register(self.registry, uid_root="2.25")
            reconcile_operation.register(self.registry)
            ReportSigning(Signer(bytes(32)), self._second_factor_minutes).register(self.registry)
            scheduling_operations.register(self.registry, ZoneInfo("UTC"))
            self.registry.projection(worklist_rows.WorklistRows(ZoneInfo("UTC")).project)
            self.registry.projection(outbound.Outbound(ZoneInfo("UTC")).project, destinations.ASKED)
            self.registry.projection(payer_outbound.project)
            numbers.register(self.registry, ZoneInfo("UTC"))
            await worklist_rows.ensure_indexes(self.db)
        else:
            self._rules(self.registry)
        self.store = Store(self.db)
        if self._core:
            await self.store.ensure(*sorted(self.registry.core_types))
        await outbox.ensure_indexes(self.store)
        await ensure_indexes(self.db)
        await break_glass_log.ensure_indexes(self.db)
        await scheduling_operations.ensure_indexes(self.db)
        if self._rules is None:
            await numbers.ensure_indexes(self.db)
        self.interactions = Interactions(self.store, self.registry, strict_references=self._strict)
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.http = httpx.Client(base_url=f"{self.base_url}/fhir/", timeout=60)
        self._loop = asyncio.get_running_loop()
        self._uvicorn = uvicorn.Server(uvicorn.Config(self._app(), log_config=None, access_log=False))
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[listening]))
        while not self._uvicorn.started and not serving.done():
            await asyncio.sleep(0.005)
        self._started.set()
        await serving
        await self.db.client.close()

    def _app(self) -> ASGIApp:
        def metadata() -> Resource:
            return capability_statement(self.base_url, "0", "2026-01-01", self.registry)

        def terminology() -> Resource:
            return terminology_capabilities(self.base_url, "0", "2026-01-01")

        rest = Rest(
            self.interactions,
            lambda r: authenticate(self.tokens, r),
            base_url=self.base_url,
            metadata=metadata,
            terminology=terminology,
        )
        return Front(rest.edge(), FastAPI())

    def stop(self) -> None:
        self.http.close()
        self._uvicorn.should_exit = True
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)

    def token(self, scope: str = ALL) -> str:
        """A token with these scopes, as the authorization server would issue it."""
        with self._issuing:
            if scope not in self._tokens:
                self._tokens[scope] = self.run(self._issue(scope))
            return self._tokens[scope]

    async def _issue(self, scope: str) -> str:
        client_id = f"client-{len(self._tokens)}"
        await self.db["oauth_clients"].insert_one({"_id": client_id, "registration": "r"})
        client: Any = Client.__new__(Client)
        for name, value in {"client_id": client_id, "registration": "r", "scope": scope}.items():
            object.__setattr__(client, name, value)
        return await self.tokens.issue(client, scope, lifetime=3600)

    # Requests

    def send(self, method: str, path: str, body: Any = None, *, scope: str | None = ALL, **headers: str) -> httpx.Response:
        """A request below the base; `body` is a resource, or the bytes to send. Header names are given with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if scope is not None:
            sent["Authorization"] = f"Bearer {self.token(scope)}"
        content = body if isinstance(body, bytes | None) else fhir_json.dumps(body)
        if content is not None:
            sent.setdefault("Content-Type", JSON)
        return self.http.request(method, path, content=content, headers=sent)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.send("GET", path, **headers)

    def put(self, body: Resource, **headers: str) -> httpx.Response:
        return self.send("PUT", f"{body['resourceType']}/{body['id']}", body, **headers)

    def create(self, resource: Resource) -> Resource:
        answer = self.send("POST", resource["resourceType"], resource)
        assert answer.status_code == 201, answer.text
        return load(answer)

    def bundle(self, kind: str, *entries: Any, scope: str = ALL) -> httpx.Response:
        return self.send("POST", "", {"resourceType": "Bundle", "type": kind, "entry": list(entries)}, scope=scope)

    def search(self, query: str) -> Resource:
        """The searchset of a query such as `Patient?name=x`."""
        answer = self.get(query)
        assert answer.status_code == 200, answer.text
        return load(answer)

    def ids(self, query: str) -> list[str]:
        """The ids of the matches, in order."""
        return [e["resource"]["id"] for e in self.search(query).get("entry", ()) if e["search"]["mode"] == "match"]

    def pages(self, query: str) -> Iterator[list[str]]:
        """The ids of each page, by following the links."""
        url: str | None = query
        while url:
            found = self.search(url)
            yield [e["resource"]["id"] for e in found.get("entry", ()) if e["search"]["mode"] == "match"]
            url = next((link["url"] for link in found["link"] if link["relation"] == "next"), None)

    def audit(self, since: int = 0) -> list[Resource]:
        """All AuditEvents in the order of their making, from number `since` on."""

        async def read() -> list[Resource]:
            return [d["resource"] async for d in self.db["AuditEvent"].find(sort=[("$natural", 1)])]

        return self.run(read())[since:]

    def counts(self) -> dict[str, int]:
        """How many documents each collection has, but for those of the authorization server."""

        async def read() -> dict[str, int]:
            names = await self.db.list_collection_names()
            return {n: await self.db[n].count_documents({}) for n in sorted(names) if not n.startswith("oauth_")}

        return self.run(read())


@contextmanager
def serving(mongodb_uri: str, **options: Any) -> Iterator[FhirApp]:
    """A server for as long as the block lasts, on an empty database. What it logs is in `logs`, and not rendered."""
    with capture_logs() as logs:
        app = FhirApp(mongodb_uri, **options)
        app.logs = logs
        try:
            yield app
        finally:
            app.stop()
            databases.give_back(mongodb_uri, app.db.name)


def load(answer: httpx.Response) -> Resource:
    """The resource in an answer, its decimals as they were written."""
    return fhir_json.loads(answer.content)


def entry(method: str, url: str, resource: Resource | None = None, full_url: str | None = None, **request: str) -> Resource:
    """An entry of a Bundle."""
    made: Resource = {"request": {"method": method, "url": url, **request}}
    if resource is not None:
        made["resource"] = resource
    if full_url is not None:
        made["fullUrl"] = full_url
    return made


def put(resource: Resource, **request: str) -> Resource:
    return entry("PUT", f"{resource['resourceType']}/{resource['id']}", resource, **request)


def post(resource: Resource, full_url: str | None = None) -> Resource:
    return entry("POST", resource["resourceType"], resource, full_url)


def issues(answer: httpx.Response) -> list[tuple[str, str | None]]:
    """(code, expression) of each issue of a refusal, which must be an OperationOutcome."""
    return [(i["code"], i.get("expression", [None])[0]) for i in outcome(answer)["issue"]]


def outcome(answer: httpx.Response) -> Resource:
    """The OperationOutcome of a refusal. Nothing in it may be of Python's making."""
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"].startswith(JSON)
    found: Resource = json.loads(answer.content)
    assert found["resourceType"] == "OperationOutcome"
    for trace in ("Traceback", "Error(", "object at 0x", ".py", "<class", "NoneType", "pymongo"):
        assert trace not in answer.text, answer.text
    return found


def patient(**elements: Any) -> Resource:
    return {"resourceType": "Patient", **elements}
