"""What a mapping says no with: errors as an acknowledgement tells them (MSA, ERR)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridges.v2.ack import AckError
from bridges.v2.message import Message, Segment
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Resource
from resources.coverage import booking
from resources.coverage.booking import NotAuthorized

if TYPE_CHECKING:
    from bridges.v2.reception import Reply

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


@dataclass(frozen=True, slots=True)
class Shown:
    """A work item (Task) for a person: its kind, what it says, and the references of what it is about and of the patient.

    once: however often the message is refused, there is one open item of the kind about it
    """

    kind: str
    text: str
    about: str | None = None
    patient: str | None = None
    once: bool = False


class Refused(FhirError):
    """The message is refused. `answer` is MSA-1: AE for its content, AR when it is not for us.

    `mixed_up` is the order whose placer number the message uses for a different patient: people must be shown that.
    `shown` are other work items that people get. `reply` is what is answered, where that is more than an acknowledgement.
    `stranger`: nobody that we know has sent it.
    """

    def __init__(self, *errors: AckError, code: str = "AE", mixed_up: Resource | None = None, stranger: bool = False) -> None:
        super().__init__(*(Issue("processing", e.text) for e in errors))
        self.shown: list[Shown] = []
        self.reply: Reply | None = None
        self.stranger = stranger
        self.errors = errors
        self.answer = code
        self.mixed_up = mixed_up


def wrong(segment: Segment, field: int, text: str, *, code: int, component: int | None = None) -> Refused:
    """A field has what can't be taken; `code` is of table 0357."""
    return Refused(AckError(segment.name, segment.number, field, component, code=code, text=text))


def missing(segment: Segment, field: int, what: str) -> Refused:
    """A required field is not there (0357: 101)."""
    return wrong(segment, field, f"{what} is missing", code=101)


def no_segment(name: str, what: str, number: int = 1) -> Refused:
    """A required segment is not there (0357: 100)."""
    return Refused(AckError(name, number, code=100, text=f"{what} is missing"))


def check_one_patient(message: Message) -> None:
    """Refuse a message with a second patient (0357: 100), before what is said of one is done for the other."""
    for pid in message.all("PID")[1:]:
        raise Refused(AckError("PID", pid.number, code=100, text="a second patient: a message of this type is about one"))


def required(segment: Segment, field: int, what: str) -> str:
    """The text of a field that must be there."""
    value = segment.field(field).strip()
    if not value:
        raise missing(segment, field, what)
    return value


# The FHIR element that a rule found wrong, and the field that it comes from. Longer paths first.
_PLACES: dict[str, tuple[str, int | None]] = {
    "ServiceRequest.status": ("ORC", 1),
    "ServiceRequest.identifier": ("OBR", 18),
    "ServiceRequest.code": ("OBR", 4),
    "ServiceRequest.": ("OBR", None),
    "ImagingStudy.identifier": ("ZDS", 1),
    "Task.identifier": ("OBR", 20),
    "Patient.identifier": ("PID", 3),
    "Patient.name": ("PID", 5),
    "Patient.address": ("PID", 11),
    "Patient.": ("PID", None),
    "Encounter.": ("PV1", None),
    "DiagnosticReport.status": ("OBR", 25),
    "DiagnosticReport.subject": ("PID", 3),
    "DiagnosticReport.": ("OBR", None),
    "Observation.": ("OBX", None),
    "Appointment.start": ("SCH", 11),
    "Appointment.end": ("SCH", 11),
    "Appointment.status": ("SCH", 25),
    "Appointment.basedOn": ("SCH", 26),
    "Appointment.participant": ("AIG", 3),
    "Appointment.": ("SCH", None),
}


def from_fhir(error: FhirError) -> Refused:
    """The refusal of a rule, told as an acknowledgement; of a mapping, which is told so already, itself."""
    if isinstance(error, Refused):
        return error
    refusal = Refused(*(_told(issue) for issue in error.issues))
    if isinstance(error, NotAuthorized):
        about, patient = f"ServiceRequest/{error.order['id']}", error.order["subject"].get("reference")
        refusal.shown.append(Shown(booking.MISSING, error.text, about, patient, once=True))
    return refusal


def _told(issue: Issue) -> AckError:
    where = issue.expression or ""
    segment, field = next((place for path, place in _PLACES.items() if where.startswith(path)), ("", None))
    number = 1 if segment else None
    code = _CODES.get(issue.code, 207)
    return AckError(segment, number, field, code=code, text=issue.diagnostics, diagnostics=where)
