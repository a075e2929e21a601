"""FHIR -> the segments that outbound messages share: MSH, PID, PV1, ORC, OBR (HL7 v2.3.1 to 2.5.1)."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridges.v2 import times
from bridges.v2.codes import GENDER, NAME_USE, PATIENT_CLASS, PRIORITY
from bridges.v2.datatypes import CWE, CX, EI, XCN, XPN
from bridges.v2.destination import Destination
from bridges.v2.message import Comp, Raw, Seg
from bridges.v2.systems import OWN, RAW, cx_of, ei_of, name
from fhir_server.elements import codes, codings, extension, identifier_of_type, identifier_value
from fhir_server.registry import Resource
from resources import terms


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What every message about an order tells: read once, used for each destination."""

    order: Resource
    procedure: Resource | None
    patient: Resource
    encounter: Resource | None
    requester: Resource | None


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
            15: "AL" if to.enhanced else "",
            16: "AL" if to.enhanced else "",
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
            8: GENDER.v2(patient.get("gender")),
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
        NAME_USE.v2(human.get("use"), "L"),
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
    return code if str(of.get("system", "")).endswith("/v2-0004") else PATIENT_CLASS.v2(code, "U")


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
    return Comp(None, None, None, to.time(start), None, PRIORITY.v2(order.get("priority")))


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
