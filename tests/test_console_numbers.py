"""Numbers: figures as charts and tables of what the address says, filters, CSV, and who sees which."""

import csv
import io
import random
import re
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from benchmarks import numbers as year
from resources.numbers import bookings, exam_rows
from tests.console_world import DCM, ConsoleWorld, press

PERIOD = "from=2025-01-01&to=2025-02-20"


def examined(console: ConsoleWorld, exams: int) -> None:
    """The first of a year of invented examinations, as the projections keep them (benchmarks/numbers.py), and their scanners."""
    chance = random.Random(1)
    made = [year._exam(n, 2400, chance) for n in range(exams)]

    async def fill() -> None:
        await console.app.db[exam_rows.COLLECTION].insert_many([exam for exam, _ in made])
        await console.app.db[bookings.COLLECTION].insert_many([booking for _, booking in made])

    console.app.run(fill())
    for n, modality in enumerate(year._MODALITIES):
        place = console.put({"resourceType": "Location", "id": f"l{n % 4}", "name": f"Wing {n % 4}"})
        console.put(
            {
                "resourceType": "Device",
                "id": f"scanner{n}",
                "status": "active",
                "identifier": [{"system": "urn:fhir-ris:ae-title", "value": f"SCANNER{n}"}],
                "deviceName": [{"name": f"{modality} {n}", "type": "user-friendly-name"}],
                "type": {"coding": [{"system": DCM, "code": modality}]},
                "location": {"reference": f"Location/{place['id']}"},
            }
        )


@pytest.fixture(scope="module", autouse=True)
def examinations(console: ConsoleWorld) -> None:
    """Six weeks of them."""
    examined(console, 300)


