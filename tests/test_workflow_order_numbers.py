"""Accession and other numbers as the department's NamingSystems say (resources/numbering.py)."""

import asyncio

import pytest

from fhir_server import clock
from resources import numbering, terms
from resources.number_pattern import check_character
from tests.department import Resource, identifiers


def naming(system: str, pattern: str, **more) -> Resource:
    kinds = {"gapless": "valueBoolean", "per_year": "valuePositiveInt", "site": "valueString"}
    parts = [{"url": "pattern", "valueString": pattern}]
    parts += [{"url": name.replace("_", "-"), kinds[name]: value} for name, value in more.items()]
    return {
        "resourceType": "NamingSystem",
        "name": "Numbers",
        "status": "active",
        "kind": "identifier",
        "date": "2026-01-01",
        "uniqueId": [{"type": "uri", "value": system}],
        "extension": [{"url": numbering.NUMBERING, "extension": parts}],
    }


def test_every_number_follows_its_pattern_and_retired_patterns_count_no_more(ris):
    async def scenario():
        plain = identifiers(await ris.order())
        assert plain["ACSN"][1:] == plain["FILL"][1:]
        year = f"{clock.now().year % 100:02d}"
        place = await ris.create(
            {"resourceType": "Location", "name": "West", "identifier": [{"system": numbering.SITE, "value": "WEST"}]}
        )
        made = [
            await ris.create(naming(terms.ACCESSION_NUMBER, "{site:4}{yy}{n:7}{check}", site="HQ")),
            await ris.create(naming(terms.FILLER_ORDER_NUMBER, "F-{n:8}")),
            await ris.create(naming(terms.REQUESTED_PROCEDURE_ID, "{modality}{yy}{n:7}")),
            await ris.create(naming(terms.SCHEDULED_STEP_ID, "S{modality}{n:8}")),
        ]
        order = await ris.order(modality="MR", locationReference=[{"reference": f"Location/{place['id']}"}])
        accession = identifiers(order)["ACSN"]
        assert accession[:-1] == f"WEST{year}0000001"
        assert accession[-1] == check_character(accession[:-1])
        assert identifiers(order)["FILL"] == "F-00000001"
        assert (await ris.procedure(order))["identifier"][0]["value"] == f"MR{year}0000001"
        assert (await ris.step(order))["identifier"][0]["value"] == "SMR00000001"
        other = await ris.order()
        assert identifiers(other)["ACSN"].startswith(f"HQ00{year}0000001")  # a series for each site
        for one in made:
            await ris.update(one, status="retired")
        after = identifiers(await ris.order())
        assert after["ACSN"][1:] == after["FILL"][1:]

    ris.run(scenario())


@pytest.mark.parametrize("gapless", [True, False])
def test_numbers_are_unique_under_any_haste_and_without_gaps_where_asked(ris, gapless):
    async def scenario():
        letter = "G" if gapless else "N"
        described = await ris.create(naming(terms.ACCESSION_NUMBER, letter + "{n:9}", gapless=gapless))
        refused = {"subject": {"reference": "Patient/nobody"}}
        attempts = [ris.order(**(refused if i % 3 == 2 else {})) for i in range(24)]
        done = await asyncio.gather(*attempts, return_exceptions=True)
        given = sorted(identifiers(o)["ACSN"] for o in done if isinstance(o, dict))
        assert len(set(given)) == len(given) == 16
        if gapless:
            assert given == [f"{letter}{n:09d}" for n in range(1, 17)]
        await ris.update(described, status="retired")

    ris.run(scenario())


def test_a_number_that_somebody_has_already_is_left_out(ris):
    async def scenario():
        taken = {"type": {"coding": [{"system": terms.V2_0203, "code": "ACSN"}]}, "system": terms.ACCESSION_NUMBER}
        await ris.order(identifier=[taken | {"value": "T000000002"}])
        described = await ris.create(naming(terms.ACCESSION_NUMBER, "T{n:9}"))
        given = [identifiers(await ris.order())["ACSN"] for _ in range(2)]
        assert given == ["T000000001", "T000000003"]
        await ris.update(described, status="retired")

    ris.run(scenario())


def test_numbers_that_were_brought_are_given_to_nobody_else_nor_stop_the_intake(ris):
    async def scenario():
        order = await ris.order()
        typed = {code: {"coding": [{"system": terms.V2_0203, "code": code}]} for code in ("ACSN", "FILL")}
        brought = f"{int(identifiers(order)['ACSN'][1:]) + 3:09d}"
        await ris.order(identifier=[{"type": typed["ACSN"], "value": f"A{brought}"}])
        assert f"A{brought}" not in [identifiers(await ris.order())["ACSN"] for _ in range(3)]
        filler = {"type": typed["FILL"], "system": terms.FILLER_ORDER_NUMBER, "value": identifiers(order)["FILL"]}
        assert (await ris.refused(ris.order(identifier=[filler]))).code == "duplicate"
        # A long row of numbers is taken already when a pattern begins.
        patient = {"reference": f"Patient/{(await ris.patient())['id']}"}
        row = [{"system": terms.ACCESSION_NUMBER, "value": f"B{n:09d}"} for n in range(1, 1202)]
        other = {"resourceType": "ServiceRequest", "status": "active", "intent": "proposal", "subject": patient}
        await ris.create(other | {"identifier": row})
        for gapless in (True, False):
            described = await ris.create(naming(terms.ACCESSION_NUMBER, "B{n:9}", gapless=gapless))
            assert identifiers(await ris.order())["ACSN"] == ("B000001202" if gapless else "B000001203")
            await ris.update(described, status="retired")
        wrong = naming(terms.ACCESSION_NUMBER, "B{n:9}")
        wrong["extension"][0]["extension"].append({"url": "per-year", "valueString": "many"})
        assert (await ris.refused(ris.create(wrong))).code == "value"

    ris.run(scenario())


def test_a_series_that_nears_its_end_is_a_person_s_work_and_at_its_end_nothing_is_numbered(ris):
    async def scenario():
        described = await ris.create(naming(terms.ACCESSION_NUMBER, "E{yyyy}{n:1}", per_year=4))
        for _ in range(8):
            await ris.order()
        assert await ris.work_items("numbers-run-out") == []
        await ris.order()
        assert len(await ris.work_items("numbers-run-out", focus=f"NamingSystem/{described['id']}")) == 1
        assert "run out" in str(await ris.refused(ris.order()))
        await ris.update(described, status="retired")

    ris.run(scenario())


@pytest.mark.parametrize(
    ("system", "pattern", "more"),
    [
        (terms.ACCESSION_NUMBER, "ACCESSION{yyyy}{n:7}", {}),  # 20 characters
        (terms.ACCESSION_NUMBER, "A{n:5}", {}),  # runs out
        (terms.ACCESSION_NUMBER, "A{site:3}{n:8}", {}),  # no site for orders that name none
        (terms.ACCESSION_NUMBER, "A{site:3}{n:8}", {"site": "A\\B"}),
        ("urn:example:mrn", "A{n:9}", {}),  # not a number of ours
    ],
)
def test_a_pattern_that_won_t_do_is_refused_when_it_is_written(ris, system, pattern, more):
    assert ris.run(ris.refused(ris.create(naming(system, pattern, **more)))).code == "business-rule"


def test_a_system_has_one_pattern(ris):
    async def scenario():
        first = await ris.create(naming(terms.SCHEDULED_STEP_ID, "P{n:9}"))
        assert (await ris.refused(ris.create(naming(terms.SCHEDULED_STEP_ID, "Q{n:9}")))).code == "duplicate"
        await ris.update(first, status="retired")

    ris.run(scenario())
