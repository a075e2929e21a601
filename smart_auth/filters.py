"""The one place where rights become conditions on data.

For a resource type and an action:

    some of   scopes of the level system/ (of tokens without a person): their own search parameters
              scopes of the levels user/ and patient/: their own search parameters, and for patient/ the patient's compartment,
                  and  what the person's role allows
                  and  what the person may see: own patients (of some roles), labels, what patients have denied;
                       or the record that was opened in an emergency
              the person's own entry in the directory, to read

A scope counts for its own actions only: `Observation.r` with `Condition.s` makes no Observation searchable. Whatever is missing
(a role, the person, the patient of the launch, the circumstances) makes the scope count for nothing.
"""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from fhir_server.outcome import FhirError
from fhir_server.references import target
from fhir_server.search.conditions import keyed
from fhir_server.search.index import searchable
from fhir_server.search.query import compile_query
from smart_auth import labels, membership
from smart_auth.circumstances import Circumstances
from smart_auth.logic import Rule, every, none, some
from smart_auth.membership import SHARED
from smart_auth.roles import Confidentiality, Role, role
from smart_auth.scopes import Action, Scope

# Kinds of search parameters that a scope or a role can be limited by: those that are text keys of the index.
KINDS = frozenset({"token", "reference", "string", "uri"})
_PERSONS = frozenset({"Practitioner", "PractitionerRole", "Person", "RelatedPerson"})
# Never under patient/ scopes: what it shows of others' doings is not the patient's data.
_NEVER_A_PATIENTS = frozenset({"AuditEvent"})


@lru_cache(4096)
def of_query(resource_type: str, query: str) -> Rule | None:
    """The condition of a scope's search parameters; None where a type has no such parameter, or none that can limit a scope."""
    if not query:
        return True
    try:
        parameters = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
        known = searchable(resource_type)
        if any(known.get(name) not in KINDS for name, _ in parameters):
            return None
        compiled = compile_query(resource_type, parameters)
    except (ValueError, FhirError):
        return None
    return None if compiled.pending else compiled.filter or None


def enforceable(scope: Scope) -> bool:
    """Whether a scope can be granted: its search parameters, if any, limit the type that it names."""
    return scope.resource_type == "*" or of_query(scope.resource_type, scope.query) is not None


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose rights: what of an access token they depend on. `person`: whether somebody is behind it."""

    scopes: tuple[Scope, ...]
    person: bool
    role: str | None
    user: str | None
    patient: str | None
    circumstances: Circumstances | None


def rule(holder: Holder, resource_type: str, action: Action) -> Rule | None:
    """What the holder may do this to, of this type. None: to nothing, whatever there is."""
    if holder.circumstances is None:
        return None
    backend: list[Rule] = []
    personal: list[Rule] = []
    for scope in holder.scopes:
        if not scope.covers(resource_type, action) or (own := of_query(resource_type, scope.query)) is None:
            continue
        if scope.level == "system" and not holder.person:
            backend.append(own)
        elif scope.level == "user" and holder.person and holder.user:
            personal.append(own)
        elif scope.level == "patient" and (within := _compartment(holder, scope, resource_type, action)) is not None:
            personal.append(every(own, within))
    found: list[Rule] = []
    if backend:
        found.append(some(backend))
    allowed = _of_role(holder, resource_type, action)
    if personal and allowed is not None:
        found.append(every(some(personal), allowed, limits(holder, resource_type, action)))
    if action == "r" and (entry := _own_entry(holder, resource_type)) is not None:
        found.append(entry)
    return some(found) if found else None


def reach(holder: Holder, resource_type: str) -> Rule:
    """What the holder may refer to, of this type; anything else is for it as if it weren't there.

    What it may read or find; and where no scope of it names the type, what it could see if one did.
    """
    if holder.circumstances is None:
        return False
    known = [r for action in ("r", "s") if (r := rule(holder, resource_type, action)) is not None]
    if known:
        return some(known)
    levels = {scope.level for scope in holder.scopes}
    if not holder.person and "system" in levels:
        return True
    shared = resource_type in SHARED
    if holder.person and "user" in levels:
        within: Rule = True
    elif holder.patient and resource_type not in _NEVER_A_PATIENTS and membership.belongs(resource_type):
        within = _of_patient(holder.patient, resource_type)
    else:
        within = shared
    allowed = _of_role(holder, resource_type, "r")
    return every(within, shared if allowed is None else allowed, limits(holder, resource_type, "r"))


def limits(holder: Holder, resource_type: str, action: Action) -> Rule:
    """What of a type the person may do this to by who it is and what patients want; an emergency is none for deleting."""
    known, about = role(holder.role), holder.circumstances or Circumstances()
    clearance: Confidentiality = known.clearance if known else "N"
    higher = labels.above(clearance)
    labelled: Rule = keyed(higher, negated=True) if higher else True
    if not membership.belongs(resource_type):
        return labelled
    rules = [labelled]
    if about.closed:
        rules.append(membership.not_of(resource_type, about.closed))
    rules += [none(every(membership.of(resource_type, d.patients), d.hides(resource_type))) for d in about.denials]
    if known and known.own_patients:
        own = membership.of(resource_type, about.own or ())
        rules.append(some([own, membership.of_nobody(resource_type)]) if resource_type in SHARED else own)
    if about.opened and known and known.breaks_glass and action != "d":
        return some([every(*rules), membership.of(resource_type, about.opened)])
    return every(*rules)


def _of_role(holder: Holder, resource_type: str, action: Action) -> Rule | None:
    """What the person's role may do this to; True where there is no person, None for nothing."""
    if not holder.person:
        return True
    known: Role | None = role(holder.role)
    rules = [r for q in (known.covering(resource_type, action) if known else ()) if (r := of_query(resource_type, q)) is not None]
    return some(rules) if rules else None


def _compartment(holder: Holder, scope: Scope, resource_type: str, action: Action) -> Rule | None:
    """What a patient/ scope is limited to; None where it gives nothing."""
    if not holder.patient or resource_type in _NEVER_A_PATIENTS:
        return None
    if resource_type in SHARED:
        # By name, and to look at.
        return _of_patient(holder.patient, resource_type) if scope.resource_type != "*" and action in "rs" else None
    return _of_patient(holder.patient, resource_type) if membership.belongs(resource_type) else None


def _of_patient(patient: str, resource_type: str) -> Rule:
    if resource_type not in SHARED:
        return membership.of(resource_type, [patient])
    if not membership.belongs(resource_type):
        return True
    return some([membership.of(resource_type, [patient]), membership.of_nobody(resource_type)])


def _own_entry(holder: Holder, resource_type: str) -> Rule | None:
    """The resource of the person itself (SMART App Launch 2.2, scope `fhirUser`), which needs no scope of its own."""
    to = target(holder.user) if holder.person and role(holder.role) else None
    return {"_id": to.id} if to is not None and to.type == resource_type and to.type in _PERSONS else None
