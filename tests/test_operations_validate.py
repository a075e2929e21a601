"""`$validate` says beforehand what the server would say, and changes nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry
from fhir_server.unit_of_work import UnitOfWork
from tests.fhir_app import FhirApp, patient, serving, unused
from tests.operation_calls import Answered, operate

BASE = "http://hl7.org/fhir/StructureDefinition/"
NARRATIVE = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}


def rules(registry: Registry) -> None:
    async def no_smith(_unit: UnitOfWork, change: Change) -> None:
        if change.after and change.after.get("name", [{}])[0].get("family") == "Smith":
            raise fail("business-rule", "nobody is called Smith here", "Patient.name[0].family")

    async def no_males(unit: UnitOfWork, change: Change) -> None:
        if change.after and change.after.get("gender") == "male":
            await unit.create({"resourceType": "Basic", "code": {"text": "follows"}})
            raise fail("business-rule", "what follows is refused", "Patient.gender")

    registry.rule("Patient", no_smith)
    registry.reaction("Patient", no_males)


@pytest.fixture(scope="module")
def app(mongodb_uri: str) -> Iterator[FhirApp]:
    with serving(mongodb_uri, core=False, rules=rules) as running:
        yield running


def person(**more: Any) -> dict[str, Any]:
    return patient(text=NARRATIVE, **more)


def asked(resource: Any = None, mode: str | None = None, profile: str | None = None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if resource is not None:
        parts.append({"name": "resource", "resource": resource})
    if mode is not None:
        parts.append({"name": "mode", "valueCode": mode})
    if profile is not None:
        parts.append({"name": "profile", "valueUri": profile})
    return {"resourceType": "Parameters", "parameter": parts}


def judge(app: FhirApp, path: str, body: Any = None, **options: Any) -> Answered:
    """The outcome, for which nothing may have changed but the audit trail."""
    before = app.counts()
    answer = operate(app, "POST", path, body, **options)
    after = app.counts()
    kept = {name for name in after if after[name] != before.get(name, 0)}
    assert kept <= {"AuditEvent", "audit_chains", "counters", "catalog"}, kept
    return answer


ALL_OK = [("information", "informational")]


def test_a_valid_resource_is_all_ok_by_itself_or_in_parameters(app: FhirApp) -> None:
    for body in (person(), asked(person())):
        answer = judge(app, "Patient/$validate", body)
        assert (answer.status, answer.issues, answer.text) == (200, ALL_OK, "All OK")


def test_what_is_wrong_is_told_with_its_place_and_status_200(app: FhirApp) -> None:
    answer = judge(app, "Patient/$validate", person(gender="M", birthDate="1.1.1970", colour="blue"))
    assert answer.status == 200
    assert {i["expression"][0] for i in answer.resource["issue"]} == {"Patient.gender", "Patient.birthDate", "Patient.colour"}
    assert {s for s, _ in answer.issues} == {"error"}


def test_a_best_practice_is_a_warning(app: FhirApp) -> None:
    assert judge(app, "Patient/$validate", patient()).issues == [("warning", "invariant")]


def test_the_rules_of_the_house_speak_when_it_is_said_what_is_meant(app: FhirApp) -> None:
    smith = person(name=[{"family": "Smith"}])
    assert judge(app, "Patient/$validate", asked(smith)).issues == ALL_OK
    for mode in ("create", "update"):
        answer = judge(app, "Patient/$validate", asked(smith | {"id": "x"}, mode))
        assert (answer.status, answer.issues) == (200, [("error", "business-rule")])
        assert answer.resource["issue"][0]["expression"] == ["Patient.name[0].family"]
    assert judge(app, "Patient/$validate?mode=create", smith).issues == [("error", "business-rule")]


def test_what_would_follow_is_judged_too(app: FhirApp) -> None:
    answer = judge(app, "Patient/$validate", asked(person(gender="male"), "create"))
    assert (answer.issues, answer.text) == ([("error", "business-rule")], "what follows is refused")


def test_references_must_lead_somewhere(app: FhirApp) -> None:
    lost = person(managingOrganization={"reference": "Organization/nowhere"})
    assert judge(app, "Patient/$validate", asked(lost)).issues == ALL_OK
    assert judge(app, "Patient/$validate", asked(lost, "create")).issues == [("error", "value")]


def test_a_deletion_is_judged_by_what_refers_to_it(app: FhirApp) -> None:
    held, free = unused("held"), unused("free")
    for id_ in (held, free):
        app.put({"resourceType": "Organization", "id": id_, "name": "x"})
    app.create(patient(managingOrganization={"reference": f"Organization/{held}"}))
    assert judge(app, f"Organization/{held}/$validate", asked(mode="delete")).issues == [("error", "conflict")]
    assert judge(app, f"Organization/{free}/$validate?mode=delete").issues == ALL_OK
    assert app.get(f"Organization/{free}").status_code == 200
    assert judge(app, "Organization/nowhere/$validate?mode=delete").issues == [("error", "not-found")]


def test_what_is_stored_is_judged_where_it_is(app: FhirApp) -> None:
    stored = app.create(patient())
    assert operate(app, "GET", f"Patient/{stored['id']}/$validate").issues == [("warning", "invariant")]
    assert operate(app, "GET", "Patient/nobody/$validate").status == 404


# Profiles


def structure(url: str, *elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "StructureDefinition",
        "id": unused("sd"),
        "url": url,
        "name": "Example",
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": f"{BASE}Patient",
        "derivation": "constraint",
        "differential": {"element": [{"id": e["path"], **e} for e in ({"path": "Patient"}, *elements)]},
        **more,
    }


def put(app: FhirApp, *resources: dict[str, Any]) -> None:
    for resource in resources:
        answer = app.put(resource)
        assert answer.status_code == 201, answer.text


def test_a_loaded_profile_is_applied_when_it_is_named_or_claimed(app: FhirApp) -> None:
    url = f"urn:x:{unused('profile')}"
    put(app, structure(url, {"path": "Patient.birthDate", "min": 1}))
    for body in (asked(person(), profile=url), person(meta={"profile": [url]})):
        assert judge(app, "Patient/$validate", body).issues == [("error", "required")]
    assert judge(app, f"Patient/$validate?profile={url}", person()).issues == [("error", "required")]
    assert judge(app, "Patient/$validate", asked(person(birthDate="1970-01-01"), profile=url)).issues == ALL_OK


def test_a_stored_resource_is_checked_against_a_profile(app: FhirApp) -> None:
    url = f"urn:x:{unused('profile')}"
    put(app, structure(url, {"path": "Patient.birthDate", "min": 1}))
    stored = app.create(person())
    assert judge(app, f"Patient/{stored['id']}/$validate", asked(mode="profile", profile=url)).issues == [("error", "required")]
    assert operate(app, "GET", f"Patient/{stored['id']}/$validate?profile={url}").issues == [("error", "required")]


def test_what_a_profile_builds_on_is_found_too(app: FhirApp) -> None:
    name = unused("deep")
    parent, child = f"urn:x:{name}:parent", f"urn:x:{name}:child"
    values, system = f"urn:x:{name}:values", f"urn:x:{name}:codes"
    put(
        app,
        structure(parent, {"path": "Patient.maritalStatus", "binding": {"strength": "required", "valueSet": f"{values}|1"}}),
        structure(child, {"path": "Patient.birthDate", "min": 1}, baseDefinition=parent),
        {
            "resourceType": "ValueSet",
            "id": unused("vs"),
            "url": values,
            "status": "active",
            "compose": {"include": [{"system": system}]},
        },
        {
            "resourceType": "CodeSystem",
            "id": unused("cs"),
            "url": system,
            "status": "active",
            "content": "complete",
            "concept": [{"code": "known"}],
        },
    )
    coded = {c: {"coding": [{"system": system, "code": c}]} for c in ("known", "unknown")}
    good = person(birthDate="1970-01-01", maritalStatus=coded["known"])
    assert judge(app, "Patient/$validate", asked(good, profile=child)).issues == ALL_OK
    bad = person(maritalStatus=coded["unknown"])
    assert judge(app, "Patient/$validate", asked(bad, profile=child)).issues == [("error", "required"), ("error", "code-invalid")]


def test_a_version_is_named_or_the_latest_active_one_taken(app: FhirApp) -> None:
    url = f"urn:x:{unused('profile')}"
    put(
        app,
        structure(url, {"path": "Patient.birthDate", "min": 1}, version="1.9.0"),
        structure(url, {"path": "Patient.gender", "min": 1}, version="1.10.0"),
        structure(url, {"path": "Patient.name", "min": 1}, version="2.0.0", status="draft"),
    )
    wanted = {url: "gender", f"{url}|1.9.0": "birthDate", f"{url}|2.0.0": "name"}
    for canonical, element in wanted.items():
        (issue,) = judge(app, "Patient/$validate", asked(person(), profile=canonical)).resource["issue"]
        assert issue["expression"] == [f"Patient.{element}"]


def test_a_profile_that_is_not_loaded_makes_no_judgement(app: FhirApp) -> None:
    answer = judge(app, "Patient/$validate", asked(person(), profile="urn:x:unknown"))
    assert (answer.status, answer.issues) == (422, [("error", "not-found")])
    claimed = judge(app, "Patient/$validate", person(meta={"profile": ["urn:x:unknown"]}))
    assert (claimed.status, claimed.issues) == (200, [("information", "not-supported")])


def test_r4s_own_definitions_are_profiles_too(app: FhirApp) -> None:
    assert judge(app, "Patient/$validate", asked(person(), profile=f"{BASE}Patient")).issues == ALL_OK
    assert judge(app, "Patient/$validate", asked(person(), profile=f"{BASE}Group")).issues == [("error", "structure")]


# Calls that are wrong


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("Patient/$validate", None),
        ("Patient/$validate", {"resourceType": "Observation"}),
        ("Patient/$validate", asked()),
        ("Patient/$validate", asked(person(), "destroy")),
        ("Patient/$validate", asked(mode="delete")),
        ("Patient/x/$validate", asked(mode="update")),
        ("Patient/x/$validate", asked(person(), "delete")),
        ("Patient/x/$validate", asked(mode="profile")),
        ("Patient/$validate", asked(person(), "profile", "urn:x")),
        ("Patient/$validate?colour=blue", person()),
        ("Patient/$validate?resource=x", None),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": [{"name": "resource", "valueString": "x"}]}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": ["x"]}),
        ("Patient/$validate", {"resourceType": "Parameters", "parameter": [{"name": "colour"}]}),
    ],
)
def test_a_call_that_asks_nothing_sensible_is_refused(app: FhirApp, path: str, body: Any) -> None:
    assert judge(app, path, body).status == 400


def test_a_parameters_resource_can_be_judged_itself(app: FhirApp) -> None:
    sent = {"resourceType": "Parameters", "parameter": [{"name": "x", "valueString": "y"}]}
    assert judge(app, "Parameters/$validate", sent).issues == ALL_OK
    assert judge(app, "Parameters/$validate", asked(sent)).issues == ALL_OK


def test_it_takes_the_rights_of_what_is_meant(app: FhirApp) -> None:
    readers = "system/Patient.rs"
    assert judge(app, "Patient/$validate", asked(person()), scope=readers).status == 200
    assert judge(app, "Patient/$validate", asked(person(), "create"), scope=readers).status == 403
    assert judge(app, "Patient/$validate", asked(person(id="x"), "update"), scope="system/Patient.u").status == 403
    assert judge(app, "Patient/x/$validate?mode=delete", scope=readers).status == 403
    assert judge(app, "Observation/$validate", {"resourceType": "Observation"}, scope=readers).status == 403


def test_it_is_on_record_and_nothing_is_as_if_it_had_happened(app: FhirApp) -> None:
    before = len(app.audit())
    judge(app, "Patient/$validate", asked(person(id="never"), "update"))
    (event,) = app.audit(before)
    assert event["outcomeDesc"] == "$validate"
    assert "entity" not in event
    assert app.get("Patient/never").status_code == 404
