"""The questionnaires of `screening.toml` as FHIR Questionnaires (R4 Questionnaire, 2.42), stored at the start of the server."""

from typing import Any

from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.references import Target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.safety import tables
from smart_auth.access import Access

_TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"


def translated(de: str) -> Resource:
    """What stands beside a primitive element (`_text`) that is in English: the same in German."""
    parts = [{"url": "lang", "valueCode": "de"}, {"url": "content", "valueString": de}]
    return {"extension": [{"url": _TRANSLATION, "extension": parts}]}


def questionnaire(one: tables.Questionnaire) -> Resource:
    """A row of the table as a resource; each version has an id of its own, so that what was asked then can be read later."""
    return {
        "resourceType": "Questionnaire",
        "id": f"{one.name}-{one.version}",
        "language": "en",
        "url": one.url,
        "version": one.version,
        "name": "".join(word.capitalize() for word in one.name.split("-")),
        "title": one.en,
        "_title": translated(one.de),
        "status": "active",
        "subjectType": ["Patient"],
        "item": [_item(question) for question in one.questions],
    }


def _item(question: tables.Question) -> Resource:
    item: dict[str, Any] = {
        "linkId": question.id,
        "text": question.en,
        "_text": translated(question.de),
        "type": question.type,
        "required": question.required,
    }
    if question.answers:
        item["answerOption"] = [
            {"valueCoding": {"system": terms.SNOMED, "code": a.code, "display": a.en, "_display": translated(a.de)}}
            for a in question.answers
        ]
    return item


async def publish(interactions: Interactions) -> int:
    """Store the versions that aren't there yet, and retire their earlier ones; how many were new.

    What is stored is left alone: a department may have put words of its own into it.
    """
    wanted = {Target("Questionnaire", f"{one.name}-{one.version}"): one for one in tables.questionnaires().values()}
    await interactions.store.ensure("Questionnaire")
    stored = await interactions.store.read_many(wanted)
    due = [one for to, one in wanted.items() if to not in stored]

    async def work(unit: UnitOfWork) -> None:
        for one in due:
            for earlier in await unit.search("Questionnaire", url=one.url, status="active"):
                if earlier["version"] != one.version:
                    await unit.update(earlier | {"status": "retired"})
            await unit.update(questionnaire(one))

    if due:
        await interactions.transact(Access.system("fhir-ris"), Act("publish-questionnaires"), work)
    return len(due)
