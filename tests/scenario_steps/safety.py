"""What speaks against an examination: answers, the laboratory, the protocol, and a radiologist who decides."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.examinations import CLEAN, IOHEXOL, LOINC
from tests.scenario import step
from tests.scenario_steps.world import World

# What patients say: the questionnaire, and its answers that are not harmless.
_SAID: dict[str, tuple[str, dict[str, Any]]] = {
    "she is pregnant": ("pregnancy", {"pregnant": "77386006"}),
    "she has a pacemaker": ("mri-safety", {"cardiac-device": True}),
    "she takes metformin": ("renal-function", {"metformin": True}),
    "she once collapsed after contrast": ("contrast-allergy", {"severe-reaction": True}),
}


@step(f"the patient tells the technologist that ({'|'.join(_SAID)})")
async def says(world: World, what: str) -> None:
    name, adverse = _SAID[what]
    await world.person("the technologist").answer(world.exam, name, CLEAN[name] | adverse)


@step("the laboratory's last eGFR is ([0-9]+), of ([0-9]+) days ago")
async def egfr(world: World, value: str, days: str) -> None:
    result = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "98979-8"}]},
        "subject": world.exam.order["subject"],
        "effectiveDateTime": (datetime.now(UTC) - timedelta(days=int(days), minutes=1)).isoformat(timespec="seconds"),
        "valueQuantity": {"value": int(value), "unit": "mL/min/1.73m2"},
    }
    await world.stage.app.ok("POST", "Observation", result)


@step("the radiologist plans it (with|without) contrast")
async def protocols(world: World, how: str) -> None:
    protocol = {"coding": [{"system": "urn:example:protocols", "code": f"abdomen-{how}-contrast"}]}
    contrast = {"contrast": IOHEXOL} if how == "with" else {}
    await world.person("the radiologist").do(f"ServiceRequest/{await _procedure(world)}/$protocol", protocol=protocol, **contrast)


@step("the (radiologist|technologist) clears it, as (.+)")
async def clears(world: World, who: str, why: str) -> None:
    await world.person(f"the {who}").do(f"ServiceRequest/{await _procedure(world)}/$clear-safety", reason=why)


async def _procedure(world: World) -> str:
    return str((await world.exam.procedure())["id"])
