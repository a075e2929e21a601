"""What speaks against an examination: the rules of the two tables, on what was answered and on what the chart says."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fhir_server.elements import codes, codings, extension, identifier_value
from fhir_server.foresight import Asked, asked
from fhir_server.references import Target, ref, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import activity_definition, service_request, task, terms
from resources.safety import answers, tables
from resources.safety.tables import Questionnaire, Rule

# Extensions of a catalogue entry (boolean).
SCREENING_REQUIRED: Final = "urn:fhir-ris:screening-required"  # its patients are asked before
INTERVENTION: Final = "urn:fhir-ris:intervention"  # it is invasive
CONTRAST_AGENT: Final = "urn:fhir-ris:contrast-agent"  # extension of a requested procedure: what is to be given
DECIDED: Final = "urn:fhir-ris:contrast-decided"  # extension of a requested procedure (boolean): its own agents are all, or none
_PREGNANCY_LASTS: Final = timedelta(days=300)
_NOT_PREGNANT_LASTS: Final = timedelta(days=3)
_PREGNANT: Final = {
    "60001007": "no", "LA26683-5": "no", "146799005": "possibly", "77386006": "yes", "LA15173-0": "yes",
    "261665006": "unknown", "LA4489-6": "unknown",
}  # fmt: skip
_NOT_SO: Final = frozenset({"entered-in-error", "cancelled", "registered"})
_NUMBER: Final = re.compile(r"\s*([<>]?=?)\s*([0-9]+(?:\.[0-9]+)?)")
_JUST: Final = Decimal("0.001")
_MOST: Final = 500  # of a patient's conditions, and of observations of one kind, the newest


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks against it: which rule, what it does, in words, and what it is seen from (references)."""

    rule: str
    effect: str
    en: str
    de: str
    evidence: tuple[str, ...] = ()
    contrast: tuple[str, ...] = ()  # the kinds of contrast agent that it speaks against, where it does


@dataclass(frozen=True, slots=True)
class Examination:
    """What is to be done to whom."""

    procedure: Resource
    order: Resource | None
    steps: list[Resource]
    patient: Resource
    entry: Resource | None
    contrast: frozenset[str]

    @property
    def modality(self) -> str | None:
        return next((m for s in self.steps if (m := task.modality(s))), None)

    @property
    def requests(self) -> list[str]:
        """The references to requested procedure and order."""
        return [ref(r)["reference"] for r in (self.procedure, self.order) if r]

    def with_contrast(self, agent: Resource) -> "Examination":
        """The same with the agent that is really given."""
        return replace(self, contrast=tables.facts().kinds(agent))


def says(entry: Resource | None, url: str) -> bool:
    """Whether a catalogue entry has this extension, true."""
    return (extension(entry or {}, url) or {}).get("valueBoolean") is True


def contrast_agents(request: Resource | None) -> list[Resource]:
    """The contrast agents that a request names, as CodeableConcepts."""
    found = [e for e in (request or {}).get("extension", ()) if e.get("url") == CONTRAST_AGENT]
    return [e.get("valueCodeableConcept") or {"text": e.get("valueString", "")} for e in found]


def is_decided(procedure: Resource) -> bool:
    """Whether its protocol says which contrast is given: then it doesn't matter any more what the order says."""
    return (extension(procedure, DECIDED) or {}).get("valueBoolean") is True


async def examination(unit: UnitOfWork, procedure: Resource) -> Examination | None:
    """Of a requested procedure; None where its patient isn't there."""
    patient = await unit.get(procedure.get("subject"))
    if patient is None:
        return None
    await unit.foresee(*asked_of(procedure))
    order = await service_request.order_of(unit, procedure)
    agents = contrast_agents(procedure) or ([] if is_decided(procedure) else contrast_agents(order))
    kinds = frozenset(kind for agent in agents for kind in tables.facts().kinds(agent))
    steps = await task.steps_of(unit, procedure["id"])
    return Examination(procedure, order, steps, patient, await activity_definition.catalogue_entry(unit, procedure), kinds)


def asked_of(procedure: Resource) -> list[Asked | Target]:
    """What `examination` will ask for beside the patient, for `View.foresee`."""
    orders = [to for r in procedure.get("basedOn", ()) if (to := target(r))]
    return [*orders, task.asked(procedure["id"]), *activity_definition.asked(procedure)]


