"""Random resources: small populations that refer to each other, as hypothesis draws them."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.search_oracle import pools
from tests.search_oracle.asked import Resource
from tests.search_oracle.dates import of_text
from tests.search_oracle.units import SYSTEM as UCUM

Draw = st.SearchStrategy[Any]


def some(strategy: Draw, most: int = 2) -> Draw:
    """One to `most` of them."""
    return st.lists(strategy, min_size=1, max_size=most)


def shape(optional: dict[str, Draw], **needed: Draw) -> Draw:
    """An object with what is needed, and some of what is optional."""
    return st.fixed_dictionaries(needed, optional=optional)


text = st.sampled_from(pools.TEXTS)
coding = st.sampled_from(pools.CODINGS)
concept = shape({"text": text}, coding=some(coding)) | shape({}, text=text)
identifier = st.sampled_from(pools.IDENTIFIERS)
date_time = st.sampled_from(pools.DATES + pools.TIMES)
instant = st.sampled_from(pools.TIMES)
day = st.sampled_from(pools.DATES)
number = st.sampled_from(pools.NUMBERS).map(Decimal)


def in_order(period: dict[str, Any]) -> dict[str, Any]:
    """The Period without its end where that is before its start, in UTC or as it is written."""
    backwards = period["start"] > period["end"] or of_text(period["start"]).start > of_text(period["end"]).start
    return {"start": period["start"]} if backwards else period


one_end = st.one_of(shape({}, start=date_time), shape({}, end=date_time))
period = shape({}, start=date_time, end=date_time).map(in_order) | one_end
timing = shape({"repeat": shape({}, boundsPeriod=period)}, event=some(date_time))


def amount(quantity: dict[str, Any]) -> dict[str, Any]:
    """The quantity with its value as a number."""
    return quantity | ({"value": Decimal(quantity["value"])} if "value" in quantity else {})


plain_quantity = st.sampled_from(pools.QUANTITIES).map(amount)
comparator = st.sampled_from(["<", "<=", ">", ">="])
compared = st.tuples(plain_quantity, comparator).map(
    lambda pair: {**pair[0], **({"comparator": pair[1]} if "value" in pair[0] else {})}
)
quantity = plain_quantity | plain_quantity | compared
duration = st.sampled_from(pools.DURATIONS).map(amount)
money = st.tuples(number, st.sampled_from(["EUR", "CHF"])).map(lambda pair: {"value": pair[0], "currency": pair[1]})


@st.composite
def ranges(draw: st.DrawFn, unit: dict[str, str] | None = None) -> dict[str, Any]:
    """A Range, perhaps with an open end."""
    ends = sorted((draw(number), draw(number)))
    found = {name: {"value": value, **(unit or {})} for name, value in zip(("low", "high"), ends, strict=True)}
    if left_out := draw(st.sampled_from(["", "", "low", "high"])):
        del found[left_out]
    return found


def reference(*types: str) -> Draw:
    """A Reference to one of these types: mostly to a resource that is there; else to one that isn't, outside, or logical."""
    literal = [f"{t}/{i}" for t in types for i in range(1, pools.COUNTS.get(t, 2) + 2)]
    extra = [f"{literal[0]}/_history/1", f"{pools.OUTSIDE}/{literal[0]}", f"{pools.BASE_URL}/{literal[-2]}"]
    by_identifier = [{"identifier": {k: v for k, v in i.items() if k != "type"}} for i in pools.IDENTIFIERS]
    written = [{"reference": r} for r in literal + extra]
    both = [{**written[0], **by_identifier[0]}, {"display": "somebody"}]
    return st.sampled_from(written * 3 + by_identifier + both)


meta = shape(
    {
        "tag": some(coding),
        "security": some(coding, 1),
        "profile": some(st.sampled_from(pools.CANONICALS)),
        "source": st.sampled_from([*pools.URLS, pools.LONG_URL]),
    }
).filter(bool)
name = shape({"family": text, "given": some(text), "text": text, "use": st.just("usual")}, prefix=st.just(["Dr."]))
address = shape({"line": some(text), "city": text, "postalCode": text}, country=text, use=st.sampled_from(["work", "temp"]))
telecom = shape({"value": st.sampled_from(["100", "a@example.org"])}, system=st.sampled_from(["phone", "email"]))


def code(path: str) -> Draw:
    """A code of an element."""
    return st.sampled_from(pools.CODES[path])


def resource(resource_type: str, optional: dict[str, Draw], **needed: Draw) -> Draw:
    """A resource; tags and the like are as optional as anything."""
    return shape({"meta": meta, **optional}, resourceType=st.just(resource_type), **needed)


