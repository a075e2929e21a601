"""What never contradicts: plain predicates about an order and everything that hangs on it, after any transaction.

Each yields what is wrong, in words; nothing where all is well. `contradictions` asks them all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fhir_server.references import ref
from resources import charge_item, imaging_study, order_numbers, procedure, task
from tests.department import Department

Resource = dict[str, Any]

OVER = frozenset({"revoked", "completed", "entered-in-error"})
SIGNED = frozenset({"final", "amended", "corrected", "appended"})
WITHDRAWN = frozenset({"cancelled", "entered-in-error"})
BOOKED = frozenset({"booked", "arrived", "checked-in"})
BEGUN = frozenset({"in-progress", "completed", "failed"})
EXPECTED = {"booked": {"accepted"}, "arrived": {"ready"}, "checked-in": {"ready"}}  # of a step that waits, by its appointment


@dataclass(slots=True)
class Case:
    """An order, and what hangs on it. By requested procedure: steps, studies, readings, charges."""

    order: Resource
    procedures: list[Resource]
    steps: dict[str, list[Resource]]
    studies: dict[str, list[Resource]]
    readings: dict[str, list[Resource]]
    charges: dict[str, list[Resource]]
    reports: list[Resource]
    appointments: list[Resource]
    performed: list[Resource]
    worklist: set[str]  # ids of the steps that scanners see

    @property
    def all_steps(self) -> list[Resource]:
        return [s for steps in self.steps.values() for s in steps]

    def reports_of(self, requested: Resource) -> list[Resource]:
        own = [ref(self.order), ref(requested)]
        return [r for r in self.reports if any(b in own for b in r.get("basedOn", ()))]

    def appointment(self, step: Resource) -> Resource | None:
        named = task.appointment_of(step)
        return next((a for a in self.appointments if f"Appointment/{a['id']}" == named), None)

    def steps_of(self, appointment: Resource) -> list[Resource]:
        return [s for s in self.all_steps if task.appointment_of(s) == f"Appointment/{appointment['id']}"]


async def case(ris: Department, order_id: str) -> Case:
    """The case of an order as it is stored now."""
    order = await ris.read(f"ServiceRequest/{order_id}")
    requests = await ris.procedures(order)
    made = Case(order, requests, {}, {}, {}, {}, [], [], [], set())
    for one in requests:
        based = f"ServiceRequest/{one['id']}"
        tasks = await ris.search("Task", based_on=based)
        made.steps[one["id"]] = [t for t in tasks if task.is_step(t)]
        made.readings[one["id"]] = [t for t in tasks if task.is_reading(t)]
        made.studies[one["id"]] = studies = await ris.search("ImagingStudy", basedon=based)
        about = ",".join(f"ImagingStudy/{s['id']}" for s in studies)
        made.charges[one["id"]] = await ris.search("ChargeItem", service=about) if about else []
    everything = ",".join(f"ServiceRequest/{r['id']}" for r in (order, *requests))
    made.reports = await ris.search("DiagnosticReport", based_on=everything)
    made.performed = await ris.search("Procedure", based_on=everything)
    made.appointments = await ris.search("Appointment", based_on=f"ServiceRequest/{order_id}")
    ids = [s["id"] for s in made.all_steps]
    made.worklist = {d["_id"] async for d in ris.db["worklist"].find({"_id": {"$in": ids}})}
    return made


def one_patient(c: Case) -> Iterator[str]:
    """Everything is of the order's patient, but for what somebody has to look at first."""
    whose = c.order["subject"]["reference"]
    for one in (*c.procedures, *(s for t in c.studies.values() for s in t), *c.reports, *(p for p in c.performed)):
        in_doubt = one["resourceType"] == "Procedure" and procedure.is_in_doubt(one)
        if one["subject"]["reference"] != whose and not in_doubt:
            yield f"{_said(one)} is of another patient"
    for one in (*c.all_steps, *(r for t in c.readings.values() for r in t)):
        if one["for"]["reference"] != whose:
            yield f"{_said(one)} is of another patient"


