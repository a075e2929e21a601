"""`$meta`, `$meta-add` and `$meta-delete`: the profiles, security labels and tags of one resource (FHIR R4 Resource, operations).

Only of one resource: for all of a type R4 leaves `$meta` to the server, and the answer would take a look at every tagged one.
"""

from collections.abc import Callable
from typing import Any

from fhir_server.interactions import update_in
from fhir_server.operations import Answer, Call, Operation, Resource, arguments
from fhir_server.outcome import FhirError, fail
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.validation import validate

Meta = dict[str, Any]
_MEMBERS = ("profile", "security", "tag")


async def read_meta(call: Call) -> Answer:
    """The meta of a resource."""
    assert call.resource_type is not None
    assert call.id is not None
    arguments.check_body("meta", call.body, frozenset())
    found = await call.interactions.read(call.access, call.resource_type, call.id, call.act)
    assert found.resource is not None
    return _answer(found.resource)


async def add_meta(call: Call) -> Answer:
    """Add profiles, security labels and tags; those that are there already stay as they are."""
    return await _changed(call, "meta-add", _with)


async def delete_meta(call: Call) -> Answer:
    """Take profiles, security labels and tags away; that one isn't there is no error."""
    return await _changed(call, "meta-delete", _without)


async def _changed(call: Call, name: str, change: Callable[[list[Any], list[Any]], list[Any]]) -> Answer:
    resource_type, id_ = call.resource_type, call.id
    assert resource_type is not None
    assert id_ is not None
    asked = _asked(call, name)

    async def work(unit: UnitOfWork) -> Callable[[], Resource]:
        call.access.require(resource_type, "u")
        resource = await unit.seen(resource_type, id_, "u")
        if resource is None or not call.access.covers(resource, "r"):
            raise fail("not-found", f"there is no {resource_type}/{id_}")
        meta = resource["meta"]
        changed = {member: change(meta.get(member, []), asked.get(member, [])) for member in _MEMBERS}
        kept = {k: v for k, v in meta.items() if k not in _MEMBERS}
        resource["meta"] = kept | {member: value for member, value in changed.items() if value}
        stored, _ = await update_in(unit, call.access, resource, None)
        return lambda: unit.final(stored)

    return _answer((await call.interactions.transact(call.access, call.act, work))())


def _asked(call: Call, name: str) -> Meta:
    arguments.check_body(name, call.body, frozenset({"meta"}))
    found = list(arguments.parts(call.body, "meta"))
    if call.body is None or len(found) != 1 or not isinstance(found[0].get("valueMeta"), dict):
        raise fail("required", f"${name} is sent Parameters with one `meta` (valueMeta)", "Parameters.parameter", status=400)
    if issues := [i for i in validate(call.body) if i.severity in {"error", "fatal"}]:
        raise FhirError(*issues, status=400)
    asked: Meta = found[0]["valueMeta"]
    return asked


def _key(item: Any) -> Any:
    """What tells two of them apart: a profile itself; of a Coding its system and code (FHIR R4 2.26.3.3)."""
    return (item.get("system"), item.get("code")) if isinstance(item, dict) else item


def _with(present: list[Any], asked: list[Any]) -> list[Any]:
    known = {_key(item) for item in present}
    new = {_key(item): item for item in asked if _key(item) not in known}
    return [*present, *new.values()]


def _without(present: list[Any], asked: list[Any]) -> list[Any]:
    gone = {_key(item) for item in asked}
    return [item for item in present if _key(item) not in gone]


def _answer(resource: Resource) -> Answer:
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": resource["meta"]}]}
    return Answer(parameters, headers={"ETag": f'W/"{resource["meta"]["versionId"]}"'})


_DEFINITION = "http://hl7.org/fhir/OperationDefinition/Resource-"
OPERATIONS = (
    Operation("meta", f"{_DEFINITION}meta", frozenset({"instance"}), read_meta),
    Operation(
        "meta-add", f"{_DEFINITION}meta-add", frozenset({"instance"}), add_meta, affects_state=True, parameters={"meta": "Meta"}
    ),
    Operation(
        "meta-delete",
        f"{_DEFINITION}meta-delete",
        frozenset({"instance"}),
        delete_meta,
        affects_state=True,
        parameters={"meta": "Meta"},
    ),
)
