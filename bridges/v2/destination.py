"""Endpoint -> an outbound HL7 v2 destination (DESIGN.md 2.5): where it is, what it wants, and its dialect."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from bridges.v2 import times
from bridges.v2.charset import codec_of
from bridges.v2.datatypes import CWE
from bridges.v2.partner import duration, listed
from bridges.v2.partner import headers as headers_of
from bridges.v2.systems import SYSTEMS, name
from fhir_server.elements import codings
from fhir_server.registry import Resource

VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2")
MESSAGE: Final = "urn:fhir-ris:v2-message"  # the code system of what an Endpoint wants
# What we send, with the version that brought it. `none`: nothing, of an Endpoint that only sends.
KINDS: Final[dict[str, str]] = {
    **dict.fromkeys((f"SIU^S{n}" for n in (12, 13, 14, 15, 17, 26)), "2.3"),
    "ORM^O01": "2.1",
    "OMG^O19": "2.4",
    "OMI^O23": "2.5",
    "ORU^R01": "2.1",
    "DFT^P03": "2.1",
    "ADT^A08": "2.1",
    "ADT^A40": "2.3.1",
}
ORDER_KINDS: Final = ("ORM^O01", "OMG^O19", "OMI^O23")
PLACER: Final = "placer"
IMAGE_MANAGER: Final = "image-manager"
# (code system, code) of ours -> the receiver's coding.
Translations = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Header:
    """One header that an Endpoint may have: its default, which values it takes (`says` in words), and what it means."""

    name: str
    default: str
    takes: Callable[[str], bool]
    says: str
    meaning: str


def _one_of(*values: str) -> tuple[Callable[[str], bool], str]:
    return (lambda v: v in values), f"one of {', '.join(values)}"


def _each_of(*values: str) -> tuple[Callable[[str], bool], str]:
    return (lambda v: bool(listed(v)) and set(listed(v)) <= set(values)), f"a list of {', '.join(values)}"


def _number(least: int, most: int) -> tuple[Callable[[str], bool], str]:
    takes = re.compile(r"[1-9][0-9]{0,5}|0")
    return (lambda v: takes.fullmatch(v) is not None and least <= int(v) <= most), f"a number from {least} to {most}"


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


def _is_duration(text: str) -> bool:
    try:
        return bool(duration(text))
    except ValueError:
        return False


_TEXT: Final = ((lambda _: True), "a text")
_YES_NO: Final = _one_of("yes", "no")
HEADERS: Final = (
    Header("sending-application", "FHIR_RIS", *_TEXT, "MSH-3"),
    Header("sending-facility", "RAD", *_TEXT, "MSH-4"),
    Header("receiving-application", "", *_TEXT, "MSH-5"),
    Header("receiving-facility", "", *_TEXT, "MSH-6"),
    Header("processing-id", "P", *_one_of("P", "T", "D"), "MSH-11"),
    Header("hl7-version", "2.5.1", *_one_of(*VERSIONS), "MSH-12, and what depends on it"),
    Header("character-set", "UNICODE UTF-8", (lambda v: codec_of(v or "UTF-8") is not None), "a name of HL7 table 0211",
           "MSH-18 and the bytes. What the set lacks goes as what is nearest (ü as ue, a dash as -, "
           "3½ as 3 1/2, 10² as 10^2), else as ?; it is counted"),
    Header("time-zone", "RIS_TIME_ZONE", (lambda v: v in available_timezones()), "an IANA time zone", "of the times in messages"),
    Header("time-offset", "yes", *_YES_NO, "`no`: times without their offset"),
    Header("role", "by the message", *_each_of(PLACER, IMAGE_MANAGER),
           "what order messages tell it: a placer the status of its orders (RAD-3), an image manager, the PACS, the steps as "
           "they are scheduled, changed and done (RAD-4, RAD-13). Left out: ORM^O01 and OMG^O19 are for a placer, OMI^O23 for "
           "an image manager"),
    Header("completed-at", "report", *_one_of("exam", "report"),
           "when a placer is told CM: at the end of the examination, or (after A at its end) when the report is final"),
    Header("assigns-placer-numbers", "no", *_YES_NO,
           "`yes`: it is told of orders born here (SN), and the placer number of its answer (NA) is taken"),
    Header("report-style", "c", *_one_of("a", "b", "c", "d", "e"),
           "of ORU: a one text; b an OBX a line; c an OBX a section, with its LOINC code; d a PDF; e sections and a PDF"),
    Header("newline", "br", *_one_of("br", "repeat", "obx"),
           "line ends in the texts of a report: `\\.br\\`, a repetition of OBX-5, or an OBX a line"),
    Header("pdf", "yes", *_YES_NO, "`no`: PDFs of a report are not sent in the styles a, b and c"),
    Header("pdf-max-kb", "5000", *_number(1, 15000), "a larger document is not sent; an OBX with text says so"),
    Header("concept-map", "", (lambda v: re.fullmatch(r"(ConceptMap/[A-Za-z0-9\-.]{1,64})?", v) is not None), "ConceptMap/id",
           "translates the codes of procedures and results into the receiver's, ours becoming the alternate"),
    Header("code-first", "", *_TEXT, "names of code systems (LN, C4, ...): codes of these come first, in this order"),
    Header("check-structure", "no", *_YES_NO,
           "`yes`: each message is checked against HL7's definitions; one that doesn't fit is kept as `invalid` and not sent, "
           "and a work item says so"),
    Header("ack-timeout", "10", *_number(1, 999), "seconds that the receiver may take to answer"),
    Header("ack-mode", "original", *_one_of("original", "enhanced"),
           "`enhanced`: its accept and then its application acknowledgement are asked for (MSH-15, MSH-16) and waited for"),
    Header("tls-server-name", "the host", _matches(r"[A-Za-z0-9.-]{1,253}"), "a host name", "the name in its certificate"),
    Header("alert-after", "10m", _is_duration, "a time such as 10m, 12h or 2d",
           "how long its messages may wait before people are told"),
)  # fmt: skip
_DEFAULTS: Final = {h.name: h.default for h in HEADERS}


@dataclass(frozen=True, slots=True)
class Destination:
    """One partner that gets messages; its headers are `HEADERS`."""

    reference: str
    headers: dict[str, str]
    wants: frozenset[str]
    zone: tzinfo
    translations: Translations = field(default_factory=dict)
    _first: tuple[str, ...] = ()
    _level: int = VERSIONS.index("2.5.1")

    @classmethod
    def of(cls, endpoint: Resource, department: tzinfo, translations: Translations | None = None) -> "Destination":
        headers = headers_of(endpoint)
        wants = {c.get("code", "") for p in endpoint.get("payloadType", ()) for c in codings(p)}
        zone = ZoneInfo(headers["time-zone"]) if "time-zone" in headers else department
        return cls(
            f"Endpoint/{endpoint['id']}", headers, frozenset(wants), zone, translations or {},
            tuple(SYSTEMS.get(n.upper(), n) for n in listed(headers.get("code-first", ""))),
            VERSIONS.index(headers.get("hl7-version", "2.5.1")),
        )  # fmt: skip

    def says(self, header: str) -> str:
        """The value of a header, or its default."""
        return self.headers.get(header, _DEFAULTS[header])

    @property
    def version(self) -> str:
        return self.says("hl7-version")

    def before(self, version: str) -> bool:
        """Whether the receiver speaks an older version than this: 2.4 brought message structures, 2.5 TQ1, IPC and CWE."""
        return self._level < VERSIONS.index(version)

    @property
    def enhanced(self) -> bool:
        """Whether its accept and its application acknowledgement are asked for (MSH-15, MSH-16)."""
        return self.says("ack-mode") == "enhanced"

    @property
    def coded(self) -> str:
        """The type name of a coded element, for OBX-2."""
        return "CE" if self.before("2.5") else "CWE"

    @property
    def charset(self) -> str:
        return self.says("character-set") or "UNICODE UTF-8"

    def roles(self, kind: str) -> list[str]:
        """In which roles it wants order messages of this kind."""
        said = self.headers.get("role")
        return listed(said) if said else [IMAGE_MANAGER if kind == "OMI^O23" else PLACER]

    def order_kinds(self, role: str) -> list[str]:
        """The kinds of order messages that it wants in this role. OMI is of steps and their study, and tells no placer."""
        return [k for k in ORDER_KINDS if k in self.wants and role in self.roles(k) and (role, k) != (PLACER, "OMI^O23")]

    def time(self, value: str | None) -> str:
        """A FHIR date, dateTime or instant as this receiver wants it."""
        return times.from_fhir(value, self.zone, offset=self.says("time-offset") != "no") if value else ""

    def code(self, concept: dict[str, Any] | None) -> CWE:
        """A CodeableConcept: the receiver's code and ours as the alternate, else the first two codes there are."""
        found = list(codings(concept or {}))
        text = (concept or {}).get("text", "")
        if self.translations:
            theirs = [t for c in found if (t := self.translations.get((c.get("system", ""), c.get("code", ""))))]
            found = [*(dict(t) for t in theirs[:1]), *found]
        if self._first:
            found.sort(key=lambda c: self._rank(c.get("system", "")))
        parts: list[str] = []
        for coding in found[:2]:
            parts += [coding.get("code", ""), coding.get("display") or text, name(coding.get("system", ""))]
        return CWE(*parts) if parts else CWE(text=text)

    def _rank(self, system: str) -> int:
        return next((i for i, wanted in enumerate(self._first) if wanted in {system, name(system)}), len(self._first))


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


def is_v2(endpoint: Resource | None) -> bool:
    """Whether this is an HL7 v2 Endpoint."""
    return endpoint is not None and endpoint.get("connectionType", {}).get("code") == "hl7v2-mllp"
