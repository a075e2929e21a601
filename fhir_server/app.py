"""Puts the rooms together: the rules of `resources/`, the projections of the bridges, the doors of HTTP.

What only a server needs is imported where it is needed: `fhir-ris load` starts several processes that are none.
"""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from bridges.dicom import dicom_endpoints, study_watch, worklist_rows
from bridges.payer import outbound as payer_outbound
from bridges.v2 import destinations, message_log, order_parked, outbound, parked_sweep, routes
from bridges.v2.delivery import Delivery
from bridges.v2.door import listener
from bridges.v2.inbound import Inbound
from bridges.v2.watch import Watcher
from fhir_server import audit, clock, cors, metrics, outbox
from fhir_server.audit import Act
from fhir_server.audit_key import audit_key, report_signing_key
from fhir_server.chart import RecordChart
from fhir_server.front import Front, Measured
from fhir_server.heartbeat import Heartbeat
from fhir_server.interactions import Interactions
from fhir_server.operations import standard
from fhir_server.outcome import FhirError
from fhir_server.refusal_trail import RefusalTrail
from fhir_server.registry import Registry
from fhir_server.rest import Rest
from fhir_server.settings import Settings
from fhir_server.start_error import StartError, taken_address
from fhir_server.store import Document, Store
from fhir_server.tls_files import TlsError, TlsFiles, dicom_tls, mllp_tls
from resources import numbers, patient_merge, reconcile_operation, registration
from resources.coverage import watch as authorization_watch
from resources.numbers import measures
from resources.reading import watch as reading_watch
from resources.reading.signature import Signer
from resources.reading.signing import ReportSigning
from resources.safety import questionnaires
from resources.scheduling import operations as scheduling_operations
from resources.scheduling.watch import ScheduleWatch
from smart_auth import break_glass_log
from smart_auth.access import Access
from smart_auth.break_glass import BreakGlass
from smart_auth.endpoints import JWKS_PATH, REVOKE_PATH, TOKEN_PATH
from smart_auth.tokens import Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

    from bridges.dicom.server import DicomServer, DicomSettings
    from smart_auth.jwks_fetcher import JwksFetcher

# Set for an HTTP worker: the instance that supervises it.
SUPERVISOR = "RIS_SUPERVISOR"
VERSION = version("fhir-ris")


@dataclass(slots=True)
class Ris:
    """Everything that one process needs to play any role."""

    settings: Settings
    db: AsyncDatabase[Document]
    interactions: Interactions
    tokens: Tokens
    inbound: Inbound
    watcher: Watcher
    delivery: Delivery
    tls: TlsFiles
    dicom: "DicomServer"
    heartbeat: Heartbeat
    refusals: RefusalTrail
    # Set when the process is about to end, for what would else go on for as long as a browser listens.
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    # Component name -> whether it does its work; what `/readyz` asks.
    components: dict[str, Callable[[], bool]] = field(default_factory=dict)


async def interactions_over(settings: Settings, db: AsyncDatabase[Document], tokens: Tokens | None = None) -> Interactions:
    """The interactions with all rules, reactions and projections over a database, and the indexes that they need.

    `tokens` are those that operations on somebody's own rights work on; without them there are none.
    """
    registry = Registry()
    registration.register(registry, uid_root=settings.uid_root, zone=settings.zone)
    standard.register(registry)
    registry.projection(worklist_rows.WorklistRows(settings.zone).project)
    registry.projection(study_watch.project)
    registry.projection(outbound.Outbound(settings.zone).project, destinations.ASKED)
    registry.projection(payer_outbound.project)
    numbers.register(registry, settings.zone)
    routes.register(registry)
    dicom_endpoints.register(registry)
    reconcile_operation.register(registry)
    ReportSigning(Signer(report_signing_key(settings.data_dir)), settings.sign_second_factor_minutes).register(registry)
    scheduling_operations.register(registry, settings.zone)
    if tokens is not None:
        BreakGlass(tokens).register(registry)
    store = Store(db, audit_key=audit_key(settings.data_dir))
    await store.ensure(*sorted(registry.core_types))
    await outbox.ensure_indexes(store)
    await message_log.ensure_indexes(db)
    await order_parked.ensure_indexes(db)
    await patient_merge.ensure_indexes(db)
    await worklist_rows.ensure_indexes(db)
    await study_watch.ensure_indexes(db)
    await authorization_watch.ensure_indexes(db)
    await break_glass_log.ensure_indexes(db)
    await scheduling_operations.ensure_indexes(db)
    await numbers.ensure_indexes(db)
    return Interactions(store, registry, strict_references=settings.referential_integrity == "strict")


