"""PATCH over HTTP and in Bundles: what a patch makes of a resource is an update like any other."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fhir_app import ALL, JSON, FhirApp, entry, issues, load, patient, post, put, unused

JSON_PATCH = "application/json-patch+json"
Resource = dict[str, Any]


def patched(app: FhirApp, id_: str, *operations: Any, scope: str = ALL, **headers: str) -> httpx.Response:
    return app.send("PATCH", f"Patient/{id_}", json.dumps(operations).encode(), scope=scope, Content_Type=JSON_PATCH, **headers)


def fhirpath(kind: str, path: str, **parts: Any) -> Resource:
    """A FHIRPath Patch of one operation."""
    part: list[Resource] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    part += [{"name": name.split("_")[0], f"value{name.split('_')[1]}": value} for name, value in parts.items()]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}]}


def male() -> Resource:
    return {"op": "add", "path": "/gender", "value": "male"}


def test_a_json_patch_makes_a_new_version(app: FhirApp) -> None:
    made = app.create(patient(name=[{"family": "Erfunden"}]))
    answer = patched(app, made["id"], male(), {"op": "replace", "path": "/name/0/family", "value": "Neu"})
    found = load(answer)
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    assert (found["gender"], found["name"]) == ("male", [{"family": "Neu"}])
    assert load(app.get(f"Patient/{made['id']}")) == found
    assert load(app.get(f"Patient/{made['id']}/_history/1")) == made
    assert app.ids(f"Patient?_id={made['id']}&gender=male") == [made["id"]]
    event = app.audit()[-1]
    assert load(app.get(f"Patient/{made['id']}/_history"))["entry"][0]["request"]["method"] == "PUT"
    assert any(e["subtype"][0]["code"] == "patch" for e in (event, *app.audit()))


def test_a_fhirpath_patch_makes_a_new_version(app: FhirApp) -> None:
    made = app.create(patient())
    body = fhirpath("add", "Patient", name_String="birthDate", value_Date="2001-02-03")
    answer = app.send("PATCH", f"Patient/{made['id']}", body)
    assert (answer.status_code, load(answer)["birthDate"]) == (200, "2001-02-03")


def test_a_patch_that_changes_nothing_makes_no_version(app: FhirApp) -> None:
    made = app.create(patient(gender="male"))
    assert load(patched(app, made["id"], male()))["meta"]["versionId"] == "1"
    assert load(patched(app, made["id"]))["meta"]["versionId"] == "1"


def test_decimals_that_a_patch_brings_keep_their_digits(app: FhirApp) -> None:
    made = app.create(patient())
    body = b'[{"op":"add","path":"/extension","value":[{"url":"http://example.org/x","valueDecimal":1.50}]}]'
    assert b'"valueDecimal":1.50' in app.send("PATCH", f"Patient/{made['id']}", body, Content_Type=JSON_PATCH).content


def test_what_a_patch_makes_is_validated_and_judged_by_the_rules(app: FhirApp) -> None:
    made = app.create(patient())
    assert patched(app, made["id"], male() | {"value": "nonsense"}).status_code == 422
    assert patched(app, made["id"], {"op": "add", "path": "/nonsense", "value": 1}).status_code == 400
    assert (
        patched(
            app, made["id"], {"op": "add", "path": "/managingOrganization", "value": {"reference": "Organization/nobody"}}
        ).status_code
        == 422
    )
    for path, value in (("/id", "other"), ("/resourceType", "Person")):
        assert patched(app, made["id"], {"op": "replace", "path": path, "value": value}).status_code == 422
    order = app.create(
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": {"text": "CT"},
            "subject": {"reference": f"Patient/{made['id']}"},
        }
    )
    done = [{"op": "replace", "path": "/status", "value": "completed"}, {"op": "replace", "path": "/status", "value": "draft"}]
    bodies = [json.dumps([operation]).encode() for operation in done]
    path = f"ServiceRequest/{order['id']}"
    answers = [app.send("PATCH", path, body, Content_Type=JSON_PATCH).status_code for body in bodies]
    assert answers[1] == 422  # what is completed can't be a draft again: the same rule as for a PUT
    assert load(app.get(f"Patient/{made['id']}")) == made


def test_a_patch_that_does_not_apply_is_refused_and_leaves_all_as_it_was(app: FhirApp) -> None:
    made = app.create(patient(gender="female"))
    refused: list[list[Any]] = [
        [{"op": "test", "path": "/gender", "value": "male"}],
        [male(), {"op": "remove", "path": "/birthDate"}],
        [{"op": "nonsense", "path": "/gender"}],
        [5],
    ]
    for operations in refused:
        answer = patched(app, made["id"], *operations)
        assert 400 <= answer.status_code < 500
        issues(answer)
    assert app.send("PATCH", f"Patient/{made['id']}", b"{}", Content_Type=JSON_PATCH).status_code == 400
    assert app.send("PATCH", f"Patient/{made['id']}", patient(id=made["id"])).status_code == 400
    assert load(app.get(f"Patient/{made['id']}")) == made


def test_a_patch_of_what_is_not_there_is_not_found_and_of_what_was_deleted_gone(app: FhirApp) -> None:
    assert patched(app, "nobody", male()).status_code == 404
    made = app.create(patient())
    app.send("DELETE", f"Patient/{made['id']}")
    assert patched(app, made["id"], male()).status_code == 410
    patch = entry("PATCH", f"Patient/{made['id']}", binary([male()]))
    assert app.bundle("transaction", patch).status_code == 410
    # Who may not read, or not this one, is told no more than of one that never was.
    assert patched(app, made["id"], male(), scope="system/Patient.u").status_code == 404
    assert patched(app, made["id"], male(), scope="system/Patient.ru?gender=male").status_code == 404


@pytest.mark.parametrize(
    "kind", ["application/json", "application/xml-patch+xml", "application/merge-patch+json", "text/plain", ""]
)
def test_other_kinds_of_patch_are_refused_with_those_that_are_taken(app: FhirApp, kind: str) -> None:
    made = app.create(patient())
    answer = app.send("PATCH", f"Patient/{made['id']}", b"[]", Content_Type=kind)
    assert (answer.status_code, answer.headers["accept-patch"]) == (415, f"{JSON_PATCH}, {JSON}")


def test_prefer_and_parameters_are_minded(app: FhirApp) -> None:
    made = app.create(patient())
    minimal = patched(app, made["id"], male(), Prefer="return=minimal")
    assert (minimal.status_code, minimal.content, minimal.headers["etag"]) == (200, b"", 'W/"2"')
    said = patched(app, made["id"], male(), Prefer="return=OperationOutcome")
    assert load(said)["resourceType"] == "OperationOutcome"
    assert app.send("PATCH", f"Patient/{made['id']}?x=y", b"[]", Content_Type=JSON_PATCH).status_code == 400


def test_who_may_change_but_not_read_is_not_shown_what_was_there(app: FhirApp) -> None:
    made = app.create(patient(birthDate="2001"))
    answer = patched(app, made["id"], male(), scope="system/Patient.u")
    assert (answer.status_code, answer.content) == (200, b"")
    assert patched(app, made["id"], male(), scope="system/Patient.r").status_code == 403
    body = {"resourceType": "Binary", "contentType": JSON_PATCH, "data": base64.b64encode(b"[]").decode()}
    for kind in ("transaction", "batch"):
        (only,) = load(app.bundle(kind, entry("PATCH", f"Patient/{made['id']}", body), scope="system/Patient.u"))["entry"]
        assert only["response"]["status"] == "200"
        assert "resource" not in only


def test_if_match_lets_one_patch_win(app: FhirApp) -> None:
    made = app.create(patient())
    with ThreadPoolExecutor(10) as threads:
        answers = list(
            threads.map(
                lambda n: patched(app, made["id"], male() | {"path": "/birthDate", "value": f"19{n + 10}"}, If_Match='W/"1"'),
                range(10),
            )
        )
    assert sorted(a.status_code for a in answers) == [200] + [412] * 9


def test_parallel_patches_are_all_there_in_the_end(app: FhirApp) -> None:
    """Each adds its own; none may be lost, though nobody says If-Match."""
    made = app.create(patient(identifier=[{"value": "first"}]))

    def add(n: int) -> int:
        return patched(app, made["id"], {"op": "add", "path": "/identifier/-", "value": {"value": str(n)}}).status_code

    with ThreadPoolExecutor(12) as threads:
        codes = list(threads.map(add, range(24)))
    assert set(codes) <= {200, 409}
    values = {i["value"] for i in load(app.get(f"Patient/{made['id']}"))["identifier"]}
    assert values == {"first"} | {str(n) for n, code in enumerate(codes) if code == 200}
    assert codes.count(200) >= 20


def binary(operations: Any, **elements: str) -> Resource:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"resourceType": "Binary", "contentType": JSON_PATCH, "data": data} | elements


@pytest.mark.parametrize("kind", ["transaction", "batch"])
def test_patches_in_bundles(app: FhirApp, kind: str) -> None:
    a, b, c = (app.create(patient())["id"] for _ in range(3))
    answer = app.bundle(
        kind,
        entry("PATCH", f"Patient/{a}", binary([male()])),
        entry("PATCH", f"Patient/{b}", fhirpath("add", "Patient", name_String="active", value_Boolean=True), ifMatch='W/"1"'),
        put(patient(id=c, birthDate="2000")),
    )
    got = load(answer)["entry"]
    assert [e["response"]["status"] for e in got] == ["200"] * 3
    assert (got[0]["resource"]["gender"], got[1]["resource"]["active"]) == ("male", True)
    assert [e["response"]["etag"] for e in got] == ['W/"2"'] * 3


URN = "urn:uuid:22222222-2222-4222-8222-222222222222"


@pytest.mark.parametrize(
    "patch",
    [
        binary([{"op": "replace", "path": "/managingOrganization/reference", "value": URN}]),
        binary([{"op": "add", "path": "/managingOrganization", "value": {"reference": URN}}]),
        fhirpath("replace", "Patient.managingOrganization.reference", value_String=URN),
        fhirpath("replace", "Patient.managingOrganization", value_Reference={"reference": URN}),
    ],
)
def test_a_patch_in_a_transaction_may_refer_to_what_another_entry_makes(app: FhirApp, patch: Resource) -> None:
    other = app.create({"resourceType": "Organization", "name": "before"})
    made = app.create(patient(managingOrganization={"reference": f"Organization/{other['id']}"}))
    change = entry("PATCH", f"Patient/{made['id']}", patch)
    answer = app.bundle("transaction", post({"resourceType": "Organization", "name": "x"}, URN), change)
    organization, patched_ = (e["resource"] for e in load(answer)["entry"])
    assert patched_["managingOrganization"] == {"reference": f"Organization/{organization['id']}"}
    refused = app.bundle("transaction", change)
    assert refused.status_code == 422
    assert load(app.get(f"Patient/{made['id']}")) == patched_


def test_a_patch_leaves_alone_what_led_nowhere_before(app: FhirApp) -> None:
    made = app.create(patient(managingOrganization={"reference": URN}))
    change = entry("PATCH", f"Patient/{made['id']}", binary([male()]))
    answer = app.bundle("transaction", post({"resourceType": "Organization", "name": "x"}, URN), change)
    assert load(answer)["entry"][1]["resource"]["managingOrganization"] == {"reference": URN}


def test_our_own_address_in_a_patch_means_what_is_here(app: FhirApp) -> None:
    other = app.create({"resourceType": "Organization", "name": "x"})
    made = app.create(patient())

    def change(id_: str) -> Resource:
        return {"op": "add", "path": "/managingOrganization", "value": {"reference": f"{app.base_url}/fhir/Organization/{id_}"}}

    answer = patched(app, made["id"], change(other["id"]))
    assert load(answer)["managingOrganization"] == {"reference": f"Organization/{other['id']}"}
    assert patched(app, made["id"], change("none")).status_code == 422


def test_a_bad_patch_refuses_the_transaction_with_its_place(app: FhirApp) -> None:
    a, b = (app.create(patient())["id"] for _ in range(2))
    bad: list[tuple[Resource, dict[str, str], int, str]] = [
        (binary([male()]), {"ifMatch": 'W/"7"'}, 412, "Bundle.entry[1].resource"),
        (binary([male()], contentType="text/plain"), {}, 400, "Bundle.entry[1].resource.contentType"),
        (binary([male()], data="%%"), {}, 400, "Bundle.entry[1].resource.data"),
        (binary([male() | {"value": "x"}]), {}, 422, "Bundle.entry[1].resource.gender"),
        (binary({"op": "add"}), {}, 400, "Bundle.entry[1].resource"),
    ]
    for patch, request, status, expression in bad:
        answer = app.bundle("transaction", put(patient(id=a, gender="other")), entry("PATCH", f"Patient/{b}", patch, **request))
        assert (answer.status_code, issues(answer)[0][1]) == (status, expression), answer.text
    assert app.bundle("transaction", entry("PATCH", f"Patient/{unused('no-')}", binary([male()]))).status_code == 404
    assert load(app.get(f"Patient/{a}"))["meta"]["versionId"] == "1"


def test_links_in_a_fhirpath_patch_lead_to_what_the_transaction_makes(app: FhirApp) -> None:
    a = app.create(patient())["id"]
    organization = {"resourceType": "Organization", "name": "x"}
    patch = fhirpath("add", "Patient", name_String="managingOrganization", value_Reference={"reference": "urn:uuid:1"})
    answer = app.bundle(
        "transaction", entry("PATCH", f"Patient/{a}", patch), entry("POST", "Organization", organization, "urn:uuid:1")
    )
    got = [e["resource"] for e in load(answer)["entry"]]
    assert got[0]["managingOrganization"]["reference"] == f"Organization/{got[1]['id']}"
