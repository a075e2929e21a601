"""Storing a result that has come: as a new DiagnosticReport with its Observations, or as the next version of what we have."""

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridges.v2.observation_in import status_of_part
from bridges.v2.report_content import Content
from bridges.v2.result_status import SIGNED, next_status
from fhir_server import clock
from fhir_server.elements import codings, same
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import diagnostic_report, identifiers, terms
from resources.report_section import (
    ADDENDUM,
    FINDINGS,
    TITLES,
    is_plain_text,
    is_section,
    loinc,
    section,
)

# Each result is the whole content of its report: what it doesn't say any more goes. Around the content, a later result changes
# what it speaks of, and an empty field nothing.
_CONTENT: Final = ("conclusion", "conclusionCode", "presentedForm")
_AROUND: Final = (
    "code category effectiveDateTime effectivePeriod resultsInterpreter performer extension basedOn imagingStudy".split()
)
_SIGNED_BY: Final = ("code", "resultsInterpreter", "effectiveDateTime", "effectivePeriod")  # of these, another one is a change


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result as it came.

    report: the DiagnosticReport without content; content: what it says
    moment: when the report was issued, where the message says so; instance: the identifier of OBR-51
    """

    report: Resource
    content: Content
    moment: datetime | None
    instance: Resource | None


async def find_report(unit: UnitOfWork, instance: Resource) -> Resource | None:
    """The report with this identifier (OBR-51)."""
    found = [r for r in await identifiers.carriers(unit, "DiagnosticReport", [instance]) if r["status"] != "entered-in-error"]
    return found[0] if found else None


async def store_report(unit: UnitOfWork, arrival: Arrival, known: Resource | None) -> Resource | None:
    """The report after this result; None where it changes nothing. Raises result_status.Older."""
    known = known or await _same_report(unit, arrival)
    if known is not None and known["status"] == "cancelled" and arrival.report["status"] != "cancelled":
        known = None
    if known is None:
        return await _create(unit, arrival)
    return await _update(unit, arrival, known)


async def _same_report(unit: UnitOfWork, arrival: Arrival) -> Resource | None:
    """The report of the same order and code (OBR-2, OBR-3 and OBR-4 as the order's numbers and the procedure)."""
    requests = ",".join(r["reference"] for r in arrival.report["basedOn"])
    found = [
        r
        for r in await unit.search("DiagnosticReport", based_on=requests)
        if r["status"] != "entered-in-error" and _has_code_of(r, arrival.report) and not _is_another(r, arrival.instance)
    ]
    valid = [r for r in found if r["status"] != "cancelled"] or found
    return max(valid, key=lambda r: str(r.get("issued", r["meta"]["lastUpdated"])), default=None)


def _has_code_of(one: Resource, other: Resource) -> bool:
    """The codes count, whatever their system is called: what went out as ours comes back as the reader's local one."""
    ours, theirs = ({c.get("code") for c in codings(r["code"])} or {r["code"].get("text")} for r in (one, other))
    return bool(ours & theirs)


def _is_another(report: Resource, instance: Resource | None) -> bool:
    """Whether it has an OBR-51 of its own."""
    own = [i for i in report.get("identifier", ()) if instance and i.get("type") == instance.get("type")]
    return bool(own) and not identifiers.carries(report, [instance] if instance else [])


async def _create(unit: UnitOfWork, arrival: Arrival) -> Resource:
    report, content = arrival.report, arrival.content
    results = [ref(await unit.create(_observation(report, o))) for o in content.observations]
    return await unit.create(_written(report, content, results))


async def _update(unit: UnitOfWork, arrival: Arrival, known: Resource) -> Resource | None:
    content = arrival.content
    had = [o for r in known.get("result", ()) if (o := await unit.get(r)) is not None]
    if arrival.report["status"] == "cancelled" and content.is_empty:
        content = _kept(known, had)
    elif content.is_addendum and known["status"] != "cancelled":
        content = _added(known, had, content)
    report = _written(arrival.report, content, [])
    changed = not _same_results(had, content.observations) or any(not same(known.get(e), report.get(e)) for e in _CONTENT)
    changed = changed or any(e in report and not same(known.get(e), report[e]) for e in _SIGNED_BY)
    status = next_status(
        known["status"], arrival.report["status"],
        changed=changed, adds=_only_added(had, known, content), newer=_newer(arrival.moment, known),
    )  # fmt: skip
    if status is None:
        return None
    results = await _store_results(unit, arrival.report | {"status": status}, arrival.report["status"], had, content)
    updated = {e: v for e, v in known.items() if e not in {*_CONTENT, "result"} and not _replaced(e, report)}
    updated |= {e: report[e] for e in (*_CONTENT, *_AROUND) if e in report} | {
        "identifier": identifiers.learned(known.get("identifier", ()), report.get("identifier", ())),
        "issued": report.get("issued") or clock.instant(unit.now),
    }
    if "extension" in updated and not diagnostic_report.is_unnamed(report):  # it is said now
        updated["extension"] = [e for e in updated["extension"] if e != diagnostic_report.UNNAMED]
        updated = {e: v for e, v in updated.items() if e != "extension" or v}
    if results:
        updated["result"] = results
    if status in SIGNED - {"final"} and known["status"] not in SIGNED:
        await unit.update(updated | {"status": "final"})  # the final itself has never come; its correction stands for both
    return await unit.update(updated | {"status": status})


def _replaced(element: str, report: Resource) -> bool:
    """Of the two ways to say when, the later result's."""
    return element.startswith("effective") and any(e.startswith("effective") for e in report)


def _written(report: Resource, content: Content, results: list[Resource]) -> Resource:
    said = {
        "result": results,
        "conclusion": content.conclusion,
        "conclusionCode": content.conclusion_codes,
        "presentedForm": content.forms,
    }
    return report | {e: v for e, v in said.items() if v}


def _observation(report: Resource, observation: Resource) -> Resource:
    """An Observation of this report; what it doesn't say itself, the report says for it."""
    shared = {e: report[e] for e in ("subject", "encounter", "basedOn", "issued") if e in report}
    own_time = any(e.startswith("effective") for e in observation)
    times = {} if own_time else {e: report[e] for e in ("effectiveDateTime", "effectivePeriod") if e in report}
    people = {"performer": report["resultsInterpreter"]} if "resultsInterpreter" in report else {}
    return shared | times | people | observation


# What is known, and what is new


def _keyed(observations: Iterable[Resource]) -> dict[tuple[str, int], Resource]:
    """Each by what it observes, and which one of these it is."""
    seen: Counter[str] = Counter()
    keyed = {}
    for observation in observations:
        first: dict[str, Any] = next(codings(observation["code"]), {})
        what = f"{first.get('system', '')}|{first['code']}" if "code" in first else str(observation["code"].get("text"))
        keyed[what, seen[what]] = observation
        seen[what] += 1
    return keyed


_OBSERVED: Final = ("interpretation", "referenceRange", "note", "dataAbsentReason", "method", "bodySite", "code")


def _said(observation: Resource) -> Resource:
    return {e: v for e, v in observation.items() if e.startswith("value") or e in _OBSERVED}


def _same_results(had: list[Resource], now: list[Resource]) -> bool:
    one, other = _keyed(had), _keyed(now)
    return one.keys() == other.keys() and all(same(_said(one[k]), _said(other[k])) for k in one)


def _only_added(had: list[Resource], known: Resource, content: Content) -> bool:
    """Whether all that was said is said again, and an addendum is new."""
    before, now = _keyed(had), _keyed(content.observations)
    if known["status"] not in SIGNED or not any(loinc(o["code"]) == ADDENDUM for k, o in now.items() if k not in before):
        return False
    body = _body(known) if not any(map(is_section, had)) else ""
    if body and all(o.get("valueString") != body for o in content.sections):
        return False
    return all(k in now and same(_said(o), _said(now[k])) for k, o in before.items())


def _newer(moment: datetime | None, known: Resource) -> bool | None:
    """Whether the result was issued after the report that we have; None for at the same time, or when that can't be told."""
    if moment is None or "issued" not in known:
        return None
    issued = datetime.fromisoformat(known["issued"])
    return None if moment == issued else moment > issued


def _body(report: Resource) -> str:
    """The plain text of a report."""
    forms = [f for f in report.get("presentedForm", ()) if is_plain_text(f)]
    return base64.b64decode(forms[0]["data"]).decode("utf-8", "replace") if forms else ""


def _kept(known: Resource, had: list[Resource]) -> Content:
    """What we have, for a message that only takes it back."""
    forms = known.get("presentedForm", [])
    return Content(
        [_said(o) | {e: o[e] for e in ("resourceType", "category", "status") if e in o} for o in had],
        "" if any(map(is_section, had)) else _body(known),
        [f for f in forms if not is_plain_text(f)],
        known.get("conclusion", ""),
        known.get("conclusionCode", []),
    )


def _added(known: Resource, had: list[Resource], addendum: Content) -> Content:
    """What we have, with an addendum. A report of one text is its findings from here on."""
    kept = _kept(known, had)
    if kept.body:
        code = coded(terms.LOINC, FINDINGS, TITLES[FINDINGS]) | {"text": TITLES[FINDINGS]}
        kept.observations.append(section(code, kept.body) | {"status": addendum.sections[0]["status"]})
        kept.body = ""
    if known["status"] not in SIGNED:
        kept.observations = [o | {"status": addendum.sections[0]["status"]} for o in kept.observations]
    known_texts = [o.get("valueString") for o in kept.sections]
    kept.observations += [s for s in addendum.sections if s["valueString"] not in known_texts]
    kept.conclusion_codes = [*kept.conclusion_codes, *(c for c in addendum.conclusion_codes if c not in kept.conclusion_codes)]
    kept.urgent = addendum.urgent
    return kept


async def _store_results(unit: UnitOfWork, report: Resource, said: str, had: list[Resource], content: Content) -> list[Resource]:
    """The Observations of the report: changed ones in their next version, new ones; what isn't said any more was an error."""
    before, now = _keyed(had), _keyed(content.observations)
    stored = []
    for key, observation in now.items():
        made = _observation(report, observation)
        own = made["status"] == "preliminary" and report["status"] in SIGNED  # a part that isn't final yet
        if made["status"] == status_of_part(said) or (key in before and is_section(made) and not own):
            made["status"] = status_of_part(report["status"])
        if key in before:
            meta = {e: before[key][e] for e in ("id", "meta") if e in before[key]}
            stored.append(await unit.update(made | meta))
        else:
            stored.append(await unit.create(made))
    for key, observation in before.items():
        if key not in now and observation["status"] != "entered-in-error":
            await unit.update(observation | {"status": "entered-in-error"})
    return [ref(s) for s in stored]
