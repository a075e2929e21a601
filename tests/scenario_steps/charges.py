"""What is charged, held, released and credited, and what managers ask for."""

import asyncio

from benchmarks.department.stage import Resource
from tests.scenario import step
from tests.scenario_steps.catalogue import today
from tests.scenario_steps.staff import parameters
from tests.scenario_steps.world import World


@step("(technical|professional|technical and professional|nothing) is charged")
async def charged(world: World, what: str) -> None:
    assert await _components(world, "billable") == ([] if what == "nothing" else sorted(what.split(" and ")))


@step("(technical|professional|technical and professional) is credited")
async def credited(world: World, what: str) -> None:
    assert await _components(world, "aborted") == sorted(what.split(" and "))


async def _components(world: World, status: str) -> list[str]:
    extensions = [e for charge in await _charges(world, status) for e in charge["extension"]]
    return sorted(e["valueCode"] for e in extensions if e["url"].endswith("component"))


async def _charges(world: World, status: str) -> list[Resource]:
    procedure = await world.exam.procedure()
    studies = await world.stage.find(f"ImagingStudy?basedon=ServiceRequest/{procedure['id']}")
    service = ",".join(f"ImagingStudy/{s['id']}" for s in studies)
    return [c for c in await world.stage.find(f"ChargeItem?service={service}") if c["status"] == status]


@step("(technical|professional|technical and professional) is held for (.+)")
async def held(world: World, what: str, why: str) -> None:
    assert await _components(world, "planned") == sorted(what.split(" and "))
    for charge in await _charges(world, "planned"):
        tags = [t["code"] for t in charge["meta"]["tag"]]
        assert why in tags, tags


@step("the billing office releases what is held, as (.+)")
async def releases(world: World, why: str) -> None:
    for charge in await _charges(world, "planned"):
        await world.stage.app.ok("POST", f"ChargeItem/{charge['id']}/$release", parameters(reason=why))


@step("the manager's figures of the day tell how long it took from the end of the examination to the signature")
async def figures(world: World) -> None:
    query = f"periodStart={today()}&periodEnd={today()}&from=ended&to=final"
    found = await world.stage.app.ok("GET", f"Measure/turn-around/$figures?{query}")
    (median,) = (f for f in found["figures"] if f["group"] == "ended-final" and f["statistic"] == "median")
    assert median["count"] >= 1, found
    assert median["value"] >= 0, found


@step("the books of the day balance")
async def balance(world: World) -> None:
    for _ in range(60):
        found = await world.stage.app.ok("GET", f"ChargeItem/$reconciliation?date={today()}")
        findings = [{p["name"]: p for p in row["part"]} for row in found["parameter"] if row["name"] == "finding"]
        if not findings:
            return
        await asyncio.sleep(0.5)  # a message may be on its way
    raise AssertionError([(f["kind"], f["about"], f["text"]) for f in findings])
