"""Confidentiality labels, and what patients have denied (Consent)."""

from datetime import datetime

import pytest

from smart_auth.denials import denials
from tests.fhir_app import Resource, unused
from tests.smart_world import ABSENT, CONFIDENTIALITY, Caller, World, consent, label, observation, ref, report, resource

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
PSYCHIATRY = {"security": [{"system": ACT, "code": "PSY"}]}
TYPES = "http://hl7.org/fhir/resource-types"


@pytest.fixture
def patient(world: World) -> str:
    """One with a report, an observation about psychiatry, and a Task."""
    id_ = unused("p")
    world.app.put(resource("Patient", id_, name=[{"family": "Beispiel"}]))
    world.app.put(report(f"r-{id_}", id_))
    world.app.put(observation(f"o-{id_}", id_))
    world.app.put(observation(f"psy-{id_}", id_, meta=PSYCHIATRY))
    world.app.put(resource("Task", f"t-{id_}", status="requested", intent="order", **{"for": ref(f"Patient/{id_}")}))
    return id_


def seen(caller: Caller, patient: str) -> set[str]:
    """Which of a patient's resources somebody sees; the same by reading and by searching."""
    kinds = {"Patient": patient, "DiagnosticReport": f"r-{patient}", "Task": f"t-{patient}"}
    wanted = [*kinds.items(), ("Observation", f"o-{patient}"), ("Observation", f"psy-{patient}")]
    read = {id_ for kind, id_ in wanted if caller.get(f"{kind}/{id_}").status_code == 200}
    assert read == {id_ for kind, id_ in wanted if f"{kind}/{id_}" in caller.found(f"{kind}?_id={id_}")}
    return {id_.partition("-")[0] if "-" in id_ else "Patient" for id_ in read}


ALL = {"Patient", "r", "t", "o", "psy"}


def actor(to: str) -> Resource:
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRCP"}]}
    return {"role": role, "reference": ref(to)}


# Labels


@pytest.mark.parametrize(("code", "shown"), [("N", {"s", "t", "r"}), ("R", {"t", "r"}), ("V", set())])
def test_a_label_hides_a_resource_from_those_whose_clearance_is_lower(world: World, code: str, shown: set[str]) -> None:
    id_ = unused("labelled")
    world.app.put(resource("Encounter", id_, meta=label(code), status="finished", subject=ref("Patient/a"),
                           **{"class": {"system": ACT, "code": "AMB"}}))  # fmt: skip
    people = {"s": "scheduler", "t": "technologist", "r": "radiologist"}
    found = {short for short, name in people.items() if world.person(name).get(f"Encounter/{id_}").status_code == 200}
    assert found == shown
    assert {s for s, n in people.items() if f"Encounter/{id_}" in world.person(n).found(f"Encounter?_id={id_}")} == shown
    # Of an app of the patient nobody knows who looks.
    assert (world.patient().get(f"Encounter/{id_}").status_code == 200) is (code == "N")
    # Scopes of machines are not limited by labels.
    assert world.caller("system/Encounter.rs").get(f"Encounter/{id_}").status_code == 200


@pytest.mark.parametrize(("code", "shown"), [("R", {"technologist", "radiologist"}), ("V", set())])
def test_a_label_on_a_patient_is_one_on_the_whole_record(world: World, patient: str, code: str, shown: set[str]) -> None:
    world.app.put(resource("Patient", patient, name=[{"family": "Beispiel"}], meta=label(code)))
    for name in ("scheduler", "technologist", "radiologist"):
        caller = world.person(name)
        assert ("t" in seen_tasks(caller, patient)) is (name in shown)
        assert (caller.get(f"Patient/{patient}").status_code == 200) is (name in shown)
        if name != "scheduler":
            assert seen(caller, patient) == (ALL if name in shown else set())


def seen_tasks(caller: Caller, patient: str) -> set[str]:
    return {"t"} if caller.found(f"Task?_id=t-{patient}") else set()


