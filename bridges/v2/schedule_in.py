"""SIU^S12 to S17, S26 -> Appointment: what an outside scheduler books, moves and cancels (HL7 v2.5.1 chapter 10, IHE RAD-48)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridges.v2 import parked_messages, times
from bridges.v2.codes import FILLER_STATUS_IN
from bridges.v2.datatypes import CWE, EI
from bridges.v2.mapping import Row, table
from bridges.v2.message import Segment, readable
from bridges.v2.order_lookup import Found, OrderNames, find_orders, refuse_or_park, said
from bridges.v2.parked_messages import RECEIVERS
from bridges.v2.patient_in import named, patient_identifiers
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, Reply
from bridges.v2.refused import Refused, check_one_patient, missing, no_segment, wrong
from bridges.v2.schedule_lookup import in_force, participant, person, place, shown, station, station_in
from bridges.v2.systems import OWN, concept, entity_identifier
from fhir_server import clock
from fhir_server.references import ref
from fhir_server.registry import Resource
from resources import identifiers, work_items
from resources.appointment import orders as orders_of

# Events that end an appointment -> its status. The others book or change it.
_ENDS: Final = {"S15": "cancelled", "S16": "cancelled", "S17": "entered-in-error", "S26": "noshow"}
_OVER: Final = frozenset({"cancelled", "noshow"})  # a number may be booked anew after these
# Units of a duration, as UCUM, table 0255 and people write them -> seconds.
_SECONDS: Final = {
    **dict.fromkeys(("S", "SEC", "SECS", "SECOND", "SECONDS"), 1),
    **dict.fromkeys(("", "M", "MIN", "MINS", "MINUTE", "MINUTES"), 60),
    **dict.fromkeys(("H", "HR", "HRS", "HOUR", "HOURS"), 3600),
    **dict.fromkeys(("D", "DAY", "DAYS"), 86400),
}
_RESOURCES: Final = ("AIS", "AIG", "AIL", "AIP")


@dataclass(frozen=True, slots=True)
class Booking:
    """An SIU being mapped: its SCH, and the other segments by name."""

    reception: Reception
    sch: Segment
    people: People
    event: str
    others: dict[str, list[Segment]] = field(default_factory=dict)

    def of(self, name: str) -> list[Segment]:
        """The segments of this name that hold: resources that are deleted don't."""
        found = self.others.get(name, [])
        return in_force(found) if name in _RESOURCES else found

    def first(self, name: str) -> Segment | None:
        return next(iter(self.of(name)), None)


async def receive_schedule(reception: Reception) -> Reply | None:
    """Book, change or end the appointment that SCH names."""
    sch = reception.message.first("SCH")
    if sch is None:
        raise no_segment("SCH", "the appointment (SCH)")
    check_one_patient(reception.message)
    others: dict[str, list[Segment]] = {}
    for segment in reception.message.segments:
        others.setdefault(segment.name, []).append(segment)
    booking = Booking(reception, sch, People(reception.unit, reception.sender), reception.message.type[1], others)
    known = await _known(booking)
    if booking.event not in _ENDS:
        return await _book(booking, known)
    return await _end(booking, known)


RECEIVERS["SIU"] = receive_schedule


# Which appointment


def _numbers(booking: Booking) -> list[Resource]:
    """SCH-2 (filler, the scheduler's own) and SCH-1 (placer). Refused without either."""
    found = [
        entity_identifier(EI.from_field(booking.sch.repetitions(number)[0]), kind, booking.reception.sender.authority)
        for number, kind in ((2, "FILL"), (1, "PLAC"))
        if booking.sch.field(number).strip()
    ]
    if not found:
        raise missing(booking.sch, 2, "the number of the appointment (SCH-2, else SCH-1)")
    return found


async def _known(booking: Booking) -> Resource | None:
    """The appointment of SCH-2; of SCH-1 only where there is no SCH-2, as many put the order's number there."""
    unit, number = booking.reception.unit, _numbers(booking)[0]
    await unit.lock(f"appointment:{number['value']}")
    found = [a for a in await identifiers.carriers(unit, "Appointment", [number]) if a["status"] != "entered-in-error"]
    if booking.sch.get(2, 2).strip() == OWN and (own := await unit.read("Appointment", booking.sch.field(2).strip())):
        found = [own, *(a for a in found if a["id"] != own["id"])]
    present = [a for a in found if a["status"] not in _OVER]
    if len(present) > 1:
        raise wrong(booking.sch, 2, "several appointments have this number", code=205)
    return next(iter(present), None) or max(found, key=lambda a: str(a["meta"]["lastUpdated"]), default=None)


