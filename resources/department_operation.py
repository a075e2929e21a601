"""What the department's operations have in common: who may call them, what they are given, and what they answer.

A person needs a role that the operation's row names (`smart_auth/roles.py`) and scopes that cover what it changes; a backend
client needs these scopes, of the level system/. A scope with search parameters counts for what the operation is called on, if it
covers that (`seen`), and for what is read; what else is changed needs a scope for the whole type. What such an operation then
does, it does as the department: `with unit.as_department()`.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

from fhir_server import audit
from fhir_server.operations import Call, arguments
from fhir_server.outcome import fail
from fhir_server.references import Target, target
from fhir_server.registry import Resource
from fhir_server.search import dates
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.roles import role
from smart_auth.scopes import Action


async def require(call: Call, operation: str, needs: Mapping[str, str], *, person: bool = False) -> None:
    """Refuse (403, on record) who may not call it. `needs`: resource type to the actions (`cruds`) that scopes cover.

    `person`: it is somebody's own decision or word, which no client alone can give.
    """
    if _may(call, operation, needs, person=person):
        return
    scopes = ", ".join(f"{kind}.{actions}" for kind, actions in sorted(needs.items()))
    text = f"${operation} is for {'persons in ' if person else ''}the roles that do this, with scopes for {scopes}"
    await call.interactions.store.ensure("AuditEvent")
    await call.interactions.reads.write(audit.audit_event(call.act, call.access, (), failed=text))
    raise fail("forbidden", text)


def _may(call: Call, operation: str, needs: Mapping[str, str], *, person: bool) -> bool:
    access = call.access
    if access.internal and not access.person:
        return True
    known = role(access.role)
    if not (known is not None and known.calls(operation) if access.person else not person):
        return False
    wanted = [(kind, cast("Action", action)) for kind, actions in needs.items() for action in actions]
    return all(
        any(s.covers(kind, action) and (not s.query or _is_judged_later(call, kind, action)) for s in access.own_scopes)
        for kind, action in wanted
    )


def _is_judged_later(call: Call, kind: str, action: Action) -> bool:
    """Whether what this is done to is looked at by itself: what the operation is called on, and what is read."""
    return action in "rs" or (action != "c" and call.id is not None and kind == call.resource_type)


def reference(call: Call, name: str, *types: str) -> Target | None:
    """The resource that a parameter refers to (valueReference), of one of these types. FhirError 400 for anything else."""
    given = list(arguments.parts(call.body, name))
    if not given:
        return None
    to = target(given[0].get("valueReference"), call.base_url)
    if len(given) > 1 or to is None or to.type not in types:
        raise fail("value", f"{name} is one valueReference to a {' or '.join(types)}", "Parameters.parameter", status=400)
    return to


def moment(call: Call, name: str) -> datetime | None:
    """A parameter that is a moment with its time zone. FhirError 400 for anything else."""
    said = arguments.moment(call, name)
    if said is None:
        return None
    if not re.search("T.*(Z|[+-][0-9]{2}:[0-9]{2})$", said):
        raise fail("value", f"{name} is a moment with its time zone", "Parameters.parameter", status=400)
    return dates.moment(said)


async def seen(unit: UnitOfWork, to: Target, action: Action = "r") -> Resource:
    """The resource, as far as the caller sees it.

    FhirError 404; 403 where its scopes for this action don't cover it.
    """
    found = await unit.seen(to.type, to.id, "r")
    if found is None:
        raise fail("not-found", f"there is no {to}")
    if action != "r" and not unit.access.grants(found, action):
        raise fail("forbidden", f"this {to.type} is outside of what the access token is for", to.type)
    return found


def who(call: Call) -> Resource:
    """The person who calls, or the client where there is none: a Reference."""
    if call.access.user:
        return {"reference": call.access.user} | ({"display": call.access.user_name} if call.access.user_name else {})
    client = call.access.client_id
    return {"identifier": {"system": "urn:fhir-ris:client", "value": client}, "display": client}


def answer(references: Iterable[tuple[str, str]]) -> Resource:
    """Parameters of (name, reference)."""
    rows = [{"name": name, "valueReference": {"reference": to}} for name, to in references]
    return {"resourceType": "Parameters", "parameter": rows}
