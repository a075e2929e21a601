"""FHIR -> the segments that several outbound messages share: MSH, EVN, PID, PV1, NTE (HL7 v2.3.1 to 2.5.1)."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bridges.v2 import times
from bridges.v2.codes import ADDRESS_USE, GENDER, PATIENT_CLASS, TELECOM_SYSTEM, TELECOM_USE
from bridges.v2.datatypes import CX, XCN, XPN
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Raw, Seg
from bridges.v2.person_names import xpn
from bridges.v2.systems import OWN, RAW, cx_of
from fhir_server.elements import extension, has_code, identifier_of_type
from fhir_server.registry import Resource
from resources import terms

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"


def new_control_id() -> str:
    """MSH-10: at most 20 characters, never used twice."""
    return uuid.uuid4().hex[:20]


def present(segments: Iterable[Seg | None]) -> Iterator[Seg]:
    yield from (s for s in segments if s is not None)


# Header


@dataclass(frozen=True, slots=True)
class Header:
    """What a message is: `ORU^R01`, its structure `ORU_R01`, its control id, and when it was made."""

    kind: str
    structure: str
    control_id: str
    now: datetime


MSH: Final[Layout[Header]] = layout(
    "Header",
    "MSH",
    Out(3, "Endpoint.header", lambda _, to: to.headers.get("sending-application", OWN), "sending-application", "R"),
    Out(4, "Endpoint.header", lambda _, to: to.headers.get("sending-facility", "RAD"), "sending-facility"),
    Out(5, "Endpoint.header", lambda _, to: to.headers.get("receiving-application", ""), "receiving-application"),
    Out(6, "Endpoint.header", lambda _, to: to.headers.get("receiving-facility", ""), "receiving-facility"),
    Out(7, "now", lambda of, to: moment(of.now, to), "when the message was written", "R"),
    Out(9, "", lambda of, to: Comp(*of.kind.split("^"), None if to.before("2.4") else of.structure),
        "the structure from version 2.4 on", "R"),
    Out(10, "", lambda of, _: of.control_id, "20 characters; the same in every attempt", "R"),
    Out(11, "Endpoint.header", lambda _, to: to.says("processing-id"), "processing-id", "R"),
    Out(12, "Endpoint.header", lambda _, to: to.version, "hl7-version", "R"),
    Out(15, "Endpoint.header", lambda _, to: "AL" if to.enhanced else "", "ack-mode"),
    Out(16, "Endpoint.header", lambda _, to: "AL" if to.enhanced else "", "ack-mode"),
    Out(18, "Endpoint.header", lambda _, to: to.charset, "character-set"),
)  # fmt: skip

EVN: Final[Layout[Header]] = layout(
    "Event",
    "EVN",
    Out(1, "", lambda of, to: of.kind.split("^")[1] if to.before("2.5") else "", "the trigger event, up to version 2.4"),
    Out(2, "now", lambda of, to: moment(of.now, to), "when it was recorded", "R"),
)


def moment(when: datetime, to: Destination) -> str:
    """A time of our own, as the receiver wants it."""
    return times.from_datetime(when.astimezone(to.zone), offset=to.says("time-offset") != "no")


def msh(to: Destination, kind: str, structure: str, control_id: str, now: datetime) -> Seg:
    return MSH.seg(Header(kind, structure, control_id, now), to)


def evn(to: Destination, kind: str, now: datetime) -> Seg:
    return EVN.seg(Header(kind, "", "", now), to)


# Patient


def _xad(address: dict[str, Any]) -> Comp:
    line = [*address.get("line", []), ""]
    rest = " ".join(line[1:]).strip()
    return Comp(
        line[0] or address.get("text"), rest, address.get("city"), address.get("state"), address.get("postalCode"),
        address.get("country"), ADDRESS_USE.v2(address.get("use")),
    )  # fmt: skip


def _xtn(point: dict[str, Any]) -> Comp:
    value, system = point.get("value", ""), point.get("system")
    if system == "email":
        return Comp(None, "NET", "Internet", value)
    equipment = "CP" if point.get("use") == "mobile" else TELECOM_SYSTEM.v2(system, "PH")
    return Comp(value, "WPN" if point.get("use") == "work" else TELECOM_USE.v2(point.get("use"), "PRN"), equipment)


def _telecoms(patient: Resource, *, at_work: bool) -> list[Comp]:
    current = [t for t in patient.get("telecom", ()) if "value" in t and t.get("use") != "old"]
    return [_xtn(t) for t in current if (t.get("use") == "work") is at_work]


PID: Final[Layout[Resource]] = layout(
    "Patient -> PID",
    "PID",
    Out(1, "", lambda _of, _: 1),
    Out(3, "Patient.identifier", lambda of, _: [cx_of(i) for i in of.get("identifier", ()) if _is_current(i)],
        "all but old ones", "R"),
    Out(5, "Patient.name", lambda of, _: [xpn(n) for n in of.get("name", ())] or XPN(type="U"),
        "type U where the patient has no name; XPN.8 and FN.2 to FN.5 from the extensions that they are read into", "R"),
    Out(7, "Patient.birthDate", lambda of, to: to.time(of.get("birthDate"))),
    Out(8, "Patient.gender", lambda of, _: GENDER.v2(of.get("gender")), "table 0001"),
    Out(11, "Patient.address", lambda of, _: [_xad(a) for a in of.get("address", ()) if a.get("use") != "old"]),
    Out(13, "Patient.telecom", lambda of, _: _telecoms(of, at_work=False), "home"),
    Out(14, "Patient.telecom", lambda of, _: _telecoms(of, at_work=True), "work"),
)  # fmt: skip


def _is_current(identifier: Resource) -> bool:
    return identifier.get("use") != "old" and "value" in identifier


def pid(patient: Resource, to: Destination) -> Seg:
    return PID.seg(patient, to)


# Visit


@dataclass(frozen=True, slots=True)
class Visit:
    """An Encounter, and the Practitioners who take part by their reference."""

    encounter: Resource
    people: Mapping[str, Resource] = field(default_factory=dict)

    def of_role(self, code: str) -> list[XCN]:
        """Who takes part in a role of v3-ParticipationType."""
        found = []
        for participant in self.encounter.get("participant", ()):
            if has_code(participant.get("type"), _PARTICIPATION, code):
                who = participant.get("individual", {})
                found.append(xcn(who, self.people.get(who.get("reference", ""))))
        return [x for x in found if x is not None]


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


def _visit_number(encounter: Resource) -> CX:
    number = identifier_of_type(encounter, terms.V2_0203, "VN")
    return cx_of(number) if number else CX()


PV1: Final[Layout[Visit]] = layout(
    "Encounter -> PV1",
    "PV1",
    Out(1, "", lambda _of, _: 1),
    Out(2, "Encounter.class", lambda of, _: _patient_class(of.encounter), "table 0004; U where unknown", "R"),
    Out(3, "Encounter.location", lambda of, _: _location(of.encounter), "as it came, else the place's name"),
    Out(7, "Encounter.participant", lambda of, _: of.of_role("ATND"), "attending"),
    Out(8, "Encounter.participant", lambda of, _: of.of_role("REF"), "referring"),
    Out(9, "Encounter.participant", lambda of, _: of.of_role("CON"), "consulting"),
    Out(17, "Encounter.participant", lambda of, _: of.of_role("ADM"), "admitting"),
    Out(19, "Encounter.identifier", lambda of, _: _visit_number(of.encounter), "type VN"),
)


def pv1(encounter: Resource | None, to: Destination, people: Mapping[str, Resource] | None = None) -> Seg | None:
    """None where there is no visit."""
    return None if encounter is None else PV1.seg(Visit(encounter, people or {}), to)


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


# Notes


NTE: Final[Layout[tuple[int, str]]] = layout(
    "Notes -> NTE",
    "NTE",
    Out(1, "", lambda of, _: of[0]),
    Out(3, "note", lambda of, _: of[1].split("\n"), "a line a repetition"),
)


def notes(texts: Iterable[str], to: Destination) -> list[Seg]:
    """NTE for each text."""
    return [NTE.seg((i, text), to) for i, text in enumerate((t for t in texts if t.strip()), 1)]
