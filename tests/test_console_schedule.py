"""The schedule at the screen: booking by keyboard, two people at once, and what becomes of bookings."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from console.screens.schedule.grid import Item, besides, lay
from smart_auth.roles import ROLES
from tests.console_steps import HOW, Refused, done, schedule
from tests.console_world import DCM, LOINC, ConsoleWorld, Resource, press

TOMORROW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
BOARD = f"/schedule?day={TOMORROW.date().isoformat()}"


def at(hour: int, minute: int = 0) -> datetime:
    """That time of tomorrow, on which the board of these tests is."""
    return TOMORROW.replace(hour=hour, minute=minute)


class House:
    """Two CTs and an MR that are open at all hours, with slots of half an hour; the first CT may be overbooked by schedulers."""

    def __init__(self, world: ConsoleWorld) -> None:
        self.world = world
        for code, modality, minutes in (("24627-2", "CT", 30), ("24590-2", "MR", 30)):
            world.create(
                {
                    "resourceType": "ActivityDefinition",
                    "status": "active",
                    "kind": "ServiceRequest",
                    "identifier": [{"system": LOINC, "value": code}],
                    "code": {"coding": [{"system": LOINC, "code": code}]},
                    "topic": [{"coding": [{"system": DCM, "code": modality}]}],
                    "timingDuration": {"value": minutes, "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"},
                }
            )
        hours = world.create({"resourceType": "HealthcareService", "name": "Always", "availableTime": [{"allDay": True}]})
        self.ct, self.ct2, self.mr = (world.scanner(m, n) for m, n in (("CT", "CT 1"), ("CT", "CT 2"), ("MR", "MR 1")))
        rule = [{"url": "count", "valuePositiveInt": 1}, {"url": "role", "valueCode": "scheduler"}]
        over = {"url": "urn:fhir-ris:overbooking", "extension": rule}
        self.schedules = [self._schedule(s, hours, [over] * (s is self.ct)) for s in (self.ct, self.ct2, self.mr)]

    def _schedule(self, scanner: Resource, hours: Resource, more: list[Resource]) -> Resource:
        made = [{"url": "minutes", "valuePositiveInt": 30}, {"url": "days", "valuePositiveInt": 3}]
        actor = [{"reference": f"Device/{scanner['id']}"}, {"reference": f"HealthcareService/{hours['id']}"}]
        generated = {"url": "urn:fhir-ris:slot-generation", "extension": made}
        schedule = self.world.create({"resourceType": "Schedule", "actor": actor, "extension": [generated, *more]})
        self.world.operation(f"Schedule/{schedule['id']}/$generate-slots")
        return schedule

    def order(self, **elements: Any) -> Resource:
        name = elements.pop("name", None)
        patient = self.world.patient(name=[{"family": name, "given": ["Ida"]}]) if name else None
        return self.world.order(patient, **elements)

    def booked(self, hour: int, scanner: Resource | None = None, minute: int = 0, **elements: Any) -> Resource:
        return self.world.booked(self.order(**elements), scanner or self.ct, at(hour, minute))

    def of(self, order: Resource) -> list[Resource]:
        """The Appointments of an order."""
        return self.world.search("Appointment", based_on=f"ServiceRequest/{order['id']}")

    def now(self, booking: Resource) -> Resource:
        return self.world.read(f"Appointment/{booking['id']}")

    def free(self, page: Page, when: datetime, scanner: Resource | None = None) -> Any:
        """The free time on the board."""
        return page.locator(f"[id='f-{(scanner or self.ct)['id']}-{when:%Y-%m-%dT%H:%MZ}']")


@pytest.fixture(scope="module")
def house(console: ConsoleWorld) -> House:
    return House(console)


@pytest.fixture(scope="module")
def page(console: ConsoleWorld, house: House) -> Page:
    """A scheduler's browser, for those tests that need no other than one."""
    return console.at("scheduler", BOARD)


def _unaware(page: Page) -> None:
    """Whatever others do, this page doesn't hear of it: what it shows is old."""
    page.route(re.compile("/events"), lambda route: route.abort())
    itself = "x-ris-by-itself"
    page.route(re.compile("/schedule"), lambda route: route.abort() if itself in route.request.headers else route.continue_())


