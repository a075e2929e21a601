"""`/account/apps`: the apps that somebody has given access, and how to end it (SMART App Launch 2.2, `management_endpoint`)."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pymongo.asynchronous.database import AsyncDatabase
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smart_auth.audit_events import Audit
from smart_auth.authlib_bridge import Bridge
from smart_auth.clients import Clients
from smart_auth.consent_words import Sentence, sentence
from smart_auth.consents import Consents, Remembered
from smart_auth.endpoints import MANAGE_PATH
from smart_auth.grants import Grant, Grants, Life
from smart_auth.login_pages import LOGIN, both, see_other
from smart_auth.page_forms import posted
from smart_auth.pages import page
from smart_auth.sessions import Session, Sessions

_NOT_ASKED = "it has no access now, but would get it again without asking you"
_LASTS: dict[Life, str] = {"": "for an hour", "online": "as long as you are logged in", "offline": "until it is ended"}


@dataclass(frozen=True, slots=True)
class GrantedApp:
    """One app on the page: everything that it was granted at some time, and the longest that any of it lasts.

    An app whose access has run out is there too, as long as it would get it again without asking.
    """

    client_id: str
    title: str
    since: str
    lasts: str
    sentences: list[Sentence]


class AppsPage:
    """The handlers."""

    def __init__(
        self, db: AsyncDatabase[dict[str, Any]], bridge: Bridge, sessions: Sessions, audit: Audit, own_origin: str
    ) -> None:
        self._clients = Clients(db)
        self._grants = Grants(db)
        self._consents = Consents(db)
        self._bridge = bridge
        self._sessions = sessions
        self._audit = audit
        self._origin = own_origin

    async def show(self, request: Request) -> Response:
        session = await self._sessions.current(request)
        if session is None:
            return see_other(f"{LOGIN}?{urlencode({'next': MANAGE_PATH})}")
        return page("apps.html", session=session, apps=await self._apps(session), done="done" in request.query_params)

    async def end(self, request: Request) -> Response:
        """End everything that one app was granted; the next time it asks again."""
        session = await self._sessions.current(request)
        if session is None:
            return see_other(f"{LOGIN}?{urlencode({'next': MANAGE_PATH})}")
        client_id = (await posted(request, session.csrf, self._origin)).get("client_id", "")
        await self._consents.withdraw(session.user, client_id)
        for grant in await self._grants.of_user(session.user):
            if grant.client_id == client_id:
                await self._bridge.end(grant.grant_id)
        await self._audit("withdraw", True, client_id or None, "", session.user.name)
        return see_other(f"{MANAGE_PATH}?done")

    async def _apps(self, session: Session) -> list[GrantedApp]:
        by_client: dict[str, list[Grant]] = {}
        for grant in await self._grants.of_user(session.user):
            by_client.setdefault(grant.client_id, []).append(grant)
        remembered: dict[str, list[Remembered]] = {}
        for consent in await self._consents.of_user(session.user):
            client = await self._clients.get(consent.client_id)
            if client is not None and client.registration == consent.registration:  # of one before it counts no more
                remembered.setdefault(consent.client_id, []).append(consent)
        ids = dict.fromkeys((*by_client, *remembered))
        apps = [await self._app(client_id, by_client.get(client_id, []), remembered.get(client_id, [])) for client_id in ids]
        return sorted(apps, key=lambda app: app.title.lower())

    async def _app(self, client_id: str, grants: list[Grant], remembered: list[Remembered]) -> GrantedApp:
        client = await self._clients.get(client_id)
        lists = [grant.scopes for grant in grants] + [consent.scopes for consent in remembered]
        scopes = dict.fromkeys(text for texts in lists for text in texts)
        lives = sorted((grant.life for grant in grants), key=list(_LASTS).index)
        since = min([grant.auth_time for grant in grants] + [consent.at for consent in remembered])
        return GrantedApp(
            client_id,
            client.title if client else client_id,
            f"{since:%Y-%m-%d}",
            _LASTS[lives[-1]] if lives else _NOT_ASKED,
            [sentence(text) for text in scopes],
        )

    def routes(self) -> list[Route]:
        return both(MANAGE_PATH, self.show, self.end)
