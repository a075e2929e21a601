"""What a person's rights depend on beside the token: whose patients they are, what is labelled, denied or opened in an emergency.

It is looked up with the token (`Tokens.authenticate`), in the same command, and so is about a second old at most, like the token
itself. Tokens that no such thing limits (those of backend clients) cost no look.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from fhir_server import clock, fhir_json
from fhir_server.outcome import FhirError, fail
from fhir_server.references import target
from fhir_server.search.index import DENIES
from smart_auth import break_glass_log, labels
from smart_auth.denials import Denial, denials
from smart_auth.roles import ROLES, Role, role

MOST = 10_000
"""Patients that one list of a filter can name. Where there are more, nothing is shown rather than too much."""
_TOO_LARGE = frozenset({10334, 17419, 17420, 4568})  # MongoDB's codes for a document beyond 16 MiB, in an answer or on its way
_NO_KEY = "!none"  # a key that no index has
ANY_ROLE = (*ROLES, None)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`own`: the patients that the person is limited to (None: to none in particular); `closed`: those whose record is labelled
    beyond its clearance; `denials`: what patients have denied it; `opened`: those whose record it has opened in an emergency.
    Patients by logical id."""

    own: frozenset[str] | None = None
    closed: frozenset[str] = frozenset()
    denials: tuple[Denial, ...] = field(default=())
    opened: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Person:
    """Of whom it is asked: the reference to its resource, its role, and what break-glass goes by."""

    reference: str | None
    role: str | None
    user_name: str | None
    session: str


async def circumstances(db: AsyncDatabase[Document], person: Person) -> Circumstances:
    """What is so at this moment."""
    asked = {"user": person.reference, "role": person.role, "user_name": person.user_name, "session": person.session}
    now = clock.now()
    with refused_if_too_large():
        looked = await db.with_options(read_concern=ReadConcern("local")).aggregate(
            [{"$documents": [asked]}, *stages(now, [person.role])]
        )
        (found,) = await looked.to_list()
    return read(found, now)


@contextlib.contextmanager
def refused_if_too_large() -> Iterator[None]:
    """FhirError 403 where more is restricted than MongoDB puts into one document."""
    try:
        yield
    except OperationFailure as error:
        if error.code in _TOO_LARGE:
            raise _too_much() from None
        raise


def stages(now: datetime, among: Sequence[str | None] = ANY_ROLE) -> list[Document]:
    """What a pipeline needs to look this up (`read` reads it), of documents with the members of a Person.

    `user` is the person's reference there, and the role is one of `among`: what none of them depends on is not looked for. Each
    look is one by an index, for keys that the document gives or that were found before; where for this document nothing is to
    be looked for, it is a look for a key that nothing has.
    """
    roles = {name: role(name) for name in among}
    keys = {
        "closed": _by_role(roles, lambda known: [*labels.above(known.clearance if known else "N"), _NO_KEY]),
        "denies": _by_role(roles, lambda known: [DENIES if _heeds(known) else _NO_KEY]),
        "roles": [{"$concat": ["practitioner>", {"$ifNull": ["$user", ""]}]}],
    }
    of_consent = {f"resource.{name}": 1 for name in ("status", "scope", "patient", "provision")}
    found = [{"$set": {"keys": keys}}, break_glass_log.look("opened", now), _look("closed", "Patient", "keys.closed")]
    heeds, limits = any(map(_heeds, roles.values())), any(map(_limits, roles.values()))
    if heeds:
        found.append(_look("consents", "Consent", "keys.denies", [{"$project": of_consent}]))
    if heeds or limits:
        found += _names()
    if heeds:
        found += [*_memberships(), _UNDER_WAY]
    if limits:
        found += _own_patients(_by_role(roles, _limits))
    return found


def _names() -> list[Document]:
    """The person and its PractitionerRoles."""
    roles = _each("$roles", {"$concat": ["PractitionerRole/", "$$each._id"]})
    return [
        _look("roles", "PractitionerRole", "keys.roles", [{"$project": {"of": _ORGANIZATIONS}}]),
        {"$set": {"names": {"$concatArrays": [[{"$ifNull": ["$user", ""]}], roles]}}},
    ]


def _memberships() -> list[Document]:
    """What the person belongs to, where anything is denied."""
    denied = {"$gt": [{"$size": "$consents"}, 0]}
    organizations = {"$reduce": {"input": "$roles", "initialValue": [], "in": {"$concatArrays": ["$$value", "$$this.of"]}}}
    keys = {
        "member": _keys_if(denied, "member>", "$names"),
        "participant": _keys_if(denied, "participant>", {"$concatArrays": ["$names", "$organizations"]}),
    }
    return [
        {"$set": {"organizations": organizations}},
        {"$set": {"keys": keys}},
        _look("groups", "Group", "keys.member"),
        _look("teams", "CareTeam", "keys.participant"),
    ]


