"""What waits for each role: a table of searches that are only counted, and where each count leads."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from console import live
from console.screens.home import interfaces
from console.screens.home.count import Count
from console.screens.orders.items import FAMILIES
from console.visit import Visit
from fhir_server.outcome import FhirError
from resources import terms
from resources.alerts import ALERT
from resources.reading.critical_request import CRITICAL
from resources.task import OPEN
from smart_auth.roles import REVIEW

_ITEM: Final = terms.TASK_CODE
_OPEN: Final = ",".join(sorted(OPEN))
_READING: Final = f"{terms.READING_STATUS}|"
_TRACKED: Final = "urn:fhir-ris:tracking|"
_COMMUNICATION: Final = "urn:fhir-ris:communication|"
OPEN_ITEMS: Final = ",".join(
    f"{_ITEM}|{kind}" for of in ("coverage", "order", "identity", "examination") for kind in FAMILIES[of]
)
_URGENT: Final = ("stat", "asap,urgent", "routine")

Query = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something to count, and where it leads.

    query: may hold {me}, {today}, {tomorrow} and {week}; to: {day} and {since}
    parts: what it is made of, each the name of its text and more query
    kind: how it is marked when there is any of it
    """

    name: str
    to: str
    of: str
    query: Query
    parts: tuple[tuple[str, Query], ...] = ()
    kind: str = ""


def _items(*kinds: str) -> Query:
    return (("code", ",".join(f"{_ITEM}|{kind}" for kind in kinds)), ("status", _OPEN))


def _by_priority() -> tuple[tuple[str, Query], ...]:
    return tuple((codes.partition(",")[0], (("priority", codes),)) for codes in _URGENT)


_TODAY: Final[Query] = (("date", "ge{today}"), ("date", "lt{tomorrow}"))
_STEPS_TODAY: Final[Query] = (("intent", "plan"), ("due", "ge{today}"), ("due", "lt{tomorrow}"))
_UNREAD: Final[Query] = (("business-status", f"{_READING}unread"),)
_CRITICAL_OPEN: Final[Query] = (("category", f"{_COMMUNICATION}{CRITICAL}"), ("status", "active"))
_MINE_CRITICAL: Final[Query] = (*_CRITICAL_OPEN, ("recipient", "{me}"))
_LATE: Final[tuple[tuple[str, Query], ...]] = (("late", (("category", f"{_COMMUNICATION}overdue"),)),)
_SAFETY: Final = Waiting("safety", "/rooms", "Task", _items("safety-clearance"), kind="warn")
_PROTOCOLS: Final = Waiting("protocols", "/rooms", "Task", _items("protocol"))

_EMERGENCIES: Final = "/audit?kind=alerts&from={since}"
_OPENED: Final[Query] = (("date", "ge{week}"), ("subtype", "110127"))

