"""Report templates: a Questionnaire whose items are the sections of a report (docs/decisions/0029).

useContext  code `focus`, valueCodeableConcept: the procedures that it is for (search parameter `context`)
item        `code` the section (LOINC), `text` its title, `type` text; `initial` what stands in it at first. With `type`
            open-choice its text blocks: `answerOption.valueCoding`, `code` the name of the block, `display` its text,
            `initialSelected` the one that stands in it at first. Items of type group hold further sections
"""

from collections.abc import Iterator
from typing import Any, Final

from fhir_server.elements import codings
from fhir_server.outcome import fail
from fhir_server.references import Target
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token
from resources.reading.report_parts import section_code

TEMPLATE: Final = "report-template"  # Questionnaire.code, system urn:fhir-ris:questionnaire
KINDS: Final = "urn:fhir-ris:questionnaire"


def is_template(questionnaire: Resource | None) -> bool:
    """Whether a Questionnaire is a template of reports."""
    found = (questionnaire or {}).get("code", ())
    return any(c.get("system") == KINDS and c.get("code") == TEMPLATE for c in found)


def _items(items: list[Resource]) -> Iterator[Resource]:
    for item in items:
        if item.get("type") == "group":
            yield from _items(item.get("item", []))
        else:
            yield item


def _code(item: Resource) -> Resource | None:
    """The LOINC code of an item's section."""
    return next((c for c in item.get("code", ()) if c.get("system") == terms.LOINC and "code" in c), None)


def _blocks(item: Resource) -> dict[str, str]:
    """The text blocks of a section by name."""
    options = [o["valueCoding"] for o in item.get("answerOption", ()) if "valueCoding" in o]
    return {str(c.get("code")): str(c.get("display", "")) for c in options}


def sections(template: Resource, chosen: list[str]) -> list[tuple[Resource, str]]:
    """(code, text) of each section that has a text. `chosen`: text blocks instead of what stands there at first.

    FhirError 422 for a block that the template doesn't have.
    """
    items = [(item, code) for item in _items(template.get("item", [])) if (code := _code(item))]
    unknown = set(chosen) - {name for item, _ in items for name in _blocks(item)}
    if unknown:
        known = ", ".join(sorted(name for item, _ in items for name in _blocks(item))) or "none"
        raise fail("value", f"the template has no text block {min(unknown)!r}; it has: {known}", status=422)
    found = []
    for item, code in items:
        blocks = _blocks(item)
        wanted = [blocks[name] for name in chosen if name in blocks] or _initial(item)
        if text := "\n".join(wanted):
            found.append((section_code(code | ({"display": item["text"]} if "text" in item else {})), text))
    return found


def outline(template: Resource) -> list[tuple[str, str, dict[str, str]]]:
    """(LOINC code, title, text blocks by name) of each section, in the template's order."""
    items = [(item, code) for item in _items(template.get("item", [])) if (code := _code(item))]
    return [(code["code"], str(item.get("text") or code.get("display") or ""), _blocks(item)) for item, code in items]


def _initial(item: Resource) -> list[str]:
    written = [str(i["valueString"]) for i in item.get("initial", ()) if "valueString" in i]
    selected = [o for o in item.get("answerOption", ()) if o.get("initialSelected")]
    return written or [str(o["valueCoding"].get("display", "")) for o in selected if "valueCoding" in o]


async def for_procedure(unit: UnitOfWork, procedure: Resource) -> Resource | None:
    """The active template for a requested procedure's code; of several the one that was changed last."""
    wanted = [token(c.get("system", ""), c["code"]) for c in codings(procedure.get("code")) if "code" in c]
    if not wanted:
        return None
    found = [q for q in await unit.search("Questionnaire", context=",".join(wanted), status="active") if is_template(q)]
    return max(found, key=lambda q: str(q["meta"]["lastUpdated"]), default=None)


async def named(unit: UnitOfWork, to: Target) -> Resource:
    """The template of this reference. FhirError 422 for anything else."""
    found = await unit.read(to.type, to.id)
    if found is None or not is_template(found) or found.get("status") != "active":
        raise fail("value", f"{to} is no active template of reports", "Parameters.parameter", status=422)
    return found


async def check(_unit: UnitOfWork, change: Change) -> None:
    """A template has sections, each of another LOINC code, and each text block one name."""
    template: Any = change.after
    if template is None or not is_template(template):
        return
    items = list(_items(template.get("item", [])))
    known = [code["code"] for item in items if (code := _code(item))]
    if not known or len(known) != len(items) or len(set(known)) != len(known):
        text = "each item of a report template is a section with a LOINC code of its own"
        raise fail("business-rule", text, "Questionnaire.item.code")
    names = [name for item in items for name in _blocks(item)]
    if len(set(names)) != len(names):
        raise fail("business-rule", "a report template has each text block name once", "Questionnaire.item.answerOption")


def register(registry: Registry) -> None:
    registry.rule("Questionnaire", check)
