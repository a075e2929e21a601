"""SMART apps and backend services: what each may, how it proves itself, and who has granted it what."""

from starlette.responses import Response

from console.screen import Door, does, shows
from console.screens.administration.people import administration
from console.visit import Visit
from fhir_server.outcome import fail
from smart_auth.clients import ID_TOKEN_ALGORITHMS, Client, Clients, new_secret
from smart_auth.consent_words import sentence

_PATH = "/administration/apps"


async def index(visit: Visit) -> Response:
    """All of them."""
    return visit.page("administration/apps.html", clients=await _clients(visit).list())


def _clients(visit: Visit) -> Clients:
    return Clients(visit.console.interactions.store.db)


async def new(visit: Visit) -> Response:
    """The form for a new one."""
    return visit.page("administration/app_new.html", algorithms=ID_TOKEN_ALGORITHMS)


async def add(visit: Visit) -> Response:
    """Register one; a secret that is made is shown on the page that answers, and nowhere else."""
    form = visit.form
    secret = new_secret() if form.get("proof") == "secret" else None
    client = await administration(visit).add_client(
        form.text("id"),
        form.text("scope"),
        jwks=form.get("jwks") if form.get("proof") == "jwks" else None,
        jwks_uri=form.get("jwks-uri") if form.get("proof") == "jwks-uri" else None,
        redirect_uris=form.text("redirect-uris").split(),
        secret=secret,
        launch_uri=form.get("launch-uri"),
        name=form.text("name"),
        id_token_alg=form.get("id-token-alg") or ID_TOKEN_ALGORITHMS[0],
    )
    if secret is None:
        return visit.to(f"{_PATH}/{client.client_id}", "administration-app-added")
    return visit.page("administration/secret.html", client=client, secret=secret)


async def _client(visit: Visit) -> Client:
    client = await _clients(visit).get(visit.id())
    if client is None:
        raise fail("not-found", "there is no such app")
    return client


async def show(visit: Visit) -> Response:
    """One of them."""
    client = await _client(visit)
    return visit.page(
        "administration/app.html",
        client=client,
        sentences=[sentence(text) for text in client.scope.split()],
        granted=await administration(visit).granted_to(client),
    )


async def remove(visit: Visit) -> Response:
    """Remove it with all that was granted to it."""
    await administration(visit).remove_client(visit.id(), visit.form.text("registration"))
    return visit.to(_PATH, "administration-app-removed")


async def withdraw(visit: Visit) -> Response:
    """End what one person has granted to it."""
    client = await _client(visit)
    await administration(visit).withdraw(visit.form.text("user"), client.client_id)
    return visit.to(f"{_PATH}/{client.client_id}", "administration-withdrawn")


DOORS: list[Door] = [
    shows(_PATH, index),
    shows(f"{_PATH}/new", new),
    does(f"{_PATH}/new", add, new),
    shows(f"{_PATH}/{{id}}", show),
    does(f"{_PATH}/{{id}}/remove", remove, show),
    does(f"{_PATH}/{{id}}/withdraw", withdraw, show),
]
