"""What a mapping says no with: errors as an acknowledgement tells them (MSA, ERR)."""

from bridges.v2.ack import AckError
from bridges.v2.message import Segment
from fhir_server.outcome import FhirError

# FHIR issue type to table 0357.
_CODES = {
    "required": 101,
    "structure": 102,
    "value": 102,
    "code-invalid": 103,
    "not-found": 204,
    "deleted": 204,
    "duplicate": 205,
    "multiple-matches": 205,
    "lock-error": 206,
}


class Refused(Exception):
    """The message is refused. `code` is MSA-1: AE for its content, AR when it is not for us."""

    def __init__(self, *errors: AckError, code: str = "AE") -> None:
        super().__init__("; ".join(e.text for e in errors))
        self.errors = errors
        self.code = code


def missing(segment: str, field: int | None, what: str, sequence: int = 1) -> Refused:
    """A required field (or segment) is not there (0357: 101)."""
    return Refused(AckError(segment, sequence, field, code=101, text=f"{what} is missing"))


def required(segment: Segment, field: int, what: str, sequence: int = 1) -> str:
    """The text of a field that must be there."""
    value = segment.field(field).strip()
    if not value or segment.raw(field) == '""':
        raise missing(segment.name, field, what, sequence)
    return value


def from_fhir(error: FhirError, segment: str = "", field: int | None = None) -> Refused:
    """The refusal of a rule, told as an acknowledgement."""
    errors = [
        AckError(
            segment,
            1 if segment else None,
            field,
            code=_CODES.get(i.code, 207),
            text=i.diagnostics,
            diagnostics=i.expression or "",
        )
        for i in error.issues
    ]
    return Refused(*errors)
