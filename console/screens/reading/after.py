"""What may follow a report: an addendum, a correction, its withdrawal; and that somebody must be told of it. A page each.

What is typed there is kept in the tab until it is done (`assets/kept.js`): a login for a second factor may come between. A
section is corrected where it says something else than the form showed (`was`): what another has corrected meanwhile stays.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response

from console.asking import reference
from console.screens.reading import critical, editor, examination
from console.screens.reading.examination import Section
from console.visit import Visit
from fhir_server.outcome import FhirError, fail
from resources import terms
from resources.reading.critical_request import ACTIONABLE

ACTS: Final = ("addend", "correct", "withdraw", "critical")
DONE: Final = {"addend": "reading-addended", "correct": "reading-corrected", "withdraw": "reading-withdrawn"}


def _act(visit: Visit) -> str:
    return visit.request.url.path.rpartition("/")[2]


async def show(visit: Visit) -> Response:
    """The form of the act that the address names, beside the report."""
    about = await examination.of_report(visit, visit.id())
    assert about.report is not None
    act = _act(visit)
    values: dict[str, Any] = {
        "about": about,
        "report": about.report,
        "act": act,
        "typed": visit.form,
        "grades": [(code, visit.t(f"reading.grade.{code}")) for code in ACTIONABLE],
        "people": await critical.people(visit) if act == "critical" else [],
        "sections": [(s, *_typed(visit, s)) for s in examination.by_code(about.report).values()],
    }
    return visit.page("reading/after.html", **values)


def _typed(visit: Visit, section: Section) -> tuple[str, str, bool]:
    """What stands in the field of a section, what is stored, and whether both have changed since the form was made."""
    now = section.text.strip()
    text, was = (visit.form.get(f"{name}.{section.code}") or now for name in ("section", "was"))
    if text == was:  # it is not what was corrected
        return now, now, False
    return text, now, now not in {was, text}


async def do(visit: Visit) -> Response:
    """Do it, and show the report; without a fresh second factor where one is asked for, by way of the login."""
    act = _act(visit)
    try:
        return await _HOW[act](visit, f"DiagnosticReport/{visit.id()}/${act}")
    except FhirError as error:
        return editor.proof(visit, error, visit.request.url.path)


async def _addend(visit: Visit, address: str) -> Response:
    return await _done(visit, address, text=visit.form.get("text"))


async def _correct(visit: Visit, address: str) -> Response:
    report = (await examination.of_report(visit, visit.id())).report
    stored = {code: s.text.strip() for code, s in examination.by_code(report).items()} if report else {}
    said = {code: visit.form.text(f"section.{code}") for code in visit.form.all("code") if code in stored}
    changed = [
        {"part": [{"name": "code", "valueCoding": {"system": terms.LOINC, "code": code}}, *_text(text)]}
        for code, text in said.items()
        if text != (visit.form.get(f"was.{code}") or stored[code])
    ]
    if not changed:
        raise fail("required", visit.t("reading.nothing-corrected"), status=422)
    status = {"valueCode": "amended"} if visit.form.get("status") == "amended" else None
    return await _done(visit, address, reason=visit.form.get("reason"), status=status, section=changed)


def _text(text: str) -> list[dict[str, Any]]:
    return [{"name": "text", "valueString": text}] if text else []


async def _withdraw(visit: Visit, address: str) -> Response:
    return await _done(visit, address, reason=visit.form.get("reason"))


async def _critical(visit: Visit, address: str) -> Response:
    to = visit.form.get("recipient")
    made = await visit.desk.operation(
        address,
        category={"valueCode": visit.form.text("category")},
        finding=visit.form.get("finding"),
        recipient=reference(to) if to else None,
    )
    return visit.to(f"/reading/critical/{made['id']}", "reading-critical")


async def _done(visit: Visit, address: str, **given: Any) -> Response:
    await visit.desk.operation(address, if_match=visit.form.get("version"), **given)
    return visit.to(f"/reading/reports/{visit.id()}", DONE[_act(visit)])


_HOW: Final[dict[str, Callable[[Visit, str], Awaitable[Response]]]] = {
    "addend": _addend,
    "correct": _correct,
    "withdraw": _withdraw,
    "critical": _critical,
}
