"""Two or more of a kind beside each other: what each says, and where they differ."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from console import formats
from console.asking import Found
from console.formats import NONE, concept, identifier
from console.screens.orders import facts
from console.visit import Visit
from fhir_server.elements import has_code
from fhir_server.registry import Resource
from resources import terms
from resources.patient_identity import shown


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that each says: what it is, the texts in the order of those compared, and whether they differ."""

    what: str
    values: list[str]
    differ: bool


def _compared(what: str, values: list[str], *, own: bool = False) -> Compared:
    """What one of them leaves open, contradicts nothing. `own`: each has one of its own, which tells nothing."""
    said = {v for v in values if v and v != NONE}
    return Compared(what, [v or NONE for v in values], len(said) > 1 and not own)


# Orders

_OWN: Final = frozenset({"placer-number", "accession"})


def of_orders(visit: Visit, orders: Sequence[Resource], found: Found) -> list[Compared]:
    """Orders that may be one ordered twice, feature by feature."""
    t = visit.t
    features: list[tuple[str, Callable[[Resource], str]]] = [
        ("examination", lambda o: concept(o.get("code"))),
        ("body-site", lambda o: ", ".join(concept(c) for c in o.get("bodySite", ()))),
        ("reason", facts.reason),
        ("priority", lambda o: t.code("priority", o.get("priority", "routine"))),
        ("by", lambda o: facts.name_of(o.get("requester"), found)),
        ("ordered", lambda o: moment(visit, o.get("authoredOn") or o["meta"]["lastUpdated"])),
        ("wanted", lambda o: moment(visit, facts.wanted(o))),
        ("placer-number", lambda o: identifier(o, "PLAC")),
        ("accession", lambda o: identifier(o, "ACSN")),
        ("visit", lambda o: str(o.get("encounter", {}).get("reference", "")).partition("/")[2]),
        ("note", lambda o: " / ".join(str(n.get("text", "")) for n in o.get("note", ()))),
    ]
    rows = [_compared(t(f"orders.feature.{name}"), [of(o) for o in orders], own=name in _OWN) for name, of in features]
    return [row for row in rows if any(value != NONE for value in row.values)]


def moment(visit: Visit, value: str | None) -> str:
    """A moment as the page's filters show it."""
    context: Any = {"t": visit.t, "visit": visit}
    return formats.at_moment(context, value)


def day(visit: Visit, value: str | None) -> str:
    """A date, the same."""
    context: Any = {"t": visit.t, "visit": visit}
    return formats.day(context, value)


# Patients

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_FEATURES: Final = ("name", "birth", "gender", "numbers", "address", "telecom", "managing")


def of_patients(visit: Visit, patients: Sequence[Resource]) -> list[Compared]:
    """Records that may be of one person, feature by feature."""
    t = visit.t
    said: dict[str, Callable[[Resource], str]] = {
        "name": lambda p: " / ".join(dict.fromkeys(shown(n) for n in p.get("name", ()) if shown(n))),
        "birth": lambda p: day(visit, p["birthDate"]) if "birthDate" in p else "",
        "gender": lambda p: t.code("gender", p["gender"]) if "gender" in p else "",
        "numbers": lambda p: ", ".join(str(i["value"]) for i in p.get("identifier", ()) if "value" in i),
        "address": lambda p: " / ".join(_address(a) for a in p.get("address", ())),
        "telecom": lambda p: ", ".join(str(c["value"]) for c in p.get("telecom", ()) if "value" in c),
        "managing": lambda p: str(p.get("managingOrganization", {}).get("display", "")),
    }
    rows = [_compared(t(f"orders.feature.{name}"), [said[name](p) for p in patients]) for name in _FEATURES]
    return [row for row in rows if any(value != NONE for value in row.values)]


def _address(address: Resource) -> str:
    parts = [*address.get("line", ()), " ".join(x for x in (address.get("postalCode"), address.get("city")) if x)]
    return ", ".join(str(p) for p in parts if p) or str(address.get("text", ""))


def of_mismatch(visit: Visit, task: Resource) -> list[Compared]:
    """What the record says and what was said otherwise (`resources/patient_identity.py`), where these differ."""
    sides: dict[str, dict[str, str]] = {}
    for detail in task.get("input", ()):
        for side in ("known", "said"):
            if has_code(detail.get("type"), terms.TASK_DETAIL, side) and "valueString" in detail:
                sides.setdefault(str(detail["type"].get("text", "")), {})[side] = str(detail["valueString"])
    shows: dict[str, Callable[[str], str]] = {
        "date of birth": lambda said: day(visit, said) if _DATE.fullmatch(said) else said,
        "sex": lambda said: visit.t.code("gender", said),
    }
    rows: list[Compared] = []
    for what, said in sides.items():
        show = shows.get(what, str)
        values = [show(said[side]) if side in said else NONE for side in ("known", "said")]
        rows.append(Compared(visit.t.code("orders.what", what.replace(" ", "-")), values, differ=True))
    return rows