def an_accepted_order_is_planned(c: Case) -> Iterator[str]:
    """With numbers, requested procedures, and for what is still to be done a study."""
    if c.order["status"] in {"active", "completed"} and not c.procedures:
        yield "it has no requested procedure"
    if c.order["status"] == "active" and order_numbers.accession_number(c.order) is None:
        yield "it has no accession number"
    for one in c.procedures:
        waiting = [s for s in c.steps[one["id"]] if s["status"] in task.BEFORE_START]
        studies = [s for s in c.studies[one["id"]] if s["status"] in {"registered", "available"}]
        if waiting and not studies:
            yield f"{_said(one)} has steps that wait, and no study to be"
        if len([s for s in studies if "series" not in s]) > 1:
            yield f"{_said(one)} has several studies to be"


def what_is_over_is_over(c: Case) -> Iterator[str]:
    """A revoked or completed request has nothing open."""
    for one in c.procedures:
        if one["status"] in OVER or c.order["status"] in OVER:
            yield from (f"{_said(s)} of {_said(one)}" for s in c.steps[one["id"]] if s["status"] in task.OPEN)
    if c.order["status"] in OVER:
        yield from (f"{_said(p)} of an order that is {c.order['status']}" for p in c.procedures if p["status"] not in OVER)
        yield from (f"{_said(a)} of an order that is {c.order['status']}" for a in c.appointments if a["status"] in BOOKED)
    for one in c.procedures:
        if one["status"] in {"revoked", "entered-in-error"}:
            yield from (f"{_said(r)} of {_said(one)}" for r in c.readings[one["id"]] if r["status"] in task.OPEN)


def a_held_order_waits(c: Case) -> Iterator[str]:
    """Nothing of an order on hold, or not accepted yet, is on the worklist."""
    if c.order["status"] in {"on-hold", "draft"}:
        yield from (f"{_said(s)} of an order {c.order['status']}" for s in c.all_steps if s["status"] in {"accepted", "ready"})


def a_completed_request_is_reported(c: Case) -> Iterator[str]:
    """With a report that was signed (it may have been withdrawn)."""
    for one in c.procedures:
        if one["status"] == "completed" and not any(
            r["status"] in {*SIGNED, "cancelled", "entered-in-error"} for r in c.reports_of(one)
        ):
            yield f"{_said(one)} has no report"
    if c.order["status"] == "completed" and not any(p["status"] == "completed" for p in c.procedures):
        yield "it is completed, and none of its procedures"


def the_worklist_shows_what_is_scheduled(c: Case) -> Iterator[str]:
    """And nothing else."""
    for step in c.all_steps:
        if (step["id"] in c.worklist) != (step["status"] in {"accepted", "ready"}):
            yield f"{_said(step)} is {'on' if step['id'] in c.worklist else 'not on'} the worklist"


def step_and_booking_agree(c: Case) -> Iterator[str]:
    """A step that waits is where and when its appointment is."""
    for step in c.all_steps:
        booked = c.appointment(step)
        if booked is None or step["status"] not in {"requested", "accepted", "ready"}:
            continue
        if step["status"] not in EXPECTED.get(booked["status"], {"requested"}):
            yield f"{_said(step)} with {_said(booked)}"
        if step["status"] != "requested" and step["restriction"]["period"]["start"] != booked["start"]:
            yield f"{_said(step)} is at another time than {_said(booked)}"


def an_appointment_follows_its_steps(c: Case) -> Iterator[str]:
    """Fulfilled when one was done or stopped and none is open; never cancelled once one has begun."""
    for one in c.appointments:
        ends = {s["status"] for s in c.steps_of(one)}
        if one["status"] == "fulfilled" and ends & task.OPEN:
            yield f"{_said(one)} with steps {sorted(ends)}"
        if one["status"] in {"cancelled", "noshow", "entered-in-error"} and ends & BEGUN:
            yield f"{_said(one)} with steps {sorted(ends)}"
        if one["status"] in {"booked", "arrived"} and "in-progress" in ends:
            yield f"{_said(one)} with a step in progress"
        if one["status"] in BOOKED and ends and not ends & task.OPEN:
            yield f"{_said(one)} with steps {sorted(ends)}"


