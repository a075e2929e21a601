"""The codes that are chosen from at this screen; what they are called is in the catalogue of texts: `rooms.<table>.<code>`."""

from dataclasses import dataclass
from typing import Final

from console.formats import concept
from console.texts import Texts, catalogue
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms
from resources.safety.tables import ATC


@dataclass(frozen=True, slots=True)
class Table:
    """Codes of one system; `name` is that of their texts."""

    name: str
    system: str
    codes: tuple[str, ...]

    def choices(self, t: Texts) -> list[tuple[str, str]]:
        """(code, text) pairs for a list of choices."""
        return [(code, t(f"rooms.{self.name}.{code}")) for code in self.codes]

    def concept(self, code: str) -> Resource:
        """The CodeableConcept of a code; what is stored, is called as in English."""
        display = catalogue("en")[f"rooms.{self.name}.{code}"]
        return {"coding": [{"system": self.system, "code": code, "display": display}]}


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# DICOM CID 9301, Modality PPS Discontinuation Reasons.
STOPS: Final = Table(
    "stop-reason",
    terms.DCM,
    _codes(
        "110515 110505 110501 110503 110504 110506 110508 110502 110512 110514 110516 110500 110509 110510 110511 110507 110513"
    ),
)
# DICOM CID 7011, Rejected for Quality Reasons.
REJECTS: Final = Table(
    "reject-reason",
    terms.DCM,
    _codes("111210 111209 111207 111208 111214 111215 111211 111212 113026 111213 111216 111217 111218 111219 111220 111221"),
)
# Contrast agents by ATC.
AGENTS: Final = Table(
    "agent",
    ATC,
    _codes(
        "V08AB02 V08AB04 V08AB05 V08AB07 V08AB09 V08AB10 V08AB11 V08AA01 V08CA02 V08CA04 V08CA09 V08CA10 V08CA12 V08DA05 V08BA01"
    ),
)
# SNOMED CT routes of administration.
ROUTES: Final = Table("route", terms.SNOMED, _codes("47625008 26643006 37161004 58100008 12130007 72607000"))


def key(value: Resource) -> str:
    """What stands for a CodeableConcept in a form: its first code with the system, or its text."""
    coding: Resource = next(iter(value.get("coding", ())), {})
    return f"{coding.get('system', '')}|{coding['code']}" if "code" in coding else str(value.get("text", ""))


def agents(visit: Visit, planned: list[Resource]) -> list[tuple[str, str]]:
    """The contrast agents to choose from: those that are planned first."""
    own = {key(one): concept(one) for one in planned}
    usual = {f"{ATC}|{code}": text for code, text in AGENTS.choices(visit.t)}
    return [(k, usual.get(k, text)) for k, text in own.items()] + [(k, t) for k, t in usual.items() if k not in own]


def agent(chosen: str, planned: list[Resource]) -> Resource:
    """The CodeableConcept of a choice from `agents`. FhirError for what is none."""
    code = chosen.removeprefix(f"{ATC}|")
    found = next((one for one in planned if key(one) == chosen), None)
    if found is None and code in AGENTS.codes:
        found = AGENTS.concept(code)
    if found is None:
        raise fail("code-invalid", chosen[:64], status=422)
    return found


def of_table(visit: Visit, table: Table, field: str) -> Resource | None:
    """What was chosen from a table in a field of the form; None for nothing. FhirError for what isn't in it."""
    code = visit.form.get(field)
    if code is None:
        return None
    if code not in table.codes:
        raise fail("code-invalid", code[:64], status=422)
    return table.concept(code)
