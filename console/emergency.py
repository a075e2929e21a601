"""A record that is closed to the reader, and opening it in an emergency (docs/security.md): by its id, or by a number."""

from datetime import UTC, datetime

from console.visit import Visit
from smart_auth.break_glass import FRESH, LONGEST, would_open
from smart_auth.roles import role


def may(visit: Visit) -> bool:
    """Whether the reader's role opens records in an emergency."""
    known = role(visit.role)
    return known is not None and known.breaks_glass


def is_open(visit: Visit, patient: str) -> bool:
    """Whether the reader has opened this record in an emergency."""
    about = visit.access.circumstances
    return about is not None and patient in about.opened


async def opens_more(visit: Visit, patient: str) -> bool:
    """Whether something of a record that the reader sees is closed to it, and would open."""
    return await would_open(visit.console.interactions, visit.access, patient)


def is_stale(visit: Visit) -> bool:
    """Whether the reader's login is too long ago for it."""
    since = visit.session.authenticated_at
    return since is None or datetime.now(UTC) - since > FRESH


async def issuers(visit: Visit) -> list[str]:
    """Who gives numbers to patients here: the systems of those of the newest records that the reader sees."""
    if not visit.allows("Patient", "s"):
        return []
    found = await visit.desk.search("Patient", _count="50", _sort="-_lastUpdated", _elements="identifier")
    systems = [str(i["system"]) for p in found for i in p.get("identifier", ()) if "system" in i]
    return sorted(dict.fromkeys(systems), key=lambda s: -systems.count(s))[:8]


async def open_record(visit: Visit, patient: str) -> None:
    """Break the glass of the record of this id."""
    await visit.desk.operation(f"Patient/{patient}/$break-glass", reason=visit.form.text("reason"), minutes=_minutes(visit))


async def open_by_number(visit: Visit) -> str:
    """Break the glass of the record of whom the number is; the patient's id."""
    number = f"{visit.form.text('issuer')}|{visit.form.text('number')}"
    answer = await visit.desk.operation(
        "Patient/$break-glass", identifier=number, reason=visit.form.text("reason"), minutes=_minutes(visit)
    )
    patient = next(p["valueReference"]["reference"] for p in answer["parameter"] if p["name"] == "patient")
    return str(patient.partition("/")[2])


async def close(visit: Visit, patient: str) -> None:
    """End it. What was hidden before is hidden again, perhaps the whole record."""
    await visit.desk.operation(f"Patient/{patient}/$mend-glass")


def _minutes(visit: Visit) -> int | str:
    text = visit.form.text("minutes") or str(LONGEST)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else text
