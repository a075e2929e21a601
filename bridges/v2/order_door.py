"""What happens to an order that looks odd: taken, shown, held or refused, as was agreed with the partner (`accept-...`).

Where the catalogue is stricter, its rule counts (`resources/order_verdict.py`).
"""

from bridges.v2.message import readable
from bridges.v2.order_groups import Order
from bridges.v2.partner import Partner
from bridges.v2.refused import Refused, Shown, wrong
from fhir_server.registry import Resource
from resources import order_intake, order_verdict
from resources.order_intake import Finding, Kind
from resources.order_verdict import Rule, Verdict

# Where each finding is in a message, and its code of table 0357.
_PLACES = {
    "ServiceRequest.code": ("OBR", 4),
    "ServiceRequest.reasonCode": ("OBR", 31),
    "ServiceRequest.authoredOn": ("ORC", 9),
    "ServiceRequest.occurrence": ("ORC", 7),
}
_CODES = {"unknown-procedure": 103, "missing-reason": 101, "duplicate-order": 205, "implausible-date": 102}


def _rules(partner: Partner) -> dict[Kind, Rule]:
    return {
        "unknown-procedure": partner.unknown_procedure,
        "missing-reason": partner.missing_reason,
        "duplicate-order": partner.duplicate_order,
        "implausible-date": partner.implausible_date,
    }


async def judge(order: Order, request: Resource, patient: Resource) -> Verdict:
    """What the rules say of an order that is not stored yet. Refused where one of them says so."""
    partner = order.sender.partner
    verdict = await order_verdict.judge(order.unit, request, patient, _rules(partner), partner.duplicate_days)
    if verdict.refused:
        raise _refusal(order, verdict.refused[0], patient)
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
