"""Forms of our own pages: where they may come from, their CSRF token, and which paths a login may lead to."""

import hmac
import re
from urllib.parse import urlsplit

from starlette.requests import Request

from smart_auth.forms import OAuthError, read_form

_LONGEST_PATH = 4000


class PageError(Exception):
    """A refusal that is shown as a page (`refused.html`): what happened, and what the reader can do."""

    def __init__(self, title: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.title, self.text, self.status = title, text, status


async def posted(request: Request, csrf: str, own_origin: str) -> dict[str, str]:
    """The fields of a form of ours; `csrf` is the token that it must carry. Raises PageError.

    `own_origin` is scheme, host and port that the outside calls us by, such as https://ris.example.
    """
    if not from_us(request, own_origin):
        raise PageError("This request came from another site", "Nothing was done. Open the page here and try again.", 403)
    try:
        form = await read_form(request)
    except OAuthError as error:
        raise PageError(
            "This request can't be read", "Nothing was done. Go back, load the page again and retry.", error.status
        ) from None
    if not same_token(form.pop("csrf", ""), csrf):
        raise PageError(
            "This page is out of date", "Nothing was done. It was open for too long, or cookies are off. Start again.", 403
        )
    return form


def internal_path(text: str | None, otherwise: str = "/account") -> str:
    """`text` if it is a path on this server, to be led to after a login (no open redirector, RFC 9700 4.11); else `otherwise`."""
    if not text or len(text) > _LONGEST_PATH or not re.fullmatch(r"/(?![/\\])[!-~]*", text) or "\\" in text:
        return otherwise
    try:
        url = urlsplit(text)
    except ValueError:
        return otherwise
    return text if not url.scheme and not url.netloc else otherwise


def same_token(given: str, csrf: str) -> bool:
    """Whether a form carries the token that it must; no form does where there is none."""
    return bool(csrf) and hmac.compare_digest(given.encode(), csrf.encode())


def from_us(request: Request, own_origin: str) -> bool:
    """Whether a form comes from a page of ours, by what browsers add. Other clients add nothing; then the token decides."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:  # also right under `Referrer-Policy: no-referrer`, where browsers hide the origin
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or origin == own_origin
