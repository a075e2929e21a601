"""Random searches in random populations: the server finds what the oracle finds (`tests/search_oracle`), page by page.

`script/test` searches in a fixed number of populations, always the same. Longer, with ever new ones, until the time is up:

    pytest -n 4 tests/test_search_oracle.py --oracle-seconds 600

What fails names its seed, which makes it come again at once: `--oracle-seed 123`.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from fhir_server import fhir_json
from fhir_server.audit import Act
from fhir_server.bundle_links import localize
from fhir_server.elements import duplicate
from fhir_server.outcome import FhirError
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access
from tests.fhir_app import FhirApp, serving
from tests.search_oracle import Oracle, pools
from tests.search_oracle.expressions import Expression, Searches, smaller
from tests.search_oracle.populations import populations

Resource = dict[str, Any]

GROUPS = 4  # one test each, so that they run side by side
POPULATIONS = 3  # of a group, when no time is given
SEARCHES = 120  # of a population
PARTS = 3  # a population is written at so many times
AT_ONCE = 8  # searches that run at the same time
ACCESS = Access.system("oracle")


@dataclass(frozen=True, slots=True)
class World:
    """A population as it is stored, and what judges it. `times` are the _lastUpdated of its parts."""

    app: FhirApp
    oracle: Oracle
    resources: list[Resource]
    times: list[str]

    def parameters(self, expression: Expression) -> list[tuple[str, str]]:
        """The parameters of a search, its times put in."""
        return [(name, re.sub("@([0-9])", lambda m: self.times[int(m[1])], text)) for name, text in expression.parameters]


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_server_finds_what_the_oracle_finds(mongodb_uri: str, group: int, pytestconfig: pytest.Config) -> None:
    seconds: float | None = pytestconfig.getoption("--oracle-seconds")
    first: int = pytestconfig.getoption("--oracle-seed")
    deadline = None if seconds is None else time.monotonic() + seconds
    searched = 0
    with serving(mongodb_uri, strict=False, core=False, rules=lambda _: None) as app:
        for number in range(first + group, first + 10**6, GROUPS):
            for population in drawn_populations(number):
                world = loaded(app, population)
                random = Random(number)
                expressions = [worthwhile(world, random) for _ in range(SEARCHES)]
                searched += len(expressions)
                if wrong := disagreements(world, expressions):
                    pytest.fail(f"--oracle-seed {number - group}: {len(wrong)} of {len(expressions)}\n\n" + told(world, wrong))
            if deadline is None or time.monotonic() > deadline:
                break
    assert searched >= SEARCHES


def drawn_populations(number: int) -> list[list[Resource]]:
    """Some populations, the same for the same number. The first that hypothesis draws, the simplest, is left out."""
    found: list[list[Resource]] = []

    @seed(number)
    @settings(
        max_examples=POPULATIONS + 1,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(populations())
    def keep(population: list[Resource]) -> None:
        found.append(population)

    keep()
    return found[1:]


def worthwhile(world: World, random: Random) -> Expression:
    """A search that finds something, mostly."""
    searches = Searches(random, world.resources)
    for _ in range(6):
        expression = searches.expression()
        if world.oracle.search(expression.type, world.parameters(expression)):
            break
    return expression


# Loading


def loaded(app: FhirApp, population: list[Resource]) -> World:
    """The population in place of what was stored before it."""
    resources = app.run(_load(app, population))
    times = sorted({r["meta"]["lastUpdated"] for r in resources})
    assert len(times) == PARTS
    return World(app, Oracle(resources, pools.BASE_URL), resources, times)


async def _load(app: FhirApp, population: list[Resource]) -> list[Resource]:
    """The resources as they were sent, with the `meta` that they got. Like the HTTP edge, it makes our own URLs relative."""
    for resource_type in pools.COUNTS:
        await app.store.current(resource_type).delete_many({})
        await app.store.history(resource_type).delete_many({})
    stored: list[Resource] = []
    for part in range(PARTS):
        mine = population[part::PARTS]
        sent = [duplicate(resource) for resource in mine]
        for resource in sent:
            localize(resource, pools.BASE_URL)

        async def write(unit: UnitOfWork, sent: list[Resource] = sent) -> list[Resource]:
            return [await unit.create(resource, resource["id"]) for resource in sent]

        written = await app.interactions.transact(ACCESS, Act("transaction"), write)
        stored += [{**resource, "meta": made["meta"]} for resource, made in zip(mine, written, strict=True)]
        await asyncio.sleep(0.002)
    return stored


# Comparing


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What the server says of a search, beside what the oracle says."""

    expression: Expression
    expected: list[str]
    found: list[str]
    complaint: str


