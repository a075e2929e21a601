"""What is granted of the scopes that a client asks for: within its registration, in the form in which they were asked.

Beside resource scopes (scopes.py) there are those of the launch context and the login (SMART App Launch 2.2, "Scopes for
requesting context data", "... identity data", "... a refresh token"), and two of our own for backend clients: `LAUNCH_RIGHT` to
mint launches, `INTROSPECT_RIGHT` to ask about tokens of all clients. Ours are absolute URIs, as SMART asks of extensions.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from fhir_server import definitions
from smart_auth.filters import enforceable
from smart_auth.scopes import ORDER, V1_ACTIONS, Action, Level, Scope, parse_scope, parse_scopes

LAUNCH_RIGHT = "urn:fhir-ris:launch"
INTROSPECT_RIGHT = "urn:fhir-ris:introspect"
OWN = (LAUNCH_RIGHT, INTROSPECT_RIGHT)

OPENID = "openid"
FHIR_USER = "fhirUser"
PROFILE = "profile"
OFFLINE, ONLINE = "offline_access", "online_access"
IDENTITY = (OPENID, FHIR_USER, PROFILE)
LAUNCH, LAUNCH_PATIENT, LAUNCH_ENCOUNTER = "launch", "launch/patient", "launch/encounter"

PEOPLE: tuple[Level, ...] = ("patient", "user")
BACKEND: tuple[Level, ...] = ("system",)
_LAUNCH_TYPES = {f"launch/{name.lower()}": name for name in definitions.RESOURCE_TYPES}
_PLAIN = (LAUNCH, *IDENTITY, OFFLINE, ONLINE)

# (level, query) -> type -> actions
_Held = dict[tuple[Level, str], dict[str, frozenset[Action]]]


def context_type(text: str) -> str | None:
    """The resource type of a scope such as `launch/imagingstudy`, with or without `?role=`; None if it is no such scope."""
    return _LAUNCH_TYPES.get(text.partition("?role=")[0])


def is_resource_scope(text: str) -> bool:
    return text.partition("/")[0] in ("patient", "user", "system")


def usable(scope: Scope) -> bool:
    """Whether the query of a scope can limit its type; that of a scope for all types can't, as they have too little in common."""
    return not scope.query or (scope.resource_type != "*" and enforceable(scope))


def registrable(text: str, grant_types: Collection[str]) -> str | None:
    """Why a client of these grant types can't be registered with a scope, as a line for people; None if it can."""
    app, backend = "authorization_code" in grant_types, "client_credentials" in grant_types
    if text in OWN:
        return None if backend else f"{text!r} is for clients that come on their own account, with a key"
    if text in _PLAIN or context_type(text):
        return None if app else f"{text!r} is for apps that people use, which have a redirect URI"
    scope = parse_scope(text)
    if scope is None or not usable(scope):
        return f"{text!r} is not a SMART scope such as system/Patient.rs"
    if scope.level == "system":
        return None if backend else f"{text!r} is for clients that come on their own account, with a key"
    return (
        None if app else f"{text!r} is for apps that people use, which have a redirect URI: a backend client has system/ scopes"
    )


def grant(requested: str, registered: str, levels: Collection[Level] = BACKEND) -> list[str]:
    """What a client gets of the scopes it asks for, given those it is registered with, in the order asked.

    A scope that is wholly covered comes back as it was written (clients compare strings); a resource scope that is partly
    covered is narrowed: in its actions, a wildcard also to the types that are registered, one without a query to the queries
    that are. Anything else is dropped, so is what is only partly a scope. `levels` are those that this kind of grant can have.
    """
    known = registered.split(" ")
    held = _held(registered, levels)
    granted: dict[str, None] = {}
    for text in dict.fromkeys(requested.split(" ")):
        if is_resource_scope(text):
            for scope in filter(usable, parse_scopes(text)):
                granted |= dict.fromkeys(_within(scope, held) if scope.level in levels else ())
        elif _is_other(text, levels) and (text in known or text.partition("?role=")[0] in known):
            granted[text] = None
    return list(granted)


def subset(requested: str, granted: str) -> str | None:
    """The scopes of a refresh (RFC 6749 6), all within what was granted; None if one is wider or no scope at all."""
    held = _held(granted, PEOPLE)
    texts = list(dict.fromkeys(requested.split(" ")))
    for text in texts:
        if is_resource_scope(text):
            scopes = [scope for scope in parse_scopes(text) if usable(scope)]
            if len(scopes) != 1 or _within(scopes[0], held) != [text]:
                return None
        elif text not in granted.split(" "):
            return None
    return " ".join(texts)


def covers(wider: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether each of these scopes is among the wider ones, or within one of them."""
    return subset(" ".join(texts), " ".join(wider)) is not None


def _is_other(text: str, levels: Collection[Level]) -> bool:
    """Whether it is a scope without resources that this kind of grant can have."""
    return text in OWN if "system" in levels else text in _PLAIN or context_type(text) is not None


def _held(registered: str, levels: Collection[Level]) -> _Held:
    held: _Held = {}
    for scope in parse_scopes(registered):
        if scope.level in levels and usable(scope):
            types = held.setdefault((scope.level, scope.query), {})
            types[scope.resource_type] = types.get(scope.resource_type, frozenset()) | scope.actions
    return held


def _within(scope: Scope, held: _Held) -> list[str]:
    """The parts of a scope that are held, as they are to be written."""
    types: dict[str, frozenset[Action]] = {}
    for query in dict.fromkeys(("", scope.query)):
        for name, actions in held.get((scope.level, query), {}).items():
            types[name] = types.get(name, frozenset()) | actions
    parts = list(_covered(scope, types))
    texts = [_written(scope, name, actions, scope.query) for name, actions in parts]
    if not scope.query:
        for (level, query), narrower in held.items():
            if level == scope.level and query:
                for name, actions in _covered(scope, narrower):
                    if more := actions - _actions(parts, name):
                        texts.append(_written(scope, name, more, query))
    return texts


def _covered(scope: Scope, types: Mapping[str, frozenset[Action]]) -> Iterator[tuple[str, frozenset[Action]]]:
    everywhere = scope.actions & types.get("*", frozenset())
    if scope.resource_type != "*":
        if actions := everywhere | (scope.actions & types.get(scope.resource_type, frozenset())):
            yield scope.resource_type, actions
        return
    if everywhere:
        yield "*", everywhere
    for name, actions in types.items():
        if (scope.actions & actions) - everywhere:
            yield name, everywhere | (scope.actions & actions)


def _actions(parts: Iterable[tuple[str, frozenset[Action]]], name: str) -> frozenset[Action]:
    return frozenset().union(*(actions for covered, actions in parts if covered in (name, "*")))


def _written(scope: Scope, name: str, actions: frozenset[Action], query: str) -> str:
    if (name, actions, query) == (scope.resource_type, scope.actions, scope.query):
        return scope.text
    letters = "".join(action for action in ORDER if action in actions)
    if scope.text.partition("?")[0].rpartition(".")[2] in V1_ACTIONS:  # asked in v1, answered in v1 where it has a word for it
        letters = next((word for word, meaning in V1_ACTIONS.items() if meaning == letters), letters)
    return f"{scope.level}/{name}.{letters}" + (f"?{query}" if query else "")
