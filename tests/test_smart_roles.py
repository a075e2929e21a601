"""Roles: what each may do, whatever its scopes say."""

import pytest

from smart_auth.filters import of_query
from smart_auth.roles import ROLES
from tests.fhir_app import Resource, unused
from tests.smart_world import ABSENT, Caller, World, label, observation, order, ref, report, resource

ACTIONS = ("c", "r", "u", "d", "s")


def new(made: Resource) -> Resource:
    return {name: value for name, value in made.items() if name != "id"}


def status(caller: Caller, method: str, path: str, body: Resource | None = None) -> int:
    return caller.send(method, path, body).status_code


def test_the_roles_are_those_of_the_contract_and_the_privacy_officer() -> None:
    assert set(ROLES) == {
        "scheduler", "technologist", "radiologist", "referrer", "interface-admin", "admin", "auditor", "privacy-officer",
    }  # fmt: skip


@pytest.mark.parametrize("name", ROLES)
def test_each_row_of_the_table_can_be_enforced(name: str) -> None:
    for row in ROLES[name].rows:
        assert row.resource_type != "*"
        assert of_query(row.resource_type, row.query) is not None, row.text


@pytest.mark.parametrize("name", ROLES)
def test_a_type_that_is_not_in_the_roles_table_is_refused(world: World, name: str) -> None:
    caller, known = world.person(name), ROLES[name]
    for kind in ("Patient", "DiagnosticReport", "Observation", "AuditEvent", "Endpoint", "Consent", "Bundle", "Subscription"):
        assert (status(caller, "GET", kind) == 200) is bool(known.covering(kind, "s")), kind
        assert (status(caller, "GET", f"{kind}/{ABSENT}") == 404) is bool(known.covering(kind, "r")), kind
        assert (status(caller, "DELETE", f"{kind}/{ABSENT}") == 204) is bool(known.covering(kind, "d")), kind


def test_the_smaller_of_role_and_scope_wins(world: World) -> None:
    narrow = world.person("radiologist", "user/Observation.rs?category=laboratory user/DiagnosticReport.s")
    assert narrow.get("Observation/oa").status_code == 200
    assert narrow.get("Observation/oa-vital").status_code == 404
    assert narrow.get("DiagnosticReport").status_code == 200
    assert narrow.get("DiagnosticReport/dra").status_code == 403
    assert narrow.get("Patient").status_code == 403
    assert world.person("scheduler", "user/*.*").get("DiagnosticReport/dra").status_code == 403


def test_a_scheduler_books_and_reads_no_report(world: World) -> None:
    caller = world.person("scheduler")
    assert caller.get("ServiceRequest/sra").status_code == 200
    assert caller.post({"resourceType": "Slot", "schedule": ref("Schedule/x"), "status": "free"}).status_code in {400, 422}
    for kind in ("DiagnosticReport", "Observation", "Media", "DocumentReference", "Binary"):
        assert caller.get(kind).status_code == 403
    assert caller.get("ServiceRequest?_has:DiagnosticReport:based-on:status=final").status_code == 403
    assert caller.get("Patient?_has:Observation:patient:code=x").status_code == 403
    assert not [r for r in caller.found("Patient?_revinclude=DiagnosticReport:subject") if r.startswith("Diag")]
    assert not [r for r in caller.found("Patient/a/$everything") if r.startswith(("Diag", "Observ"))]
    appointment = {
        "resourceType": "Appointment", "status": "proposed", "participant": [{"actor": ref("Patient/a"), "status": "accepted"}],
    }  # fmt: skip
    assert caller.post(appointment).status_code == 201


def test_a_technologist_can_not_sign_a_report(world: World) -> None:
    caller = world.person("technologist")
    assert caller.get("DiagnosticReport/dra").status_code == 200
    for signed in ("final", "amended", "corrected", "appended"):
        assert caller.post(new(report("x", "a", signed))).status_code == 403
    made = caller.post(new(report("x", "a", "preliminary")))
    assert made.status_code == 201
    draft = made.json()
    assert caller.put(draft | {"conclusion": "More."}).status_code == 200
    for signed in ("final", "amended", "corrected"):
        assert caller.put(draft | {"status": signed}).status_code == 403
    patch = [{"op": "replace", "path": "/status", "value": "final"}]
    answer = caller.send("PATCH", f"DiagnosticReport/{draft['id']}", patch, Content_Type="application/json-patch+json")
    assert answer.status_code == 403
    assert world.app.get(f"DiagnosticReport/{draft['id']}").json()["status"] == "preliminary"
    # Nor change one that is signed, in any way.
    assert caller.put(world.app.get("DiagnosticReport/dra").json() | {"status": "cancelled"}).status_code == 404
    answer = caller.send("PATCH", "DiagnosticReport/dra", patch, Content_Type="application/json-patch+json")
    assert answer.status_code == 404
    assert caller.send("DELETE", "DiagnosticReport/dra").status_code == 403
    assert world.person("radiologist").put(draft | {"status": "final"}).status_code == 200


def test_a_referrer_sees_the_orders_and_results_of_own_patients(world: World) -> None:
    caller = world.person("referrer")
    assert caller.found("Patient") == ["Patient/a"]
    assert "DiagnosticReport/dra" in caller.found("DiagnosticReport")
    for hidden in (
        "Patient/b",
        "DiagnosticReport/drb",
        "Observation/ob",
        "ServiceRequest/srb",
        "Device/implant-b",
        "Binary/binb",
    ):
        assert caller.get(hidden).status_code == 404
    assert caller.get("Device/plain").status_code == 200
    assert caller.post(new(order("x", "a", "ref"))).status_code == 201
    assert caller.post(new(order("x", "b", "ref"))).status_code == 403
    assert caller.post(new(observation("x", "a"))).status_code == 403


