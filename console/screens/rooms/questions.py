"""What the patient is asked before an examination: a questionnaire to fill in, as a QuestionnaireResponse to the order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from console.screens.rooms import said, step
from console.visit import Visit
from fhir_server import clock
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources.safety.tables import questionnaires


@dataclass(frozen=True, slots=True)
class Question:
    """A question: its type (boolean, choice, text, dateTime), the answers to choose from, and what was typed."""

    id: str
    text: str
    type: str
    required: bool
    options: list[tuple[str, str]]
    given: str


async def show(visit: Visit) -> Response:
    """The questions."""
    asked = await _questionnaire(visit)
    picture = await step.read(visit)
    before = next((s for s in picture.screening if s.id == asked["id"]), None)
    title = said.translated(asked, "title", visit.t.language)
    return visit.page(
        "rooms/questions.html",
        p=picture,
        exam=said.exam(picture.step),
        title=title,
        questions=list(_questions(visit, asked)),
        before=before,
    )


async def answer(visit: Visit) -> Response:
    """Keep the answers: of this patient, for this examination, given now."""
    asked = await _questionnaire(visit)
    of = await visit.desk.read(f"Task/{visit.id()}")
    items = [{"linkId": item["linkId"], "answer": [value]} for item in asked["item"] if (value := _value(visit, item))]
    response: Resource = {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": f"{asked['url']}|{asked['version']}",
        "status": "completed",
        "subject": of["for"],
        "basedOn": [of["focus"]],
        "authored": clock.instant(visit.now),
        "item": items,
    }
    if visit.me:
        response["author"] = {"reference": visit.me}
    if not items:
        raise fail("required", visit.t("rooms.nothing-answered"), status=422)
    await visit.desk.create(response)
    return visit.to(f"/rooms/steps/{visit.id()}", "rooms-answered")


async def _questionnaire(visit: Visit) -> Resource:
    """The questionnaire of the address, in its present version."""
    one = next((q for q in questionnaires().values() if q.name == visit.id("name")), None)
    if one is not None:
        found = await visit.desk.search("Questionnaire", url=one.url, status="active")
        for resource in found:
            if resource.get("version") == one.version:
                return resource
    raise fail("not-found", f"there is no questionnaire {visit.id('name')[:64]}")


def _questions(visit: Visit, asked: Resource) -> Iterator[Question]:
    for item in asked.get("item", ()):
        codings = (o["valueCoding"] for o in item.get("answerOption", ()))
        options = [(c["code"], said.translated(c, "display", visit.t.language)) for c in codings]
        if item["type"] == "boolean":
            options = [("false", visit.t("say.no")), ("true", visit.t("say.yes"))]
        given = visit.form.text(f"answer.{item['linkId']}")
        text = said.translated(item, "text", visit.t.language)
        yield Question(item["linkId"], text, item["type"], bool(item.get("required")), options, given)


def _value(visit: Visit, item: Resource) -> dict[str, Any] | None:
    """What was answered to a question, as an answer of a QuestionnaireResponse."""
    text = visit.form.get(f"answer.{item['linkId']}")
    if text is None:
        return None
    match item["type"]:
        case "boolean":
            return {"valueBoolean": text == "true"}
        case "choice":
            chosen = next((o["valueCoding"] for o in item["answerOption"] if o["valueCoding"]["code"] == text), {"code": text})
            return {"valueCoding": {k: v for k, v in chosen.items() if not k.startswith("_")}}
        case "dateTime":
            return {"valueDateTime": clock.instant(visit.moment(text))}
        case _:
            return {"valueString": text}
