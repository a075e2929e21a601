"""A plain reading of PS3.4 K and C.2.2.2, for the worklist's matching: slow, on facts and not on data sets, and nothing shared
with what is tested.
"""

import random
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.dicom_client import ZONE

FAMILIES = (
    "Müller",
    "Muller",
    "Roe",
    "Doe",
    "O'Neil",
    "Łukasz",
    "Ångström",
    "Nuñez",
    "de la Cruz",
    "Smith",
    "山田",
    "Παπαδοπούλου",
)
GIVEN = ("Zoë", "Anna", "Jane", "John", "Mary Sue", "太郎", "")
TITLES = ("CT1", "CT2", "MR1", "US 1")
MODALITIES = ("CT", "MR", "US", "XA")
DESCRIPTIONS = ("CT chest", "CT abdomen", "MR knee [left]", "US*neck", "XA")
KANJI = ("", "", "山田^太郎", "鈴木^花子")


@dataclass
class Entry:
    """The facts of a scheduled step."""

    number: int
    family: str
    given: str
    kanji: str
    patient_id: str
    accession: str
    procedure_id: str
    step_id: str
    study_uid: str
    title: str
    modality: str
    start: datetime
    description: str
    priority: str
    sex: str
    born: str
    performer: str
    admission: str
    status: str
    code: str


def entry(chance: random.Random, number: int) -> Entry:
    start = datetime(2026, 9, 7, tzinfo=ZONE) + timedelta(days=chance.randrange(5), minutes=5 * chance.randrange(288))
    return Entry(
        number=number,
        family=chance.choice(FAMILIES),
        given=chance.choice(GIVEN),
        kanji=chance.choice(KANJI),
        patient_id=f"P{chance.randrange(30)}",
        accession=f"A{number}" if chance.random() < 0.8 else "",
        procedure_id=f"R{number}",
        step_id=f"S{number}",
        study_uid=f"2.25.{number + 1}",
        title=chance.choice(TITLES),
        modality=chance.choice(MODALITIES),
        start=start,
        description=chance.choice(DESCRIPTIONS),
        priority=chance.choice(("stat", "urgent", "routine")),
        sex=chance.choice(("male", "female", "other", "unknown")),
        born=chance.choice(("1970-03-04", "1999-12-31", "2001-01", "")),
        performer=chance.choice(("Poe^Ann", "Boe^Bob", "")),
        admission=chance.choice(("V1", "V2", "")),
        status=chance.choice(("SCHEDULED", "ARRIVED", "READY")),
        code=chance.choice(("24627-2", "30799-1")),
    )


def values(one: Entry) -> dict[str, list[str]]:
    """The attributes that queries of the oracle ask for, as text."""
    name = f"{one.family}^{one.given}".rstrip("^")
    return {
        "PatientName": [f"{name}={one.kanji}".rstrip("=")],
        "PatientID": [one.patient_id],
        "AccessionNumber": [one.accession],
        "RequestedProcedureID": [one.procedure_id],
        "StudyInstanceUID": [one.study_uid],
        "RequestedProcedureDescription": [one.description],
        "RequestedProcedurePriority": [{"stat": "STAT", "urgent": "HIGH", "routine": "ROUTINE"}[one.priority]],
        "PatientSex": [{"male": "M", "female": "F", "other": "O"}.get(one.sex, "")],
        "PatientBirthDate": [one.born.replace("-", "") if len(one.born) == 10 else ""],
        "AdmissionID": [one.admission],
        "ScheduledStationAETitle": [one.title],
        "Modality": [one.modality],
        "ScheduledProcedureStepID": [one.step_id],
        "ScheduledProcedureStepStatus": [one.status],
        "ScheduledPerformingPhysicianName": [one.performer],
        "ScheduledProcedureStepStartDate": [f"{one.start:%Y%m%d}"],
        "ScheduledProcedureStepStartTime": [f"{one.start:%H%M%S}"],
    }


IN_STEP = frozenset(
    "ScheduledStationAETitle Modality ScheduledProcedureStepID ScheduledProcedureStepStatus ScheduledPerformingPhysicianName "
    "ScheduledProcedureStepStartDate ScheduledProcedureStepStartTime".split()
)
_NAMES = frozenset({"PatientName", "ScheduledPerformingPhysicianName"})
_WITH_WILDCARDS = frozenset({"RequestedProcedureDescription"})


@dataclass
class Asked:
    """A query: key -> its value ("" for a return key), and the code asked for in the requested procedure code sequence."""

    keys: dict[str, str] = field(default_factory=dict)
    code: str | None = None


def query(chance: random.Random, entries: list[Entry]) -> Asked:
    """A random one, often near to one of the entries so that something is found."""
    near = values(chance.choice(entries))
    asked = Asked()
    for keyword in near:
        if chance.random() < 0.75:
            asked.keys[keyword] = _key(chance, keyword, near[keyword][0]) if chance.random() < 0.22 else ""
    if chance.random() < 0.3:
        asked.code = chance.choice(("24627-2", "30799-1", ""))
    return asked


