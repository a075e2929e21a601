"""A Binary's content as it is, for who asks for another format than FHIR's (FHIR R4 2.36, Binary, "Serving Binary Resources")."""

import re
from typing import Final

from fhir_server.addresses import Address
from fhir_server.exchange import Reply
from fhir_server.http_body import FHIR_JSON
from fhir_server.outcome import fail

# RFC 9110 8.3.1, a media type with parameters; what R4 lets stand in Binary.contentType beyond that is no header.
_MEDIA_TYPE: Final = re.compile(
    r"""([\w!#$&^.+-]+/[\w!#$&^.+-]+)( *; *[\w!#$&^.+-]+=("[^"\x00-\x1f\x7f-]*"|[\w!#$&^.+-]+))*""", re.ASCII
)
_UNKNOWN: Final = "application/octet-stream"
_FHIR_XML: Final = "application/fhir+xml"
# Somebody has stored it: nothing of it is to run, or to be shown, as if it came from us.
_HARMLESS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Content-Disposition": "attachment",
}


def is_offered(address: Address, method: str) -> bool:
    """Whether something there can be had in another format than FHIR's."""
    return address.type == "Binary" and address.kind in {"instance", "version"} and method in {"GET", "HEAD"}


def native(read: Reply, wanted: str) -> Reply:
    """The answer to the read of a Binary, by what its caller takes. FhirError 406 when its content is of none of these types."""
    if read.resource is None:  # the caller has it already
        return read
    assert read.stored is not None
    kind, data = str(read.stored["contentType"]), read.stored.get("data", "")
    kind = kind if _MEDIA_TYPE.fullmatch(kind) else _UNKNOWN
    if not _takes(wanted, kind.partition(";")[0].strip().lower()):
        raise fail("not-supported", f"this Binary is offered as {kind}, and in {FHIR_JSON} (FHIR R4)", status=406)
    read.resource, read.native = {"resourceType": "Binary", "contentType": kind, "data": data}, True
    read.headers |= _HARMLESS
    return read


def _takes(wanted: str, kind: str) -> bool:
    ranges = {part.partition(";")[0].strip().lower() for part in wanted.split(",")} - {_FHIR_XML}
    return not ranges.isdisjoint({kind, f"{kind.partition('/')[0]}/*"})
