"""What becomes of an order that looks odd, at every door: taken, shown to a person, held until one has looked, or refused.

A catalogue entry says so with the extension `urn:fhir-ris:intake-rule` (it may repeat): `finding` (valueCode, a kind of
`order_intake.py`) and `rule` (valueCode: `accept`, `work-item`, `hold`, `refuse`). The entry whose identifier is
`urn:fhir-ris:catalogue|any` says it for all others, and for procedures that are not in the catalogue. The stricter of the
catalogue's rule and the door's counts.

Findings are kept as work items about the order (Task.focus): one of the finding's kind where the order goes on, one of code
`order-hold` where it waits. Their inputs name each finding by code and words; of a duplicate
the order and the others are in `basedOn`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from fhir_server.elements import codes, concept, extension, has_code
from fhir_server.foresight import asked
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import order_intake, order_panel, task, terms, work_items
from resources.order_intake import KINDS, Finding, Kind
from resources.security_labels import labelled

Rule = Literal["accept", "work-item", "hold", "refuse"]
RULES: Final[tuple[Rule, ...]] = ("accept", "work-item", "hold", "refuse")  # the later, the stricter
# What a door does where nothing else is agreed with whoever sends.
DEFAULTS: Final[Mapping[Kind, Rule]] = {
    "unknown-procedure": "work-item",
    "missing-reason": "accept",
    "duplicate-order": "work-item",
    "implausible-date": "work-item",
}
INTAKE_RULE: Final = "urn:fhir-ris:intake-rule"
CATALOGUE: Final = "urn:fhir-ris:catalogue"  # identifier of the entry `any`, for what has no entry of its own
FINDING: Final = "urn:fhir-ris:order-finding"  # code system of the kinds
_GENERAL: Final = asked("ActivityDefinition", {"identifier": f"{CATALOGUE}|any", "status": "active"})
# What is asked about every order, for `View.foresee`.
ASKED: Final = (_GENERAL, order_intake.CATALOGUED)


@dataclass(slots=True)
class Verdict:
    """What is to be done with an order: refuse it, hold it, open work items."""

    refused: list[Finding] = field(default_factory=list)
    held: list[Finding] = field(default_factory=list)
    items: list[Finding] = field(default_factory=list)

    @property
    def found(self) -> list[Finding]:
        return [*self.refused, *self.held, *self.items]


async def judge(
    unit: UnitOfWork,
    order: Resource,
    patient: Resource,
    agreed: Mapping[Kind, Rule] = DEFAULTS,
    days: int = order_intake.DUPLICATE_DAYS,
) -> Verdict:
    """What is found about an order, sorted by what is to be done about it.

    agreed: what the door does
    days: how near to each other two alike orders are duplicates
    """
    entries = await order_panel.entries(unit, order)
    rules = await _rules(unit, entries, agreed)
    kinds = [kind for kind, rule in rules.items() if rule != "accept"]
    if rules["duplicate-order"] != "accept" and not order_intake.is_new(unit, f"Patient/{patient['id']}"):
        await unit.lock(f"orders-of:{patient['id']}")  # of two alike orders at once, one must see the other
    verdict = Verdict()
    lists = {"refuse": verdict.refused, "hold": verdict.held, "work-item": verdict.items}
    for finding in await order_intake.examine(unit, order, patient, kinds, days, entries):
        lists[rules[finding.kind]].append(finding)
    return verdict


async def _rules(unit: UnitOfWork, entries: Iterable[Resource], agreed: Mapping[Kind, Rule]) -> dict[Kind, Rule]:
    said = [_said(entry) for entry in entries]
    general = [_said(e) for e in await unit.ask(_GENERAL)]
    rules: dict[Kind, Rule] = {}
    for kind in KINDS:
        own = [rules_[kind] for rules_ in said if kind in rules_] or [rules_[kind] for rules_ in general if kind in rules_]
        rules[kind] = max((agreed[kind], *own), key=RULES.index)
    return rules


def _said(entry: Resource) -> dict[Kind, Rule]:
    """What an entry of the catalogue says is to be done."""
    found: dict[Kind, Rule] = {}
    for one in entry.get("extension", ()):
        if one.get("url") == INTAKE_RULE:
            kind, rule = ((extension(one, name) or {}).get("valueCode") for name in ("finding", "rule"))
            found[cast("Kind", kind)] = cast("Rule", rule)
    return found


async def check_entry(_unit: UnitOfWork, change: Change) -> None:
    """A rule that the catalogue can't mean is refused when it is written."""
    for kind, rule in _said(change.after or {}).items():
        if kind not in KINDS or rule not in RULES:
            text = f"{INTAKE_RULE} has a finding ({', '.join(KINDS)}) and a rule ({', '.join(RULES)})"
            raise fail("code-invalid", text, "ActivityDefinition.extension")


