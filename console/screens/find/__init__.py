"""Find: a patient by name, birth date or number, an order by a number. What is looked for is posted, and in no address."""

from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response

from console import emergency
from console.asking import Found
from console.screen import Door, Screen, does, shows
from console.screens.find import typed
from console.screens.find.typed import Typed
from console.screens.patient.orders import address
from console.visit import Visit
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from fhir_server.search.values import escaped

SCREEN = Screen("find", "/find", "f", "")
_PAGE: Final = "25"
_ORDERS: Final = ("ServiceRequest:based-on", "ServiceRequest:patient")


@dataclass(slots=True)
class Results:
    """What was found: patients, how many in all and where they go on; orders with their patients."""

    patients: list[Resource] = field(default_factory=list)
    total: int | None = None
    next: str | None = None
    orders: list[Resource] = field(default_factory=list)
    of_orders: Found = field(default_factory=lambda: Found([]))
    next_orders: str | None = None

    def __bool__(self) -> bool:
        return bool(self.patients or self.orders)


async def show(visit: Visit) -> Response:
    """The box alone."""
    return await _page(visit, Typed(), None)


async def find(visit: Visit) -> Response:
    """What was looked for; a single hit that is what was typed leads straight there."""
    asked = typed.read(visit.form.text("q"), visit.t.locale, visit.today)
    form = visit.form
    results = Results()
    if page := form.get("patients"):
        _take(results, await visit.desk.page("Patient", page))
    elif page := form.get("orders"):
        _take_orders(results, await visit.desk.page("ServiceRequest", page))
    elif asked.text:
        await _search(visit, asked, results)
        if len(results.patients) + len(results.orders) == 1:
            if results.orders:
                return visit.to(address(visit, results.orders[0]["id"]))
            if _is_meant(results.patients[0], asked):
                return visit.to(f"/patients/{results.patients[0]['id']}")
    return await _page(visit, asked, results)


async def _page(visit: Visit, asked: Typed, results: Results | None) -> Response:
    later = bool(visit.form.get("patients") or visit.form.get("orders"))
    closed = emergency.may(visit) and results is not None and not results and bool(asked.number)
    return visit.page(
        "find/index.html",
        asked=asked,
        results=results,
        later=later,
        can=visit.allows("Patient", "s"),
        issuers=await emergency.issuers(visit) if closed or visit.errors else [],
        stale=emergency.is_stale(visit),
        address=lambda order: address(visit, order["id"]),
    )


async def _search(visit: Visit, asked: Typed, results: Results) -> None:
    patients, orders = await visit.desk.together(_patients(visit, asked), _orders(visit, asked.number))
    if patients is not None:
        _take(results, patients)
    if orders is not None:
        _take_orders(results, orders)


async def _patients(visit: Visit, asked: Typed) -> Found | None:
    """By number; else by all the words of the name and the birth date."""
    if not visit.allows("Patient", "s"):
        return None
    search = visit.desk.search
    if asked.number:
        found = await search("Patient", identifier=_numbers(asked.number), _count=_PAGE, _total="accurate")
        if found.matches:
            return found
    query = [("name", ",".join(escaped(v) for v in typed.variants(word))) for word in asked.words]
    query += [("birthdate", asked.born)] if asked.born else []
    if not query or (not asked.born and max(map(len, asked.words)) < 2):
        return None
    try:
        return await search("Patient", *query, _count=_PAGE, _total="accurate", _sort="family,given")
    except FhirError as error:
        if error.status != 422:  # so many that they can't be put in order
            raise
        return await search("Patient", *query, _count=_PAGE, _total="accurate")


async def _orders(visit: Visit, number: str) -> Found | None:
    """Orders, and requested procedures with theirs, with this accession, placer, filler or other number."""
    if not number or not visit.allows("ServiceRequest", "s"):
        return None
    return await visit.desk.search(
        "ServiceRequest", ("_include:iterate", "ServiceRequest:patient"), identifier=_numbers(number), _count=_PAGE,
        _include=_ORDERS, _sort="-_lastUpdated",
    )  # fmt: skip


def _numbers(number: str) -> str:
    return ",".join(dict.fromkeys(escaped(n) for n in (number, number.upper())))


def _take(results: Results, found: Found) -> None:
    results.patients, results.total, results.next = found.matches, found.total, found.next


def _take_orders(results: Results, found: Found) -> None:
    """The orders, each once; a requested procedure stands for its order."""
    orders: dict[str, Resource] = {}
    for request in found:
        above = next((o for r in request.get("basedOn", ()) if (o := found.of(r)) is not None), None)
        order = above if request.get("intent") == "filler-order" and above is not None else request
        orders[order["id"]] = order
    results.orders, results.of_orders, results.next_orders = list(orders.values()), found, found.next


def _is_meant(patient: Resource, asked: Typed) -> bool:
    """Whether it is exactly what was typed: the number, or the whole name or the name with the birth date."""
    numbers = {str(i.get("value", "")).casefold() for i in patient.get("identifier", ())}
    if asked.number and asked.number.casefold() in numbers:
        return True
    if asked.born:
        return bool(asked.words) and patient.get("birthDate") == asked.born
    names = [part for n in patient.get("name", ()) for part in (n.get("family", ""), *n.get("given", ()))]
    whole = {typed.plain(word) for name in names for word in (name, *name.split())}
    return bool(asked.words) and all(typed.plain(word) in whole for word in asked.words)


async def open_by_number(visit: Visit) -> Response:
    """Break the glass of the record of whom the number is."""
    return visit.to(f"/patients/{await emergency.open_by_number(visit)}", "patient-opened")


DOORS: list[Door] = [
    shows("/find", show),
    does("/find", find, show),
    does("/find/open", open_by_number, show),
]
