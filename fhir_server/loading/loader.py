"""Chunks of lines into the store, each in one transaction through the interactions: validated, by the rules, indexed, audited.

What is refused in a chunk does not keep the rest of it out: the transaction is run again without it.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server import fhir_json
from fhir_server.audit import Act
from fhir_server.bundle_links import localize
from fhir_server.ids import new_id
from fhir_server.interactions import Interactions, known_type
from fhir_server.loading.ledger import AlreadyNotedError, Left, Tally, note_arrived, note_range
from fhir_server.loading.sources import Chunk, Line, Place
from fhir_server.outcome import FhirError, operation_outcome
from fhir_server.references import Target
from fhir_server.start_error import StartError
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

ACT = Act("load", source="load")
ACCESS = Access.system("fhir-ris load")
# These say nothing of the resource, but of the moment.
OF_THE_MOMENT = frozenset({"lock-error", "transient", "timeout", "exception"})
# Longer than the transaction of a process that was killed lives on in MongoDB (transactionLifetimeLimitSeconds: 60).
_PATIENCE = 90.0
_PLACE = re.compile(r"line\[([0-9]+)\]")
_Write = Callable[[UnitOfWork, "_Part"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Item:
    """A resource that is to go in. `fresh`: it came without an id."""

    line: Line
    resource: dict[str, Any]
    target: Target
    fresh: bool

    @property
    def what(self) -> str:
        """What it is called in the list of refusals."""
        return self.target.type if self.fresh else f"{self.target.type}/{self.target.id[:64]}"


class _Refused(Exception):
    """Items (by their number in the part) that can't go in, so that the transaction is run again without them."""

    def __init__(self, outcomes: Mapping[int, FhirError]) -> None:
        self.outcomes = outcomes
        super().__init__()


@dataclass(slots=True)
class _Part:
    """A range of lines, and what has become of them so far."""

    lines: list[Line]
    items: list[_Item]
    left: dict[int, Left] = field(default_factory=dict)  # by offset

    def leave(self, which: Mapping[int, FhirError], *, waits: bool) -> None:
        """Go on without these items."""
        for number, error in which.items():
            item = self.items[number]
            self.left[item.line.offset] = _left(item.line, item.what, error, waits=waits)
        self.items = [item for i, item in enumerate(self.items) if i not in which]

    def tally(self) -> Tally:
        waiting = sum(one.waits for one in self.left.values())
        return Tally(len(self.items), len(self.left) - waiting, waiting)


