"""What a review found in the rights and the trail, and must not come back."""

import json
from typing import Any

import pytest

from fhir_server.audit_chain import CHAINS
from fhir_server.registry import Resource
from tests.fhir_app import unused
from tests.smart_world import Caller, World, label, order, ref, report, resource

IMAGING = [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}]
REASON = "unconscious in the emergency room"
PATCH = "application/json-patch+json"


def patched(caller: Caller, path: str, *operations: dict[str, Any]) -> Any:
    return caller.send("PATCH", path, json.dumps(operations).encode(), Content_Type=PATCH)


def test_a_reference_that_was_there_can_t_move_to_where_it_makes_the_resource_another_patients(world: World) -> None:
    mine = world.patient("patient/*.cruds")
    found = mine.get("Observation/oa-focus").json()
    assert ref("Patient/b") in found["focus"]
    moved = {**found, "subject": ref("Patient/b"), "performer": [ref("Patient/a")]}
    assert mine.put(moved).status_code in {403, 422}
    assert world.patient("patient/*.rs", "b").get("Observation/oa-focus").status_code == 404
    assert mine.put({**found, "note": [{"text": "as it was"}]}).status_code == 200


def test_what_is_made_of_a_labelled_order_is_labelled_too(world: World) -> None:
    root, scheduler = world.caller("system/*.cruds"), world.person("scheduler")
    id_ = unused("secret")
    made = order(id_, "a", "other", category=IMAGING, meta=label("V"))
    assert root.put(made).status_code == 201
    derived = root.found(f"ServiceRequest?based-on=ServiceRequest/{id_}")
    assert derived
    assert scheduler.get(f"ServiceRequest/{id_}").status_code == 404
    assert scheduler.found(f"ServiceRequest?based-on=ServiceRequest/{id_}") == []
    for procedure in derived:
        assert root.found(f"Task?based-on={procedure}")
        assert scheduler.found(f"Task?based-on={procedure}") == []
        assert world.person("technologist").found(f"ImagingStudy?basedon={procedure}") == []


def test_a_label_that_is_put_on_later_reaches_what_was_made(world: World) -> None:
    root, scheduler = world.caller("system/*.cruds"), world.person("scheduler")
    id_ = unused("later")
    assert root.put(order(id_, "a", "other", category=IMAGING)).status_code == 201
    [procedure] = scheduler.found(f"ServiceRequest?based-on=ServiceRequest/{id_}")
    current = root.get(f"ServiceRequest/{id_}").json()
    answer = root.put({**current, "meta": label("V")})
    assert answer.status_code == 200, answer.text
    assert scheduler.get(procedure).status_code == 404
    assert scheduler.found(f"Task?based-on={procedure}") == []


@pytest.fixture
def opened(world: World) -> tuple[Caller, str]:
    """A radiologist who has broken the glass of a patient whose record is very restricted, with a report."""
    id_ = unused("vip")
    world.app.put(resource("Patient", id_, meta=label("V")))
    world.app.put(report(f"r-{id_}", id_, meta=label("V")))
    caller = world.person("radiologist", grant=unused("grant"))
    sent = {"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": REASON}]}
    assert caller.send("POST", f"Patient/{id_}/$break-glass", sent).status_code == 200
    return caller, id_


def test_an_emergency_is_none_for_taking_labels_off_or_deleting(world: World, opened: tuple[Caller, str]) -> None:
    caller, id_ = opened
    path = f"DiagnosticReport/r-{id_}"
    found = caller.get(path)
    assert found.status_code == 200
    meta = {"name": "meta", "valueMeta": label("V")}
    answer = caller.send("POST", f"{path}/$meta-delete", {"resourceType": "Parameters", "parameter": [meta]})
    assert answer.status_code == 403
    bare: Resource = {k: v for k, v in found.json().items() if k != "meta"}
    assert caller.put(bare).status_code == 403
    caller.send("DELETE", path)
    assert world.caller("system/*.cruds").get(path).json()["meta"]["security"] == label("V")["security"]


def test_breaking_the_glass_is_on_record_in_the_chain(world: World, opened: tuple[Caller, str]) -> None:
    async def event() -> Any:
        return await world.app.db["AuditEvent"].find_one({"resource.subtype.code": "110127"}, sort=[("_id", -1)])

    stored = world.app.run(event())
    assert REASON in stored["resource"]["outcomeDesc"]
    assert stored["chain"]["of"] > 0
    assert world.app.run(world.app.db[CHAINS].count_documents({"_id": stored["chain"]["of"]})) == 1


def test_a_patch_tells_nothing_to_who_may_not_read(world: World) -> None:
    blind = world.patient("patient/Observation.u")
    answers = [
        patched(
            blind,
            "Observation/oa",
            {"op": "test", "path": "/valueQuantity/value", "value": value},
            {"op": "replace", "path": "/status", "value": "nonsense"},
        )
        for value in (6, 7)
    ]
    assert [a.status_code for a in answers] == [422, 422]
    assert answers[0].json() == answers[1].json()


def test_refused_conditions_and_patches_are_on_record(world: World) -> None:
    caller = world.person("radiologist")
    before = len(world.app.audit())
    assert patched(caller, "Observation?code=nothing-like-it", {"op": "remove", "path": "/note"}).status_code == 404
    assert patched(caller, "Observation/oa", {"op": "test", "path": "/status", "value": "unheard-of"}).status_code == 422
    refused = [e for e in world.app.audit(before) if e["outcome"] == "4"]
    assert [e["subtype"][0]["code"] for e in refused] == ["patch", "patch"]
    assert "query" in refused[0]["entity"][-1]


def test_a_machine_without_the_right_to_read_learns_no_names_of_what_refers(world: World) -> None:
    answer = world.caller("system/Observation.crud").send("DELETE", "Observation/oa")
    assert answer.status_code in {204, 409}
    if answer.status_code == 409:
        assert "DiagnosticReport/" not in answer.text


def test_breaking_the_glass_of_nobody_is_on_record(world: World) -> None:
    before = len(world.app.audit())
    rows = [{"name": "reason", "valueString": REASON}, {"name": "identifier", "valueString": "urn:example:mrn|MRN-none"}]
    caller = world.person("radiologist", grant=unused("grant"))
    assert caller.send("POST", "Patient/$break-glass", {"resourceType": "Parameters", "parameter": rows}).status_code == 404
    assert any(e["subtype"][0]["code"] == "110127" and e["outcome"] == "4" for e in world.app.audit(before))


def test_a_page_link_that_is_followed_in_a_transaction_tells_nothing_of_its_search(world: World) -> None:
    root = world.caller("system/*.cruds")
    found = root.get("Patient?_count=1&_id:not=somebody-in-particular").json()
    link = next(one["url"] for one in found["link"] if one["relation"] == "next").partition("/fhir/")[2]
    answer = root.bundle("transaction", {"request": {"method": "GET", "url": link}})
    assert answer.status_code == 200
    page = answer.json()["entry"][0]["resource"]
    assert page["entry"]
    assert "somebody-in-particular" not in json.dumps(page["link"])
