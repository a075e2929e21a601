"""Pages for people: Jinja templates with autoescape, one stylesheet, no script. Nothing on a page comes from another server.

`base.html` is the frame: a template extends it and fills the blocks `title` and `content`. Values that it understands:
`session` (who is logged in: shows the name and "Log out").
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_HERE = Path(__file__).parent
PALETTE = (_HERE / "assets" / "palette.css").read_bytes()
_STYLE = PALETTE + (_HERE / "assets" / "pages.css").read_bytes()
STYLESHEET = f"/assets/pages-{hashlib.sha256(_STYLE).hexdigest()[:16]}.css"

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_templates.globals["stylesheet"] = STYLESHEET


def page(
    template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, leads_out: bool = False, **values: object
) -> HTMLResponse:
    """The page that a template of `templates/` (such as `login.html`) makes of these values.

    `leads_out`: a form on it may end at another site, as a consent does at the app. Browsers hold redirects after a form to the
    policy's `form-action` too, which is therefore left out.
    """
    body = _templates.get_template(template).render({"session": None} | values)
    return HTMLResponse(body, status, security_headers(leads_out=leads_out) | dict(headers or {}))


def security_headers(*, leads_out: bool = False, scripts: bool = False) -> dict[str, str]:
    """What the browser is told with each page. `scripts`: those of our own run on it, and speak to us."""
    policy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    if scripts:
        policy += "; script-src 'self'; connect-src 'self'"
    return {
        "Content-Security-Policy": policy if leads_out else f"{policy}; form-action 'self'",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Pragma": "no-cache",
    }


async def _stylesheet(_request: Request) -> Response:
    unchanging = "public, max-age=31536000, immutable"  # its name has its hash
    headers = {"Cache-Control": unchanging, "X-Content-Type-Options": "nosniff"}
    return Response(_STYLE, media_type="text/css; charset=utf-8", headers=headers)


def routes() -> list[Route]:
    """What pages need beside themselves."""
    return [Route(STYLESHEET, _stylesheet)]
