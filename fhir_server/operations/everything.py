"""`$everything` of a Patient or an Encounter (FHIR R4 Patient and Encounter, operation everything).

Its compartment exactly (FHIR R4 CompartmentDefinition), and what these resources refer to among what is nobody's (`supporting`).
The walk goes from type to type in the order of the alphabet, within a type by id, each page beginning after the last: whoever
follows the links sees each resource that stays as it is once, whatever is written meanwhile, and nothing is kept between pages.
"""

from dataclasses import dataclass, field
from typing import Any

from fhir_server import audit, clock, definitions, fhir_json, visibility
from fhir_server.operations import Answer, Call, Level, Operation, Resource, arguments
from fhir_server.operations.care_dates import in_range
from fhir_server.operations.supporting import SHARED, Seen, pointed_at, shown_of, supporting
from fhir_server.outcome import Issue, fail, operation_outcome
from fhir_server.references import Target, target
from fhir_server.search.compartments import in_compartment
from fhir_server.search.dates import of_text
from fhir_server.store import Document

DEFAULT_COUNT = 100
_KIND = "everything"
_LARGEST_SCAN = 2000  # resources looked through for one page, shown or not
_LARGEST_BESIDE = 1000  # supporting resources that the members of one page bring with them
_PARAMETERS = {"_since": "instant", "_type": "code", "_count": "integer", "_page": "string"}
# Each reading adds one, so it is there for those only who ask for it by name.
_TRAIL = "AuditEvent"


@dataclass(slots=True)
class _Walk:
    """What is asked, and how far the walk has come: after `last` in `type`; an empty type is the beginning."""

    types: list[str] | None
    start: str | None
    end: str | None
    since: str | None
    count: int
    until: str  # when the walk began: the trail is shown up to there
    type: str = ""
    last: str = ""
    seen: Seen = field(default_factory=Seen)

    def asks_for(self, resource_type: str) -> bool:
        return resource_type != _TRAIL if self.types is None else resource_type in self.types

    def content(self, of: str) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("types", "start", "end", "since", "count", "until", "type", "last")}
        return {"of": of, **kept, "seen": self.seen.text()}


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a member may bring with it: the shared types that are asked for and may be read, and the encounter's own patient."""

    types: frozenset[str]
    patient: Target | None

    @property
    def any(self) -> bool:
        return bool(self.types) or self.patient is not None

    def references(self, resource: Resource) -> list[Target]:
        found = pointed_at(resource, self.types | {"Patient"})
        return [to for to in found if to.type in self.types or to == self.patient]


@dataclass(slots=True)
class _Page:
    """What one page shows."""

    members: list[Resource] = field(default_factory=list)
    beside: dict[Target, None] = field(default_factory=dict)
    more: bool = False


async def everything(call: Call) -> Answer:
    """A page of the searchset. FhirError `not-found` or `deleted` for a focus that isn't there."""
    assert call.resource_type is not None
    assert call.id is not None
    dated = {"start", "end"} if call.resource_type == "Patient" else set()
    arguments.check_body("everything", call.body, frozenset({*_PARAMETERS, *dated}))
    await call.interactions.require(call.access, call.act, call.resource_type, "r")
    walk = await _begun(call)
    for resource_type in walk.types or ():
        await call.interactions.require(call.access, call.act, resource_type, "r")
        if resource_type != call.resource_type:
            await call.interactions.require(call.access, call.act, resource_type, "s")
    focus = await _focus(call)
    patient = Target("Patient", call.id) if call.resource_type == "Patient" else target(focus.get("subject"))
    first = not walk.type
    page = await _page(call, walk, focus, _beside(call, walk, patient))
    found = [r for r in await supporting(call, page.beside, walk.seen, patient) if _is_shown(walk, r)]
    await call.interactions.record(call.access, call.act, audit.shown_resources(page.members + found))
    return Answer(await _searchset(call, walk, page, found, _left_out(call, walk) if first else []))


async def _begun(call: Call) -> _Walk:
    link = arguments.one(call, "_page")
    if link is None:
        types = [t for value in arguments.given(call, "_type") for t in value.split(",")] or None
        if unknown := sorted(set(types or ()) - definitions.RESOURCE_TYPES):
            raise fail("invalid", f"_type: {unknown[0][:64]!r} is not a FHIR R4 resource type", status=400)
        start, end, since = (arguments.moment(call, name) for name in ("start", "end", "_since"))
        until = clock.instant(clock.now())
        return _Walk(types, start, end, since, arguments.count(call, DEFAULT_COUNT), until)
    if len([p for p in call.parameters if p[0] not in {"_format", "_pretty"}]) > 1:
        raise fail("invalid", "a page link is followed as it is, without other parameters", status=400)
    content = await call.interactions.links.open(_KIND, link)
    if content.pop("of") != f"{call.resource_type}/{call.id}":
        raise fail("invalid", "this page link belongs to another resource", status=400)
    return _Walk(**content | {"seen": Seen(content["seen"])})


async def _focus(call: Call) -> Resource:
    assert call.resource_type is not None
    assert call.id is not None
    found = await visibility.read(call.interactions.store, call.access, call.resource_type, call.id)
    if found is None:
        raise fail("not-found", f"there is no {call.resource_type}/{call.id}")
    if found.resource is None:
        raise fail("deleted", f"{call.resource_type}/{call.id} was deleted")
    return found.resource


def _allowed(call: Call, resource_type: str) -> bool:
    """Whether resources of this type may be shown to who has not named them: to read them, and to search for them."""
    return call.access.allows(resource_type, "r") and call.access.allows(resource_type, "s")


