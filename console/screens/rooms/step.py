"""The page of one examination: whose it is, what speaks against it, how far it is, and all that is done with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from console.asking import Found
from console.formats import concept, human_name, moment
from console.screens.rooms import coded, said
from console.visit import Visit
from fhir_server.elements import extension, has_code, identifier_value
from fhir_server.outcome import fail
from fhir_server.references import target
from fhir_server.registry import Resource
from resources import contrast, procedure, protocol, task, terms, tracking
from resources.device import name as device_name
from resources.examination import REJECTED
from resources.safety import answers, findings, issues, tables

# LOINC: creatinine, TSH, INR, pregnancy status, height, weight; with the codes of the eGFR.
_LABS: Final = ("2160-0", "14682-9", "3016-3", "6301-6", answers.PREGNANCY, "8302-2", "29463-7")
_PATH: Final = ("scheduled", "arrived", "prepared", "in-room", "in-progress", "done", "left")


@dataclass(frozen=True, slots=True)
class Screening:
    """A questionnaire that the patient is asked, and what was answered last, by whom, when."""

    id: str
    title: str
    required: bool
    counts: bool
    authored: str
    by: str
    said: list[tuple[str, str, bool]]  # question, answer, whether it is adverse


@dataclass(frozen=True, slots=True)
class Issue:
    """What speaks against it; `stops` as long as it isn't cleared."""

    id: str
    text: str
    effect: str
    stops: bool
    cleared: str = ""
    by: str = ""
    at: str = ""


@dataclass(slots=True)
class Picture:
    """All that the page tells of a step. Lists are empty where there is nothing, or where the role sees nothing."""

    step: Resource
    state: str
    patient: Resource | None
    requested: Resource | None
    order: Resource | None
    station: Resource | None
    where: str
    appointment: Resource | None
    study: Resource | None
    names: dict[str, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)
    screening: list[Screening] = field(default_factory=list)
    allergies: list[Resource] = field(default_factory=list)
    flags: list[Resource] = field(default_factory=list)
    labs: list[tuple[str, str, str]] = field(default_factory=list)  # what, value, when
    given: list[Resource] = field(default_factory=list)
    performed: list[Resource] = field(default_factory=list)
    protocols: list[Resource] = field(default_factory=list)
    proposed: list[Resource] = field(default_factory=list)
    steps: list[Resource] = field(default_factory=list)

    @property
    def version(self) -> str:
        return str(self.step["meta"]["versionId"])

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.step["status"] in task.BEFORE_START

    @property
    def stopped(self) -> bool:
        return any(i.stops for i in self.issues)

    @property
    def agents(self) -> list[Resource]:
        """The contrast agents that are planned: by the protocol, else by the order."""
        own = findings.contrast_agents(self.requested)
        return own or ([] if self.decided else findings.contrast_agents(self.order))

    @property
    def decided(self) -> bool:
        """Whether the protocol says which contrast is given."""
        return self.requested is not None and findings.is_decided(self.requested)

    @property
    def pre_medication(self) -> list[Resource]:
        """What is given before, CodeableConcepts."""
        found = (e for e in (self.requested or {}).get("extension", ()) if e.get("url") == protocol.PRE_MEDICATION)
        return [e["valueCodeableConcept"] for e in found if "valueCodeableConcept" in e]

    @property
    def moves(self) -> list[str]:
        """Where the patient may be said to be, now."""
        possible = {"accepted": ("arrived", "prepared", "in-room")}.get(
            self.step["status"], tracking.STATES.get(self.step["status"], ())
        )
        return [s for s in ("arrived", "prepared", "in-room", "left") if s in possible and s != self.state]

    def by_scanner(self, performed: Resource) -> bool:
        """Whether the scanner has told of it (MPPS), and not a person."""
        return identifier_value(performed, terms.DICOM_UID) is not None

    @property
    def path(self) -> list[tuple[str, str | None, str]]:
        """The way of the patient: each state with the time since when, and who said so."""
        rows = {}
        for e in self.step.get("extension", ()):
            if e.get("url") == tracking.TRACKED:
                parts = {p["url"]: p for p in e["extension"]}
                by = parts.get("by", {}).get("valueReference", {}).get("reference", "")
                rows[parts["state"]["valueCode"]] = (parts["at"]["valueInstant"], self.names.get(by, ""))
        states = ["stopped" if s == "done" and self.state == "stopped" else s for s in _PATH]
        if self.state not in (*states, ""):
            states = [self.state]
        return [(s, *rows.get(s, (None, ""))) for s in states]

    @property
    def rejects(self) -> list[tuple[str, int, str]]:
        """Rejected images: why, how many, when."""
        found = []
        for e in self.step.get("extension", ()):
            if e.get("url") == REJECTED:
                parts = {p["url"]: p for p in e["extension"]}
                images = parts["images"]["valuePositiveInt"]
                found.append((concept(parts["reason"]["valueCodeableConcept"]), images, parts["at"]["valueInstant"]))
        return found


