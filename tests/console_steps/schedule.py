"""The schedule: free times found, held, booked and moved, and what becomes of bookings.

What `$find` proposes is on the page: who holds or books "what was proposed" takes the first of these, as the ids of proposals are
not shown to people; a hold is booked by its own.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

from tests.console_steps import Refused, by, done


@by("$find", "Appointment")
def find(page: Page, _id: str, given: dict[str, Any]) -> None:
    """Pick the orders, and look at what is free first. Refused when nothing is."""
    day = _moment(given["start"]).date().isoformat() if "start" in given else None
    _open(page, order=_ids(given["order"]), day=day, minutes=given.get("minutes"))
    expect(page.locator(".picked")).to_be_visible()
    if not page.locator(".free-times a").count():
        raise Refused(page.locator(".picked").inner_text())


@by("$hold", "Appointment")
def hold(page: Page, _id: str, _given: dict[str, Any]) -> None:
    """Take the first free time and hold it."""
    page.locator(".free-times a").first.click()
    page.locator(".confirm button[name=hold]").click()
    done(page)


@by("$book", "Appointment")
def book(page: Page, _id: str, given: dict[str, Any]) -> None:
    """Book the first free time of those found, or a hold; or a time of one's own choice."""
    if "appointment_resource" in given:
        _own_choice(page, given["appointment_resource"], given)
        return
    if page.locator(".free-times a").count():
        page.locator(".free-times a").first.click()
        _fill(page.locator(".confirm"), comment=given.get("comment"))
        page.locator("#confirm").click()
    else:
        _open(page, booking=_ids(given["appointment_reference"])[0])
        press(page, "book")
    done(page)


def _own_choice(page: Page, wanted: dict[str, Any], given: dict[str, Any]) -> None:
    if wanted["status"] == "cancelled":
        cancel(page, wanted["id"], {"reason": given.get("comment", "Not wanted")})
        return
    if "id" in wanted:
        reschedule(page, wanted["id"], {"start": wanted["start"], "reason": given.get("comment")})
        return
    start = _moment(wanted["start"])
    minutes = (_moment(wanted["end"]) - start) // timedelta(minutes=1) if "end" in wanted else None
    on = next(r for p in wanted["participant"] if (r := p["actor"]["reference"]).startswith("Device/"))
    _open(page, order=_ids(wanted["basedOn"]), at=_instant(start), on=on.removeprefix("Device/"), minutes=minutes)
    if page.locator("#confirm").count():
        page.locator("#confirm").click()
    else:
        page.locator("#all-the-same > summary").click()
        form = page.locator("#all-the-same form")
        _fill(form, minutes=minutes, overbook=given.get("overbook"), displace=given.get("displace"))
        form.locator("button").click()
    done(page)
    return


@by("$reschedule", "Appointment")
def reschedule(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Another time: the first free one, or one that is typed."""
    if "start" not in given:
        _open(page, booking=id_, move="1")
        page.locator(".free-times a").first.click()
        _fill(page.locator(".confirm"), reason=given.get("reason"))
        page.locator("#confirm").click()
        done(page)
        return
    _open(page, booking=id_)
    page.locator("#reschedule > summary").click()
    at = page.locator("#reschedule-at")
    offset = datetime.fromisoformat(at.input_value()).replace(tzinfo=UTC) - _moment(at.get_attribute("data-is"))
    at.fill(f"{_moment(given['start']).astimezone(UTC) + offset:%Y-%m-%dT%H:%M}")
    _fill(page.locator("#reschedule"), reason=given.get("reason"))
    page.locator("#reschedule button").click()
    done(page)
    return


@by("$cancel", "Appointment")
def cancel(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Cancel a booking, a hold, or an entry of the waiting list, and say why."""
    _open(page, booking=id_)
    page.locator("#cancel > summary").click()
    form = page.locator("#cancel form")
    if "code" in given:
        form.locator("select").select_option(str(given["code"]))
    _fill(form, reason=given["reason"])
    if given.get("waiting_list"):
        form.locator("input[name=waiting-list]").check()
    form.locator("button").click()
    done(page)


@by("$no-show", "Appointment")
def no_show(page: Page, id_: str, _given: dict[str, Any]) -> None:
    """The patient did not come."""
    _open(page, booking=id_)
    press(page, "no-show")
    done(page)


@by("$check-in", "Appointment")
def check_in(page: Page, id_: str, _given: dict[str, Any]) -> None:
    """The patient is there."""
    _open(page, booking=id_)
    press(page, "check-in")
    done(page)


@by("$generate-slots", "Schedule")
def generate_slots(page: Page, id_: str, _given: dict[str, Any]) -> None:
    """Look for the scanner of this Schedule, and have its slots made."""
    _open(page)
    scanners = page.locator(".board thead th a").evaluate_all("links => links.map(a => a.href)")
    for scanner in scanners:
        page.goto(scanner)
        form = page.locator(f'form:has(input[name=schedule][value="{id_}"])')
        if form.count():
            form.locator("button").click()
            done(page)
            return
    raise Refused("no scanner on the board has this schedule")


def press(page: Page, deed: str) -> None:
    """The button of the form that does this."""
    if not (button := page.locator(f'form:has(input[name=do][value="{deed}"]) button')).count():
        raise Refused(f"the page doesn't offer {deed}: {page.locator('.planner-side').inner_text()}")
    button.first.click()


def _open(page: Page, **asked: Any) -> None:
    """The board, with this picked."""
    page.goto("/schedule?" + urlencode({name: value for name, value in asked.items() if value}, doseq=True))


def _fill(form: Locator, **fields: Any) -> None:
    for name, value in fields.items():
        if value:
            form.locator(f"[name={name}]").fill(str(value))


def _ids(given: Any) -> list[str]:
    return [r["reference"].split("/")[1] for r in (given if isinstance(given, list) else [given])]


def _moment(given: Any) -> datetime:
    return given if isinstance(given, datetime) else datetime.fromisoformat(str(given))


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
