"""What a payer's answer authorizes, read for one procedure: its number, when it holds, and for how many examinations.

Two resources carry an authorization (FHIR R4):
| resource | is one when | number | holds | units |
|---|---|---|---|---|
| `ClaimResponse` | use `preauthorization`, outcome `complete` or `partial` | `preAuthRef` | `preAuthPeriod` | `addItem.quantity`, else the extension `urn:fhir-ris:authorized-units` |
| `CoverageEligibilityResponse` | outcome `complete` or `partial`, the insurance in force | `preAuthRef` | `insurance.benefitPeriod`, else `servicedPeriod` | `insurance.item.benefit`: what is allowed less what is used |
One that lists procedures (`productOrService`) is for these alone. Where the payer says that none is needed for a procedure
(`authorizationRequired` false), that does as well as a number. Dates without a time are days in the department's zone.
"""  # noqa: E501 - a table

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from fhir_server.elements import codes, codings, extension
from fhir_server.references import ref
from fhir_server.registry import Resource
from fhir_server.search.dates import of_text

UNITS: Final = "urn:fhir-ris:authorized-units"  # extension of a ClaimResponse (positiveInt): how many examinations it is for
TYPES: Final = ("ClaimResponse", "CoverageEligibilityResponse")
_BENEFIT_TYPE: Final = "http://terminology.hl7.org/CodeSystem/benefit-type"
# Benefits that are counted, but not in examinations.
_NO_UNITS: Final = frozenset({"deductible", "copay", "copay-percent", "copay-maximum", "room", "medical-primarycare"})
_ANSWERED: Final = frozenset({"complete", "partial"})

Code = tuple[str, str]  # system and code


@dataclass(frozen=True, slots=True)
class Terms:
    """An authorization as far as it is for one procedure.

    of: the resource's reference, `ClaimResponse/1`
    begins, ends: FHIR dates, empty where the payer sets no limit
    units: how many examinations it is for; None: no limit is told
    listed: it lists this procedure, so it may be for an order that it doesn't know of
    """

    of: str
    begins: str
    ends: str
    units: int | None
    listed: bool

    def begun(self, moment: datetime, zone: tzinfo) -> bool:
        """Whether it holds already."""
        return not self.begins or moment >= _bound(self.begins, zone, last=False)

    def over(self, moment: datetime, zone: tzinfo) -> bool:
        """Whether it holds no more."""
        end = self.end(zone)
        return end is not None and moment >= end

    def end(self, zone: tzinfo) -> datetime | None:
        """The first moment at which it holds no more."""
        return _bound(self.ends, zone, last=True) if self.ends else None


def is_authorization(resource: Resource) -> bool:
    """Whether the resource may carry one at all, valid or not."""
    kind = resource["resourceType"]
    return kind == "CoverageEligibilityResponse" or (kind == "ClaimResponse" and resource.get("use") == "preauthorization")


def terms(resource: Resource, wanted: Collection[Code], asked: Collection[Code] = ()) -> Terms | None:
    """What a resource authorizes of a procedure with the codes `wanted`; None when it doesn't.

    asked: the procedures of the request that it answers, which count where the answer lists none
    """
    if resource.get("status") != "active" or resource.get("outcome") not in _ANSWERED or not is_authorization(resource):
        return None
    found = _of_claim(resource, wanted) if resource["resourceType"] == "ClaimResponse" else _of_eligibility(resource, wanted)
    if found is None or found.listed or not asked:
        return found
    if not set(asked) & set(wanted):
        return None
    return Terms(found.of, found.begins, found.ends, found.units, listed=True)


def _of_claim(resource: Resource, wanted: Collection[Code]) -> Terms | None:
    if not resource.get("preAuthRef"):
        return None
    items = resource.get("addItem", [])
    item = _item(items, wanted)
    if items and item is None:
        return None
    amount = (item or {}).get("quantity", {}).get("value")
    if amount is None:
        amount = (extension(resource, UNITS) or {}).get("valuePositiveInt")
    return _terms(resource, resource.get("preAuthPeriod"), amount, listed=item is not None)


def _of_eligibility(resource: Resource, wanted: Collection[Code]) -> Terms | None:
    for insurance in resource.get("insurance", ()):
        items = [i for i in insurance.get("item", ()) if "productOrService" in i]
        item = _item(items, wanted) or next((i for i in insurance.get("item", ()) if i not in items), None)
        if insurance.get("inforce") is False or (items and item is None) or (item or {}).get("excluded") is True:
            continue
        if resource.get("preAuthRef") or (item or {}).get("authorizationRequired") is False:
            period = insurance.get("benefitPeriod") or resource.get("servicedPeriod")
            return _terms(resource, period, _left(item or {}), listed=item in items)
    return None


def _terms(resource: Resource, period: Any, amount: Any, *, listed: bool) -> Terms:
    period = period or {}
    units = None if amount is None else int(amount)
    return Terms(ref(resource)["reference"], str(period.get("start", "")), str(period.get("end", "")), units, listed)


def _item(items: list[Resource], wanted: Collection[Code]) -> Resource | None:
    """The item that lists one of these codes."""
    return next((i for i in items if set(coded(i.get("productOrService"))) & set(wanted)), None)


def _left(item: Resource) -> int | None:
    """How many examinations the payer still allows, as it said when it answered."""
    for benefit in item.get("benefit", ()):
        if "allowedUnsignedInt" in benefit and not _NO_UNITS & set(codes(benefit.get("type"), _BENEFIT_TYPE)):
            return max(0, int(benefit["allowedUnsignedInt"]) - int(benefit.get("usedUnsignedInt", 0)))
    return None


def coded(concepts: Any) -> Iterator[Code]:
    """System and code of the codings of a CodeableConcept, or of a list of them."""
    yield from ((c.get("system", ""), c["code"]) for c in codings(concepts) if "code" in c)


def _bound(text: str, zone: tzinfo, *, last: bool) -> datetime:
    """The moment at which a FHIR date or dateTime begins, or (last) has passed."""
    naive = of_text(text)[last]
    return naive.replace(tzinfo=UTC if "T" in text else zone)
