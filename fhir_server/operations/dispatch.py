"""From `$name` to the operation that is registered for it there (FHIR R4 3.2.0)."""

from dataclasses import replace

from fhir_server.operations import Answer, Call, Operation
from fhir_server.operations.arguments import check_address
from fhir_server.operations.expectation import Expecting
from fhir_server.outcome import FhirError, Issue, fail
from fhir_server.registry import Registry


async def call(registry: Registry, call: Call, name: str, method: str) -> Answer:
    """Run the operation `name` (with or without its `$`) where `call` asks for it, as HTTP's `method` (GET, HEAD or POST).

    FhirError `not-supported`: 404 where there is no such operation, 405 where this one is called by another method; 412 where it
    changes something, and what it is called on is at another version than the caller has seen.
    """
    name = name.removeprefix("$")
    operation = _found(registry, call, name)
    allowed = ("POST",) if operation.affects_state else ("GET", "HEAD", "POST")
    if method not in allowed:
        why = "changes what is stored, so it is called by POST" if operation.affects_state else "takes GET or POST"
        raise FhirError(Issue("not-supported", f"${name} {why}"), status=405, headers={"Allow": ", ".join(allowed)})
    check_address(operation, call.parameters)
    # R4's code for this interaction, whichever operation it is.
    act = replace(call.act, event="operation", detail=f"${name}")
    call = replace(call, act=act)
    if operation.affects_state and call.id is not None and call.if_match is not None:
        call = replace(call, interactions=Expecting(call))
    return await operation.run(call)


def available(registry: Registry, resource_type: str | None, id_: str | None) -> dict[str, Operation]:
    """The operations that can be called on the base, on a type or on a resource of it, by name."""
    level = "system" if resource_type is None else "type" if id_ is None else "instance"
    return {
        name: operation
        for name, operations in registry.operations.items()
        for operation in operations
        if level in operation.levels and (resource_type is None or operation.types is None or resource_type in operation.types)
    }


def _found(registry: Registry, call: Call, name: str) -> Operation:
    known = available(registry, call.resource_type, call.id)
    if name in known:
        return known[name]
    where = "the base" if call.resource_type is None else call.resource_type if call.id is None else f"a {call.resource_type}"
    offered = ", ".join(f"${n}" for n in sorted(known)) or "none"
    raise fail("not-supported", f"there is no operation ${name[:64]} on {where}; there are: {offered}", status=404)
