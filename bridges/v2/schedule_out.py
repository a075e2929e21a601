"""Appointment -> SIU^S12, S13, S14, S15, S17, S26 (IHE RAD-48)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridges.v2.codes import APPOINTMENT_STATUS
from bridges.v2.datatypes import CWE, EI
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Seg
from bridges.v2.order_facts import OrderFacts, Render
from bridges.v2.order_segments_out import filler, placer, requester
from bridges.v2.segments_out import msh, notes, pid, present, pv1, xcn
from bridges.v2.systems import OWN
from fhir_server.elements import identifier_value
from fhir_server.registry import Resource
from resources import terms

# What the event means for a resource of the booking (table 0206); others are U.
_ACTIONS: Final = {"S12": "A", "S15": "D", "S17": "D", "S26": "D"}


@dataclass(frozen=True, slots=True)
class Booking:
    """An Appointment as one event tells it, and who or what takes part."""

    event: str
    appointment: Resource
    participants: Sequence[Resource]
    facts: OrderFacts

    @property
    def action(self) -> str:
        return _ACTIONS.get(self.event, "U")

    @property
    def minutes(self) -> str:
        if "start" not in self.appointment or "end" not in self.appointment:
            return ""
        length = datetime.fromisoformat(self.appointment["end"]) - datetime.fromisoformat(self.appointment["start"])
        return str(int(length.total_seconds() // 60))

    @property
    def status(self) -> str:
        return APPOINTMENT_STATUS.v2(self.appointment["status"])


@dataclass(frozen=True, slots=True)
class Taken:
    """One resource that a booking takes: its number among its kind, and itself."""

    booking: Booking
    number: int
    resource: Resource

    @property
    def status(self) -> Comp | None:
        return Comp(self.booking.status, None, "HL70278") if self.booking.status else None


_MINUTES: Final = Comp("min", "minutes", "UCUM")


def _start(of: Booking, to: Destination) -> str:
    return to.time(of.appointment.get("start"))


def _reason(of: Booking, to: Destination) -> CWE:
    return to.code(next(iter(of.appointment.get("reasonCode", ())), None) or of.facts.order.get("code"))


def _timing(of: Booking, to: Destination) -> Comp:
    return Comp(None, None, of.minutes, _start(of, to), to.time(of.appointment.get("end")))


SCH: Final[Layout[Booking]] = layout(
    "Appointment -> SCH",
    "SCH",
    Out(1, "ServiceRequest.identifier[PLAC]", lambda of, _: placer(of.facts.order), "as it came"),
    Out(2, "Appointment.id", lambda of, _: EI(of.appointment["id"], OWN), "", "R"),
    Out(6, "", lambda of, _: Comp(of.event, None, "HL70003"), "the event", "R"),
    Out(7, "Appointment.reasonCode", _reason, "else the code of the order"),
    Out(8, "Appointment.appointmentType", lambda of, to: to.code(of.appointment.get("appointmentType"))),
    Out(9, "Appointment.start, end", lambda of, _: of.minutes, "minutes"),
    Out(10, "", lambda _of, _: _MINUTES),
    Out(11, "Appointment.start, end", _timing, "TQ: duration (3), start (4), end (5)", "R"),
    Out(12, "ServiceRequest.requester", lambda of, _: requester(of.facts)),
    Out(16, "", lambda _of, _: Comp(OWN), "the system itself", "R"),
    Out(20, "", lambda _of, _: Comp(OWN), "the system itself", "R"),
    Out(25, "Appointment.status", lambda of, _: of.status, "table 0278"),
    Out(
        26, "ServiceRequest.identifier[PLAC]", lambda of, to: None if to.before("2.4") else placer(of.facts.order), "from 2.4 on"
    ),
    Out(
        27, "ServiceRequest.identifier[FILL]", lambda of, to: None if to.before("2.4") else filler(of.facts.order), "from 2.4 on"
    ),
)

RGS: Final[Layout[Booking]] = layout(
    "Appointment -> RGS",
    "RGS",
    Out(1, "", lambda _of, _: 1),
    Out(2, "", lambda of, _: of.action, "A with S12, D with S15, S17 and S26, else U"),
)

AIS: Final[Layout[Booking]] = layout(
    "Appointment -> AIS",
    "AIS",
    Out(1, "", lambda _of, _: 1),
    Out(2, "", lambda of, _: of.action),
    Out(3, "ServiceRequest.code", lambda of, to: to.code(of.facts.order.get("code")), "", "R"),
    Out(4, "Appointment.start", _start),
    Out(7, "Appointment.start, end", lambda of, _: of.minutes),
    Out(8, "", lambda _of, _: _MINUTES),
    Out(10, "Appointment.status", lambda of, _: Comp(of.status, None, "HL70278") if of.status else None),
)


def _ae_title(station: Resource) -> str:
    return identifier_value(station, terms.AE_TITLE) or str(station["id"])


def _shown(station: Resource) -> str:
    return next((n.get("name", "") for n in station.get("deviceName", ())), "") or _ae_title(station)


AIG: Final[Layout[Taken]] = layout(
    "Device -> AIG",
    "AIG",
    Out(1, "", lambda of, _: of.number),
    Out(2, "", lambda of, _: of.booking.action),
    Out(
        3, "Device.identifier, deviceName", lambda of, _: Comp(_ae_title(of.resource), _shown(of.resource), "L"), "AE title, name"
    ),
    Out(4, "", lambda _of, _: Comp("EQUIPMENT", None, "L"), "", "R"),
    Out(8, "Appointment.start", lambda of, to: _start(of.booking, to)),
    Out(11, "Appointment.start, end", lambda of, _: of.booking.minutes),
    Out(12, "", lambda _of, _: _MINUTES),
    Out(14, "Appointment.status", lambda of, _: of.status),
)

AIL: Final[Layout[Taken]] = layout(
    "Location -> AIL",
    "AIL",
    Out(1, "", lambda of, _: of.number),
    Out(2, "", lambda of, _: of.booking.action),
    Out(3, "Location.name", lambda of, _: Comp(of.resource.get("name", of.resource["id"]))),
    Out(4, "", lambda _of, _: Comp("ROOM", None, "L"), "required below 2.5"),
    Out(6, "Appointment.start", lambda of, to: _start(of.booking, to)),
    Out(9, "Appointment.start, end", lambda of, _: of.booking.minutes),
    Out(10, "", lambda _of, _: _MINUTES),
    Out(12, "Appointment.status", lambda of, _: of.status),
)

AIP: Final[Layout[Taken]] = layout(
    "Practitioner -> AIP",
    "AIP",
    Out(1, "", lambda of, _: of.number),
    Out(2, "", lambda of, _: of.booking.action),
    Out(3, "Practitioner.identifier, name", lambda of, _: xcn(None, of.resource)),
    Out(4, "", lambda _of, _: Comp("STAFF", None, "L"), "required below 2.5"),
    Out(6, "Appointment.start", lambda of, to: _start(of.booking, to)),
    Out(9, "Appointment.start, end", lambda of, _: of.booking.minutes),
    Out(10, "", lambda _of, _: _MINUTES),
    Out(12, "Appointment.status", lambda of, _: of.status),
)
_LAYOUTS: Final = {"Device": AIG, "Location": AIL, "Practitioner": AIP}


def siu(event: str, appointment: Resource, participants: Sequence[Resource], facts: OrderFacts, now: datetime) -> Render:
    """SCH, NTE, PID, PV1, RGS, AIS and a segment for each station, place and person, in this order."""
    booking = Booking(event, appointment, participants, facts)

    def render(to: Destination, control_id: str) -> list[Seg]:
        said = [appointment.get("patientInstruction", ""), appointment.get("comment", "")]
        segments: list[Seg | None] = [
            msh(to, f"SIU^{event}", "SIU_S12", control_id, now),
            SCH.seg(booking, to),
            *notes(said, to),
            pid(facts.patient, to),
            pv1(facts.encounter, to, facts.people),
            RGS.seg(booking, to),
            AIS.seg(booking, to),
        ]
        return list(present([*segments, *_taken(booking, to)]))

    return render


def _taken(booking: Booking, to: Destination) -> list[Seg]:
    found = []
    for resource_type, of_type in _LAYOUTS.items():
        of = [p for p in booking.participants if p["resourceType"] == resource_type]
        found += [of_type.seg(Taken(booking, i, resource), to) for i, resource in enumerate(of, 1)]
    return found
