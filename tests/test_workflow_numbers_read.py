"""Reading figures over HTTP: MeasureReport, CSV and JSON, and who sees what."""

import csv
import io
from collections.abc import Iterator

import pytest

from fhir_server import fhir_json
from fhir_server.elements import concept
from fhir_server.validation import validate
from resources import terms
from resources.numbers import measures
from tests.fhir_app import FhirApp, load, serving
from tests.smart_world import Caller

YEAR = "periodStart=2026&periodEnd=2026"


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri) as running:
        running.run(measures.install(running.interactions))
        running.put(
            {"resourceType": "Device", "id": "ct", "status": "active", "deviceName": [{"name": "=CT 1", "type": "other"}]}
        )
        for number in range(6):
            _examined(running, number)
        yield running


def _examined(app: FhirApp, number: int) -> None:
    """An examination that took ten minutes and a minute more each time."""
    patient = app.create({"resourceType": "Patient", "active": True, "name": [{"family": "Secret"}]})
    subject = {"reference": f"Patient/{patient['id']}"}
    code = {"coding": [{"system": "http://loinc.org", "code": "24627-2"}], "text": "Secret wish"}
    detail = [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT" if number else "MR"}]}]
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject, "code": code}
    made = app.create(order | {"orderDetail": detail})
    procedure = app.search(f"ServiceRequest?based-on=ServiceRequest/{made['id']}")["entry"][0]["resource"]
    step = app.search(f"Task?based-on=ServiceRequest/{procedure['id']}&intent=plan")["entry"][0]["resource"]
    booked = {
        "status": "accepted",
        "owner": {"reference": "Device/ct"},
        "restriction": {"period": {"start": "2026-09-01T08:00:00Z"}},
    }
    assert app.put(step | booked).status_code == 200
    performed = {
        "resourceType": "Procedure",
        "status": "completed",
        "subject": subject,
        "basedOn": [{"reference": f"ServiceRequest/{procedure['id']}"}],
        "performedPeriod": {"start": "2026-09-01T08:00:00Z", "end": f"2026-09-01T08:{10 + number}:00Z"},
    }
    app.create(performed)


def report(caller: Caller | FhirApp, query: str, name: str = "turn-around") -> dict:
    answer = caller.get(f"Measure/{name}/$evaluate-measure?{query}")
    assert answer.status_code == 200, answer.text
    return load(answer)


def test_the_measures_are_there_to_be_found_and_valid(app):
    assert sorted(app.ids("Measure?status=active")) == sorted(measures.FIGURES)
    for name in measures.FIGURES:
        assert validate(measures.measure(name)) == []
    app.run(measures.install(app.interactions))
    assert load(app.get("Measure/turn-around"))["meta"]["versionId"] == "1"


@pytest.mark.parametrize("name", measures.FIGURES)
def test_every_measure_is_evaluated_to_a_valid_report_without_anything_of_a_patient(app, name):
    more = "".join(f"&group-by={d}" for d in measures.FIGURES[name].by[:4])
    found = report(app, YEAR + more, name)
    assert validate(found) == []
    assert found["measure"] == f"urn:fhir-ris:Measure/{name}"
    known = {g["code"]["coding"][0]["code"] for g in measures.measure(name)["group"]}
    assert {g["code"]["coding"][0]["code"] for g in found["group"]} <= known
    assert b"Secret" not in fhir_json.dumps(found)


def test_a_span_with_its_strata(app):
    found = report(app, f"{YEAR}&from=started&to=ended&group-by=modality&group-by=modality,priority")
    median, p90 = found["group"]
    assert (median["measureScore"]["value"], p90["measureScore"]["value"]) == (12, 15)
    assert median["population"][0]["count"] == 6
    one, both = median["stratifier"]
    assert [(s["value"]["text"], s["measureScore"]["value"]) for s in one["stratum"]] == [("CT", 13), ("MR", 10)]
    assert [c["value"]["text"] for c in both["stratum"][0]["component"]] == ["CT", "routine"]
    assert found["period"] == {"start": "2026-01-01T00:00:00.000Z", "end": "2026-12-31T23:59:59.999Z"}
    same = load(app.get(f"Measure/$evaluate-measure?measure=urn:fhir-ris:Measure/turn-around&{YEAR}&from=started&to=ended"))
    assert same["group"][0]["measureScore"] == median["measureScore"]


def test_csv_and_json_have_the_same_numbers(app):
    query = f"Measure/scanners/$figures?{YEAR}"
    answer = app.get(f"{query}&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    busy = next(r for r in rows if r["group"] == "busy" and r["scanner"] != "all")
    assert (busy["scanner"], busy["value"], busy["count"]) == ("'=CT 1", "75.0", "6")
    said = app.get(query)
    assert said.headers["content-type"] == "application/json"
    body = said.json()
    assert (len(body["figures"]), body["names"]) == (len(rows), {"Device/ct": "=CT 1"})
    bundle = load(app.bundle("batch", {"request": {"method": "GET", "url": query}}))
    assert bundle["entry"][0]["resource"]["resourceType"] == "Binary"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("periodStart=2026", 400),
        ("periodStart=2026&periodEnd=soon", 400),
        ("periodStart=2026&periodEnd=2025", 400),
        ("periodStart=2026-01-01T10:00:00Z&periodEnd=2026", 400),
        (f"{YEAR}&group-by=patient", 400),
        (f"{YEAR}&group-by=day,day", 400),
        (f"{YEAR}&from=ended", 400),
        (f"{YEAR}&from=ended&to=nowhere", 400),
        (f"{YEAR}&basis=nowhere", 400),
        (f"{YEAR}&reportType=subject-list", 400),
        (f"{YEAR}&subject=Patient/1", 400),
    ],
)
def test_what_is_not_known_is_refused(app, query, status):
    assert app.get(f"Measure/turn-around/$evaluate-measure?{query}").status_code == status


