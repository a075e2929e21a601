"""Picking a patient by what is typed: a number, a name, a birth date. It is posted, so that no address tells of a patient."""

import re
from datetime import date

from console.visit import Visit
from fhir_server.registry import Resource
from fhir_server.search.values import escaped

MOST = 20
_GERMAN = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")


async def patients(visit: Visit, typed: str) -> list[Resource]:
    """At most twenty records in use: with the number, with the name (and birth date), and the one of this id."""
    words = typed.replace(",", " ").split()[:6]
    if not words:
        return []
    birth = [b for w in words if (b := _birth_date(w))]
    names = [w for w in words if not _birth_date(w) and not any(c.isdigit() for c in w)]
    asked = [visit.desk.search("Patient", identifier=escaped(typed.strip()), _count=str(MOST))]
    if names or birth:
        asked.append(visit.desk.search("Patient", name=[escaped(n) for n in names], birthdate=birth or None, _count=str(MOST)))
    if _ID.fullmatch(typed.strip()):
        asked.append(visit.desk.search("Patient", _id=typed.strip()))
    found = await visit.desk.together(*asked)
    active = {p["id"]: p for f in found for p in f if p.get("active", True)}
    return list(active.values())[:MOST]


def _birth_date(word: str) -> str:
    """The date that a word is, as FHIR has it; "" for none."""
    if german := _GERMAN.fullmatch(word):
        word = "{2}-{1:0>2}-{0:0>2}".format(*german.groups())
    try:
        return date.fromisoformat(word).isoformat() if _ISO.fullmatch(word) else ""
    except ValueError:
        return ""
