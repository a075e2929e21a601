"""Whether two descriptions are of one person: what differs, what only looks so, and the work item for what a person must see."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fhir_server import clock
from fhir_server.elements import has_code
from fhir_server.registry import Resource
from fhir_server.search.keys import fold
from fhir_server.unit_of_work import UnitOfWork
from resources import terms, work_items

# meta.tag of a Patient whose identity is not known (PID-31): whoever knows it better may say so without contradicting anybody.
IDENTITY: Final = "urn:fhir-ris:identity"
UNKNOWN: Final = "unknown"
MISMATCH: Final = "patient-mismatch"
IDENTITY_CHANGED: Final = "identity-changed"
# What has no decomposed form in Unicode, or is spelt out where it can't be written (DIN 5007-2, Danish, Norwegian).
_PLAIN: Final = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i"})
_SPELT: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_PARTICLES: Final = re.compile(r"^(?:(?:von|van|de|der|den|di|da|del|della|du|la|le|zu|zur|af|av)\s+)+")
_WAITING: Final = "requested,received,accepted,ready,in-progress,on-hold"


@dataclass(frozen=True, slots=True)
class Difference:
    """One element that is said otherwise: `date of birth`, both values as people read them, and what explains it."""

    what: str
    known: str
    said: str
    note: str = ""


def is_unknown(patient: Resource) -> bool:
    """Whether it stands for somebody whom nobody could name: marked so, or with nothing but temporary identifiers."""
    if any(t.get("system") == IDENTITY and t.get("code") == UNKNOWN for t in patient.get("meta", {}).get("tag", ())):
        return True
    identifiers = [i for i in patient.get("identifier", ()) if i.get("use") != "old"]
    return bool(identifiers) and all(i.get("use") == "temp" for i in identifiers)


def differences(known: Resource, said: Resource) -> list[Difference]:
    """What `said` contradicts in `known`. What one of them leaves open, contradicts nothing; nor does anything of an unknown."""
    if is_unknown(known):
        return []
    found = (_birth_date(known, said), _sex(known, said), _name(known, said))
    return [difference for difference in found if difference]


def wholly_other(differing: Iterable[Difference]) -> bool:
    """Whether name and date of birth both differ, and nothing explains it: another person, for all we know."""
    unexplained = {d.what for d in differing if not d.note}
    return {"date of birth", "name"} <= unexplained


def _birth_date(known: Resource, said: Resource) -> Difference | None:
    ours, theirs = known.get("birthDate", ""), said.get("birthDate", "")
    if ours.startswith(theirs) or theirs.startswith(ours):
        return None
    swapped = ours[:4] == theirs[:4] and len(ours) == len(theirs) == 10 and ours[5:] == f"{theirs[8:]}-{theirs[5:7]}"
    return Difference("date of birth", ours, theirs, "day and month are swapped" if swapped else "")


def _sex(known: Resource, said: Resource) -> Difference | None:
    ours, theirs = known.get("gender", "unknown"), said.get("gender", "unknown")
    return None if "unknown" in {ours, theirs} or ours == theirs else Difference("sex", ours, theirs)


# Names


def _name(known: Resource, said: Resource) -> Difference | None:
    ours, theirs = list(_named(known)), list(_named(said))
    if not ours or not theirs or any(_agree(one, other) for one in ours for other in theirs):
        return None
    note = ""
    if any(_swapped(one, other) for one in ours for other in theirs):
        note = "family and given name are swapped"
    elif known.get("birthDate", "") == said.get("birthDate") and any(
        _same_given(one, other) and one.get("given") and other.get("given") for one in ours for other in theirs
    ):
        note = "given name and date of birth are the same: a maiden or married name?"
    return Difference("name", shown(ours[0]), shown(theirs[0]), note)


def _named(patient: Resource) -> Iterator[dict[str, Any]]:
    """The names that tell who it is; a maiden name tells it as well as any."""
    for name in patient.get("name", ()):
        if name.get("use") not in {"anonymous", "nickname"} and (name.get("family") or name.get("given")):
            yield name


def shown(name: dict[str, Any]) -> str:
    """As people read it: `Muster, Mara Lea`, with the kind of name where that is not the usual one."""
    text = ", ".join(x for x in (name.get("family", ""), " ".join(name.get("given", ()))) if x)
    return f"{text} (maiden name)" if name.get("use") == "maiden" else text


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    families = one.get("family", ""), other.get("family", "")
    return (not all(families) or _alike(*families)) and _same_given(one, other)


def _same_given(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether one has the given names of the other, or some of them; an initial stands for any that begins with it."""
    fewer, more = sorted((_words(one), _words(other)), key=len)
    return all(any(_alike(a, b) or _initial(a, b) for b in more) for a in fewer)


def _words(name: dict[str, Any]) -> list[str]:
    return [word for word in re.split(r"[\s\-.]+", " ".join(name.get("given", ()))) if word]


def _initial(one: str, other: str) -> bool:
    shorter, longer = sorted((fold(one), fold(other)), key=len)
    return len(shorter) == 1 and longer.startswith(shorter)


def _swapped(one: dict[str, Any], other: dict[str, Any]) -> bool:
    given, theirs = " ".join(one.get("given", ())), " ".join(other.get("given", ()))
    return bool(given and theirs) and _alike(one.get("family", ""), theirs) and _alike(other.get("family", ""), given)


def _alike(one: str, other: str) -> bool:
    """Whether two names are the same but for case, accents, spelt-out umlauts, hyphens, blanks and particles such as `von`."""
    return not _forms(one).isdisjoint(_forms(other))


def _forms(name: str) -> set[str]:
    lowered = name.casefold()
    forms = {fold(lowered.translate(_PLAIN)), fold(lowered.translate(_SPELT).translate(_PLAIN))}
    return {re.sub(r"[\W_]+", "", form) for whole in forms for form in (whole, _PARTICLES.sub("", whole))} - {""}


# Shown to people


async def raise_mismatch(
    unit: UnitOfWork, patient: Resource, differing: list[Difference], source: str, *, about: str = "", note: str = ""
) -> Resource | None:
    """Open a work item `patient-mismatch` that shows each element that differs, with both values; None if one waits already.

    `source` says who said it, `note` what was done; `about` is the focus where that is not the patient.
    """
    reference = f"Patient/{patient['id']}"
    told = "; ".join(f"{d.what} here {d.known}, there {d.said}" + (f" ({d.note})" if d.note else "") for d in differing)
    text = ". ".join(x for x in (note, f"{source} differs from this patient's record: {told}") if x)
    code = f"{terms.TASK_CODE}|{MISMATCH}"
    for waiting in await unit.search("Task", code=code, focus=about or reference, status=_WAITING):
        if waiting.get("description") == text and has_code(waiting.get("code"), terms.TASK_CODE, MISMATCH):
            return None
    item = await work_items.open_work_item(unit, MISMATCH, text, about=about or reference, patient=reference)
    details = [(f"{side}", d.what, value) for d in differing for side, value in (("known", d.known), ("said", d.said))]
    inputs = [
        {"type": {"coding": [{"system": terms.TASK_DETAIL, "code": side}], "text": what}, "valueString": value}
        for side, what, value in details
        if value
    ]
    return await unit.update(item | {"input": inputs, "lastModified": clock.instant(unit.now)})
