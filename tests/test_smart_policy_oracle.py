"""No request of any kind returns or reveals what the policy denies: random scopes, roles and data, judged by `smart_policy.py`.

Each example draws a world, a caller and requests. They are made twice: in the whole world, and in one that has only what the
caller may see or name. Status, body, counts, links and errors must be the same in both; so nothing that is hidden makes any
difference. What is shown, found and counted is compared with the policy as well, so that nothing is hidden that may be seen.

The suite tries a fixed number of examples, always the same; more and ever new ones with

    SMART_POLICY_EXAMPLES=2000 pytest tests/test_smart_policy_oracle.py
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import pytest
from bson.binary import Binary
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fhir_server import fhir_json
from fhir_server.addresses import parse
from fhir_server.audit import Act
from fhir_server.elements import duplicate
from fhir_server.exchange import Ask, Conditions, Parameters, Patch, Prefer, Reply
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError, operation_outcome
from fhir_server.patching import as_patch
from fhir_server.rest import Rest
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access
from smart_auth.scopes import parse_scopes
from tests.fhir_app import FhirApp, serving
from tests.smart_policy import SHARED, V3, Granted, Policy, Who, owners

Resource = dict[str, Any]

EXAMPLES = int(os.environ.get("SMART_POLICY_EXAMPLES", "15"))
READ, WRITTEN = 12, 5  # requests of an example
SYSTEM = Access.system("policy")
BASE = "http://ris.example/fhir"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CODE = {"coding": [{"system": "http://loinc.org", "code": "24627-2"}]}
ME, OTHER = "Practitioner/d0", "Practitioner/d1"
PATIENTS = ("p0", "p1", "p2")
COUNTS = {
    "Patient": 3, "Practitioner": 2, "Encounter": 2, "ServiceRequest": 3, "Observation": 6, "DiagnosticReport": 3,
    "Communication": 2, "Task": 2, "Device": 2, "List": 1, "Binary": 1, "Location": 3, "Consent": 3,
}  # fmt: skip
TYPES = tuple(COUNTS)
LETTERS = dict(zip(TYPES, "pdesorctvlbhk", strict=True))
IDS = {kind: tuple(f"{LETTERS[kind]}{i}" for i in range(n)) for kind, n in COUNTS.items()}


# Drawing. Hypothesis draws the seed only: of choices as many as these its own examples come out much alike.

Choice = Callable[[Random], Any]
Draw = Callable[[Choice], Any]


def composite(make: Callable[..., Any]) -> Callable[..., Choice]:
    """What a function makes by its `draw`, with its other arguments."""
    return lambda *arguments: lambda random: make(lambda choice: choice(random), *arguments)


def one(some: Sequence[Any]) -> Choice:
    return lambda random: random.choice(some)


def several(some: Sequence[Any], most: int) -> Choice:
    return lambda random: [random.choice(some) for _ in range(random.randint(1, most))]


def often(random: Random) -> bool:
    return random.random() < 0.5


def seldom(random: Random) -> bool:
    return random.random() < 0.2


# Worlds

ids = one(PATIENTS)


def ref(kind: str, id_: str) -> Resource:
    return {"reference": f"{kind}/{id_}"}


@composite
def security(draw: Draw, some: tuple[str, ...] = ("R", "V", "PSY")) -> Resource:
    if not draw(seldom):
        return {}
    code = draw(one(some))
    return {"meta": {"security": [{"system": V3 if code != "PSY" else "http://example.org/labels", "code": code}]}}


@composite
def drawn(draw: Draw, kind: str, id_: str) -> Resource:  # noqa: C901 - one branch a type
    """A resource of a type."""
    made: Resource = {"resourceType": kind, "id": id_, **draw(security(("R", "V") if kind == "Patient" else ("R", "V", "PSY")))}
    patient = ref("Patient", draw(ids))
    other = ref("Patient", draw(ids))
    final = draw(one(["final", "preliminary"]))
    if kind == "Patient":
        made["gender"] = draw(one(["female", "male"]))
        if draw(seldom):
            made["generalPractitioner"] = [{"reference": draw(one([ME, OTHER]))}]
        if draw(often):
            made["link"] = [{"other": other, "type": "seealso"}]
    elif kind == "Encounter":
        made |= {"status": "finished", "subject": patient, "class": {"code": "AMB"}}
    elif kind == "ServiceRequest":
        made |= {"status": draw(one(["active", "draft"])), "intent": "order", "code": CODE, "subject": patient}
        made["requester"] = {"reference": draw(one([ME, OTHER]))}
    elif kind == "Observation":
        made |= {"status": final, "code": CODE, "subject": patient, "valueInteger": draw(one([0, 1, 2]))}
        if draw(often):
            made["category"] = [{"coding": [{"system": CATEGORY, "code": draw(one(["laboratory", "vital-signs"]))}]}]
        if draw(seldom):
            made["performer"] = [other]
        if draw(often):
            made["focus"] = [draw(one([other, ref("Observation", "o0")]))]
        if draw(often):
            made["encounter"] = ref("Encounter", draw(one(IDS["Encounter"])))
    elif kind == "DiagnosticReport":
        made |= {"status": final, "code": CODE, "subject": patient, "conclusion": "x"}
        made["result"] = [ref("Observation", i) for i in draw(several(IDS["Observation"], 3))]
    elif kind == "Communication":
        made |= {"status": "completed", "subject": patient, "recipient": [other]}
    elif kind == "Task":
        made |= {"status": "requested", "intent": "order", "focus": ref("ServiceRequest", "s0")}
        made |= {"for": patient} if draw(often) else {}
    elif kind == "Device":
        made |= {"status": "active"} | ({"patient": patient} if draw(often) else {})
    elif kind == "List":
        made |= {"status": "current", "mode": "working", "subject": patient}
        made["entry"] = [{"item": ref("Observation", i)} for i in IDS["Observation"][:4]] + [{"item": ref("Patient", "p1")}]
    elif kind == "Binary":
        made |= {"contentType": "text/plain", "data": "eA=="} | ({"securityContext": patient} if draw(often) else {})
    elif kind == "Location":
        made |= {"status": "active"} | ({"partOf": ref("Location", f"h{int(id_[1]) - 1}")} if id_ not in {"h0", "x"} else {})
    elif kind == "Consent":
        made |= {
            "status": draw(one(["active", "active", "inactive"])), "patient": patient,
            "scope": {"coding": [{"code": "patient-privacy"}]}, "category": [{"coding": [{"code": "x"}]}],
            "policy": [{"uri": "http://example.org/policy"}], "provision": draw(provision(draw(often))),
        }  # fmt: skip
    return made


@composite
def provision(draw: Draw, outer: bool) -> Resource:
    made: Resource = {"type": draw(one(["deny", "permit"]))}
    if draw(often):
        made["actor"] = [{"role": {"text": "x"}, "reference": {"reference": draw(one([ME, OTHER]))}}]
    if draw(often):
        made["securityLabel"] = [{"system": "http://example.org/labels", "code": "PSY"}]
    if outer:
        made["provision"] = [draw(provision(False))]
    return made


@composite
def worlds(draw: Draw) -> list[tuple[Resource, Resource | None]]:
    """Each resource as it is, and as it was before if it was otherwise."""
    return [(draw(drawn(kind, id_)), draw(drawn(kind, id_)) if draw(often) else None) for kind in TYPES for id_ in IDS[kind]]


# Callers


@composite
def granted(draw: Draw, levels: tuple[str, ...]) -> Granted:
    actions = draw(one(["rs", "rs", "r", "s", "crus", "cruds", "cruds", "cud", "rds"]))
    kind = draw(one(["*", "*", "Observation", *TYPES]))
    query = draw(one([None, None, ("status", ("final", "active")), ("category", ("laboratory",))]))
    if query and (kind not in {"*", "Observation"} or (query[0] == "category" and kind != "Observation")):
        query = None
    return Granted(draw(one(levels)), kind, actions, query)


@composite
def callers(draw: Draw) -> Who:
    kind = draw(one(["patient", "clinician", "clinician", "mixed", "backend"]))
    levels = {"patient": ("patient",), "clinician": ("user",), "mixed": ("user", "patient", "system"), "backend": ("system",)}
    scopes = tuple(draw(granted(levels[kind])) for _ in range(draw(one([1, 2, 3]))))
    role = draw(one(["scheduler", "technologist", "radiologist", "referrer", "admin", "privacy-officer"]))
    person = kind in {"clinician", "mixed"}
    patient = draw(ids) if kind in {"patient", "mixed"} else None
    return Who(scopes, role if person else None, patient, ME if person else None)


# Requests


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str = ""
    body: Resource | None = None
    headers: tuple[tuple[str, str], ...] = ()


SEARCHES = [
    "",
    *"""
    _summary=count
    _total=accurate&_count=2
    _sort=-_lastUpdated&_count=1&_total=accurate
    _id={o},{o2}
    _security=PSY
    _list=l0
    _include=*
    _revinclude=*
    _revinclude=*&_include:iterate=*&_revinclude:iterate=*
    _count=0
    _explain=true
