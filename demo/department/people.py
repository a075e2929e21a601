"""Logins: one for each role, and the second factor that some of them need."""

import asyncio
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pyotp

from demo.apps import App
from demo.server import Server

Resource = dict[str, Any]
PASSWORD: Final = "seven quiet x-rays"  # noqa: S105 - of a demonstration that listens on loopback
_SNOMED: Final = "http://snomed.info/sct"
_ATTENDING, _RESIDENT = "405279007", "405277009"


@dataclass(frozen=True, slots=True)
class Login:
    """Who it is: login name, role, given and family name, SNOMED CT code of the PractitionerRole."""

    name: str
    role: str
    given: str
    family: str
    kind: str = ""


LOGINS: Final = (
    Login("sam", "scheduler", "Sam", "Schiller"),
    Login("tilda", "technologist", "Tilda", "Thoma"),
    Login("ada", "radiologist", "Ada", "Ahrens", _ATTENDING),
    Login("rita", "radiologist", "Rita", "Roth", _RESIDENT),
    Login("rolf", "referrer", "Rolf", "Referrer"),
    Login("ina", "interface-admin", "Ina", "Ibsen"),
    Login("max", "admin", "Max", "Mahler"),
    Login("otis", "auditor", "Otis", "Ochs"),
    Login("pia", "privacy-officer", "Pia", "Pohl"),
)


async def engage(server: Server, app: App, logins: Sequence[Login] = LOGINS) -> dict[str, list[str]]:
    """Make them known as Practitioners and as users; the recovery codes of those who need a second factor, by login.

    The referrer is the one whose orders have come before.
    """
    who = {login.name: login.name for login in logins}
    for login in logins:
        if login.role == "referrer":
            who[login.name] = (await app.search("Practitioner?identifier=4711"))[0]["id"]
    there: list[Resource] = []
    for login in logins:
        if login.role != "referrer":
            there.append(
                {"resourceType": "Practitioner", "id": login.name, "name": [{"family": login.family, "given": [login.given]}]}
            )
        if login.kind:
            code = [{"coding": [{"system": _SNOMED, "code": login.kind}]}]
            practitioner = {"reference": f"Practitioner/{login.name}"}
            there.append({"resourceType": "PractitionerRole", "id": login.name, "practitioner": practitioner, "code": code})
    await app.put(there)
    arguments = [("--role", login.role, "--fhir-user", f"Practitioner/{who[login.name]}", "--password-stdin") for login in logins]
    added = (server.command("user", "add", login.name, *a, said=PASSWORD) for login, a in zip(logins, arguments, strict=True))
    await asyncio.gather(*added)
    codes = {}
    for login in logins:
        if found := await enrolled(server.base_url, login.name):
            codes[login.name] = found
    return codes


async def enrolled(base_url: str, name: str) -> list[str]:
    """Log in for the first time, and set up the second factor if the role needs one; its recovery codes."""
    async with httpx.AsyncClient(base_url=base_url, follow_redirects=True, timeout=60) as http:
        page = await log_in(http, name)
        secret = re.search(r'id="secret"[^>]*>([^<]+)<', page.text)
        if secret is None:
            return []
        code = pyotp.TOTP(html.unescape(secret[1]).replace(" ", "")).now()
        page = await http.post("/account/second-factor", data={"code": code, "action": "confirm", "csrf": _csrf(page)})
        return re.findall(r'<code translate="no">([^<]+)</code>', page.text)


async def log_in(http: httpx.AsyncClient, name: str, recovery_code: str = "") -> httpx.Response:
    """At the login page, and with a recovery code at that of the second factor; the page that follows."""
    page = await http.get("/login")
    page = await http.post("/login", data={"name": name, "password": PASSWORD, "csrf": _csrf(page)})
    if recovery_code:
        page = await http.get("/login/second-factor?recovery")
        page = await http.post("/login/second-factor", data={"code": recovery_code, "csrf": _csrf(page)})
    return page


def _csrf(page: httpx.Response) -> str:
    return str(re.findall(r'name="csrf" value="([^"]+)"', page.text)[-1])
