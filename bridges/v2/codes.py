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
        key = code.strip().upper()
        return self.codes.get(key) or next((fhir for v2, fhir in self.codes.items() if v2.upper() == key), None)

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
NAME_REPRESENTATION = code_map(
    "v2-name-representation", "Name/address representation", "0465",
    "http://terminology.hl7.org/CodeSystem/v3-EntityNameUse", {"A": "ABC", "I": "IDE", "P": "SYL"},
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
STEP_STATUS = code_map(
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

# Identity and visits: PV1-16, AL1, DG1, IN1, NK1

CONFIDENTIALITY = code_map(
    "v2-vip", "VIP indicator", "0099", "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    {"V": "V", "R": "R", "Y": "R"},
)  # fmt: skip
ALLERGY_CATEGORY = code_map(
    "v2-allergen-type", "Allergen type", "0127", "http://hl7.org/fhir/allergy-intolerance-category",
    {"DA": "medication", "FA": "food", "MA": "medication", "EA": "environment", "AA": "environment", "PA": "environment",
     "LA": "environment"},
)  # fmt: skip
ALLERGY_SEVERITY = code_map(
    "v2-allergy-severity", "Allergy severity", "0128", "http://hl7.org/fhir/reaction-event-severity",
    {"SV": "severe", "MO": "moderate", "MI": "mild"},
)  # fmt: skip
ALLERGY_CRITICALITY = code_map(
    "v2-allergy-criticality", "Allergy criticality", "0128", "http://hl7.org/fhir/allergy-intolerance-criticality",
    {"SV": "high", "MI": "low", "U": "unable-to-assess"},
)  # fmt: skip
DIAGNOSIS_VERIFICATION = code_map(
    "v2-diagnosis-type", "Diagnosis type", "0052", "http://terminology.hl7.org/CodeSystem/condition-ver-status",
    {"A": "provisional", "W": "provisional", "F": "confirmed"},
)  # fmt: skip
SUBSCRIBER_RELATIONSHIP = code_map(
    "v2-insured-relationship", "Insured's relationship to patient", "0063",
    "http://terminology.hl7.org/CodeSystem/subscriber-relationship",
    {"SEL": "self", "SPO": "spouse", "CHD": "child", "PAR": "parent", "FTH": "parent", "MTH": "parent", "OTH": "other",
     "01": "self", "18": "self", "1": "self"},
)  # fmt: skip

# Orders: what comes in

# Sections that name one modality; others (RAD, RX, ...) name none, and then the catalogue says it.
SECTION = code_map(
    "v2-section", "Diagnostic service section", "0074", "http://dicom.nema.org/resources/ontology/DCM",
    {"NMR": "MR", "RUS": "US", "CUS": "US", "VUS": "US", "OUS": "US", "NMS": "NM"},
)  # fmt: skip
# What isn't in here is restricted (R), its own code kept beside.
ORDER_CONFIDENTIALITY = code_map(
    "v2-confidentiality", "Confidentiality", "0177", "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    {"V": "V", "R": "R", "U": "N"},
)  # fmt: skip
# Order status as a placer says it of an order that is there (ris-domain.md 2.4); how far an examination is, we say.
ORDER_STATUS = code_map(
    "v2-order-status", "Order status", "0038", "http://hl7.org/fhir/request-status",
    {"SC": "active", "IP": "active", "A": "active", "CM": "completed", "CA": "revoked", "DC": "revoked", "HD": "on-hold",
     "ER": "entered-in-error", "RP": "revoked"},
    active="IP", revoked="CA",
)  # fmt: skip
# Results that come in (OBR-25, OBX-8, OBX-11), and appointments of an outside scheduler (SCH-25).
RESULT_STATUS_IN = code_map(
    "v2-result-status", "Result status", "0123", "http://hl7.org/fhir/diagnostic-report-status",
    {
        "I": "registered", "O": "registered", "S": "registered", "N": "registered", "R": "partial", "A": "partial",
        "P": "preliminary", "M": "preliminary", "F": "final", "C": "corrected", "X": "cancelled",
    },
    amended="C", appended="C", entered_in_error="X",
)  # fmt: skip
OBSERVATION_STATUS_IN = code_map(
    "v2-observation-status", "Observation result status", "0085", "http://hl7.org/fhir/observation-status",
    {
        "F": "final", "U": "final", "P": "preliminary", "R": "preliminary", "C": "corrected", "A": "amended", "B": "amended",
        "X": "cancelled", "D": "entered-in-error", "W": "entered-in-error", "I": "registered", "O": "registered",
        "S": "registered", "N": "registered",
    },
)  # fmt: skip
INTERPRETATION = code_map(
    "v2-abnormal-flags", "Abnormal flags", "0078", "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
    {flag: flag for flag in ("L", "H", "LL", "HH", "<", ">", "N", "A", "AA", "U", "D", "B", "W", "S", "R", "I", "MS", "VS")},
)  # fmt: skip
FILLER_STATUS_IN = code_map(
    "v2-filler-status", "Filler status of an appointment", "0278", "http://hl7.org/fhir/appointmentstatus",
    {
        "Pending": "pending", "Waitlist": "waitlist", "Booked": "booked", "Overbook": "booked", "Started": "checked-in",
        "Complete": "fulfilled", "Cancelled": "cancelled", "Discontinued": "cancelled", "Noshow": "noshow",
        "Deleted": "entered-in-error",
    },
    proposed="Pending", arrived="Started",
)  # fmt: skip