async def assemble(settings: Settings, db: AsyncDatabase[Document]) -> Ris:
    """Build the product over a database: interactions, bridges, and the indexes that they need."""
    from bridges.dicom.server import DicomServer
    from smart_auth import people
    from smart_auth import routes as oauth

    tls = mllp_tls(settings)
    try:
        tls.check()
    except TlsError as error:
        raise StartError(str(error)) from None
    tokens = Tokens(db)
    interactions = await interactions_over(settings, db, tokens)
    await oauth.ensure_indexes(db)
    await people.ensure_indexes(db)
    await measures.install(interactions)
    inbound = Inbound(interactions, settings.zone)
    return Ris(
        settings=settings,
        db=db,
        interactions=interactions,
        tokens=tokens,
        heartbeat=Heartbeat(db, os.environ.get(SUPERVISOR)),
        refusals=RefusalTrail(interactions.store, interactions.reads),
        inbound=inbound,
        watcher=Watcher(interactions, inbound),
        delivery=Delivery(interactions, tls=tls),
        tls=tls,
        dicom=DicomServer(
            interactions,
            _dicom_settings(settings),
        ),
    )


async def publish(ris: Ris) -> None:
    """Store the questionnaires that safety screening asks by."""
    await questionnaires.publish(ris.interactions)


