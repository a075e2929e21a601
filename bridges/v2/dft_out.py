"""ChargeItem -> DFT^P03 (IHE RAD-35): a charge (CG) when it is entered, a credit (CD) when it is taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridges.v2.codes import CHARGE_TYPE
from bridges.v2.datatypes import CWE, XCN
from bridges.v2.destination import Destination
from bridges.v2.mapping import Layout, Out, layout
from bridges.v2.message import Comp, Seg, Sub
from bridges.v2.order_facts import OrderFacts, Render
from bridges.v2.order_segments_out import filler, requester
from bridges.v2.segments_out import evn, msh, pid, present, pv1, xcn
from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources import charge_item

# Code systems of procedures, which FT1-25 is for; others are a charge master's.
_PROCEDURES: Final = frozenset(
    {"http://www.ama-assn.org/go/cpt", "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
     "http://fhir.de/CodeSystem/bfarm/ops", "http://hl7.org/fhir/sid/icd-10-pcs"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transaction:
    """One FT1: its number, CG or CD, the charge, and the Practitioners that it names by their reference."""

    number: int
    type: str
    charge: Resource
    facts: OrderFacts
    people: Mapping[str, Resource]

    @property
    def date(self) -> str:
        found = self.charge.get("occurrenceDateTime") or self.charge.get("occurrencePeriod", {}).get("start")
        return str(found or self.charge.get("enteredDate") or self.charge["meta"]["lastUpdated"])


def transaction_type(charge: Resource) -> str:
    """CG for a charge that stands, CD for one that was taken back; empty for what is not charged yet."""
    return CHARGE_TYPE.v2(charge.get("status"))


def _code(concept: dict[str, Any], to: Destination, *, procedure: bool) -> CWE:
    """FT1-7: the code of the charge master; FT1-25: that of a procedure classification. Each the other where it is alone."""
    chosen = [c for c in codings(concept) if (c.get("system") in _PROCEDURES) is procedure]
    return to.code(concept | {"coding": chosen} if chosen else concept)


def _performers(of: Transaction) -> list[XCN]:
    actors = [p.get("actor", {}) for p in of.charge.get("performer", ())]
    return [x for a in actors if (x := xcn(a, of.people.get(a.get("reference", "")))) is not None]


def _money(value: dict[str, Any] | None) -> Comp | None:
    """CP: amount and currency."""
    if not value or "value" not in value:
        return None
    return Comp(Sub(str(value["value"]), value.get("currency")))


def _quantity(of: Transaction) -> str:
    return str(of.charge.get("quantity", {}).get("value", 1))


def _modifiers(of: Transaction, to: Destination) -> list[CWE]:
    return [to.code(m) for m in charge_item.modifiers(of.charge)]


FT1: Final[Layout[Transaction]] = layout(
    "ChargeItem -> FT1",
    "FT1",
    Out(1, "", lambda of, _: of.number),
    Out(2, "ChargeItem.identifier", lambda of, _: _transaction_id(of.charge), "the same for charge and credit"),
    Out(4, "ChargeItem.occurrence[x]", lambda of, to: to.time(of.date), "", "R"),
    Out(5, "ChargeItem.enteredDate", lambda of, to: to.time(of.charge.get("enteredDate"))),
    Out(6, "ChargeItem.status", lambda of, _: of.type, "CG billable; CD aborted, not billable, entered in error", "R"),
    Out(7, "ChargeItem.code", lambda of, to: _code(of.charge["code"], to, procedure=False), "charge master, else as FT1-25", "R"),
    Out(10, "ChargeItem.quantity", lambda of, _: _quantity(of)),
    Out(12, "ChargeItem.priceOverride", lambda of, _: _money(of.charge.get("priceOverride")), "of one"),
    Out(13, "ChargeItem.costCenter", lambda of, _: Comp(None, of.charge.get("costCenter", {}).get("display"))),
    Out(19, "ChargeItem.reason", lambda of, to: [to.code(r) for r in of.charge.get("reason", ())], "diagnosis"),
    Out(20, "ChargeItem.performer", lambda of, _: _performers(of), "performed by"),
    Out(21, "ServiceRequest.requester", lambda of, _: requester(of.facts), "ordered by"),
    Out(23, "ServiceRequest.identifier[FILL]", lambda of, _: filler(of.facts.order), "filler order number"),
    Out(25, "ChargeItem.code", lambda of, to: _code(of.charge["code"], to, procedure=True), "CPT, HCPCS, OPS"),
    Out(26, "ChargeItem.extension", _modifiers, "modifiers"),
)

PR1: Final[Layout[Transaction]] = layout(
    "ChargeItem -> PR1",
    "PR1",
    Out(1, "", lambda of, _: of.number, "", "R"),
    Out(3, "ChargeItem.code", lambda of, to: _code(of.charge["code"], to, procedure=True), "", "R"),
    Out(5, "ChargeItem.occurrence[x]", lambda of, to: to.time(of.date), "", "R"),
    Out(6, "", lambda _of, _: "D", "diagnostic (table 0230)"),
    Out(16, "ChargeItem.extension", _modifiers, "modifiers"),
)


def _transaction_id(charge: Resource) -> str:
    own = [i["value"] for i in charge.get("identifier", ()) if i.get("system") == charge_item.CHARGE and "value" in i]
    return own[0] if own else str(charge["id"])


def dft_p03(charges: Sequence[tuple[str, Resource]], facts: OrderFacts, people: Mapping[str, Resource], now: datetime) -> Render:
    """EVN, PID, PV1 and for each (CG or CD, charge) an FT1 with its PR1."""
    lines = [Transaction(i, kind, charge, facts, people) for i, (kind, charge) in enumerate(charges, 1)]

    def render(to: Destination, control_id: str) -> list[Seg]:
        head = [
            msh(to, "DFT^P03", "DFT_P03", control_id, now),
            evn(to, "DFT^P03", now),
            pid(facts.patient, to),
            pv1(facts.encounter, to, facts.people),
        ]
        return list(present([*head, *(table.seg(line, to) for line in lines for table in (FT1, PR1))]))

    return render
