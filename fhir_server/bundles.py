"""Transaction and batch Bundles (FHIR R4 3.1.0.11)."""

import re
import urllib.parse
import uuid
from typing import Any

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions, delete_in, known_type, update_in
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.references import walk
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

MAX_ENTRIES = 5000
# The order in which a transaction's entries are processed (FHIR R4 3.1.0.11.2).
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3}
_URL = re.compile(r"^([A-Z][A-Za-z]+)(?:/([A-Za-z0-9\-.]{1,64}))?$")

Entry = dict[str, Any]


async def process(interactions: Interactions, access: Access, bundle: Resource, act: Act) -> Resource:
    """The response Bundle of a transaction (all or nothing) or batch (each entry on its own)."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise fail("too-costly", f"a Bundle holds at most {MAX_ENTRIES} entries", "Bundle.entry", status=413)
    kind = bundle.get("type")
    if kind == "transaction":
        return _response("transaction-response", await _transaction(interactions, access, entries, act))
    if kind == "batch":
        return _response("batch-response", [await _single(interactions, access, entry, i) for i, entry in enumerate(entries)])
    raise fail("value", "a Bundle sent here is a transaction or a batch", "Bundle.type")


async def _transaction(interactions: Interactions, access: Access, entries: list[Entry], act: Act) -> list[Entry]:
    requests = [_request(entry, i) for i, entry in enumerate(entries)]
    for method, resource_type, id_, path in requests:
        access.require(resource_type, {"DELETE": "d", "POST": "c", "PUT": "u", "GET": "r" if id_ else "s"}[method])
        if method == "GET" and not id_:
            raise fail("not-supported", "a search inside a transaction is not supported", f"{path}.request.url")
    assigned = _assign(entries, requests)

    async def work(unit: UnitOfWork) -> list[Entry]:
        answers: dict[int, Entry] = {}
        for i in sorted(range(len(entries)), key=lambda i: _ORDER[requests[i][0]]):
            try:
                answers[i] = await _perform(unit, access, requests[i], entries[i], assigned)
            except FhirError as error:
                raise _at_entry(error, requests[i][3]) from None
        return [answers[i] for i in range(len(entries))]

    return await interactions.transact(access, act, work)


def _assign(entries: list[Entry], requests: list[tuple[str, str, str | None, str]]) -> dict[str, tuple[str, str]]:
    """fullUrl -> (type, id) of what the transaction creates or updates, so that its entries can refer to one another."""
    assigned: dict[str, tuple[str, str]] = {}
    seen: set[tuple[str, str]] = set()
    for entry, (method, resource_type, id_, path) in zip(entries, requests, strict=True):
        if id_ and method in {"PUT", "DELETE"}:
            if (resource_type, id_) in seen:
                raise fail("invalid", f"{resource_type}/{id_} is in this transaction twice", f"{path}.request.url", status=400)
            seen.add((resource_type, id_))
        full_url = entry.get("fullUrl")
        if isinstance(full_url, str) and method in {"POST", "PUT"}:
            if full_url in assigned:
                raise fail("invalid", f"fullUrl {full_url} is in this transaction twice", f"{path}.fullUrl", status=400)
            assigned[full_url] = (resource_type, id_ or uuid.uuid4().hex)
    return assigned


async def _perform(
    unit: UnitOfWork,
    access: Access,
    request: tuple[str, str, str | None, str],
    entry: Entry,
    assigned: dict[str, tuple[str, str]],
) -> Entry:
    method, resource_type, id_, _ = request
    if_match = etag(entry["request"].get("ifMatch"))
    if method == "DELETE":
        await delete_in(unit, resource_type, id_ or "", if_match)
        return {"response": {"status": "204"}}
    if method == "GET":
        resource = await unit.read(resource_type, id_ or "")
        if resource is None:
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        return _answer("200", resource)
    resource = entry["resource"]
    for _, element in walk(resource, ""):
        if element["reference"] in assigned:
            element["reference"] = "/".join(assigned[element["reference"]])
    if method == "POST":
        given = assigned.get(entry.get("fullUrl", ""))
        return _answer("201", await unit.create(resource, given[1] if given else None))
    stored, created = await update_in(unit, access, resource, if_match)
    return _answer("201" if created else "200", stored)


async def _single(interactions: Interactions, access: Access, entry: Entry, number: int) -> Entry:
    """One entry of a batch, on its own."""
    try:
        method, resource_type, id_, path = _request(entry, number)
        if_match = etag(entry["request"].get("ifMatch"))
        if method == "POST":
            return _answer("201", await interactions.create(access, entry["resource"]))
        if method == "PUT":
            stored, created = await interactions.update(access, entry["resource"], if_match)
            return _answer("201" if created else "200", stored)
        if method == "DELETE":
            await interactions.delete(access, resource_type, id_ or "", if_match)
            return {"response": {"status": "204"}}
        if id_ is None:
            raise fail("not-supported", "a search inside a Bundle is not supported", f"{path}.request.url")
        found = await interactions.read(access, resource_type, id_)
        return _answer("200", found.resource or {})
    except FhirError as error:
        return {"response": {"status": str(error.status), "outcome": operation_outcome(*error.issues)}}


def _request(entry: Any, number: int) -> tuple[str, str, str | None, str]:
    """(method, type, id or None, FHIRPath of the entry), checked against the resource it carries."""
    path = f"Bundle.entry[{number}]"
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict):
        raise fail("required", "each entry needs a request", f"{path}.request")
    method, url = request.get("method"), request.get("url")
    if method not in _ORDER:
        raise fail("not-supported", f"method {method!r} is not supported in a Bundle", f"{path}.request.method")
    for condition in ("ifNoneExist", "ifNoneMatch", "ifModifiedSince"):
        if condition in request:
            raise fail("not-supported", f"{condition} is not supported yet", f"{path}.request.{condition}")
    found = _URL.match(urllib.parse.unquote(url)) if isinstance(url, str) else None
    if not found:
        raise fail("value", f"request.url {url!r} is neither Type nor Type/id", f"{path}.request.url")
    resource_type, id_ = known_type({"resourceType": found[1]}), found[2]
    if method in {"POST", "PUT"}:
        resource = entry.get("resource")
        if not isinstance(resource, dict) or resource.get("resourceType") != resource_type:
            raise fail("structure", f"a {resource_type} is expected here", f"{path}.resource")
        if method == "PUT" and (id_ is None or resource.get("id") != id_):
            raise fail("value", "request.url and the resource's id differ", f"{path}.resource.id")
    if (method == "POST") == (id_ is not None) and method != "GET":
        raise fail("value", f"{method} {url} can't be done", f"{path}.request.url")
    return method, resource_type, id_, path


def etag(value: object) -> str | None:
    """The version in an ETag such as W/"3". FhirError when there is something else."""
    if value is None:
        return None
    found = re.fullmatch(r'(?:W/)?"([^"]+)"', str(value).strip())
    if not found:
        raise fail("value", f'{value} is not an ETag such as W/"3"')
    return found[1]


def _at_entry(error: FhirError, path: str) -> FhirError:
    """The refusal of one entry, its expressions made those of the Bundle."""
    issues = []
    for issue in error.issues:
        inside = issue.expression.partition(".")[2] if issue.expression else ""
        issues.append(
            type(issue)(issue.code, issue.diagnostics, f"{path}.resource" + (f".{inside}" if inside else ""), issue.severity)
        )
    return FhirError(*issues, status=error.status, headers=error.headers)


def _answer(status: str, resource: Resource) -> Entry:
    meta = resource["meta"]
    return {
        "resource": resource,
        "response": {
            "status": status,
            "location": f"{resource['resourceType']}/{resource['id']}/_history/{meta['versionId']}",
            "etag": f'W/"{meta["versionId"]}"',
            "lastModified": meta["lastUpdated"],
        },
    }


def _response(kind: str, entries: list[Entry]) -> Resource:
    return {
        "resourceType": "Bundle",
        "id": uuid.uuid4().hex,
        "meta": {"lastUpdated": clock.instant(clock.now())},
        "type": kind,
        "entry": entries,
    }
