"""Code maps between HL7 v2 tables and FHIR, one place for all. They are served as ConceptMaps.

Each says what a v2 code means in FHIR and, where the way back isn't the reverse, what is written for a FHIR code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_V2: Final = "http://terminology.hl7.org/CodeSystem/v2-"
CODE_MAPS: Final[dict[str, "CodeMap"]] = {}


@dataclass(frozen=True, slots=True)
class CodeMap:
    """One table of v2 and its FHIR code system.

    id: of the ConceptMap; title: for people
    table: the number of the v2 table, `0001`
    target: the FHIR code system
    codes: v2 code -> FHIR code
    back: FHIR code -> v2 code; where left out, the reverse of `codes`, of several the first
    """

    id: str
    title: str
    table: str
    target: str
    codes: Mapping[str, str]
    back: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return _V2 + self.table

    def fhir(self, code: str) -> str | None:
        """The FHIR code of a v2 code, letters in either case; None for one that isn't in the map."""
        return self.codes.get(code.strip().upper())

    def v2(self, code: str | None, default: str = "") -> str:
        """The v2 code that is written for a FHIR code."""
        return self.back.get(code or "", default)


def code_map(id_: str, title: str, table: str, target: str, codes: Mapping[str, str], **back: str) -> CodeMap:
    """A map, entered into CODE_MAPS. `back` names what differs from the reverse; `_` stands for a hyphen."""
    reverse: dict[str, str] = {}
    for v2, fhir in codes.items():
        reverse.setdefault(fhir, v2)
    made = CodeMap(id_, title, table, target, codes, reverse | {k.replace("_", "-"): v for k, v in back.items()})
    CODE_MAPS[id_] = made
    return made


GENDER = code_map(
    "v2-sex", "Administrative sex", "0001", "http://hl7.org/fhir/administrative-gender",
    {"M": "male", "F": "female", "O": "other", "A": "other", "N": "other", "U": "unknown"},
)  # fmt: skip
NAME_USE = code_map(
    "v2-name-type", "Name type", "0200", "http://hl7.org/fhir/name-use",
    {"L": "official", "D": "usual", "M": "maiden", "A": "anonymous", "S": "anonymous", "N": "nickname"},
)  # fmt: skip
ADDRESS_USE = code_map(
    "v2-address-type", "Address type", "0190", "http://hl7.org/fhir/address-use",
    {"H": "home", "L": "home", "B": "work", "O": "work", "C": "temp", "BA": "old"},
)  # fmt: skip
TELECOM_USE = code_map(
    "v2-telecom-use", "Telecommunication use", "0201", "http://hl7.org/fhir/contact-point-use",
    {"PRN": "home", "ORN": "home", "VHN": "home", "WPN": "work"},
)  # fmt: skip
TELECOM_SYSTEM = code_map(
    "v2-telecom-equipment", "Telecommunication equipment", "0202", "http://hl7.org/fhir/contact-point-system",
    {"PH": "phone", "CP": "phone", "FX": "fax", "BP": "pager", "INTERNET": "email", "X.400": "email"},
)  # fmt: skip
# Where v3 has the same meaning, though not always the same letter; the others keep their v2 code.
MARITAL_STATUS = code_map(
    "v2-marital-status", "Marital status", "0002", "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus",
    {"D": "D", "M": "M", "S": "S", "W": "W", "C": "C", "I": "I", "E": "L", "P": "T", "N": "A", "B": "U"},
)  # fmt: skip
PATIENT_CLASS = code_map(
    "v2-patient-class", "Patient class", "0004", "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    {"E": "EMER", "I": "IMP", "O": "AMB", "P": "PRENC"},
)  # fmt: skip
# TQ-6 and table 0485.
PRIORITY = code_map(
    "v2-priority", "Priority", "0485", "http://hl7.org/fhir/request-priority",
    {"S": "stat", "A": "asap", "R": "routine", "P": "urgent", "C": "urgent", "T": "urgent"},
    urgent="A",
)  # fmt: skip

# What goes out: FHIR status -> v2 (ris-domain: status tables). The ways in are elsewhere, as they aren't the reverse.
REPORT_STATUS = code_map(
    "v2-result-status-out", "Result status of a report sent", "0123", "http://hl7.org/fhir/diagnostic-report-status",
    {"R": "partial", "P": "preliminary", "F": "final", "C": "corrected", "X": "cancelled"},
    registered="I", amended="C", appended="C", entered_in_error="X",
)  # fmt: skip
RESULT_STATUS = code_map(
    "v2-observation-status-out", "Status of a result sent", "0085", "http://hl7.org/fhir/observation-status",
    {"I": "registered", "P": "preliminary", "F": "final", "C": "corrected", "X": "cancelled", "W": "entered-in-error"},
    amended="C",
)  # fmt: skip
# ORC-5 of a report that is told: A some results are there, CM all.
REPORTED_ORDER_STATUS = code_map(
    "v2-order-status-of-report", "Order status by its report", "0038", "http://hl7.org/fhir/diagnostic-report-status",
    {"IP": "registered", "A": "preliminary", "CM": "final", "CA": "cancelled"},
    partial="A", amended="CM", corrected="CM", appended="CM", entered_in_error="CA",
)  # fmt: skip
ORDER_STATUS = code_map(
    "v2-order-status-of-step", "Order status by its step", "0038", "http://hl7.org/fhir/task-status",
    {"SC": "accepted", "IP": "in-progress", "A": "completed", "CA": "cancelled", "DC": "failed", "HD": "on-hold"},
    ready="SC",
)  # fmt: skip
APPOINTMENT_STATUS = code_map(
    "v2-filler-status-out", "Filler status of an appointment sent", "0278", "http://hl7.org/fhir/appointmentstatus",
    {"Pending": "proposed", "Booked": "booked", "Started": "arrived", "Complete": "fulfilled", "Cancelled": "cancelled",
     "Noshow": "noshow", "Deleted": "entered-in-error", "Waitlist": "waitlist"},
    pending="Pending", checked_in="Started",
)  # fmt: skip
CHARGE_TYPE = code_map(
    "v2-transaction-type-out", "Transaction type of a charge", "0017", "http://hl7.org/fhir/chargeitem-status",
    {"CG": "billable", "CD": "aborted"},
    entered_in_error="CD", not_billable="CD", billed="CG",
)  # fmt: skip
