"""What must be in MPPS data sets (PS3.4 table F.7.2-1), and what is done about what isn't.

How strict, is a preference of the scanner (`resources/scanner_preferences.py`):
    strict   every type of the table; what may not come with N-SET is refused
    normal   the type 1 attributes without which nothing can be told; the rest is taken as empty. What N-SET may not change, is
             left as it was; a final state without end or images is taken, and somebody is asked
    lenient  nothing is refused that can be told or guessed; the answer is a warning
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from bridges.dicom import dimse, mpps_data, values
from bridges.dicom.dicom_json import Attributes, items, put, tag, text
from bridges.dicom.mpps_data import COMPLETED, DISCONTINUED, IN_PROGRESS

_STEP: Final = "ScheduledStepAttributesSequence"
_SERIES: Final = "PerformedSeriesSequence"
_REASON: Final = "PerformedProcedureStepDiscontinuationReasonCodeSequence"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: the types at N-CREATE and N-SET (`-`: not allowed), and whether it has type 1 at the end.

    within: the sequence whose items it belongs to; needed: refused in the normal mode too when it is missing at N-CREATE
    """

    keyword: str
    create: str
    change: str
    final: str = ""
    within: str = ""
    needed: bool = False


def _rows(words: str, create: str, change: str, *, within: str = "", needed: bool = False, final: str = "") -> tuple[Row, ...]:
    return tuple(Row(word, create, change, final, within, needed) for word in words.split())


TABLE: Final = (
    *_rows(_STEP, "1", "-"),
    *_rows("StudyInstanceUID", "1", "-", within=_STEP),
    *_rows(
        "ReferencedStudySequence AccessionNumber RequestedProcedureID RequestedProcedureDescription ScheduledProcedureStepID "
        "ScheduledProcedureStepDescription ScheduledProtocolCodeSequence",
        "2", "-", within=_STEP,
    ),
    *_rows("PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest", "3", "-", within=_STEP),
    *_rows("PatientName PatientID PatientBirthDate PatientSex ReferencedPatientSequence", "2", "-"),
    *_rows(
        "PerformedProcedureStepID PerformedStationAETitle PerformedProcedureStepStartDate PerformedProcedureStepStartTime",
        "1", "-", needed=True,
    ),
    *_rows("PerformedProcedureStepStatus", "1", "3", needed=True),
    *_rows("PerformedStationName PerformedLocation", "2", "-"),
    *_rows("PerformedProcedureStepDescription PerformedProcedureTypeDescription ProcedureCodeSequence", "2", "3"),
    *_rows("PerformedProcedureStepEndDate PerformedProcedureStepEndTime", "2", "3", final="1"),
    *_rows(_REASON, "3", "3"),
    *_rows("Modality", "1", "-", needed=True),
    *_rows("StudyID", "2", "-"),
    *_rows("PerformedProtocolCodeSequence", "2", "3"),
    *_rows(_SERIES, "2", "3", final="1"),
    *_rows("SeriesInstanceUID ProtocolName", "1", "1", within=_SERIES),
    *_rows(
        "PerformingPhysicianName OperatorsName SeriesDescription RetrieveAETitle ReferencedImageSequence "
        "ReferencedNonImageCompositeSOPInstanceSequence",
        "2", "2", within=_SERIES,
    ),
)  # fmt: skip
# Not in the table, but as little to be changed.
_IDENTITY: Final = ("IssuerOfPatientID", "SOPClassUID", "SOPInstanceUID")
_CREATE_ONLY: Final = (*(r.keyword for r in TABLE if r.change == "-" and not r.within), *_IDENTITY)
_AT_THE_TOP: Final = tuple(r for r in TABLE if not r.within)


@dataclass(slots=True)
class Checked:
    """A data set that is taken. `warning`: the status of the answer, when it isn't plain success; `doubts`: for people."""

    data: Attributes
    warning: int | None = None
    comment: str = ""
    doubts: list[str] = field(default_factory=list)

    def warn(self, status: int, comment: str) -> None:
        if self.warning is None:
            self.warning, self.comment = status, comment


@dataclass(frozen=True, slots=True)
class Station:
    """What is known of the sender when its data set leaves something out."""

    ae_title: str
    modality: str = ""


def check_new(data: Attributes, strictness: str, station: Station, zone: ZoneInfo) -> Checked:
    """The data set that begins a performed step. Refused unless it can."""
    if strictness == "lenient":
        checked = _completed(data, station, zone)
    else:
        checked = Checked(data)
        _require_present(data, strictness)
    if text(checked.data, "PerformedProcedureStepStatus") != IN_PROGRESS:
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, "a performed procedure step begins IN PROGRESS")
    mpps_data.start(checked.data, zone)
    return checked


def _require_present(data: Attributes, strictness: str) -> None:
    strict = strictness == "strict"
    rows = [r for r in _AT_THE_TOP if r.needed or r.keyword == _STEP or (strict and r.create in {"1", "2"})]
    _require(data, [r.keyword for r in rows], [r.keyword for r in rows if r.create == "1" and (strict or r.keyword != _STEP)])
    if strict:
        _require_in_items(data, _STEP)
        _require_in_items(data, _SERIES)


