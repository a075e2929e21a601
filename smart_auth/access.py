"""Who is asking, and what they may do: the object that every interaction takes as an argument."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.outcome import FhirError, Issue
from fhir_server.search.matching import resource_matches
from smart_auth import filters
from smart_auth.circumstances import Circumstances, Person, circumstances
from smart_auth.logic import Rule, condition
from smart_auth.scopes import Action, Scope

_VERBS: dict[Action, str] = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of one caller, for as long as one request lasts.

    `client_id` names the client (of an internal act, the part of the product that acts); `token_id` is the SHA-256 of the
    access token, for the audit trail. Of a person: `user` is the FHIR reference to it, `user_name` its login, `role` its role.
    `patient` and `encounter` are logical ids from the launch; scopes of the level patient/ are limited to that patient. `grant`
    is the family of tokens that this one is of; `purpose` is "BTG" when a record is open in an emergency (break-glass).
    `authenticated_at` is when the person last proved, at a login, who it is; `methods` by which proofs (RFC 8176).
    `circumstances` is what the rights of persons and patients depend on beside the token (`settled`).
    """

    client_id: str
    scopes: tuple[Scope, ...]
    token_id: str
    user: str | None = None
    internal: bool = False
    user_name: str | None = None
    role: str | None = None
    patient: str | None = None
    encounter: str | None = None
    grant: str | None = None
    purpose: str | None = None
    authenticated_at: datetime | None = None
    methods: tuple[str, ...] = ()
    circumstances: Circumstances | None = field(default=None, repr=False)
    _rules: dict[tuple[str, str], Rule | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    _restricted: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def system(cls, name: str) -> Self:
        """The product's own acts (v2 bridge, DICOM bridge, rules), which no scope limits. `name` is who the audit trail shows."""
        return cls(client_id=name, scopes=(), token_id="", internal=True)

    @property
    def person(self) -> bool:
        """Whether somebody is behind the token."""
        return bool(self.user_name or self.user or self.role)

    @property
    def restricted(self) -> bool:
        """Whether there may be resources of some type that this caller sees only a part of."""
        if self.internal:
            return False
        if not self._restricted:
            whole = all(scope.level == "system" and not scope.query for scope in self.scopes)
            self._restricted.append(self.person or not whole)
        return self._restricted[0]

    @property
    def session(self) -> str:
        """What a person's doings in one session are known by: the grant, else the token."""
        return self.grant or self.token_id

    async def settled(self, db: AsyncDatabase[Any]) -> "Access":
        """The same with its circumstances, without which a person's or a patient's token gives nothing."""
        if not self.personal:
            return self
        return self.under(await circumstances(db, Person(self.user, self.role, self.user_name, self.session)))

    def under(self, about: Circumstances) -> "Access":
        """The same under these circumstances."""
        return replace(self, circumstances=about, purpose="BTG" if about.opened else self.purpose)

    def allows(self, resource_type: str, action: Action) -> bool:
        """Whether create, read, update, delete or search (c, r, u, d, s) of this type is possible at all."""
        return self.internal or self._rule(resource_type, action) is not None

    def require(self, resource_type: str, action: Action) -> None:
        """Refuse (403, before any data is touched) what is not allowed (RFC 6750 3.1 `insufficient_scope`)."""
        if not self.allows(resource_type, action):
            level = "user" if self.person else "patient" if self.patient else "system"
            challenge = f'Bearer realm="fhir", error="insufficient_scope", scope="{level}/{resource_type}.{action}"'
            raise FhirError(
                Issue("forbidden", f"the access token has no scope to {_VERBS[action]} {resource_type}"),
                headers={"WWW-Authenticate": challenge},
            )

    def filter(self, resource_type: str, action: Action) -> Filter | None:
        """The MongoDB filter to AND into every query for this type; None restricts nothing, no access at all is refused."""
        self.require(resource_type, action)
        return None if self.internal else condition(self._rule(resource_type, action) or False)

    def covers(self, resource: dict[str, Any], action: Action) -> bool:
        """Whether this resource, which is valid, is among those that the action is allowed on."""
        if not self.allows(resource["resourceType"], action):
            return False
        where = self.filter(resource["resourceType"], action)
        return where is None or resource_matches(where, resource)

    @property
    def own_scopes(self) -> tuple[Scope, ...]:
        """The scopes that count for what it has the department do: user/ of a person, else system/."""
        level = "user" if self.person else "system"
        return tuple(scope for scope in self.scopes if scope.level == level)

    def grants(self, resource: dict[str, Any], action: Action) -> bool:
        """Whether one of these scopes is for this action on this resource, whatever the role and patients say."""
        kind = resource["resourceType"]
        rules = [filters.of_query(kind, scope.query) for scope in self.own_scopes if scope.covers(kind, action)]
        wheres = [condition(rule) for rule in rules if rule is not None]
        return self.internal or any(where is None or resource_matches(where, resource) for where in wheres)

    def reach(self, resource_type: str) -> Filter | None:
        """What of this type a write may refer to: the filter, None for everything. The rest is as if it weren't there."""
        if not self.restricted:
            return None
        key = (resource_type, "reach")
        if key not in self._rules:
            self._rules[key] = filters.reach(self._holder(), resource_type)
        return condition(self._rules[key] or False)

    def keeps_links(self) -> bool:
        """Whether a Patient's links to others are not this caller's to change: it has the rights of one patient only."""
        beyond = any(scope.level != "patient" and scope.covers("Patient", "u") for scope in self.scopes)
        return self.restricted and not beyond

    def _rule(self, resource_type: str, action: Action) -> Rule | None:
        key = (resource_type, action)
        if key not in self._rules:
            self._rules[key] = filters.rule(self._holder(), resource_type, action)
        return self._rules[key]

    def _holder(self) -> filters.Holder:
        about = self.circumstances or (None if self.personal else Circumstances())
        patient = self.patient if self.patient and _ID.fullmatch(self.patient) else None
        return filters.Holder(self.scopes, self.person, self.role, self.user, patient, about)

    @property
    def personal(self) -> bool:
        """Whether the rights depend on circumstances: those of a person or of a patient."""
        return not self.internal and (self.person or any(scope.level != "system" for scope in self.scopes))
