"""HTTP around the interactions: conditional reads, preferences, formats, parts of resources, gzip, CORS, OPTIONS."""

import asyncio
import gzip
import json
import zlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fhir_server import cors
from fhir_server.app import assemble, http_app
from fhir_server.database import Document
from fhir_server.settings import Settings
from smart_auth.clients import Clients
from tests.conftest import RunWithDb
from tests.fhir_app import JSON, FhirApp, entry, issues, load, patient, post
from tests.smart_world import World

Resource = dict[str, Any]
FORM = "application/x-www-form-urlencoded"


def observation(subject: str, **elements: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": subject},
        **elements,
    }


# Conditional reads


def test_what_the_caller_has_already_is_not_sent_again(app: FhirApp) -> None:
    made = app.create(patient())
    updated = datetime.fromisoformat(made["meta"]["lastUpdated"])
    for path in (f"Patient/{made['id']}", f"Patient/{made['id']}/_history/1"):
        for headers, status in (
            ({"If_None_Match": 'W/"1"'}, 304),
            ({"If_None_Match": '"1"'}, 304),
            ({"If_None_Match": 'W/"2"'}, 200),
            ({"If_Modified_Since": format_datetime(updated, usegmt=True)}, 304),
            ({"If_Modified_Since": format_datetime(updated - timedelta(seconds=1), usegmt=True)}, 200),
            ({"If_Modified_Since": "yesterday"}, 200),
            ({"If_None_Match": 'W/"2"', "If_Modified_Since": format_datetime(datetime.now(UTC), usegmt=True)}, 200),
            ({"If_None_Match": 'W/"1"', "If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 304),
        ):
            answer = app.get(path, **headers)
            assert answer.status_code == status, headers
            assert (answer.content == b"") is (status == 304)
            assert answer.headers["etag"] == 'W/"1"'
            assert answer.headers["last-modified"] == format_datetime(updated, usegmt=True)
            assert app.send("HEAD", path, **headers).status_code == status


def test_conditional_reads_in_bundles(app: FhirApp) -> None:
    made = app.create(patient())
    path, updated = f"Patient/{made['id']}", made["meta"]["lastUpdated"]
    for kind in ("batch", "transaction"):
        answer = app.bundle(
            kind,
            entry("GET", path, ifNoneMatch='W/"1"'),
            entry("GET", path, ifNoneMatch='W/"2"'),
            entry("GET", path, ifModifiedSince=updated),
            entry("GET", path, ifModifiedSince="2001-01-01T00:00:00Z"),
            entry("HEAD", path),
        )
        got = load(answer)["entry"]
        assert [e["response"]["status"] for e in got] == ["304", "200", "304", "200", "200"]
        assert ["resource" in e for e in got] == [False, True, False, True, False]
        assert got[4]["response"]["etag"] == 'W/"1"'


# Preferences


@pytest.mark.parametrize(
    ("prefer", "kind"),
    [
        ("return=minimal", None),
        ("return=representation", "Patient"),
        ("Return=minimal", None),
        ("return=OperationOutcome", "OperationOutcome"),
        ('handling=strict, return="minimal"', None),
        ("respond-async; return=minimal", None),
        ("return=nonsense", "Patient"),
    ],
)
def test_prefer_return_is_for_every_write(app: FhirApp, prefer: str, kind: str | None) -> None:
    created = app.send("POST", "Patient", patient(), Prefer=prefer)
    id_ = created.headers["location"].split("/")[-3]
    updated = app.put(patient(id=id_, gender="male"), Prefer=prefer)
    for answer in (created, updated):
        assert (load(answer)["resourceType"] if answer.content else None) == kind
        assert answer.headers["etag"]
        assert answer.headers["last-modified"]
        assert answer.headers.get("preference-applied", "").removeprefix("return=") in prefer
    for of_bundle in ("transaction", "batch"):
        body = {"resourceType": "Bundle", "type": of_bundle, "entry": [post(patient()), entry("GET", f"Patient/{id_}")]}
        got = load(app.send("POST", "", body, Prefer=prefer))["entry"]
        assert ("resource" in got[0]) is (kind == "Patient")
        assert ("outcome" in got[0]["response"]) is (kind == "OperationOutcome")
        assert got[1]["resource"]["id"] == id_


def test_parameters_that_an_interaction_does_not_have_are_refused_unless_leniency_is_asked_for(app: FhirApp) -> None:
    made = app.create(patient())
    path = f"Patient/{made['id']}"
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"{path}?name=x", None),
        ("GET", f"{path}/_history/1?name=x", None),
        ("POST", "Patient?identifier=x", patient()),
        ("PUT", f"{path}?identifier=x", made),
        ("DELETE", f"{path}?identifier=x", None),
        ("POST", "?x=y", {"resourceType": "Bundle", "type": "batch"}),
    ]
    for method, address, body in asked:
        answer = app.send(method, address, body)
        assert (answer.status_code, issues(answer)[0][0]) == (400, "invalid"), (method, address)
        assert app.send(method, address, body, Prefer="handling=lenient").status_code < 300, (method, address)
    for harmless in ("_format=json", "_pretty=true", "_format=application/fhir%2Bjson&_pretty=false"):
        assert app.get(f"Patient?_id=x&{harmless}").status_code == 200