async def find(unit: UnitOfWork, what: Examination) -> list[Finding]:
    """All that speaks against it, by the tables."""
    chart = Chart(unit, what)
    questions = questionnaires(what, unit.now)
    rules = [r for r in tables.facts().rules if r.fits.all_of(what.modality, what.contrast)]
    await unit.foresee(
        *answers.asked(chart.whose, (q.url for q in questions)),
        *(chart.asked(kind) for kind in _looked_at(rules)),
    )
    given = await answers.latest(unit, chart.whose, (q.url for q in questions))
    found: list[Finding] = []
    for one in questions:
        found += _of_answers(one, given.get(one.url), what, unit.now)
    yes = {f"{q.name}/{i}" for q in questions for i, v in answers.values(given.get(q.url, {})).items() if v == [True]}
    for rule in rules:
        if rule.looks_at == "egfr" and any(f.rule.startswith("egfr") for f in found):
            continue  # the first that holds is the most severe
        evidence = await chart.evidence(rule, yes)
        if evidence is not None:
            found.append(Finding(rule.id, rule.effect, rule.en, rule.de, evidence, _kinds(rule.fits, what)))
    return found


def questionnaires(what: Examination, now: datetime) -> list[Questionnaire]:
    """What the patient is asked before this examination."""
    return [q for q in tables.questionnaires().values() if _is_asked(q, what, now)]


def _kinds(fits: tables.Fits, what: Examination) -> tuple[str, ...]:
    return tuple(sorted(fits.contrast & what.contrast))


def _is_asked(one: Questionnaire, what: Examination, now: datetime) -> bool:
    intervention = says(what.entry, INTERVENTION)
    if not one.fits.any_of(what.modality, what.contrast, intervention=intervention):
        return False
    if one.sex and what.patient.get("gender", "unknown") not in {one.sex, "unknown", "other"}:
        return False
    if one.ages is None or len(str(what.patient.get("birthDate", ""))) < 4:
        return True
    return one.ages[0] <= now.year - int(what.patient["birthDate"][:4]) <= one.ages[1] + 1


def _of_answers(one: Questionnaire, response: Resource | None, what: Examination, now: datetime) -> list[Finding]:
    counts = response is not None and answers.counts_for(response, one, what.requests, now)
    found: list[Finding] = []
    if response is not None and (counts or one.lasting):
        said = answers.values(response)
        for question in one.questions:
            if question.effect and said.get(question.id) == [True]:
                en, de = (question.alert[i] or text for i, text in enumerate((question.en, question.de)))
                name = f"{one.name}/{question.id}"
                found.append(Finding(name, question.effect, en, de, (ref(response)["reference"],), _kinds(one.fits, what)))
    if not counts and one.unanswered in tables.EFFECTS and says(what.entry, SCREENING_REQUIRED):
        en, de = f"Not answered: {one.en}", f"Nicht beantwortet: {one.de}"
        found.append(Finding(f"{one.name}/unanswered", one.unanswered, en, de, (), _kinds(one.fits, what)))
    return found


