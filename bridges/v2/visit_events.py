"""ADT events and the course of a visit (HL7 v2.5.1 3.3; IHE RAD-1, RAD-12): status, class and place, and what they were before.

Encounter.statusHistory, classHistory and the `completed` ones among its locations are what a cancel goes back to: A11, A12 and
A13 take the last one off again, for what was cancelled has not been. The versions of the Encounter keep all of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from bridges.v2 import times
from bridges.v2.people_in import People
from bridges.v2.reception import Reception, date_time
from bridges.v2.refused import Refused, missing, no_segment, wrong
from bridges.v2.visit_in import OVER, PV1, Pv1, begun, find
from fhir_server import clock
from fhir_server.registry import Resource
from resources.security_labels import labelled


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a visit: the trigger event, when it did, and the PV1 that tells of it."""

    code: str
    when: str  # FHIR dateTime
    pv1: Pv1

    def refused(self, text: str, *, code: int = 207) -> Refused:
        return wrong(self.pv1.segment, 19, text, code=code)


# Trigger event -> Encounter.status that it brings about. The others say nothing of where the patient is.
_STATUS: Final = {
    "A01": "in-progress", "A02": "in-progress", "A03": "finished", "A04": "arrived", "A05": "planned", "A06": "in-progress",
}  # fmt: skip
_CANCELS: Final = frozenset({"A11", "A12", "A13", "A38"})
# Those that change the class as an event; for others a new class is a correction.
_CHANGES_CLASS: Final = frozenset({"A01", "A04", "A06", "A07"})
_ORDER: Final = ("unknown", "planned", "arrived", "in-progress")


async def receive_visit(reception: Reception, patient: Resource, people: People) -> Resource | None:
    """What the message says of the patient's visit; None where it names none."""
    unit, message = reception.unit, reception.message
    event_code = message.type[1]
    source = Pv1.of(message, reception.sender, people)
    number = source.number if source else None
    if source is None or number is None:
        if event_code in _CANCELS and source is None:
            raise no_segment("PV1", "the visit (PV1)")
        if event_code in _CANCELS and source is not None:
            raise missing(source.segment, 19, "the number of the visit that is cancelled")
        return None
    event = Event(event_code, occurred(reception), source)
    said = await PV1.build(source)
    found = await find(unit, number, patient)
    if event.code in _CANCELS:
        if found is None:
            raise event.refused("the visit that is cancelled isn't there", code=204)
        return await unit.update(_CANCEL[event.code](found, said, event))
    if found is None:
        return await unit.create(_first(begun(said, patient, _STATUS.get(event.code, "unknown")), event))
    return await unit.update(_next(found, said, event))


def occurred(reception: Reception) -> str:
    """When the event took place: EVN-6, else EVN-2 (recorded), else MSH-7, else now."""
    evn, msh = reception.message.first("EVN"), reception.message.msh
    for segment, field in ((evn, 6), (evn, 2), (msh, 7)):
        if segment is not None and (when := date_time(reception.sender, segment, field)):
            return when
    return clock.instant(reception.unit.now)


# The course of a visit


def _first(encounter: Resource, event: Event) -> Resource:
    """A visit that we hear of for the first time, with whatever event."""
    made = dict(encounter)
    if event.code in {"A01", "A04"}:
        made.setdefault("period", {}).setdefault("start", event.when)
    if event.code == "A03":
        return _ended(made, event)
    if "location" in made:
        made["location"] = [_entered(place, event, made) for place in made["location"]]
    return made


def _next(found: Resource, said: Resource, event: Event) -> Resource:
    """A known visit after the event. What the PV1 leaves out stays."""
    encounter = _corrected(found, said)
    if event.code in _CHANGES_CLASS and "class" in found and found["class"] != encounter["class"]:
        encounter["classHistory"] = [
            *found.get("classHistory", ()), {"class": found["class"], "period": _until(found, "classHistory", event)},
        ]  # fmt: skip
    status = _STATUS.get(event.code)
    if status is not None and _may_become(found, status, event):
        if event.code in {"A01", "A04"}:
            encounter["period"] = {"start": event.when} | encounter.get("period", {})
        encounter = _become(encounter, found, status, event)
    if event.code == "A03" and found["status"] not in OVER:
        return _ended(encounter, event)
    if said.get("location") and not _over(found, event):
        moved = event.code in {"A01", "A02", "A04", "A06", "A07"}
        encounter["location"] = _moved(found, said, event) if moved else _replaced(found, said)
    return encounter


