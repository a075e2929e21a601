"""The pages that are measured: those that grow with the department."""

from dataclasses import dataclass

from benchmarks.console.real_size import STATIONS, Seeded


@dataclass(frozen=True, slots=True)
class Page:
    """What is measured: a name, who looks, and where."""

    name: str
    who: str
    path: str


def pages(there: Seeded, tomorrow: str) -> list[Page]:
    """All of them, over what was made."""
    return [
        Page("home, scheduler", "sam", "/"),
        Page("home, technologist", "tilda", "/"),
        Page("home, radiologist", "ada", "/"),
        Page("home, interface analyst", "ina", "/"),
        Page("orders, waiting for a time", "sam", "/orders?tab=unscheduled"),
        Page("order", "sam", f"/orders/{there.booked}"),
        Page("schedule, day", "sam", f"/schedule?day={tomorrow}"),
        Page("schedule, day, booking an order", "sam", f"/schedule?day={tomorrow}&order={there.waiting}"),
        Page("schedule, week of a scanner", "sam", f"/schedule?day={tomorrow}&view=week&scanner={STATIONS[0].id}"),
        Page("rooms", "tilda", "/rooms"),
        Page("worklist of the readings", "ada", "/reading"),
        Page("report", "ada", f"/reading/{there.reading}"),
        Page("one exam", "ada", f"/exams/{there.examined}"),
        Page("interfaces", "ina", "/interfaces"),
        Page("messages", "ina", "/interfaces/messages"),
        Page("messages that failed", "ina", "/interfaces/messages?state=failed"),
        Page("numbers", "max", "/numbers"),
        Page("audit", "otis", "/audit"),
    ]
