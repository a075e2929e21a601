"""What technologists and radiologists do at the rooms of the day: `/rooms`."""

import re
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Locator, Page

from tests.console_steps import by, done


def open_step(page: Page, step_id: str) -> None:
    page.goto(f"/rooms/steps/{step_id}")


@by("$track", "Task")
def track(page: Page, id_: str, given: dict[str, Any]) -> None:
    """`state`, and `at`."""
    open_step(page, id_)
    _at(page, given)
    page.locator(f"button[name=state][value={given['state']}]").click()
    done(page)


@by("$start", "Task")
def start(page: Page, id_: str, given: dict[str, Any]) -> None:
    """`at`."""
    open_step(page, id_)
    _at(page, given)
    page.get_by_role("button", name="Start", exact=False).click()
    done(page)


@by("$complete", "Task")
def complete(page: Page, id_: str, given: dict[str, Any]) -> None:
    """All but `performer`: who is logged in."""
    _ends(page, id_, "complete", given)


@by("$stop", "Task")
def stop(page: Page, id_: str, given: dict[str, Any]) -> None:
    _ends(page, id_, "stop", given)


@by("$repeat", "Task")
def repeat(page: Page, id_: str, given: dict[str, Any]) -> None:
    open_step(page, id_)
    dialog = _dialog(page, "repeat")
    dialog.get_by_label("Reason").select_option(_code(given["reason"]))
    if "images" in given:
        dialog.get_by_label("Rejected images").fill(str(given["images"]))
    if given.get("new_step"):
        dialog.get_by_label("All is done anew").check()
    _submit(page, dialog)


@by("$give-contrast", "Task")
def give_contrast(page: Page, id_: str, given: dict[str, Any]) -> None:
    open_step(page, id_)
    dialog = _dialog(page, "contrast")
    dialog.get_by_label("Contrast agent").select_option(_key(given["agent"]))
    dialog.get_by_label("Dose in mL").fill(str(given["dose"]["value"]))
    if "route" in given:
        dialog.get_by_label("Route").select_option(_code(given["route"]))
    if "at" in given:
        dialog.get_by_label("Time").fill(_local(given["at"]))
    if "override_reason" in given:
        dialog.get_by_label("Given all the same").fill(given["override_reason"])
    _submit(page, dialog)


@by("$protocol", "ServiceRequest")
def protocol(page: Page, id_: str, given: dict[str, Any]) -> None:
    """Of the requested procedure, from the page of one of its steps."""
    open_step(page, step_of(page, id_))
    dialog = _dialog(page, "protocol")
    for box in dialog.get_by_role("group", name="Protocol").get_by_role("checkbox").all():
        box.uncheck()
    for one in _each(given, "protocol"):
        box = dialog.locator(f'input[name=protocol][value="{_key(one)}"]')
        if box.count():
            box.check()
        else:
            dialog.locator("[name=other-protocol]").fill(_words(one))
    agents = [_key(one) for one in _each(given, "contrast")]
    for number, select in enumerate(dialog.locator("select[name=contrast]").all()):
        select.select_option(agents[number] if number < len(agents) else "")
    for name in ("pre_medication", "preparation", "note"):
        for one in _each(given, name):
            dialog.locator(f"[name={name.replace('_', '-')}]").fill(one if isinstance(one, str) else _words(one))
    _submit(page, dialog)


@by("$clear-safety", "ServiceRequest")
def clear_safety(page: Page, id_: str, given: dict[str, Any]) -> None:
    """All that stops it, or the `issue`s that are named."""
    open_step(page, step_of(page, id_))
    dialog = _dialog(page, "clear")
    named = [one["reference"].rpartition("/")[2] for one in _each(given, "issue")]
    for box in dialog.get_by_role("checkbox").all():
        box.set_checked(not named or box.get_attribute("value") in named)
    dialog.get_by_label("Why").fill(given["reason"])
    _submit(page, dialog)