def http_app(ris: Ris, *, fetcher: "JwksFetcher | None" = None) -> ASGIApp:
    """The ASGI application: FHIR, OAuth, the console, health and metrics. `fetcher` gets the keys of clients with a JWKS URL."""
    from fastapi import FastAPI

    from capability import documents
    from capability.smart_configuration import DISCOVERY
    from capability.statement import capability_statement, terminology_capabilities
    from console import routes as console
    from console.live import Changes
    from console.visit import Console
    from smart_auth import account_pages, login_pages, pages, people, people_audit
    from smart_auth import routes as oauth
    from smart_auth.origins import RegisteredOrigins
    from smart_auth.smart_style import STYLE_PATH

    app = FastAPI(title="fhir-ris", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    base_url = ris.settings.base_url
    started = clock.instant(clock.now())
    metadata = functools.cache(
        lambda: capability_statement(
            base_url,
            VERSION,
            started,
            ris.interactions.registry,
            strict_references=ris.settings.referential_integrity == "strict",
        )
    )
    terminology = functools.cache(lambda: terminology_capabilities(base_url, VERSION, started))

    async def authenticate(request: Request) -> Access:
        try:
            return await oauth.authenticate(ris.tokens, request)
        except FhirError as refusal:
            if refusal.status == 401:
                await ris.refusals.note(request, refusal.issues[0].diagnostics)
            raise

    async def audit_oauth(event: str, granted: bool, client_id: str | None, detail: str, user: str | None = None) -> None:
        access = Access(client_id or "unknown", (), "", user_name=user)
        act = Act(event, source="oauth", detail=detail or None)
        await ris.interactions.reads.write(audit.audit_event(act, access, (), failed=None if granted else detail or "refused"))

    async def audit_people(event: str, ok: bool, name: str | None, detail: str, peer: str) -> None:
        await ris.interactions.reads.write(people_audit.of_user(event, ok, name, detail, peer))

    _add_health(app, ris)
    origins = RegisteredOrigins(ris.db)
    rest = Rest(ris.interactions, authenticate, base_url=base_url, metadata=metadata, terminology=terminology, origins=origins)
    chart, data_dir = RecordChart(ris.interactions), ris.settings.data_dir
    server = oauth.router(ris.db, ris.tokens, base_url, audit_oauth, data_dir=data_dir, chart=chart, fetcher=fetcher)
    app.router.routes.extend(server.routes)
    app.router.routes.extend(documents.routes(base_url, ris.dicom.services))
    those = people.People.over(ris.interactions.store, base_url, ris.settings.data_dir, audit_people)
    app.router.routes.extend([*pages.routes(), *login_pages.routes(those), *account_pages.routes(those)])
    desk = Console(rest, ris.interactions, those, ris.tokens, ris.settings, Changes(ris.db, ris.ending))
    app.router.routes.extend(console.routes(desk))
    cors.open_routes(app.router.routes, (*DISCOVERY, JWKS_PATH, STYLE_PATH))
    cors.open_routes(app.router.routes, (TOKEN_PATH, REVOKE_PATH), origins)
    return Measured(Front(rest.edge(), app))


def _add_health(app: "FastAPI", ris: Ris) -> None:
    """Liveness, readiness by component, and metrics: for whoever reaches the port."""

    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> Response:
        states = {"mongodb": await _reachable(ris.db)}
        if states["mongodb"]:
            states |= await ris.heartbeat.of_supervisor()
        states |= {name: ready() for name, ready in ris.components.items()}
        return JSONResponse({n: "ready" if ok else "not ready" for n, ok in states.items()}, 200 if all(states.values()) else 503)

    async def show_metrics(_request: Request) -> Response:
        own = CollectorRegistry()
        await _count_outbox(ris.db, metrics.outbox_gauge(own), metrics.outbox_age_gauge(own))
        metrics.parked_gauge(own).set(await ris.db[order_parked.COLLECTION].estimated_document_count())
        return Response(metrics.latest(own), media_type=CONTENT_TYPE_LATEST)

    app.add_route("/livez", livez)
    app.add_route("/readyz", readyz)
    app.add_route("/metrics", show_metrics)


async def _reachable(db: AsyncDatabase[Document]) -> bool:
    try:
        return bool((await db.client.admin.command("hello", maxTimeMS=2000)).get("isWritablePrimary"))
    except PyMongoError:
        return False


async def _count_outbox(db: AsyncDatabase[Document], gauge: Gauge, ages: Gauge) -> None:
    waiting = {"$match": {"state": {"$in": ["pending", "refused", "dead"]}}}
    key = {"destination": "$destination", "state": "$state"}
    now = clock.naive(clock.now())
    async for row in await db[outbox.COLLECTION].aggregate(
        [waiting, {"$group": {"_id": key, "n": {"$sum": 1}, "oldest": {"$min": "$created"}}}]
    ):
        destination, state = row["_id"]["destination"], row["_id"]["state"]
        gauge.labels(destination, state).set(row["n"])
        if state == "pending":
            ages.labels(destination).set((now - row["oldest"]).total_seconds())


@contextlib.asynccontextmanager
async def mllp_door(ris: Ris) -> AsyncIterator[None]:
    settings = ris.settings
    server = listener(ris.inbound, ris.interactions, settings.mllp_host, settings.mllp_port, ris.tls)
    async with ris.inbound.accepted.finishing():
        try:
            await server.start()
        except OSError as error:
            raise StartError(taken_address("MLLP", settings.mllp_host, settings.mllp_port, error)) from None
        listening = True
        ris.components["v2"] = lambda: listening
        try:
            async with patient_merge.finishing(ris.interactions), parked_sweep.sweeping(ris.interactions):
                yield
        finally:
            listening = False
            await server.stop(grace=5)


def _dicom_settings(settings: Settings) -> "DicomSettings":
    """Where DICOM listens, how, and for how long. StartError when the TLS files can't be used."""
    from bridges.dicom.server import DicomSettings
    from bridges.dicom.upper_layer.acceptor import Limits
    from bridges.dicom.upper_layer.association import Times

    files = dicom_tls(settings)
    try:
        files.check()
    except TlsError as error:
        raise StartError(str(error)) from None
    return DicomSettings(
        settings.dicom_host,
        settings.dicom_port,
        settings.ae_title,
        settings.zone,
        tls_port=settings.dicom_tls_port,
        tls=files if files.listens else None,
        last_worklist_seconds=settings.dicom_last_worklist_seconds,
        times=Times(idle=settings.dicom_idle_seconds, total=settings.dicom_association_seconds),
        limits=Limits(total=settings.dicom_max_associations),
    )


@contextlib.asynccontextmanager
async def dicom_door(ris: Ris) -> AsyncIterator[None]:
    from bridges.dicom.server import DicomServerError
    from bridges.dicom.watch import ScannerWatch

    try:
        await ris.dicom.start()
    except DicomServerError as error:
        raise StartError(str(error)) from None
    ris.components["dicom"] = lambda: ris.dicom.listening
    try:
        async with ScannerWatch(ris.interactions).running():
            yield
    finally:
        await ris.dicom.stop()


@contextlib.asynccontextmanager
async def pacs_workers(ris: Ris) -> AsyncIterator[None]:
    """What goes on by itself: steps forwarded, studies looked up, abandoned steps asked about, slots kept and holds ended."""
    from bridges.dicom import mpps_watch
    from bridges.dicom.mpps_delivery import MppsDelivery
    from bridges.dicom.pacs_worker import PacsWorker

    async with contextlib.AsyncExitStack() as stack:
        delivery = MppsDelivery(ris.interactions, ris.settings.ae_title, tls=dicom_tls(ris.settings))
        await stack.enter_async_context(delivery.running())
        await stack.enter_async_context(
            PacsWorker(ris.interactions, ris.settings.zone, credentials=ris.settings.dicomweb_credentials).running()
        )
        await stack.enter_async_context(mpps_watch.watching(ris.interactions))
        await stack.enter_async_context(ScheduleWatch(ris.interactions, ris.settings.zone).running())
        yield


@contextlib.asynccontextmanager
async def department_watches(ris: Ris) -> AsyncIterator[None]:
    """What nobody has done in time is escalated."""
    async with reading_watch.watching(ris.interactions):
        yield


@contextlib.asynccontextmanager
async def payer_workers(ris: Ris) -> AsyncIterator[None]:
    """Payers are asked, and authorizations watched."""
    from bridges.payer.client import Payers
    from bridges.payer.delivery import PayerDelivery

    async with contextlib.AsyncExitStack() as stack:
        client = Payers(ris.settings.payer_credentials)
        await stack.enter_async_context(PayerDelivery(ris.interactions, client).running())
        await stack.enter_async_context(authorization_watch.AuthorizationWatch(ris.interactions, ris.settings.zone).running())
        yield