def _token(client: httpx.Client) -> dict[str, str]:
    """The field that makes a form one of this session."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/schedule").text)
    assert found
    return {"csrf": found[1]}


def booking(page: Page, one: Resource) -> Any:
    return page.locator(f"#b-{one['id']}")


# Booking


def test_an_order_is_booked_by_keyboard_alone(console: ConsoleWorld, house: House, page: Page) -> None:
    order = house.order(name="Keyboard", priority="stat")
    page.goto(BOARD)
    press(page, "j")
    expect(page.locator(f"#order-{order['id']}")).to_be_focused()
    press(page, "Enter")
    expect(page.locator(".picked")).to_contain_text("Keyboard, Ida")
    expect(page.locator(".free-times a").first).to_be_focused()
    press(page, "j")
    press(page, "Enter")
    expect(page.locator("#confirm")).to_be_focused()
    press(page, "Enter")
    done(page)
    (booked,) = house.of(order)
    assert booked["status"] == "booked"
    assert [s["status"] for s in console.steps(order)] == ["accepted"]
    expect(booking(page, booked)).to_contain_text("emergency Keyboard, Ida CT Chest")
    expect(page.locator(f"#order-{order['id']}")).to_have_count(0)

    other = house.order(name="Arrows", priority="stat")
    page.goto(f"{BOARD}&order={other['id']}")
    press(page, "b")
    expect(page.locator("td a[data-free]").first).to_be_focused()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        press(page, key)
    focused = page.evaluate("document.activeElement.id")
    assert house.ct2["id"] in focused
    press(page, "Enter")
    expect(page.locator("#confirm")).to_be_focused()
    press(page, "Enter")
    done(page)
    (booked,) = house.of(other)
    assert focused == f"f-{house.ct2['id']}-{datetime.fromisoformat(booked['start']):%Y-%m-%dT%H:%MZ}"
    press(page, "?")
    expect(page.get_by_role("dialog")).to_contain_text("Today")
    press(page, "Escape")


def test_who_comes_too_late_sees_who_was_first_and_loses_nothing(console: ConsoleWorld, house: House) -> None:
    mine, theirs = house.order(name="Late"), house.order(name="Quick")
    quick = console.at("scheduler", BOARD)
    late = console.at(console.user("scheduler", "lena-late"), f"{BOARD}&order={mine['id']}")
    _unaware(late)
    for one, order in ((late, mine), (quick, theirs)):
        one.goto(f"{BOARD}&order={order['id']}")
        house.free(one, at(9)).click()
        expect(one.locator("#confirm")).to_be_visible()
    late.locator(".confirm [name=comment]").fill("by telephone")
    quick.locator("#confirm").click()
    done(quick)
    late.locator("#confirm").click()
    with pytest.raises(Refused, match="can't be had any more"):
        done(late)
    told = late.locator(".told.warn").first
    expect(told).to_contain_text("Quick, Ida, CT Chest")
    expect(told).to_contain_text("by Scheduler")
    expect(late.locator(".picked")).to_contain_text("Late, Ida")
    expect(late.locator("td .booking", has_text="Quick, Ida")).to_be_visible()
    expect(late.locator(".confirm")).to_contain_text("Not free")
    assert house.of(mine) == []
    late.locator(".free-times a").first.click()
    late.locator("#confirm").click()
    done(late)
    assert [a["status"] for a in house.of(mine)] == ["booked"]


def test_an_open_board_shows_what_others_do(console: ConsoleWorld, house: House, page: Page) -> None:
    page.goto(BOARD)
    waiting = house.order(name="Live", priority="stat")
    expect(page.locator(f"#order-{waiting['id']}")).to_be_visible()
    expect(house.free(page, at(10))).to_be_visible()
    booked = console.booked(waiting, house.ct, at(10))
    expect(booking(page, booked)).to_contain_text("booked")
    expect(house.free(page, at(10))).to_have_count(0)
    expect(page.locator(f"#order-{waiting['id']}")).to_have_count(0)
    console.update(booked, status="arrived")
    expect(booking(page, booked)).to_contain_text("arrived")
    console.update(booked, status="cancelled")
    expect(house.free(page, at(10))).to_be_visible()


def test_the_time_may_come_first_and_may_be_held(house: House, page: Page) -> None:
    order = house.order(name="Hold", priority="stat")
    page.goto(BOARD)
    house.free(page, at(11)).click()
    expect(page.locator(".picked")).to_contain_text("11:00 · CT 1")
    page.locator(f"#order-{order['id']}").click()
    expect(page.locator("#confirm")).to_be_focused()
    press(page, "h")
    done(page)
    (held,) = house.of(order)
    assert (held["status"], held["start"]) == ("pending", f"{at(11):%Y-%m-%dT%H:%M:%S}.000Z")
    expect(page.locator(".picked")).to_contain_text("until")
    expect(page.locator("#confirm")).to_be_focused()
    press(page, "Enter")
    done(page)
    assert house.now(held)["status"] == "booked"


def test_orders_of_a_patient_are_one_visit_and_a_length_can_be_said(console: ConsoleWorld, house: House, page: Page) -> None:
    patient = console.patient(name=[{"family": "Both", "given": ["Ida"]}])
    brain = {"coding": [{"system": LOINC, "code": "24590-2", "display": "MR Brain"}]}
    unknown = {"coding": [{"system": LOINC, "code": "99999-9", "display": "CT Something"}]}
    one, two = console.order(patient), console.order(patient, "MR", code=brain)
    page.goto(f"{BOARD}&order={one['id']}")
    page.locator(".picked a", has_text="+ MR Brain").click()
    expect(page.locator(".free-times a").first).to_contain_text("MR 1")
    page.locator(".free-times a").first.click()
    expect(page.locator(".legs li")).to_have_count(2)
    page.locator("#confirm").click()
    done(page)
    first, second = sorted((house.of(one)[0], house.of(two)[0]), key=lambda a: str(a["start"]))
    assert first["end"] <= second["start"]
    assert first["identifier"] == second["identifier"]

    odd = console.order(patient, code=unknown)
    page.goto(f"{BOARD}&order={odd['id']}")
    expect(page.locator("#minutes-asked-hint")).to_be_visible()
    page.locator("#minutes-asked").fill("60")
    page.get_by_role("button", name="Find").click()
    page.locator(".free-times a").first.click()
    page.locator("#confirm").click()
    done(page)
    assert house.of(odd)[0]["minutesDuration"] == 60


def test_a_taken_time_is_given_for_a_reason_alone(house: House, page: Page) -> None:
    there, urgent, more = house.booked(13, name="There"), house.order(priority="stat"), house.order(name="More")
    address = f"{BOARD}&at={at(13):%Y-%m-%dT%H:%MZ}&on={house.ct['id']}"
    page.goto(f"{address}&order={urgent['id']}")
    form = page.locator("#all-the-same form")
    press(page, "a")
    expect(form.locator("[name=minutes]")).to_be_focused()
    form.locator("button").click()
    with pytest.raises(Refused, match="is taken at that time by"):
        done(page)
    expect(page.locator(".told.warn").first).to_contain_text("There, Ida")
    form.locator("[name=displace]").fill("polytrauma")
    form.locator("button").click()
    done(page)
    assert (house.of(urgent)[0]["status"], house.now(there)["status"]) == ("booked", "cancelled")

    page.goto(f"{address}&order={more['id']}")
    page.locator("#all-the-same summary").click()
    form.locator("[name=overbook]").fill("before discharge")
    form.locator("button").click()
    done(page)
    expect(booking(page, house.of(more)[0])).to_contain_text("overbooked")


def test_who_walks_in_is_booked_for_now_and_checked_in(console: ConsoleWorld, house: House, page: Page) -> None:
    order = house.order(name="Walker", priority="stat")
    page.goto(f"/schedule?order={order['id']}")
    expect(page.locator(".picked")).to_be_visible()
    press(page, "i")
    page.locator("#walk-in select").select_option(label="CT 2")
    page.locator("#walk-in button").click()
    done(page)
    (booked,) = house.of(order)
    assert booked["status"] == "checked-in"
    assert abs(datetime.fromisoformat(booked["start"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert [s["status"] for s in console.steps(order)] == ["ready"]
    expect(booking(page, booked)).to_contain_text("Walker, Ida")
    # The form sent once more, even with a reason to overbook, books nothing.
    with console.http("scheduler") as client:
        again = _token(client) | {"do": "walk-in", "on": house.ct2["id"], "minutes": "30", "overbook": "urgent"}
        assert client.post(f"/schedule?order={order['id']}", data=again).status_code in {409, 422}
    assert len(house.of(order)) == 1


# What becomes of bookings


def test_a_booking_is_moved_by_keyboard_by_form_and_by_mouse(house: House, page: Page) -> None:
    one = house.booked(14, name="Mover")
    page.goto(f"{BOARD}&booking={one['id']}")
    press(page, "m")
    expect(page.locator(".free-times a").first).to_be_focused()
    press(page, "b")
    house.free(page, at(15), house.ct2).focus()
    press(page, "Enter")
    expect(page.locator("#confirm")).to_be_focused()
    press(page, "Enter")
    done(page)
    moved = house.now(one)
    assert moved["start"].startswith(f"{at(15):%Y-%m-%dT%H:%M}")
    assert house.ct2["id"] in str(moved["participant"])
    assert house.ct["id"] not in str(moved["participant"])

    schedule.reschedule(page, one["id"], {"start": at(16), "reason": "the patient's train"})
    assert (house.now(one)["start"][:16], house.now(one)["comment"]) == (f"{at(16):%Y-%m-%dT%H:%M}", "the patient's train")

    booking(page, one).drag_to(house.free(page, at(16, 30)))
    expect(page.locator("#confirm")).to_be_visible()
    page.locator("#confirm").click()
    done(page)
    assert house.now(one)["start"][:16] == f"{at(16, 30):%Y-%m-%dT%H:%M}"

    taken = house.booked(17, name="Sitting")
    schedule.cancel(page, taken["id"], {"reason": "to be sure that the steps do it", "code": "error"})
    house.booked(17, name="Sitting")
    with pytest.raises(Refused, match="is taken at that time by"):
        schedule.reschedule(page, one["id"], {"start": at(17)})


def test_an_order_is_booked_by_mouse(house: House, page: Page) -> None:
    order = house.order(name="Mouse", priority="stat")
    page.goto(BOARD)
    page.locator(f"#order-{order['id']}").drag_to(house.free(page, at(12), house.ct2))
    page.locator("#confirm").click()
    done(page)
    assert house.of(order)[0]["start"][:16] == f"{at(12):%Y-%m-%dT%H:%M}"


def test_what_is_being_filled_in_is_left_alone_while_the_rest_shows_what_is_new(house: House, page: Page) -> None:
    one = house.booked(5, house.ct2, name="Filled")
    page.goto(f"{BOARD}&booking={one['id']}")
    press(page, "c")
    page.locator("#cancel-code").select_option("weather")
    page.locator("#cancel [name=waiting-list]").check()
    page.locator("#cancel button").focus()
    other = house.booked(6, house.ct2, name="Other")
    house.world.update(one, comment="asked to be called")
    expect(booking(page, other)).to_be_visible()
    expect(page.locator("#cancel [name=waiting-list]")).to_be_checked()
    expect(page.locator("#cancel-code")).to_have_value("weather")
    expect(page.locator("#cancel button")).to_be_focused()
    page.locator("#cancel [name=waiting-list]").uncheck()
    page.locator("#cancel-code").select_option("patient")
    page.locator("#day").focus()
    expect(page.locator(".picked")).to_contain_text("asked to be called")


def test_a_booking_is_cancelled_for_a_reason_and_may_wait_for_another(house: House, page: Page) -> None:
    order = house.order(name="Cold")
    one = house.world.booked(order, house.ct, at(18))
    page.goto(f"{BOARD}&booking={one['id']}")
    press(page, "c")
    page.locator("#cancel-reason").fill("has a cold")
    page.locator("#cancel [name=waiting-list]").check()
    press(page, "Tab")
    press(page, "Enter")
    done(page)
    assert house.now(one)["cancelationReason"]["coding"][0]["code"] == "patient"
    (entry,) = [a for a in house.of(order) if a["status"] == "waitlist"]
    row = page.locator(f"#order-{entry['id']}")
    page.goto(f"{BOARD}&list=waiting")
    expect(row).to_contain_text("has a cold")
    page.get_by_role("link", name="To be scheduled").click()
    expect(page.locator(f"#order-{order['id']}")).to_be_visible()
    page.get_by_role("link", name="Waiting list").click()
    row.click()
    page.locator(".free-times a").first.click()
    page.locator("#confirm").click()
    done(page)
    assert house.now(entry)["status"] == "cancelled"

    listed = house.order(name="Listed")
    page.goto(f"{BOARD}&order={listed['id']}")
    press(page, "q")
    page.locator("#enlist-why").fill("mornings only")
    page.locator("#enlist button").click()
    done(page)
    with house.world.http("scheduler") as client:  # the same form once more
        form = _token(client) | {"do": "enlist", "comment": "mornings only"}
        assert client.post(f"/schedule?order={listed['id']}", data=form).status_code == 303
    (entry,) = house.of(listed)
    expect(page.locator(f"#order-{entry['id']}")).to_contain_text("mornings only")
    schedule.cancel(page, entry["id"], {"reason": "went elsewhere"})
    assert house.now(entry)["status"] == "cancelled"


def test_a_patient_comes_or_does_not(console: ConsoleWorld, house: House, page: Page) -> None:
    past = datetime.now(UTC) - timedelta(minutes=45)
    come, missed = (console.booked(house.order(), s, past, 20) for s in (house.ct2, house.ct))
    schedule.check_in(page, come["id"], {})
    assert house.now(come)["status"] == "checked-in"
    schedule.no_show(page, missed["id"], {})
    assert house.now(missed)["status"] == "noshow"
    page.goto(f"/schedule?day={past.date().isoformat()}")
    expect(booking(page, missed)).to_have_count(1)
    later = house.booked(19)
    with pytest.raises(Refused, match="yet to come"):
        schedule.no_show(page, later["id"], {})


def test_who_acts_on_an_old_page_is_told_and_sees_the_present_state(console: ConsoleWorld, house: House, page: Page) -> None:
    one = house.booked(20)
    other = console.at("scheduler", BOARD)
    _unaware(other)
    other.goto(f"{BOARD}&booking={one['id']}")
    schedule.reschedule(page, one["id"], {"start": at(20, 30)})
    schedule.press(other, "check-in")
    with pytest.raises(Refused, match="version"):
        done(other)
    expect(other.locator(".picked")).to_contain_text("20:30–21:00")
    assert house.now(one)["status"] == "booked"


# The time of scanners


def test_a_form_that_is_sent_twice_closes_a_time_once(console: ConsoleWorld, house: House) -> None:
    """Three at once, one later, and one after the time was opened again, which closes it anew. Two days are two slots."""
    closed = {"schedule": f"Schedule/{house.schedules[2]['id']}", "status": "busy-unavailable"}
    with console.http("scheduler") as client:
        token = re.search('name="csrf" value="([^"]+)"', client.get(BOARD).text)
        assert token
        fields = {"csrf": token[1], "do": "block", "on": house.mr["id"], "comment": "cold head"}
        fields |= {"at": f"{at(23):%Y-%m-%dT%H:%M}Z", "until": f"{at(0) + timedelta(hours=25):%Y-%m-%dT%H:%M}Z"}
        with ThreadPoolExecutor(3) as at_once:
            answers = list(at_once.map(lambda _: client.post(BOARD, data=fields), range(3)))
        answers.append(client.post(BOARD, data=fields))
        assert {a.status_code for a in answers} == {303}
        slots = console.search("Slot", **closed)
        assert len({s["start"] for s in slots}) == len(slots) == 2
        for slot in slots:
            console.update(slot | {"status": "entered-in-error"})
        assert client.post(BOARD, data=fields).status_code == 303
        again = console.search("Slot", **closed)
        assert len(again) == 2
        for slot in again:
            console.update(slot | {"status": "entered-in-error"})


def test_a_time_is_blocked_and_opened_again(console: ConsoleWorld, house: House, page: Page) -> None:
    page.goto(BOARD)
    house.free(page, at(21), house.mr).click()
    expect(page.locator(".picked")).to_contain_text("MR 1")
    press(page, "z")
    page.locator("#block-until").fill(f"{at(22):%Y-%m-%dT%H:%M}")
    page.locator("#block-why").fill("helium")
    page.locator("#block button").click()
    done(page)
    blocked = page.locator("a.blocked", has_text="helium")
    expect(blocked).to_be_visible()
    expect(house.free(page, at(21), house.mr)).to_have_count(0)
    expect(house.free(page, at(22), house.mr)).to_have_count(1)
    order = house.order(modality="MR", code={"coding": [{"system": LOINC, "code": "24590-2"}]})
    page.goto(f"{BOARD}&order={order['id']}&at={at(21):%Y-%m-%dT%H:%MZ}&on={house.mr['id']}")
    page.locator("#all-the-same > summary").click()
    page.locator("#all-the-same button").click()
    with pytest.raises(Refused, match="busy-unavailable"):
        done(page)
    page.goto(BOARD)
    blocked.click()
    expect(page.locator(".picked")).to_contain_text("helium")
    schedule.press(page, "unblock")
    done(page)
    expect(house.free(page, at(21), house.mr)).to_have_count(1)
    page.goto(f"{BOARD}&scanner={house.mr['id']}")
    page.locator("#block > summary").click()
    page.locator("#block button").click()
    with pytest.raises(Refused, match="The end is after the beginning"):
        done(page)


def test_the_week_of_a_scanner_its_hours_and_its_slots(console: ConsoleWorld, house: House, page: Page) -> None:
    page.goto(BOARD)
    page.get_by_role("link", name="CT 2", exact=True).click()
    expect(page.locator(".picked")).to_contain_text("all day")
    expect(page.locator(".picked")).to_contain_text("Made until")
    schedule.generate_slots(page, house.schedules[1]["id"], {})
    page.get_by_role("link", name="Its week").click()
    expect(page.locator(".board thead th")).to_have_count(8)
    page.locator("#scanner").select_option(label="MR 1")
    expect(page).to_have_url(re.compile(f"scanner={house.mr['id']}"))
    press(page, "w")
    expect(page.locator(".board thead th")).to_have_count(4)
    page.locator("#modality").select_option("MR")
    expect(page.locator(".board thead th a")).to_have_text(["MR 1"])
    press(page, "t")
    expect(page.locator("[aria-current=time]")).to_be_visible()


def test_the_table_has_a_row_a_slot_and_a_cell_for_all_that_overlaps() -> None:
    free = [Item("free", m, m + 20) for m in (480, 500, 540)]
    booked, over, odd = Item("booking", 520, 540), Item("booking", 530, 550), Item("booking", 605, 612)
    made = lay([free[:2], [*free, booked, over, odd], []])
    assert (made.step, [r.minute for r in made.rows]) == (20, [480, 500, 520, 540, 560, 580, 600, 620, 640])
    cells = {(r.minute, c.column): c for r in made.rows for c in r.cells}
    assert cells[480, 0].items == (free[0],)
    assert (cells[520, 0].rows, cells[520, 0].items) == (7, ())
    assert (cells[520, 1].rows, cells[520, 1].items) == (2, (booked, over, free[2]))
    assert (cells[600, 1].rows, cells[600, 1].items) == (1, (odd,))
    assert cells[480, 2].rows == 9
    assert all(sum(c.rows for r in made.rows for c in r.cells if c.column == n) == 9 for n in range(3))
    nothing = lay([[]])
    assert (nothing.step, nothing.rows[0].minute, nothing.rows[-1].minute) == (30, 480, 990)
    assert lay([[Item("booking", 1430, 1440)]]).rows[-1].minute == 1410
    # Where nothing is, it is closed, but for what is past: nobody makes slots for that.
    there = [Item("booking", 480, 500), Item("free", 600, 620)]
    empty = [(c.column, r.minute, c.rows, c.over) for r in lay([there, there], [565, 0]).rows for c in r.cells if not c.items]
    assert [e[1:] for e in empty if e[0] == 0] == [(500, 3, True), (560, 2, False), (620, 2, False)]
    assert [e[1:] for e in empty if e[0] == 1] == [(500, 5, False), (620, 2, False)]
    # What follows within a row begins with the next one; what overlaps stands beside it.
    first, second, third, both = (Item("booking", *when) for when in ((494, 524), (524, 554), (554, 584), (570, 590)))
    made = lay([[Item("past", 480, 490), first, second, third, both]])
    shown = [(r.minute, c.rows, c.items) for r in made.rows for c in r.cells if c.items]
    assert shown[1:] == [(490, 4, (first,)), (530, 3, (second,)), (560, 3, (third, both))]
    assert list(besides((480, 600), [(540, 570), (470, 490), (560, 580)])) == [(490, 540), (580, 600)]


# Everybody and everything


def test_all_is_possible_without_scripts(console: ConsoleWorld, house: House) -> None:
    order = house.order(name="Plain", priority="stat")
    plain = console.at("scheduler", BOARD, java_script_enabled=False)
    plain.locator(f"#order-{order['id']}").click()
    house.free(plain, at(22)).click()
    plain.locator("#confirm").click()
    done(plain)
    (booked,) = house.of(order)
    booking(plain, booked).click()
    schedule.cancel(plain, booked["id"], {"reason": "wrong patient", "code": "error", "waiting_list": False})
    assert house.now(booked)["status"] == "cancelled"


def test_it_speaks_german(console: ConsoleWorld, house: House) -> None:
    look = console.at("scheduler", f"{BOARD}&order={house.order()['id']}", language="de-DE")
    expect(look.get_by_role("heading", level=1)).to_contain_text(f"{TOMORROW:%d}".lstrip("0"))
    expect(look.locator(".picked")).to_contain_text("Erste freie Termine")


def test_other_roles_get_nothing_and_nonsense_does_no_harm(console: ConsoleWorld, house: House) -> None:
    booked = house.booked(3)
    for role in sorted(set(ROLES) - {"scheduler", "admin"}):
        with console.http(role) as client:
            assert client.get("/schedule").status_code == 403, role
            deed = {"do": "cancel", "reason": "x", "csrf": "x"}
            assert client.post(f"/schedule?booking={booked['id']}", data=deed).status_code == 403, role
    assert house.now(booked)["status"] == "booked"
    with console.http("scheduler") as client:
        yesterday = client.get(f"/schedule?day={TOMORROW - timedelta(days=2):%Y-%m-%d}").text
        assert '<td rowspan="18" class="past"><span class="hidden-text">over</span>' in yesterday
        moments = ("day=9999-99-99", "day=0001-01-01", "at=x&on=..", "at=9999-12-31T23:59")
        for nonsense in (*moments, "order=%3Cscript%3E", "minutes=-5"):
            answer = client.get(f"/schedule?{nonsense}&booking=nobody&slot=nobody")
            assert answer.status_code == 200, nonsense
            assert "<script>" not in answer.text


def test_what_scenarios_do_at_the_screen(console: ConsoleWorld, house: House, page: Page) -> None:
    """The steps of `tests/console_steps/schedule.py` that no test above has taken."""
    order = house.order(name="Steps")
    reference = {"reference": f"ServiceRequest/{order['id']}"}
    HOW["$find", "Appointment"](page, "", {"order": [reference], "start": at(1)})
    HOW["$hold", "Appointment"](page, "", {})
    (held,) = house.of(order)
    HOW["$book", "Appointment"](page, "", {"appointment_reference": {"reference": f"Appointment/{held['id']}"}})
    assert house.now(held)["status"] == "booked"
    urgent = house.order(priority="stat")
    devices = [{"actor": {"reference": f"Device/{house.ct['id']}"}}, {"actor": urgent["subject"]}]
    taken = house.booked(2)
    wanted = {
        "status": "pending",
        "basedOn": [{"reference": f"ServiceRequest/{urgent['id']}"}],
        "start": taken["start"],
        "end": taken["end"],
        "participant": devices,
    }
    HOW["$book", "Appointment"](page, "", {"appointment_resource": wanted, "displace": "bleeding"})
    assert (house.now(taken)["status"], house.of(urgent)[0]["status"]) == ("cancelled", "booked")
    schedule.reschedule(page, held["id"], {"reason": "earlier"})
    assert house.now(held)["comment"] == "earlier"
    with pytest.raises(Refused):
        HOW["$find", "Appointment"](page, "", {"order": [{"reference": f"ServiceRequest/{urgent['id']}"}]})


def test_no_script_failed(console: ConsoleWorld) -> None:
    """Last in this file: what the browsers have complained of so far, but refusals and the aborted events of two of them."""
    expected = ("status of 409", "status of 412", "status of 422", "ERR_FAILED")
    assert [c for c in console.complaints if not any(e in c for e in expected)] == []
