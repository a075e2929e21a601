"""Pages and what belongs to them: Jinja templates with autoescape, one style sheet, scripts of our own from our own address.

`templates/base.html` is the frame: a template extends it and fills the blocks `title` and `content`. `templates/parts.html` has
the macros that all screens use. No style stands in a tag (Content-Security-Policy): classes, or SVG's own attributes.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from console.formats import FILTERS
from smart_auth.pages import PALETTE, security_headers

if TYPE_CHECKING:
    from console.visit import Visit

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def _assets() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((_HERE / "assets").iterdir()) if path.suffix in _TYPES}


_ASSETS = _assets() | {"palette.css": PALETTE}
# All under one name that changes with any of them, so that scripts can import each other.
_AT = f"/assets/console-{hashlib.sha256(b''.join(n.encode() + b for n, b in sorted(_ASSETS.items()))).hexdigest()[:16]}"

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_templates.filters.update(FILTERS)
_templates.globals["asset"] = lambda name: f"{_AT}/{name}" if name in _ASSETS else _missing(name)


def page(visit: "Visit", template: str, values: Mapping[str, Any]) -> HTMLResponse:
    """The page that a template makes of these values and of the visit."""
    from console.screens import menu

    known = {"visit": visit, "t": visit.t, "menu": menu(visit), "done": visit.asked("done"), **values}
    return html(_templates.get_template(template).render(known), visit.status)


def html(body: str, status: int = 200) -> HTMLResponse:
    """A page with the headers that keep it to itself."""
    return HTMLResponse(body, status, security_headers(scripts=True))


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return Response(status_code=404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_ASSETS[name], media_type=_TYPES[Path(name).suffix], headers=headers)


def _missing(name: str) -> str:
    raise KeyError(f"there is no asset {name}")


def routes() -> list[Route]:
    """Style sheet and scripts."""
    return [Route(f"{_AT}/{{name}}", _asset)]