# The work items


async def show(unit: UnitOfWork, order: Resource, verdict: Verdict) -> None:
    """Keep what was found as work items about a stored order. What is no more so is closed; what is settled stays so."""
    about = f"ServiceRequest/{order['id']}"
    known = [] if order_intake.is_new(unit, about) else await unit.search("Task", focus=about, intent="order")
    mine = [item for item in known if kinds_of(item)]
    settled = {one for item in mine if item["status"] == "completed" and not _is_over(item) for one in _told(item)}
    shown = [f for f in verdict.items if _tells(f) not in settled]
    wanted: list[tuple[str, str, list[Finding]]] = [(f.kind, f"An order was taken, but {f.text}", [f]) for f in shown]
    if held := [f for f in verdict.held if _tells(f) not in settled]:
        text = f"An order is on hold until somebody has looked at it: {'; '.join(f.text for f in held)}"
        wanted.append((terms.ORDER_HOLD, text, held))
    open_items = {code: item for item in mine if item["status"] in task.OPEN for code in codes(item.get("code"), terms.TASK_CODE)}
    for code, text, findings in wanted:
        item = open_items.pop(code, None)
        if item is None:
            await _open(unit, order, code, text, findings)
        elif _told(item) != {_tells(f) for f in findings}:
            await unit.update(item | {"description": text, **_elements(order, findings)})
    for item in open_items.values():
        await unit.update(item | {"status": "completed", "statusReason": concept(FINDING, "no-longer-so")})


def settled_holds(verdict: Verdict, items: Iterable[Resource]) -> bool:
    """Whether a person has looked at all that holds the order, and let it go on."""
    done = {one for item in items if item["status"] == "completed" and not _is_over(item) for one in _told(item)}
    return all(_tells(f) in done for f in verdict.held)


async def _open(unit: UnitOfWork, order: Resource, code: str, text: str, findings: list[Finding]) -> None:
    about, patient = f"ServiceRequest/{order['id']}", order["subject"].get("reference")
    elements = _elements(order, findings)
    item = await work_items.open_work_item(unit, code, text, about, patient, details=elements["input"])
    await unit.update(labelled(item | elements, order))


def _elements(order: Resource, findings: list[Finding]) -> Resource:
    """The findings, as inputs of a work item, and the orders that are duplicates."""
    kind = concept(terms.TASK_DETAIL, "finding")
    told = [{"type": kind, "valueCodeableConcept": concept(FINDING, f.kind) | {"text": f.text}} for f in findings]
    others = [{"reference": other} for f in findings for other in f.others]
    return {"input": told} | ({"basedOn": [{"reference": f"ServiceRequest/{order['id']}"}, *others]} if others else {})


def _tells(finding: Finding) -> tuple[str, str]:
    return finding.kind, finding.text


def _told(item: Resource) -> set[tuple[str, str]]:
    """Kind and words of what a work item tells."""
    found = [i.get("valueCodeableConcept", {}) for i in item.get("input", ())]
    return {(kind, concept_.get("text", "")) for concept_ in found for kind in codes(concept_, FINDING)}


def kinds_of(item: Resource) -> set[str]:
    """The findings that a work item tells of."""
    return {kind for kind, _ in _told(item)}


def _is_over(item: Resource) -> bool:
    """Whether it was closed because it is no more so, not because a person has settled it."""
    return bool(codes(item.get("statusReason"), FINDING))


async def no_longer_double(unit: UnitOfWork, order: Resource) -> None:
    """Of orders for the same procedure one has ended: of two, nobody need look at them any more; of more, at the others."""
    own = f"ServiceRequest/{order['id']}"
    for item in await unit.search("Task", based_on=own, intent="order"):
        if item["status"] not in task.OPEN or not has_code(item.get("code"), terms.TASK_CODE, "duplicate-order"):
            continue
        left = [r for r in item["basedOn"] if r.get("reference") != own]
        if item.get("focus", {}).get("reference") == own or len(left) < 2:
            await unit.update(item | {"status": "completed", "statusReason": concept(FINDING, "no-longer-so")})
        else:
            await unit.update(item | {"basedOn": left})


def register(registry: Registry) -> None:
    registry.rule("ActivityDefinition", check_entry)
