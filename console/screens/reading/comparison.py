"""Which earlier studies a report was compared with: as data, and as lines of its section "Comparison"."""

from typing import Any

from starlette.responses import Response

from console.asking import reference
from console.screens.reading import compared, editor, examination
from console.visit import Visit
from fhir_server.outcome import fail
from resources.reading.report_parts import compared_with
from resources.report_section import COMPARISON


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
    seen = await compared.seen(visit, [study, *others])
    lines = {r: compared.lines(one, visit.zone) for r, one in seen.items()}
    stored = examination.by_code(about.report).get(COMPARISON)
    had = stored.text.splitlines() if stored else []
    its = lines.pop(study, set())
    if named:
        now = [*had, compared.line(seen[study], visit.t.locale, visit.zone)] if its and not its & set(had) else had
    else:
        now = [one for one in had if one not in its or any(one in needed for needed in lines.values())]
    said: dict[str, Any] = {"comparison": [reference(r) for r in ([*others, study] if named else others)] or {}}
    if now != had:
        said["section"] = editor.section(COMPARISON, "\n".join(now))
    await visit.desk.operation(f"DiagnosticReport/{visit.id()}/$write", if_match=version, **said)
    if named:
        return await editor.back(visit, "reading-compared")
    return await editor.back(visit, "reading-apart" if its & set(had) or not had else "reading-apart-text")