def steps_follow_what_is_performed(c: Case) -> Iterator[str]:
    """What is being performed has begun; what has ended doesn't wait."""
    for one in c.performed:
        if procedure.is_in_doubt(one) or procedure.is_wrong_entry(one):
            continue
        for step in (s for s in c.all_steps if ref(one) in procedure.performances(s)):
            if one["status"] == "in-progress" and step["status"] in task.BEFORE_START:
                yield f"{_said(step)} while {_said(one)}"
            if one["status"] == "completed" and step["status"] in task.BEFORE_START | {"failed"}:
                yield f"{_said(step)} though {_said(one)}"


def what_was_examined_is_read(c: Case) -> Iterator[str]:
    """One reading at a time, of what was examined, as far as its report is."""
    for one in c.procedures:
        ends = {s["status"] for s in c.steps[one["id"]]}
        open_ones = [r for r in c.readings[one["id"]] if r["status"] in task.OPEN]
        reports = {r["status"] for r in c.reports_of(one)}
        if len(open_ones) > 1:
            yield f"{_said(one)} is read twice"
        if open_ones and "completed" not in ends and not ends & task.OPEN:
            yield f"{_said(open_ones[0])}, and nothing of {_said(one)} was examined"
        if (
            open_ones
            and reports & SIGNED
            and not reports & {"registered", "partial", "preliminary", "cancelled", "entered-in-error"}
        ):
            yield f"{_said(open_ones[0])}, and its report is signed"
        examined = one["status"] == "active" and "completed" in ends and not ends & task.OPEN
        if examined and not c.readings[one["id"]] and not reports:
            yield f"{_said(one)} was examined, and nobody is to read it"


def charged_once_for_what_was_done(c: Case) -> Iterator[str]:
    """The technical component for an examination that was done, the professional one for a signed report."""
    for one in c.procedures:
        ends = {s["status"] for s in c.steps[one["id"]]}
        standing = [charge_item.component(x) for x in c.charges[one["id"]] if x["status"] in charge_item.STANDS]
        done = "completed" in ends and one["status"] not in {"revoked", "entered-in-error"}
        signed = any(r["status"] in SIGNED for r in c.reports_of(one)) and one["status"] not in {"revoked", "entered-in-error"}
        for component, due, must in (
            (charge_item.TECHNICAL, done, done and not ends & task.OPEN),
            (charge_item.PROFESSIONAL, signed, signed),
        ):
            times = standing.count(component)
            if times > due or times < must:
                yield f"the {component} component of {_said(one)} is charged {times} times"


def studies_hold_what_was_made(c: Case) -> Iterator[str]:
    """A study that is available has series and its UID; none that holds images is cancelled."""
    for study in (s for studies in c.studies.values() for s in studies):
        if study["status"] == "available" and "series" not in study:
            yield f"{_said(study)} without series"
        if study["status"] in {"registered", "available"} and imaging_study.study_uid(study) is None:
            yield f"{_said(study)} has no Study Instance UID"


PREDICATES: tuple[Callable[[Case], Iterator[str]], ...] = (
    one_patient,
    an_accepted_order_is_planned,
    what_is_over_is_over,
    a_held_order_waits,
    a_completed_request_is_reported,
    the_worklist_shows_what_is_scheduled,
    step_and_booking_agree,
    an_appointment_follows_its_steps,
    steps_follow_what_is_performed,
    what_was_examined_is_read,
    charged_once_for_what_was_done,
    studies_hold_what_was_made,
)


def contradictions(c: Case) -> list[str]:
    """What contradicts in a case, each with the predicate that says so."""
    return [f"{p.__name__}: {said}" for p in PREDICATES for said in p(c)]


def _said(resource: Resource) -> str:
    kind = {"ServiceRequest": "requested procedure", "Task": "step" if task.is_step(resource) else "reading"}
    return f"{kind.get(resource['resourceType'], resource['resourceType'])} {resource['id'][-4:]} {resource['status']}"