def _over(found: Resource, event: Event) -> bool:
    return found["status"] in OVER and event.code not in {"A01", "A04"}


def _corrected(found: Resource, said: Resource) -> Resource:
    made = labelled(found, said) | {k: v for k, v in said.items() if k not in {"meta", "identifier", "location", "period"}}
    if "hospitalization" in found and "hospitalization" in said:
        made["hospitalization"] = found["hospitalization"] | said["hospitalization"]
    if period := found.get("period", {}) | said.get("period", {}):
        made["period"] = period
    known = {(i.get("system"), i["value"]) for i in found["identifier"]}
    new = [i for i in said["identifier"] if (i.get("system"), i["value"]) not in known]
    return made | {"identifier": [*found["identifier"], *new]}


def _may_become(found: Resource, status: str, event: Event) -> bool:
    """Messages come late and out of order: a visit goes forward; one that has ended begins again only with a later admission."""
    was = found["status"]
    if was == status:
        return False
    if was in OVER:
        return event.code in {"A01", "A04", "A05"} and _later(event.when, found.get("period", {}).get("end"))
    return status == "finished" or was not in _ORDER or _ORDER.index(status) > _ORDER.index(was)


def _later(when: str, end: str | None) -> bool:
    return end is None or times.from_fhir(when, UTC)[:14] > times.from_fhir(end, UTC)[:14]


def _become(encounter: Resource, found: Resource, status: str, event: Event) -> Resource:
    before = {"status": found["status"], "period": _until(found, "statusHistory", event)}
    made = encounter | {"status": status, "statusHistory": [*found.get("statusHistory", ()), before]}
    if found["status"] in OVER and "end" in made.get("period", {}):
        made["period"] = {k: v for k, v in made["period"].items() if k != "end"}
    return made


def _until(found: Resource, history: str, event: Event) -> dict[str, str]:
    """The period of what ends now: since what was before it ended, else since the visit began."""
    earlier = found.get(history, ())
    start = earlier[-1]["period"].get("end") if earlier else found.get("period", {}).get("start")
    return ({"start": start} if start and not _later(start, event.when) else {}) | {"end": event.when}


def _ended(encounter: Resource, event: Event) -> Resource:
    """A03: period.end is PV1-45, else when the event took place."""
    end = encounter.get("period", {}).get("end") or event.when
    places = [
        place | {"status": "completed", "period": place.get("period", {}) | {"end": end}}
        if place.get("status", "active") == "active" else place
        for place in encounter.get("location", ())
    ]  # fmt: skip
    made = encounter | {"status": "finished", "period": encounter.get("period", {}) | {"end": end}}
    return made | ({"location": places} if places else {})


# Places


def _entered(place: Resource, event: Event, encounter: Resource) -> Resource:
    if encounter.get("status") == "planned":
        return place | {"status": "planned"}
    start = event.when if event.code in {"A02", "A06", "A07"} else encounter.get("period", {}).get("start")
    return place | {"status": "active"} | ({"period": {"start": start}} if start else {})


def _now_at(encounter: Resource) -> Resource | None:
    return next((p for p in reversed(encounter.get("location", ())) if p.get("status", "active") in {"active", "planned"}), None)


def _moved(found: Resource, said: Resource, event: Event) -> list[Resource]:
    """The places with the new one; the one before it is left when the event took place. One that was only planned, never was."""
    now, (place,) = _now_at(found), said["location"]
    here = place | {"status": "active", "period": {"start": event.when}}
    if now is None:
        return [*found.get("location", ()), here]
    if now.get("status") == "planned":
        return [*(p for p in found["location"] if p is not now), here]
    if now["location"] == place["location"]:
        return list(found["location"])
    left = now | {"status": "completed", "period": now.get("period", {}) | {"end": event.when}}
    return [*(left if p is now else p for p in found["location"]), here]