def test_a_label_is_not_taken_off_by_who_does_not_reach_it(world: World) -> None:
    world.app.put(observation("very", "a", meta=label("V")))
    caller = world.person("radiologist")
    off: Resource = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": label("V")}]}
    for path in ("Observation/very/$meta-delete", f"Observation/{ABSENT}/$meta-delete"):
        assert caller.send("POST", path, off).status_code == 404
    assert caller.put(observation("very", "a")).status_code == 404
    assert world.app.get("Observation/very").json()["meta"]["security"] == label("V")["security"]


def test_a_version_with_a_label_is_hidden_where_the_current_one_is_not(world: World) -> None:
    world.app.put(observation("eased", "a", meta=label("V")))
    world.app.put({**observation("eased", "a", value=8), "meta": {"tag": [{"code": "x"}]}})
    strip: Resource = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": label("V")}]}
    world.app.send("POST", "Observation/eased/$meta-delete", strip)
    caller = world.person("radiologist")
    entries = caller.get("Observation/eased/_history").json()["entry"]
    assert {e["resource"].get("meta", {}).get("security") is None for e in entries} == {True}
    assert caller.get("Observation/eased/_history/1").status_code == 404


# Consent


def test_who_is_denied_sees_nothing_of_the_patient(world: World, patient: str) -> None:
    world.app.put(consent(unused("c"), patient, {"type": "deny", "actor": [actor("Practitioner/rad")]}))
    denied = world.person("radiologist")
    assert seen(denied, patient) == set()
    assert denied.get(f"Patient/{patient}/$everything").status_code == 404
    assert denied.total(f"Observation?subject=Patient/{patient}&_summary=count") == 0
    assert denied.post({k: v for k, v in observation("x", patient).items() if k != "id"}).status_code == 403
    assert seen(world.person("technologist"), patient) == ALL
    assert seen(world.person("radiologist", user="Practitioner/other"), patient) == ALL
    assert world.caller("system/*.rs").get(f"Patient/{patient}").status_code == 200


def test_a_label_is_denied_to_all(world: World, patient: str) -> None:
    world.app.put(consent(unused("c"), patient, {"type": "deny", "securityLabel": [{"system": ACT, "code": "PSY"}]}))
    for name in ("radiologist", "technologist"):
        assert seen(world.person(name), patient) == ALL - {"psy"}
    app = world.patient(patient=patient)
    assert app.get(f"Observation/psy-{patient}").status_code == 404
    assert app.get(f"Observation/o-{patient}").status_code == 200
    # What others have labelled so is not concerned.
    world.app.put(observation("psy-other", "a", meta=PSYCHIATRY))
    assert world.person("radiologist").get("Observation/psy-other").status_code == 200


def test_an_exception_is_one(world: World, patient: str) -> None:
    """Denied to all but one; to that one all but what is labelled."""
    inner = {"type": "deny", "securityLabel": [{"system": ACT, "code": "PSY"}]}
    trusted = {"type": "permit", "actor": [actor("Practitioner/rad")], "provision": [inner]}
    world.app.put(consent(unused("c"), patient, {"type": "deny", "provision": [trusted]}))
    assert seen(world.person("technologist"), patient) == set()
    assert seen(world.person("radiologist"), patient) == ALL - {"psy"}


def test_an_organization_or_a_team_is_denied_with_who_is_in_it(world: World, patient: str) -> None:
    world.app.put(resource("Organization", "outside", name="Elsewhere"))
    who = unused("doctor")
    world.app.put(resource("Practitioner", who))
    practises = {"practitioner": ref(f"Practitioner/{who}"), "organization": ref("Organization/outside")}
    world.app.put(resource("PractitionerRole", unused("role"), **practises))
    world.app.put(resource("CareTeam", "team", participant=[{"member": ref(f"Practitioner/{who}")}]))
    person = {"user": f"Practitioner/{who}", "user_name": who, "grant": who}
    assert seen(world.person("radiologist", **person), patient) == ALL
    for denied in ("Organization/outside", "CareTeam/team"):
        id_ = unused("c")
        world.app.put(consent(id_, patient, {"type": "deny", "actor": [actor(denied)]}))
        assert seen(world.person("radiologist", **person), patient) == set()
        assert seen(world.person("radiologist"), patient) == ALL
        world.app.put(consent(id_, patient, {"type": "deny", "actor": [actor(denied)]}, status="inactive"))
    assert seen(world.person("radiologist", **person), patient) == ALL