def test_a_referrer_is_one_by_order_by_role_and_as_general_practitioner(world: World) -> None:
    world.app.put(
        resource("PractitionerRole", "ref-role", practitioner=ref("Practitioner/ref"), organization=ref("Organization/org"))
    )
    own = [unused("own") for _ in range(3)]
    world.app.put(resource("Patient", own[0], generalPractitioner=[ref("Practitioner/ref")]))
    world.app.put(resource("Patient", own[1]))
    world.app.put(order(unused("by-role"), own[1], "ref") | {"requester": ref("PractitionerRole/ref-role")})
    world.app.put(resource("Patient", own[2], generalPractitioner=[ref("Practitioner/other")]))
    caller = world.person("referrer")
    assert {f"Patient/{i}" for i in own[:2]} <= set(caller.found("Patient"))
    assert caller.get(f"Patient/{own[2]}").status_code == 404


def test_without_any_patient_a_referrer_sees_none(world: World) -> None:
    caller = world.person("referrer", user="Practitioner/nobody-refers", user_name="example-none")
    assert caller.found("Patient") == []
    assert caller.total("DiagnosticReport?_summary=count") == 0


def test_an_interface_admin_manages_partners_and_reads_no_patient(world: World) -> None:
    caller = world.person("interface-admin")
    endpoint = {
        "resourceType": "Endpoint", "status": "off", "address": "mllp://192.0.2.1:2575", "payloadType": [{"text": "ORU"}],
        "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7v2-mllp"},
    }  # fmt: skip
    made = caller.post(endpoint)
    assert made.status_code == 201
    assert caller.put(made.json() | {"name": "renamed"}).status_code == 200
    assert caller.send("DELETE", f"Endpoint/{made.json()['id']}").status_code == 204
    for kind in ("Patient", "DiagnosticReport", "Observation", "ServiceRequest", "ImagingStudy", "AuditEvent", "Binary"):
        assert caller.get(kind).status_code == 403


def test_an_admin_keeps_the_department_and_reads_no_results(world: World) -> None:
    caller = world.person("admin")
    made = caller.post({"resourceType": "Location", "name": "Room 1"})
    assert made.status_code == 201
    assert caller.send("DELETE", f"Location/{made.json()['id']}").status_code == 204
    assert caller.get("Patient/a").status_code == 200
    for kind in ("DiagnosticReport", "Observation", "AuditEvent", "Binary"):
        assert caller.get(kind).status_code == 403


def test_an_auditor_reads_the_trail_and_nothing_else(world: World) -> None:
    caller = world.person("auditor")
    assert caller.total("AuditEvent?_summary=count") > 0
    event = caller.get("AuditEvent?_count=1").json()["entry"][0]["resource"]
    assert caller.get(f"AuditEvent/{event['id']}").status_code == 200
    assert caller.send("DELETE", f"AuditEvent/{event['id']}").status_code == 403
    for kind in ("Patient", "DiagnosticReport", "Practitioner", "Organization", "ValueSet"):
        assert caller.get(kind).status_code == 403
    # The trail names patients; it is no way to them.
    assert caller.found("AuditEvent?_include=AuditEvent:patient&_count=1000")
    assert not [r for r in caller.found("AuditEvent?_include=*") if not r.startswith("AuditEvent/")]
    assert caller.get("AuditEvent?patient:Patient.name=Muster").status_code == 403


def test_everybody_of_the_department_may_read_their_own_entry(world: World) -> None:
    for name, whose in (("auditor", "aud"), ("interface-admin", "iface")):
        caller = world.person(name, "user/AuditEvent.rs user/Endpoint.rs")
        assert caller.get(f"Practitioner/{whose}").status_code == 200
        assert caller.get("Practitioner/rad").status_code == 404
        assert caller.get("Practitioner").status_code == 403
        assert caller.put(resource("Practitioner", whose)).status_code == 403
    assert world.person("radiologist", "patient/Patient.rs", patient="a").get("Practitioner/rad").status_code == 200


def test_what_the_rules_do_in_a_persons_wake_is_not_bound_by_the_persons_role(world: World) -> None:
    """A scheduler's order makes a study, a requested procedure and a step, of types that a scheduler can't write."""
    caller = world.person("scheduler")
    category = [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}]
    made = caller.post(new(order("x", "a", "ref", category=category)))
    assert made.status_code == 201
    assert world.app.search(f"ServiceRequest?based-on=ServiceRequest/{made.json()['id']}")["entry"]


def test_nobody_writes_what_they_could_not_see(world: World) -> None:
    caller = world.person("scheduler")
    assert caller.post({"resourceType": "Patient", "meta": label("V")}).status_code == 403
    made = caller.post({"resourceType": "Patient", "name": [{"family": "Neu"}]})
    assert made.status_code == 201
    assert caller.put(made.json() | {"meta": label("R")}).status_code == 403
    # An id of one's own choice would tell which are taken.
    world.app.put(resource("Patient", "taken", meta=label("V")))
    assert [caller.put(resource("Patient", i)).status_code for i in ("taken", ABSENT)] == [404, 404]