async def _check_patient(booking: Booking, known: Resource) -> None:
    """The patient of PID is the appointment's. A message that ends an appointment may leave PID out."""
    pid, unit = booking.first("PID"), booking.reception.unit
    if pid is None:
        return
    whose = [await unit.get(p.get("actor")) for p in known.get("participant", ())]
    patients = [p for p in whose if p is not None and p["resourceType"] == "Patient"]
    said_of = patient_identifiers(pid, booking.reception.sender)
    if patients and not any(identifiers.carries(p, said_of) for p in patients):
        orders = [o for i in orders_of(known) if (o := await unit.read("ServiceRequest", i))]
        refusal = wrong(pid, 3, "the appointment with this number is for a different patient", code=205)
        raise Refused(*refusal.errors, mixed_up=orders[0] if orders else None)


# What is done


async def _end(booking: Booking, known: Resource | None) -> Reply | None:
    """End it. What ends an appointment that waits for its order waits with it."""
    if known is None:
        number = _numbers(booking)[0]["value"]
        if waited_for := await parked_messages.waited_for(booking.reception, number):
            shown = f"{booking.reception.sender.application} has ended an appointment that waits for its order"
            return await parked_messages.park(booking.reception, waited_for, readable(shown, 1000), number)
        raise wrong(booking.sch, 2 if booking.sch.field(2).strip() else 1, "no appointment has this number", code=204)
    await _check_patient(booking, known)
    status = _ENDS[booking.event]
    if known["status"] != status:
        reason = _coded(booking, 6) if status == "cancelled" else None
        await booking.reception.unit.update(known | {"status": status} | ({"cancelationReason": reason} if reason else {}))
    return None


async def _book(booking: Booking, known: Resource | None) -> Reply | None:
    """Book or change it. One that is over is booked anew: another appointment under its number, for the same order."""
    unit = booking.reception.unit
    ended: Resource | None = None
    if known is not None:
        await _check_patient(booking, known)
        if _begins_anew(booking, known):
            known, ended = None, known
    names = _names(booking)
    found = await find_orders(booking.reception, names, booking.first("PID"))
    names_an_order = any(n.segment is not booking.sch or n.number != 1 for n in names.all)
    if found is None and known is None and ended is None and names_an_order:
        return await refuse_or_park(booking.reception, names, booking.sch, 26, about=_numbers(booking)[0]["value"])
    patient = found.patient if found else await named(unit, booking.first("PID"), booking.reception.sender)
    built = await SCH.build(booking)
    _check_times(booking, (known or {}) | built)
    built["participant"] = await _participants(booking, patient)
    if found is not None:
        built["basedOn"] = [ref(o) for o in found.orders]
    elif ended is not None and "basedOn" in ended:
        built["basedOn"] = ended["basedOn"]
    if ended is not None:
        built["participant"] = _merged(booking, built, ended)
    stored = await _store(booking, built, known)
    await _show(booking, stored, found, known, names_an_order=names_an_order)
    return None


def _begins_anew(booking: Booking, known: Resource) -> bool:
    """Whether one that is over is booked again: by S12 and S13 unless SCH-25 says otherwise, by S14 where it says so."""
    status = _status(booking) or (known["status"] if booking.event == "S14" else "booked")
    return known["status"] in _OVER and status not in _OVER


def _check_times(booking: Booking, appointment: Resource) -> None:
    if "start" not in appointment:
        raise missing(booking.sch, 11, "when the appointment starts")
    if "end" not in appointment:
        raise missing(booking.sch, 11, "when the appointment ends, or how long it takes (SCH-9)")


async def _store(booking: Booking, built: Resource, known: Resource | None) -> Resource:
    unit = booking.reception.unit
    if known is None:
        built.setdefault("status", "booked")
        return await unit.create(built | {"created": clock.instant(unit.now)})
    all_of_them = identifiers.learned(known.get("identifier", ()), built["identifier"])
    replaced = {e: v for e, v in known.items() if e != "minutesDuration"}
    return await unit.update(replaced | built | {"identifier": all_of_them, "participant": _merged(booking, built, known)})


def _merged(booking: Booking, built: Resource, known: Resource) -> list[Any]:
    """The participants that the message names; where it has no segment of a kind at all, those of that kind stay."""
    kinds = {"Device": "AIG", "Location": "AIL", "Practitioner": "AIP"}
    said_of = {kind for kind, name in kinds.items() if booking.others.get(name)}
    kept = [
        p
        for p in known.get("participant", ())
        if (kind := str(p.get("actor", {}).get("reference", "")).partition("/")[0]) in kinds and kind not in said_of
    ]
    told = [p["actor"] for p in built["participant"]]
    return [*built["participant"], *(p for p in kept if p["actor"] not in told)]


