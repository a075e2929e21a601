"""IN1, IN3, GT1, NK1 -> Coverage with its payor and authorization, and the people around the patient (v2-to-FHIR guide).

What IN1-14 and IN3 make is our own: the guide has no map for them.

For ADT and for orders alike. What is known is brought up to date by ADT only; what a message leaves out, stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bridges.v2.codes import SUBSCRIBER_RELATIONSHIP
from bridges.v2.datatypes import CWE, CX, XPN
from bridges.v2.known import Known
from bridges.v2.mapping import Row, Table, table
from bridges.v2.message import Message, Segment
from bridges.v2.person_names import human_name
from bridges.v2.pid_in import postal_address, telecoms
from bridges.v2.reception import Sender, date_time
from bridges.v2.systems import concept, identifier, typed
from fhir_server.elements import codings
from fhir_server.elements import concept as coded
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.search.keys import fold
from fhir_server.unit_of_work import UnitOfWork
from resources import identifiers

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem/"
_COVERAGE_CLASS: Final = _TERMINOLOGY + "coverage-class"
_MANY: Final = 500


@dataclass(frozen=True, slots=True)
class Insurance:
    """One IN1 of a patient, with the organization that pays, and its certification (IN3), if there is one with a number."""

    segment: Segment
    sender: Sender
    patient: Resource
    payor: Resource
    certification: Segment | None = None


@dataclass(frozen=True, slots=True)
class Insured:
    """What an IN1 has become: to be named by ServiceRequest.insurance."""

    coverage: Resource
    authorization: Resource | None


@dataclass(frozen=True, slots=True)
class Related:
    """One NK1 or GT1 of a patient."""

    segment: Segment
    sender: Sender
    patient: Resource


def _concept(segment: Segment, field: int, sender: Sender) -> dict[str, Any] | None:
    return concept(CWE.from_field(segment.repetitions(field)[0]), sender.authority) if segment.raw(field) else None


def _each(segment: Segment, field: int, read: Any) -> list[Any]:
    return [x for f in segment.repetitions(field) if (x := read(f))]


# IN1: who pays


def _payor_identifiers(of: Related) -> list[Resource]:
    return [identifier(of.sender.known(CX.from_field(f)), of.sender.authority)
            for f in of.segment.repetitions(3) if f.get(1).strip()]  # fmt: skip


PAYOR = table(
    "IN1 -> Organization (payor)",
    "Organization",
    Row("IN1-3", "identifier", _payor_identifiers, "found again by it, else by the name", "C"),
    Row("IN1-4", "name", lambda of: of.segment.field(4).strip(), "without it and IN1-3 the IN1 is passed over", "C"),
    Row("IN1-5", "address", lambda of: _each(of.segment, 5, postal_address)),
    Row("IN1-7", "telecom", lambda of: telecoms(of.segment, 7, "work")),
    active=True,
    type=[coded(_TERMINOLOGY + "organization-type", "pay")],
)  # fmt: skip


async def _payor(unit: UnitOfWork, of: Related) -> Resource | None:
    said = await PAYOR.build(of)
    if "identifier" in said:
        found = await identifiers.carriers(unit, "Organization", said["identifier"])
        await unit.lock(*(f"organization:{i['value']}" for i in said["identifier"])) if not found else None
    elif "name" in said:
        named = await unit.matching("Organization", f"name:exact={_criterion(said['name'])}", limit=_MANY)
        found = [o for o in named if fold(str(o.get("name"))) == fold(said["name"])]
        await unit.lock(f"organization:{fold(said['name'])}") if not found else None
    else:
        return None
    if found:
        return found[0]
    return await unit.create(said if "name" in said else said | {"name": said["identifier"][0]["value"]})


def _criterion(text: str) -> str:
    return identifiers.escaped(text).replace("%", "%25").replace("&", "%26").replace("+", "%2B").replace("#", "%23")


# IN1: the insurance


def _policy(of: Insurance) -> Resource | None:
    """What tells one insurance from another: the number of the policy, else of the insured, else of the plan."""
    for field in (36, 49, 2):
        value = of.segment.field(field).strip()
        if value:
            payor: Resource = next(iter(of.payor.get("identifier", ())), {})
            kind = typed("PNT") if field == 36 else typed("MB") if field == 49 else None
            system = {"system": payor["system"]} if "system" in payor else {}
            return ({"type": kind} if kind else {}) | system | {"value": value}
    return None


def _classes(of: Insurance) -> list[Resource]:
    found = []
    for code, field, name in (("group", 8, 9), ("plan", 2, None), ("plan", 35, None)):
        if value := of.segment.field(field).strip():
            shown = of.segment.get(field, 2).strip() if name is None else of.segment.field(name).strip()
            found.append({"type": coded(_COVERAGE_CLASS, code), "value": value} | ({"name": shown} if shown else {}))
    return found


def _relationship(of: Insurance) -> dict[str, Any] | None:
    code = of.segment.field(17).strip()
    known = SUBSCRIBER_RELATIONSHIP.fhir(code)
    return coded(SUBSCRIBER_RELATIONSHIP.target, known) if known else _concept(of.segment, 17, of.sender)


def _is_self(of: Insurance) -> bool:
    return SUBSCRIBER_RELATIONSHIP.fhir(of.segment.field(17)) == "self"


def _subscriber(of: Insurance) -> Resource | None:
    if _is_self(of):
        return ref(of.patient)
    name = human_name(XPN.from_field(of.segment.repetitions(16)[0])) if of.segment.raw(16) else None
    shown = ", ".join(x for x in ((name or {}).get("family", ""), " ".join((name or {}).get("given", ()))) if x)
    return {"display": shown} if shown else None


def _order(of: Insurance) -> int | None:
    for field in (22, 1):
        text = of.segment.field(field).strip()
        if text.isdecimal() and text.isascii() and 0 < int(text) < 100:
            return int(text)
    return None


IN1 = table(
    "IN1 -> Coverage",
    "Coverage",
    Row("IN1-36, IN1-49, IN1-2", "identifier", lambda of: [p] if (p := _policy(of)) else [],
        "the first that is there; found again by it, the payor and the patient. Its system is the payor's"),
    Row("IN1-3, IN1-4", "payor", lambda of: [ref(of.payor, of.payor.get("name"))], "", "R"),
    Row("IN1-2, IN1-8, IN1-9, IN1-35", "class", _classes, "group and plan"),
    Row("IN1-12", "period.start", lambda of: date_time(of.sender, of.segment, 12)),
    Row("IN1-13", "period.end", lambda of: date_time(of.sender, of.segment, 13)),
    Row("IN1-15", "type", lambda of: _concept(of.segment, 15, of.sender)),
    Row("IN1-16, IN1-17", "subscriber", _subscriber, "the patient where IN1-17 is SEL, else by name"),
    Row("IN1-17", "relationship", _relationship),
    Row("IN1-49", "subscriberId", lambda of: of.segment.field(49).strip()),
    Row("IN1-22, IN1-1", "order", _order),
    Row("PID-3", "beneficiary", lambda of: ref(of.patient), "the patient of the message", "R"),
    status="active",
)  # fmt: skip


def _number(of: Insurance) -> str:
    certified = of.certification.field(2).strip() if of.certification else ""
    return certified or of.segment.field(14).strip()


def _begin(of: Insurance) -> str | None:
    certified = date_time(of.sender, of.certification, 9) if of.certification else None
    return certified or date_time(of.sender, of.segment, 14, 2)


AUTHORIZATION: Table[Insurance] = table(
    "IN1, IN3 -> ClaimResponse (authorization)",
    "ClaimResponse",
    Row("IN3-2, IN1-14", "preAuthRef", _number, "the number; ServiceRequest.insurance names it", "C"),
    Row("IN3-9, IN1-14", "preAuthPeriod.start", _begin),
    Row("IN3-10", "preAuthPeriod.end", lambda of: date_time(of.sender, of.certification, 10) if of.certification else None),
    Row("IN1-14", "disposition", lambda of: of.segment.get(14, 3).strip()),
    Row("IN1-3, IN1-4", "insurer", lambda of: ref(of.payor, of.payor.get("name"))),
    Row("PID-3", "patient", lambda of: ref(of.patient)),
    status="active",
    use="preauthorization",
    outcome="complete",
    type=coded(_TERMINOLOGY + "claim-type", "institutional"),
)  # fmt: skip


async def insurances(
    unit: UnitOfWork, message: Message, sender: Sender, patient: Resource, *, update: bool = False
) -> list[Insured]:
    """Each IN1 with a payor. `update`: what is known already is brought up to date (ADT)."""
    found: list[Insured] = []
    coverages: Known | None = None
    for segment in message.all("IN1"):
        payor = await _payor(unit, Related(segment, sender, patient))
        if payor is None:
            continue
        of = Insurance(segment, sender, patient, payor, _certification(message, segment))
        if coverages is None:
            stored = await unit.matching("Coverage", f"beneficiary=Patient/{patient['id']}", limit=_MANY)
            coverages = Known(stored, _insurance)
        coverage = await _coverage(unit, await IN1.build(of), coverages, update=update)
        coverages.keep(coverage)
        authorization = await _authorization(unit, await AUTHORIZATION.build(of), coverage, update=update)
        found.append(Insured(coverage, authorization))
    return found


def _certification(message: Message, insurance: Segment) -> Segment | None:
    """The IN3 with a number that stands behind an IN1, before the next one."""
    behind = message.segments[next(i for i, s in enumerate(message.segments) if s is insurance) + 1 :]
    for segment in behind:
        if segment.name == "IN1":
            return None
        if segment.name == "IN3" and segment.field(2).strip():
            return segment
    return None


async def _coverage(unit: UnitOfWork, said: Resource, known: Known, *, update: bool) -> Resource:
    same = known.same(said)
    if same is None:
        return await unit.create(said)
    return await unit.update(same | said) if update else same


def _insurance(coverage: Resource) -> Iterator[tuple[str, str]]:
    """Two are the same by payor and number; without a number by the payor alone."""
    numbers = [str(i.get("value")) for i in coverage.get("identifier", ())]
    for payor in coverage.get("payor", ()):
        yield from ((str(payor.get("reference")), number) for number in numbers or [""])


async def _authorization(unit: UnitOfWork, said: Resource, coverage: Resource, *, update: bool) -> Resource | None:
    if "preAuthRef" not in said:
        return None
    known = await unit.matching("ClaimResponse", f"patient={said['patient']['reference']}", limit=_MANY)
    same = next((c for c in known if c.get("preAuthRef") == said["preAuthRef"] and c.get("insurer") == said["insurer"]), None)
    if same is not None:
        return await unit.update(same | said) if update else same
    insurance = [{"sequence": 1, "focal": True, "coverage": ref(coverage)}]
    return await unit.create(said | {"created": unit.now.date().isoformat(), "insurance": insurance})


# NK1, GT1


def _role(of: Related) -> list[Resource]:
    """NK1-3 what they are to the patient, NK1-7 what they are for."""
    found = (_coded_0063(of, 3), _concept_of(of, 7, "0131"))
    return [c for c in found if c]


def _coded_0063(of: Related, field: int) -> dict[str, Any] | None:
    return _concept_of(of, field, "0063")


def _concept_of(of: Related, field: int, table_number: str) -> dict[str, Any] | None:
    if not of.segment.raw(field):
        return None
    element = CWE.from_field(of.segment.repetitions(field)[0])
    if element.code.strip() and element.system.strip().upper() in {"", "HL7" + table_number}:
        return coded(f"{_TERMINOLOGY}v2-{table_number}", " ".join(element.code.split()), element.text.strip() or None)
    return concept(element, of.sender.authority)


def _names(of: Related, field: int) -> list[Resource]:
    return _each(of.segment, field, lambda f: human_name(XPN.from_field(f)))


NK1 = table(
    "NK1 -> RelatedPerson",
    "RelatedPerson",
    Row("NK1-2", "name", lambda of: _names(of, 2), "found again by it and the patient", "C"),
    Row("NK1-3, NK1-7", "relationship", _role),
    Row("NK1-4", "address", lambda of: _each(of.segment, 4, postal_address)),
    Row("NK1-5", "telecom", lambda of: telecoms(of.segment, 5, "home")),
    Row("NK1-6", "telecom", lambda of: telecoms(of.segment, 6, "work")),
    Row("PID-3", "patient", lambda of: ref(of.patient)),
    active=True,
)  # fmt: skip

GT1: Table[Related] = table(
    "GT1 -> RelatedPerson (guarantor)",
    "RelatedPerson",
    Row("GT1-3", "name", lambda of: _names(of, 3), "found again by it and the patient; not where GT1-11 says SEL", "C"),
    Row("GT1-5", "address", lambda of: _each(of.segment, 5, postal_address)),
    Row("GT1-6", "telecom", lambda of: telecoms(of.segment, 6, "home")),
    Row("GT1-7", "telecom", lambda of: telecoms(of.segment, 7, "work")),
    Row("GT1-11", "relationship", lambda of: [c] if (c := _coded_0063(of, 11)) else []),
    Row("PID-3", "patient", lambda of: ref(of.patient)),
    active=True,
)  # fmt: skip
_GUARANTOR: Final = coded(_TERMINOLOGY + "v3-RoleClass", "GUAR", "guarantor")


async def related_people(unit: UnitOfWork, message: Message, sender: Sender, patient: Resource) -> list[Resource]:
    """Next of kin and guarantors, each found by name or made."""
    made: list[Resource] = []
    known: Known | None = None
    for segment in message.segments:
        if segment.name not in {"NK1", "GT1"}:
            continue
        said = await (NK1 if segment.name == "NK1" else GT1).build(Related(segment, sender, patient))
        if "name" not in said or (segment.name == "GT1" and segment.field(11).strip().upper() == "SEL"):
            continue
        if segment.name == "GT1":
            said["relationship"] = [*said.get("relationship", ()), _GUARANTOR]
        if known is None:
            stored = await unit.matching("RelatedPerson", f"patient=Patient/{patient['id']}", limit=_MANY)
            known = Known(stored, lambda person: [_folded(person)])
        same = known.same(said)
        if same is not None:
            roles = same.get("relationship", [])
            known_codes = {(c.get("system"), c.get("code")) for c in codings(roles)}
            new = [
                r for r in said.get("relationship", ()) if not any((c["system"], c["code"]) in known_codes for c in codings(r))
            ]
            said["relationship"] = [*roles, *new]
            said = {k: v for k, v in said.items() if v}
        made.append(await (unit.update(same | said) if same else unit.create(said)))
        known.keep(made[-1])
    return made


def _folded(person: Resource) -> tuple[str, str]:
    name: Resource = next(iter(person.get("name", ())), {})
    return fold(name.get("family", "")), fold(" ".join(name.get("given", ())))
