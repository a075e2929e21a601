"""What happens to an order that looks odd: taken, shown, held or refused, as was agreed with the partner (`accept-...`)."""

from dataclasses import dataclass, field

from bridges.v2.message import readable
from bridges.v2.order_groups import Order
from bridges.v2.partner import Partner, Rule
from bridges.v2.refused import Refused, Shown, wrong
from fhir_server.registry import Resource
from resources import order_intake, task, terms
from resources.order_intake import Finding, Kind

# Where each finding is in a message, and its code of table 0357.
_PLACES = {
    "ServiceRequest.code": ("OBR", 4),
    "ServiceRequest.reasonCode": ("OBR", 31),
    "ServiceRequest.authoredOn": ("ORC", 9),
    "ServiceRequest.occurrence": ("ORC", 7),
}
_CODES = {"unknown-procedure": 103, "missing-reason": 101, "duplicate-order": 205, "implausible-date": 102}


@dataclass(slots=True)
class Verdict:
    """What is to be done with an order that may come in: the work items to open, and whether it is held until one is done."""

    items: list[Finding] = field(default_factory=list)
    held: list[Finding] = field(default_factory=list)

    async def show(self, order: Order, stored: Resource) -> None:
        """Open the work items, on the stored order."""
        about, patient = f"ServiceRequest/{stored['id']}", stored["subject"].get("reference")
        for finding in self.items:
            await task.open_work_item(order.unit, finding.kind, f"An order was taken, but {finding.text}", about, patient)
        if self.held:
            text = f"An order is on hold until somebody has looked at it: {'; '.join(f.text for f in self.held)}"
            await task.open_work_item(order.unit, terms.ORDER_HOLD, text, about, patient)


def _rules(partner: Partner) -> dict[Kind, Rule]:
    return {
        "unknown-procedure": partner.unknown_procedure,
        "missing-reason": partner.missing_reason,
        "duplicate-order": partner.duplicate_order,
        "implausible-date": partner.implausible_date,
    }


async def judge(order: Order, request: Resource, patient: Resource) -> Verdict:
    """What the partner's rules say of an order that is not stored yet. Refused where one of them says so."""
    verdict = Verdict()
    partner = order.sender.partner
    rules = _rules(partner)
    kinds = [kind for kind, rule in rules.items() if rule != "accept"]
    for finding in await order_intake.examine(order.unit, request, patient, kinds, partner.duplicate_days):
        rule = rules[finding.kind]
        if rule == "refuse":
            raise _refusal(order, finding, patient)
        if rule == "hold":
            verdict.held.append(finding)
        elif rule == "work-item":
            verdict.items.append(finding)
    return verdict


def _refusal(order: Order, finding: Finding, patient: Resource) -> Refused:
    name, number = _PLACES[finding.element]
    segment = order.orc if name == "ORC" else order.obr
    if finding.element == "ServiceRequest.occurrence" and order.timings:
        segment, number = order.timings[0], 7
    refusal = wrong(segment, number, finding.text, code=_CODES[finding.kind])
    known = not order_intake.is_new(order.unit, f"Patient/{patient['id']}")
    text = f"Refused: order {readable(order.message.control_id, 50)} of {order.sender.application}: {finding.text}"
    refusal.shown.append(Shown(finding.kind, text, patient=f"Patient/{patient['id']}" if known else None))
    return refusal
