"""`smart_style_url`: how apps may look to fit in (SMART App Launch 2.2, "styling"; experimental there). New content, new URL."""

import hashlib
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# The colours and measures of assets/pages.css, in its light form.
_STYLE = json.dumps(
    {
        "color_background": "#f2f5f7",
        "color_error": "#a4161a",
        "color_highlight": "#0b5c7d",
        "color_modal_backdrop": "",
        "color_success": "#1d6b3a",
        "color_text": "#17242d",
        "dim_border_radius": "5px",
        "dim_font_size": "16px",
        "dim_spacing_size": "16px",
        "font_family_body": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
        "font_family_heading": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    }
).encode()
STYLE_PATH = f"/assets/smart-style-{hashlib.sha256(_STYLE).hexdigest()[:16]}.json"


async def _style(_request: Request) -> Response:
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(_STYLE, media_type="application/json", headers=headers)


def routes() -> list[Route]:
    return [Route(STYLE_PATH, _style)]
