"""SMART scopes, v1 and v2 (SMART App Launch 2.2, "Scopes for requesting FHIR resources"). What is granted of them: granting.py.

scope    = ("patient" / "user" / "system") "/" (type / "*") "." actions ["?" name "=" value *("&" name "=" value)]
actions  = some of c r u d s, in that order    ; v2
         / "read" / "write" / "*"              ; v1: rs, cud, cruds
"""

import re
from dataclasses import dataclass
from typing import Literal, cast

from fhir_server.definitions import RESOURCE_TYPES

Level = Literal["patient", "user", "system"]
Action = Literal["c", "r", "u", "d", "s"]

ORDER = "cruds"
V1_ACTIONS = {"read": "rs", "write": "cud", "*": "cruds"}

_SCOPE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]*)\.(read|write|\*|c?r?u?d?s?)(?:\?([!-~]+))?")
# A plain parameter: no modifier, chain, prefix of a control parameter (`_include`), and a value that is there.
_PARAMETER = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=[^&=]+")


@dataclass(frozen=True, slots=True)
class Scope:
    """One resource scope. `resource_type` may be `*`; `query` is the text after `?`, or empty; `text` is how it was written."""

    level: Level
    resource_type: str
    actions: frozenset[Action]
    query: str
    text: str

    def covers(self, resource_type: str, action: Action) -> bool:
        """Whether type and action are within this scope, its level and query left aside."""
        return action in self.actions and self.resource_type in (resource_type, "*")


def parse_scope(text: str) -> Scope | None:
    """The resource scope that `text` is, or None: partly right is wrong, an unknown type or out-of-order actions too."""
    match = _SCOPE.fullmatch(text)
    if match is None:
        return None
    level, resource_type, written, query = match.groups()
    if not written or (resource_type != "*" and resource_type not in RESOURCE_TYPES):
        return None
    if query is not None and not _plain(query):
        return None
    actions = cast("frozenset[Action]", frozenset(V1_ACTIONS.get(written, written)))
    return Scope(cast("Level", level), resource_type, actions, query or "", text)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """The resource scopes in a space-separated list (RFC 6749 3.3), each once; what isn't one is left out."""
    parsed = (parse_scope(part) for part in dict.fromkeys(text.split(" ")))
    return tuple(scope for scope in parsed if scope is not None)


def _plain(query: str) -> bool:
    matches = [_PARAMETER.fullmatch(part) for part in query.split("&")]
    names = [match[1] for match in matches if match]
    return len(names) == len(matches) == len(set(names))