def test_there_is_no_figure_of_another_name(app):
    assert app.get(f"Measure/nothing/$evaluate-measure?{YEAR}").status_code == 404
    assert app.get(f"Measure/volumes/$evaluate-measure?{YEAR}&from=ended&to=final").status_code == 400
    assert app.get(f"Measure/volumes/$figures?{YEAR}&format=xml").status_code == 400


def test_who_sees_figures(app, world):
    query = f"Measure/turn-around/$evaluate-measure?{YEAR}"
    asked = {
        role: world.person(role).get(query).status_code for role in ("admin", "scheduler", "technologist", "referrer", "auditor")
    }
    assert asked == {"admin": 200, "scheduler": 200, "technologist": 403, "referrer": 403, "auditor": 403}
    assert world.person("admin", "user/Measure.r").get(query).status_code == 403
    assert app.send("GET", query, scope="system/Measure.r system/MeasureReport.r").status_code == 200


def test_persons_and_small_cells_are_for_administrators(app, world):
    by_person = f"{YEAR}&group-by=reader"
    scheduler, admin = world.person("scheduler"), world.person("admin")
    assert scheduler.get(f"Measure/turn-around/$evaluate-measure?{by_person}").status_code == 403
    assert report(admin, by_person)["group"]
    few = "system/Measure.r system/MeasureReport.r"
    assert app.send("GET", f"Measure/turn-around/$figures?{by_person}", scope=few).status_code == 403
    query = f"{YEAR}&from=started&to=ended&group-by=modality"
    seen = {name: report(who, query)["group"][0] for name, who in (("scheduler", scheduler), ("admin", admin))}
    shown = {name: ["measureScore" in s for s in group["stratifier"][0]["stratum"]] for name, group in seen.items()}
    assert shown == {"scheduler": [True, False], "admin": [True, True]}
    assert "measureScore" in seen["scheduler"]


def test_figures_are_narrowed_to_one_of_something(app, world):
    span = f"{YEAR}&from=started&to=ended"

    def seen(query, name="turn-around", caller=app):
        answer = caller.get(f"Measure/{name}/$figures?{query}")
        assert answer.status_code == 200, answer.text
        return {(f["group"], f["statistic"]): (f["value"], f["count"]) for f in answer.json()["figures"]}

    assert seen(f"{span}&modality=CT") == {("started-ended", "median"): (13, 5), ("started-ended", "p90"): (15, 5)}
    room = app.create({"resourceType": "Location", "status": "active", "name": "Without a scanner"})
    assert seen(f"{span}&modality=CT&priority=stat") == seen(f"{span}&location=Location/{room['id']}")
    assert seen(f"{span}&modality=CT,MR") == seen(f"{span}&modality=US,%20MR,CT&priority=stat,routine") == seen(span)
    assert seen(f"{span}&scanner=Device/ct")["started-ended", "median"] == (12, 6)
    assert seen(f"{YEAR}&modality=MR&group-by=priority", "volumes")["performed", "count"] == (1, 1)
    assert seen(f"{YEAR}&scanner=Device/ct", "scanners")["busy", "sum"] == (75, 6)
    other = app.create({"resourceType": "Device", "status": "active", "type": concept(terms.DCM, "XRAY-OF-OURS")})
    assert seen(f"{YEAR}&scanner=Device/{other['id']}", "scanners")["busy", "sum"] == (0, 0)
    assert seen(f"{YEAR}&scanner=Device/{other['id']},Device/ct", "scanners")["busy", "sum"] == (75, 6)
    assert seen(f"{YEAR}&modality=XRAY-OF-OURS", "volumes")["performed", "count"] == (0, 0)
    # What is too small to be shown is not shown for being asked for alone.
    few = seen(f"{span}&modality=MR", caller=world.person("scheduler"))
    assert few == {("started-ended", "median"): (None, 1), ("started-ended", "p90"): (None, 1)}
    for name, only in (("interfaces", "modality=CT"), ("scanners", "priority=stat"), ("volumes", "reader=Practitioner/1")):
        assert app.get(f"Measure/{name}/$figures?{YEAR}&{only}").status_code == 400


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ("modality=ZZ", "CT, "),
        ("modality=CT,ZZ", "'ZZ'"),
        ("modality=CT,", "''"),
        ("priority=bogus", "routine, urgent, asap, stat"),
        ("scanner=ct", "Device/1"),
        ("scanner=Location/ct", "Device/1"),
        ("scanner=Device/none", "there is no Device/none"),
        ("location=x", "Location/1"),
        ("location=Location/none", "there is no Location/none"),
    ],
)
def test_what_is_not_known_is_refused_and_not_counted_as_nothing(app, only, told):
    for operation in ("$figures", "$evaluate-measure"):
        answer = app.get(f"Measure/turn-around/{operation}?{YEAR}&{only}")
        assert answer.status_code == 400
        assert told in answer.text


def test_a_scanner_that_the_caller_may_not_read_is_as_none(app):
    query = f"Measure/turn-around/$figures?{YEAR}&scanner=Device/ct"
    scope = "system/Measure.r system/MeasureReport.r"
    assert app.send("GET", query, scope=scope).status_code == 400
    assert app.send("GET", query, scope=f"{scope} system/Device.r").status_code == 200