def test_leniency_names_what_was_ignored(app: FhirApp) -> None:
    app.create(patient())
    assert app.get("Patient?nonsense=x").status_code == 400
    answer = app.get("Patient?nonsense=x&_count=1", Prefer="handling=lenient")
    found = load(answer)
    assert [e["search"]["mode"] for e in found["entry"]] == ["match", "outcome"]
    assert "nonsense" in json.dumps(found["entry"][1]["resource"])
    assert "nonsense" not in found["link"][0]["url"]


# Formats


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/fhir+json; fhirVersion=4.0", 200),
        ("application/fhir+json; fhirVersion=4.0.1", 200),
        ("application/fhir+json; fhirVersion=3.0", 406),
        ("application/fhir+json; fhirVersion=5.0, application/json", 200),
        ("application/fhir+xml", 406),
        ("application/xml", 406),
    ],
)
def test_the_fhir_version_is_part_of_the_format(app: FhirApp, accept: str, status: int) -> None:
    answer = app.get("Patient?_count=1", Accept=accept)
    assert answer.status_code == status
    if status == 406:
        assert "JSON" in answer.text.upper()


PAGE = b"<script>alert('caf\xe9')</script>"


def binary(app: FhirApp, kind: str, **elements: Any) -> str:
    return f"Binary/{app.create({'resourceType': 'Binary', 'contentType': kind} | elements)['id']}"


@pytest.mark.parametrize("accept", ["text/html", "image/png, text/html;q=0.5", "text/*"])
def test_the_content_of_a_binary_is_had_as_it_is_and_runs_nowhere(app: FhirApp, accept: str) -> None:
    path = binary(app, "text/html", data=b64encode(PAGE).decode())
    for address in (path, f"{path}/_history/1"):
        answer = app.get(address, Accept=accept)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PAGE, "text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("sandbox;")
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["etag"] == 'W/"1"'
    assert app.send("HEAD", path, Accept=accept).headers["content-length"] == str(len(PAGE))
    assert app.get(path, Accept=accept, If_None_Match='W/"1"').status_code == 304


def test_in_fhirs_format_a_binary_is_a_resource(app: FhirApp) -> None:
    path = binary(app, "text/html", data=b64encode(PAGE).decode())
    for accept in (JSON, "application/json", "*/*", "text/html, */*;q=0.1"):
        assert load(app.get(path, Accept=accept))["contentType"] == "text/html"


def test_a_binary_is_not_had_in_what_it_is_not(app: FhirApp) -> None:
    path = binary(app, "text/html", data="AAAA")
    for accept in ("image/png", "application/fhir+xml"):
        answer = app.get(path, Accept=accept)
        assert (answer.status_code, issues(answer)) == (406, [("not-supported", None)])
        assert "offered as text/html, and in application/fhir+json" in answer.text
    assert app.get("Binary", Accept="text/html").status_code == 406
    assert app.get(f"{path}/_history", Accept="text/html").status_code == 406
    assert app.send("DELETE", path, Accept="text/html").status_code == 406


def test_a_content_type_that_is_no_header_is_not_sent_as_one(app: FhirApp) -> None:
    for kind in ("text/html X-Evil: 1", "nonsense", "text/caf\u00e9"):
        made = binary(app, kind, data="AAAA")
        answer = app.get(made, Accept="application/octet-stream")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert app.get(binary(app, "text/plain; charset=iso-8859-1"), Accept="text/plain").content == b""


def test_the_content_of_a_binary_is_for_who_may_read_it(app: FhirApp, world: World) -> None:
    path = binary(app, "text/plain", data="AAAA")
    assert app.send("GET", path, scope="system/Patient.r", Accept="text/plain").status_code == 403
    assert app.send("GET", path, scope=None, Accept="text/plain").status_code == 401
    person = world.patient("patient/*.rs", "a")
    assert person.get("Binary/binb", Accept="text/plain").status_code == 404
    assert person.get("Binary/bina", Accept="text/plain").content == b"text"
    assert app.audit()[-1]["entity"][0]["what"]["reference"] == "Binary/bina"


def test_what_is_sent_in_another_version_or_as_xml_is_refused_clearly(app: FhirApp) -> None:
    for kind in (f"{JSON}; fhirVersion=5.0", "application/fhir+xml"):
        answer = app.send("POST", "Patient", patient(), Content_Type=kind)
        assert (answer.status_code, issues(answer)[0][0]) == (415, "not-supported")
    assert "XML" in app.send("POST", "Patient", b"<Patient/>", Content_Type="application/fhir+xml").text


