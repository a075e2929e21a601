"""OBX of type ED and RP -> Attachment: documents in a result, and pointers to them (HL7 v2.5.1 2.A.24, 2.A.65)."""

import base64
import binascii
import email
import email.message
import re
from typing import Any, Final

from bridges.v2.message import Field, Segment
from bridges.v2.refused import Refused, wrong
from resources.report_section import attachment

MAX_SIZE: Final = 8 * 1024 * 1024  # bytes of a document; in base64 it shares 16 MiB with the rest of its report
_PLAIN: Final = frozenset({"", "A", "ASCII"})
# Table 0191 (ED.2) -> MIME main type. Others are taken as they are, when they are one.
_MAIN: Final = {
    "AP": "application",
    "APPLICATION": "application",
    "AU": "audio",
    "AUDIO": "audio",
    "FT": "text",
    "IM": "image",
    "IMAGE": "image",
    "MULTIPART": "multipart",
    "NS": "application",
    "SD": "application",
    "SI": "image",
    "TEXT": "text",
    "TX": "text",
}
_SUB: Final = {"HTM": "html", "JPG": "jpeg", "OCTET": "octet-stream", "TXT": "plain"}
_CDA: Final = re.compile(rb"<(?:\w+:)?ClinicalDocument[\s>]")
_MIME: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+")
_URL: Final = re.compile(r"(?:https?|ftp|sftp|dicom|urn):\S+", re.IGNORECASE)


def documents(obx: Segment) -> list[dict[str, Any]]:
    """The Attachments of an ED, one for each repetition; data that isn't encoded is one, whatever it holds."""
    whole = obx.unsplit(5)
    return [_document(obx, f) for f in ([whole] if _encoding(whole) in _PLAIN else obx.repetitions(5)) if f.raw.strip()]


def _encoding(field: Field) -> str:
    """ED.4, of table 0299."""
    return field.get(4).strip().upper()


def _document(obx: Segment, field: Field) -> dict[str, Any]:
    """The Attachment of one ED. Refused when it isn't what it says, or too large."""
    if not field.rest(5).raw.strip():
        raise wrong(obx, 5, "a document (ED) has its data in the fifth component", code=101, component=5)
    data = _decoded(obx, _encoding(field), field.rest(5))
    kind = _mime(field.get(2), field.get(3), data)
    if kind.startswith("multipart/"):
        kind, data = _first_part(kind, data)
    if not data.strip():
        raise _bad(obx, "the document is empty")
    if len(data) > MAX_SIZE:
        raise _bad(obx, f"a document has at most {MAX_SIZE // 1024 // 1024} MiB")
    if kind == "application/pdf" and b"%PDF-" not in data[:1024]:
        raise _bad(obx, "the document says that it is a PDF, and is none")
    return attachment(kind, data, obx.get(3, 2) or obx.get(3))


def _bad(obx: Segment, text: str) -> Refused:
    return wrong(obx, 5, text, code=102, component=5)


def _decoded(obx: Segment, encoding: str, said: Field) -> bytes:
    """The bytes of ED.5. Line breaks in base64 and hexadecimal are layout; unescaped separators in plain data are data."""
    packed = "".join(said.raw.split())
    try:
        if encoding in {"BASE64", "B64"}:
            return base64.b64decode(packed, validate=True)
        if encoding in {"HEX", "HEXADECIMAL"}:
            return bytes.fromhex(packed)
    except (binascii.Error, ValueError):
        raise _bad(obx, f"the document is not {encoding.lower()}") from None
    if encoding in _PLAIN:
        return said.text.encode()
    raise wrong(obx, 5, "the encoding is none of table 0299", code=103, component=4)


def _mime(main: str, sub: str, data: bytes) -> str:
    """The content type of ED.2 and ED.3: `AP` and `PDF`, `application` and `pdf`, or a whole MIME type in either."""
    for said in (sub.strip().lower(), main.strip().lower()):
        if _MIME.fullmatch(said):
            return "text/xml" if said.endswith("/xml") and _CDA.search(data) else said
    main, sub = main.strip().upper(), sub.strip().lower()
    if main == "MULTIPART":
        return f"multipart/{sub or 'mixed'}"
    if sub in {"xml", "cda", "x-hl7-cda-level-one"} or _CDA.search(data[:4096]):
        return "text/xml"
    if sub == "pdf" or (not sub and data.startswith(b"%PDF-")):
        return "application/pdf"
    if not sub:
        sub = "plain" if _MAIN.get(main) == "text" else "octet-stream"
    kind = f"{_MAIN.get(main, 'application')}/{_SUB.get(sub, sub)}"
    return kind if _MIME.fullmatch(kind) else "application/octet-stream"


def _first_part(kind: str, data: bytes) -> tuple[str, bytes]:
    """The first part of a MIME package that is no package itself: the document, as CDA is sent in v2 (HL7 CDA R2, 3)."""
    package = email.message_from_bytes(data.lstrip())
    if not package.is_multipart():
        return kind.replace("multipart/", "application/"), data
    part = next(p for p in package.walk() if not p.is_multipart())
    content = part.get_payload(decode=True)
    found = content if isinstance(content, bytes) else b""
    said = part.get_content_type()
    return ("text/xml" if _CDA.search(found[:4096]) else said), found


def pointer(field: Field, title: str) -> dict[str, Any] | None:
    """The Attachment of an RP whose pointer is a URL; None for one that only the sender's system understands."""
    url = field.whole(1).strip()
    if not _URL.fullmatch(url):
        return None
    kind = _mime(field.get(3), field.get(4), b"") if field.get(3) or field.get(4) else ""
    return {"url": url} | ({"contentType": kind} if kind else {}) | ({"title": title} if title else {})