def test_a_class_is_denied_by_its_type(world: World, patient: str) -> None:
    world.app.put(consent(unused("c"), patient, {"type": "deny", "class": [{"system": TYPES, "code": "DiagnosticReport"}]}))
    assert seen(world.person("radiologist"), patient) == ALL - {"r"}


@pytest.mark.parametrize(
    ("provision", "options"),
    [
        ({"type": "permit"}, {}),
        ({"type": "deny"}, {"status": "inactive"}),
        ({"type": "deny"}, {"status": "draft"}),
        ({"type": "deny"}, {"scope": "treatment"}),
        ({"type": "deny"}, {"scope": "research"}),
        ({"type": "deny", "period": {"end": "2020-01-01"}}, {}),
        ({"type": "deny", "period": {"start": "2999-01-01"}}, {}),
        ({"type": "deny", "purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HMARKT"}]}, {}),
        ({"type": "deny", "actor": [actor("Practitioner/other")]}, {}),
    ],
)
def test_what_does_not_concern_us_denies_nothing(
    world: World, patient: str, provision: Resource, options: dict[str, str]
) -> None:
    world.app.put(consent(unused("c"), patient, provision, **options))
    assert seen(world.person("radiologist"), patient) == ALL


@pytest.mark.parametrize(
    "condition",
    [
        {"action": [{"text": "x"}]},
        {"data": [{"meaning": "instance", "reference": ref("Observation/x")}]},
        {"dataPeriod": {"end": "2020-01-01"}},
        {"actor": [{"role": {"text": "x"}, "reference": {"display": "somebody"}}]},
        {"class": [{"system": "urn:ietf:bcp:13", "code": "application/pdf"}]},
        {"purpose": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "TREAT"}]},
    ],
)
def test_what_can_not_be_judged_denies_and_never_permits(condition: Resource) -> None:
    now, who = datetime(2026, 1, 1), frozenset({"Practitioner/rad"})  # noqa: DTZ001 - UTC, as MongoDB keeps it
    (denied,) = denials([consent("c", "p", {"type": "deny", **condition})], who, now)
    assert denied.hides("Observation") is True
    excepted = [{"type": "permit", **condition}]
    (denied,) = denials([consent("c", "p", {"type": "deny", "provision": excepted})], who, now)
    assert (denied.hides("Observation") is True) is ("purpose" not in condition)


def test_a_higher_confidentiality_is_denied_with_a_lower_one(world: World, patient: str) -> None:
    world.app.put(observation(f"o-{patient}", patient, meta=label("R")))
    world.app.put(consent(unused("c"), patient, {"type": "deny", "securityLabel": [{"system": CONFIDENTIALITY, "code": "N"}]}))
    assert seen(world.person("radiologist"), patient) == ALL - {"o"}


def test_a_denial_does_not_hide_the_audit_trail_or_the_consent_from_their_keepers(world: World, patient: str) -> None:
    id_ = unused("c")
    world.app.put(consent(id_, patient, {"type": "deny"}))
    assert world.person("privacy-officer").get(f"Consent/{id_}").status_code == 200
    assert world.person("privacy-officer").get(f"Patient/{patient}").status_code == 200
    assert world.person("auditor").total(f"AuditEvent?patient=Patient/{patient}&_summary=count") > 0


def test_a_patient_whose_denial_ends_is_seen_again(world: World, patient: str) -> None:
    id_ = unused("c")
    world.app.put(consent(id_, patient, {"type": "deny"}))
    assert seen(world.person("radiologist"), patient) == set()
    assert world.app.send("DELETE", f"Consent/{id_}").status_code == 204
    assert seen(world.person("radiologist"), patient) == ALL
