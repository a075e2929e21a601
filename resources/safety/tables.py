"""The two tables of safety, read once: `screening.toml` and `facts.toml`. A mistake in them stops the start."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from fhir_server.elements import codings
from resources import terms

Effect = Literal["stop-booking", "stop", "flag"]
STOPS: Final = frozenset({"stop-booking", "stop"})
EFFECTS: Final = frozenset({"stop-booking", "stop", "flag"})
ATC: Final = "http://www.whocc.no/atc"
ICD10: Final = frozenset(
    {"http://hl7.org/fhir/sid/icd-10", "http://hl7.org/fhir/sid/icd-10-cm", "http://fhir.de/CodeSystem/bfarm/icd-10-gm"}
)
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Fits:
    """Which examinations something is about; what is empty, doesn't matter."""

    modalities: frozenset[str]
    contrast: frozenset[str]
    intervention: bool = False

    def any_of(self, modality: str | None, contrast: frozenset[str], *, intervention: bool) -> bool:
        """Whether an examination meets one of them: how questionnaires are chosen."""
        return modality in self.modalities or bool(contrast & self.contrast) or (intervention and self.intervention)

    def all_of(self, modality: str | None, contrast: frozenset[str]) -> bool:
        """Whether an examination meets each that is given: how rules are."""
        return (not self.modalities or modality in self.modalities) and (not self.contrast or bool(contrast & self.contrast))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to choose, by its SNOMED CT code."""

    code: str
    en: str
    de: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question. `effect` is that of `yes`; `tells` what a `yes` becomes in the chart, in the words of `alert` (en, de)."""

    id: str
    type: str
    en: str
    de: str
    effect: str
    tells: str
    alert: tuple[str, str]
    criticality: str
    required: bool
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Questionnaire:
    """A questionnaire of ours, in its present version."""

    name: str
    version: str
    en: str
    de: str
    fits: Fits
    sex: str
    ages: tuple[int, int] | None
    days: int
    lasting: bool
    unanswered: str
    questions: tuple[Question, ...]

    @property
    def url(self) -> str:
        return f"urn:fhir-ris:questionnaire:{self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about what the chart says."""

    id: str
    looks_at: str
    fits: Fits
    effect: Effect
    en: str
    de: str
    severe: bool | None
    group: str
    state: str
    below: int | None
    missing: bool
    risk: frozenset[str]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of codes: SNOMED CT, and the beginnings of ATC and ICD-10 codes; words for concepts without codes."""

    snomed: frozenset[str]
    atc: tuple[str, ...]
    icd10: tuple[str, ...]
    words: re.Pattern[str] | None

    def has(self, concept: Any) -> bool:
        """Whether a CodeableConcept is of the group."""
        found = list(codings(concept))
        for one in found:
            code, system = str(one.get("code", "")), one.get("system")
            if (system == terms.SNOMED and code in self.snomed) or (system == ATC and self.atc and code.startswith(self.atc)):
                return True
            if system in ICD10 and self.icd10 and code.startswith(self.icd10):
                return True
        said = [(concept or {}).get("text", ""), *(c.get("display", "") for c in found)]
        return self.words is not None and any(self.words.search(text) for text in said)


@dataclass(frozen=True, slots=True)
class Facts:
    """`facts.toml`."""

    rules: tuple[Rule, ...]
    egfr_codes: frozenset[str]
    egfr_days: int
    contrast: dict[str, Group]
    conditions: dict[str, Group]

    def kinds(self, agent: Any) -> frozenset[str]:
        """The kinds of contrast agent that a CodeableConcept is of; `unknown` where it is of none that we know."""
        found = frozenset(kind for kind, group in self.contrast.items() if kind != "any" and group.has(agent))
        return found or frozenset({UNKNOWN})

    def is_contrast(self, agent: Any) -> bool:
        """Whether a medication is known as a contrast agent."""
        return any(group.has(agent) for group in self.contrast.values())

    def concerns(self, allergy: Any, kinds: frozenset[str]) -> bool:
        """Whether an allergy (its code) is one to contrast agents of these kinds."""
        to = {kind for kind, group in self.contrast.items() if group.has(allergy)}
        named = to - {"any"}
        if UNKNOWN in kinds or (to and not named):
            return bool(to)
        return bool(named & kinds)


def _fits(row: dict[str, Any]) -> Fits:
    return Fits(frozenset(row.get("modalities", ())), frozenset(row.get("contrast", ())), bool(row.get("intervention", False)))


def _question(row: dict[str, Any]) -> Question:
    assert row.get("effect", "flag") in EFFECTS, row
    alert = row.get("alert", {})
    return Question(
        row["id"], row.get("type", "boolean"), row["en"], row["de"], row.get("effect", ""), row.get("tells", ""),
        (alert.get("en", ""), alert.get("de", "")), row.get("criticality", ""), row.get("required", True),
        tuple(Answer(**a) for a in row.get("answers", ())),
    )  # fmt: skip


def _questionnaire(row: dict[str, Any]) -> Questionnaire:
    ages = row.get("ages")
    return Questionnaire(
        row["name"], row["version"], row["en"], row["de"], _fits(row), row.get("sex", ""), (ages[0], ages[1]) if ages else None,
        row["days"], row["lasting"], row["unanswered"], tuple(_question(q) for q in row["question"]),
    )  # fmt: skip


def _rule(row: dict[str, Any]) -> Rule:
    assert row["effect"] in EFFECTS, row
    return Rule(
        row["id"], row["looks_at"], _fits(row), row["effect"], row["en"], row["de"], row.get("severe"), row.get("group", ""),
        row.get("is", ""), row.get("below"), bool(row.get("missing", False)), frozenset(row.get("risk", ())),
    )  # fmt: skip


def _group(row: dict[str, Iterable[str]]) -> Group:
    words = "|".join(re.escape(w) for w in row.get("words", ()))
    pattern = re.compile(rf"\b(?:{words})", re.IGNORECASE) if words else None
    return Group(frozenset(row.get("snomed", ())), tuple(row.get("atc", ())), tuple(row.get("icd10", ())), pattern)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


@cache
def questionnaires() -> dict[str, Questionnaire]:
    """Those of `screening.toml` by their canonical URL, without version."""
    made = (_questionnaire(row) for row in _read("screening.toml")["questionnaire"])
    return {one.url: one for one in made}


@cache
def facts() -> Facts:
    """`facts.toml`."""
    table = _read("facts.toml")
    return Facts(
        tuple(_rule(row) for row in table["rule"]),
        frozenset(table["egfr"]["codes"]),
        table["egfr"]["max_days"],
        {kind: _group(row) for kind, row in table["contrast"].items()},
        {name: _group(row) for name, row in table["conditions"].items()},
    )