class Loader:
    """Loads chunks in this process."""

    def __init__(self, interactions: Interactions, base_url: str) -> None:
        """`base_url` is our own FHIR base, by which references may be written."""
        self._interactions = interactions
        self._base_url = base_url

    async def load(self, chunk: Chunk, *, defer: bool) -> Tally | None:
        """What became of a chunk. None, and nothing done, where `defer` is false and some of it refers to what isn't there.

        With `defer` these lines wait, to be tried again when the rest is in.
        """
        part = self._parsed(chunk.lines)
        first, end = chunk.start, chunk.end

        async def write(unit: UnitOfWork, part: _Part, start: int, stop: int, number: int) -> None:
            await note_range(unit, chunk.file, start, stop, number, len(part.items), part.left.values())

        async def halves(part: _Part, start: int, stop: int, number: int) -> Tally | None:
            async def note(unit: UnitOfWork, part: _Part) -> None:
                await write(unit, part, start, stop, number)

            if await self._settled(part, note, defer=defer, alone=len(part.lines) <= 1):
                return part.tally()
            if not defer:
                return None
            middle = len(part.lines) // 2
            turn = part.lines[middle]
            tally = Tally()
            for lines, s, e, n in (
                (part.lines[:middle], start, turn.offset, turn.number),
                (part.lines[middle:], turn.offset, stop, number),
            ):
                done = await halves(_sub(part, lines), s, e, n)
                assert done is not None
                tally.add(done)
            return tally

        done = await halves(part, first, end, chunk.next_number)
        await self._interactions.store.trail.note_heads()  # this process may end without a word
        return done

    async def retry(self, file: str, lines: list[Line]) -> Tally:
        """Try lines again that waited. Those that still refer to what isn't there go on waiting."""

        async def note(unit: UnitOfWork, part: _Part) -> None:
            await note_arrived(unit, file, [item.line.offset for item in part.items], part.left.values())

        async def halves(part: _Part) -> Tally:
            if await self._settled(part, note, defer=True, alone=len(part.lines) <= 1):
                return part.tally()
            tally = Tally()
            middle = len(part.lines) // 2
            for of_half in (part.lines[:middle], part.lines[middle:]):
                tally.add(await halves(_sub(part, of_half)))
            return tally

        return await halves(self._parsed(lines))

    async def _settled(self, part: _Part, note: _Write, *, defer: bool, alone: bool) -> bool:
        """Bring a part in, without what can't go in. False: it can't be told which of its lines is to blame."""
        deadline = time.monotonic() + _PATIENCE
        in_doubt = False  # whether an attempt may have been committed without our hearing of it
        while True:
            try:
                await self._once(part, note)
                return True
            except AlreadyNotedError:
                if in_doubt:
                    return True
                raise StartError("this file is being loaded by another fhir-ris load") from None
            except _Refused as refused:
                part.leave(refused.outcomes, waits=False)
            except FhirError as error:
                if error.code in OF_THE_MOMENT:
                    if time.monotonic() > deadline:
                        raise StartError(f"{error}; the same command goes on where it stopped") from None
                    in_doubt = True
                    await asyncio.sleep(1)
                    continue
                lost = _by_line(error, len(part.items))
                if lost and defer:
                    part.leave(lost, waits=True)
                elif not lost and alone and part.items:
                    part.leave({0: error}, waits=False)
                elif lost or part.items:
                    return False
                else:
                    raise

    async def _once(self, part: _Part, note: _Write) -> None:
        async def work(unit: UnitOfWork) -> None:
            await unit.load(item.target for item in part.items if not item.fresh)
            coming = {item.target for item in part.items}
            read = (to for item in part.items for to in self._interactions.registry.read_for(item.resource))
            await unit.foresee(*(to for to in read if to not in coming))
            refused: dict[int, FhirError] = {}
            for i, item in enumerate(part.items):
                unit.places[item.target] = f"line[{i}]"
                try:
                    if item.fresh:
                        await unit.create(item.resource, item.target.id, copy=False)
                    else:
                        await unit.update(item.resource, copy=False)
                except FhirError as error:
                    if error.code in OF_THE_MOMENT:
                        raise
                    refused[i] = error
            if refused:
                raise _Refused(refused)
            await note(unit, part)

        await self._interactions.transact(ACCESS, ACT, work)

    def _parsed(self, lines: Iterable[Line]) -> _Part:
        part = _Part(list(lines), [])
        for line in part.lines:
            if line.outcome is not None:
                part.left[line.offset] = Left(_place(line), "", line.outcome, waits=False)
                continue
            try:
                part.items.append(self._item(line))
            except FhirError as error:
                part.left[line.offset] = _left(line, "", error, waits=False)
        return part

    def _item(self, line: Line) -> _Item:
        resource = fhir_json.loads(line.content)
        resource_type = known_type(resource)
        if self._base_url.encode() in line.content:
            localize(resource, self._base_url)
        fresh = "id" not in resource
        # An id that is none is told by the validation.
        return _Item(line, resource, Target(resource_type, str(resource.get("id", new_id()))), fresh)


def _sub(part: _Part, lines: list[Line]) -> _Part:
    """A part of a part, with what is known of its lines."""
    offsets = {line.offset for line in lines}
    left = {offset: one for offset, one in part.left.items() if offset in offsets}
    return _Part(lines, [item for item in part.items if item.line.offset in offsets], left)


def _by_line(error: FhirError, count: int) -> dict[int, FhirError]:
    """The items that an error at the end of a transaction is about, by the places in it; empty when it doesn't say."""
    found: dict[int, list[Any]] = {}
    for issue in error.issues:
        place = _PLACE.match(issue.expression or "")
        if place is None or int(place[1]) >= count:
            return {}
        found.setdefault(int(place[1]), []).append(issue)
    return {number: FhirError(*issues, status=error.status) for number, issues in found.items()}


def _left(line: Line, what: str, error: FhirError, *, waits: bool) -> Left:
    outcome = operation_outcome(*error.issues)
    resource_type = what.partition("/")[0]
    for issue in outcome["issue"]:
        if "expression" in issue:
            issue["expression"] = [_PLACE.sub(resource_type, text) for text in issue["expression"]]
    return Left(_place(line), what, outcome, waits)


def _place(line: Line) -> Place:
    return Place(line.number, line.offset, line.length)
