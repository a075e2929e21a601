"""The lifecycles as people read them: a diagram and a table of each, printed from the tables that the rules judge by.

python -m capability.workflow     writes those of docs/workflow.md anew; a test compares them
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from capability import printed
from resources import registration
from resources.lifecycle import ANY, GROUPS, LIFECYCLES, MISTAKE, NEW, Lifecycle, Row

_BEGIN: Final = "<!-- lifecycles: written by `python -m capability.workflow` -->\n"
_END: Final = "<!-- end of lifecycles -->\n"
# The types in the order of an examination; what isn't named follows.
_STORY: Final = (
    "ServiceRequest Coverage CoverageEligibilityRequest Schedule Slot Appointment Task QuestionnaireResponse Encounter Procedure "
    "ImagingStudy DiagnosticReport Communication CommunicationRequest ChargeItem"
).split()
# Whose import fills LIFECYCLES.
SOURCE: Final = registration


def lifecycles() -> list[Lifecycle]:
    """All there are, in the order of an examination."""
    places = {name: number for number, name in enumerate(_STORY)}
    return sorted(LIFECYCLES, key=lambda t: (places.get(t.type, len(_STORY)), t.type))


def markdown() -> str:
    """All of them."""
    groups = "; ".join(f"*{name}* are {', '.join(roles)}" for name, roles in GROUPS.items())
    return "\n".join((f"Who is meant: {groups}.\n", *(line for t in lifecycles() for line in _lifecycle(t))))


def _lifecycle(table: Lifecycle) -> Iterator[str]:
    yield f"### {table.title[0].upper()}{table.title[1:]} ({table.type})\n"
    yield from _diagram(table)
    yield "\n| from | to | who | needs | then |\n|---|---|---|---|---|"
    for row in table.rows:
        cells = (", ".join(row.was), ", ".join(row.becomes), _who(row), "; ".join(row.needs), row.then)
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
    yield ""


def _diagram(table: Lifecycle) -> Iterator[str]:
    """The steps; not that anything may turn out to be a mistake, and not `unknown`, which is what others hand over."""
    shown = [r for r in table.rows if ANY not in r.was]
    steps = dict.fromkeys((was, to, r.settles) for r in shown for was in r.was for to in r.becomes if was != to)
    steps = {s: None for s in steps if "unknown" not in s[:2] and s[1] != MISTAKE}
    states = dict.fromkeys(s for step in steps for s in step[:2] if s != NEW)
    yield "```mermaid\nstateDiagram-v2"
    yield from (f'    state "{s}" as {_name(s)}' for s in states if "-" in s)
    for was, to, settles in steps:
        yield f"    {_name(was)} --> {_name(to)}" + (" : $reconcile" if settles else "")
    yield from (f"    {_name(s)} --> [*]" for s in states if not any(was == s for was, _, settles in steps if not settles))
    yield "```"


def _name(status: str) -> str:
    return "[*]" if status == NEW else status.replace("-", "_")


def _who(row: Row) -> str:
    people, _, machines = row.who.partition(";")
    return ", ".join((*people.split(), *machines.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "any")


def written(document: str) -> str:
    """The document with the lifecycles as they are now. ValueError when it has no place for them."""
    return printed.replaced(document, _BEGIN, markdown(), _END)


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/workflow.md")
    path.write_text(written(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
