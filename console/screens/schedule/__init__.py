"""Schedule: the board of the scanners, and booking.

All is one page whose address says which board it is and what is picked on it (`asked.py`), so that it is right after a reload and
can show by itself what is new; its forms are sent to the same address, so that nothing picked is lost when one is refused.

    board.py, grid.py     the scanners, and what is on each at which time, as a table
    waiting.py            orders that wait for a time, and the waiting list
    picked.py, finding.py what is picked, and free times for it
    deeds.py              what the forms do
"""

from starlette.responses import Response

from console.formats import moment
from console.screen import Door, Screen, does, shows
from console.screens.schedule import board, deeds, finding, picked, waiting
from console.screens.schedule.asked import asked as what_is_asked
from console.screens.schedule.asked import instant
from console.visit import Visit
from fhir_server.outcome import fail
from resources.scheduling.change_operations import REASONS

SCREEN = Screen("schedule", "/schedule", "s", "$appointment-book")


async def show(visit: Visit) -> Response:
    """The board, and beside it what is picked and what waits."""
    asked = what_is_asked(visit)
    known, orders, booking = await visit.desk.together(
        board.scanners(visit), picked.orders(visit, asked), picked.booking(visit, asked)
    )
    wanted = orders.modalities if orders else booking.modalities if booking and asked.moving else []
    shown = board.chosen(asked, known, wanted)
    lists = waiting.waiting_list(visit) if asked.waiting else waiting.orders(visit, asked)
    made, waits, times, first = await visit.desk.together(
        board.board(visit, asked, shown), lists, finding.times(visit, asked), picked.holder(visit)
    )
    return visit.page(
        "schedule/index.html",
        asked=asked,
        scanners=known,
        modalities=sorted({m for s in known for m in s.modalities}),
        places=sorted({(s.place, s.place_name) for s in known if s.place}, key=lambda p: p[1]),
        wanted=wanted,
        board=made,
        waits=waits,
        orders=orders,
        booking=booking,
        times=times,
        first=first,
        reasons=sorted(REASONS),
        slot=await board.slot(visit, asked) if asked.slot else None,
        on=next((s for s in known if s.id == asked.on), None),
        asked_at=instant(asked.at) if asked.at else "",
        moment=moment,
        local=lambda at: f"{at.astimezone(visit.zone):%Y-%m-%dT%H:%M}",
        scanner=next((s for s in known if s.id == asked.scanner), None) if not asked.week else None,
    )


async def act(visit: Visit) -> Response:
    """What a form of the board asks for."""
    deed = deeds.DEEDS.get(visit.form.text("do"))
    if deed is None:
        raise fail("not-found", visit.t("schedule.unknown-deed"))
    return await deed(visit, what_is_asked(visit))


DOORS: list[Door] = [shows("/schedule", show), does("/schedule", act, again=show)]
