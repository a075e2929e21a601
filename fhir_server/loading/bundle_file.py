"""Transaction and batch Bundles from files: processed as if they had been posted, with a note of what is done."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from fhir_server import bundle_transaction
from fhir_server.audit import Act
from fhir_server.bundle_entries import EntryAsk
from fhir_server.bundles import MAX_ENTRIES
from fhir_server.exchange import Prefer
from fhir_server.foresight import Asked, Lookup
from fhir_server.interactions import Interactions
from fhir_server.loading.ledger import Ledger, Left, Tally, note_range
from fhir_server.loading.loader import ACCESS, ACT, OF_THE_MOMENT
from fhir_server.loading.sources import Opened, Place
from fhir_server.outcome import FhirError, fail, operation_outcome
from fhir_server.references import Target
from fhir_server.store import Document
from fhir_server.unit_of_work import UnitOfWork
from smart_auth.access import Access

T = TypeVar("T")


class _Noting(Interactions):
    """Interactions whose transactions note in the ledger that a range of entries is done."""

    def __init__(self, of: Interactions, file: str, entries: range) -> None:
        super().__init__(of.store, of.registry)
        self._of, self._file, self._entries = of, file, entries

    async def transact(
        self,
        access: Access,
        act: Act,
        work: Callable[[UnitOfWork], Awaitable[T]],
        entities: Iterable[Document] = (),
        *,
        small: Iterable[Target] | None = None,  # noqa: ARG002 - what is noted is never shared with others
        turns: Iterable[str] = (),
        foreseen: Iterable[Asked | Target | Lookup] = (),
    ) -> T:
        async def noted(unit: UnitOfWork) -> T:
            result = await work(unit)
            start, end = self._entries.start, self._entries.stop
            await note_range(unit, self._file, start, end, end + 1, end - start, ())
            return result

        return await self._of.transact(access, act, noted, entities, turns=turns, foreseen=foreseen)


async def load_bundle(interactions: Interactions, ledger: Ledger, file: Opened, base_url: str) -> Tally:
    """Process a transaction as a whole, a batch entry by entry. A refused transaction is refused as a whole."""
    assert file.bundle is not None
    entries = file.bundle.get("entry", [])
    if not isinstance(entries, list):
        entries = [entries]  # which will be told what it lacks
    done = await ledger.done(file.key)
    every = [range(len(entries))] if file.bundle["type"] == "transaction" else [range(i, i + 1) for i in range(len(entries))]
    for some in every:
        if some.start not in done:
            await _process(interactions, file.key, entries, some, base_url)
    return await ledger.tally(file.key)


async def _process(interactions: Interactions, file: str, entries: list[Any], some: range, base_url: str) -> None:
    try:
        if len(some) > MAX_ENTRIES:
            raise fail("too-costly", f"a transaction holds at most {MAX_ENTRIES} entries", "Bundle.entry", status=413)
        asks = [EntryAsk(entries[i], f"Bundle.entry[{i}]", ACCESS, Prefer(), None, base_url) for i in some]
        await bundle_transaction.run(_Noting(interactions, file, some), ACCESS, asks, ACT, base_url)
    except FhirError as error:
        if error.code in OF_THE_MOMENT:
            raise
        left = Left(Place(some.start + 1, some.start, 1), "", operation_outcome(*error.issues), waits=False)

        async def note(unit: UnitOfWork) -> None:
            await note_range(unit, file, some.start, some.stop, some.stop + 1, 0, [left])

        await interactions.transact(ACCESS, ACT, note)
