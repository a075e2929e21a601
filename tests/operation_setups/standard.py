"""Operations of any resource, identity, emergency access, reconciliation."""

from tests.fhir_app import unused
from tests.operation_setups import Stage


def everything(stage: Stage) -> dict[str, str]:
    return {"patient": stage.patient()["id"]}


validate = meta = meta_add = everything


def meta_delete(stage: Stage) -> dict[str, str]:
    patient = stage.app.create({"resourceType": "Patient", "meta": {"tag": [{"system": "urn:example:tag", "code": "study-42"}]}})
    return {"patient": patient["id"]}


def merge(stage: Stage) -> dict[str, str]:
    return {"survivor": stage.patient()["id"], "prior": stage.patient()["id"]}


def unmerge(stage: Stage) -> dict[str, str]:
    two = merge(stage)
    assert stage.caller.send("POST", f"Patient/{two['survivor']}/$merge?prior={two['prior']}").status_code == 200
    return two


def break_glass(stage: Stage) -> dict[str, str]:
    stage.caller = stage.world.person("radiologist", grant=unused("grant"))
    return {"patient": stage.patient()["id"]}


def mend_glass(stage: Stage) -> dict[str, str]:
    found = break_glass(stage)
    reason = {"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": "Unconscious after a fall"}]}
    assert stage.caller.send("POST", f"Patient/{found['patient']}/$break-glass", reason).status_code == 200
    return found


def reconcile(stage: Stage) -> dict[str, str]:
    patient = stage.patient()
    performed = stage.app.create(
        {
            "resourceType": "Procedure",
            "status": "in-progress",
            "subject": {"reference": f"Patient/{patient['id']}"},
            "performedPeriod": {"start": "2026-09-08T08:05:00Z"},
        }
    )
    return {"unscheduled": performed["id"], "order": stage.order(patient)["id"]}
