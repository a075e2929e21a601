"""Who is asking, and what they may do: the object that every interaction takes as an argument."""

from dataclasses import dataclass
from typing import Any, Self

from fhir_server.outcome import FhirError, Issue
from smart_auth.scopes import Action, Scope

_VERBS: dict[Action, str] = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of one caller, for as long as one request lasts.

    `client_id` names the client (of an internal act, the part of the product that acts); `token_id` is the SHA-256 of the
    access token, for the audit trail; `user` is the FHIR reference of the person behind it, `user_name` the login name, `role`
    the role of that login. `patient` and `encounter` are logical ids from the launch context, `grant` is what the token was
    issued from, `purpose` a purpose of use (such as BTG).
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

    @classmethod
    def system(cls, name: str) -> Self:
        """The product's own acts (v2 bridge, DICOM bridge, rules), which no scope limits. `name` is who the audit trail shows."""
        return cls(client_id=name, scopes=(), token_id="", internal=True)

    def allows(self, resource_type: str, action: Action) -> bool:
        """Whether create, read, update, delete or search (c, r, u, d, s) of this type is within the scopes.

        Only whole `system/` scopes count: those of a patient or a user, or with a query, need a restriction of the data.
        """
        if self.internal:
            return True
        return any(s.level == "system" and not s.query and s.covers(resource_type, action) for s in self.scopes)

    def require(self, resource_type: str, action: Action) -> None:
        """Refuse (403, before any data is touched) what is not allowed (RFC 6750 3.1 `insufficient_scope`)."""
        if not self.allows(resource_type, action):
            challenge = f'Bearer realm="fhir", error="insufficient_scope", scope="system/{resource_type}.{action}"'
            raise FhirError(
                Issue("forbidden", f"the access token has no scope to {_VERBS[action]} {resource_type}"),
                headers={"WWW-Authenticate": challenge},
            )

    def filter(self, resource_type: str, action: Action) -> dict[str, Any] | None:
        """The MongoDB filter to AND into every query for this type; None restricts nothing, no access at all is refused."""
        self.require(resource_type, action)
        return None
