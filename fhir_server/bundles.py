"""Transaction and batch Bundles (FHIR R4 RESTful API, "batch/transaction")."""

import re
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pymongo.errors import ConnectionFailure

from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.bundle_links import Links, localize
from fhir_server.interactions import Interactions, delete_in, known_type, unavailable, update_in
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.references import Target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access
from smart_auth.scopes import Action

log = structlog.get_logger()

MAX_ENTRIES = 5000
# The order in which a transaction's entries are processed (FHIR R4 RESTful API, "Transaction Processing Rules").
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3}
_ACTIONS: dict[str, Action] = {"DELETE": "d", "POST": "c", "PUT": "u", "GET": "r"}
_URL = re.compile(r"([A-Z][A-Za-z]+)(?:/([A-Za-z0-9\-.]{1,64}))?")
_ETAG = re.compile(r'(?:W/)?"([^"]+)"')

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Request:
    """One entry, checked. `path` is its FHIRPath; `id` is there unless the method is POST."""

    path: str
    method: str
    type: str
    id: str
    resource: Resource
    full_url: str | None
    if_match: str | None

    @property
    def place(self) -> str:
        """Where a refusal of it points to."""
        return f"{self.path}.resource" if self.resource else self.path


async def process(interactions: Interactions, access: Access, bundle: Resource, act: Act, base_url: str) -> Resource:
    """The response Bundle of a transaction (all or nothing) or batch (each entry on its own). `base_url`: our FHIR base."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise fail("structure", "this element repeats, so it must be an array", "Bundle.entry")
    if len(entries) > MAX_ENTRIES:
        raise fail("too-costly", f"a Bundle holds at most {MAX_ENTRIES} entries", "Bundle.entry", status=413)
    kind = bundle.get("type")
    if kind == "transaction":
        requests = [_request(entry, f"Bundle.entry[{i}]") for i, entry in enumerate(entries)]
        return _response("transaction-response", await _transaction(interactions, access, requests, act, base_url))
    if kind == "batch":
        answers = [
            await _alone(interactions, access, entry, f"Bundle.entry[{i}]", act, base_url) for i, entry in enumerate(entries)
        ]
        return _response("batch-response", answers)
    raise fail("value", "a Bundle sent here is a transaction or a batch", "Bundle.type")


async def _transaction(
    interactions: Interactions, access: Access, requests: list[_Request], act: Act, base_url: str
) -> list[Entry]:
    targets = _assign(requests, base_url)
    named = [Target(r.type, r.id) for r in requests if r.method != "POST"]

    async def work(unit: UnitOfWork) -> Callable[[], list[Entry]]:
        for request in requests:
            access.require(request.type, _ACTIONS[request.method])
        await unit.load(named)
        unit.places.update((to, r.place) for to, r in zip(targets, requests, strict=True) if r.method != "GET")
        answers: dict[int, Callable[[], Entry]] = {}
        for i in sorted(range(len(requests)), key=lambda i: _ORDER[requests[i].method]):
            try:
                answers[i] = await _perform(unit, access, requests[i], targets[i].id)
            except FhirError as error:
                raise _at(error, requests[i].place) from None
        return lambda: [answers[i]() for i in range(len(requests))]

    return (await interactions.transact(access, act, work))()


def _assign(requests: list[_Request], base_url: str) -> list[Target]:
    """What each entry is about, with a fresh id for what is created; the links among the entries are rewritten to that."""
    targets = [Target(r.type, r.id or uuid.uuid4().hex) for r in requests]
    seen: set[Target] = set()
    links = Links(base_url)
    for to, request in zip(targets, requests, strict=True):
        if request.method in {"PUT", "DELETE"}:
            if to in seen:
                raise fail("invalid", f"{to} is in this transaction twice", f"{request.path}.request.url", status=400)
            seen.add(to)
        if request.full_url is not None and request.resource:
            links.add(request.full_url, to, request.path)
    for request in requests:
        links.rewrite(request.resource, request.full_url, request.path)
    return targets


async def _perform(unit: UnitOfWork, access: Access, request: _Request, id_: str) -> Callable[[], Entry]:
    """Do one entry; what comes back makes its answer, once the transaction has settled."""
    if request.method == "DELETE":
        await delete_in(unit, request.type, id_, request.if_match)
        return lambda: {"response": {"status": "204"}}
    if request.method == "GET":
        found = await unit.read(request.type, id_)
        if found is None:
            raise fail("not-found", f"there is no {request.type}/{id_}")
        unit.shown.append(f"{request.type}/{id_}")
        return lambda: _answer("200", unit.final(found))
    if request.method == "POST":
        stored, created = await unit.create(request.resource, id_), True
    else:
        stored, created = await update_in(unit, access, request.resource, request.if_match)
    return lambda: _answer("201" if created else "200", unit.final(stored))


async def _alone(interactions: Interactions, access: Access, entry: Any, path: str, act: Act, base_url: str) -> Entry:
    """One entry of a batch, on its own: whatever becomes of it, the others are done."""
    try:
        request = _request(entry, path)
        localize(request.resource, base_url)
        act = replace(act, event={"POST": "create", "PUT": "update", "DELETE": "delete", "GET": "read"}[request.method])
        return await _interact(interactions, access, request, act)
    except FhirError as error:
        return _refused(error)
    except ConnectionFailure:
        return _refused(unavailable())
    except Exception:
        log.exception("an entry of a batch failed", path=path)
        return _refused(fail("exception", "an internal error; it is in the server's log"))


async def _interact(interactions: Interactions, access: Access, request: _Request, act: Act) -> Entry:
    if request.method == "POST":
        return _answer("201", await interactions.create(access, request.resource, act))
    if request.method == "PUT":
        stored, created = await interactions.update(access, request.resource, request.if_match, act)
        return _answer("201" if created else "200", stored)
    if request.method == "DELETE":
        await interactions.delete(access, request.type, request.id, request.if_match, act)
        return {"response": {"status": "204"}}
    found = await interactions.read(access, request.type, request.id, act)
    return _answer("200", found.resource or {})


def _request(entry: Any, path: str) -> _Request:
    """An entry, checked against the resource it carries. FhirError says what is wrong where."""
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict):
        raise fail("required", "each entry needs a request", f"{path}.request")
    method, url = request.get("method"), request.get("url")
    if not isinstance(method, str) or method not in _ORDER:
        raise fail("not-supported", f"method {str(method)[:16]!r} is not supported in a Bundle", f"{path}.request.method")
    for condition in ("ifNoneExist", "ifNoneMatch", "ifModifiedSince"):
        if condition in request:
            raise fail("not-supported", f"{condition} is not supported yet", f"{path}.request.{condition}")
    found = _URL.fullmatch(urllib.parse.unquote(url)) if isinstance(url, str) else None
    if not found:
        searching = "; a search inside a Bundle is not supported" if method == "GET" else ""
        raise fail("value", f"request.url {str(url)[:200]!r} is neither Type nor Type/id{searching}", f"{path}.request.url")
    resource_type, id_ = _known(found[1], path), found[2] or ""
    if (method == "POST") == bool(id_):
        raise fail("value", f"{method} {found[0]} can't be done", f"{path}.request.url")
    full_url = entry.get("fullUrl")
    if full_url is not None and not isinstance(full_url, str):
        raise fail("structure", "a fullUrl is a string", f"{path}.fullUrl")
    resource = _resource(entry, method, resource_type, id_, path)
    return _Request(path, method, resource_type, id_, resource, full_url, _if_match(request, path))


def _known(resource_type: str, path: str) -> str:
    try:
        return known_type({"resourceType": resource_type})
    except FhirError as error:
        raise fail("value", str(error), f"{path}.request.url") from None


def _resource(entry: Entry, method: str, resource_type: str, id_: str, path: str) -> Resource:
    if method not in {"POST", "PUT"}:
        return {}
    resource = entry.get("resource")
    if not isinstance(resource, dict) or resource.get("resourceType") != resource_type:
        raise fail("structure", f"a {resource_type} is expected here", f"{path}.resource")
    if method == "PUT" and resource.get("id") != id_:
        raise fail("value", "request.url and the resource's id differ", f"{path}.resource.id")
    return resource


def _if_match(request: Entry, path: str) -> str | None:
    try:
        return etag(request.get("ifMatch"))
    except FhirError as error:
        raise fail("value", str(error), f"{path}.request.ifMatch") from None


def etag(value: object) -> str | None:
    """The version in an ETag such as W/"3". FhirError when there is something else."""
    if value is None:
        return None
    found = _ETAG.fullmatch(str(value).strip())
    if not found:
        raise fail("value", f'{str(value)[:64]} is not an ETag such as W/"3"')
    return found[1]


def _at(error: FhirError, place: str) -> FhirError:
    """The refusal of one entry, its expressions made those of the Bundle."""
    return FhirError(*(_issue_at(issue, place) for issue in error.issues), status=error.status, headers=error.headers)


def _issue_at(issue: Issue, place: str) -> Issue:
    inside = (issue.expression or "").partition(".")[2]
    return replace(issue, expression=f"{place}.{inside}" if inside else place)


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


def _refused(error: FhirError) -> Entry:
    return {"response": {"status": str(error.status), "outcome": operation_outcome(*error.issues)}}


def _response(kind: str, entries: list[Entry]) -> Resource:
    return {
        "resourceType": "Bundle",
        "id": uuid.uuid4().hex,
        "meta": {"lastUpdated": clock.instant(clock.now())},
        "type": kind,
        **({"entry": entries} if entries else {}),
    }
