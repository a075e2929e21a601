"""The department's people: they log in through the login page of the server, as an app sends them there."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final, cast

from benchmarks.department.stage import Resource, Stage
from demo.apps import App
from demo.server import Server
from tests import quick_command, smart_app

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

    async def close(self) -> None:
        for person in self.people.values():
            await person.close()


async def _command(server: Server, *arguments: str, said: str = "") -> None:
    env = server._environment()
    done = await asyncio.to_thread(quick_command.run, *arguments, env=env, stdin=said, cwd=server.directory)
    assert done.returncode == 0, done.stderr


async def engage(stage: Stage) -> Staff:
    """Make them known: as Practitioners, and as users of the server."""
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
    return Staff({name: Person(login, server.base_url) for name, (login, _, _) in _PEOPLE.items()})
