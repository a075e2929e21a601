"""A CoverageEligibilityRequest that is with a payer: the CoverageEligibilityResponse that waits for the answer, and gets it.

Asking writes a response with outcome `queued` (FHIR R4: received, processing has not begun); the bridge to payers sends what is
queued (`bridges/payer/`), and brings the answer, or why there is none, here. Asking again makes a response of its own.
What a payer says of its own resources is kept as absolute references; its extensions and narrative are not kept.
"""

from typing import Any, Final

from fhir_server import clock, outbox
from fhir_server.elements import concept
from fhir_server.outcome import fail
from fhir_server.references import ref, target
from fhir_server.registry import Resource
from fhir_server.staging import refuse_invalid
from fhir_server.unit_of_work import UnitOfWork
from resources import work_items
from resources.coverage import payers
from resources.security_labels import labelled

SUBMISSION: Final = "urn:fhir-ris:eligibility-submission"  # identifier of a response that we wait for
ERROR: Final = "urn:fhir-ris:payer-error"  # system of CoverageEligibilityResponse.error.code
FAILED: Final = "eligibility-failed"  # the work item: no answer, an error, or one that isn't understood
DENIED: Final = "coverage-denied"  # the work item: not in force, or the procedure is excluded
_TOO_LATE: Final = "the request is {}: only an active one is sent"
# What of a payer's answer is kept.
_KEPT: Final = (
    "identifier purpose servicedDate servicedPeriod created outcome disposition insurance preAuthRef form error".split()
)
_LONGEST: Final = 1000


async def ask(unit: UnitOfWork, request: Resource) -> Resource:
    """Have a stored request sent; the response that waits, which may be there already. FhirError 422 when it can't be sent."""
    if request["status"] != "active":
        raise fail("business-rule", _TOO_LATE.format(request["status"]), "CoverageEligibilityRequest.status")
    if not request.get("insurance"):
        raise fail("required", "a payer is asked about a Coverage", "CoverageEligibilityRequest.insurance", status=422)
    if await payers.endpoint_of(unit, request["insurer"]) is None:
        text = "the insurer has no active Endpoint (hl7-fhir-rest, an https address) that it can be asked at"
        raise fail("business-rule", text, "CoverageEligibilityRequest.insurer")
    await unit.lock(f"eligibility:{request['id']}")
    for earlier in await unit.search("CoverageEligibilityResponse", request=ref(request)["reference"], outcome="queued"):
        if is_waiting(earlier):
            if await _is_pending(unit, earlier):
                return earlier
            await unit.update(earlier | _unanswered("cancelled", "it is not sent any more"))
    response: Resource = {
        "resourceType": "CoverageEligibilityResponse",
        "identifier": [{"system": SUBMISSION, "value": f"{request['id']}-{clock.instant(unit.now)}"}],
        "status": "active",
        "purpose": request["purpose"],
        "patient": request["patient"],
        "created": clock.instant(unit.now),
        "request": ref(request),
        "outcome": "queued",
        "insurer": request["insurer"],
        "insurance": [{"coverage": one["coverage"]} for one in request["insurance"]],
    }
    response |= {e: request[e] for e in ("servicedDate", "servicedPeriod") if e in request}
    return await unit.create(labelled(response, request))


async def _is_pending(unit: UnitOfWork, response: Resource) -> bool:
    """Whether the message that asks for it is still to be sent: an operator may have cancelled it."""
    where = {"control_id": response["id"], "state": "pending"}
    return await unit.db[outbox.COLLECTION].find_one(where, {"_id": 1}, session=unit.session) is not None


def is_waiting(response: Resource | None) -> bool:
    """Whether this is a response that waits for a payer's answer."""
    own = any(i.get("system") == SUBMISSION for i in (response or {}).get("identifier", ()))
    return own and (response or {}).get("outcome") == "queued"


# What comes of it


