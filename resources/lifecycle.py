"""Lifecycles: which status may follow which, who may bring it about, what must be there, what then happens elsewhere.

Each resource's module has a table of them, which the check of every write runs from, whichever door the write came through, and
from which docs/workflow.md is printed (`python -m capability.workflow`). A row:

    from       | to     | who                 | needs              | then
    booked     | noshow | scheduler admin; v2 | the time has come  | its steps wait again

`from`  one or several statuses; `new`: it is made in this status; `*`: whatever it was
`to`    one or several statuses; staying in one is no step
`who`   roles, or groups of them (GROUPS): the people who may do this by writing the resource. (Who may call an operation is
        said in `smart_auth/roles.py`.) After `;` the machines: `v2`, `MPPS`, `PACS`, and `RIS` for what follows from something
        else and for operations. `reconcile` alone: only while an examination is being settled (`settling.py`). Backend clients
        need only their scopes.
`needs` what must be there, phrases parted by `;`. A phrase that `needs=` names is judged by its function, at this step; others
        tell what a rule of the module demands at any time.
`then`  what follows elsewhere: the module's reactions do it

A line without `who` goes on with the line above. What other systems hand over may begin in any status; people begin things as
the `new` rows say.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fhir_server.outcome import fail
from fhir_server.registry import Change, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import settling
from smart_auth.roles import ROLES

NEW: Final = "new"
ANY: Final = "*"
MISTAKE: Final = "entered-in-error"
RECONCILE: Final = "reconcile"
GROUPS: Final = {
    "staff": ("scheduler", "technologist", "radiologist", "admin"),
    "examiners": ("technologist", "radiologist"),
}
MACHINES: Final = frozenset({"v2", "MPPS", "PACS", "RIS", RECONCILE})

Need = Callable[[UnitOfWork, Change], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    was: tuple[str, ...]
    becomes: tuple[str, ...]
    who: str
    roles: tuple[str, ...]
    machines: tuple[str, ...]
    needs: tuple[str, ...]
    then: str

    @property
    def settles(self) -> bool:
        """Whether it counts only while an examination is being settled."""
        return self.machines == (RECONCILE,)

    def covers(self, was: str, becomes: str) -> bool:
        return (was in self.was or (ANY in self.was and was != NEW)) and becomes in self.becomes


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The table of one kind of a resource: of those that `of` says yes to."""

    type: str
    title: str
    rows: tuple[Row, ...]
    of: Callable[[Resource], bool]
    needs: Mapping[str, Need]

    def find(self, was: str, becomes: str, *, settles: bool = False) -> Row | None:
        """The row of a step: while an examination is settled, one that settles before an ordinary one; one that names the
        status before `*`."""
        found = [r for r in self.rows if r.covers(was, becomes) and (settles or not r.settles)]
        return min(found, key=lambda r: (not r.settles, ANY in r.was), default=None)

    def after(self, was: str) -> str:
        """What may follow a status in the ordinary way, in words."""
        found = {s for r in self.rows if was in r.was and not r.settles for s in r.becomes} - {was, MISTAKE}
        return f"it can become: {', '.join(sorted(found)) or 'nothing: it has ended'}"


LIFECYCLES: Final[list[Lifecycle]] = []  # all there are


def lifecycle(
    resource_type: str,
    title: str,
    table: str,
    *,
    of: Callable[[Resource], bool] = lambda _: True,
    needs: Mapping[str, Need] | None = None,
) -> Lifecycle:
    """A lifecycle from its table. AssertionError for a row that can't be read."""
    made = Lifecycle(resource_type, title, _rows(table), of, needs or {})
    assert {n for r in made.rows for n in r.needs} >= made.needs.keys(), f"{title}: a need that no row names"
    LIFECYCLES.append(made)
    return made


def _rows(table: str) -> tuple[Row, ...]:
    rows: list[list[str]] = []
    for line in table.strip().splitlines()[1:]:  # the first holds the names of the columns
        cells = [cell.strip() for cell in line.split("|")]
        assert len(cells) == 5, f"a row has five columns: {line}"
        if cells[2]:
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {more}".strip() for above, more in zip(rows[-1], cells, strict=True)]
    return tuple(_row(*cells) for cells in rows)


def _row(was: str, becomes: str, who: str, needs: str, then: str) -> Row:
    people, _, machines = who.partition(";")
    row = Row(
        tuple(was.split()),
        tuple(becomes.split()),
        who,
        tuple(dict.fromkeys(role for name in people.split() for role in GROUPS.get(name, (name,)))),
        tuple(machines.split()),
        tuple(need.strip() for need in needs.split(";") if need.strip()),
        then,
    )
    assert ROLES.keys() >= set(row.roles), f"who these people are: {who}"
    assert set(row.machines) <= MACHINES, f"which machines these are: {who}"
    return row


async def check_status(unit: UnitOfWork, change: Change, *tables: Lifecycle) -> None:
    """Judge the step that a change makes by the table of its kind, the first that is for it.

    FhirError `business-rule` (422) when the status can't become that, `forbidden` (403) when that is for others to do, and what
    the judges of the row's needs raise.
    """
    if change.after is None:
        return
    table = next((t for t in tables if t.of(change.before or change.after)), None)
    was, becomes = str(change.before.get("status")) if change.before else NEW, str(change.after.get("status"))
    if table is None or was == becomes:
        return
    row = table.find(was, becomes, settles=settling.under_way(unit))
    if row is None and was != NEW:
        text = f"{change.type}/{change.id} is {was} and can't become {becomes} ({table.after(was)})"
        raise fail("business-rule", text, f"{change.type}.status")
    if unit.is_callers and unit.access.person and (row is None or unit.access.role not in row.roles):
        _refuse(change, table, row, was, becomes)
    for need in row.needs if row else ():
        if need in table.needs:
            await table.needs[need](unit, change)


def _refuse(change: Change, table: Lifecycle, row: Row | None, was: str, becomes: str) -> None:
    step = f"can't be made as {becomes}" if was == NEW else f"can't go from {was} to {becomes}"
    who = ", ".join(row.roles) if row and row.roles else "nobody: it follows from something else"
    raise fail("forbidden", f"a {table.title} {step} by your hand; who may do that: {who}", f"{change.type}.status")


def check_unchanged(change: Change, *elements: str) -> None:
    """FhirError `business-rule` when one of these elements, once there, would change. Of a reference, the target counts."""
    if change.before is None or change.after is None:
        return
    for element in elements:
        if element in change.before and _meant(change.before[element]) != _meant(change.after.get(element)):
            raise fail("business-rule", f"{change.type}.{element} can't be changed", f"{change.type}.{element}")


def _meant(element: Any) -> Any:
    return element["reference"] if isinstance(element, dict) and "reference" in element else element