async def read(visit: Visit) -> Picture:
    """Everything about the step of the address. FhirError 404 where there is none."""
    step = await visit.desk.read(f"Task/{visit.id()}")
    if not task.is_step(step):
        raise fail("not-found", f"Task/{visit.id()} is no examination")
    picture, more = await _around(visit, step)
    await _complete(visit, picture, more)
    return picture


async def _around(visit: Visit, step: Resource) -> tuple[Picture, dict[str, Found]]:
    """The step with order, patient and station, and what else was asked at once, by kind."""
    focus = str(step.get("focus", {}).get("reference", "ServiceRequest/-"))
    whose = str(step.get("for", {}).get("reference", "Patient/-"))
    to, owner = target(focus), target(step.get("owner"))
    given = [r["valueReference"]["reference"] for r in _outputs(step, contrast.GIVEN)]
    labs = ",".join(f"{terms.LOINC}|{c}" for c in sorted({*tables.facts().egfr_codes, *_LABS}))
    include = ["ServiceRequest:based-on", "ServiceRequest:requester", "ServiceRequest:encounter"]
    asked = {
        "ServiceRequest": _maybe(visit, "ServiceRequest", _id=to.id if to else "-", _include=include),
        "Patient": _maybe(visit, "Patient", _id=whose.rpartition("/")[2]),
        "Device": _maybe(visit, "Device", _id=owner.id if owner else "-", _include="Device:location"),
        "DetectedIssue": _maybe(visit, "DetectedIssue", implicated=f"Task/{step['id']}"),
        "AllergyIntolerance": _maybe(visit, "AllergyIntolerance", patient=whose),
        "Flag": _maybe(visit, "Flag", patient=whose),
        "Observation": _maybe(visit, "Observation", patient=whose, code=labs, _sort="-date", _count="100"),
        "MedicationAdministration": _maybe(
            visit, "MedicationAdministration", _id=",".join(r.rpartition("/")[2] for r in given) or "-"
        ),
        "Procedure": _maybe(visit, "Procedure", based_on=focus),
        "ImagingStudy": _maybe(visit, "ImagingStudy", basedon=focus),
        "Task": _maybe(visit, "Task", based_on=focus, intent="plan"),
        "Appointment": _maybe(visit, "Appointment", _id=str(task.appointment_of(step) or "-").rpartition("/")[2]),
        "ActivityDefinition": _maybe(visit, "ActivityDefinition", identifier=_entry_keys(step), status="active"),
    }
    more = dict(zip(asked, await visit.desk.together(*asked.values()), strict=True))
    requests, stations = more["ServiceRequest"], more["Device"]
    requested = _first(requests)
    order = next((o for r in (requested or {}).get("basedOn", ()) if (o := requests.of(r))), None)
    station = _first(stations)
    place = (stations.of(station.get("location")) if station else None) or {}
    picture = Picture(
        step, tracking.state(step), _first(more["Patient"]), requested, order, station, str(place.get("name", "")),
        _first(more["Appointment"]), _first(more["ImagingStudy"]),
    )  # fmt: skip
    picture.protocols = protocol.of_step(step)
    picture.proposed = protocol.proposed(_first(more["ActivityDefinition"]))
    picture.steps = [s for s in more["Task"] if s["status"] not in {"cancelled", "entered-in-error"}]
    picture.given = [g for g in more["MedicationAdministration"] if g["status"] not in {"entered-in-error", "not-done"}]
    own = procedure.performances(step)
    picture.performed = [p for p in more["Procedure"] if {"reference": f"Procedure/{p['id']}"} in own]
    picture.allergies = [a for a in more["AllergyIntolerance"] if findings.stands(a)]
    picture.flags = [f for f in more["Flag"] if findings.stands(f)]
    picture.labs = list(_labs(more["Observation"]))
    return picture, more


