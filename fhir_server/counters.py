"""Series of numbers that are given out: unique over all processes, with gaps. A document of `counters`: {_id: series, n}."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.together import Together


@dataclass(slots=True)
class _Wanted:
    """Somebody who wants the next number of a series."""

    series: str
    number: int = 0


class Counters:
    """The series of one database. Those who ask at the same time share the round trip."""

    def __init__(self, db: AsyncDatabase[dict[str, Any]]) -> None:
        self._counters = db["counters"]
        self._together = Together[_Wanted](self._draw, lambda _: (), largest=100, in_flight=1)

    async def next(self, series: str) -> int:
        """The next number of a series."""
        wanted = _Wanted(series)
        await self._together.do(wanted)
        return wanted.number

    async def _draw(self, wanted: list[_Wanted]) -> None:
        for series, of_this in groupby(sorted(wanted, key=lambda w: w.series), lambda w: w.series):
            asked = list(of_this)
            found = await self._counters.find_one_and_update(
                {"_id": series}, {"$inc": {"n": len(asked)}}, upsert=True, return_document=ReturnDocument.AFTER
            )
            assert found is not None
            for i, one in enumerate(reversed(asked)):
                one.number = int(found["n"]) - i
