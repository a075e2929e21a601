"""The courses that an order takes on the day, how often, and what must be there when the day is over."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.department.exam import Exam


@dataclass(frozen=True, slots=True)
class End:
    """The statuses at the end. `report`: None where there is none; `told`: OBR-25 of the last result that the EHR got.

    `charges`: the components that are billable; `credited`: those that are aborted.
    """

    order: str
    step: str
    appointment: str | None
    report: str | None = None
    told: str | None = None
    charges: tuple[str, ...] = ()
    credited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """A course: its share of the day's orders, what happens, and its end."""

    name: str
    share: int
    play: Callable[[Exam], Awaitable[None]]
    end: End


_READ: Final = ("professional", "technical")


async def _begin(exam: Exam) -> None:
    await exam.admit()
    await exam.ordered()


async def _arrive_and_scan(exam: Exam, status: str = "COMPLETED") -> None:
    await exam.book()
    await exam.become("arrived")
    await exam.scan(status)


async def _sign(exam: Exam) -> None:
    await exam.claim()
    await exam.dictate("preliminary")
    await exam.dictate("final")


async def plain(exam: Exam) -> None:
    await _begin(exam)
    await _arrive_and_scan(exam)
    await _sign(exam)


async def over_fhir(exam: Exam) -> None:
    await exam.admit()
    await exam.ordered_over_fhir()
    await _arrive_and_scan(exam)
    await _sign(exam)


async def inpatient(exam: Exam) -> None:
    await _begin(exam)
    await exam.call_in()
    await exam.scan()
    await _sign(exam)


async def cancelled(exam: Exam) -> None:
    await _begin(exam)
    await exam.ordered("CA")


async def cancelled_when_booked(exam: Exam) -> None:
    await _begin(exam)
    await exam.book()
    await exam.ordered("CA")


async def no_show(exam: Exam) -> None:
    await _begin(exam)
    await exam.book()
    await exam.become("noshow")


async def held(exam: Exam) -> None:
    await _begin(exam)
    await exam.ordered("HD")
    await exam.ordered("RL")
    await _arrive_and_scan(exam)
    await _sign(exam)


async def stopped(exam: Exam) -> None:
    await _begin(exam)
    await _arrive_and_scan(exam, "DISCONTINUED")


async def corrected(exam: Exam) -> None:
    await plain(exam)
    await exam.dictate("corrected")


async def added_to(exam: Exam) -> None:
    await plain(exam)
    await exam.dictate("appended")


async def withdrawn(exam: Exam) -> None:
    await plain(exam)
    await exam.dictate("entered-in-error")


async def read_elsewhere(exam: Exam) -> None:
    await _begin(exam)
    await _arrive_and_scan(exam)
    await exam.result("P")
    await exam.result("F")


async def merged_on_the_table(exam: Exam) -> None:
    await _begin(exam)
    await exam.book()
    await exam.become("arrived")
    await exam.scan(meanwhile=exam.merge(f"M{exam.number:05d}"))
    await _sign(exam)


async def not_on_the_worklist(exam: Exam) -> None:
    await _begin(exam)
    await exam.scan_unscheduled()
    await _sign(exam)


_DONE: Final = End("completed", "completed", "fulfilled", "final", "F", _READ)
_DONE_AT_ONCE: Final = End("completed", "completed", None, "final", "F", _READ)
LIVES: Final = (
    Life("plain", 40, plain, _DONE),
    Life("ordered over FHIR", 14, over_fhir, _DONE),
    Life("inpatient without an appointment", 10, inpatient, _DONE_AT_ONCE),
    Life("cancelled before it was booked", 3, cancelled, End("revoked", "cancelled", None)),
    Life("cancelled after it was booked", 3, cancelled_when_booked, End("revoked", "cancelled", "cancelled")),
    Life("did not come", 4, no_show, End("active", "requested", "noshow")),
    Life("held and released", 3, held, _DONE),
    Life("stopped half-way", 3, stopped, End("active", "failed", "fulfilled")),
    Life("report corrected after it was sent", 4, corrected, End("completed", "completed", "fulfilled", "corrected", "C", _READ)),
    Life("report with an addendum", 3, added_to, End("completed", "completed", "fulfilled", "appended", "C", _READ)),
    Life("report withdrawn", 2, withdrawn,
         End("completed", "completed", "fulfilled", "entered-in-error", "X", ("technical",), ("professional",))),
    Life("read by an outside service", 6, read_elsewhere, End("completed", "completed", "fulfilled", "final", None, _READ)),
    Life("merged while on the table", 3, merged_on_the_table, _DONE),
    Life("scanned without the worklist", 2, not_on_the_worklist, _DONE_AT_ONCE),
)  # fmt: skip
