"""The addresses of what we say of ourselves: SMART discovery, HL7 v2 profiles, the DICOM Conformance Statement."""

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bridges.dicom.upper_layer.services import Service
from capability import dicom_conformance, v2_profile
from capability.smart_configuration import DISCOVERY

_CACHED = {"Cache-Control": "public, max-age=300"}


def routes(base_url: str, services: Iterable[Service]) -> list[Route]:
    """All of them. `services`: the DICOM services that are offered."""
    discovery = [Route(path, _document(document(base_url))) for path, document in DISCOVERY.items()]
    return [*discovery, *_v2_profiles(), _dicom_conformance(services)]


def _v2_profiles() -> list[Route]:
    """The HL7 v2 conformance profiles: a list, and a document for each message and direction."""
    known = {f"{direction}/{kind}_{event}.xml": (kind, event, direction) for kind, event, direction in v2_profile.profiles()}
    make = functools.cache(v2_profile.profile)

    async def show(request: Request) -> Response:
        found = known.get(request.path_params["name"])
        return Response(make(*found), media_type="application/xml") if found else Response(status_code=404)

    return [
        Route("/hl7v2/profiles", _document({"profiles": [f"/hl7v2/profiles/{name}" for name in sorted(known)]})),
        Route("/hl7v2/profiles/{name:path}", show),
    ]


def _dicom_conformance(services: Iterable[Service]) -> Route:
    """The DICOM Conformance Statement, for whoever connects a scanner or a PACS."""
    make = functools.cache(lambda: dicom_conformance.page(dicom_conformance.markdown(services)))

    async def show(_request: Request) -> Response:
        return HTMLResponse(make(), headers=_CACHED)

    return Route("/dicom-conformance", show)


def _document(content: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    async def show(_request: Request) -> Response:
        return JSONResponse(content, headers=_CACHED)

    return show