async def _complete(visit: Visit, picture: Picture, more: dict[str, Found]) -> None:
    """What the first answers lead to: questionnaires with their answers, and who people are."""
    rows = await _asked(visit, picture)
    urls = ",".join(r["url"] for r in rows)
    responses = ",".join(r["response"]["reference"].rpartition("/")[2] for r in rows if "response" in r)
    found, given, people = await visit.desk.together(
        _maybe(visit, "Questionnaire", url=urls or "-", status="active"),
        _maybe(visit, "QuestionnaireResponse", _id=responses or "-", _include="QuestionnaireResponse:author"),
        _maybe(visit, "Practitioner", _id=",".join(_people(picture, more["DetectedIssue"])) or "-"),
    )
    together = [*people, *given.included("Practitioner"), *more["ServiceRequest"].included("Practitioner")]
    picture.names = {f"Practitioner/{p['id']}": human_name(p) for p in together}
    picture.issues = [
        _issue(visit, i, picture.names) for i in more["DetectedIssue"] if issues.is_ours(i) and i["status"] == "final"
    ]
    picture.issues.sort(key=lambda i: (not i.stops, i.effect != "stop-booking", i.text))
    for row in rows:
        asked = next((q for q in found if q.get("url") == row["url"] and q.get("version") == row["version"]), None)
        if asked is not None:
            picture.screening.append(_screening(visit, row, asked, given.of(row.get("response")), picture.names))


async def _asked(visit: Visit, picture: Picture) -> list[dict[str, Any]]:
    """The rows of `$screening`."""
    if picture.requested is None or not visit.calls("screening"):
        return []
    answer = await visit.desk.question(f"ServiceRequest/{picture.requested['id']}/$screening")
    rows = (p["part"] for p in answer.get("parameter", ()))
    return [{p["name"]: next(v for k, v in p.items() if k != "name") for p in row} for row in rows]


async def _maybe(visit: Visit, kind: str, **parameters: Any) -> Found:
    """A search, or nothing where the role sees none of this kind."""
    return await visit.desk.search(kind, **parameters) if visit.allows(kind, "s") else Found([])


def _first(found: Found) -> Resource | None:
    return next(iter(found), None)


def _entry_keys(step: Resource) -> str:
    """The codes of the step as the identifiers of its catalogue entry."""
    keys = [f"{c.get('system', '')}|{c['code']}" for c in step.get("code", {}).get("coding", ()) if "code" in c]
    return ",".join(k.replace("\\", "\\\\").replace(",", "\\,").replace("$", "\\$") for k in keys) or "-"


def _outputs(step: Resource, kind: str) -> list[Resource]:
    outputs = step.get("output", ())
    return [o for o in outputs if has_code(o.get("type"), terms.TASK_DETAIL, kind) and "valueReference" in o]


def _people(picture: Picture, detected: Found) -> set[str]:
    """The ids of all Practitioners who have had a part in it."""
    rows: list[Any] = [p for e in picture.step.get("extension", ()) for p in e.get("extension", ())]
    refs = [r["valueReference"] for r in rows if "valueReference" in r]
    refs += [m.get("author") for i in detected for m in i.get("mitigation", ())]
    refs += [p.get("actor") for one in (*picture.performed, *picture.given) for p in one.get("performer", ())]
    return {to.id for r in refs if (to := target(r)) and to.type == "Practitioner"}


def _issue(visit: Visit, issue: Resource, names: dict[str, str]) -> Issue:
    text, effect = said.translated(issue, "detail", visit.t.language), issues.effect(issue)
    stops = issues.is_open(issue) and effect in tables.STOPS
    mitigation = next(iter(issue.get("mitigation", ())), None)
    if mitigation is None:
        return Issue(issue["id"], text, effect, stops)
    by = names.get(mitigation.get("author", {}).get("reference", ""), "")
    return Issue(issue["id"], text, effect, stops, str(mitigation["action"].get("text", "")), by, mitigation.get("date", ""))


def _screening(visit: Visit, row: Any, asked: Resource, response: Resource | None, names: dict[str, str]) -> Screening:
    response = response or {}
    by = names.get(response.get("author", {}).get("reference", ""), "")
    title = said.translated(asked, "title", visit.t.language)
    told = list(_said(visit, asked, response))
    return Screening(asked["id"], title, row["required"], row["counts"], response.get("authored", ""), by, told)