async def _show(booking: Booking, stored: Resource, found: Found | None, known: Resource | None, *, names_an_order: bool) -> None:
    """What a person must see to: an appointment without an order, or of one that isn't here, or on no station that we know."""
    unit = booking.reception.unit
    about = f"Appointment/{stored['id']}"
    patient = next((p["actor"]["reference"] for p in stored["participant"] if "reference" in p["actor"]), None)
    who = booking.reception.sender.application
    orderless = found is None and not orders_of(stored)
    if orderless and known is None:
        text = f"{who} has booked this appointment, and no order is known for it"
        await work_items.open_work_item(unit, "appointment-without-order", text, about, patient)
    if orderless and names_an_order and not await work_items.open_items(unit, about, parked_messages.UNKNOWN):
        text = f"{who} says of which order this appointment is, and none has that number"
        await work_items.open_work_item(unit, parked_messages.UNKNOWN, text, about, patient)
    unknown = [p["actor"]["display"] for p in stored["participant"] if "reference" not in p["actor"]]
    stations = [p for p in stored["participant"] if str(p["actor"].get("reference", "")).startswith("Device/")]
    before = {p["actor"].get("display") for p in (known or {}).get("participant", ())}
    if unknown and not stations and not set(unknown) <= before:
        text = f"{who} has booked this appointment on {', '.join(unknown)}, which is no station here"
        await work_items.open_work_item(unit, "unknown-station", text[:1000], about, patient)


def _names(booking: Booking) -> OrderNames:
    """SCH-26, ORC-2, OBR-2 (placer), SCH-27, ORC-3, OBR-3 (filler), OBR-18 (accession), OBR-19, ZDS-1; none of them: SCH-1."""
    orc, obr, zds = (booking.others.get(n, []) for n in ("ORC", "OBR", "ZDS"))
    names = OrderNames(
        accessions=said(*((s, 18) for s in obr)),
        fillers=said((booking.sch, 27), *((s, 3) for s in (*orc, *obr))),
        placers=said((booking.sch, 26), *((s, 2) for s in (*orc, *obr))),
        studies=said(*((s, 1) for s in zds)),
        procedures=said(*((s, 19) for s in obr)),
        several=True,
    )
    return names if names.all else OrderNames(placers=said((booking.sch, 1)))


async def _participants(booking: Booking, patient: Resource) -> list[Any]:
    """The patient, then stations, rooms and people. A room's only station stands for it where no station is named."""
    unit = booking.reception.unit
    found: list[Any] = [participant(patient)]
    stations = []
    for aig in booking.of("AIG"):
        known = await station(unit, aig)
        stations += [known] if known else []
        name = shown(aig.repetitions(3)[0]) if aig.raw(3) else ""
        found += [participant(known or name)] if known or name else []
    for ail in booking.of("AIL"):
        room = await place(unit, ail)
        if room is not None and not stations and (only := await station_in(unit, room)):
            stations.append(only)
            found.append(participant(only))
        name = shown(ail.repetitions(3)[0]) if ail.raw(3) else ""
        found += [participant(room or name)] if room or name else []
    people = [await person(booking.people, aip) for aip in booking.of("AIP")]
    found += [p for p in people if p]
    return [p for i, p in enumerate(found) if p["actor"] not in [q["actor"] for q in found[:i]]]


# The table


def _coded(booking: Booking, number: int) -> Resource | None:
    sch = booking.sch
    return concept(CWE.from_field(sch.repetitions(number)[0]), booking.reception.sender.authority) if sch.raw(number) else None


def _status(booking: Booking) -> str | None:
    """SCH-25; a code outside of table 0278 is refused, and none leaves the status as it is."""
    code = booking.sch.field(25).strip()
    status = FILLER_STATUS_IN.fhir(code)
    if code and status is None:
        raise wrong(booking.sch, 25, "the status is none of table 0278", code=103)
    return status


# Where the start may stand: segment, field, component.
_STARTS: Final = (("SCH", 11, 4), ("AIS", 4, 1), ("TQ1", 7, 1), ("AIG", 8, 1), ("AIL", 6, 1), ("AIP", 6, 1))


def _moment(booking: Booking, segment: Segment, number: int, component: int) -> datetime | None:
    text = segment.get(number, component).strip()
    if not text:
        return None
    try:
        if not times.parse_ts(text).has_time:
            raise ValueError("an appointment needs a time of day")
        return times.to_aware(text, booking.reception.sender.zone).astimezone(UTC)  # durations are of real time, not of clocks
    except OverflowError:
        raise wrong(segment, number, "no such time", code=102, component=component if component > 1 else None) from None
    except ValueError as error:
        raise wrong(segment, number, str(error), code=102, component=component if component > 1 else None) from None


def _start(booking: Booking) -> datetime | None:
    for name, number, component in _STARTS:
        for segment in booking.of(name):
            if (when := _moment(booking, segment, number, component)) is not None:
                return when
    return None


