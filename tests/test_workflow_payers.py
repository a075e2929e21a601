"""Asking payers: a real payer on loopback answers, denies, is slow, fails; and who may book without it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridges.payer.client import NotAnswered, Payers
from bridges.payer.credentials import CredentialsError, accounts
from bridges.payer.delivery import PayerDelivery, Timing
from resources.coverage import submit_operation
from tests.fhir_app import FhirApp, Resource, entry, outcome, serving, unused
from tests.payer import KEY, Payer, paying
from tests.smart_world import World

LOINC = "http://loinc.org"
PET = {"coding": [{"system": LOINC, "code": "44139-4", "display": "PET/CT whole body"}]}
_QUICK = Timing(look=0.02, first_pause=0.05, factor=1, attempts=3, first_poll=0.05)


@pytest.fixture(scope="module")
def payer() -> Iterator[Payer]:
    with paying() as running:
        yield running


@pytest.fixture(scope="module")
def app(mongodb_uri: str, payer: Payer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirApp]:
    """A server with the worker that asks payers, and the credentials that two of them want."""
    file = tmp_path_factory.mktemp("payers") / "credentials.json"
    smart = {"token_url": f"{payer.base}/smart/token", "client_id": "example-ris", "key": KEY.as_dict(private=True)}
    rows = [{"address": f"{payer.base}/token", "bearer": "agreed"}, {"address": f"{payer.base}/smart", **smart}]
    file.write_text(json.dumps(rows))
    file.chmod(0o600)
    with serving(mongodb_uri) as running:
        worker = PayerDelivery(running.interactions, Payers(file, seconds=10), _QUICK).running()
        running.run(worker.__aenter__())
        running.create(
            {
                "resourceType": "ActivityDefinition",
                "status": "active",
                "identifier": [{"system": LOINC, "value": "44139-4"}],
                "code": PET,
                "extension": [{"url": "urn:fhir-ris:authorization-required", "valueBoolean": True}],
            }
        )
        yield running
        running.run(worker.__aexit__(None, None, None))


def to(resource: Resource) -> Resource:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


class Case:
    """An insured patient with an order for what needs an authorization, and the request to the payer `at` an address."""

    def __init__(self, app: FhirApp, at: str, **endpoint: Any) -> None:
        self.app = app
        kind = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest"}
        self.endpoint = app.create(
            {"resourceType": "Endpoint", "status": "active", "connectionType": kind, "address": at}
            | {"payloadType": [{"text": "eligibility"}]}
            | endpoint
        )
        insurer = app.create({"resourceType": "Organization", "name": "Example Health", "endpoint": [to(self.endpoint)]})
        mrn = {"system": "urn:example:mrn", "value": unused("CV")}
        known = {"name": [{"family": "Muster"}], "telecom": [{"system": "phone", "value": "555"}]}
        self.patient = app.create({"resourceType": "Patient", "identifier": [mrn]} | known)
        self.coverage = app.create(
            {"resourceType": "Coverage", "status": "active", "beneficiary": to(self.patient), "payor": [to(insurer)]}
            | {"subscriberId": "M-1"}
        )
        self.order = app.create(
            {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": PET, "subject": to(self.patient)}
            | {"insurance": [to(self.coverage)]}
        )
        self.request = {
            "resourceType": "CoverageEligibilityRequest",
            "status": "active",
            "purpose": ["auth-requirements", "benefits"],
            "patient": to(self.patient),
            "created": "2026-08-30",
            "insurer": to(insurer),
            "insurance": [{"coverage": to(self.coverage)}],
            "item": [{"productOrService": PET, "detail": [to(self.order)]}],
        }

    def submit(self) -> Resource:
        answer = self.app.send("POST", "CoverageEligibilityRequest/$submit", self.request)
        assert answer.status_code == 200, answer.text
        found: Resource = answer.json()
        assert found["resourceType"] == "CoverageEligibilityResponse"
        return found

    def book(self, day: str = "2026-09-08", **elements: Any) -> Any:
        return self.app.send("POST", "Appointment", self.booking(day) | elements)

    def booking(self, day: str = "2026-09-08") -> Resource:
        return {
            "resourceType": "Appointment",
            "status": "booked",
            "basedOn": [to(self.order)],
            "start": f"{day}T08:00:00Z",
            "end": f"{day}T08:30:00Z",
            "participant": [{"actor": to(self.patient), "status": "accepted"}],
        }

    def items(self, kind: str, about: str) -> list[str]:
        return self.app.ids(f"Task?code=urn:fhir-ris:task|{kind}&focus={about}&status=requested")

    def message(self, response: Resource) -> Resource:
        found: Resource = self.app.run(self.app.db["outbox"].find_one({"control_id": response["id"]}))  # type: ignore[arg-type]
        return found


def soon(found: Callable[[], Any]) -> Any:
    """What is found before long."""
    until = time.monotonic() + 20
    while not (there := found()) and time.monotonic() < until:
        time.sleep(0.02)
    assert there
    return there


def code_of(response: Resource) -> str:
    return str(response["error"][0]["code"]["coding"][0]["code"])


def test_what_the_payer_grants_is_kept_and_booked_on(app: FhirApp, payer: Payer) -> None:
    case = Case(app, f"{payer.base}/grants/")
    assert case.book().status_code == 422
    response = case.submit()
    assert (response["outcome"], response["preAuthRef"]) == ("complete", "AUTH-4711")
    assert (response["patient"], response["insurance"][0]["coverage"]) == (to(case.patient), to(case.coverage))
    # What the payer says of its own resources points there; its narrative is not taken over.
    assert response["insurance"][0]["item"][0]["provider"] == {"reference": f"{payer.base}/grants/Practitioner/own-9"}
    assert "text" not in response
    assert app.get(f"CoverageEligibilityResponse/{response['id']}").json() == response
    assert case.book("2026-10-01").status_code == 422
    assert case.book().status_code == 201
    (procedure,) = app.search(f"ServiceRequest?based-on=ServiceRequest/{case.order['id']}")["entry"]
    assert procedure["resource"]["extension"] == [{"url": "urn:fhir-ris:authorization", "valueReference": to(response)}]


def test_a_payer_is_sent_what_it_needs_and_no_more(app: FhirApp, payer: Payer) -> None:
    case = Case(app, f"{payer.base}/grants")
    case.submit()
    sent = payer.asked[-1]
    inside = {r["id"]: r for r in sent["contained"]}
    patient = inside[sent["patient"]["reference"].removeprefix("#")]
    assert patient["name"] == [{"family": "Muster"}]
    assert not {"telecom", "meta"} & patient.keys()
    coverage = inside[sent["insurance"][0]["coverage"]["reference"].removeprefix("#")]
    assert (coverage["subscriberId"], coverage["beneficiary"]) == ("M-1", sent["patient"])
    assert sent["item"][0]["detail"][0]["type"] == "ServiceRequest"
    assert "reference" not in sent["item"][0]["detail"][0]


def test_a_payer_that_denies_is_shown_to_people_until_it_has_answered_otherwise(app: FhirApp, payer: Payer) -> None:
    case = Case(app, f"{payer.base}/denies")
    response = case.submit()
    asked = response["request"]["reference"]
    assert response["insurance"][0]["inforce"] is False
    assert len(case.items("coverage-denied", asked)) == 1
    assert case.book().status_code == 422
    assert app.put(case.endpoint | {"address": f"{payer.base}/grants"}).status_code == 200
    again = app.send("POST", f"{asked}/$submit").json()
    assert (again["id"] != response["id"], again["preAuthRef"]) == (True, "AUTH-4711")
    assert case.items("coverage-denied", asked) == []
    assert case.book().status_code == 201


def test_a_slow_payer_keeps_nobody_waiting_and_is_asked_once(app: FhirApp, payer: Payer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_operation, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(payer, "delay", 0.3)
    case = Case(app, f"{payer.base}/slow")
    before = len(payer.asked)
    response = case.submit()
    assert response["outcome"] == "queued"
    same = app.send("POST", f"{response['request']['reference']}/$submit").json()
    assert same["id"] == response["id"]
    path = f"CoverageEligibilityResponse/{response['id']}"
    assert soon(lambda: (r := app.get(path).json())["outcome"] == "complete" and r)["preAuthRef"] == "AUTH-4711"
    assert len(payer.asked) == before + 1
    assert payer.headers[-1]["x-request-id"] == response["id"]


def test_a_payer_that_queues_is_asked_again_for_its_answer(app: FhirApp, payer: Payer) -> None:
    assert Case(app, f"{payer.base}/queues").submit()["preAuthRef"] == "AUTH-4711"


def test_a_payer_that_fails_is_tried_again_then_set_aside_and_shown_and_asked_anew(app: FhirApp, payer: Payer) -> None:
    payer.broken = True
    case = Case(app, f"{payer.base}/fails")
    response = case.submit()
    assert (response["outcome"], code_of(response), response["disposition"]) == ("error", "no-answer", "the payer answers 503")
    message = case.message(response)
    assert (message["state"], message["attempts"]) == ("dead", 3)
    asked = response["request"]["reference"]
    assert len(case.items("eligibility-failed", asked)) == 1
    payer.broken = False
    assert app.send("POST", f"{asked}/$submit").json()["outcome"] == "complete"
    assert case.items("eligibility-failed", asked) == []


@pytest.mark.parametrize(
    ("mood", "code", "text"),
    [
        ("garbage", "not-understood", "no FHIR JSON"),
        ("malformed", "not-understood", "can't be kept"),
        ("refuses", "refused", "422: member number unknown"),
        ("errors", "", ""),
    ],
)
def test_errors_of_a_payer_are_kept_and_shown(app: FhirApp, payer: Payer, mood: str, code: str, text: str) -> None:
    case, before = Case(app, f"{payer.base}/{mood}"), len(payer.asked)
    response = case.submit()
    assert (response["outcome"], len(payer.asked)) == ("error", before + 1)
    if code:
        assert (code_of(response), text in response["disposition"]) == (code, True)
    else:
        assert response["error"] == [{"code": {"text": "no such member"}}]
    assert len(case.items("eligibility-failed", response["request"]["reference"])) == 1


@pytest.mark.parametrize("mood", ["token", "smart"])
def test_payers_get_the_credentials_of_their_address(app: FhirApp, payer: Payer, mood: str) -> None:
    for _ in range(2):
        assert Case(app, f"{payer.base}/{mood}").submit()["preAuthRef"] == "AUTH-4711"
    if mood == "smart":
        given = payer.tokens
        assert Case(app, f"{payer.base}/{mood}").submit()["preAuthRef"] == "AUTH-4711"
        assert payer.tokens == given  # a token is used for as long as it holds
        payer.tokens += 1  # the payer has withdrawn it
        assert Case(app, f"{payer.base}/{mood}").submit()["preAuthRef"] == "AUTH-4711"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"address": "http://payer.example.org/fhir"}, "insurer"),
        ({"address": "https://user:word@payer.example.org/fhir"}, "insurer"),
        ({"status": "off"}, "insurer"),
        ({"connectionType": {"system": "urn:example", "code": "hl7-fhir-rest"}}, "insurer"),
    ],
)
def test_without_an_address_that_may_be_called_nothing_is_kept(app: FhirApp, change: Any, where: str) -> None:
    case = Case(app, "http://127.0.0.1:9/fhir", **change)
    before = app.counts()
    refusal = app.send("POST", "CoverageEligibilityRequest/$submit", case.request)
    assert refusal.status_code == 422
    assert outcome(refusal)["issue"][0]["expression"] == [f"CoverageEligibilityRequest.{where}"]
    quiet = ("AuditEvent", "audit", "locks", "leases", "catalog", "counters")
    assert {n: c for n, c in app.counts().items() if not n.startswith(quiet)} == {
        n: c for n, c in before.items() if not n.startswith(quiet)
    }


@pytest.mark.parametrize(
    "address",
    ["https://localhost.example.invalid", "https://10.0.0.1/fhir", "https://169.254.169.254/latest", "http://[::2]/fhir"],
)
def test_hosts_that_are_not_in_the_public_internet_are_not_called(app: FhirApp, address: str) -> None:
    with pytest.raises(NotAnswered):
        app.run(Payers(seconds=2).submit(address, b"{}", "x"))


def test_a_payer_that_never_answers_is_not_waited_for(app: FhirApp, payer: Payer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payer, "delay", 0.5)
    with pytest.raises(NotAnswered, match="no answer within"):
        app.run(Payers(seconds=0.05).submit(f"{payer.base}/slow", b'{"id": "1", "purpose": []}', "x"))


@pytest.mark.parametrize(
    ("mode", "content"),
    [
        (0o644, "[]"),
        (0o600, "no json"),
        (0o600, "{}"),
        (0o600, '[{"bearer": "x"}]'),
        (0o600, '[{"address": "a", "token_url": "b"}]'),
    ],
)
def test_a_file_of_credentials_that_is_open_or_wrong_is_not_used(tmp_path: Path, mode: int, content: str) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(CredentialsError):
        accounts(file)


# Who may


def test_who_may_ask_and_what_is_no_request(app: FhirApp, world: World, payer: Payer) -> None:
    case = Case(app, f"{payer.base}/grants")
    path = "CoverageEligibilityRequest/$submit"
    wrapped = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": case.request}]}
    assert world.person("scheduler").send("POST", path, wrapped).json()["outcome"] == "complete"
    for role in ("technologist", "radiologist", "referrer"):
        assert world.person(role).send("POST", path, case.request).status_code == 403
    assert world.person("scheduler", "user/Patient.rs").send("POST", path, case.request).status_code == 403
    for body in ({"resourceType": "Patient"}, {"resourceType": "Parameters"}):
        assert app.send("POST", path, body).status_code == 400
    assert app.send("POST", "CoverageEligibilityRequest/nobody/$submit").status_code == 404
    cancelled = app.create(case.request | {"status": "cancelled"})
    assert app.send("POST", f"CoverageEligibilityRequest/{cancelled['id']}/$submit").status_code == 422


def test_an_override_is_on_record_shown_on_the_order_and_lets_it_be_booked(app: FhirApp, world: World) -> None:
    case = Case(app, "http://127.0.0.1:9/fhir")
    path = f"ServiceRequest/{case.order['id']}/$override-authorization"
    reason = {"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": "Trauma, no time to ask"}]}
    refused = app.bundle("transaction", entry("POST", "Appointment", case.booking()))
    assert refused.status_code == 422
    for role in ("scheduler", "technologist", "referrer"):
        assert world.person(role).send("POST", path, reason).status_code in {403, 404}
    radiologist = world.person("radiologist")
    assert radiologist.send("POST", path).status_code == 400
    answer = radiologist.send("POST", path, reason)
    assert answer.status_code == 200, answer.text
    said = {p["name"]: p["valueReference"]["reference"] for p in answer.json()["parameter"]}
    provenance = app.get(said["provenance"]).json()
    assert (provenance["reason"], provenance["agent"][0]["who"]["reference"]) == (
        [{"text": "Trauma, no time to ask"}],
        "Practitioner/rad",
    )
    order = world.person("scheduler").get(said["order"]).json()
    (shown,) = (e for e in order["extension"] if e["url"] == "urn:fhir-ris:authorization-override")
    assert {"url": "reason", "valueString": "Trauma, no time to ask"} in shown["extension"]
    assert app.bundle("transaction", entry("POST", "Appointment", case.booking())).status_code == 200
    plain = app.create(
        {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "X-ray"}}
        | {"subject": to(case.patient)}
    )
    assert radiologist.send("POST", f"ServiceRequest/{plain['id']}/$override-authorization", reason).status_code == 422
