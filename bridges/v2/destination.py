"""Endpoint -> an outbound HL7 v2 destination (DESIGN.md 2.5): where it is, what it wants, and its dialect."""

from dataclasses import dataclass
from datetime import tzinfo
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from bridges.v2 import times
from bridges.v2.partner import headers as headers_of
from fhir_server.elements import codings
from fhir_server.registry import Resource

VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2")


@dataclass(frozen=True, slots=True)
class Destination:
    """One partner that gets messages.

    Headers: sending-application, sending-facility, receiving-application, receiving-facility, hl7-version (2.5.1),
    character-set (as in MSH-18; UNICODE UTF-8), time-zone (IANA; the department's), time-offset (`no`: times without it),
    ack-timeout (seconds), ack-mode (`enhanced`: its accept acknowledgement and then its application acknowledgement are asked for
    and waited for; else `original`), tls-server-name (the name in its certificate, where that isn't the host's), alert-after (how
    long its messages may wait before people are told; 10m).
    """

    reference: str
    headers: dict[str, str]
    wants: frozenset[str]
    zone: tzinfo

    @classmethod
    def of(cls, endpoint: Resource, department: tzinfo) -> "Destination":
        headers = headers_of(endpoint)
        wants = {c.get("code", "") for p in endpoint.get("payloadType", ()) for c in codings(p)}
        zone = ZoneInfo(headers["time-zone"]) if "time-zone" in headers else department
        return cls(f"Endpoint/{endpoint['id']}", headers, frozenset(wants), zone)

    @property
    def version(self) -> str:
        return self.headers.get("hl7-version", "2.5.1")

    def before(self, version: str) -> bool:
        """Whether the receiver speaks an older version than this: 2.4 brought message structures, 2.5 CWE and an end to TQ."""
        return VERSIONS.index(self.version) < VERSIONS.index(version)

    @property
    def enhanced(self) -> bool:
        """Whether its accept and its application acknowledgement are asked for (MSH-15, MSH-16)."""
        return self.headers.get("ack-mode") == "enhanced"

    @property
    def coded(self) -> str:
        """The type name of a coded element, for OBX-2."""
        return "CE" if self.before("2.5") else "CWE"

    @property
    def charset(self) -> str:
        return self.headers.get("character-set", "UNICODE UTF-8")

    def time(self, value: str | None) -> str:
        """A FHIR date, dateTime or instant as this receiver wants it."""
        return times.from_fhir(value, self.zone, offset=self.headers.get("time-offset", "yes") != "no") if value else ""


def address(endpoint: Resource) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken, of an address such as `mllp://ehr.example.org:2575`. ValueError for others."""
    place = urlsplit(str(endpoint.get("address", "")))
    if place.scheme not in {"mllp", "mllps"} or not place.hostname:
        raise ValueError("the address isn't mllp://host:port or mllps://host:port")
    return place.hostname, place.port or 2575, place.scheme == "mllps"


def enhanced(endpoint: Resource) -> bool:
    """Whether its application acknowledgement is waited for, after its accept acknowledgement."""
    return headers_of(endpoint).get("ack-mode") == "enhanced"


def ack_timeout(endpoint: Resource, default: float) -> float:
    """How many seconds this receiver may take to answer."""
    return float(headers_of(endpoint).get("ack-timeout", default))