def _replaced(found: Resource, said: Resource) -> list[Resource]:
    """A08: where the patient is, was wrong."""
    now, (place,) = _now_at(found), said["location"]
    if now is None:
        return [*found.get("location", ()), place | {"status": "active"}]
    kept = {k: v for k, v in now.items() if k not in {"extension", "location"}}
    return [p if p is not now else kept | place for p in found["location"]]


# Cancels


def _cancel_admit(found: Resource, _said: Resource, event: Event) -> Resource:
    """A11: not admitted. Planned again where it was, else cancelled."""
    if found["status"] == "finished":
        raise event.refused("the visit has ended: its discharge is to be cancelled first")
    if found["status"] == "cancelled":
        return found
    if found.get("statusHistory"):
        return _restored(found)
    return _called_off(found, event)


def _cancel_pre_admit(found: Resource, _said: Resource, event: Event) -> Resource:
    """A38: not expected any more."""
    if found["status"] in {"in-progress", "finished"}:
        raise event.refused(f"the visit is {found['status']}: a pre-admission can't be cancelled any more")
    return found if found["status"] == "cancelled" else _called_off(found, event)


def _called_off(found: Resource, event: Event) -> Resource:
    before = {"status": found["status"], "period": _until(found, "statusHistory", event)}
    return found | {"status": "cancelled", "statusHistory": [*found.get("statusHistory", ()), before]}


def _cancel_transfer(found: Resource, said: Resource, event: Event) -> Resource:
    """A12: back where the patient was. PV1-3 says where that is, should we know of no earlier place."""
    places = list(found.get("location", ()))
    now = _now_at(found)
    earlier = [p for p in places if p.get("status") == "completed"]
    if found["status"] in OVER:
        raise event.refused(f"the visit is {found['status']}: a transfer can't be cancelled any more")
    if now is None or not earlier:
        raise event.refused("no transfer of this visit is known that could be cancelled")
    last: Resource = earlier[-1]
    period = {k: v for k, v in last.get("period", {}).items() if k != "end"}
    back = {k: v for k, v in last.items() if k != "period"} | {"status": "active"} | ({"period": period} if period else {})
    if said.get("location") and said["location"][0]["location"] != back["location"]:
        back |= said["location"][0]
    return found | {"location": [back if p is last else p for p in places if p is not now]}


def _cancel_discharge(found: Resource, _said: Resource, event: Event) -> Resource:
    """A13: the patient is still there."""
    if found["status"] != "finished":
        raise event.refused(f"the visit is {found['status']}: no discharge can be cancelled")
    return _restored(found) if found.get("statusHistory") else _still_there(found | {"status": "in-progress"})


def _restored(found: Resource) -> Resource:
    """As it was before its present status."""
    *earlier, before = found["statusHistory"]
    made = {k: v for k, v in found.items() if k != "statusHistory"} | {"status": before["status"]}
    made |= {"statusHistory": earlier} if earlier else {}
    if found["status"] == "finished":
        return _still_there(made)
    if before["status"] == "planned" and (now := _now_at(made)):
        made["location"] = [p if p is not now else p | {"status": "planned"} for p in made["location"]]
    return made


def _still_there(encounter: Resource) -> Resource:
    """Without the end that a discharge set."""
    period = encounter.get("period", {})
    end = period.get("end")
    made = {k: v for k, v in encounter.items() if k != "period"}
    made |= {"period": {"start": period["start"]}} if "start" in period else {}
    if "location" in encounter:
        made["location"] = [_active_again(p) if p.get("period", {}).get("end") == end else p for p in encounter["location"]]
    return made


def _active_again(place: Resource) -> Resource:
    period = {k: v for k, v in place.get("period", {}).items() if k != "end"}
    made = {k: v for k, v in place.items() if k != "period"} | {"status": "active"}
    return made | ({"period": period} if period else {})


_CANCEL: Final[dict[str, Callable[[Resource, Resource, Event], Resource]]] = {
    "A11": _cancel_admit,
    "A12": _cancel_transfer,
    "A13": _cancel_discharge,
    "A38": _cancel_pre_admit,
}
