"""An entry of a transaction or batch: its request read, and checked against the resource that it carries."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from fhir_server import definitions, patching
from fhir_server.addresses import Address, parse
from fhir_server.bundle_links import localize
from fhir_server.conditional import Condition, condition, parsed
from fhir_server.exchange import Ask, Conditions, Parameters, Patch, Prefer, etag, meant
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Resource
from smart_auth.access import Access

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
# Element of an entry's request to what it is called here (FHIR R4 Bundle.entry.request).
_CONDITIONS = {
    "ifMatch": "if_match",
    "ifNoneMatch": "if_none_match",
    "ifModifiedSince": "if_modified_since",
    "ifNoneExist": "if_none_exist",
}
_CARRYING = {"PATCH": ("Binary", "Parameters")}


def refuse_unknown(element: Resource, shape: str, path: str) -> None:
    """Refuse an element that a Bundle does not have there: a misspelt `ifMatch` must not be passed over."""
    known = {name for e in definitions.elements(shape).values() for name in e.json_names}
    if unknown := [name for name in element if name.removeprefix("_") not in known and name != "resourceType"]:
        raise fail("structure", f"there is no element {unknown[0][:64]!r} here", f"{path}.{unknown[0][:64]}")


class EntryAsk(Ask):
    """An interaction that is asked for in an entry. `path` is its FHIRPath; `head`: nothing of what is read is to be shown."""

    __slots__ = ("_base_url", "full_url", "head", "path", "sent")

    def __init__(self, entry: Any, path: str, access: Access, prefer: Prefer, peer: str | None, base_url: str) -> None:
        """FhirError says what is wrong with the entry, and where."""
        request = entry.get("request") if isinstance(entry, dict) else None
        if not isinstance(request, dict):
            raise fail("required", "each entry needs a request", f"{path}.request")
        refuse_unknown(entry, "Bundle.entry", path)
        refuse_unknown(request, "Bundle.entry.request", f"{path}.request")
        method = request.get("method")
        if not isinstance(method, str) or method not in _METHODS:
            raise fail("not-supported", f"method {str(method)[:16]!r} is not supported in a Bundle", f"{path}.request.method")
        address, query = _address(request.get("url"), path, base_url)
        super().__init__(
            method="GET" if method == "HEAD" else method,
            address=address,
            query=query,
            access=access,
            conditions=_conditions(request, path),
            prefer=prefer,
            peer=peer,
        )
        full_url = entry.get("fullUrl")
        if full_url is not None and not isinstance(full_url, str):
            raise fail("structure", "a fullUrl is a string", f"{path}.fullUrl")
        self.path = path
        self.head = method == "HEAD"
        self.full_url: str | None = full_url
        self.sent: Resource | None = _sent(entry, self.method, address, path)
        self._base_url = base_url

    @property
    def place(self) -> str:
        """Where a refusal of it points to."""
        return f"{self.path}.resource" if self.sent is not None else self.path

    def if_match(self) -> str | None:
        """The version that the caller has seen."""
        try:
            return etag(self.conditions.if_match)
        except FhirError as error:
            raise fail("value", str(error), f"{self.path}.request.ifMatch") from None

    def condition(self, beside: tuple[str, ...] = ()) -> Condition | None:
        """The search that finds what this writes; None when it is named by its id, or just created."""
        if self.method == "POST":
            unless = self.conditions.if_none_exist
            if unless is None:
                return None
            return self._placed(lambda: parsed(self.address.resource_type, unless, self._base_url), "ifNoneExist")
        if self.address.kind != "type":
            return None
        given = [(name, value) for name, value in self.query if name not in beside]
        return self._placed(lambda: condition(self.address.resource_type, given, self._base_url), "url")

    def _placed(self, make: Any, element: str) -> Condition:
        try:
            made: Condition = make()
        except FhirError as error:
            raise fail(error.code, str(error), f"{self.path}.request.{element}", status=error.status) from None
        return made

    async def resource(self) -> Resource:
        if self.sent is None:
            raise fail("structure", "a resource is expected here", f"{self.path}.resource")
        localize(self.sent, self._base_url)
        return self.sent

    async def bundle(self) -> Resource:
        raise fail("not-supported", "a Bundle in a Bundle is not processed", f"{self.path}.request.url")

    async def parameters(self) -> Resource | None:
        return None if self.sent is None else await self.resource()

    async def patch(self) -> Patch:
        return self.patch_of(await self.resource())

    def patch_of(self, sent: Resource) -> Patch:
        """The patch that a Binary or Parameters resource holds."""
        return patching.of_entry(sent, self._base_url)

    async def form(self) -> Parameters:
        raise fail("not-supported", "a search in a Bundle is a GET", f"{self.path}.request.url")


def _address(url: object, path: str, base_url: str) -> tuple[Address, Parameters]:
    """What an entry's url names, relative to the base or under it."""
    place = f"{path}.request.url"
    if not isinstance(url, str):
        raise fail("value", "request.url is a string such as Type/id", place)
    way, _, query = url.removeprefix(f"{base_url}/").partition("?")
    try:
        address = parse(unquote(way, errors="strict").removeprefix("/"))
        parameters = meant(parse_qsl(query, keep_blank_values=True, errors="strict"))
    except FhirError as error:
        raise fail("value", f"request.url {url[:200]!r}: {error}", place) from None
    except ValueError:
        raise fail("value", f"request.url {url[:200]!r} is not valid UTF-8", place) from None
    return address, parameters


def _conditions(request: dict[str, Any], path: str) -> Conditions:
    given: dict[str, str] = {}
    for element, name in _CONDITIONS.items():
        if element in request:
            if not isinstance(request[element], str):
                raise fail("structure", f"{element} is a string", f"{path}.request.{element}")
            given[name] = request[element]
    return Conditions(**given)


def _sent(entry: dict[str, Any], method: str, address: Address, path: str) -> Resource | None:
    """The resource of the entry, which must be what its request is about."""
    resource = entry.get("resource")
    if address.kind == "operation":
        if resource is not None and not isinstance(resource, dict):
            raise fail("structure", "a resource is expected here", f"{path}.resource")
        return resource
    if method not in {"POST", "PUT", "PATCH"}:
        return None
    if address.type is None or address.kind not in ({"type"} if method == "POST" else {"type", "instance"}):
        raise fail("value", f"{method} can't be done there in a Bundle", f"{path}.request.url")
    types = _CARRYING.get(method, (address.type,))
    if not isinstance(resource, dict) or resource.get("resourceType") not in types:
        raise fail("structure", f"a {' or a '.join(str(t) for t in types)} is expected here", f"{path}.resource")
    if method == "PUT" and address.kind == "instance" and resource.get("id") != address.id:
        raise fail("value", "request.url and the resource's id differ", f"{path}.resource.id")
    return resource


def at(error: FhirError, place: str) -> FhirError:
    """The refusal of one entry, its expressions made those of the Bundle."""
    return FhirError(*(_issue_at(issue, place) for issue in error.issues), status=error.status, headers=error.headers)


def _issue_at(issue: Issue, place: str) -> Issue:
    if (issue.expression or "").startswith("Bundle.entry["):
        return issue
    inside = (issue.expression or "").partition(".")[2]
    return replace(issue, expression=f"{place}.{inside}" if inside else place)
