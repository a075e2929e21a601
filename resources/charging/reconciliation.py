"""The daily reconciliation of charges: what of one day of the department is performed and not charged, or charged and not right.

It must come out empty. Its kinds of findings:
    examination-without-charge    a requested procedure was done, and no technical charge was made
    report-without-charge         a report was signed, and no professional charge was made
    charge-without-examination    a charge stands for what was not done, or not reported
    charge-twice                  two charges stand for one code of one component of a requested procedure
    charge-not-sent               a charge stands of which no message was made, though somebody wants them
    message-not-delivered         a message about charges is not with its receiver
What a person has taken back (`$void`) or is held for review is not missing. A procedure that the catalogue marks as not charged
has nothing to miss.

A query by day for each kind of thing, each served by an index, and then what they name, by id in portions (`day.py`).
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.store import Store
from resources import charge_item, task
from resources.charge_item import PROFESSIONAL, STANDS, TECHNICAL, VOIDED
from resources.charging import catalogue
from resources.charging.day import Reader
from resources.charging.follow import SIGNED

_MESSAGE: Final = "DFT^P03"
_DELIVERED: Final = "delivered"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't right: its kind, what it is about ("ServiceRequest/1"), and what to say of it."""

    kind: str
    about: str
    text: str


@dataclass(slots=True)
class _Day:
    """The day. By id of the requested procedure: whether a step is done, is open; its charges; whether it is reported."""

    procedures: dict[str, Resource] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    charges: dict[str, list[Resource]] = field(default_factory=lambda: defaultdict(list))
    loose: list[Resource] = field(default_factory=list)


async def reconcile(store: Store, first: datetime, last: datetime) -> list[Finding]:
    """The findings of a day that begins at `first` and ends before `last`. FhirError `too-costly` for more than it can hold."""
    reader = Reader(store, first, last)
    done = await _done(reader)
    reports = await _reported(reader)
    charged = [c async for c in reader.of_day("ChargeItem", "occurrence")]
    named = {charge_item.procedure_id(c) for c in charged} - {""}
    day = await _day(reader, done | reports | named)
    day.loose = [c for c in charged if c["status"] in STANDS and not charge_item.procedure_id(c)]
    today = {c["id"] for c in charged}
    findings = [f async for f in _missing(reader, day, done, reports)]
    findings += _wrong(day, today)
    findings += [f async for f in _not_sent(reader, day, today)]
    return sorted(findings, key=lambda f: (f.kind, f.about))


async def _done(reader: Reader) -> set[str]:
    """The requested procedures that had a step done on the day."""
    found = {target(s.get("focus")) async for s in reader.steps() if s["status"] == "completed"}
    return {to.id for to in found if to and to.type == "ServiceRequest"}


async def _reported(reader: Reader) -> set[str]:
    """The requested procedures, and orders, that a report signed on the day is based on."""
    wanted: set[str] = set()
    studies: set[str] = set()
    async for report in reader.of_day("DiagnosticReport", "issued"):
        if report["status"] in SIGNED:
            wanted |= _requests(report)
            studies |= _studies(report)
    async for study in reader.by_id("ImagingStudy", studies):
        wanted |= _requests(study)
    return await reader.procedures_of(wanted)


def _requests(resource: Resource) -> set[str]:
    found = (target(r) for r in resource.get("basedOn", ()))
    return {to.id for to in found if to and to.type == "ServiceRequest"}


def _studies(report: Resource) -> set[str]:
    return {to.id for r in report.get("imagingStudy", ()) if (to := target(r))}