def _beside(call: Call, walk: _Walk, patient: Target | None) -> _Beside:
    # A supporting resource that is asked for may be behind one that isn't.
    asked = SHARED if any(walk.asks_for(t) for t in SHARED) else frozenset[str]()
    own = call.resource_type == "Encounter" and walk.asks_for("Patient") and _allowed(call, "Patient")
    return _Beside(frozenset(t for t in asked if _allowed(call, t)), patient if own else None)


async def _page(call: Call, walk: _Walk, focus: Resource, wanted: _Beside) -> _Page:
    """Walk on until the page is full, and note the place in `walk`."""
    page = _Page()
    if not walk.type:
        _take(walk, page, focus, wanted)
    scanned = 0
    for resource_type in await _types(call, walk, wanted.any):
        where = _members(call, walk, resource_type, wanted.any)
        if resource_type != walk.type:
            walk.type, walk.last = resource_type, ""
        while True:
            room = min(walk.count - len(page.members), _LARGEST_SCAN - scanned)
            documents = await _find(call, resource_type, where, walk.last, room + 1)
            for document in documents[:room]:
                resource = fhir_json.from_bson(document["resource"])
                if page.beside and len(page.beside.keys() | wanted.references(resource)) > _LARGEST_BESIDE:
                    page.more = True
                    return page
                if (resource_type, document["_id"]) != (call.resource_type, call.id):
                    _take(walk, page, resource, wanted)
                walk.last = document["_id"]
                scanned += 1
            if len(documents) <= room:
                break
            if len(page.members) >= walk.count or scanned >= _LARGEST_SCAN:
                page.more = True
                return page
    return page


def _take(walk: _Walk, page: _Page, resource: Resource, wanted: _Beside) -> None:
    page.beside.update(dict.fromkeys(wanted.references(resource)))
    if _is_shown(walk, resource):
        page.members.append(resource)


def _is_shown(walk: _Walk, resource: Resource) -> bool:
    if not walk.asks_for(resource["resourceType"]):
        return False
    updated = of_text(resource["meta"]["lastUpdated"])[0]
    return walk.since is None or updated >= of_text(walk.since)[0]


async def _types(call: Call, walk: _Walk, follow: bool) -> list[str]:
    """The types that are left to walk through: those of the compartment that were ever stored."""
    assert call.resource_type is not None
    inside = definitions.compartment(call.resource_type).keys()
    left = [t for t in inside if t >= walk.type and _allowed(call, t) and (walk.asks_for(t) or (follow and t != _TRAIL))]
    catalog = call.interactions.store.db["catalog"].find({"_id": {"$in": left}}, {"_id": 1})
    return sorted([row["_id"] async for row in catalog])


def _members(call: Call, walk: _Walk, resource_type: str, follow: bool) -> Document:
    """The condition of being in the compartment and in range."""
    assert call.resource_type is not None
    assert call.id is not None
    conditions: list[Document | None] = [
        in_compartment(resource_type, call.resource_type, call.id),
        in_range(resource_type, walk.start, walk.end),
        *shown_of(call.access, resource_type),
    ]
    if walk.since is not None and not follow:
        conditions.append({"updated": {"$gte": of_text(walk.since)[0]}})
    if resource_type == _TRAIL:
        conditions.append({"updated": {"$lt": of_text(walk.until)[0]}})
    return {"$and": [c for c in conditions if c is not None]}


async def _find(call: Call, resource_type: str, where: Document, after: str, limit: int) -> list[Document]:
    beyond = {"$and": [*where["$and"], {"_id": {"$gt": after}}]} if after else where
    current = call.interactions.store.current(resource_type)
    return await current.find(beyond, {"resource": 1}, sort=[("_id", 1)], limit=limit).to_list()


def _left_out(call: Call, walk: _Walk) -> list[Issue]:
    """What the caller's scopes keep from it, where it didn't say itself what it wants."""
    assert call.resource_type is not None
    if walk.types is not None:
        return []
    hidden = sorted(t for t in definitions.compartment(call.resource_type) if t != _TRAIL and not _allowed(call, t))
    text = f"left out for lack of a scope: {', '.join(hidden)}"
    return [Issue("suppressed", text, severity="information")] if hidden else []


async def _searchset(call: Call, walk: _Walk, page: _Page, found: list[Resource], notes: list[Issue]) -> Resource:
    address = f"{call.base_url}/{call.resource_type}/{call.id}/$everything"
    links = [{"relation": "self", "url": address}]
    if page.more:
        links_of = call.interactions.links
        text = await links_of.seal(_KIND, walk.content(f"{call.resource_type}/{call.id}"))
        links.append({"relation": "next", "url": f"{address}?_page={text}"})
    entries = [_entry(call, r, "match") for r in page.members] + [_entry(call, r, "include") for r in found]
    if notes:
        entries.append({"resource": operation_outcome(*notes), "search": {"mode": "outcome"}})
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset", "link": links}
    return bundle | ({"entry": entries} if entries else {})


def _entry(call: Call, resource: Resource, mode: str) -> dict[str, Any]:
    url = f"{call.base_url}/{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}


def _operation(resource_type: str, parameters: dict[str, str]) -> Operation:
    definition = f"http://hl7.org/fhir/OperationDefinition/{resource_type}-everything"
    levels = frozenset[Level]({"instance"})
    return Operation("everything", definition, levels, everything, frozenset({resource_type}), parameters=parameters)


OPERATIONS = (
    _operation("Patient", {"start": "date", "end": "date", **_PARAMETERS}),
    _operation("Encounter", _PARAMETERS),
)
