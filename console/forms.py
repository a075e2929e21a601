"""What a form of ours sends: of limited size, from our own page, with the session's token (smart_auth/page_forms.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from smart_auth.page_forms import PageError, from_us, same_token

LARGEST = 1 << 20  # bytes: a long report and its history of changes
_MOST_FIELDS = 2000
_CONTENT_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form; those left empty count as not there."""

    fields: Mapping[str, list[str]]

    def get(self, name: str) -> str | None:
        """The text of a field without the blanks around it; None for an empty one."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        """The texts of a field that may be there several times, such as a list of check boxes."""
        return [text for value in self.fields.get(name, ()) if (text := value.replace("\r\n", "\n").strip())]

    def text(self, name: str) -> str:
        """The same as one text, "" for none."""
        return self.get(name) or ""

    def named(self, beginning: str) -> dict[str, str]:
        """The fields whose names begin so, without the beginning: `answer.` gives {"1": "yes"} of `answer.1`."""
        return {n.removeprefix(beginning): t for n in self.fields if n.startswith(beginning) and (t := self.get(n))}


async def posted(request: Request, csrf: str, own_origin: str) -> Form:
    """The form in the body. PageError 403 when it isn't ours, 413 when it is too large."""
    if not from_us(request, own_origin):
        raise PageError("from-another-site", "", 403)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _CONTENT_TYPE:
        raise PageError("not-a-form", "", 415)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                raise PageError("too-large", "", 413)
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except (ValueError, ClientDisconnect):
        raise PageError("not-a-form", "", 400) from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    if not same_token("".join(fields.pop("csrf", [])), csrf):
        raise PageError("out-of-date", "", 403)
    return Form(fields)
