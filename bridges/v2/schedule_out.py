"""Appointment -> SIU (IHE RAD-48); step and order status -> ORM^O01 with order control SC (IHE RAD-3)."""

from collections.abc import Callable
from datetime import datetime

from bridges.v2.datatypes import EI
from bridges.v2.destination import Destination
from bridges.v2.message import Comp, Seg
from bridges.v2.segments_out import (
    OrderFacts,
    cwe,
    filler,
    modality,
    msh,
    obr,
    orc,
    pid,
    placer,
    present,
    pv1,
    timing,
    xcn,
)
from bridges.v2.systems import OWN
from fhir_server.elements import identifier_value
from fhir_server.registry import Resource
from resources import terms

Render = Callable[[Destination, str], list[Seg]]
# Appointment.status -> table 0278.
FILLER_STATUS = {
    "proposed": "Pending",
    "pending": "Pending",
    "booked": "Booked",
    "arrived": "Started",
    "checked-in": "Started",
    "fulfilled": "Complete",
    "cancelled": "Cancelled",
    "noshow": "Noshow",
    "entered-in-error": "Deleted",
}


def siu(event: str, appointment: Resource, participants: list[Resource], facts: OrderFacts, now: datetime) -> Render:
    """SIU^S12 to S26: SCH, PID, PV1, RGS, AIS and a resource segment for each station, place and person."""

    def render(to: Destination, control_id: str) -> list[Seg]:
        start, end = to.time(appointment.get("start")), to.time(appointment.get("end"))
        sch = Seg(
            "SCH",
            {
                1: placer(facts.order),
                2: EI(appointment["id"], OWN),
                6: Comp(event, None, "HL70003"),
                7: cwe(facts.order.get("code")),
                9: _minutes(appointment),
                10: Comp("min", "minutes", "UCUM"),
                11: Comp(None, None, _minutes(appointment), start, end),
                12: xcn(facts.order.get("requester"), facts.requester),
                16: Comp(OWN),
                20: Comp(OWN),
                25: FILLER_STATUS.get(appointment["status"], ""),
                26: None if to.before("2.4") else placer(facts.order),
                27: None if to.before("2.4") else filler(facts.order),
            },
        )
        action = "D" if event in {"S15", "S17", "S26"} else "A" if event == "S12" else "U"
        segments: list[Seg | None] = [
            msh(to, f"SIU^{event}", "SIU_S12", control_id, now),
            sch,
            pid(facts.patient, to),
            pv1(facts.encounter),
            Seg("RGS", {1: 1, 2: action}),
            Seg(
                "AIS",
                {
                    1: 1,
                    2: action,
                    3: cwe(facts.order.get("code")),
                    4: start,
                    7: _minutes(appointment),
                    8: Comp("min", "minutes", "UCUM"),
                },
            ),
        ]
        return list(present([*segments, *_resources(participants, action)]))

    return render


def _resources(participants: list[Resource], action: str) -> list[Seg]:
    segments = []
    stations = [p for p in participants if p["resourceType"] == "Device"]
    for i, station in enumerate(stations, 1):
        title = identifier_value(station, terms.AE_TITLE) or station["id"]
        shown = next((n.get("name", "") for n in station.get("deviceName", ())), title)
        segments.append(Seg("AIG", {1: i, 2: action, 3: Comp(title, shown, "L"), 4: Comp("EQUIPMENT", None, "L")}))
    for i, place in enumerate([p for p in participants if p["resourceType"] == "Location"], 1):
        segments.append(Seg("AIL", {1: i, 2: action, 3: Comp(place.get("name", place["id"]))}))
    for i, person in enumerate([p for p in participants if p["resourceType"] == "Practitioner"], 1):
        segments.append(Seg("AIP", {1: i, 2: action, 3: xcn(None, person)}))
    return segments


def _minutes(appointment: Resource) -> str:
    if "start" not in appointment or "end" not in appointment:
        return ""
    length = datetime.fromisoformat(appointment["end"]) - datetime.fromisoformat(appointment["start"])
    return str(int(length.total_seconds() // 60))


def orm_o01(status: str, step: Resource | None, facts: OrderFacts, now: datetime) -> Render:
    """ORM^O01 that tells the placer the status of an order: ORC-1 SC, ORC-5 of table 0038."""

    def render(to: Destination, control_id: str) -> list[Seg]:
        requester = xcn(facts.order.get("requester"), facts.requester)
        when = timing(facts.order, step, to)
        step_id = identifier_value(step, terms.SCHEDULED_STEP_ID) if step else ""
        start = (step or {}).get("restriction", {}).get("period", {}).get("start")
        fields = {
            20: step_id,
            24: modality(step),
            27: when if to.before("2.5") else None,
            36: to.time(start),
        }
        return list(
            present(
                [
                    msh(to, "ORM^O01", "ORM_O01", control_id, now),
                    pid(facts.patient, to),
                    pv1(facts.encounter),
                    orc(facts.order, to, control="SC", status=status, requester=requester, timing=when),
                    obr(facts.order, fields, requester=requester, procedure=facts.procedure),
                ]
            )
        )

    return render
