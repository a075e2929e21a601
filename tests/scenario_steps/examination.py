"""The scanner with its worklist and its performed steps, and the technologist beside it."""

from benchmarks.department.stage import DCM
from tests.examinations import IOHEXOL
from tests.scenario import step
from tests.scenario_steps.world import World

_REASONS = {"motion blur": "111210"}  # DICOM CID 7011
_STOPS = {"the equipment failed": "110501"}  # DICOM CID 9301


@step("the scanner (shows|does not show) the patient")
async def shows(world: World, what: str) -> None:
    items = await world.worklist()
    assert len(items) == (1 if what == "shows" else 0), f"{len(items)} entries"


@step("the scanner shows the patient as (.+)")
async def shows_as(world: World, name: str) -> None:
    (item,) = await world.worklist()
    assert str(item.PatientName) == name, item.PatientName


@step("the scanner shows the patient at ([0-9]+)")
async def shows_at(world: World, time: str) -> None:
    (item,) = await world.worklist()
    assert item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime[:4] == time


@step("the examination begins")
async def begins(world: World) -> None:
    (item,) = await world.worklist()
    world.performed = await world.scanner.begin(item)


@step("the examination (ends|is stopped half-way)")
async def ends(world: World, how: str) -> None:
    await world.scanner.end(world.performed, status="COMPLETED" if how == "ends" else "DISCONTINUED")


@step("the patient is scanned without the worklist, and a technologist says which order that was")
async def unscheduled(world: World) -> None:
    await world.exam.scan_unscheduled()


@step("the scanner shows two examinations of the patient")
async def shows_two(world: World) -> None:
    assert (found := len(await world.worklist())) == 2, f"{found} entries"


@step("the examination begins as one scan for both orders")
async def begins_both(world: World) -> None:
    world.performed = await world.scanner.begin(*await world.worklist())


@step("the technologist (starts|completes) the examination")
async def by_hand(world: World, what: str) -> None:
    await _technologist(world, what.removesuffix("s"))


@step("the technologist says that the patient is (prepared|in-room|left)")
async def tracks(world: World, state: str) -> None:
    await _technologist(world, "track", state=state)


@step("the technologist repeats ([0-9]+) images for (motion blur)")
async def repeats(world: World, images: str, why: str) -> None:
    await _technologist(world, "repeat", reason={"coding": [{"system": DCM, "code": _REASONS[why]}]}, images=int(images))


@step("the technologist stops the examination, to be repeated, as (the equipment failed)")
async def stops(world: World, why: str) -> None:
    await _technologist(world, "stop", reason={"coding": [{"system": DCM, "code": _STOPS[why]}]}, repeat=True)


@step("([0-9]+) images were rejected for (motion blur)")
async def rejected(world: World, images: str, why: str) -> None:
    rows = [e["extension"] for e in (await world.exam.step())["extension"] if e["url"] == "urn:fhir-ris:rejected"]
    (row,) = rows
    assert any(part.get("valueInteger", part.get("valuePositiveInt")) == int(images) for part in row), row
    assert any(_REASONS[why] in str(part.get("valueCodeableConcept")) for part in row), row


@step("the technologist gives contrast")
async def gives(world: World) -> None:
    dose = {"value": 80, "unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL"}
    await _technologist(world, "give-contrast", agent=IOHEXOL, dose=dose)


async def _technologist(world: World, operation: str, **given: object) -> None:
    await world.person("the technologist").do(f"Task/{(await world.exam.step())['id']}/${operation}", **given)
