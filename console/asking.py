"""FHIR interactions asked for by a page: the same door as HTTP's, in the rights of the person at the browser."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fhir_server.addresses import parse
from fhir_server.exchange import Ask, Conditions, Parameters, Patch, Prefer, Reply
from fhir_server.outcome import fail
from fhir_server.patching import as_patch
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.rest import Rest
from smart_auth.access import Access

_MOST = "1000"
# A parameter of an operation: by its name, a value in JSON's own type, or `{"valueCode": ...}` where FHIR has several types.
Argument = Any


@dataclass(slots=True)
class _Asked(Ask):
    """An interaction whose body is at hand already."""

    body: Any = None

    async def resource(self) -> Resource:
        return self._some()

    async def bundle(self) -> Resource:
        return self._some()

    async def parameters(self) -> Resource | None:
        return self.body if self.body is None else self._some()

    async def patch(self) -> Patch:
        return as_patch(self.body, "")

    async def form(self) -> Parameters:
        return self.query

    def _some(self) -> Resource:
        if not isinstance(self.body, dict):
            raise fail("structure", "a resource is expected")
        return self.body


@dataclass(slots=True)
class Found:
    """A searchset: the matches, and by `reference` (`Patient/1`) everything that came with them."""

    matches: list[Resource]
    total: int | None = None
    next: str | None = None
    by_reference: dict[str, Resource] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.matches)

    def __len__(self) -> int:
        return len(self.matches)

    def of(self, reference: Any) -> Resource | None:
        """What a Reference element (or the text of one) leads to, if it came too."""
        to = reference.get("reference") if isinstance(reference, dict) else reference
        return self.by_reference.get(to.partition("/_history/")[0]) if isinstance(to, str) else None

    def included(self, resource_type: str) -> list[Resource]:
        """Everything of a type that came, matches too."""
        return [r for r in self.by_reference.values() if r["resourceType"] == resource_type]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a person can ask and do: each method is one interaction, refused (FhirError) as it would be over HTTP."""

    rest: Rest
    access: Access
    peer: str | None = None

    async def ask(
        self,
        method: str,
        address: str,
        body: Any = None,
        *,
        if_match: str | None = None,
        unless: str | None = None,
        query: Parameters | None = None,
    ) -> Reply:
        """An interaction by its address below the FHIR base, such as `Patient/1` or `Task?status=ready`."""
        path, _, text = address.partition("?")
        parameters = [*parse_qsl(text, keep_blank_values=True), *(query or [])]
        conditions = Conditions(if_match=f'W/"{if_match}"' if if_match else None, if_none_exist=unless)
        asked = _Asked(method, parse(path), parameters, self.access, conditions, Prefer("representation"), self.peer, body)
        return await self.rest.perform(asked)

    async def read(self, reference: str) -> Resource:
        """The current version of `Patient/1`. FhirError `not-found`, `deleted`, `forbidden`."""
        if target(reference) is None:  # as with an id that somebody has typed
            raise fail("not-found", f"there is no {reference[:80]}")
        found = (await self.ask("GET", reference)).resource
        assert found is not None
        return found

    async def search(self, resource_type: str, *query: tuple[str, str], **parameters: str | Iterable[str] | None) -> Found:
        """A search. In names of `parameters`, `__` stands for `:` and `_` within for `-`: `based_on`, `_include__x`; None is left
        out. Without `_count` there may be 1,000 matches."""
        asked = [*query, *_named(parameters)]
        if not any(name == "_count" for name, _ in asked):
            asked.append(("_count", _MOST))
        return found((await self.ask("GET", resource_type, query=asked)).resource)

    async def page(self, resource_type: str, address: str) -> Found:
        """The page that `Found.next` names."""
        return found((await self.ask("GET", resource_type, query=[("_page", address)])).resource)

    async def together(self, *asked: Any) -> list[Any]:
        """What several of these come to, asked at once: `a, b = await desk.together(desk.search(...), desk.search(...))`."""
        return list(await asyncio.gather(*asked))

    async def create(self, resource: Resource, unless: str | None = None) -> Resource:
        """The resource as it is stored; with `unless`, a search, the one that is there already (If-None-Exist)."""
        return _some(await self.ask("POST", resource["resourceType"], resource, unless=unless))

    async def update(self, resource: Resource) -> Resource:
        """Write a resource that was read before; FhirError 412 when somebody else wrote it meanwhile."""
        version = resource.get("meta", {}).get("versionId")
        return _some(await self.ask("PUT", f"{resource['resourceType']}/{resource['id']}", resource, if_match=version))

    async def patch(self, reference: str, *changes: dict[str, Any], if_match: str | None = None) -> Resource:
        """Apply a JSON Patch (RFC 6902)."""
        return _some(await self.ask("PATCH", reference, list(changes), if_match=if_match))

    async def delete(self, reference: str, if_match: str | None = None) -> None:
        await self.ask("DELETE", reference, if_match=if_match)

    async def operation(self, address: str, *, if_match: str | None = None, **arguments: Argument) -> Any:
        """Call an operation, such as `ServiceRequest/1/$accept`. What it answers: a resource, or None.

        Arguments: a text is a valueString, `True` a valueBoolean, a number a valueInteger; `reference("Patient/1")`,
        `concept(...)`, or `{"valueCode": "x"}` give another; a list repeats it; None leaves it out.
        """
        body = {"resourceType": "Parameters", "parameter": parameters(arguments)} if arguments else None
        return (await self.ask("POST", address, body, if_match=if_match)).resource

    async def question(self, address: str, **parameters: str | Iterable[str] | None) -> Any:
        """Call an operation that changes nothing, by GET."""
        return (await self.ask("GET", address, query=list(_named(parameters)))).resource


def found(bundle: Resource | None) -> Found:
    """What is in a searchset Bundle."""
    assert bundle is not None
    entries = bundle.get("entry", [])
    matches = [e["resource"] for e in entries if e["search"]["mode"] == "match"]
    by_reference = {f"{r['resourceType']}/{r['id']}": r for e in entries if "id" in (r := e["resource"])}
    following = next((link["url"] for link in bundle.get("link", ()) if link["relation"] == "next"), None)
    page = dict(parse_qsl(following.partition("?")[2])).get("_page") if following else None
    return Found(matches, bundle.get("total"), page, by_reference)


def parameters(arguments: dict[str, Argument]) -> list[dict[str, Any]]:
    """The parameters of a Parameters resource. In names, `_` stands for `-` but where they begin with it: `_count`."""
    each = ((name, v) for name, values in arguments.items() for v in (values if isinstance(values, list) else [values]))
    return [{"name": name[0] + name[1:].replace("_", "-"), **_value(value)} for name, value in each if value is not None]


def reference(to: str) -> Argument:
    """The argument that refers to a resource, such as `Device/ct1`."""
    return {"valueReference": {"reference": to}}


def _value(value: Argument) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"resource": value} if "resourceType" in value else value
    if isinstance(value, bool):
        return {"valueBoolean": value}
    return {"valueInteger": value} if isinstance(value, int) else {"valueString": str(value)}


def _named(parameters: dict[str, str | Iterable[str] | None]) -> Iterator[tuple[str, str]]:
    for name, values in parameters.items():
        written = name[0] + name[1:].replace("__", ":").replace("_", "-")
        for value in [values] if isinstance(values, str) else values or ():
            yield written, value


def _some(reply: Reply) -> Resource:
    found = reply.resource or reply.stored
    assert found is not None
    return found
