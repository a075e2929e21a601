"""`$everything` gives a patient's own resources and what these need to be read, and nothing of anybody else's."""

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.audit import Act
from fhir_server.definitions import compartment
from fhir_server.operations import Call
from fhir_server.operations.everything import _members, _Walk
from smart_auth.access import Access
from tests.fhir_app import FhirApp, patient, put, serving, unused
from tests.operation_calls import Answered, operate


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False, rules=lambda _: None) as running:
        yield running


def code(text: str = "x") -> dict[str, Any]:
    return {"coding": [{"system": "urn:x", "code": text}]}


def of(reference: str) -> dict[str, str]:
    return {"reference": reference}


def observation(id_: str, who: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id_, "status": "final", "code": code(), "subject": of(who), **more}


def encounter(id_: str, who: str, **more: Any) -> dict[str, Any]:
    class_ = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
    return {"resourceType": "Encounter", "id": id_, "status": "finished", "class": class_, "subject": of(who), **more}


def store(app: FhirApp, *resources: dict[str, Any]) -> None:
    answer = app.bundle("transaction", *map(put, resources))
    assert answer.status_code == 200, answer.text


def walk(app: FhirApp, path: str, **options: Any) -> list[Answered]:
    pages, following = [], path
    while following:
        pages.append(operate(app, "GET", following, **options))
        assert pages[-1].status == 200, pages[-1].resource
        following = pages[-1].next or ""
    return pages


def everything(app: FhirApp, path: str, **options: Any) -> set[str]:
    found = [i for page in walk(app, path, **options) for i in page.ids()]
    assert len(found) == len(set(found)), "nothing comes twice"
    return set(found)


@pytest.fixture
def two(app: FhirApp) -> tuple[str, str]:
    """Two patients who share a doctor, a ward and a hospital; each has an encounter and an observation."""
    a, b = unused("a"), unused("b")
    for me, other in ((a, b), (b, a)):
        store(
            app,
            {"resourceType": "Organization", "id": f"hospital-{a}", "name": "Erfundenes Spital"},
            {"resourceType": "Practitioner", "id": f"doctor-{a}"},
            {"resourceType": "PractitionerRole", "id": f"role-{a}", "practitioner": of(f"Practitioner/doctor-{a}")},
            {"resourceType": "Location", "id": f"ward-{a}", "managingOrganization": of(f"Organization/hospital-{a}")},
            patient(id=me),
            {"resourceType": "Device", "id": f"pacer-{me}", "patient": of(f"Patient/{me}")},
            encounter(f"e-{me}", f"Patient/{me}", location=[{"location": of(f"Location/ward-{a}")}]),
            observation(
                f"o-{me}", f"Patient/{me}", performer=[of(f"PractitionerRole/role-{a}")], encounter=of(f"Encounter/e-{me}")
            ),
            patient(id=other),
            {"resourceType": "Device", "id": f"pacer-{other}", "patient": of(f"Patient/{other}")},
            # What refers to the other's resources without being the other's own.
            {
                "resourceType": "Media",
                "id": f"m-{me}",
                "status": "completed",
                "subject": of(f"Patient/{me}"),
                "device": of(f"Device/pacer-{other}"),
                "content": {"url": "urn:x"},
            },
        )
    return a, b


def test_a_patients_everything_is_the_compartment_and_what_it_needs(app: FhirApp, two: tuple[str, str]) -> None:
    a, b = two
    answer = operate(app, "GET", f"Patient/{a}/$everything")
    assert set(answer.ids("match")) == {f"Patient/{a}", f"Encounter/e-{a}", f"Observation/o-{a}", f"Media/m-{a}"}
    beside = {f"Location/ward-{a}", f"Organization/hospital-{a}", f"PractitionerRole/role-{a}", f"Practitioner/doctor-{a}"}
    assert set(answer.ids("include")) == beside
    assert answer.resource["type"] == "searchset"
    assert not [i for i in answer.ids() if b in i], "what they share leads nowhere near the other"


def test_every_type_of_the_compartment_is_walked_through(app: FhirApp) -> None:
    p = unused("p")
    store(
        app,
        patient(id=p),
        {"resourceType": "Flag", "id": p, "status": "active", "code": code(), "subject": of(f"Patient/{p}")},
        {"resourceType": "Observation", "id": f"by-{p}", "status": "final", "code": code(), "performer": [of(f"Patient/{p}")]},
        {"resourceType": "Task", "id": f"t-{p}", "status": "requested", "intent": "plan", "for": of(f"Patient/{p}")},
        patient(id=f"old-{p}", link=[{"other": of(f"Patient/{p}"), "type": "replaced-by"}]),
        {"resourceType": "Group", "id": p, "type": "person", "actual": True, "member": [{"entity": of(f"Patient/{p}")}]},
    )
    found = everything(app, f"Patient/{p}/$everything")
    assert found == {f"Patient/{p}", f"Flag/{p}", f"Observation/by-{p}", f"Patient/old-{p}", f"Group/{p}"}
    assert "Task" not in compartment("Patient"), "R4 has no tasks in it"


