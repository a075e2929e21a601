"""FHIR -> the segments that outbound messages share: MSH, PID, PV1, ORC, OBR (HL7 v2.3.1 to 2.5.1)."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bridges.v2 import times
from bridges.v2.charset import codec_of
from bridges.v2.datatypes import CWE, CX, EI, XCN, XPN
from bridges.v2.message import Comp, Raw, Seg
from bridges.v2.systems import OWN, RAW, cx_of, ei_of, name
from fhir_server.elements import codes, codings, extension, identifier_of_type, identifier_value
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms

_GENDER = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_PRIORITY = {"stat": "S", "asap": "A", "urgent": "A", "routine": "R"}
_NAME_TYPE = {"official": "L", "usual": "D", "maiden": "M", "anonymous": "A", "nickname": "N"}
_CLASS = {"EMER": "E", "IMP": "I", "AMB": "O", "PRENC": "P"}


VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2")


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What every message about an order tells: read once, used for each destination."""

    order: Resource
    procedure: Resource | None
    patient: Resource
    encounter: Resource | None
    requester: Resource | None


@dataclass(frozen=True, slots=True)
class Destination:
    """An Endpoint as an outbound v2 destination (DESIGN.md 2.5): its dialect.

    Headers: sending-application, sending-facility, receiving-application, receiving-facility, hl7-version (2.5.1),
    character-set (as in MSH-18; UNICODE UTF-8), time-zone (IANA; the department's), time-offset (`no`: times without it),
    ack-timeout (seconds, 1 to 300).
    """

    reference: str
    headers: dict[str, str]
    wants: frozenset[str]
    zone: tzinfo

    @classmethod
    def of(cls, endpoint: Resource, department: tzinfo) -> "Destination":
        headers = _headers(endpoint)
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
    def coded(self) -> str:
        """The type name of a coded element, for OBX-2."""
        return "CE" if self.before("2.5") else "CWE"

    @property
    def charset(self) -> str:
        return self.headers.get("character-set", "UNICODE UTF-8")

    def time(self, value: str | None) -> str:
        """A FHIR date, dateTime or instant as this receiver wants it."""
        return times.from_fhir(value, self.zone, offset=self.headers.get("time-offset", "yes") != "no") if value else ""


def _headers(endpoint: Resource) -> dict[str, str]:
    pairs = (str(header).partition(":") for header in endpoint.get("header", ()))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def address(endpoint: Resource) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken, of an address such as `mllp://ehr.example.org:2575`. ValueError for others."""
    place = urlsplit(str(endpoint.get("address", "")))
    if place.scheme not in {"mllp", "mllps"} or not place.hostname:
        raise ValueError("the address isn't mllp://host:port or mllps://host:port")
    return place.hostname, place.port or 2575, place.scheme == "mllps"


def ack_timeout(endpoint: Resource) -> float | None:
    """How long this receiver may take to answer, in seconds, where its Endpoint says so. ValueError when that is no time."""
    text = _headers(endpoint).get("ack-timeout")
    seconds = float(text) if text else None
    if seconds is not None and not 1 <= seconds <= 300:
        raise ValueError("ack-timeout is a number of seconds from 1 to 300")
    return seconds


def check_endpoint(endpoint: Resource) -> None:
    """FhirError when no message could be written for an HL7 v2 Endpoint, or sent to it."""
    if endpoint.get("connectionType", {}).get("code") != "hl7v2-mllp":
        return
    headers = _headers(endpoint)
    try:
        address(endpoint)
    except ValueError as error:
        raise fail("value", str(error), "Endpoint.address", status=422) from None
    if headers.get("hl7-version", "2.5.1") not in VERSIONS:
        raise fail("value", f"hl7-version is one of {', '.join(VERSIONS)}", "Endpoint.header", status=422)
    if codec_of(headers.get("character-set", "UTF-8")) is None:
        raise fail("value", "character-set is none of HL7 table 0211", "Endpoint.header", status=422)
    try:
        ack_timeout(endpoint)
    except ValueError:
        raise fail("value", "ack-timeout is a number of seconds from 1 to 300", "Endpoint.header", status=422) from None
    try:
        ZoneInfo(headers.get("time-zone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise fail("value", "time-zone is no IANA time zone", "Endpoint.header", status=422) from None


def new_control_id() -> str:
    """MSH-10: at most 20 characters, never used twice."""
    return uuid.uuid4().hex[:20]


def msh(to: Destination, kind: str, structure: str, control_id: str, now: datetime) -> Seg:
    message, event = kind.split("^")
    return Seg(
        "MSH",
        {
            3: to.headers.get("sending-application", OWN),
            4: to.headers.get("sending-facility", "RAD"),
            5: to.headers.get("receiving-application", ""),
            6: to.headers.get("receiving-facility", ""),
            7: times.from_datetime(now.astimezone(to.zone)),
            9: Comp(message, event) if to.before("2.4") else Comp(message, event, structure),
            10: control_id,
            11: "P",
            12: to.version,
            18: to.charset,
        },
    )


def pid(patient: Resource, to: Destination) -> Seg:
    return Seg(
        "PID",
        {
            1: 1,
            3: [cx_of(i) for i in patient.get("identifier", ()) if i.get("use") != "old" and "value" in i],
            5: [_xpn(n) for n in patient.get("name", ())] or XPN(type="U"),
            7: to.time(patient.get("birthDate")),
            8: _GENDER.get(patient.get("gender", ""), ""),
        },
    )


def _xpn(human: dict[str, Any]) -> XPN:
    given = human.get("given", [])
    return XPN(
        human.get("family", ""),
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(human.get("suffix", [])),
        " ".join(human.get("prefix", [])),
        "",
        _NAME_TYPE.get(human.get("use", ""), "L"),
    )


def pv1(encounter: Resource | None) -> Seg | None:
    if encounter is None:
        return None
    visit = identifier_of_type(encounter, terms.V2_0203, "VN")
    return Seg("PV1", {1: 1, 2: _patient_class(encounter), 3: _location(encounter), 19: cx_of(visit) if visit else CX()})


def _patient_class(encounter: Resource) -> str:
    """Table 0004; a class that came as such goes out as such."""
    of = encounter.get("class", {})
    code = str(of.get("code", ""))
    return code if str(of.get("system", "")).endswith("/v2-0004") else _CLASS.get(code, "U")


def _location(encounter: Resource) -> Raw | Comp | None:
    """PV1-3 as it came, else the place's name."""
    for place in encounter.get("location", ()):
        if raw := extension(place, RAW):
            return Raw(raw["valueString"])
        if display := place.get("location", {}).get("display"):
            return Comp(display)
    return None