def test_pretty_is_for_people(app: FhirApp) -> None:
    made = app.create(patient())
    assert b"\n  " in app.get(f"Patient/{made['id']}?_pretty=true").content
    assert b"\n" not in app.get(f"Patient/{made['id']}").content
    assert b"\n  " in app.get("Patient/nobody?_pretty=true").content


def test_a_posted_search_may_name_its_format_in_the_form(app: FhirApp) -> None:
    assert app.send("POST", "Patient/_search", b"_format=xml", Content_Type=FORM).status_code == 406
    assert app.send("POST", "Patient/_search", b"_format=json&_count=1", Content_Type=FORM).status_code == 200


# Parts of resources


def test_summary_and_elements_show_a_part_and_say_so(app: FhirApp) -> None:
    made = app.create(patient(gender="male", name=[{"family": "Erfunden"}], communication=[{"language": {"text": "x"}}]))
    path = f"Patient/{made['id']}"
    for url in (f"{path}?_elements=gender", f"{path}/_history/1?_elements=gender"):
        answer = app.get(url)
        found = load(answer)
        assert found.keys() == {"resourceType", "id", "meta", "gender"}
        assert found["meta"]["tag"][0]["code"] == "SUBSETTED"
        assert answer.headers["etag"] == 'W/"1"'
    assert "communication" not in load(app.get(f"{path}?_summary=true"))
    assert load(app.get(f"{path}?_summary=false")) == made
    assert "name" in load(app.get(f"{path}?_summary=data"))
    assert "name" not in load(app.get(f"{path}?_summary=text"))
    for wrong in ("_summary=count", "_summary=x", "_elements="):
        assert app.get(f"{path}?{wrong}").status_code == 400
    assert load(app.get(path)) == made


def test_summaries_of_searches(app: FhirApp) -> None:
    made = app.create(patient(gender="male", communication=[{"language": {"text": "x"}}]))
    query = f"Patient?_id={made['id']}"
    assert "communication" not in load(app.get(f"{query}&_summary=true"))["entry"][0]["resource"]
    (shown,) = load(app.get(f"{query}&_elements=gender"))["entry"]
    assert shown["resource"].keys() == {"resourceType", "id", "meta", "gender"}
    counted = load(app.get(f"{query}&_summary=count"))
    assert (counted["total"], "entry" in counted) == (1, False)


def test_a_search_explains_itself(app: FhirApp) -> None:
    app.create(patient(gender="male"))
    found = app.search("Patient?gender=male&_explain=true&_count=1")
    (said,) = [e["resource"] for e in found["entry"] if e["search"]["mode"] == "outcome"]
    assert "search.t" in said["issue"][0]["diagnostics"]


# gzip


def test_large_answers_are_packed_for_who_takes_gzip(app: FhirApp) -> None:
    made = app.create(patient(name=[{"family": f"Erfunden {n}"} for n in range(200)]))
    path, small = f"Patient/{made['id']}", f"Patient/{app.create(patient())['id']}"
    packed = app.get(path, Accept_Encoding="br, gzip;q=0.8")
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 3000
    assert load(packed) == made
    for encoding in ("identity", "gzip;q=0", "br"):
        plain = app.get(path, Accept_Encoding=encoding)
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content
        assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in app.get(small, Accept_Encoding="gzip").headers
    head = app.send("HEAD", path, Accept_Encoding="gzip")
    assert head.headers["content-length"] == packed.headers["content-length"]


def test_requests_may_be_packed(app: FhirApp) -> None:
    body = json.dumps(patient(gender="male")).encode()
    for packed in (gzip.compress(body), gzip.compress(body[:20]) + gzip.compress(body[20:])):
        answer = app.send("POST", "Patient", packed, Content_Encoding="gzip")
        assert (answer.status_code, load(answer)["gender"]) == (201, "male")
    found = app.send(
        "POST", "Patient/_search", gzip.compress(b"gender=male&_count=1"), Content_Encoding="gzip", Content_Type=FORM
    )
    assert found.status_code == 200
    for broken in (b"nonsense", gzip.compress(body)[:-9], gzip.compress(body) + b"x", gzip.compress(b"") * 5000):
        assert app.send("POST", "Patient", broken, Content_Encoding="gzip").status_code == 400
    assert app.send("POST", "Patient", body, Content_Encoding="br").status_code == 415


def test_what_unpacks_to_too_much_is_refused(app: FhirApp) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 1024 * 1024) for _ in range(100)) + packer.flush()
    assert len(bomb) < 1024 * 1024
    answer = app.send("POST", "Patient", bomb, Content_Encoding="gzip")
    assert (answer.status_code, issues(answer)[0][0]) == (413, "too-long")


