"""`$validate` (FHIR R4 Resource, operation validate): would this resource do, as it is, and for what is meant to be done with it?

Without a mode: structure, required bindings, invariants, and the profiles that are named by the caller or in `meta.profile`.
With one also what the department says: the interaction is rehearsed, with its rules, reactions and references.
The answer is 200 with an OperationOutcome whatever the judgement; another status says that none could be made.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from fhir_server import audit
from fhir_server.elements import duplicate
from fhir_server.interactions import delete_in, known_type, update_in
from fhir_server.operations import Answer, Call, Operation, Resource, arguments
from fhir_server.operations.loaded import Loaded, is_base
from fhir_server.operations.rehearsal import rehearse
from fhir_server.outcome import FhirError, Issue, fail, operation_outcome
from fhir_server.unit_of_work import UnitOfWork
from fhir_server.validation import validate as check
from fhir_server.validation import validate_profile
from fhir_server.validation.profiles.definitions import STRUCTURE
from smart_auth.scopes import Action

_MODES: dict[str, Action] = {"create": "c", "update": "u", "delete": "d", "profile": "r"}
_NAMES = frozenset({"resource", "mode", "profile"})
# Refusals that say nothing of the resource.
_NO_JUDGEMENT = frozenset({"forbidden", "lock-error", "transient", "timeout", "exception"})


async def validate(call: Call) -> Answer:
    """The outcome: what is wrong, or that all is well."""
    resource_type = call.resource_type
    assert resource_type is not None
    mode, profile, resource = arguments.one(call, "mode"), arguments.one(call, "profile"), _sent(call)
    _check_call(call, mode, profile, resource)
    await _require(call, mode, stored=resource is None)
    if resource is None:
        assert call.id is not None
        if mode == "delete":
            return await _answer(call, await _of_deletion(call))
        found = await call.interactions.read(call.access, resource_type, call.id, call.act)
        assert found.resource is not None
        return _outcome(await _judged(call, found.resource, None, profile))
    return await _answer(call, await _judged(call, resource, mode, profile))


def _sent(call: Call) -> Resource | None:
    """The resource to be judged: in Parameters, or by itself."""
    body = call.body
    if body is None:
        return None
    parts = list(arguments.parts(body, "resource"))
    if body.get("resourceType") != "Parameters" or (call.resource_type == "Parameters" and not parts):
        return body
    arguments.check_body("validate", body, _NAMES)
    if len(parts) > 1 or (parts and not isinstance(parts[0].get("resource"), dict)):
        raise fail("structure", "the parameter resource holds one resource", "Parameters.parameter", status=400)
    found: Resource | None = parts[0]["resource"] if parts else None
    return found


def _check_call(call: Call, mode: str | None, profile: str | None, resource: Resource | None) -> None:
    """Refuse (400) a call that asks for nothing that could be judged."""
    if mode is not None and mode not in _MODES:
        raise fail("value", f"mode is one of {', '.join(_MODES)}, not {mode[:64]!r}", status=400)
    if resource is None and call.id is None:
        raise fail("required", "send the resource, or call $validate on one that is stored", status=400)
    if mode == "delete" and call.id is None:
        raise fail("required", "mode delete is called on the resource that is to be deleted", status=400)
    if mode in {"create", "update"} and resource is None:
        raise fail("required", f"mode {mode} needs the resource that is to be stored", status=400)
    if mode == "profile" and (call.id is None or resource is not None or profile is None):
        raise fail("invalid", "mode profile is called on a stored resource, with the profile and no resource", status=400)
    if mode == "delete" and resource is not None:
        raise fail("invalid", "mode delete takes no resource", status=400)
    if resource is not None and known_type(resource) != call.resource_type:
        text = f"a {call.resource_type} is expected here, not a {resource['resourceType']}"
        raise fail("structure", text, "Resource.resourceType", status=400)


async def _require(call: Call, mode: str | None, *, stored: bool) -> None:
    """The rights that the interaction itself would need; any on this type for a resource that is only looked at."""
    assert call.resource_type is not None
    if mode is not None:
        await call.interactions.require(call.access, call.act, call.resource_type, _MODES[mode])
    elif not stored and not any(call.access.allows(call.resource_type, action) for action in ("c", "u", "r")):
        await call.interactions.require(call.access, call.act, call.resource_type, "c")


async def _judged(call: Call, resource: Resource, mode: str | None, profile: str | None) -> list[Issue]:
    issues = check(resource, best_practice=True)
    if any(i.severity in {"error", "fatal"} for i in issues):
        return issues
    issues += await _of_profiles(call, resource, profile)
    if mode in {"create", "update"}:
        issues += await _of_writing(call, resource, mode)
    return list(dict.fromkeys(issues))


# Profiles


async def _of_profiles(call: Call, resource: Resource, named: str | None) -> list[Issue]:
    """Against the named profile, which must be there (422 if not), and those that the resource says it conforms to."""
    claimed = [p for p in resource.get("meta", {}).get("profile", ()) if isinstance(p, str)]
    wanted = list(dict.fromkeys([*([named] if named else []), *claimed]))
    loaded = Loaded(call.interactions.store)
    await loaded.fetch(p for p in wanted if not is_base(p))
    issues: list[Issue] = []
    for canonical in wanted:
        if is_base(canonical):
            issues += _of_base(resource, canonical)
            continue
        found = loaded.lookup(canonical)
        if found is not None and found["resourceType"] == "StructureDefinition":
            issues += validate_profile(resource, found, loaded.lookup)
        elif canonical == named:
            raise fail("not-found", f"no StructureDefinition is loaded with the url {canonical[:200]}", status=422)
        else:
            text = f"Not checked: the profile {canonical[:200]} is not loaded"
            issues.append(Issue("not-supported", text, f"{resource['resourceType']}.meta.profile", "information"))
    return issues


def _of_base(resource: Resource, canonical: str) -> list[Issue]:
    wanted, given = canonical.partition("|")[0].removeprefix(STRUCTURE), resource["resourceType"]
    if wanted in {given, "Resource"} or (wanted == "DomainResource" and given not in {"Binary", "Bundle", "Parameters"}):
        return []
    return [Issue("structure", f"The profile is about {wanted}, not {given}", given)]


# What the department says


async def _of_writing(call: Call, resource: Resource, mode: str) -> list[Issue]:
    async def work(unit: UnitOfWork) -> None:
        if mode == "create":
            await unit.create(resource, copy=False)
            return
        wanted = {**duplicate(resource), "id": call.id} if call.id and "id" not in resource else resource
        if call.id is not None and wanted["id"] != call.id:
            raise fail("value", f"the id must be {call.id}, as the address says", f"{call.resource_type}.id")
        await update_in(unit, call.access, wanted, None)

    return await _rehearsed(call, work)


async def _of_deletion(call: Call) -> list[Issue]:
    async def work(unit: UnitOfWork) -> None:
        assert call.resource_type is not None
        assert call.id is not None
        if await unit.seen(call.resource_type, call.id, "d") is None:
            raise fail("not-found", f"there is no {call.resource_type}/{call.id}")
        await delete_in(unit, call.resource_type, call.id)

    return await _rehearsed(call, work)


async def _rehearsed(call: Call, work: Callable[[UnitOfWork], Awaitable[None]]) -> list[Issue]:
    try:
        await rehearse(call, work)
    except FhirError as error:
        if error.code in _NO_JUDGEMENT:
            raise
        return list(error.issues)
    return []


# The answer


async def _answer(call: Call, issues: list[Issue]) -> Answer:
    """The outcome, once it is on record that it was asked for."""
    about = f"{call.resource_type}/{call.id}" if call.id is not None else None
    await call.interactions.record(call.access, call.act, audit.seen([about] if about else []))
    return _outcome(issues)


def _outcome(issues: list[Issue]) -> Answer:
    if not issues:
        issues = [Issue("informational", "All OK", severity="information")]
    return Answer(operation_outcome(*(replace(i, diagnostics=i.diagnostics[:2000]) for i in issues)))


OPERATIONS = (
    Operation(
        "validate",
        "http://hl7.org/fhir/OperationDefinition/Resource-validate",
        frozenset({"type", "instance"}),
        validate,
        parameters={"resource": "Resource", "mode": "code", "profile": "uri"},
    ),
)