@dataclass(slots=True)
class Chart:
    """What the chart says of a patient; each kind of fact is looked up once, when a rule needs it."""

    unit: UnitOfWork
    what: Examination
    _known: dict[str, list[Resource]] = field(default_factory=dict)

    @property
    def whose(self) -> str:
        return f"Patient/{self.what.patient['id']}"

    async def evidence(self, rule: Rule, yes: set[str]) -> tuple[str, ...] | None:
        """References to what a rule is met by; None where it isn't."""
        if rule.looks_at == "egfr":
            return await self._egfr(rule, yes)
        if rule.looks_at == "pregnancy":
            return await self._pregnancy(rule.state)
        if rule.looks_at == "allergy":
            found = [a for a in await self._of("AllergyIntolerance") if stands(a) and self._is_meant(rule, a)]
        else:
            group = tables.facts().conditions[rule.group]
            kind = "Condition" if rule.looks_at == "condition" else "Flag"
            # What was told from answers, has the effect of these.
            told = [c for c in await self._of(kind) if identifier_value(c, answers.SCREENING) is None]
            found = [c for c in told if stands(c) and group.has(c.get("code"))]
        return tuple(sorted(ref(f)["reference"] for f in found)) or None

    def asked(self, kind: str) -> Asked:
        """The search for all facts of a kind."""
        wanted = ",".join(f"{terms.LOINC}|{c}" for c in sorted({*tables.facts().egfr_codes, answers.PREGNANCY}))
        return asked(kind, {"patient": self.whose} | ({"code": wanted} if kind == "Observation" else {}), newest=_MOST)

    async def _of(self, kind: str) -> list[Resource]:
        if kind not in self._known:
            self._known[kind] = await self.unit.ask(self.asked(kind))
        return self._known[kind]

    def _is_meant(self, rule: Rule, allergy: Resource) -> bool:
        severe = allergy.get("criticality") == "high" or any(r.get("severity") == "severe" for r in allergy.get("reaction", ()))
        return severe is bool(rule.severe) and tables.facts().concerns(allergy.get("code"), self.what.contrast)

    async def _observations(self) -> list[Resource]:
        found = await self._of("Observation")
        return sorted((o for o in found if o.get("status") not in _NOT_SO), key=_taken)

    async def _egfr(self, rule: Rule, yes: set[str]) -> tuple[str, ...] | None:
        measured = [o for o in await self._observations() if tables.facts().egfr_codes & set(codes(o.get("code"), terms.LOINC))]
        last = measured[-1] if measured else None
        value = _value(last) if last else None
        recent = last is not None and self.unit.now - _taken(last) <= timedelta(days=tables.facts().egfr_days)
        if rule.missing:
            at_risk = not rule.risk or bool(rule.risk & yes)
            return () if at_risk and (value is None or not recent) else None
        if last is None or value is None or not recent or rule.below is None or value >= rule.below:
            return None
        return (ref(last)["reference"],)

    async def _pregnancy(self, state: str) -> tuple[str, ...] | None:
        told = [o for o in await self._observations() if answers.PREGNANCY in codes(o.get("code"), terms.LOINC)]
        last = told[-1] if told else None
        said, age = (_pregnant(last), self.unit.now - _taken(last)) if last else ("", _PREGNANCY_LASTS)
        if last is not None and said == state and age <= _PREGNANCY_LASTS:
            return (ref(last)["reference"],)
        if state != "yes":
            return None
        group = tables.facts().conditions["pregnancy"]
        found = [c for c in await self._of("Condition") if stands(c) and group.has(c.get("code"))]
        if last is not None and said == "no" and age <= _NOT_PREGNANT_LASTS:  # what was recorded after it, counts
            found = [c for c in found if answers.moment(c.get("recordedDate")) > _taken(last)]
        return tuple(sorted(ref(c)["reference"] for c in found)) or None


# What a rule looks at -> the facts that it is told by.
_FACTS: Final = {
    "egfr": ("Observation",), "pregnancy": ("Observation", "Condition"), "allergy": ("AllergyIntolerance",),
    "condition": ("Condition",),
}  # fmt: skip


def _looked_at(rules: Iterable[Rule]) -> dict[str, None]:
    """The kinds of facts, each once."""
    return dict.fromkeys(kind for rule in rules for kind in _FACTS.get(rule.looks_at, ("Flag",)))


def _pregnant(observation: Resource) -> str:
    """What it says: yes, possibly, unknown, no, or empty."""
    found = (_PREGNANT.get(str(c.get("code"))) for c in codings(observation.get("valueCodeableConcept")))
    return next((said for said in found if said), "")


def stands(fact: Resource) -> bool:
    """Whether an allergy, a condition or a Flag holds: active, and not refuted."""
    if fact["resourceType"] == "Flag":
        return bool(fact.get("status") == "active")
    clinical = {c.get("code") for c in codings(fact.get("clinicalStatus"))}
    verified = {c.get("code") for c in codings(fact.get("verificationStatus"))}
    active = not clinical or not clinical.isdisjoint({"active", "recurrence", "relapse"})
    return active and verified.isdisjoint({"refuted", "entered-in-error"})


def _taken(observation: Resource) -> datetime:
    given = observation.get("effectiveDateTime") or observation.get("effectivePeriod", {}).get("start")
    return answers.moment(given or observation.get("issued"))


def _value(observation: Resource) -> Decimal | None:
    """The number of an eGFR, also where it comes as text: `> 60`; of `< 30` one that is just below that."""
    quantity = observation.get("valueQuantity", {})
    said: Any = quantity.get("value", observation.get("valueString", ""))
    found = _NUMBER.match(f"{quantity.get('comparator', '')}{said}")
    try:
        return Decimal(found[2]) - (_JUST if found[1] == "<" else 0) if found else None
    except InvalidOperation:
        return None
