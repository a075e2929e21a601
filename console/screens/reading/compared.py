"""What a report was compared with, in words: as it is listed beside the report, and as the line that tells of it."""

from collections.abc import Iterable
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from babel import Locale

from console.asking import Found
from console.formats import concept, day_as
from console.screens.reading.examination import Examination, study_title
from console.texts import locales
from console.visit import Visit
from fhir_server.registry import Resource
from resources.reading.report_parts import COMPARED, compared_with

_LONGEST_LINE: Final = 300


class Compared(NamedTuple):
    """Something that a report names: `reference` "" where that is nothing here, `title` "" where this person doesn't see it."""

    reference: str
    title: str
    when: str | None = None


async def seen(visit: Visit, references: Iterable[str]) -> dict[str, Resource]:
    """What of these this person sees."""
    wanted: dict[str, list[str]] = {}
    for reference in references:
        kind, _, id_ = reference.partition("/")
        wanted.setdefault(kind, []).append(id_)
    asked = [visit.desk.search(kind, _id=",".join(ids)) for kind, ids in wanted.items() if visit.allows(kind, "s")]
    found: list[Found] = await visit.desk.together(*asked)
    return {f"{r['resourceType']}/{r['id']}": r for f in found for r in f}


async def unlisted(visit: Visit, about: Examination) -> list[Compared]:
    """What the report names and the list of earlier studies doesn't."""
    report = about.report.resource if about.report else {}
    listed = {f"ImagingStudy/{p.study['id']}" for p in about.priors}
    named = [r for r in compared_with(report) if r not in listed]
    known = await seen(visit, named)
    here = [Compared(r, *(_words(known[r]) if r in known else ("", None))) for r in named]
    return [*here, *(Compared("", text) for e in report.get("extension", ()) if (text := _outside(e)))]


def _outside(extension: Resource) -> str:
    """How an extension calls what isn't here."""
    if extension.get("url") != COMPARED or compared_with({"extension": [extension]}):
        return ""
    to: dict[str, Any] = extension.get("valueReference", {})
    return str(to.get("display") or to.get("identifier", {}).get("value") or to.get("reference", ""))


def line(compared: Resource, locale: Locale, zone: tzinfo) -> str:
    """The line of the section "Comparison" that tells of it."""
    title, when = _words(compared)
    said = ", ".join(filter(None, (title, day_as(when, locale, zone) if when else "")))
    return " ".join(said.split())[:_LONGEST_LINE]


def lines(compared: Resource, zone: tzinfo) -> set[str]:
    """That line as whoever wrote it may have read it: in each language and country."""
    return {line(compared, locale, zone) for locale in locales()} - {""}


def _words(compared: Resource) -> tuple[str, str | None]:
    if compared["resourceType"] == "ImagingStudy":
        return study_title(compared), compared.get("started")
    return concept(compared.get("code")), compared.get("effectiveDateTime", compared.get("issued"))