def placer(order: Resource) -> EI:
    return ei_of(identifier_of_type(order, terms.V2_0203, "PLAC"))


def filler(order: Resource) -> EI:
    return ei_of(identifier_of_type(order, terms.V2_0203, "FILL"))


def cwe(concept: dict[str, Any] | None) -> CWE:
    """A CodeableConcept as CWE: the first coding, the second as the alternate."""
    found = list(codings(concept or {}))[:2]
    text = (concept or {}).get("text", "")
    parts: list[str] = []
    for coding in found:
        parts += [coding.get("code", ""), coding.get("display") or text, name(coding.get("system", ""))]
    return CWE(*parts) if parts else CWE(text=text)


def xcn(reference: dict[str, Any] | None, practitioner: Resource | None) -> XCN | None:
    """A person: the Practitioner where it is one of ours, else the name that the reference shows."""
    if practitioner is not None and practitioner.get("resourceType") == "Practitioner":
        human: dict[str, Any] = next(iter(practitioner.get("name", ())), {})
        of: dict[str, Any] = next(iter(practitioner.get("identifier", ())), {})
        cx = cx_of(of) if of else CX()
        given = human.get("given", [""])
        return XCN(cx.id, human.get("family", ""), given[0], "", "", " ".join(human.get("prefix", [])), "", cx.authority)
    display = (reference or {}).get("display", "")
    family, _, given = display.partition(", ")
    return XCN("", family, given) if display else None


def orc(order: Resource, to: Destination, *, control: str, status: str, requester: XCN | None, timing: Comp | None = None) -> Seg:
    return Seg(
        "ORC",
        {
            1: control,
            2: placer(order),
            3: filler(order),
            5: status,
            7: timing if to.before("2.5") else None,
            9: to.time(order.get("authoredOn")),
            12: requester,
        },
    )


def timing(order: Resource, step: Resource | None, to: Destination) -> Comp:
    """TQ: the scheduled start and the priority."""
    start = (step or {}).get("restriction", {}).get("period", {}).get("start")
    return Comp(None, None, None, to.time(start), None, _PRIORITY.get(order.get("priority", ""), ""))


def obr(order: Resource, fields: dict[int, Any], *, requester: XCN | None, procedure: Resource | None = None) -> Seg:
    """OBR with what every message tells of the order; `fields` adds the rest."""
    accession = identifier_of_type(order, terms.V2_0203, "ACSN") or {}
    shared: dict[int, Any] = {
        1: 1,
        2: placer(order),
        3: filler(order),
        4: cwe(order.get("code")),
        16: requester,
        18: accession.get("value", ""),
        19: identifier_value(procedure, terms.REQUESTED_PROCEDURE_ID) if procedure else "",
    }
    return Seg("OBR", shared | fields)


def modality(step: Resource | None) -> str:
    found = [codes(i.get("valueCodeableConcept"), terms.DCM) for i in (step or {}).get("input", ())]
    return next((c[0] for c in found if c), "")


def present(segments: list[Seg | None]) -> Iterator[Seg]:
    yield from (s for s in segments if s is not None)