def test_an_encounters_everything_is_its_own_compartment_and_its_patient(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    store(app, observation(f"elsewhere-{a}", f"Patient/{a}"))
    answer = operate(app, "GET", f"Encounter/e-{a}/$everything")
    assert set(answer.ids("match")) == {f"Encounter/e-{a}", f"Observation/o-{a}"}
    assert f"Patient/{a}" in answer.ids("include")
    assert len([i for i in answer.ids() if i.startswith("Patient/")]) == 1


def test_pages_hold_every_resource_once_while_others_write(app: FhirApp) -> None:
    p = unused("p")
    doctor = {"resourceType": "Practitioner", "id": f"doctor-{p}"}
    observations = [observation(f"{p}-{n:02}", f"Patient/{p}", performer=[of(f"Practitioner/doctor-{p}")]) for n in range(25)]
    store(app, patient(id=p), doctor, *observations, encounter(f"e-{p}", f"Patient/{p}"))
    pages, path, number = [], f"Patient/{p}/$everything?_count=4", 0
    while path:
        pages.append(operate(app, "GET", path))
        path = pages[-1].next or ""
        number += 1
        store(
            app,
            observation(f"{p}-{number:02}-new", f"Patient/{p}"),
            observation(f"{p}-24", f"Patient/{p}", note=[{"text": str(number)}]),
        )
    assert all(len(page.ids("match")) <= 4 for page in pages)
    shown = [i for page in pages for i in page.ids()]
    assert len(shown) == len(set(shown))
    wanted = {f"Observation/{o['id']}" for o in observations} | {f"Patient/{p}", f"Encounter/e-{p}", f"Practitioner/doctor-{p}"}
    assert wanted <= set(shown)


def test_a_page_link_tells_nothing_and_belongs_to_one_resource(app: FhirApp, two: tuple[str, str]) -> None:
    a, b = two
    link = operate(app, "GET", f"Patient/{a}/$everything?_count=1").next
    assert link is not None
    text = link.partition("?_page=")[2]
    assert a not in text
    assert operate(app, "GET", f"Patient/{b}/$everything?_page={text}").status == 400
    assert operate(app, "GET", f"Patient/{a}/$everything?_page={text[:-5]}AAAAA").status == 400
    assert operate(app, "GET", f"Patient/{a}/$everything?_page={text}&_count=5").status == 400
    assert operate(app, "GET", f"Patient/{a}/$everything?_page={text}").status == 200


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("start=2025-02-01&end=2025-02-28", {"feb", "span", "undated"}),
        ("start=2025-02-15", {"feb", "mar", "span", "undated"}),
        ("end=2025-01-31", {"jan", "span", "undated"}),
        ("start=2025-03-01&end=2025-03-01", {"mar", "undated"}),
        ("start=2030", {"undated"}),
        ("", {"jan", "feb", "mar", "span", "undated"}),
    ],
)
def test_start_and_end_look_at_when_the_care_was(app: FhirApp, query: str, found: set[str]) -> None:
    p = "dated"
    store(
        app,
        patient(id=p, birthDate="1960-01-01"),
        observation("dated-jan", f"Patient/{p}", effectiveDateTime="2025-01-10"),
        observation("dated-feb", f"Patient/{p}", effectiveDateTime="2025-02-20T10:00:00Z"),
        observation("dated-mar", f"Patient/{p}", effectivePeriod={"start": "2025-03-01", "end": "2025-03-02"}),
        encounter("dated-span", f"Patient/{p}", period={"start": "2025-01-20", "end": "2025-02-15"}),
        observation("dated-undated", f"Patient/{p}"),
    )
    shown = everything(app, f"Patient/{p}/$everything?{query}") - {f"Patient/{p}"}
    assert {i.partition("dated-")[2] for i in shown} == found


