"""The versions of an exam's resources, and what was written together: all of one transaction has one moment."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from console import differences
from console.asking import Desk
from console.screens.exam.record import Exam
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource

_MOST = 30  # versions of one part that the timeline shows: of a report that was saved all day long the newest


@dataclass(frozen=True, slots=True)
class Version:
    """One version. `resource` is None where it was deleted; `before`: the next older one that the reader may see, if any."""

    type: str
    id: str
    number: int
    at: datetime
    resource: Resource | None
    before: Resource | None = None

    @property
    def reference(self) -> str:
        return f"{self.type}/{self.id}"

    @property
    def path(self) -> str:
        """The end of the address at which it is shown."""
        return f"versions/{self.type}/{self.id}/{self.number}"

    @property
    def created(self) -> bool:
        return self.number == 1

    @property
    def changed(self) -> list[str]:
        """The names of the elements that it has changed."""
        return differences.changed(self.before, self.resource) if self.before and self.resource else []


async def of_exam(desk: Desk, exam: Exam, binaries: bool) -> list[Version]:
    """Every version of every part, and (`binaries`) of the data sets of its scanners."""
    return await of_parts(desk, exam, [*exam.parts, *(f"Binary/{id_}" for id_ in exam.data_sets if binaries)])


async def of_parts(desk: Desk, exam: Exam, names: Iterable[str]) -> list[Version]:
    """Every version of these parts (references). One that was never changed is at hand already."""
    known = {name: exam.parts.get(name) for name in names}
    single = [r for r in known.values() if r is not None and r["meta"]["versionId"] == "1"]
    found = [_version(r, "1", r["meta"]["lastUpdated"]) for r in single]
    several = [name for name, r in known.items() if r is None or r["meta"]["versionId"] != "1"]
    for versions in await desk.together(*(_of_one(desk, name) for name in several)):
        found += versions
    return found


async def _of_one(desk: Desk, reference: str) -> list[Version]:
    try:
        bundle = (await desk.ask("GET", f"{reference}/_history", query=[("_count", str(_MOST + 1))])).resource
    except FhirError:  # hidden, or gone, since it was found
        return []
    resource_type, _, id_ = reference.partition("/")
    entries: list[dict[str, Any]] = (bundle or {}).get("entry", [])
    versions = [
        Version(
            resource_type,
            id_,
            int(e["response"]["etag"][3:-1]),
            datetime.fromisoformat(e["response"]["lastModified"]),
            e.get("resource"),
        )
        for e in entries
    ]
    older = [v.resource for v in versions[1:]] + [None]
    found = [Version(v.type, v.id, v.number, v.at, v.resource, before) for v, before in zip(versions, older, strict=True)]
    return found[:_MOST]


def _version(resource: Resource, number: str, at: str) -> Version:
    return Version(resource["resourceType"], resource["id"], int(number), datetime.fromisoformat(at), resource)


def together(versions: Iterable[Version]) -> list[list[Version]]:
    """Versions by the transaction that wrote them, the oldest first."""
    in_order = sorted(versions, key=lambda v: (v.at, v.type, v.id, v.number))
    return [list(group) for _, group in groupby(in_order, key=lambda v: v.at)]


async def one(desk: Desk, reference: str, number: int) -> Version:
    """A version with the one before it. FhirError 404 where it isn't there, or isn't for the reader."""
    resource_type, _, id_ = reference.partition("/")
    resource = (await desk.ask("GET", f"{reference}/_history/{number}")).resource
    assert resource is not None
    before = None
    if number > 1:
        try:
            before = (await desk.ask("GET", f"{reference}/_history/{number - 1}")).resource
        except FhirError:  # it was another patient's then, or deleted
            before = None
    at = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    return Version(resource_type, id_, number, at, resource, before)
