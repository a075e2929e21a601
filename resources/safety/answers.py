"""QuestionnaireResponse: answers to our questionnaires. Judged when they come, and told to the chart (`screening.toml`)."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fhir_server import foresight
from fhir_server.elements import concept, has_code
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms, tracking
from resources.safety import tables
from resources.security_labels import labelled

GIVEN: Final = frozenset({"completed", "amended"})
SCREENING: Final = "urn:fhir-ris:screening"  # identifier of what was told to the chart: questionnaire/question
PREGNANCY: Final = "82810-3"  # LOINC: pregnancy status
_VALUE: Final = {"boolean": "valueBoolean", "text": "valueString", "dateTime": "valueDateTime", "choice": "valueCoding"}
_FLAG_CATEGORY: Final = {"alert": "safety", "need": "behavioral", "state": "contact"}
_VERIFICATION: Final = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"
_SEEN: Final = 100  # of a patient's responses, the newest; more than a patient gives in the days that any of them counts
_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)


def questionnaire_of(response: Resource) -> tables.Questionnaire | None:
    """The questionnaire of ours that a response answers."""
    url, _, _ = str(response.get("questionnaire", "")).partition("|")
    return tables.questionnaires().get(url)


def values(response: Resource) -> dict[str, list[Any]]:
    """What was answered, by question: booleans, texts, codes."""
    found: dict[str, list[Any]] = {}
    for item in response.get("item", ()):
        given = (next((v for k, v in a.items() if k.startswith("value")), None) for a in item.get("answer", ()))
        found[item["linkId"]] = [v.get("code") if isinstance(v, dict) else v for v in given]
    return found


def moment(given: object) -> datetime:
    """A date or dateTime as a point in time; long ago where there is none."""
    try:
        found = datetime.fromisoformat(str(given))
    except ValueError:
        return _LONG_AGO
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


async def latest(unit: UnitOfWork, patient: str, wanted: Iterable[str]) -> dict[str, Resource]:
    """The last response of a patient (`Patient/1`) to each of these questionnaires (their URLs)."""
    urls = set(wanted)
    found = [response for one in asked(patient, urls) for response in await unit.ask(one)]
    last: dict[str, Resource] = {}
    for one in sorted(found, key=lambda r: (moment(r.get("authored")), r["id"])):
        if one.get("status") in GIVEN and (of := questionnaire_of(one)) is not None and of.url in urls:
            last[of.url] = one
    return last


def asked(patient: str, urls: Iterable[str]) -> list[Asked]:
    """What `latest` will ask for, for `View.foresee`; nothing without URLs."""
    wanted = ",".join(sorted(urls))
    return [foresight.asked("QuestionnaireResponse", {"patient": patient, "questionnaire": wanted}, _SEEN)] if wanted else []


def counts_for(response: Resource, one: tables.Questionnaire, requests: Iterable[str], now: datetime) -> bool:
    """Whether a response answers for an examination: given for it (references to its requests), or not too long ago."""
    based_on = {r.get("reference") for r in response.get("basedOn", ())}
    return bool(based_on & set(requests)) or now - moment(response.get("authored")) <= timedelta(days=one.days)


# Rule


async def check(unit: UnitOfWork, change: Change) -> None:
    """Answers to a questionnaire of ours are of a patient, to its questions, each in its kind; complete ones answer all."""
    response = change.after
    one = questionnaire_of(response) if response else None
    if response is None or one is None:
        return
    version = str(response["questionnaire"]).partition("|")[2]
    if change.before is None and version and version != one.version:
        text = f"{one.name} is at version {one.version}: version {version[:32]} is not answered any more"
        raise fail("business-rule", text, "QuestionnaireResponse.questionnaire")
    if not str(response.get("subject", {}).get("reference", "")).startswith("Patient/"):
        raise fail("required", "whose answers are these? The subject is a Patient", "QuestionnaireResponse.subject")
    questions = {q.id: q for q in one.questions}
    named = [item["linkId"] for item in response.get("item", ())]
    if len(set(named)) < len(named):
        raise fail("value", "each question is answered once", "QuestionnaireResponse.item.linkId")
    for i, item in enumerate(response.get("item", ())):
        _check_item(questions.get(item["linkId"]), item, f"QuestionnaireResponse.item[{i}]")
    if response.get("status") not in GIVEN:
        return
    if "authored" not in response:
        raise fail("required", "when were these answers given?", "QuestionnaireResponse.authored")
    if moment(response["authored"]) > unit.now + tracking.CLOCKS_DIFFER:
        raise fail(
            "business-rule", "answers that are given have been given: this time is to come", "QuestionnaireResponse.authored"
        )
    said = values(response)
    if missing := [q.id for q in one.questions if q.required and not said.get(q.id)]:
        raise fail("required", f"not answered: {', '.join(missing)}", "QuestionnaireResponse.item")


def _check_item(question: tables.Question | None, item: Resource, where: str) -> None:
    if question is None:
        raise fail("value", f"there is no such question: {item['linkId'][:64]}", f"{where}.linkId")
    answers = item.get("answer", ())
    if len(answers) > 1:
        raise fail("value", f"{question.id} has one answer", f"{where}.answer")
    for answer in answers:
        value = answer.get(_VALUE[question.type])
        if value is None:
            raise fail("value", f"{question.id} is answered by a {_VALUE[question.type]}", f"{where}.answer[0]")
        if question.answers and value.get("code") not in {a.code for a in question.answers}:
            raise fail("value", f"{question.id} is answered by one of its options", f"{where}.answer[0].valueCoding")


# Reaction: the chart is told


async def tell(unit: UnitOfWork, change: Change) -> None:
    """What the last answers say, the chart says: pregnancy as an Observation, allergies, and Flags for the rest."""
    response = change.after or change.before
    one = questionnaire_of(response) if response else None
    patient = target((response or {}).get("subject"))
    if response is None or one is None or patient is None or change.redirected:
        return
    if change.after is None or response.get("status") not in GIVEN:
        if (change.before or {}).get("status") not in GIVEN:
            return
        await _take_back_observations(unit, change.id)
    last = (await latest(unit, str(patient), [one.url])).get(one.url)
    said = values(last) if last else {}
    for question in one.questions:
        if question.tells == "pregnancy":
            if change.after is not None and response.get("status") in GIVEN:
                await _tell_pregnancy(unit, response, one, question)
        elif question.tells:
            yes = said.get(question.id) == [True]
            await _tell(unit, last or response, question, f"{one.name}/{question.id}", yes=yes)


async def _tell(unit: UnitOfWork, source: Resource, question: tables.Question, name: str, *, yes: bool) -> None:
    kind = "AllergyIntolerance" if question.tells == "allergy" else "Flag"
    whose = source["subject"]["reference"]
    known = next(iter(await unit.search(kind, patient=whose, identifier=f"{SCREENING}|{name}")), None)
    if not yes and (known is None or has_code(known.get("verificationStatus"), _VERIFICATION, "confirmed")):
        return  # what a person has confirmed isn't undone by an answer
    made = known or labelled(
        {"resourceType": kind, "identifier": [{"system": SCREENING, "value": name}]}
        | (_allergy(question, whose) if kind == "AllergyIntolerance" else _flag(question, whose)),
        source,
    )
    if kind == "Flag":
        state: Resource = {"status": "active" if yes else "inactive"}
    else:
        clinical = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
        state = {"clinicalStatus": concept(clinical, "active" if yes else "inactive")}
    await (unit.create if known is None else unit.update)(made | state)


def _flag(question: tables.Question, patient: str) -> Resource:
    return {
        "category": [concept("http://terminology.hl7.org/CodeSystem/flag-category", _FLAG_CATEGORY[question.tells])],
        "code": {"coding": [{"system": SCREENING, "code": question.id}], "text": question.alert[0]},
        "subject": {"reference": patient},
    }


def _allergy(question: tables.Question, patient: str) -> Resource:
    return {
        "verificationStatus": concept(_VERIFICATION, "unconfirmed"),
        "category": ["medication"],
        "criticality": question.criticality,
        "code": {"coding": [{"system": terms.SNOMED, "code": "293637006"}], "text": question.alert[0]},
        "patient": {"reference": patient},
    }


async def _tell_pregnancy(unit: UnitOfWork, response: Resource, one: tables.Questionnaire, question: tables.Question) -> None:
    code = next(iter(values(response).get(question.id, ())), None)
    chosen = next((a for a in question.answers if a.code == code), None)
    if chosen is None:
        return
    made: Resource = {
        "resourceType": "Observation",
        "identifier": [{"system": SCREENING, "value": f"{one.name}/{question.id}/{response['id']}"}],
        "status": "final",
        "code": concept(terms.LOINC, PREGNANCY, "Pregnancy status"),
        "subject": response["subject"],
        "effectiveDateTime": response["authored"],
        "valueCodeableConcept": concept(terms.SNOMED, chosen.code, chosen.en),
        "derivedFrom": [ref(response)],
    }
    known = await _observations(unit, response["id"])
    if not known:
        await unit.create(labelled(made, response))
    elif known[0].get("valueCodeableConcept") != made["valueCodeableConcept"] or known[0]["status"] == "entered-in-error":
        await unit.update(made | {"id": known[0]["id"], "status": "amended"})


async def _observations(unit: UnitOfWork, response_id: str) -> list[Resource]:
    return await unit.search("Observation", derived_from=f"QuestionnaireResponse/{response_id}")


async def _take_back_observations(unit: UnitOfWork, response_id: str) -> None:
    for one in await _observations(unit, response_id):
        await unit.update(one | {"status": "entered-in-error"})


def register(registry: Registry) -> None:
    registry.rule("QuestionnaireResponse", check)
    registry.reaction("QuestionnaireResponse", tell)
