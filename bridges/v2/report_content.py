"""What a result says, cut into what FHIR has places for: sections and measurements, documents, conclusion and codes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from bridges.v2.attachment_in import documents, pointer
from bridges.v2.codes import OBSERVATION_STATUS_IN
from bridges.v2.datatypes import CWE
from bridges.v2.message import Segment
from bridges.v2.observation_in import CODED, OBX, Obx, interpretations, status_of_part
from bridges.v2.people_in import People
from bridges.v2.reception import Sender
from bridges.v2.report_text_in import TEXT_TYPES, Text, code_of, comment, is_body, section_code, texts
from bridges.v2.result_groups import Line, ResultGroup, is_study_uid
from bridges.v2.systems import SYSTEMS, concept
from fhir_server.elements import codes
from fhir_server.elements import concept as coded
from fhir_server.registry import Resource
from resources.reading.critical_request import ACTIONABLE
from resources.report_section import ADDENDUM, FINDINGS, IMPRESSION, WHOLE, plain_text, section, whole

# RadLex: the actionable findings of categories 1 to 3, and that there is none.
_GRADES: Final = ACTIONABLE.keys() | {"RID50261"}
_CRITICAL: Final = frozenset({"AA", "HH", "LL"})
_WITHDRAWN: Final = frozenset({"entered-in-error", "cancelled"})


@dataclass(slots=True)
class Content:
    """What one report says.

    observations: sections and measurements in their order, without patient and times; body: the report that has no sections
    urgent: why somebody must be told at once
    """

    observations: list[Resource] = field(default_factory=list)
    body: str = ""
    documents: list[dict[str, Any]] = field(default_factory=list)
    conclusion: str = ""
    conclusion_codes: list[Resource] = field(default_factory=list)
    urgent: list[str] = field(default_factory=list)

    @property
    def sections(self) -> list[Resource]:
        return [o for o in self.observations if "category" in o]

    @property
    def has_addendum(self) -> bool:
        return any(ADDENDUM in codes(s["code"], SYSTEMS["LN"]) for s in self.sections)

    @property
    def is_addendum(self) -> bool:
        """Whether it says nothing but an addendum: then it adds to the report, and replaces nothing."""
        others = [o for o in self.observations if o not in self.sections or ADDENDUM not in codes(o["code"], SYSTEMS["LN"])]
        return self.has_addendum and not (others or self.body or self.documents)

    @property
    def is_empty(self) -> bool:
        return not (self.observations or self.body or self.documents or self.conclusion_codes)

    @property
    def forms(self) -> list[dict[str, Any]]:
        """DiagnosticReport.presentedForm: the whole as plain text, then the documents."""
        text = whole(self.sections) if self.sections else self.body
        return [*([plain_text(text)] if text else []), *self.documents]


async def content_of(group: ResultGroup, sender: Sender, people: People, status: str) -> Content:
    """The content of a result; `status` is the report's (FHIR)."""
    found = Content()
    procedure = group.obr.field(4).strip()
    narrative, rest = _split(group, procedure, sender.partner.section_codes)
    _add_texts(found, [*texts(narrative, procedure, sender.partner.section_codes), *comment(group.notes)], sender, status)
    for line in rest:
        await _add(found, line, sender, people, status)
    for line in group.lines:
        _add_urgency(found, line.obx)
    return found


def _split(group: ResultGroup, procedure: str, sections: dict[str, str]) -> tuple[list[Line], list[Line]]:
    """The lines of text, and the others. Withdrawn ones (OBX-11 D, W, X) are in neither, but measurements that are cancelled."""
    narrative: list[Line] = []
    rest: list[Line] = []
    lines = [line for line in group.lines if not is_study_uid(line.obx)]
    for i, line in enumerate(lines):
        withdrawn = OBSERVATION_STATUS_IN.fhir(line.obx.field(11))
        neighbours = [n.obx for n in (*lines[max(0, i - 1) : i], *lines[i + 1 : i + 2])]
        if _is_text(line.obx, neighbours, procedure, sections):
            if withdrawn not in _WITHDRAWN:
                narrative.append(line)
        elif withdrawn != "entered-in-error":
            rest.append(line)
    return narrative, rest