""".split(),
]
SEARCHES_OF = """
    Observation?subject=Patient/{p}
    Observation?subject:Patient.gender=female&_total=accurate
    Observation?value-integer=1
    Observation?subject:Patient.general-practitioner=Practitioner/d0
    Observation?encounter.subject:Patient._id={p}
    Observation?focus:Patient.gender=male
    DiagnosticReport?result:Observation.category=laboratory&_summary=count
    DiagnosticReport?_include=DiagnosticReport:result&_include:iterate=Observation:focus
    Patient?link:Patient.gender=male
    DiagnosticReport?result.subject:Patient._has:ServiceRequest:patient:status=active
    Patient?_has:Observation:patient:status=final
    Patient?_has:Observation:focus:category=laboratory
    Encounter?_has:Observation:encounter:_id={o}
    Location?partof:below=h0
    Location?partof:above=h2
    Patient/{p}/Observation
    Patient/{p}/*?_count=3
    Encounter/{e}/Observation
    Practitioner/d1/*
    ?_type=Observation,Patient&_total=accurate&_count=3
    ?_security=V
    ?_type=Observation&_sort=_lastUpdated
    Task?patient={p}
    Patient?_revinclude=Observation:focus&_revinclude=Communication:recipient
    Communication?recipient:Patient.gender=female
    Device?patient.gender=female
    Task?focus:ServiceRequest.requester=Practitioner/d1
    Consent?actor=Practitioner/d0
    Observation/_history
    _history?_type=Patient
    Observation?category:in=http://example.org/vs
    AuditEvent
    Observation?x=y
""".split()


@composite
def reads(draw: Draw, kinds: Sequence[str]) -> Request:
    kind = draw(one(kinds))
    id_ = draw(one([*IDS[kind], "absent"]))
    end = draw(one(["", "", "/_history", "/_history/1", "/_history/2", "/_history/3", "/$meta", "/$validate", "/$everything"]))
    if end == "/$everything" and kind not in {"Patient", "Encounter"}:
        end = ""
    headers = draw(one([(), (("if_none_match", 'W/"1"'),)]))
    return Request("GET", f"{kind}/{id_}{end}", draw(one(["", "", "_elements=id"])) if not end else "", headers=headers)


@composite
def searches(draw: Draw, kinds: Sequence[str]) -> Request:
    text = draw(one(SEARCHES_OF)) if draw(often) else f"{draw(one(kinds))}?{draw(one(SEARCHES))}"
    observations = one([*IDS["Observation"], "absent"])
    patient, encounter = draw(one([*PATIENTS, "absent"])), draw(one(["e0", "e1", "absent"]))
    text = text.format(p=patient, e=encounter, o=draw(observations), o2=draw(observations))
    path, _, query = text.partition("?")
    return Request("GET", path, query)


@composite
def writes(draw: Draw, kinds: Sequence[str]) -> Request:
    kind = draw(one([*kinds, *("Observation", "DiagnosticReport", "List", "Communication") * 3]))  # those with many references
    id_ = draw(one([*IDS[kind], "absent"]))
    body = draw(drawn(kind, id_ if kind != "Location" else "x"))
    body["id"] = id_
    fresh = {name: value for name, value in body.items() if name != "id"}
    condition = draw(one([f"_id={id_}", "status=final", f"_security=PSY&_id={id_}"]))
    headers = draw(one([(), (), (("if_match", 'W/"1"'),), (("if_match", 'W/"2"'),), (("if_none_match", "*"),)]))
    if_match = headers if headers != (("if_none_match", "*"),) else ()
    patch: Resource = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [
        {"name": "type", "valueCode": "add"}, {"name": "path", "valueString": kind}, {"name": "name", "valueString": "language"},
        {"name": "value", "valueCode": "de"}]}]}  # fmt: skip
    label: Resource = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]}
    entries = [{"request": {"method": "DELETE", "url": f"{kind}/{id_}"}}] if draw(seldom) else []
    entries += [{"resource": fresh, "request": {"method": "POST", "url": kind}}]
    entries += [{"request": {"method": "GET", "url": f"{kind}/{id_}/_history/1"}}] if draw(seldom) else []
    bundle = {"resourceType": "Bundle", "type": draw(one(["transaction", "batch"])), "entry": entries}
    return draw(
        one(
            [
                Request("PUT", f"{kind}/{id_}", body=body, headers=headers),
                *[Request("POST", kind, body=fresh)] * 4,
                Request("POST", kind, body=fresh, headers=(("if_none_exist", condition),)),
                Request("PUT", kind, condition, body=body),
                Request(
                    "PATCH", f"{kind}/{id_}", body=patch, headers=headers[:0] if headers == (("if_none_match", "*"),) else headers
                ),
                Request("PATCH", kind, condition, body=patch),
                Request("DELETE", f"{kind}/{id_}", headers=if_match),
                Request("DELETE", kind, condition),
                Request("DELETE", kind, f"{condition}&_count=5"),
                Request("POST", f"{kind}/{id_}/$meta-add", body=label),
                Request("POST", f"{kind}/{id_}/$validate", "mode=update", body=body),
                Request("POST", f"{kind}/{id_}/$validate", "mode=delete"),
                Request("POST", "", body=bundle),
            ]
        )
    )


class Direct(Ask):
    """A request as the HTTP edge would make it."""

    __slots__ = ("_sent",)

    def __init__(self, request: Request, access: Access) -> None:
        query = parse_qsl(request.query, keep_blank_values=True)
        super().__init__(request.method, parse(request.path), query, access, Conditions(**dict(request.headers)), Prefer())
        self._sent = request.body

    async def resource(self) -> Resource:
        return duplicate(self._sent or {})

    async def bundle(self) -> Resource:
        return duplicate(self._sent or {})

    async def parameters(self) -> Resource | None:
        return duplicate(self._sent)

    async def patch(self) -> Patch:
        return as_patch(duplicate(self._sent), BASE)

    async def form(self) -> Parameters:
        return []


# Two worlds side by side


@dataclass
class Place:
    """One database with its interactions."""

    interactions: Interactions
    rest: Rest

    async def answer(self, request: Request, access: Access) -> tuple[int, Resource | None, str]:
        """Status, body and ETag."""
        try:
            reply: Reply = await self.rest.perform(Direct(request, access))
        except FhirError as error:
            return error.status, operation_outcome(*error.issues), ""
        return reply.status, reply.resource, (reply.stored or {}).get("meta", {}).get("versionId", "")


@dataclass
class Places:
    """The world as it was made, the copy that is asked, and the one that has only what the caller may see."""

    app: FhirApp
    made: Place = field(init=False)
    whole: Place = field(init=False)
    seen: Place = field(init=False)

    def __post_init__(self) -> None:
        self.made, self.whole, self.seen = (self.app.run(self._place(name)) for name in ("made", "whole", "seen"))

    async def _place(self, name: str) -> Place:
        # References are checked where requests are made, but not while the world is, nor of what it lacks afterwards.
        db = self.app.db.client[f"{self.app.db.name}_{name}"]
        store = type(self.app.store)(db)
        await store.ensure(*TYPES, "AuditEvent", "ValueSet")
        await db["keys"].insert_one({"_id": "page-links", "key": Binary(bytes(32))})  # a link leads on in both worlds
        interactions = Interactions(store, self.app.registry, strict_references=name != "made")

        async def nobody(_request: Any) -> Access:
            raise AssertionError

        return Place(interactions, Rest(interactions, nobody, base_url=BASE.removesuffix("/fhir"), metadata=dict))

    async def make(self, world: list[tuple[Resource, Resource | None]]) -> None:
        """The world in the first place, with its history."""
        await self._empty(self.made)
        for stage in (1, 0):  # as it was, then as it is

            async def write(unit: UnitOfWork, stage: int = stage) -> None:
                for versions in world:
                    if (one := versions[stage]) is not None:
                        await unit.update(one)

            await self.made.interactions.transact(SYSTEM, Act("transaction"), write)

    async def world(self) -> list[Resource]:
        store = self.made.interactions.store
        return [fhir_json.from_bson(d["resource"]) for kind in TYPES async for d in store.current(kind).find()]

    async def copy(self, to: Place, kept: set[str], is_kept: Callable[[Resource], bool] = lambda _: True) -> None:
        """What is kept ("Patient/p0"), with those versions of its history that are, and nothing else."""
        await self._empty(to)
        for kind in TYPES:
            ids = [name.partition("/")[2] for name in kept if name.startswith(f"{kind}/")]
            for source, target, key in (
                (self.made.interactions.store.current(kind), to.interactions.store.current(kind), "_id"),
                (self.made.interactions.store.history(kind), to.interactions.store.history(kind), "id"),
            ):
                found = await source.find({key: {"$in": ids}}).to_list()
                found = [d for d in found if key == "_id" or is_kept(fhir_json.from_bson(d["resource"]))]
                if found:
                    await target.insert_many(found)

    async def _empty(self, place: Place) -> None:
        store = place.interactions.store
        await asyncio.gather(*(c.delete_many({}) for kind in TYPES for c in (store.current(kind), store.history(kind))))

    def drop(self) -> None:
        for place in (self.made, self.whole, self.seen):
            self.app.run(self.app.db.client.drop_database(place.interactions.store.db.name))


@pytest.fixture(scope="module")
def places(mongodb_uri: str) -> Iterator[Places]:
    with serving(mongodb_uri, strict=False, core=False, rules=lambda _: None) as app:
        made = Places(app)
        yield made
        made.drop()


# What is compared


def normal(status: int, body: Resource | None, etag: str) -> str:
    """An answer without what is drawn at random or is the time."""
    if body is not None:
        entries = body.get("entry", [])
        # Among resources with ids of ours the order is chance.
        body = body | ({"entry": sorted(entries, key=lambda e: _scrubbed(json.dumps(e, default=str)))} if entries else {})
        body.pop("id", None) if body["resourceType"] == "Bundle" else None
    return _scrubbed(json.dumps([status, body, etag], default=str, sort_keys=True))


def _scrubbed(text: str) -> str:
    text = re.sub(r"[0-9a-f]{32}", "ID", text)
    text = re.sub(r"_page=[\w-]+", "_page=P", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "T", text)


def shown(body: Resource | None) -> list[Resource]:
    """The resources in an answer, whole or not, without Bundles and outcomes."""
    if body is None or body["resourceType"] in {"OperationOutcome", "Parameters"}:
        return []
    if body["resourceType"] != "Bundle":
        return [body]
    return [r for e in body.get("entry", ()) for r in shown(e.get("resource"))]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="SMART_POLICY_EXAMPLES" not in os.environ,
    phases=[Phase.generate],  # a smaller seed is no smaller example
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32))
def test_nothing_that_the_policy_denies_is_returned_or_revealed(places: Places, seed: int) -> None:
    random = Random(seed)
    who = callers()(random)
    # Mostly of types that the caller has any right to: the rest is 403 whatever there is.
    kinds = [*TYPES, *[kind for kind in TYPES for action in "rsuc" if Policy(who, []).covers(kind, action)] * 3]
    asked = [random.choice((reads(kinds), searches(kinds)))(random) for _ in range(READ)]
    written = [writes(kinds)(random) for _ in range(WRITTEN)]
    places.app.run(_examine(places, worlds()(random), who, asked, written))


async def _examine(
    places: Places, world: list[tuple[Resource, Resource | None]], who: Who, asked: list[Request], written: list[Request]
) -> None:
    await places.make(world)
    present = await places.world()
    policy = Policy(who, present)
    access = await _access(who).settled(places.made.interactions.store.db)
    kept = {_name(r) for r in present if any(policy.allows(r, a) for a in "ruds") or policy.reaches(r)}
    await places.copy(places.whole, {_name(r) for r in present})
    await places.copy(places.seen, kept, lambda version: policy.allows(version, "r"))
    await _agrees(places, policy, access, present)
    for request in asked:
        following: Request | None = request
        pages = 0
        while following is not None and pages < 10:
            following = await _same(places, policy, access, following)
            pages += 1
    hidden = [r for r in present if _name(r) not in kept]
    for request in written:
        try:
            await _same(places, policy, access, request, reading=False)
        except Held:
            break
        for r in hidden:  # untouched
            now = await places.whole.interactions.store.read(r["resourceType"], r["id"])
            assert now is not None, request
            assert now.resource == r, request


async def _agrees(places: Places, policy: Policy, access: Access, present: list[Resource]) -> None:
    """Reading and finding are allowed exactly where the policy allows them."""
    for kind in TYPES:
        mine = [r for r in present if r["resourceType"] == kind]
        for r in mine:
            status, body, _ = await places.whole.answer(Request("GET", _name(r)), access)
            expected = (200 if policy.allows(r, "r") else 404) if policy.covers(kind, "r") else 403
            assert status == expected, (_name(r), policy.who)
            assert body == r or status != 200
        status, body, _ = await places.whole.answer(Request("GET", kind, "_count=100&_total=accurate"), access)
        if not policy.covers(kind, "s"):
            assert status == 403, kind
            continue
        assert body is not None
        assert {r["id"] for r in shown(body)} == {r["id"] for r in mine if policy.allows(r, "s")}, (kind, policy.who)
        assert body["total"] == len(shown(body))


class Held(Exception):
    """Something hidden stands in the way of a deletion. That can't be kept secret, but what it is; and the worlds differ now."""


async def _same(places: Places, policy: Policy, access: Access, request: Request, *, reading: bool = True) -> Request | None:
    """Make a request in both worlds, and compare; the request for the next page, if there is one."""
    for place in (places.whole, places.seen):  # each request adds to the trail, of what it saw
        await place.interactions.store.current("AuditEvent").delete_many({})
    whole, seen = await places.whole.answer(request, access), await places.seen.answer(request, access)
    if not reading and normal(*whole) != normal(*seen) and "can't be deleted: something else refers to it" in normal(*whole):
        raise Held
    assert normal(*whole) == normal(*seen), f"{request}\n{policy.who}\n{normal(*whole)}\n{normal(*seen)}"
    if not reading or "/_history" in request.path:
        return None
    by_name = {_name(r): r for r in policy.world}
    for one in shown(whole[1]):
        stored = by_name.get(f"{one['resourceType']}/{one.get('id')}")
        if stored is not None:
            assert policy.allows(stored, "r") or policy.allows(stored, "s"), (request, policy.who, one)
    links = whole[1].get("link", ()) if whole[1] is not None and whole[1]["resourceType"] == "Bundle" else ()
    url = next((link["url"] for link in links if link["relation"] == "next"), None)
    if url is None:
        return None
    path, _, query = str(url).removeprefix(BASE).removeprefix("/").partition("?")
    return Request("GET", path, query)


def _access(who: Who) -> Access:
    scopes = parse_scopes(" ".join(s.text.replace("|", "%7C") for s in who.scopes))
    assert len(scopes) == len(set(who.scopes)), who
    return Access("app", scopes, "token", who.user, user_name="me" if who.role else None, role=who.role, patient=who.patient)


def _name(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def test_the_policy_knows_the_types_of_the_worlds() -> None:
    assert set(TYPES) <= SHARED | {"Patient"} | {t for t in TYPES if owners({"resourceType": t, "id": "x"}) == set()}