def _require(data: Attributes, there: Iterable[str], with_value: Iterable[str], where: str = "") -> None:
    for keyword in there:
        if tag(keyword) not in data:
            raise dimse.Refused(dimse.MISSING_ATTRIBUTE, f"{where}{keyword} is missing")
    for keyword in with_value:
        if not data[tag(keyword)].get("Value"):
            raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, f"{where}{keyword} has no value")


def _require_in_items(data: Attributes, sequence: str) -> None:
    rows = [r for r in TABLE if r.within == sequence and r.create in {"1", "2"}]
    for item in items(data, sequence):
        _require(item, [r.keyword for r in rows], [r.keyword for r in rows if r.create == "1"], "in an item: ")


def _completed(data: Attributes, station: Station, zone: ZoneInfo) -> Checked:
    """The data set with what can be guessed in place of what is missing; the scanner is told by a warning."""
    checked = Checked(dict(data))
    now = datetime.now(UTC).astimezone(zone)
    guesses = {
        "PerformedProcedureStepID": "",
        "PerformedStationAETitle": station.ae_title,
        "PerformedProcedureStepStartDate": values.date_of(now),
        "PerformedProcedureStepStartTime": values.time_of(now),
        "PerformedProcedureStepStatus": IN_PROGRESS,
        "Modality": station.modality or "OT",
    }
    for keyword, guess in guesses.items():
        if not text(data, keyword):
            there = tag(keyword) in data
            put(checked.data, keyword, guess)
            status = dimse.ATTRIBUTE_VALUE_OUT_OF_RANGE if there else dimse.ATTRIBUTE_LIST_ERROR
            checked.warn(status, f"{keyword} {'has no value' if there else 'is missing'}")
            checked.doubts.append(f"the scanner sent no {keyword}")
    if tag(_STEP) not in data:
        put(checked.data, _STEP)
        checked.warn(dimse.ATTRIBUTE_LIST_ERROR, f"{_STEP} is missing")
    try:
        mpps_data.start(checked.data, zone)
    except dimse.Refused:
        put(checked.data, "PerformedProcedureStepStartDate", guesses["PerformedProcedureStepStartDate"])
        put(checked.data, "PerformedProcedureStepStartTime", guesses["PerformedProcedureStepStartTime"])
        checked.warn(dimse.ATTRIBUTE_VALUE_OUT_OF_RANGE, "the start is no date and time")
        checked.doubts.append("its start was no time; the time of the message was taken")
    return checked


def check_change(stored: Attributes, change: Attributes, strictness: str, zone: ZoneInfo) -> Checked:
    """The data set after an N-SET. A new sequence replaces the stored one whole. Refused when it may not be so."""
    fixed = {tag(k): k for k in _CREATE_ONLY}
    checked = Checked(stored | {name: one for name, one in change.items() if name not in fixed})
    for name, keyword in fixed.items():
        if name not in change:
            continue
        if strictness == "strict":
            raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, f"{keyword} is set at N-CREATE only")
        if change[name].get("Value") and change[name].get("Value") != stored.get(name, {}).get("Value"):
            checked.warn(dimse.ATTRIBUTE_LIST_ERROR, f"{keyword} can't be changed, and was left as it is")
    if strictness == "strict" and tag(_REASON) in change and tag(_REASON) not in stored:
        raise dimse.Refused(dimse.NO_SUCH_ATTRIBUTE, "no discontinuation reason was created with the step")
    status = text(checked.data, "PerformedProcedureStepStatus")
    if status not in {IN_PROGRESS, COMPLETED, DISCONTINUED}:
        raise dimse.Refused(dimse.INVALID_ATTRIBUTE_VALUE, "PerformedProcedureStepStatus is none that MPPS knows")
    if status != IN_PROGRESS:
        _check_final(checked, strictness)
    _check_end(checked, strictness, zone)
    return checked


def _check_final(checked: Checked, strictness: str) -> None:
    data = checked.data
    if strictness == "strict":
        for row in TABLE:
            if row.final == "1" and not data.get(tag(row.keyword), {}).get("Value"):
                raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, f"a step ends with its {row.keyword}")
        _require_in_items(data, _SERIES)
    elif tag(_SERIES) not in data:
        if strictness != "lenient":
            raise dimse.Refused(dimse.MISSING_ATTRIBUTE_VALUE, "a step ends with its PerformedSeriesSequence")
        checked.warn(dimse.ATTRIBUTE_LIST_ERROR, f"{_SERIES} is missing")


def _check_end(checked: Checked, strictness: str, zone: ZoneInfo) -> None:
    try:
        mpps_data.end(checked.data, zone)
    except dimse.Refused:
        if strictness != "lenient":
            raise
        for keyword in ("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime"):
            put(checked.data, keyword)
        checked.warn(dimse.ATTRIBUTE_VALUE_OUT_OF_RANGE, "the end is no date and time")