def _is_text(obx: Segment, neighbours: list[Segment], procedure: str, sections: dict[str, str]) -> bool:
    """TX, FT and no type at all are text; ST where what it is called, or the same one beside it, says so."""
    kind, code = obx.field(2).strip().upper(), obx.field(3).strip()
    if obx.field(6).strip():
        return False
    if kind in TEXT_TYPES or not kind:
        return True
    if kind != "ST":
        return False
    named = bool(code or obx.get(3, 2).strip())
    beside = any(n.field(2).strip().upper() == "ST" and n.raw(3) == obx.raw(3) for n in neighbours)
    return not named or code == procedure or bool(section_code(obx, sections)) or beside


def _add_texts(found: Content, said: list[Text], sender: Sender, status: str) -> None:
    said = [t for t in said if t.content]
    if len(said) == 1 and is_body(said[0]):
        found.body = said[0].content
        flags = [i for obx in said[0].segments for i in _flags(obx)]
        found.conclusion_codes += [f for i, f in enumerate(flags) if f not in flags[:i] and f["coding"][0]["code"] != "N"]
        return
    unnamed = WHOLE if any(t.loinc == FINDINGS for t in said) else FINDINGS
    for text in said:
        made = section(code_of(text, sender.authority, unnamed), text.content)
        flags = [i for obx in text.segments for i in _flags(obx)]
        parts = {OBSERVATION_STATUS_IN.fhir(obx.field(11)) for obx in text.segments}
        made["status"] = "preliminary" if "preliminary" in parts else status_of_part(status)
        if flags:
            made["interpretation"] = [f for i, f in enumerate(flags) if f not in flags[:i]]
        found.observations.append(made)
        if text.loinc == IMPRESSION:
            found.conclusion = text.content


async def _add(found: Content, line: Line, sender: Sender, people: People, status: str) -> None:
    obx, kind = line.obx, line.obx.field(2).strip().upper()
    if kind == "ED":
        found.documents += documents(obx)
        return
    values = obx.repetitions(5)
    numbers = list(range(len(values))) or [0]
    if kind == "RP":
        forms = [pointer(value, obx.get(3, 2) or obx.get(3)) for value in values]
        found.documents += [f for f in forms if f]
        numbers = [i for i, f in enumerate(forms) if f is None and values[i].raw.strip()]
    if kind in CODED and section_code(obx, sender.partner.section_codes) == IMPRESSION:
        found.conclusion_codes += [c for v in values if (c := concept(CWE.from_field(v), sender.authority))]
        return
    for number in numbers:
        made = await OBX.build(Obx(obx, number, sender, people, status, line.notes))
        if "interpretation" in made:
            made["interpretation"] = _flags(obx)
        found.observations.append({k: v for k, v in made.items() if v != []})


def _flags(obx: Segment) -> list[Resource]:
    """OBX-8 without the grades of actionable findings, which speak of the report."""
    return [i for i in interpretations(obx) if not _GRADES & {c["code"] for c in i["coding"]}]


def _add_urgency(found: Content, obx: Segment) -> None:
    """Critical flags, and graded findings wherever senders put them: OBX-5, OBX-8, OBX-15."""
    if OBSERVATION_STATUS_IN.fhir(obx.field(11)) in _WITHDRAWN:
        return
    what = obx.get(3, 2).strip() or obx.field(3).strip()
    for code, text in _codes_in(obx):
        if code in _GRADES:
            grade = coded(SYSTEMS["RADLEX"], code, text or None)
            if all(code not in codes(c, SYSTEMS["RADLEX"]) for c in found.conclusion_codes):
                found.conclusion_codes.append(grade)
        reason = f"actionable finding, {ACTIONABLE[code]}" if code in ACTIONABLE else code if code in _CRITICAL else ""
        if reason and (told := f"{reason} ({what})" if what else reason) not in found.urgent:
            found.urgent.append(told)


def _codes_in(obx: Segment) -> Iterator[tuple[str, str]]:
    for number in (5, 8, 15):
        if number == 5 and obx.field(2).strip().upper() not in CODED:
            continue
        for value in obx.repetitions(number):
            code = value.get(1).strip().upper()
            if code in _GRADES or number == 8:
                yield code, value.get(2).strip()
