"""Identifiers: when two are the same (one value under one assigning authority), finding what carries one, keeping it."""

import re
from collections.abc import Callable, Iterable

from fhir_server import foresight
from fhir_server.elements import has_code
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms


def same(one: Resource, other: Resource) -> bool:
    """Whether two identifiers are the same value under the same authority.

    The authority is the identifier's system, or its assigner's name where one side has no OID (HL7 v2 HD: namespace and
    universal id name the same authority, and senders give one, the other or both).
    """
    if not one.get("value") or one.get("value") != other.get("value"):
        return False
    if one.get("system") and one.get("system") == other.get("system"):
        return True
    names = [i.get("assigner", {}).get("display") for i in (one, other)]
    both_oids = all(str(i.get("system", "")).startswith("urn:oid:") for i in (one, other))
    return names[0] is not None and names[0] == names[1] and not both_oids


def carries(resource: Resource, identifiers: Iterable[Resource]) -> bool:
    """Whether a resource has one of these identifiers."""
    return any(same(wanted, own) for wanted in identifiers for own in resource.get("identifier", ()))


def learned(known: Iterable[Resource], said: Iterable[Resource]) -> list[Resource]:
    """The known identifiers and the new ones. One that is known gets the OID or the authority's name that it lacked."""
    result = list(known)
    for new in said:
        i = next((i for i, old in enumerate(result) if same(old, new)), None)
        if i is None:
            result.append(new)
        else:
            old = result[i]
            told_better = str(new.get("system", "")).startswith("urn:oid:")
            result[i] = new | old | ({"system": new["system"]} if told_better else {})
    return result


async def carriers(unit: UnitOfWork, resource_type: str, identifiers: Iterable[Resource], **also: str) -> list[Resource]:
    """The resources that carry one of these identifiers, found by one search; `also` are further search parameters."""
    wanted = list(identifiers)
    found = await unit.ask(asked(resource_type, wanted, **also))
    return [r for r in found if carries(r, wanted)]


def asked(resource_type: str, identifiers: Iterable[Resource], **also: str) -> Asked:
    """What `carriers` will ask for, for `View.foresee`."""
    wanted = list(identifiers)
    # By the bare value too: a system alone would miss the authority that another sender names in another way.
    tokens = {token(i.get("system", ""), i["value"]) for i in wanted}
    tokens |= {escaped(i["value"]) for i in wanted if "|" not in i["value"]}
    return foresight.asked(resource_type, {"identifier": ",".join(sorted(tokens)), **also})


def token(system: str, value: str) -> str:
    """A token parameter for search: `system|value`, its separators escaped (FHIR R4 3.1.1.4.3)."""
    return f"{escaped(system)}|{escaped(value)}"


def escaped(value: str) -> str:
    """A value as it stands in a search parameter."""
    return re.sub(r"([\\,$])", r"\\\1", value)


def of_type(code: str) -> Callable[[Resource], bool]:
    """Chooses the identifiers of this type (v2-0203)."""
    return lambda identifier: has_code(identifier.get("type"), terms.V2_0203, code)


def of_system(system: str) -> Callable[[Resource], bool]:
    """Chooses the identifiers of this system."""
    return lambda identifier: identifier.get("system") == system


def keep(change: Change, chosen: Callable[[Resource], bool], name: str) -> None:
    """An identifier, once assigned, stays as it is. FhirError `business-rule` for another one in its place.

    A client that leaves it out, or sends it back without our extensions, gets it back as it was.
    """
    if change.before is None or change.after is None:
        return
    assigned = next((i for i in change.before.get("identifier", ()) if chosen(i)), None)
    said = next((i for i in change.after.get("identifier", ()) if chosen(i)), None)
    if assigned is None or assigned == said:
        return
    if said is not None and (said.get("system"), said.get("value")) != (assigned.get("system"), assigned.get("value")):
        raise fail("business-rule", f"the {name} can't be changed", f"{change.type}.identifier")
    change.after["identifier"] = [assigned, *(i for i in change.after.get("identifier", ()) if i is not said)]
