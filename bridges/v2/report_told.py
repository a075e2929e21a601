"""What a report has told so far: its results as they are now, what it had before, and the number of each (OBX-4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridges.v2.report_text import is_told_as_text, whole_text
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.report_section import is_generated

# In these a report is told to others.
REPORTED: Final = frozenset(
    {"partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled", "entered-in-error"}
)
_MAX_DEPTH: Final = 8  # of panels in panels


@dataclass(frozen=True, slots=True)
class ToldResults:
    """The Observations of a report and of its earlier versions.

    present: those of `result`; members: what panels have, by reference; dropped: told once, and not of the report any more
    numbers: by Observation id, in the order in which they first came; earlier: each version that was told, with its Observations
    """

    present: list[Resource]
    members: Mapping[str, Resource]
    dropped: list[Resource]
    numbers: Mapping[str, str]
    earlier: Sequence[tuple[Resource, list[Resource]]]

    @property
    def roots(self) -> list[Resource]:
        """The results that are neither text nor told below a panel that has them."""
        results = [r for r in self.present if not is_told_as_text(r)]
        below = {reference for r in results for reference in _below(r)}
        found: list[Resource] = []
        seen: set[str] = set()
        for result in sorted(results, key=lambda r: f"Observation/{r['id']}" in below):  # of a circle, one at least
            if f"Observation/{result['id']}" not in seen:
                found.append(result)
                self._see(result, seen)
        return [r for r in results if r in found]

    def _see(self, result: Resource, seen: set[str]) -> None:
        for reference in _below(result):
            if reference in self.members and reference not in seen:
                seen.add(reference)
                self._see(self.members[reference], seen)


def _below(result: Resource) -> list[str]:
    return [str(m.get("reference")) for m in result.get("hasMember", ())]


async def told_results(unit: UnitOfWork, report: Resource, versions: Sequence[Resource]) -> ToldResults:
    """What a report tells after these earlier versions."""
    present = await _results(unit, report)
    earlier = [(v, await _results(unit, v)) for v in versions if v["status"] in REPORTED]
    members = await _members(unit, present)
    ever = {r["id"]: r for results in (*(e for _, e in earlier), present) for r in results if not is_told_as_text(r)}
    kept = {r["id"] for r in (*present, *members.values())}
    return ToldResults(
        present=present,
        members=members,
        dropped=[r for id_, r in ever.items() if id_ not in kept],
        numbers={id_: str(number) for number, id_ in enumerate(ever, 1)},
        earlier=earlier,
    )


async def pdf_is_old(unit: UnitOfWork, report: Resource, versions: Sequence[Resource]) -> bool:
    """Whether the words of a report have changed since it got its PDF."""
    own = _pdfs(report)
    if not own:
        return False
    since = None
    for version in reversed(versions):
        if _pdfs(version) != own:
            break
        since = version
    if since is None:
        return False
    moment = str(since["meta"]["lastUpdated"])
    then = []
    for result in await _results(unit, since):
        past = [v for v in await unit.earlier("Observation", result["id"]) if str(v["meta"]["lastUpdated"]) <= moment]
        then.append(past[-1] if past else result)
    return whole_text(since, then) != whole_text(report, await _results(unit, report))


def _pdfs(report: Resource) -> list[object]:
    own = (f for f in report.get("presentedForm", ()) if not is_generated(f))
    forms = (f for f in own if str(f.get("contentType", "")).lower().startswith("application/pdf"))
    return [f.get("data", f.get("url")) for f in forms]


async def _results(unit: UnitOfWork, report: Resource) -> list[Resource]:
    return [r for x in report.get("result", ()) if (r := await unit.get(x)) is not None]


async def _members(unit: UnitOfWork, results: Sequence[Resource]) -> dict[str, Resource]:
    """What panels have, and panels in them."""
    found: dict[str, Resource] = {}
    for _ in range(_MAX_DEPTH):
        refs = {str(to): to for r in results for m in r.get("hasMember", ()) if (to := target(m)) and to.type == "Observation"}
        new = {ref: r for ref, to in refs.items() if ref not in found and (r := await unit.read(to.type, to.id)) is not None}
        found |= new
        results = list(new.values())
    return found