async def answered(unit: UnitOfWork, waiting: Resource, answer: Resource, base: str) -> Resource:
    """Keep a payer's answer. FhirError when it is none that can be kept: not FHIR R4, or for another Coverage.

    base: the payer's FHIR base, against which its relative references are meant
    """
    refuse_invalid(waiting | answer)
    if "modifierExtension" in answer:
        raise fail("not-supported", "the answer has a modifier extension, and so may mean something else", status=422)
    if any(key not in answer for key in ("outcome", "status")) or answer["status"] != "active":
        raise fail("value", "the answer has no outcome, or is not active", status=422)
    said = {k: _outside(v, base) for k, v in answer.items() if k in _KEPT}
    ours = [one["coverage"] for one in waiting["insurance"]]
    if "insurance" in said:
        said["insurance"] = [one | {"coverage": _coverage(one, i, ours)} for i, one in enumerate(said["insurance"])]
    said["identifier"] = [*waiting["identifier"], *said.get("identifier", ())]
    kept = {k: v for k, v in waiting.items() if k not in {"error", "disposition"}}
    stored = await unit.update(kept | said)
    await _show(unit, stored)
    return stored


async def failed(unit: UnitOfWork, waiting: Resource, code: str, text: str) -> Resource:
    """Keep why there is no answer: `no-answer`, `refused`, `not-understood`, for a person to look at; or `cancelled`."""
    stored = await unit.update(waiting | _unanswered(code, text))
    if code != "cancelled":
        await _show(unit, stored)
    return stored


def _unanswered(code: str, text: str) -> Resource:
    return {"outcome": "error", "disposition": text[:_LONGEST], "error": [{"code": concept(ERROR, code)}]}


async def _show(unit: UnitOfWork, response: Resource) -> None:
    """What a person must see of it; what an earlier answer to the same request had shown, is over."""
    about, patient = response["request"]["reference"], response["patient"].get("reference")
    denied = [i for i in response.get("insurance", ()) if _is_denied(i)]
    shown = {
        FAILED: "A payer could not be asked about coverage, or answered with an error: see the CoverageEligibilityResponse"
        if response["outcome"] == "error"
        else "",
        DENIED: "A payer has answered that the coverage is not in force, or excludes a procedure" if denied else "",
    }
    for kind, text in shown.items():
        if text:
            await work_items.raise_once(unit, kind, about, text, about=about, patient=patient)
        elif response["outcome"] != "queued":
            await work_items.close(unit, kind, about, "answered")


def _is_denied(insurance: Resource) -> bool:
    return insurance.get("inforce") is False or any(i.get("excluded") is True for i in insurance.get("item", ()))


def _coverage(insurance: Resource, number: int, ours: list[Resource]) -> Resource:
    """Which of the coverages that we asked about: the one it names, else the only one, else the one at its place."""
    named = str(insurance.get("coverage", {}).get("reference", ""))
    for one in ours:
        if named.endswith(one["reference"]) or named == "#" + contained_id(one):
            return one
    if len(ours) == 1:
        return ours[0]
    if number < len(ours):
        return ours[number]
    raise fail("value", "the answer is about more coverages than were asked about", status=422)


def contained_id(reference: Resource) -> str:
    """The id under which a copy of what is referred to goes out within the request."""
    return str(reference["reference"]).replace("/", "-").lower()[:64]


def _outside(value: Any, base: str) -> Any:
    """An element of a payer's answer: its references point to the payer, and its extensions are left out."""
    if isinstance(value, list):
        return [_outside(one, base) for one in value]
    if not isinstance(value, dict):
        return value
    plain = {k: _outside(v, base) for k, v in value.items() if k not in {"extension", "id"}}
    if target(plain) is not None:
        plain["reference"] = f"{base}/{plain['reference']}"
    elif str(plain.get("reference", "")).startswith("#"):  # of a resource within the answer, which isn't kept
        plain = {k: v for k, v in plain.items() if k != "reference"}
        plain.setdefault("display", "not kept")
    return plain
