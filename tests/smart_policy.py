"""The policy, said again without any index or filter: for one caller, one resource and one action, yes or no.

It is written from the model in docs/security.md and looks at whole resources; of the product it shares only the table of roles.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from smart_auth.roles import ROLES

Resource = dict[str, Any]

V3 = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
SHARED = {"Practitioner", "PractitionerRole", "Organization", "Location", "Medication", "HealthcareService", "Endpoint", "Device"}
# The elements that make a resource a patient's, of the types that the tests draw.
OWNERS = {
    "Observation": ("subject", "performer"), "DiagnosticReport": ("subject",), "Encounter": ("subject",),
    "List": ("subject", "source"),
    "Communication": ("subject", "sender", "recipient"), "Task": ("for",), "Device": ("patient",), "Consent": ("patient",),
    "ServiceRequest": ("subject", "performer"), "Binary": ("securityContext",),
}  # fmt: skip
HAS_STATUS = set(OWNERS) - {"Binary"} | {"Location"}


@dataclass(frozen=True)
class Granted:
    """A scope, in its parts. `query` is a parameter and its alternatives, or None."""

    level: str
    type: str
    actions: str
    query: tuple[str, tuple[str, ...]] | None = None

    @property
    def text(self) -> str:
        query = f"?{self.query[0]}={','.join(self.query[1])}" if self.query else ""
        return f"{self.level}/{self.type}.{self.actions}{query}"


@dataclass(frozen=True)
class Who:
    """A caller."""

    scopes: tuple[Granted, ...]
    role: str | None = None
    patient: str | None = None
    user: str | None = None


@dataclass
class Policy:
    """What a caller may do in a world (all resources that there are)."""

    who: Who
    world: list[Resource]
    opened: frozenset[str] = field(default_factory=frozenset)

    def allows(self, resource: Resource, action: str) -> bool:
        """Whether the caller may do this to this resource."""
        return self._by_scope(resource, action) or self._is_own_entry(resource, action)

    def covers(self, kind: str, action: str) -> bool:
        """Whether there is any right of this kind at all (otherwise it is 403, whatever is stored)."""
        own_entry = action == "r" and bool(self.who.role) and bool(self.who.user) and str(self.who.user).startswith(f"{kind}/")
        return own_entry or any(self._counts(scope, kind, action) for scope in self.who.scopes)

    def reaches(self, resource: Resource) -> bool:
        """Whether a write of the caller may refer to this resource."""
        kind = resource["resourceType"]
        if self.covers(kind, "r") or self.covers(kind, "s"):
            return self.allows(resource, "r") or self.allows(resource, "s")
        levels = {scope.level for scope in self.who.scopes}
        if not self.who.role and "system" in levels:
            return True
        if self.who.role and "user" in levels:
            within = True
        elif self.who.patient and (kind in OWNERS or kind == "Patient"):
            within = self._in_compartment(resource)
        else:
            within = kind in SHARED
        allowed = not self.who.role or self._role_allows(resource, "r")
        if self.who.role and not any(row.covers(kind, "r") for row in ROLES[self.who.role].rows):  # type: ignore[arg-type]
            allowed = kind in SHARED
        return within and allowed and self._may_see(resource)

    def _by_scope(self, resource: Resource, action: str) -> bool:
        for scope in self.who.scopes:
            if not self._counts(scope, resource["resourceType"], action) or not meets(resource, scope.query):
                continue
            if scope.level == "system":
                return True
            if scope.level == "patient" and not self._in_compartment(resource):
                continue
            if self.who.role and not self._role_allows(resource, action):
                continue
            if self._may_see(resource):
                return True
        return False

    def _counts(self, scope: Granted, kind: str, action: str) -> bool:
        if action not in scope.actions or scope.type not in {kind, "*"}:
            return False
        if scope.query and scope.query[0] == "status" and kind not in HAS_STATUS:
            return False
        if scope.query and scope.query[0] == "category" and kind != "Observation":
            return False
        if scope.level == "system":
            return not self.who.role
        if self.who.role and not any(row.covers(kind, action) for row in ROLES[self.who.role].rows):  # type: ignore[arg-type]
            return False
        if scope.level == "user":
            return bool(self.who.role)
        if not self.who.patient:
            return False
        if kind in SHARED:
            return scope.type == kind and action in "rs"
        return kind == "Patient" or kind in OWNERS

    def _in_compartment(self, resource: Resource) -> bool:
        if resource["resourceType"] in SHARED:
            return owners(resource) <= {self.who.patient} or self.who.patient in owners(resource)
        return self.who.patient in owners(resource)

    def _role_allows(self, resource: Resource, action: str) -> bool:
        rows = ROLES[str(self.who.role)].rows
        for row in rows:
            if row.covers(resource["resourceType"], action):  # type: ignore[arg-type]
                name, _, values = row.query.partition("=")
                if not row.query or meets(resource, (name, tuple(values.split(",")))):
                    return True
        return False

    def _may_see(self, resource: Resource) -> bool:
        """Own patients, labels, denials."""
        role = ROLES.get(self.who.role or "")
        mine = owners(resource)
        hidden = {"N": {"R", "V"}, "R": {"V"}, "V": set()}[role.clearance if role else "N"]
        if labels(resource) & hidden or any(labels(p) & hidden for p in self._patients(mine)):
            return False
        kind = resource["resourceType"]
        limited = (kind in OWNERS or kind == "Patient") and (bool(mine) or kind not in SHARED)
        if role and role.own_patients and limited and not mine & self._own_patients():
            return False
        return not (role is None or role.heeds_consent) or not any(self._denied(c, resource) for c in self._consents(mine))

    def _patients(self, ids: set[str]) -> Iterable[Resource]:
        return (r for r in self.world if r["resourceType"] == "Patient" and r["id"] in ids)

    def _own_patients(self) -> set[str]:
        found: set[str] = set()
        for r in self.world:
            if r["resourceType"] == "ServiceRequest" and r.get("requester", {}).get("reference") == self.who.user:
                found.add(r["subject"]["reference"].partition("/")[2])
            if r["resourceType"] == "Patient" and any(g["reference"] == self.who.user for g in r.get("generalPractitioner", ())):
                found.add(r["id"])
        return found

    def _consents(self, patients: set[str]) -> Iterable[Resource]:
        return (r for r in self.world if r["resourceType"] == "Consent" and r["status"] == "active" and owners(r) & patients)

    def _denied(self, consent: Resource, resource: Resource) -> bool:
        """Whether a Consent (of which the tests draw two levels) denies the resource to the caller."""
        outer = consent["provision"]
        if not self._concerns(outer, resource):
            return False
        inner = [p for p in outer.get("provision", ()) if self._concerns(p, resource)]
        if inner:
            return any(p["type"] == "deny" for p in inner)
        return bool(outer["type"] == "deny")

    def _concerns(self, provision: Resource, resource: Resource) -> bool:
        actors = [a["reference"]["reference"] for a in provision.get("actor", ())]
        wanted = {c["code"] for c in provision.get("securityLabel", ())}
        return (not actors or self.who.user in actors) and (not wanted or bool(wanted & labels(resource)))

    def _is_own_entry(self, resource: Resource, action: str) -> bool:
        return action == "r" and bool(self.who.role) and f"{resource['resourceType']}/{resource['id']}" == self.who.user


def owners(resource: Resource) -> set[str]:
    """The patients (ids) that a resource belongs to."""
    if resource["resourceType"] == "Patient":
        return {resource["id"]}
    found: set[str] = set()
    for element in OWNERS.get(resource["resourceType"], ()):
        value = resource.get(element, [])
        for one in value if isinstance(value, list) else [value]:
            kind, _, id_ = one.get("reference", "").partition("/")
            found |= {id_} if kind == "Patient" else set()
    return found


def labels(resource: Resource) -> set[str]:
    """The codes of its security labels."""
    return {c["code"] for c in resource.get("meta", {}).get("security", ())}


def meets(resource: Resource, query: tuple[str, tuple[str, ...]] | None) -> bool:
    """Whether it meets a scope's or role's own condition: `status`, `category` or `code` is one of these."""
    if query is None:
        return True
    name, values = query
    if name == "status":
        return resource.get("status") in values
    concepts = resource.get(name, [])
    for concept in concepts if isinstance(concepts, list) else [concepts]:
        for coding in concept.get("coding", ()):
            if coding["code"] in values or f"{coding.get('system', '')}|{coding['code']}" in values:
                return True
    return False