def figures(console: ConsoleWorld, role: str, query: str) -> list[dict[str, str]]:
    with console.http(role) as client:
        answer = client.get(f"/numbers/figures.csv?{query}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(answer.text)))


def test_volumes_as_charts_and_table_say_what_the_csv_says(console: ConsoleWorld) -> None:
    page = console.at("admin", f"/numbers?view=volumes&{PERIOD}")
    rows = figures(console, "admin", f"view=volumes&{PERIOD}")
    performed = {r["modality"]: r["count"] for r in rows if r["group"] == "performed" and r["week"] == "all"}
    shown = {r.locator("th").inner_text(): r.locator("td").all_inner_texts() for r in page.locator("tbody tr").all()}
    assert shown["All"][2] == performed.pop("all")
    assert {name: cells[2] for name, cells in shown.items() if name != "All"} == performed
    assert page.locator("svg.chart").count() == 2
    assert all(page.locator("svg.chart").evaluate_all("all => all.map(s => s.getAttribute('aria-label'))"))
    bars = page.locator("svg.chart").nth(1).locator("text.value").all_text_contents()
    assert sorted(bars, key=int) == sorted(performed.values(), key=int)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "volumes-2025-01-01-2025-02-20.csv"


def test_filters_and_period_stand_in_the_address_and_narrow_everything(console: ConsoleWorld) -> None:
    page = console.at("scheduler", f"/numbers?view=volumes&{PERIOD}")
    whole = int(page.locator("tbody tr").first.locator("td").nth(2).inner_text())
    page.get_by_label("Modality").first.select_option("CT")
    expect(page).to_have_url(re.compile("modality=CT"))
    expect(page.locator("tbody tr")).to_have_count(2)
    ct = int(page.locator("tbody tr").first.locator("td").nth(2).inner_text())
    assert 0 < ct < whole
    page.get_by_label("Scanner").select_option(label="CT 1")
    expect(page).to_have_url(re.compile("scanner=Device%2Fscanner1"))
    assert 0 < int(page.locator("tbody tr").first.locator("td").nth(2).inner_text()) < ct
    press(page, "1")
    expect(page).to_have_url(re.compile("view=turn-around.*modality=CT"))
    page.reload()
    expect(page.get_by_label("Scanner")).to_have_value("Device/scanner1")
    page.get_by_role("link", name="7 days").click()
    expect(page.locator("main")).to_contain_text("no figures for this period")


def test_turn_around_times_of_a_span_by_something(console: ConsoleWorld) -> None:
    page = console.at("admin", f"/numbers?view=turn-around&span=ordered-final&by=priority&{PERIOD}")
    expect(page.locator("figure")).to_have_count(3)
    expect(page.locator("figure").nth(2)).to_contain_text("Ordered to final · Priority")
    rows = figures(console, "admin", f"view=turn-around&by=priority&{PERIOD}")
    stat = next(
        r for r in rows if (r["group"], r["statistic"], r["priority"], r["week"]) == ("ordered-final", "median", "stat", "all")
    )
    line = page.locator("table").nth(1).locator("tbody tr", has_text="emergency").locator("td").all_inner_texts()
    assert line[0] == stat["count"]
    hours = float(stat["value"]) / 60
    assert line[1] in {f"{round(hours, 1):g} hrs", f"{round(hours / 24, 1):g} days"}


def test_scanners_and_backlog(console: ConsoleWorld) -> None:
    page = console.at("scheduler", f"/numbers?view=scanners&{PERIOD}")
    expect(page.locator("table tbody tr")).to_have_count(1 + len(year._MODALITIES))
    expect(page.locator("figure").nth(1)).to_contain_text("No-shows")
    order = console.order()
    console.update(order, status="on-hold")
    page.goto("/numbers?view=backlog")
    release = page.locator("table").first.locator("tbody tr", has_text="Release").locator("td").all_inner_texts()
    assert release[:2] == ["1", "1"]
    expect(page.locator("#from")).to_have_count(0)


def test_persons_and_small_cells_are_the_operations_to_judge(console: ConsoleWorld) -> None:
    with console.http("scheduler") as client:
        page = client.get(f"/numbers?view=volumes&by=reader&{PERIOD}").text
        assert "reader3" not in page
        assert 'value="reader"' not in page
    assert "reader" in {k for r in figures(console, "admin", f"view=volumes&by=reader&{PERIOD}") for k in r}
    day = (year.YEAR + timedelta(days=20)).date().isoformat()
    narrow = f"view=turn-around&from={day}&to={day}&modality=MG"
    assert {r["value"] for r in figures(console, "scheduler", narrow) if int(r["count"]) in range(1, 5)} <= {""}
    page_ = console.at("scheduler", f"/numbers?{narrow}")
    expect(page_.locator("main")).to_contain_text(re.compile("fewer than five|no figures"))


def test_what_makes_no_sense_in_an_address_is_told_or_left_aside(console: ConsoleWorld) -> None:
    with console.http("scheduler") as client:
        for query in ("view=nothing&from=x&to=2025-13-01", "by=patient&span=a-b", "from=2026-12-31&to=2025-01-01"):
            assert client.get(f"/numbers?{query}").status_code == 200
        for unknown in ("x" * 500, "ZZ", "%3Cscript%3E"):
            answer = client.get(f"/numbers?view=volumes&modality={unknown}&{PERIOD}")
            assert answer.status_code == 400
            assert "modality is one or several" in answer.text
            assert answer.text.count("<script>") == 0


def test_several_of_a_kind_in_the_address_stay_in_the_form(console: ConsoleWorld) -> None:
    page = console.at("scheduler", f"/numbers?view=volumes&modality=CT,MG&{PERIOD}")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.get_by_label("Modality").first).to_have_value("CT,MG")
    page.get_by_label("Scanner").select_option(label="CT 1")
    expect(page).to_have_url(re.compile("modality=CT%2CMG.*scanner=Device%2Fscanner1"))
    expect(page.locator("tbody tr")).to_have_count(2)


@pytest.mark.parametrize("role", ["technologist", "radiologist", "referrer", "auditor", "interface-admin", "privacy-officer"])
def test_others_get_neither_page_nor_file(console: ConsoleWorld, role: str) -> None:
    with console.http(role) as client:
        assert client.get("/numbers").status_code == 403
        assert client.get("/numbers/figures.csv").status_code == 403


def test_it_speaks_german(console: ConsoleWorld) -> None:
    page = console.at("admin", f"/numbers?view=turn-around&{PERIOD}", language="de-DE")
    expect(page.locator("main")).to_contain_text("angefordert bis endgültig")
    assert [c for c in console.complaints if "status of 40" not in c] == []
