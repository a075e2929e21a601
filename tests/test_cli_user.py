"""`fhir-ris user ...` beside a running server: what it changes holds at once, and the audit trail says who did it."""

import getpass
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.audit import search_index
from fhir_server.search.index import index
from fhir_server.validation import validate
from tests import quick_command
from tests.people_app import OTHER_PASSWORD, PASSWORD, Browser, PeopleApp, serving_people

ONE_TIME = re.compile(r"not shown again: ([a-z0-9-]{23})$", re.MULTILINE)


class House:
    """A server, and the command line with its settings."""

    def __init__(self, app: PeopleApp, uri: str) -> None:
        self.app = app
        self.env = os.environ | {
            "RIS_MONGODB_URI": uri,
            "RIS_MONGODB_DATABASE": app.db.name,
            "RIS_DATA_DIR": str(app.data_dir),
            "COLUMNS": "200",
        }

    def user(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return quick_command.run("user", *arguments, env=self.env, stdin=stdin)

    def done(self, *arguments: str, stdin: str = "") -> str:
        """What a command prints that goes well."""
        ran = self.user(*arguments, stdin=stdin)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Why a command is refused, in one line."""
        ran = self.user(*arguments, stdin=stdin)
        assert ran.returncode == 2
        assert ran.stdout == ""
        [line] = ran.stderr.splitlines()
        return line

    def add(self, role: str = "radiologist", password: str = PASSWORD) -> str:
        name = f"user-{uuid4().hex[:8]}"
        self.done("add", name, "--role", role, "--fhir-user", "Practitioner/p1", "--password-stdin", stdin=f"{password}\n")
        return name

    def audit(self, name: str) -> list[dict[str, Any]]:
        """What was done to a user."""

        async def read() -> list[dict[str, Any]]:
            found = self.app.db["AuditEvent"].find({"resource.entity.description": f"user {name}"}, sort=[("$natural", 1)])
            return [d["resource"] async for d in found]

        return self.app.run(read())


@pytest.fixture(scope="module")
def house(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving_people(mongodb_uri, tmp_path_factory.mktemp("data")) as app:
        yield House(app, mongodb_uri)


@pytest.fixture(autouse=True)
def _fresh_network(house: House) -> None:
    async def forget() -> None:
        await house.app.db["oauth_delays"].delete_many({})

    house.app.run(forget())


def test_a_user_who_is_added_can_log_in_at_once(house: House) -> None:
    name = house.add("technologist")
    browser = Browser(house.app).log_in(name)
    assert browser.logged_in
    assert "technologist" in browser.page.text


def test_without_a_password_a_one_time_password_is_printed_once_and_must_be_changed(house: House) -> None:
    printed = house.done("add", "fresh.user", "--role", "scheduler", "--fhir-user", "Practitioner/p1")
    [password] = ONE_TIME.findall(printed)
    assert "one-time password" in house.done("list")
    assert password not in house.done("list")
    browser = Browser(house.app).log_in("fresh.user", password)
    assert browser.path == "/account/password"
    browser.submit("/account/password", new=OTHER_PASSWORD, again=OTHER_PASSWORD)
    assert browser.logged_in
    assert Browser(house.app).log_in("fresh.user", password).page.status_code == 403


def test_one_time_passwords_are_never_the_same(house: House) -> None:
    with ThreadPoolExecutor(2) as pool:
        adding = pool.map(
            lambda n: house.done("add", n, "--role", "auditor", "--fhir-user", "Practitioner/p1"), ["twin-1", "twin-2"]
        )
    first, second = (ONE_TIME.findall(printed)[0] for printed in adding)
    assert first != second


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(house: House) -> None:
    name = f"user-{uuid4().hex[:8]}"
    command = [sys.executable, "-m", "fhir_server", "user", "add", name, "--role", "auditor", "--fhir-user", "Practitioner/p1"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=house.env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = ""
    for question in ("Password", "Repeat"):
        while question not in shown:
            shown += os.read(ours, 1000).decode()
        time.sleep(0.3)  # until the echo is off
        os.write(ours, f"{PASSWORD}\n".encode())
    try:
        while part := os.read(ours, 1000).decode():
            shown += part
    except OSError:  # the terminal is gone with the process
        pass
    assert process.wait(60) == 0
    os.close(ours)
    assert f"user {name} added" in shown
    assert PASSWORD not in shown
    assert Browser(house.app).log_in(name).logged_in


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "-odd"}, "user name"),
        ({"name": "a" * 65}, "user name"),
        ({"name": "two words"}, "user name"),
        ({"role": "nurse"}, "'nurse' is no role: it must be one of scheduler, technologist"),
        ({"fhir_user": "Patient/1"}, "'Patient/1' is not a reference such as Practitioner/4711"),
        ({"fhir_user": "https://elsewhere.example/Practitioner/1"}, "is not a reference"),
        ({"stdin": "short\n"}, "at least 12 characters"),
        ({"stdin": "Password2026!\n"}, "first that would be tried"),
        ({"stdin": ""}, "at least 12 characters"),
    ],
)
def test_a_user_that_is_not_in_order_is_refused_in_one_line(house: House, changed: dict[str, str], said: str) -> None:
    given = {"name": "somebody.new", "role": "radiologist", "fhir_user": "Practitioner/p1", "stdin": f"{PASSWORD}\n", **changed}
    options = ["--role", given["role"], "--fhir-user", given["fhir_user"], "--password-stdin"]
    assert said in house.refused("add", *options, "--", given["name"], stdin=given["stdin"])
    assert "somebody.new" not in house.done("list")


def test_a_name_that_is_taken_is_refused_in_any_case_and_the_first_user_stays(house: House) -> None:
    name = house.add()
    options = ["--role", "admin", "--fhir-user", "Practitioner/p2", "--password-stdin"]
    assert f"there is a user '{name}' already" in house.refused("add", name.upper(), *options, stdin=f"{OTHER_PASSWORD}\n")
    assert Browser(house.app).log_in(name).logged_in


def test_who_is_not_in_the_store_is_said_and_added_all_the_same(house: House) -> None:
    options = ["--role", "auditor", "--fhir-user", "Practitioner/not-there"]
    assert "there is no Practitioner/not-there in the store yet" in house.user("add", "early.bird", *options).stderr
    assert "early.bird" in house.done("list")


def test_a_user_who_is_disabled_is_out_of_the_running_server_at_once(house: House) -> None:
    name = house.add()
    browser = Browser(house.app).log_in(name)
    assert browser.logged_in
    assert house.done("disable", name) == f"user {name} is disabled\n"
    assert not browser.logged_in
    assert browser.log_in(name).page.status_code == 403
    house.done("enable", name)
    assert browser.log_in(name).logged_in


def test_a_forgotten_password_is_replaced(house: House) -> None:
    name = house.add()
    browser = Browser(house.app).log_in(name)
    [password] = ONE_TIME.findall(house.done("password", name))
    assert not browser.logged_in
    assert browser.log_in(name).page.status_code == 403
    assert browser.log_in(name, password).path == "/account/password"


def test_another_role_holds_from_the_next_login(house: House) -> None:
    name = house.add("scheduler")
    browser = Browser(house.app).log_in(name)
    assert house.done("change", name, "--role", "auditor") == f"user {name} is auditor, Practitioner/p1\n"
    assert not browser.logged_in
    assert "auditor" in browser.log_in(name).page.text
    assert "is no role" in house.refused("change", name, "--role", "king")
    assert "nothing to change" in house.refused("change", name)


def test_a_lost_second_factor_is_reset(house: House) -> None:
    name = house.add("admin")
    assert house.done("mfa", name) == f"user {name} has no second factor, and must enrol one at the next login\n"
    user = house.app.run(house.app.users.get(name))
    assert user
    house.app.with_device(user)
    assert re.search(r"has a second factor since .*, 10 recovery codes left", house.done("mfa", name))
    browser = Browser(house.app).log_in(name)
    assert browser.path == "/login/second-factor"
    assert "has no second factor, and must enrol" in house.done("mfa", name, "--reset")
    assert browser.open("/account").path.startswith("/login?")
    assert browser.log_in(name).path == "/account/second-factor"


@pytest.mark.parametrize(
    "command", [["disable"], ["enable"], ["password"], ["mfa"], ["mfa", "--reset"], ["change", "--role", "admin"]]
)
def test_nobody_of_that_name_is_one_line(house: House, command: list[str]) -> None:
    assert house.refused(*command, "Nobody.There") == "fhir-ris: there is no user 'nobody.there'"


def test_the_list_shows_role_and_state_and_no_secret(house: House) -> None:
    name = house.add("interface-admin")
    house.done("disable", name)
    [row] = [line for line in house.done("list").splitlines() if name in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:5] == [name, "interface-admin", "Practitioner/p1", "to be enrolled", "disabled"]
    assert "argon2" not in house.done("list")


def test_what_an_operator_does_is_audited(house: House) -> None:
    name = house.add("admin")
    for command in (["disable"], ["enable"], ["password"], ["mfa"], ["mfa", "--reset"], ["change", "--role", "auditor"]):
        house.done(*command, name)
    events = house.audit(name)
    assert [e["subtype"][0]["code"] for e in events] == [
        "user-add", "user-disable", "user-enable", "user-password", "second-factor-reset", "user-change",
    ]  # fmt: skip
    for event in events:
        assert event["agent"][0]["who"]["identifier"] == {"system": "urn:fhir-ris:operator", "value": getpass.getuser()}
        assert event["entity"][0]["what"] == {"reference": "Practitioner/p1"}
        assert event["outcome"] == "0"
        assert validate(event) == []
        assert search_index(event) == index(event)
    assert PASSWORD not in str(events)
