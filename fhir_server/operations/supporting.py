"""What the resources of a compartment refer to, as far as it belongs to no patient: staff, places, devices, products."""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from fhir_server import fhir_json
from fhir_server.operations import Call, Resource
from fhir_server.references import Target, target, walk
from smart_auth.access import Access

SHARED = frozenset(
    """
    ActivityDefinition BiologicallyDerivedProduct CatalogEntry Device DeviceDefinition DeviceMetric Endpoint HealthcareService
    InsurancePlan Location Medication MedicationKnowledge Organization OrganizationAffiliation PlanDefinition Practitioner
    PractitionerRole Questionnaire Slot Substance
    """.split()
)
_DEPTH = 3  # a PractitionerRole leads to its Practitioner, Organization and Location, these to the organization above
_REMEMBERED = 400
_HASH = 8  # bytes


class Seen:
    """Which supporting resources a walk has shown: the newest 400 of them, in a text for the page link.

    What is forgotten beyond these may be shown again; nothing is ever left out.
    """

    def __init__(self, text: str = "") -> None:
        raw = base64.b64decode(text)
        self._hashes = dict.fromkeys(raw[i : i + _HASH] for i in range(0, len(raw), _HASH))

    def add(self, to: Target) -> bool:
        """Whether this is the first time."""
        key = hashlib.blake2b(str(to).encode(), digest_size=_HASH).digest()
        first = key not in self._hashes
        self._hashes[key] = None
        return first

    def text(self) -> str:
        return base64.b64encode(b"".join(list(self._hashes)[-_REMEMBERED:])).decode()


def pointed_at(resource: Resource, types: frozenset[str]) -> list[Target]:
    """The local targets of these types that a resource refers to, each once."""
    found = (target(element) for _, element in walk(resource, ""))
    return list(dict.fromkeys(to for to in found if to is not None and to.type in types))


async def supporting(call: Call, wanted: Iterable[Target], seen: Seen, patient: Target | None) -> list[Resource]:
    """The shared resources among `wanted`, and those that they refer to in turn, each once in a walk.

    One that refers to another patient than `patient` (a device implanted in somebody) is nobody's business here.
    """
    readable = frozenset(t for t in SHARED if call.access.allows(t, "r") and call.access.allows(t, "s"))
    found: list[Resource] = []
    following = list(wanted)
    for _ in range(_DEPTH):
        by_type: dict[str, list[str]] = {}
        for to in following:
            if seen.add(to):
                by_type.setdefault(to.type, []).append(to.id)
        level = [r for resource_type, ids in by_type.items() for r in await _read(call, resource_type, ids)]
        level = [r for r in level if not _of_others(r, patient)]
        found += level
        following = list(dict.fromkeys(to for r in level for to in pointed_at(r, readable)))
    return found


def shown_of(access: Access, resource_type: str) -> list[dict[str, Any] | None]:
    """The conditions on what may be shown of a type to who has not named it: to read it, and to have found it by a search."""
    return [access.filter(resource_type, action) for action in ("r", "s")] if access.restricted else []


async def _read(call: Call, resource_type: str, ids: list[str]) -> list[Resource]:
    restrictions = [c for c in shown_of(call.access, resource_type) if c is not None]
    where = {"$and": [{"_id": {"$in": ids}}, *restrictions]}
    found = call.interactions.store.current(resource_type).find(where, {"resource": 1}, sort=[("_id", 1)])
    return [fhir_json.from_bson(d["resource"]) async for d in found]


def _of_others(resource: Resource, patient: Target | None) -> bool:
    if resource["resourceType"] == "Patient":
        return False  # asked for by name
    return any(to != patient for to in pointed_at(resource, frozenset({"Patient"})))