def disagreements(world: World, expressions: list[Expression]) -> list[Disagreement]:
    """The searches that server and oracle don't agree on."""

    async def all_of_them() -> list[Disagreement | None]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(expression: Expression) -> Disagreement | None:
            async with turns:
                return await judged(world, expression)

        return await asyncio.gather(*(one(expression) for expression in expressions))

    return [found for found in world.app.run(all_of_them()) if found is not None]


async def judged(world: World, expression: Expression) -> Disagreement | None:
    """None when all is well: the same resources in the same order, none twice, and their number right."""
    expected = world.oracle.search(expression.type, world.parameters(expression))
    try:
        total, pages = await walked(world, expression)
    except FhirError as error:
        return Disagreement(expression, expected, [], f"refused: {error}")
    found = [id_ for page in pages for id_ in page]
    complaint = ""
    if total != len(expected):
        complaint = f"the total is {total}"
    if any(len(page) != expression.page for page in pages[:-1]):
        complaint = f"pages of {[len(page) for page in pages]}"
    if found != expected:
        complaint = "others" if set(found) != set(expected) else "some twice" if len(found) != len(expected) else "another order"
    return Disagreement(expression, expected, found, complaint) if complaint else None


async def walked(world: World, expression: Expression) -> tuple[int | None, list[list[str]]]:
    """The total, and the ids on each page."""
    interactions, base_url = world.app.interactions, pools.BASE_URL
    asked = [*world.parameters(expression), ("_count", str(expression.page)), ("_total", "accurate")]
    found = await interactions.search(ACCESS, expression.type, asked, base_url=base_url)
    total, pages = found.total, [[r["id"] for r in found.matches]]
    while found.next is not None and len(pages) < 100:
        found = await interactions.search(ACCESS, expression.type, [("_page", found.next)], base_url=base_url)
        pages.append([r["id"] for r in found.matches])
    return total, pages


# Telling


def told(world: World, wrong: list[Disagreement]) -> str:
    """The first of them, made as small as they get, with the resources in question."""
    smallest: dict[Expression, Disagreement] = {}
    for disagreement in wrong[:40]:
        least = minimal(world, disagreement)
        smallest.setdefault(least.expression, least)
    return "\n\n".join(_text(world, disagreement) for disagreement in list(smallest.values())[:12])


def minimal(world: World, disagreement: Disagreement) -> Disagreement:
    """A smaller search that goes wrong too, as long as there is one."""
    for candidate in smaller(disagreement.expression):
        if found := disagreements(world, [candidate]):
            return minimal(world, found[0])
    return disagreement


def _text(world: World, wrong: Disagreement) -> str:
    query = "&".join(f"{name}={text}" for name, text in world.parameters(wrong.expression))
    differing = sorted(set(wrong.expected) ^ set(wrong.found))
    lines = [
        f"{wrong.expression.type}?{query}  (_count={wrong.expression.page}): {wrong.complaint}",
        f"  oracle: {wrong.expected}",
        f"  server: {wrong.found}",
    ]
    lines += [f"  {line}" for line in _shown(world, wrong.expression.type, differing[:2])]
    return "\n".join(lines)


def _shown(world: World, resource_type: str, ids: list[str]) -> Iterator[str]:
    for resource in world.resources:
        if resource["resourceType"] == resource_type and resource["id"] in ids:
            yield json.dumps(json.loads(fhir_json.dumps(resource)), ensure_ascii=False)
