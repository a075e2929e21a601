"""Who reads, writes and signs, and who is told of what can't wait."""

from tests.scenario import step
from tests.scenario_steps.staff import PEOPLE, Code
from tests.scenario_steps.world import World


@step("a radiologist claims the reading")
async def claims(world: World) -> None:
    await world.exam.claim()


@step("a radiologist (dictates|signs|corrects|adds to|withdraws) the report")
async def dictates(world: World, what: str) -> None:
    said = {"dictates": "preliminary", "signs": "final", "corrects": "corrected", "adds to": "appended"}
    await world.exam.dictate(said.get(what, "entered-in-error"))


@step("an outside service sends the report as (preliminary|final|corrected)")
async def reads_outside(world: World, status: str) -> None:
    await world.exam.result({"preliminary": "P", "final": "F", "corrected": "C"}[status])


@step(f"({PEOPLE}) (claims the reading|gives the reading back)")
async def claims_in_person(world: World, who: str, what: str) -> None:
    operation = "claim" if what.startswith("claims") else "release"
    await world.person(who).do(f"Task/{(await world.exam.reading())['id']}/${operation}")


@step(f"({PEOPLE}) writes the report")
async def writes(world: World, who: str) -> None:
    person = world.person(who)
    report = await person.do(f"Task/{(await world.exam.reading())['id']}/$start-report")
    said = {"59776-5": "Clear lungs.", "19005-8": "No acute finding."}
    sections = [_section(code, text) for code, text in said.items()]
    world.exam.report = await person.do(f"DiagnosticReport/{report['id']}/$write", section=sections)


@step(f"({PEOPLE}) signs the report")
async def signs(world: World, who: str) -> None:
    world.exam.report = await world.person(who).do(f"DiagnosticReport/{world.exam.report['id']}/$sign")


@step(f"({PEOPLE}) corrects the findings to (.+), as (.+)")
async def corrects(world: World, who: str, text: str, why: str) -> None:
    path = f"DiagnosticReport/{world.exam.report['id']}/$correct"
    world.exam.report = await world.person(who).do(path, reason=why, section=_section("59776-5", text))


@step("the report bears ([0-9]+) valid signatures?")
async def verified(world: World, count: str) -> None:
    answer = await world.person("the technologist").ok("GET", f"DiagnosticReport/{world.exam.report['id']}/$verify")
    rows = [row["part"] for row in answer["parameter"] if row["name"] == "signature"]
    valid = [part["valueBoolean"] for row in rows for part in row if part["name"] == "valid"]
    assert valid == [True] * int(count), answer


@step("the radiologist finds what can't wait: (.+)")
async def finds_critical(world: World, finding: str) -> None:
    path = f"DiagnosticReport/{world.exam.report['id']}/$critical"
    world.critical = await world.person("the radiologist").do(path, category=Code("RID49480"), finding=finding)


@step("the radiologist phones the referrer, who reads it back")
async def phones(world: World) -> None:
    by = world.critical["recipient"][0]
    path = f"CommunicationRequest/{world.critical['id']}/$acknowledge"
    await world.person("the radiologist").do(path, by=by, medium=Code("PHONE"), read_back=True)


@step("the critical result is (open|acknowledged)")
async def critical_is(world: World, what: str) -> None:
    status = (await world.current(world.critical))["status"]
    assert status == {"open": "active", "acknowledged": "completed"}[what], status
    told = await world.stage.find(f"Communication?part-of=DiagnosticReport/{world.exam.report['id']}")
    assert len(told) == (what == "acknowledged"), told


def _section(code: str, text: str) -> dict[str, object]:
    return {"part": [{"name": "code", "valueCode": code}, {"name": "text", "valueString": text}]}
