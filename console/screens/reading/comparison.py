"""Which earlier studies a report was compared with: as data, and as lines of its section "Comparison"."""

from typing import Any, Final

from starlette.responses import Response

from console.asking import reference
from console.screens.reading import editor, examination
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms
from resources.reading.report_parts import compared_with
from resources.report_section import COMPARISON

_LONGEST_LINE: Final = 300


async def change(visit: Visit) -> Response:
    """Save, then name an earlier study (`compare`: its reference), or no longer (`apart`), with the line that tells of it."""
    version = await editor.save(visit)
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    named, gone = visit.form.get("compare"), visit.form.get("apart")
    study = named or gone
    if study is None:
        raise fail("required", "a study is needed", status=400)
    others = [r for r in compared_with(about.report.resource) if r != study]
    line = visit.form.text(f"line.{study}")[:_LONGEST_LINE]
    had = next((s.text for s in about.report.sections if s.code == COMPARISON), "")
    said: dict[str, Any] = {"comparison": [reference(r) for r in ([*others, study] if named else others)] or {}}
    if (now := _lines(had, line, there=named is not None)) != had:
        said["section"] = _section(now)
    await visit.desk.operation(f"DiagnosticReport/{visit.id()}/$write", if_match=version, **said)
    return await editor.back(visit, "reading-compared" if named else "reading-apart")


def _lines(text: str, line: str, *, there: bool) -> str:
    """The text with this line, or without it."""
    lines = text.splitlines()
    if not line or (line in lines) == there:
        return text
    return "\n".join([*lines, line] if there else [one for one in lines if one != line])


def _section(text: str) -> Resource:
    code: Resource = {"name": "code", "valueCoding": {"system": terms.LOINC, "code": COMPARISON}}
    return {"part": [code, *([{"name": "text", "valueString": text}] if text else [])]}