def test_since_shows_what_has_changed_and_type_what_is_wanted(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    changed = app.put({"resourceType": "Organization", "id": f"hospital-{a}", "name": "umbenannt"}).json()["meta"]["lastUpdated"]
    assert everything(app, f"Patient/{a}/$everything?_since={changed}") == {f"Organization/hospital-{a}"}
    assert everything(app, f"Patient/{a}/$everything?_type=Encounter,Media") == {f"Encounter/e-{a}", f"Media/m-{a}"}
    assert everything(app, f"Patient/{a}/$everything?_type=Practitioner&_count=1") == {f"Practitioner/doctor-{a}"}
    assert everything(app, f"Patient/{a}/$everything?_since={changed}&_type=Observation") == set()


def test_parameters_may_be_posted(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "_type", "valueCode": "Patient"}, {"name": "_count", "valueInteger": 5}],
    }
    assert operate(app, "POST", f"Patient/{a}/$everything", body).ids() == [f"Patient/{a}"]


@pytest.mark.parametrize(
    "query", ["_count=0", "_count=x", "start=yesterday", "_type=Unicorn", "page=2", "start=2025&start=2026", "_since="]
)
def test_what_makes_no_sense_is_refused(app: FhirApp, query: str) -> None:
    store(app, patient(id="sense"))
    answer = operate(app, "GET", f"Patient/sense/$everything?{query}")
    assert (answer.status, len(answer.resource["issue"])) == (400, 1)


def test_only_what_the_token_allows_is_shown(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    narrow = "system/Patient.r system/Observation.rs system/Organization.r"
    first = operate(app, "GET", f"Patient/{a}/$everything", scope=narrow)
    assert set(first.ids()) == {f"Patient/{a}", f"Observation/o-{a}"}
    note = first.resource["entry"][-1]
    assert note["search"]["mode"] == "outcome"
    assert "Encounter" in note["resource"]["issue"][0]["diagnostics"]
    assert operate(app, "GET", f"Patient/{a}/$everything?_type=Encounter", scope=narrow).status == 403
    before = len(app.audit())
    assert operate(app, "GET", f"Patient/{a}/$everything", scope="system/Observation.rs").status == 403
    assert app.audit(before)[0]["outcome"] == "4"


def test_each_page_is_on_record_with_what_it_showed(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    before = len(app.audit())
    page = operate(app, "GET", f"Patient/{a}/$everything")
    (event,) = app.audit(before)
    assert event["subtype"][0]["code"] == "operation"
    assert event["outcomeDesc"] == "$everything"
    assert {e["what"]["reference"] for e in event["entity"]} == set(page.ids())


def test_the_audit_trail_is_there_for_those_who_ask_for_it(app: FhirApp, two: tuple[str, str]) -> None:
    a, _ = two
    assert not [i for i in everything(app, f"Patient/{a}/$everything") if i.startswith("AuditEvent")]
    trail = everything(app, f"Patient/{a}/$everything?_type=AuditEvent&_count=1")
    assert trail
    assert all(i.startswith("AuditEvent/") for i in trail), "and the walk comes to its end, though each page adds one"


def test_who_is_not_there_has_nothing(app: FhirApp) -> None:
    assert operate(app, "GET", "Patient/nobody/$everything").status == 404
    store(app, patient(id="gone"))
    app.send("DELETE", "Patient/gone")
    assert operate(app, "GET", "Patient/gone/$everything").status == 410


def test_it_is_where_r4_has_it_and_nowhere_else(app: FhirApp) -> None:
    for path in ("$everything", "Patient/$everything", "Observation/x/$everything", "Patient/x/$nothing"):
        answer = operate(app, "GET", path)
        assert answer.status == 404, path
    assert "$everything" in operate(app, "GET", "Patient/x/$nothing").text
    assert operate(app, "DELETE", "Patient/x/$everything").status == 405


def test_no_collection_is_scanned(app: FhirApp, two: tuple[str, str]) -> None:
    """Every query goes by the compartment's keys."""
    a, _ = two
    for stages in app.run(_plans(app, a)):
        assert stages.isdisjoint({"COLLSCAN"})
        assert "IXSCAN" in stages


async def _plans(app: FhirApp, a: str) -> list[set[str]]:
    call = Call(app.interactions, Access.system("t"), Act("operation"), "", "Patient", a)
    walk = _Walk(None, "2025", "2026", "2020", 10, "2030")
    found = []
    for resource_type in sorted(compartment("Patient")):
        await app.store.ensure(resource_type)
        where = _members(call, walk, resource_type, False)
        plan = await app.store.current(resource_type).find(where, sort=[("_id", 1)]).explain()
        found.append(set(_stages(plan["queryPlanner"]["winningPlan"])))
    return found


def _stages(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["stage"]
    for inner in [plan.get("inputStage"), *plan.get("inputStages", ())]:
        if inner:
            yield from _stages(inner)