def _end_of(booking: Booking) -> datetime | None:
    """SCH-11.5, else the start and the duration of SCH, else the last end of what is to be done or taken, else TQ1-8."""
    if (said_so := _moment(booking, booking.sch, 11, 5)) is not None:
        return said_so
    start, length = _start(booking), _duration(booking)
    if start is not None and length is not None:
        return start + length
    if start is not None and (last := _last(booking, start)) is not None:
        return last
    tq1 = booking.first("TQ1")
    return _moment(booking, tq1, 8, 1) if tq1 else None


def _duration(booking: Booking) -> timedelta | None:
    """SCH-9 with its unit SCH-10, else SCH-11.3 (`M30`, or as SCH-9)."""
    sch = booking.sch
    return _length(sch, 9, sch.field(9), sch.field(10)) or _length(sch, 11, *_quantity(sch.get(11, 3), sch.field(10)))


def _last(booking: Booking, start: datetime) -> datetime | None:
    """When the last of the services ends, one after the other where they have no start of their own; else of what is taken."""
    for name, begins, lasts in (("AIS", 4, 7), ("AIG", 8, 11), ("AIL", 6, 9)):
        last: datetime | None = None
        for segment in booking.of(name):
            length = _length(segment, lasts, segment.field(lasts), segment.field(lasts + 1))
            if length is not None:
                begin = _moment(booking, segment, begins, 1) or (last if name == "AIS" else None) or start
                last = max(last or begin, begin + length)
        if last is not None:
            return last
    return None


def _length(segment: Segment, number: int, amount: str, unit: str) -> timedelta | None:
    """A duration; without unit, minutes."""
    if not amount.strip():
        return None
    seconds = _SECONDS.get(unit.strip().upper())
    if seconds is None:
        raise wrong(segment, number + 1, "the unit of the duration is not known", code=103)
    try:
        length = timedelta(seconds=float(amount) * seconds)
    except (ValueError, OverflowError):
        raise wrong(segment, number, "the duration is no number", code=102) from None
    return length if length > timedelta(0) else None


def _quantity(text: str, unit: str) -> tuple[str, str]:
    """TQ-3: a letter for the unit and the number, or just the number."""
    text = text.strip()
    return (text[1:], text[0]) if text[:1].isalpha() else (text, unit)


def _instant(when: datetime | None) -> str | None:
    """In UTC; without a fraction where the sender gave none, so that none goes out."""
    return clock.instant(when).replace(".000Z", "Z") if when else None


def _minutes(booking: Booking) -> int | None:
    start, end = _start(booking), _end_of(booking)
    return max(1, round((end - start).total_seconds() / 60)) if start and end and end > start else None


def _comment(booking: Booking) -> str:
    lines = [f.text for nte in booking.of("NTE") for f in nte.repetitions(3)]
    return "\n".join(line for line in lines if line.strip())


def _services(booking: Booking) -> list[Resource]:
    places = [r for ais in booking.of("AIS") for r in ais.repetitions(3)]
    found = [concept(CWE.from_field(r), booking.reception.sender.authority) for r in places]
    return [c for i, c in enumerate(found) if c and c not in found[:i]]


_STARTING: Final = "SCH-11.4, AIS-4, TQ1-7, AIG-8, AIL-6, AIP-6, AIS-2, AIG-2, AIL-2, AIP-2"
_ENDING: Final = f"SCH-11.5, SCH-9, SCH-10, SCH-11.3, AIS-7, AIS-8, AIG-11, AIG-12, AIL-9, AIL-10, TQ1-8, {_STARTING}"

SCH = table(
    "SCH, AIS -> Appointment",
    "Appointment",
    Row("SCH-2, SCH-1", "identifier", _numbers, "the appointment is found again by SCH-2; by SCH-1 where SCH-2 is empty", "R"),
    Row("SCH-25", "status", _status, "else booked when new; S15 and S16 cancel, S17 enters in error, S26 is a no-show"),
    Row("SCH-7", "reasonCode", lambda of: [c] if (c := _coded(of, 7)) else None),
    Row("SCH-8", "appointmentType", lambda of: _coded(of, 8)),
    Row("AIS-3, AIS-2", "serviceType", _services, "segments with action D are left out"),
    Row(_STARTING, "start", lambda of: _instant(_start(of)), "a time of day is needed; segments with action D don't count"),
    Row(_ENDING, "end",
        lambda of: _instant(_end_of(of)), "the end, or the start and the duration; units s, min (also without one), h, d"),
    Row(_ENDING, "minutesDuration", _minutes, "from start to end"),
    Row("NTE-3", "comment", _comment),
)  # fmt: skip