def _key(chance: random.Random, keyword: str, value: str) -> str:
    if keyword == "ScheduledProcedureStepStartDate":
        return _range(chance, value, chance.choice(("20260907", "20260909", "20260911")))
    if keyword == "ScheduledProcedureStepStartTime":
        return _range(chance, value[: chance.choice((2, 4, 6))], chance.choice(("08", "1200", "173000")))
    if keyword == "PatientBirthDate":
        return _range(chance, value or "19700304", "20000101")
    kind = chance.random()
    if kind < 0.1:
        return "*"
    if keyword in _NAMES or keyword in _WITH_WILDCARDS:
        if kind < 0.4 and value:
            cut = chance.randrange(len(value))
            return value[:cut].rstrip("=") + "*"
        if kind < 0.5 and value:
            place = chance.randrange(len(value))
            return value[:place] + ("?" if value[place] not in "^=" else value[place]) + value[place + 1 :]
        if kind < 0.6:
            return value.upper()
        if kind < 0.65 and "^" in value:
            return "^" + value.split("=")[0].split("^")[1]
    if keyword in _NAMES and kind < 0.75:
        first = value.split("=")[0] or "X"
        other = chance.choice(("*", "*=*", "*^*", "山田^*", "鈴木^花子", "X=*"))
        return f"{chance.choice((first, first[:2] + '*', '*', '*^*'))}={other}"
    if kind > 0.9:
        return f"{value or 'X'}\\other"
    return value or "X"


def _range(chance: random.Random, one: str, other: str) -> str:
    kind = chance.randrange(5)
    if kind == 0:
        return one
    if kind == 1:
        return f"{one}-"
    if kind == 2:
        return f"-{one}"
    low, high = sorted((one, other))
    return f"{low}-{high}" if kind == 3 else f" {low} - {high} "


# Matching


def matches(one: Entry, asked: Asked) -> bool:
    """PS3.4 C.2.2.2 and K.6.1.2, key by key."""
    facts = values(one)
    for keyword, key in asked.keys.items():
        if keyword.startswith("ScheduledProcedureStepStart") or not key or key.strip("*") == "":
            continue
        if keyword in _NAMES and not key.strip("*^="):
            continue
        wanted = [w for w in key.split("\\") if w]
        if keyword == "PatientBirthDate":
            found = bool(facts[keyword][0]) and any(_in_range(facts[keyword][0], w, 8) for w in wanted)
        elif keyword in _NAMES:
            found = any(_name(w, facts[keyword][0]) for w in wanted)
        elif keyword in _WITH_WILDCARDS:
            found = any(_wild(w, facts[keyword][0]) for w in wanted)
        else:
            found = bool(facts[keyword][0]) and facts[keyword][0] in wanted
        if not found:
            return False
    if asked.code and asked.code != one.code:
        return False
    return _starts(one, asked)


def _starts(one: Entry, asked: Asked) -> bool:
    """Date and time: two ranges are one interval (K.6.1.2.2); else each counts for itself."""
    day, clock = asked.keys.get("ScheduledProcedureStepStartDate", ""), asked.keys.get("ScheduledProcedureStepStartTime", "")
    stored_day, stored_clock = f"{one.start:%Y%m%d}", f"{one.start:%H%M%S}"
    if "-" in day and "-" in clock:
        days, clocks = ([p.strip() for p in k.split("-")] for k in (day, clock))
        low = days[0] + (clocks[0].ljust(6, "0") if clocks[0] else "000000") if days[0] else ""
        high = days[1] + (_last(clocks[1]) if clocks[1] else "235959") if days[1] else "9" * 14
        return low <= stored_day + stored_clock <= high
    return (not day or _in_range(stored_day, day, 8)) and (not clock or _in_range(stored_clock, clock, 6))


def _in_range(stored: str, key: str, length: int) -> bool:
    low, dash, high = (p.strip() for p in key.partition("-"))
    if not dash:
        return stored.startswith(low)
    return (not low or stored >= low.ljust(length, "0")) and (not high or stored <= (_last(high) if length == 6 else high))


def _last(clock: str) -> str:
    """The last second of what a time names."""
    return clock + "235959"[len(clock) :]


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", "".join(c for c in apart if not unicodedata.combining(c)))


def _name(key: str, stored: str) -> bool:
    """Each group of the key that restricts, against the group of its place, if the name has it; one alone against any group.

    A group matches whole or by the components that the key names.
    """
    wanted = {i: g for i, g in enumerate(key.split("=")) if g.strip("*^")}
    held = {i: g for i, g in enumerate(stored.split("=")) if g.strip("^")}
    if len(wanted) == 1:
        return any(_group(w, h) for w in wanted.values() for h in held.values())
    both = wanted.keys() & held.keys()
    return bool(both) and all(_group(wanted[i], held[i]) for i in both)


def _group(wanted: str, held: str) -> bool:
    w, h = _plain(wanted).rstrip("^"), _plain(held).rstrip("^")
    parts, have = w.split("^"), [*h.split("^"), "", "", "", "", ""]
    return _wild(w, h) or all(not p or _wild(p, have[i]) for i, p in enumerate(parts))


def _wild(key: str, text: str) -> bool:
    """`*` any run, `?` any one character: by the table of all beginnings."""
    if not text and key.strip("*"):
        return False
    reach = {0}
    for c in key:
        if c == "*":
            reach = set(range(min(reach), len(text) + 1)) if reach else reach
        else:
            reach = {i + 1 for i in reach if i < len(text) and c in {"?", text[i]}}
    return len(text) in reach


def facts_of(data: Any) -> dict[str, Any]:
    """What of an answer the oracle looks at."""
    return {e.keyword: e.value for e in data}
