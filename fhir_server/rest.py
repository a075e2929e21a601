"""The FHIR REST edge (FHIR R4 3.1.0): which address and method is which interaction, and what is answered.

HTTP and the entries of a batch come through the same door: both are an `Ask`, and both get a `Reply`.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fhir_server import bundles, conditional, history
from fhir_server.addresses import Address
from fhir_server.audit import Act
from fhir_server.cors import Origins, anybody
from fhir_server.exchange import Ask, Parameters, Reply, etag, view
from fhir_server.http_frame import Authenticate, Edge
from fhir_server.interactions import Interactions, known_type
from fhir_server.metadata import Metadata
from fhir_server.operations import Call, dispatch
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Resource
from fhir_server.searchset import link, searchset

_Handler = Callable[[Ask], Awaitable[Reply]]


class Rest:
    """The interactions under the FHIR base."""

    def __init__(
        self,
        interactions: Interactions,
        authenticate: Authenticate,
        *,
        base_url: str,
        metadata: Callable[[], Resource],
        terminology: Callable[[], Resource] | None = None,
        origins: Origins = anybody,
    ) -> None:
        """`metadata` makes the CapabilityStatement, `terminology` the TerminologyCapabilities; scripts of `origins` may call."""
        self._origins = origins
        self._interactions = interactions
        self._authenticate = authenticate
        self._base = f"{base_url}/fhir"
        self._metadata = Metadata(metadata, terminology)
        self._handlers: dict[str, dict[str, _Handler]] = {
            "metadata": {"GET": self.capabilities},
            "base": {"GET": self.search, "POST": self.bundle},
            "form": {"POST": self.search_form},
            "history": {"GET": self.history},
            "type": {
                "GET": self.search,
                "POST": self.create,
                "PUT": self.update_where,
                "PATCH": self.patch_where,
                "DELETE": self.delete_where,
            },
            "instance": {"GET": self.read, "PUT": self.update, "PATCH": self.patch, "DELETE": self.delete},
            "version": {"GET": self.vread},
            "compartment": {"GET": self.search},
            "operation": {"GET": self.operation, "POST": self.operation},
        }

    def edge(self) -> Edge:
        """All that there is under the base, as an ASGI application."""
        return Edge(self.perform, self._authenticate, self._methods, self._base, self._origins)

    async def perform(self, ask: Ask) -> Reply:
        """Do what is asked for. FhirError is the refusal, 405 for a method that the address does not take."""
        handler = self._handlers[ask.address.kind].get(ask.method)
        if handler is None:
            allowed = ", ".join(self._methods(ask.address))
            issue = Issue("not-supported", f"{ask.method[:16]} is not supported here; {allowed} is")
            raise FhirError(issue, status=405, headers={"Allow": allowed})
        return await handler(ask)

    def _methods(self, address: Address) -> list[str]:
        handlers = self._handlers[address.kind]
        return [*handlers, *(["HEAD"] if "GET" in handlers else []), "OPTIONS"]

    async def capabilities(self, ask: Ask) -> Reply:
        return Reply(resource=self._metadata.answer(ask.query, lenient=ask.prefer.lenient))

    # Reading

    async def read(self, ask: Ask) -> Reply:
        to, shown = ask.address, view(ask.query, ask.address.type, lenient=ask.prefer.lenient)
        found = await self._interactions.read(ask.access, to.resource_type, to.resource_id, ask.act("read"))
        assert found.resource is not None
        if ask.conditions.seen(found.resource):
            return Reply(304, stored=found.resource)
        return Reply(resource=shown.show(found.resource), stored=found.resource)

    async def vread(self, ask: Ask) -> Reply:
        to, shown = ask.address, view(ask.query, ask.address.type, lenient=ask.prefer.lenient)
        found = await self._interactions.vread(ask.access, to.resource_type, to.resource_id, to.version, ask.act("vread"))
        assert found.resource is not None
        if ask.conditions.seen(found.resource):
            return Reply(304, stored=found.resource)
        return Reply(resource=shown.show(found.resource), stored=found.resource)

    async def history(self, ask: Ask) -> Reply:
        to, lenient = ask.address, ask.prefer.lenient
        page = await self._interactions.history(ask.access, to.type, to.id, ask.query, lenient=lenient, act=self._of_history(ask))
        return Reply(resource=history.bundle(page, self._base, str(to), ask.query, self._link))

    def _of_history(self, ask: Ask) -> Act:
        to = ask.address
        return ask.act(f"history-{'instance' if to.id else 'type' if to.type else 'system'}")

    # Writing

    async def create(self, ask: Ask) -> Reply:
        ask.refuse_parameters()
        resource_type, unless = ask.address.resource_type, ask.conditions.if_none_exist
        resource = await self._resource(ask)
        if unless is None:
            return ask.written(await self._interactions.create(ask.access, resource, ask.act("create")), created=True)
        where = conditional.parsed(resource_type, unless, self._base)
        act = ask.act("create", where.criteria)
        stored, created = await conditional.create(self._interactions, ask.access, resource, where, act)
        return ask.written(stored, created=created, located=True)

    async def update(self, ask: Ask) -> Reply:
        ask.refuse_parameters()
        to, if_match, only_new = ask.address, etag(ask.conditions.if_match), ask.conditions.only_new()
        resource = await self._resource(ask)
        if resource.get("id") != to.id:
            raise fail("value", f"the id must be {to.resource_id[:64]}, as the address says", f"{to.type}.id")
        act = ask.act("update")
        stored, created = await self._interactions.update(ask.access, resource, if_match, act, only_new=only_new)
        return ask.written(stored, created=created)

    async def update_where(self, ask: Ask) -> Reply:
        where, if_match = self._condition(ask), etag(ask.conditions.if_match)
        only_new = ask.conditions.only_new()
        resource, act = await self._resource(ask), ask.act("update", where.criteria)
        stored, created = await conditional.update(
            self._interactions, ask.access, resource, where, act, if_match=if_match, only_new=only_new
        )
        return ask.written(stored, created=created, located=True)

    async def patch(self, ask: Ask) -> Reply:
        ask.refuse_parameters()
        to, if_match = ask.address, etag(ask.conditions.if_match)
        changes = await ask.patch()
        stored = await self._interactions.patch(ask.access, to.resource_type, to.resource_id, changes, if_match, ask.act("patch"))
        return ask.written(stored, unseen=True)

    async def patch_where(self, ask: Ask) -> Reply:
        where, if_match = self._condition(ask), etag(ask.conditions.if_match)
        changes, act = await ask.patch(), ask.act("patch", where.criteria)
        stored = await conditional.patch(self._interactions, ask.access, changes, where, act, if_match=if_match)
        return ask.written(stored, located=True, unseen=True)

    async def delete(self, ask: Ask) -> Reply:
        ask.refuse_parameters()
        to, if_match = ask.address, etag(ask.conditions.if_match)
        await self._interactions.delete(ask.access, to.resource_type, to.resource_id, if_match, ask.act("delete"))
        return Reply(204)

    async def delete_where(self, ask: Ask) -> Reply:
        """FHIR R4 3.1.0.7.1: the only match; or, where `_count` says how many at most, those."""
        most = conditional.most(ask.query)
        where = self._condition(ask, ("_count",))
        if_match = etag(ask.conditions.if_match)
        done, more = await conditional.delete(
            self._interactions, ask.access, where, ask.act("delete", where.criteria), if_match=if_match, most=most
        )
        return Reply(204) if most is None else Reply(resource=conditional.deleted(where.type, done, more=more))

    async def _resource(self, ask: Ask) -> Resource:
        resource, resource_type = await ask.resource(), ask.address.resource_type
        if known_type(resource) != resource_type:
            text = f"a {resource_type} is expected here, not a {resource['resourceType']}"
            raise fail("structure", text, "Resource.resourceType")
        return resource

    def _condition(self, ask: Ask, beside: tuple[str, ...] = ()) -> conditional.Condition:
        parameters = [(name, value) for name, value in ask.query if name not in beside]
        return conditional.condition(ask.address.resource_type, parameters, self._base)

    # Searching

    async def search(self, ask: Ask) -> Reply:
        return await self._search(ask, ask.query)

    async def search_form(self, ask: Ask) -> Reply:
        return await self._search(ask, await ask.form())

    async def _search(self, ask: Ask, parameters: Parameters) -> Reply:
        to = ask.address
        act = ask.act("search-type" if to.type else "search-system", urlencode(parameters))
        found = await self._interactions.search(
            ask.access,
            to.type,
            parameters,
            act,
            base_url=self._base,
            lenient=ask.prefer.lenient,
            compartment=(to.compartment.type, to.compartment.id) if to.compartment else None,
        )
        return Reply(resource=searchset(found, self._base, str(to)))

    def _link(self, address: str, parameters: Parameters) -> str:
        return link(self._base, address, parameters)

    # Bundles and operations

    async def bundle(self, ask: Ask) -> Reply:
        ask.refuse_parameters()
        body = await ask.bundle()
        if body.get("resourceType") != "Bundle":
            raise fail("structure", "only a Bundle can be posted to the base", "Resource.resourceType")
        return Reply(resource=await bundles.process(self._interactions, self.perform, ask, body, self._base))

    async def operation(self, ask: Ask) -> Reply:
        to = ask.address
        body = await ask.parameters() if ask.method == "POST" else None
        act, if_match = ask.act("operation"), etag(ask.conditions.if_match)
        call = Call(self._interactions, ask.access, act, self._base, to.type, to.id, ask.query, body, if_match)
        answer = await dispatch.call(self._interactions.registry, call, to.operation, ask.method)
        return Reply(answer.status, answer.resource, headers=dict(answer.headers), native=answer.native)
