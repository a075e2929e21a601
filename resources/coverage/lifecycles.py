"""The course of a request to a payer, of its answer, and of an authorization (FHIR R4 financial resource status)."""

from resources.coverage.authorization import is_authorization
from resources.lifecycle import lifecycle

REQUEST = lifecycle(
    "CoverageEligibilityRequest",
    "request to a payer",
    """
    from   | to               | who                  | needs                     | then
    new    | draft active     | scheduler admin; RIS | the patient's own Coverage | sent by $submit only
    draft  | active cancelled | scheduler admin; RIS |                           |
    active | cancelled        | scheduler admin; RIS |                           | not sent any more
    *      | entered-in-error | scheduler admin; RIS |                           | not sent any more
    """,
)

RESPONSE = lifecycle(
    "CoverageEligibilityResponse",
    "payer's answer",
    """
    from         | to               | who   | needs | then
    new          | draft active     | ; RIS |       | its request is sent while its outcome is queued
    draft active | active cancelled | ; RIS |       | what is booked on it is looked at
    *            | entered-in-error | ; RIS |       | what is booked on it is looked at
    """,
)

AUTHORIZATION = lifecycle(
    "ClaimResponse",
    "authorization",
    """
    from             | to               | who           | needs                      | then
    new              | draft active     | scheduler; v2 | the patient's own Coverage | orders can be booked on it
    draft            | active cancelled | scheduler; v2 |                            | what is booked on it is looked at
    active cancelled | active cancelled | scheduler; v2 |                            | what is booked on it is looked at
    *                | entered-in-error | scheduler     |                            | what is booked on it is looked at
    """,
    of=is_authorization,
)