def _own_patients(limited: Any) -> list[Document]:
    """For whom the person, or one of its PractitionerRoles, is the general practitioner or the requester of an order."""
    keys = {
        "practitioner": _keys_if(limited, "general-practitioner>", "$names"),
        "requester": _keys_if(limited, "requester>", "$names"),
    }
    subjects = [{"$group": {"_id": "$resource.subject.reference"}}]
    return [
        {"$set": {"keys": keys}},
        _look("practitioners", "Patient", "keys.practitioner"),
        _look("requesters", "ServiceRequest", "keys.requester", subjects),
    ]


def read(found: Mapping[str, Any], now: datetime) -> Circumstances:
    """What `stages` found. FhirError 403 if it is more than can be judged."""
    known = role(found.get("role"))
    _bounded(found.get("roles", []))
    own = None
    if _limits(known):
        ordered = map(target, _ids(found, "requesters"))
        subjects = [to.id for to in ordered if to is not None and to.type == "Patient"]
        own = frozenset(_bounded([*_ids(found, "practitioners"), *subjects]))
    denied: tuple[Denial, ...] = ()
    if _heeds(known):
        consents = [fhir_json.from_bson(d["resource"]) for d in _bounded(found["consents"])]
        joined = [(d["_id"], d["into"]) for d in _bounded(found["merging"])]
        denied = tuple(
            replace(d, patients=_with_merging(d.patients, joined)) for d in denials(consents, _who(found), clock.naive(now))
        )
    return Circumstances(own, frozenset(_ids(found, "closed")), denied, frozenset(d["patient"] for d in found["opened"]))


# Merges of patients that are under way (`resources/patient_merge.py`): what is denied of one record, is of both.
_UNDER_WAY: Document = {
    "$lookup": {
        "from": "merges",
        "pipeline": [{"$match": {"state": "under-way"}}, {"$limit": MOST + 1}, {"$project": {"into": 1}}],
        "as": "merging",
    }
}


def _with_merging(patients: frozenset[str], joined: list[tuple[str, str]]) -> frozenset[str]:
    """These patients, and those whose record becomes one with one of theirs at the moment."""
    found = patients
    for _ in joined:
        found |= {one for pair in joined if found & set(pair) for one in pair}
    return found


def _who(found: Mapping[str, Any]) -> frozenset[str]:
    """The person, its PractitionerRoles and their Organizations, and the Groups and CareTeams that it is in."""
    if not found.get("user"):
        return frozenset()
    groups = [f"Group/{i}" for i in _ids(found, "groups")]
    teams = [f"CareTeam/{i}" for i in _ids(found, "teams")]
    return frozenset([*found["names"], *found["organizations"], *groups, *teams])


def _heeds(known: Role | None) -> bool:
    return known is None or known.heeds_consent


def _limits(known: Role | None) -> bool:
    return known is not None and known.own_patients


# The organizations of a PractitionerRole, as its index has them.
_ORGANIZATIONS = {
    "$map": {
        "input": {
            "$filter": {"input": "$search.t", "as": "key", "cond": {"$eq": [{"$indexOfBytes": ["$$key", "organization>"]}, 0]}}
        },
        "as": "key",
        "in": {"$substrBytes": ["$$key", len("organization>"), -1]},
    }
}


def _look(name: str, resource_type: str, keys: str, what: Sequence[Document] = ({"$project": {"_id": 1}},)) -> Document:
    """Those that have one of the keys in a field of the document, at most one more than can be judged."""
    bounded = {"$limit": MOST + 1}
    inner = [*what, bounded] if any("$group" in stage for stage in what) else [bounded, *what]
    return {"$lookup": {"from": resource_type, "localField": keys, "foreignField": "search.t", "pipeline": inner, "as": name}}


def _by_role(roles: Mapping[str | None, Role | None], value: Callable[[Role | None], Any]) -> Document:
    """What depends on the role of the document, which is one of these; the last of them, if it is none of the others."""
    *others, last = roles.items()
    if not others:
        return {"$literal": value(last[1])}
    branches = [{"case": {"$eq": ["$role", name]}, "then": {"$literal": value(known)}} for name, known in others]
    return {"$switch": {"branches": branches, "default": {"$literal": value(last[1])}}}


def _each(items: Any, value: Any) -> Document:
    return {"$map": {"input": items, "as": "each", "in": value}}


def _keys_if(wanted: Any, beginning: str, names: Any) -> Document:
    return {"$cond": [wanted, _each(names, {"$concat": [beginning, "$$each"]}), [_NO_KEY]]}


def _ids(found: Mapping[str, Any], name: str) -> list[Any]:
    return [d["_id"] for d in _bounded(found[name])]


def _bounded(found: list[Any]) -> list[Any]:
    if len(found) > MOST:
        raise _too_much()
    return found


def _too_much() -> FhirError:
    return fail("too-costly", "more patients are concerned by restrictions than can be told apart", status=403)