patient_or_device = reference("Patient", "Patient", "Device")

context_quantity = st.one_of(
    plain_quantity.map(lambda q: {"valueQuantity": q}),
    ranges({"system": UCUM, "code": "mg"}).map(lambda r: {"valueRange": r}),
    concept.map(lambda c: {"valueCodeableConcept": c}),
)
use_context = st.tuples(coding, context_quantity).map(lambda pair: {"code": pair[0], **pair[1]})

value = st.one_of(
    quantity.map(lambda v: {"valueQuantity": v}),
    concept.map(lambda v: {"valueCodeableConcept": v}),
    text.map(lambda v: {"valueString": v}),
    date_time.filter(lambda t: "T" in t or len(t) >= 4).map(lambda v: {"valueDateTime": v}),
    period.map(lambda v: {"valuePeriod": v}),
)
component = st.tuples(coding, value).map(lambda pair: {"code": {"coding": [pair[0]]}, **pair[1]})


@st.composite
def observations(draw: st.DrawFn) -> Resource:
    """An Observation with values in itself and in its components (its own code is not one of theirs, as obs-7 wants)."""
    found: Resource = draw(
        resource(
            "Observation",
            {
                "subject": patient_or_device,
                "encounter": reference("Encounter"),
                "basedOn": some(reference("ServiceRequest")),
                "performer": some(reference("Organization", "Patient")),
                "hasMember": some(reference("Observation"), 1),
                "category": some(concept),
                "identifier": some(identifier),
                "component": some(component),
            },
            status=code("Observation.status"),
            code=concept,
        )
    )
    if "component" in found and any(c["code"]["coding"][0] in found["code"].get("coding", ()) for c in found["component"]):
        found["code"] = {"text": "k1"}
    return found | draw(value | st.just({})) | draw(effective | st.just({}))


effective = st.one_of(
    date_time.map(lambda v: {"effectiveDateTime": v}),
    period.map(lambda v: {"effectivePeriod": v}),
    instant.map(lambda v: {"effectiveInstant": v}),
    timing.map(lambda v: {"effectiveTiming": v}),
)
occurrence = st.one_of(
    date_time.map(lambda v: {"occurrenceDateTime": v}),
    period.map(lambda v: {"occurrencePeriod": v}),
    timing.map(lambda v: {"occurrenceTiming": v}),
    st.just({}),
)


def with_occurrence(strategy: Draw) -> Draw:
    return st.tuples(strategy, occurrence).map(lambda pair: pair[0] | pair[1])


def listed(entries: list[Any]) -> dict[str, Any]:
    """A List in mode changes, the one that may have deleted entries."""
    return {"mode": "changes", "entry": entries}


def within_an_hour(appointment: Resource) -> Resource:
    """An Appointment has both a start and an end."""
    return appointment | ({"end": "2030-01-01T00:00:00Z", "start": appointment["start"]} if "start" in appointment else {})


def last_modified_later(task: Resource) -> Resource:
    """A Task is not changed before it is written (inv-1)."""
    if "authoredOn" in task and "lastModified" in task:
        task["authoredOn"] = task["lastModified"]
    return task


def is_percentage(span: dict[str, Any]) -> bool:
    """RiskAssessment's probabilities end at 100."""
    return all(end["value"] <= 100 for end in span.values())


