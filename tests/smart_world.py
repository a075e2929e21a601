"""Two invented patients, A and B, with what a department knows of them, and callers with all kinds of tokens."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from fhir_server import fhir_json
from smart_auth.clients import Client
from smart_auth.grants import Grant, Grants
from tests.fhir_app import JSON, FhirApp, Resource, put

LOINC = "http://loinc.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
CODE = {"coding": [{"system": LOINC, "code": "24627-2", "display": "CT Chest"}]}
MOMENT = "2026-01-01T00:00:00Z"
ABSENT = "nobody-has-this-id"

PEOPLE: dict[str, dict[str, str]] = {
    name: {"user": f"Practitioner/{who}", "user_name": f"example-{name}", "role": name, "grant": f"grant-{name}"}
    for name, who in {
        "scheduler": "sched", "technologist": "tech", "radiologist": "rad", "referrer": "ref", "interface-admin": "iface",
        "admin": "adm", "auditor": "aud", "privacy-officer": "priv",
    }.items()
}  # fmt: skip


class Caller:
    """Somebody with a token."""

    def __init__(self, app: FhirApp, bearer: str) -> None:
        self.app, self.bearer = app, bearer

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()} | {"Authorization": f"Bearer {self.bearer}"}
        content = body if isinstance(body, bytes | None) else fhir_json.dumps(body)
        if content is not None:
            sent.setdefault("Content-Type", JSON)
        return self.app.http.request(method, path, content=content, headers=sent)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.send("GET", path, **headers)

    def post(self, resource: Resource, **headers: str) -> httpx.Response:
        return self.send("POST", resource["resourceType"], resource, **headers)

    def put(self, resource: Resource, **headers: str) -> httpx.Response:
        return self.send("PUT", f"{resource['resourceType']}/{resource['id']}", resource, **headers)

    def bundle(self, kind: str, *entries: Resource) -> httpx.Response:
        return self.send("POST", "", {"resourceType": "Bundle", "type": kind, "entry": list(entries)})

    def found(self, query: str) -> list[str]:
        """What a search shows, as `Patient/a`, on all its pages."""
        answer = self.get(query)
        shown: list[str] = []
        while True:
            assert answer.status_code == 200, answer.text
            bundle = answer.json()
            entries = [e["resource"] for e in bundle.get("entry", ()) if e["search"]["mode"] != "outcome"]
            shown += [f"{r['resourceType']}/{r['id']}" for r in entries]
            following = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
            if following is None:
                return shown
            answer = self.get(following)

    def total(self, query: str) -> int:
        answer = self.get(query)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["total"])


class World:
    """A server with the population. `caller` hands out tokens."""

    def __init__(self, app: FhirApp) -> None:
        self.app = app
        self._n = 0
        answer = app.send("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [put(r) for r in population()]})
        assert answer.status_code == 200, answer.text

    def caller(self, scope: str, **context: str) -> Caller:
        """A new token with these scopes, for whom `context` says."""
        self._n += 1
        return Caller(self.app, self.app.run(self._issue(f"world-client-{self._n}", scope, context)))

    def patient(self, scope: str = "patient/*.rs", patient: str = "a") -> Caller:
        """An app with the rights of one patient, and nobody behind it."""
        return self.caller(scope, patient=patient)

    def person(self, role: str, scope: str = "user/*.cruds", **context: str) -> Caller:
        """Somebody of the department."""
        return self.caller(scope, **PEOPLE[role] | context)

    async def _issue(self, client_id: str, scope: str, context: Mapping[str, str]) -> str:
        await self.app.db["oauth_clients"].insert_one({"_id": client_id, "registration": "r"})
        client: Any = Client.__new__(Client)
        for name, value in {"client_id": client_id, "registration": "r", "scope": scope}.items():
            object.__setattr__(client, name, value)
        if "grant" in context:
            await self._granted(client, scope, context)
        return await self.app.tokens.issue(client, scope, 3600, **context)

    async def _granted(self, client: Client, scope: str, context: Mapping[str, str]) -> None:
        """The login and the grant that a person's token stands on; of several tokens under one grant, the first one's."""
        now = datetime.now(UTC)
        user = {"role": context["role"], "fhir_user": context["user"], "registration": "r", "security_stamp": "s", "created": now}
        states = {"disabled": False, "must_change_password": False}
        name = {"_id": context["user_name"]}
        await self.app.db["oauth_users"].update_one(name, {"$setOnInsert": user | states}, upsert=True)
        person = (context["user_name"], context["user"], context["role"], "r", "s")
        grants, grant = Grants(self.app.db), Grant(context["grant"], client.client_id, "r", *person, scope, now, ("pwd",))
        if await grants.get(grant.grant_id) is None:
            await grants.start(grant)
            await grants.redeemed(grant)


def resource(kind: str, id_: str, **elements: Any) -> Resource:
    return {"resourceType": kind, "id": id_, **elements}


def ref(to: str) -> dict[str, str]:
    return {"reference": to}


def observation(id_: str, patient: str, category: str = "laboratory", value: int = 7, **elements: Any) -> Resource:
    return resource(
        "Observation", id_, status="final", code=CODE, subject=ref(f"Patient/{patient}"),
        category=[{"coding": [{"system": CATEGORY, "code": category}]}],
        valueQuantity={"value": value, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"}, **elements,
    )  # fmt: skip


def report(id_: str, patient: str, status: str = "final", **elements: Any) -> Resource:
    return resource(
        "DiagnosticReport", id_, status=status, code=CODE, subject=ref(f"Patient/{patient}"),
        conclusion="No acute finding.", **elements,
    )  # fmt: skip


def order(id_: str, patient: str, requester: str, **elements: Any) -> Resource:
    return resource(
        "ServiceRequest", id_, status="active", intent="order", code=CODE, subject=ref(f"Patient/{patient}"),
        requester=ref(f"Practitioner/{requester}"), **elements,
    )  # fmt: skip


def label(code: str) -> dict[str, Any]:
    return {"security": [{"system": CONFIDENTIALITY, "code": code}]}


def consent(id_: str, patient: str, provision: Resource, scope: str = "patient-privacy", status: str = "active") -> Resource:
    return resource(
        "Consent", id_, status=status, patient=ref(f"Patient/{patient}"), provision=provision,
        scope={"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": scope}]},
        category=[{"coding": [{"system": LOINC, "code": "59284-0"}]}],
        policy=[{"uri": "http://example.org/policy"}],
    )  # fmt: skip


def population() -> list[Resource]:
    found = [resource("Practitioner", p["user"].partition("/")[2], name=[{"family": "Staff"}]) for p in PEOPLE.values()]
    found += [
        resource("Practitioner", "other", name=[{"family": "Other"}]),
        resource("Organization", "org", name="Example Hospital"),
        resource("Device", "plain", status="active"),
        resource("Device", "implant-b", status="active", patient=ref("Patient/b")),
    ]
    for p, name, requester in (("a", "Muster", "ref"), ("b", "Beispiel", "other")):
        subject, other = ref(f"Patient/{p}"), "b" if p == "a" else "a"
        found += [
            resource(
                "Patient", p, name=[{"family": name}], birthDate="1970-01-31", managingOrganization=ref("Organization/org"),
                identifier=[{"system": "urn:example:mrn", "value": f"MRN-{p}"}],
                link=[{"other": ref(f"Patient/{other}"), "type": "seealso"}],
            ),
            resource(
                "Encounter", f"e{p}", status="finished", subject=subject,
                **{"class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}},
            ),
            order(f"sr{p}", p, requester),
            observation(f"o{p}", p, encounter=ref(f"Encounter/e{p}")),
            observation(f"o{p}-vital", p, "vital-signs", 9),
            observation(f"o{p}-focus", p, focus=[ref(f"Patient/{other}")]),
            report(f"dr{p}", p, result=[ref(f"Observation/o{p}"), ref(f"Observation/o{other}")]),
            resource(
                "Coverage", f"cov{p}", status="active", beneficiary=subject, subscriber=ref(f"Patient/{p}"),
                payor=[ref("Organization/org")],
            ),
            resource("Task", f"t{p}", status="requested", intent="order", focus=ref(f"ServiceRequest/sr{p}"), **{"for": subject}),
            resource("ImagingStudy", f"is{p}", status="available", subject=subject, basedOn=[ref(f"ServiceRequest/sr{p}")]),
            resource(
                "List", f"l{p}", status="current", mode="working", subject=subject,
                entry=[{"item": ref(f"Observation/o{p}")}, {"item": ref(f"Observation/o{other}")}],
            ),
            resource("Binary", f"bin{p}", contentType="text/plain", securityContext=subject, data="dGV4dA=="),
            resource("Provenance", f"pr{p}", target=[subject], recorded=MOMENT, agent=[{"who": ref("Device/plain")}]),
        ]  # fmt: skip
    return found