async def _day(reader: Reader, ids: set[str]) -> _Day:
    """What hangs on these requested procedures, whenever it was made."""
    day = _Day({r["id"]: r async for r in reader.by_id("ServiceRequest", ids) if r.get("intent") == "filler-order"})
    mine = set(day.procedures)
    orders = {o for p in day.procedures.values() for o in _requests(p)}
    async for step in reader.referring("Task", mine):
        to = target(step.get("focus"))
        if task.is_step(step) and to is not None and step["status"] in {"completed", *task.OPEN}:
            (day.done if step["status"] == "completed" else day.unfinished).add(to.id)
    signed: set[str] = set()
    async for report in reader.referring("DiagnosticReport", mine | orders):
        if report["status"] in SIGNED:
            signed |= _requests(report)
    studies = {s["id"]: _requests(s) async for s in reader.referring("ImagingStudy", mine)}
    async for report in reader.referring("DiagnosticReport", studies, "ImagingStudy"):
        if report["status"] in SIGNED:
            signed |= {r for s in _studies(report) for r in studies.get(s, ())}
    day.reported = {p["id"] for p in day.procedures.values() if p["id"] in signed or _requests(p) & signed}
    async for charge in reader.referring("ChargeItem", mine):
        day.charges[charge_item.procedure_id(charge)].append(charge)
    return day


# What is missing


async def _missing(reader: Reader, day: _Day, done: set[str], reports: set[str]) -> AsyncIterator[Finding]:
    entries = await reader.catalogue(day.procedures.values())
    ended = (done & day.done) - day.unfinished
    for component, which, kind, text in (
        (TECHNICAL, ended, "examination-without-charge", "the examination was done, and is not charged"),
        (PROFESSIONAL, reports & day.reported, "report-without-charge", "the report was signed, and is not charged"),
    ):
        for id_ in sorted(which & set(day.procedures)):
            procedure = day.procedures[id_]
            if procedure["status"] in {"revoked", "entered-in-error"}:
                continue
            entry = entries.get(id_)
            wanted = entry is None or bool(catalogue.of_component(entry, component))
            if wanted and not any(_is_settled(c, component) for c in day.charges[id_]):
                yield Finding(kind, f"ServiceRequest/{id_}", text if entry else f"{text}: the catalogue doesn't know it")


def _is_settled(charge: Resource, component: str) -> bool:
    """Whether there is a charge, or a person has said that there is to be none."""
    voided = any(e.get("url") == VOIDED for e in charge.get("extension", ()))
    return charge_item.component(charge) == component and (charge["status"] in {*STANDS, "not-billable"} or voided)


# What is wrong


def _wrong(day: _Day, today: set[str]) -> list[Finding]:
    findings = [
        Finding("charge-without-examination", f"ChargeItem/{c['id']}", "the charge is for no requested procedure")
        for c in day.loose
    ]
    for procedure, charges in day.charges.items():
        seen: dict[tuple[str, frozenset[Any]], str] = {}
        for charge in charges:
            if charge["status"] not in STANDS:
                continue
            about, component = f"ChargeItem/{charge['id']}", charge_item.component(charge)
            there = procedure in (day.reported if component == PROFESSIONAL else day.done)
            stopped = charge["status"] == "planned" or any(
                "53" in {code for _, code in catalogue.keys(m)} for m in charge_item.modifiers(charge)
            )
            if charge["id"] in today and not there and not stopped:
                text = "the report is not signed" if component == PROFESSIONAL else "the examination was not done"
                findings.append(Finding("charge-without-examination", about, f"the charge stands, but {text}"))
            key = component, frozenset(catalogue.keys(charge["code"]) or {charge["code"].get("text")})
            if key in seen and {charge["id"], seen[key]} & today:
                findings.append(Finding("charge-twice", about, f"the same is charged by ChargeItem/{seen[key]}"))
            seen.setdefault(key, charge["id"])
    return findings


# What has not arrived


async def _not_sent(reader: Reader, day: _Day, today: set[str]) -> AsyncIterator[Finding]:
    """Messages of the day that are not delivered, and charges of which there is no message."""
    async for row in reader.messages(_MESSAGE):
        if row["state"] != _DELIVERED:
            text = f"a {_MESSAGE} for {row['destination']} is {row['state']}"
            yield Finding("message-not-delivered", str((row.get("about") or [row["destination"]])[0]), text)
    if not await reader.is_wanted(_MESSAGE):
        return
    of_day = [c for charges in day.charges.values() for c in charges if c["id"] in today]
    going = {f"ChargeItem/{c['id']}" for c in of_day if c["status"] in {"billable", "billed"}}
    for untold in going - await reader.told_about(_MESSAGE, going):
        yield Finding("charge-not-sent", untold, f"no {_MESSAGE} was made for it")
