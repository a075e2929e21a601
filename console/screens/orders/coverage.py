"""Who pays for an order, whether the payer has authorized it, asking the payer, and booking without its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from console.asking import Found
from console.screens.orders.catalogue import Entry
from console.screens.orders.decisions import told
from console.screens.orders.facts import kind, name_of
from console.visit import Visit
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from resources.coverage import marks


@dataclass(frozen=True, slots=True)
class Cover:
    """An insurance of the patient. `named`: the order says that it pays."""

    id: str
    payer: str
    number: str
    status: str
    ends: str | None
    named: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a payer said (or is asked): `state` names a text; `request` can be sent again."""

    state: str
    payer: str
    number: str
    ends: str | None
    at: str
    text: str
    request: str


@dataclass(frozen=True, slots=True)
class Coverages:
    """All of it. `needed`: by the catalogue, or a work item; `booked_on`: the authorization; `seen`: by the role."""

    covers: list[Cover] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    needed: bool = False
    overridden: bool = False
    booked_on: str = ""
    seen: bool = False


async def of_order(
    visit: Visit, order: Resource, procedures: Sequence[Resource], entry: Entry | None, waiting: Sequence[Resource]
) -> Coverages:
    """What is known of who pays, as far as the role sees it."""
    whose = order["subject"]["reference"].partition("/")[2]
    asked = {
        "Coverage": ("Coverage:payor",),
        "CoverageEligibilityResponse": ("CoverageEligibilityResponse:insurer",),
        "ClaimResponse": ("ClaimResponse:insurer",),
    }
    kinds = [k for k in asked if visit.can(f"{k}.s")]
    found = await visit.desk.together(
        *(visit.desk.search(k, patient=whose, _include=asked[k], _sort="-_lastUpdated", _count="20") for k in kinds)
    )
    by_kind = dict(zip(kinds, found, strict=True))
    named = {str(r.get("reference")) for r in order.get("insurance", ())}
    covers = [_cover(c, by_kind["Coverage"], named) for c in by_kind.get("Coverage", ())]
    answers = [_answer(a, by_kind[k]) for k in ("CoverageEligibilityResponse", "ClaimResponse") for a in by_kind.get(k, ())]
    asks = entry is not None and entry.needs_authorization
    return Coverages(
        sorted(covers, key=lambda c: (not c.named, c.status != "active")),
        sorted(answers, key=lambda a: a.at, reverse=True),
        needed=asks or any(kind(i) == "authorization-missing" for i in waiting),
        overridden=marks.is_overridden(order, *procedures),
        booked_on=next((b for p in procedures if (b := marks.bound(p))), ""),
        seen="Coverage" in by_kind,
    )


def _cover(coverage: Resource, found: Found, named: set[str]) -> Cover:
    payer = next((n for r in coverage.get("payor", ()) if (n := name_of(r, found))), "")
    number = coverage.get("subscriberId") or next((i["value"] for i in coverage.get("identifier", ()) if "value" in i), "")
    ends = coverage.get("period", {}).get("end")
    return Cover(coverage["id"], payer, number, coverage["status"], ends, f"Coverage/{coverage['id']}" in named)


def _answer(answer: Resource, found: Found) -> Answer:
    """A payer's answer, or an authorization that came with an order or was entered."""
    outcome, number = answer.get("outcome", ""), str(answer.get("preAuthRef", ""))
    insurance = answer.get("insurance", [])
    denied = answer["resourceType"] == "CoverageEligibilityResponse" and any(i.get("inforce") is False for i in insurance)
    excluded = any(item.get("excluded") for i in insurance for item in i.get("item", ()))
    state = "waiting" if outcome == "queued" else "failed" if outcome == "error" else "denied" if denied or excluded else ""
    state = state or ("authorized" if number else "answered")
    period: Resource = answer.get("preAuthPeriod") or next((i["benefitPeriod"] for i in insurance if "benefitPeriod" in i), {})
    errors = [str(e.get("code", {}).get("text") or "") for e in answer.get("error", ())]
    said = str(answer.get("disposition") or "; ".join(e for e in errors if e))
    request = str(answer.get("request", {}).get("reference", ""))
    again = request.partition("/")[2] if request.startswith("CoverageEligibilityRequest/") else ""
    at = answer["meta"]["lastUpdated"]
    return Answer(state, name_of(answer.get("insurer"), found), number, period.get("end"), at, said, again)


async def submit(visit: Visit) -> Response:
    """Ask the payer of a coverage, or send a request again."""
    if again := visit.form.get("request"):
        answer = await visit.desk.operation(f"CoverageEligibilityRequest/{again}/$submit")
    else:
        answer = await _ask(visit, visit.form.text("coverage"))
    done = "orders-coverage-waits" if answer.get("outcome") == "queued" else "orders-coverage-answered"
    return visit.to(f"/orders/{visit.id()}", done)


async def _ask(visit: Visit, chosen: str) -> Resource:
    order = await visit.desk.read(f"ServiceRequest/{visit.id()}")
    if not chosen:
        raise fail("required", visit.t("orders.no-coverage"), status=422)
    coverage = await visit.desk.read(f"Coverage/{chosen}")
    insurer = next((r for r in coverage.get("payor", ()) if str(r.get("reference", "")).startswith("Organization/")), None)
    request: Resource = {
        "resourceType": "CoverageEligibilityRequest",
        "status": "active",
        "purpose": ["auth-requirements", "benefits"],
        "created": visit.today.isoformat(),
        "patient": {"reference": order["subject"]["reference"]},
        "insurance": [{"coverage": {"reference": f"Coverage/{chosen}"}}],
        "item": [{"productOrService": order.get("code", {}), "detail": [{"reference": f"ServiceRequest/{order['id']}"}]}],
    }
    answered: Resource = await visit.desk.operation(
        "CoverageEligibilityRequest/$submit", resource=request | ({"insurer": insurer} if insurer else {})
    )
    return answered


async def override(visit: Visit) -> Response:
    """It is booked without the payer's authorization, for a reason."""
    try:
        await visit.desk.operation(
            f"ServiceRequest/{visit.id()}/$override-authorization",
            if_match=visit.form.get("version"),
            reason=visit.form.get("reason"),
        )
    except FhirError as error:
        raise await told(visit, error) from None
    return visit.to(f"/orders/{visit.id()}", "orders-override")