_OF_ORDERS: Final = (
    Waiting("validate", "/orders?tab=new", "ServiceRequest", (("intent", "order"), ("status", "draft")), _by_priority()),
    Waiting("held", "/orders?tab=hold", "ServiceRequest", (("intent", "order"), ("status", "on-hold"))),
    Waiting("unscheduled", "/schedule", "Task", (("intent", "plan"), ("status", "requested")), _by_priority()),
)
_PROBLEMS: Final = tuple(
    Waiting(name, f"/orders?tab=items&family={family}", "Task", _items(*FAMILIES[family]), kind=kind)
    for name, family, kind in (
        ("coverage", "coverage", "warn"), ("findings", "order", "warn"), ("mismatches", "identity", "bad"),
        ("sort-out", "examination", "bad"),
    )
)  # fmt: skip
TABLE: Final[dict[str, tuple[Waiting, ...]]] = {
    "scheduler": (
        *_OF_ORDERS,
        Waiting(
            "appointments", "/schedule", "Appointment", (*_TODAY, ("status", "booked,arrived,checked-in,fulfilled")),
            (("come", (("status", "arrived,checked-in"),)), ("done", (("status", "fulfilled"),))),
        ),
        *_PROBLEMS,
    ),
    "technologist": (
        Waiting("waiting", "/rooms", "Task", (("business-status", f"{_TRACKED}arrived,{_TRACKED}prepared"),)),
        Waiting("in-room", "/rooms", "Task", (("business-status", f"{_TRACKED}in-room,{_TRACKED}in-progress"),)),
        Waiting("expected", "/rooms", "Task", (*_STEPS_TODAY, ("status", "accepted"))),
        _SAFETY,
        _PROTOCOLS,
        Waiting("sort-out", "/rooms", "Task", _items(*FAMILIES["identity"], *FAMILIES["examination"]), kind="bad"),
    ),
    "radiologist": (
        Waiting("unread", "/reading", "Task", _UNREAD, _by_priority()),
        Waiting("overdue", "/reading", "Task", (("business-status", f"{_READING}overdue"),), kind="bad"),
        Waiting("mine", "/reading?view=mine", "Task", (("business-status", f"{_READING}claimed"), ("owner", "{me}"))),
        Waiting("preliminary", "/reading?view=preliminary", "Task", (("business-status", f"{_READING}preliminary"),)),
        Waiting("critical", "/reading/critical", "CommunicationRequest", _CRITICAL_OPEN, _LATE, kind="bad"),
        _SAFETY,
        _PROTOCOLS,
    ),
    "referrer": (
        Waiting("acknowledge", "/reading/critical", "CommunicationRequest", _MINE_CRITICAL, _LATE, kind="bad"),
        Waiting(
            "results", "#results", "DiagnosticReport", (("status", "final,amended,corrected,appended"), ("issued", "ge{week}")),
        ),
        Waiting("open-orders", "/orders?tab=all&status=active", "ServiceRequest", (("intent", "order"), ("status", "active"))),
        Waiting("held", "/orders?tab=hold", "ServiceRequest", (("intent", "order"), ("status", "on-hold")), kind="warn"),
    ),
    "interface-admin": (
        Waiting("alerts", "/interfaces", "Task", _items(ALERT), kind="bad"),
    ),
    "admin": (
        Waiting(
            "charges", "/administration/charges", "ChargeItem", (("_tag", "urn:fhir-ris:charge-review|held"),),
        ),
        *_OF_ORDERS,
        *_PROBLEMS,
    ),
    "auditor": (
        Waiting("refused", "/audit?outcome=4&from={day}", "AuditEvent", (*_TODAY, ("outcome", "4"))),
        Waiting("emergencies", _EMERGENCIES, "AuditEvent", _OPENED, kind="warn"),
    ),
    "privacy-officer": (
        Waiting("reviews", "/audit/reviews", "Task", (("code", REVIEW), ("status", "requested")), kind="warn"),
        Waiting("emergencies", _EMERGENCIES, "AuditEvent", _OPENED),
    ),
}  # fmt: skip


async def counts(visit: Visit) -> list[Count]:
    """The counts of the person's role, all asked for at once. What the role can't ask for is left out."""
    asked = [w for w in TABLE.get(visit.role, ()) if visit.allows(w.of, "s") and ("{me}" not in str(w.query) or visit.me)]
    numbers = await visit.desk.together(*(_count(visit, w) for w in asked), interfaces.counts(visit))
    return [*numbers[:-1], *numbers[-1]]


def kinds(visit: Visit) -> list[str]:
    """The kinds whose changes may change a count of this role."""
    own = {waiting.of for waiting in TABLE.get(visit.role, ())} & set(live.RESOURCES)
    return sorted(own | ({"outbox"} if visit.can("Endpoint.u") else set()))


async def _count(visit: Visit, what: Waiting) -> Count:
    whole, *parts = await visit.desk.together(
        _number(visit, what.of, what.query), *(_number(visit, what.of, (*what.query, *more)) for _, more in what.parts)
    )
    named = tuple((name, n) for (name, _), n in zip(what.parts, parts, strict=True) if n)
    return Count(what.name, what.to.format_map(_in_addresses(visit)), whole, named, what.kind if whole else "")


async def _number(visit: Visit, of: str, query: Query) -> int | None:
    moments = {"me": visit.me, **days(visit)}
    told = [(name, value.format_map(moments)) for name, value in query]
    try:
        return (await visit.desk.search(of, *told, _summary="count")).total
    except FhirError as error:
        if error.status >= 500:
            raise
        return None


def days(visit: Visit) -> dict[str, str]:
    """The department's day as moments, and a week ago."""

    def midnight(days: int) -> str:
        return datetime.combine(visit.today + timedelta(days=days), time.min, visit.zone).astimezone(UTC).isoformat()

    return {"today": midnight(0), "tomorrow": midnight(1), "week": midnight(-7)}


def _in_addresses(visit: Visit) -> dict[str, str]:
    return {"day": visit.today.isoformat(), "since": (visit.today - timedelta(days=7)).isoformat()}