# CORS and OPTIONS


def test_a_browser_may_ask_from_anywhere_without_a_token_whether_it_may_ask(app: FhirApp) -> None:
    asking = {"Origin": "https://app.example", "Access_Control_Request_Method": "PUT"}
    for path in ("Patient/x", "", "metadata", "Patient/x/_history"):
        answer = app.send("OPTIONS", path, scope=None, **asking)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert {"PUT", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
        assert {"Authorization", "If-Match", "Prefer"} <= set(answer.headers["access-control-allow-headers"].split(", "))


def test_scripts_of_other_origins_may_read_what_comes_back(app: FhirApp) -> None:
    made = app.create(patient())
    answers = [
        app.get(f"Patient/{made['id']}", Origin="https://app.example"),
        app.send("GET", "Patient/x", scope=None, Origin="https://app.example"),
        app.get("Patient/nobody", Origin="https://app.example"),
        app.get("metadata", Origin="null"),
    ]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert {"ETag", "Location", "WWW-Authenticate"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert "access-control-allow-origin" not in app.get(f"Patient/{made['id']}").headers


def test_options_says_what_an_address_takes(app: FhirApp) -> None:
    for path, allowed in (
        ("Patient/x", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("Patient", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("", "GET, POST, HEAD, OPTIONS"),
        ("metadata", "GET, HEAD, OPTIONS"),
        ("Patient/_search", "POST, OPTIONS"),
        ("Patient/x/_history", "GET, HEAD, OPTIONS"),
    ):
        answer = app.send("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"]) == (204, allowed)
        assert ("application/json-patch+json" in answer.headers.get("accept-patch", "")) is ("PATCH" in allowed)
    assert app.send("OPTIONS", "Patient", scope=None).status_code == 401
    assert app.send("OPTIONS", "Nonsense").status_code == 404


def test_routes_that_are_opened_to_other_origins_answer_preflights_themselves() -> None:
    async def token(_request: Request) -> Response:
        return PlainTextResponse("x")

    starlette = Starlette(routes=[Route("/token", token, methods=["POST"]), Route("/private", token)])
    cors.open_routes(starlette.router.routes, ("/token", "/not-there"))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(starlette), base_url="http://ris.example") as client:
            assert (await client.post("/token")).headers["access-control-allow-origin"] == "*"
            asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
            answer = await client.options("/token", headers=asking)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "*")
            assert (await client.get("/token")).status_code == 405
            assert "access-control-allow-origin" not in (await client.get("/private")).headers

    asyncio.run(ask())


def test_the_product_opens_discovery_to_all_origins_tokens_and_data_to_registered_ones_and_nothing_else_of_oauth(
    run_with_db: RunWithDb[None],
) -> None:
    async def scenario(db: AsyncDatabase[Document]) -> None:
        application = http_app(await assemble(Settings(), db))
        ours, foreign = "https://app.example", "https://evil.example"
        await Clients(db).add("app", "openid", redirect_uris=[f"{ours}/cb"])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://ris.example") as client:
            for path, status, to_ours, to_foreign in (
                ("/oauth/token", 204, ours, None),
                ("/oauth/revoke", 204, ours, None),
                ("/fhir/Patient", 204, ours, None),
                ("/fhir/metadata", 204, "*", "*"),
                ("/fhir/.well-known/smart-configuration", 204, "*", "*"),
                ("/.well-known/openid-configuration", 204, "*", "*"),
                ("/oauth/jwks", 204, "*", "*"),
                ("/oauth/authorize", 405, None, None),
                ("/oauth/introspect", 405, None, None),
                ("/launch", 405, None, None),
                ("/login", 405, None, None),
                ("/readyz", 405, None, None),
            ):
                for origin, allowed in ((ours, to_ours), (foreign, to_foreign)):
                    asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                    answer = await client.options(path, headers=asking)
                    assert answer.status_code == status, path
                    assert answer.headers.get("access-control-allow-origin") == allowed, path
                    assert "access-control-allow-credentials" not in answer.headers
            for origin, allowed in ((ours, ours), (foreign, None), ("null", None)):
                for answer in (
                    await client.post("/oauth/token", headers={"Origin": origin}),
                    await client.get("/fhir/Patient", headers={"Origin": origin}),
                ):
                    assert answer.headers.get("access-control-allow-origin") == allowed
                    assert "Origin" in answer.headers["vary"]
            found = await client.get("/fhir/.well-known/smart-configuration", headers={"Origin": foreign})
            assert (found.status_code, found.headers["access-control-allow-origin"]) == (200, "*")
            assert (await client.get("/fhir/metadata?mode=terminology")).json()["resourceType"] == "TerminologyCapabilities"

    run_with_db(scenario)