BY_TYPE: dict[str, Draw] = {
    "Patient": resource(
        "Patient",
        {
            "identifier": some(identifier),
            "active": st.booleans(),
            "name": some(name),
            "telecom": some(telecom),
            "gender": code("Patient.gender"),
            "birthDate": day,
            "address": some(address, 1),
            "managingOrganization": reference("Organization"),
            "generalPractitioner": some(reference("Organization")),
            "deceasedBoolean": st.booleans(),
        },
    ),
    "Observation": observations(),
    "ServiceRequest": with_occurrence(
        resource(
            "ServiceRequest",
            {
                "identifier": some(identifier),
                "instantiatesCanonical": some(st.sampled_from(pools.CANONICALS)),
                "instantiatesUri": some(st.sampled_from([*pools.URLS, pools.LONG_URL]), 1),
                "basedOn": some(reference("ServiceRequest")),
                "priority": code("ServiceRequest.priority"),
                "code": concept,
                "category": some(concept),
                "encounter": reference("Encounter"),
                "authoredOn": date_time,
                "requester": reference("Organization", "Patient"),
            },
            status=code("ServiceRequest.status"),
            intent=code("ServiceRequest.intent"),
            subject=patient_or_device,
        )
    ),
    "Appointment": resource(
        "Appointment",
        {
            "identifier": some(identifier),
            "start": instant,
            "basedOn": some(reference("ServiceRequest"), 1),
            "serviceType": some(concept, 1),
            "appointmentType": concept,
        },
        status=code("Appointment.status"),
        participant=some(shape({}, actor=patient_or_device, status=code("Appointment.participant.status"))),
    )
    .map(within_an_hour)
    .map(lambda a: a if "start" in a else {**a, "status": "cancelled"}),
    "Task": resource(
        "Task",
        {
            "identifier": some(identifier),
            "basedOn": some(reference("ServiceRequest")),
            "partOf": some(reference("Task"), 1),
            "priority": code("Task.priority"),
            "code": concept,
            "businessStatus": concept,
            "focus": reference("ServiceRequest", "Observation"),
            "for": reference("Patient"),
            "encounter": reference("Encounter"),
            "executionPeriod": period,
            "authoredOn": date_time,
            "lastModified": date_time,
            "owner": reference("Organization", "Device"),
        },
        status=code("Task.status"),
        intent=code("Task.intent"),
    ).map(last_modified_later),
    "Organization": resource(
        "Organization",
        {
            "identifier": some(identifier),
            "active": st.booleans(),
            "type": some(concept, 1),
            "alias": some(text),
            "address": some(address, 1),
            "partOf": reference("Organization"),
        },
        name=text,
    ),
    "RiskAssessment": resource(
        "RiskAssessment",
        {
            "prediction": some(
                number.filter(lambda n: n <= 100).map(lambda n: {"probabilityDecimal": n})
                | ranges({"system": UCUM, "code": "%"}).filter(is_percentage).map(lambda r: {"probabilityRange": r})
                | concept.map(lambda c: {"qualitativeRisk": c})
            ),
            "occurrenceDateTime": date_time,
            "encounter": reference("Encounter"),
        },
        status=code("RiskAssessment.status"),
        subject=reference("Patient"),
    ),
    "ChargeItem": with_occurrence(
        resource(
            "ChargeItem",
            {
                "factorOverride": number,
                "priceOverride": money,
                "quantity": plain_quantity,
                "context": reference("Encounter"),
                "service": some(reference("Observation"), 1),
                "enteredDate": date_time,
            },
            status=code("ChargeItem.status"),
            code=concept,
            subject=reference("Patient"),
        )
    ),
    "List": st.tuples(
        resource("List", {"title": text, "subject": reference("Patient"), "date": date_time}, status=code("List.status")),
        st.lists(
            shape({"deleted": st.booleans()}, item=reference("Patient", "Observation", "Task", "Patient")), min_size=1, max_size=8
        ),
    ).map(lambda pair: pair[0] | listed(pair[1])),
    "Encounter": resource(
        "Encounter",
        {
            "identifier": some(identifier, 1),
            "type": some(concept, 1),
            "subject": reference("Patient"),
            "period": period,
            "length": duration,
            "location": some(shape({"period": period}, location=reference("Location"))),
            "serviceProvider": reference("Organization"),
            "partOf": reference("Encounter"),
        },
        **{"class": coding, "status": code("Encounter.status")},
    ),
    "ValueSet": resource(
        "ValueSet",
        {
            "url": st.sampled_from([*pools.URLS, pools.LONG_URL]),
            "version": st.sampled_from(pools.VERSIONS),
            "name": st.just("Name"),
            "title": text,
            "description": text,
            "date": date_time,
            "useContext": some(use_context),
            "jurisdiction": some(concept, 1),
        },
        status=code("ValueSet.status"),
    ),
    "ActivityDefinition": resource(
        "ActivityDefinition",
        {
            "url": st.sampled_from([*pools.URLS, pools.LONG_URL]),
            "version": st.sampled_from(pools.VERSIONS),
            "title": text,
            "useContext": some(use_context),
            "topic": some(concept, 1),
            "effectivePeriod": period,
            "library": some(st.sampled_from(pools.CANONICALS)),
        },
        status=code("ActivityDefinition.status"),
    ),
}


@st.composite
def populations(draw: st.DrawFn) -> list[Resource]:
    """Resources of all these types, half of the most to the most of each."""
    return [found for kind, most in pools.COUNTS.items() for found in _numbered(draw, kind, most)]


def _numbered(draw: st.DrawFn, kind: str, most: int) -> Iterator[Resource]:
    for number_, found in enumerate(draw(st.lists(BY_TYPE[kind], min_size=(most + 1) // 2, max_size=most)), 1):
        yield {**found, "id": str(number_)}