@by("create", "QuestionnaireResponse")
def answer(page: Page, id_: str, given: dict[str, Any]) -> None:
    """The patient of a step (its id) answers a `questionnaire` (`pregnancy`): `answers` by question, booleans, codes, texts."""
    open_step(page, id_)
    link = page.locator(f'a[href$="/questions/{given["questionnaire"]}"]')
    if not link.is_visible():
        page.get_by_text("Other questionnaires").click()
    link.click()
    for question, value in given["answers"].items():
        field = page.locator(f'[name="answer.{question}"]')
        if isinstance(value, bool) or field.first.get_attribute("type") == "radio":
            page.locator(f'[name="answer.{question}"][value="{str(value).lower()}"]').check()
        else:
            field.fill(value)
    page.get_by_role("button", name="Keep the answers").click()
    done(page)


def check_in(page: Page, id_: str, _given: dict[str, Any]) -> None:
    open_step(page, step_of(page, id_))
    page.get_by_role("button", name="Check in").click()
    done(page)


def no_show(page: Page, id_: str, _given: dict[str, Any]) -> None:
    open_step(page, step_of(page, id_))
    _submit(page, _dialog(page, "no-show"))


@by("$reconcile", "Procedure")
def reconcile(page: Page, id_: str, given: dict[str, Any]) -> None:
    """`order`, the order or its requested procedure; `step` where it matters."""
    _reconcile(page, f"Procedure/{id_}", given)


@by("$reconcile", "ImagingStudy")
def reconcile_study(page: Page, id_: str, given: dict[str, Any]) -> None:
    _reconcile(page, f"ImagingStudy/{id_}", given)


def _reconcile(page: Page, about: str, given: dict[str, Any]) -> None:
    order = given["order"]["reference"].rpartition("/")[2]
    page.goto(f"/rooms/settle/{about}?order={order}")
    column = page.locator(f'form[data-of~="{order}"]')
    if "step" in given:
        column.locator("select").select_option(given["step"]["reference"].rpartition("/")[2])
    column.get_by_role("button").click()
    done(page)


def step_of(page: Page, id_: str) -> str:
    """The step of an order, a requested procedure or an appointment, as the screen leads to it."""
    page.goto(f"/rooms/of/{id_}")
    found = re.search(r"/rooms/steps/([^/?]+)", page.url)
    assert found, page.locator("main").inner_text()
    return found[1]


def _ends(page: Page, id_: str, how: str, given: dict[str, Any]) -> None:
    open_step(page, id_)
    dialog = _dialog(page, how)
    if how == "stop":
        dialog.get_by_label("Reason").select_option(_code(given["reason"]))
        dialog.get_by_label("To be repeated").set_checked(bool(given.get("repeat")))
    for name in ("start", "end"):
        if name in given:
            dialog.locator(f"[name={name}]").fill(_local(given[name]))
    for one in _each(given, "protocol"):
        dialog.locator("[name=protocol]").fill(_words(one))
    for name in ("series", "images", "note"):
        if name in given:
            dialog.locator(f"[name={name}]").fill(str(given[name]))
    _submit(page, dialog)


def _dialog(page: Page, name: str) -> Locator:
    page.locator(f"[data-opens={name}]").click()
    return page.locator(f"dialog#{name}")


def _submit(page: Page, dialog: Locator) -> None:
    dialog.locator(".buttons button").first.click()
    done(page)


def _at(page: Page, given: dict[str, Any]) -> None:
    if "at" in given:
        page.get_by_text("At another time").click()
        page.locator("#move-at").fill(_local(given["at"]))


def _local(moment: Any) -> str:
    """A dateTime in UTC as a field of date and time takes it (departments in tests are in UTC)."""
    text = moment["valueDateTime"] if isinstance(moment, dict) else str(moment)
    return text[:16]


def _each(given: dict[str, Any], name: str) -> Iterator[Any]:
    value = given.get(name, ())
    yield from value if isinstance(value, list | tuple) else [value]


def _code(concept: dict[str, Any]) -> str:
    return str((concept.get("coding") or [concept])[0]["code"])


def _key(concept: dict[str, Any]) -> str:
    coding = next(iter(concept.get("coding", ())), {})
    return f"{coding.get('system', '')}|{coding['code']}" if "code" in coding else str(concept["text"])


def _words(concept: dict[str, Any]) -> str:
    coding = next(iter(concept.get("coding", ())), {})
    return str(concept.get("text") or coding.get("display") or coding.get("code"))
