"""Reading, reports, critical results."""

from functools import cache

from tests.fhir_app import unused
from tests.operation_setups import CT_CHEST, Stage
from tests.reading_world import LOINC, ReadingRoom, parameters, section

_of = cache(ReadingRoom)


def _room(stage: Stage) -> ReadingRoom:
    """The reading room of this server; its attending calls."""
    room = _of(stage.app, stage.world)
    stage.caller = room.attending
    return room


def claim(stage: Stage) -> dict[str, str]:
    room = _room(stage)
    return {"reading": room.study()["id"], "other": room.other.who.removeprefix("Practitioner/")}


priors = claim


def release_of_a_task(stage: Stage) -> dict[str, str]:
    found = claim(stage)
    assert stage.caller.send("POST", f"Task/{found['reading']}/$claim").status_code == 200
    return found


reassign = release_of_a_task


def start_report(stage: Stage) -> dict[str, str]:
    template = stage.app.create(
        {
            "resourceType": "Questionnaire",
            "status": "active",
            "title": unused("CT of the chest "),
            "code": [{"system": "urn:fhir-ris:questionnaire", "code": "report-template"}],
            "useContext": [
                {
                    "code": {"system": "http://terminology.hl7.org/CodeSystem/usage-context-type", "code": "focus"},
                    "valueCodeableConcept": CT_CHEST,
                }
            ],
            "item": [
                {
                    "linkId": "1",
                    "code": [{"system": LOINC, "code": "59776-5"}],
                    "type": "open-choice",
                    "answerOption": [{"valueCoding": {"code": "normal", "display": "Lungs are clear."}}],
                }
            ],
        }
    )
    return claim(stage) | {"template": template["id"]}


def write(stage: Stage) -> dict[str, str]:
    room = _room(stage)
    return {"draft": room.attending.done(f"Task/{room.study()['id']}/$start-report")["id"]}


def sign(stage: Stage) -> dict[str, str]:
    room = _room(stage)
    return {"written": room.draft(room.study())["id"], "other": room.other.who.removeprefix("Practitioner/")}


critical = sign


def addend(stage: Stage) -> dict[str, str]:
    room = _room(stage)
    return {"signed": room.signed(room.study(), section("59776-5", "Nodule in the left lobe."))["id"]}


correct_of_a_diagnosticreport = withdraw = verify = addend


def acknowledge(stage: Stage) -> dict[str, str]:
    found = sign(stage)
    body = parameters({"name": "category", "valueCode": "RID49480"}, finding="Tension pneumothorax")
    request = _room(stage).attending.done(f"DiagnosticReport/{found['written']}/$critical", body)
    return found | {"critical": request["id"]}