def _said(visit: Visit, asked: Resource, response: Resource) -> Iterator[tuple[str, str, bool]]:
    """Questions with what was answered; `yes` is marked, a code other than the first, and what was written."""
    given = {i["linkId"]: next(iter(i.get("answer", ())), None) for i in response.get("item", ())}
    for item in asked.get("item", ()):
        answer = given.get(item["linkId"])
        if answer is None:
            continue
        text = said.translated(item, "text", visit.t.language)
        if "valueBoolean" in answer:
            yes = answer["valueBoolean"] is True
            yield text, visit.t("say.yes" if yes else "say.no"), yes
        elif "valueCoding" in answer:
            options = [o["valueCoding"] for o in item.get("answerOption", ())]
            chosen = next((o for o in options if o.get("code") == answer["valueCoding"].get("code")), answer["valueCoding"])
            yield text, said.translated(chosen, "display", visit.t.language) or chosen.get("code", ""), chosen is not options[0]
        elif "valueDateTime" in answer and (at := moment(answer["valueDateTime"])):
            yield text, f"{at.astimezone(visit.zone):%Y-%m-%d %H:%M}", True
        else:
            yield text, str(next(iter(answer.values()))), True


def _labs(found: Found) -> Iterator[tuple[str, str, str]]:
    """The last value of each kind: what, value, when."""
    told: set[str] = set()
    for one in found:
        value = one.get("valueQuantity")
        text = concept(one.get("valueCodeableConcept")) if value is None else _quantity(value)
        what = concept(one.get("code"))
        if one.get("status") in {"entered-in-error", "cancelled"} or what in told:
            continue
        told.add(what)
        yield what, one.get("valueString", "") or text, str(one.get("effectiveDateTime") or one.get("issued") or "")


def _quantity(value: Resource) -> str:
    return f"{value.get('comparator', '')}{value.get('value', '')} {value.get('unit', value.get('code', ''))}".strip()


async def find(visit: Visit) -> Response:
    """To the step of an order, a requested procedure or an appointment: one that has not ended, of several."""
    wanted = [visit.id()]
    booked = await visit.desk.search("Appointment", _id=visit.id())
    wanted += [to.id for a in booked for r in a.get("basedOn", ()) if (to := target(r)) and to.type == "ServiceRequest"]
    names = ",".join(f"ServiceRequest/{i}" for i in wanted)
    own, of_procedures = await visit.desk.together(
        visit.desk.search("Task", intent="plan", based_on=names),
        visit.desk.search("Task", ("based-on:ServiceRequest.based-on", names), intent="plan"),
    )
    steps = sorted((*own, *of_procedures), key=lambda s: (s["status"] not in task.OPEN, s["id"]))
    if not steps:
        raise fail("not-found", f"{visit.id()[:64]} has no examination")
    return visit.to(f"/rooms/steps/{steps[0]['id']}")


def _is_past(booked: Resource | None, now: datetime) -> bool:
    start = moment((booked or {}).get("start", ""))
    return start is not None and start < now


def _offered(visit: Visit, picture: Picture) -> list[tuple[str, str]]:
    """(name, title) of the questionnaires that aren't asked for this examination."""
    asked = {s.id.rpartition("-")[0] for s in picture.screening}
    every = tables.questionnaires().values()
    return [(q.name, q.de if visit.t.language == "de" else q.en) for q in every if q.name not in asked]


async def show(visit: Visit) -> Response:
    """The page."""
    picture = await read(visit)
    known = [*picture.protocols, *(p for p in picture.proposed if p not in picture.protocols)]
    booked = picture.appointment
    expected = booked is not None and booked["status"] in {"booked", "arrived"}
    starts = (moment(p.get("performedPeriod", {}).get("start")) for p in picture.performed)
    in_doubt = [p for p in picture.performed if extension(p, terms.IDENTITY_IN_DOUBT)]
    return visit.page(
        "rooms/step.html",
        p=picture,
        exam=said.exam(picture.step),
        modality=task.modality(picture.step),
        station=device_name(picture.station) if picture.station else "",
        begin=said.begin(picture.step),
        late=said.late(picture.step, picture.state, visit.now),
        readiness=task.readiness(picture.step),
        known=[(coded.key(c), concept(c)) for c in known],
        planned={coded.key(c) for c in picture.protocols},
        agents=coded.agents(visit, picture.agents),
        stops=coded.STOPS.choices(visit.t),
        rejects=coded.REJECTS.choices(visit.t),
        routes=coded.ROUTES.choices(visit.t),
        expected=expected,
        missed=expected and _is_past(booked, visit.now),
        started=next((at for at in starts if at), None),
        in_doubt=in_doubt,
        offered=_offered(visit, picture),
        others=[s for s in picture.steps if s["id"] != picture.step["id"]],
    )
