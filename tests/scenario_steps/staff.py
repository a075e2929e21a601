"""The department's people: they log in through the login page of the server, as an app sends them there."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks.department.stage import Resource, Stage
from demo.apps import App
from demo.server import Server
from tests import quick_command, smart_app
from tests.console_world import CHROMIUM
from tests.examinations import SNOMED

if TYPE_CHECKING:
    from tests.scenario_steps.screen import Desks
    from tests.scenario_steps.world import Case

_APP, _SCOPE = "department-screen", "openid fhirUser user/*.cruds"
_ATTENDING, _RESIDENT = "405279007", "405277009"
# Who they are in scenarios: login, role, SNOMED CT code of the PractitionerRole.
_PEOPLE: Final = {
    "the scheduler": ("sam", "scheduler", ""),
    "the technologist": ("tilda", "technologist", ""),
    "the radiologist": ("ada", "radiologist", _ATTENDING),
    "another radiologist": ("otto", "radiologist", _ATTENDING),
    "the resident": ("rita", "radiologist", _RESIDENT),
}
PEOPLE: Final = "|".join(_PEOPLE)


class Person(App):
    """Somebody at the screen of an app."""

    def __init__(self, login: str, base_url: str) -> None:
        super().__init__(_APP, _SCOPE, base_url)
        self.login = login
        self.who = f"Practitioner/{login}"

    async def token(self) -> str:
        if time.time() > self._until:
            self._token = await asyncio.to_thread(self._log_in)
            self._until = time.time() + 200
        return self._token

    def _log_in(self) -> str:
        server = cast("Any", SimpleNamespace(base=self.base_url, fhir=f"{self.base_url}/fhir"))
        browser = smart_app.Browser(server)
        browser.log_in(self.login)
        app = smart_app.App(server, cast("Any", SimpleNamespace(client_id=self.client_id)), None)
        return str(app.tokens(browser, self.scope)["access_token"])

    async def do(self, path: str, **given: Any) -> Resource:
        """An operation, with these parameters. RuntimeError when it is refused."""
        return await self.ok("POST", path, parameters(**given))

    # What a person of the department does in a scenario over the app, and at the screen by another way (screen.py)

    async def book(self, case: "Case") -> None:
        """Book the order for its scanner and its time."""
        case.appointment = await self.ok("POST", "Appointment", case.booking())

    async def change(self, case: "Case", operation: str, **given: Any) -> None:
        """An operation on its appointment, such as `$cancel`."""
        await self.do(f"Appointment/{case.appointment['id']}/{operation}", **given)
        case.appointment = await self.ok("GET", f"Appointment/{case.appointment['id']}")

    async def answer(self, case: "Case", questionnaire: str, answers: dict[str, Any]) -> None:
        """Note what the patient answers."""
        said = {
            "resourceType": "QuestionnaireResponse",
            "questionnaire": f"urn:fhir-ris:questionnaire:{questionnaire}|1.0.0",
            "status": "completed",
            "subject": case.order["subject"],
            "authored": datetime.now(UTC).isoformat(timespec="seconds"),
            "item": [{"linkId": question, "answer": [_answer(value)]} for question, value in answers.items()],
        }
        await self.ok("POST", "QuestionnaireResponse", said)


def _answer(value: Any) -> dict[str, Any]:
    return {"valueBoolean": value} if isinstance(value, bool) else {"valueCoding": {"system": SNOMED, "code": value}}


class Code(str):
    """A valueCode."""

    __slots__ = ()


def parameters(**given: Any) -> Resource:
    """Parameters of texts, booleans, numbers, moments, Codes, resources, and what is told by its elements; lists repeat."""
    each = [(name, v) for name, values in given.items() for v in (values if isinstance(values, list) else [values])]
    return {"resourceType": "Parameters", "parameter": [{"name": name.replace("_", "-")} | _valued(v) for name, v in each]}


def _valued(value: Any) -> Resource:
    if isinstance(value, dict):
        if "resourceType" in value:
            return {"resource": value}
        kinds = {"value": "Quantity", "reference": "Reference", "coding": "CodeableConcept", "system": "Coding", "part": ""}
        kind = next(kind for name, kind in kinds.items() if name in value)
        return {f"value{kind}": value} if kind else value
    if isinstance(value, datetime):
        return {"valueDateTime": value.isoformat()}
    kinds_of = {bool: "Boolean", int: "Integer", Code: "Code", str: "String"}
    return {f"value{kinds_of[type(value)]}": value}


@dataclass(slots=True)
class Staff:
    """People by what scenarios call them."""

    people: dict[str, Person]
    desks: "Desks | None" = None

    @contextmanager
    def over_the_app(self) -> Iterator[None]:
        """What they do meanwhile they do at an app, not at the console."""
        desks, people = self.desks, self.people
        self.people = {name: Person(p.login, p.base_url) for name, p in people.items()} if desks else people
        try:
            yield
        finally:
            self.people = people

    async def close(self) -> None:
        if self.desks is not None:
            await self.desks.close()
        for person in self.people.values():
            await person.close()


async def _command(server: Server, *arguments: str, said: str = "") -> None:
    env = server._environment()
    done = await asyncio.to_thread(quick_command.run, *arguments, env=env, stdin=said, cwd=server.directory)
    assert done.returncode == 0, done.stderr


async def engage(stage: Stage) -> Staff:
    """Make them known: as Practitioners, and as users of the server. Where there is a Chromium, they work at the console."""
    server = stage.server
    commands = [_command(server, "client", "add", _APP, "--scope", _SCOPE, "--redirect-uri", smart_app.REDIRECT)]
    for login, role, kind in _PEOPLE.values():
        name = [{"given": [login.title()], "family": role.title()}]
        await stage.app.ok("PUT", f"Practitioner/{login}", {"resourceType": "Practitioner", "id": login, "name": name})
        if kind:
            code = [{"coding": [{"system": "http://snomed.info/sct", "code": kind}]}]
            who = {"reference": f"Practitioner/{login}"}
            role_of = {"resourceType": "PractitionerRole", "id": login, "practitioner": who, "code": code}
            await stage.app.ok("PUT", f"PractitionerRole/{login}", role_of)
        arguments = ("user", "add", login, "--role", role, "--fhir-user", f"Practitioner/{login}", "--password-stdin")
        commands.append(_command(server, *arguments, said=smart_app.PASSWORD))
    await asyncio.gather(*commands)
    if not CHROMIUM:
        return Staff({name: Person(login, server.base_url) for name, (login, _, _) in _PEOPLE.items()})
    from tests.scenario_steps.screen import AtTheScreen, Desks

    desks = Desks(server.base_url)
    return Staff({name: AtTheScreen(login, server.base_url, desks) for name, (login, _, _) in _PEOPLE.items()}, desks)
