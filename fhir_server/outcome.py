"""Errors are values with a FHIR issue type until an edge renders them: OperationOutcome, MSA/ERR or a DICOM status."""

from dataclasses import dataclass
from typing import Any

# FHIR R4 issue-type (required binding) to the HTTP status an edge answers with (FHIR R4 3.1.0).
HTTP_STATUS = {
    "invalid": 400,
    "structure": 400,
    "required": 400,
    "value": 400,
    "invariant": 422,
    "login": 401,
    "expired": 401,
    "forbidden": 403,
    "not-found": 404,
    "not-supported": 400,
    "deleted": 410,
    "conflict": 409,
    "duplicate": 409,
    "business-rule": 422,
    "code-invalid": 422,
    "multiple-matches": 412,
    "too-long": 413,
    "too-costly": 422,
    "transient": 503,
    "lock-error": 409,
    "timeout": 503,
    "suppressed": 403,
    "processing": 422,
    "exception": 500,
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of an OperationOutcome. `expression` is a FHIRPath to the element, such as `Patient.name[0].given`."""

    code: str
    diagnostics: str
    expression: str | None = None
    severity: str = "error"

    def as_fhir(self) -> dict[str, Any]:
        issue: dict[str, Any] = {"severity": self.severity, "code": self.code, "diagnostics": self.diagnostics}
        if self.expression:
            issue["expression"] = [self.expression]
        return issue


class FhirError(Exception):
    """A refusal. `status` is the HTTP status; other edges use `issues` (and map the first one's code)."""

    def __init__(self, *issues: Issue, status: int | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__("; ".join(i.diagnostics for i in issues))
        self.issues = issues
        self.status = status or HTTP_STATUS[issues[0].code]
        self.headers = headers or {}

    @property
    def code(self) -> str:
        return self.issues[0].code


def fail(code: str, diagnostics: str, expression: str | None = None, *, status: int | None = None) -> FhirError:
    """A FhirError of one issue, to be raised."""
    return FhirError(Issue(code, diagnostics, expression), status=status)


def operation_outcome(*issues: Issue) -> dict[str, Any]:
    """The OperationOutcome resource (FHIR R4) of these issues."""
    return {"resourceType": "OperationOutcome", "issue": [i.as_fhir() for i in issues]}
