"""`fhir-ris client add | list | remove`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_server.command import Db, print_table, run_command, table
from fhir_server.start_error import StartError

if TYPE_CHECKING:
    from smart_auth.clients import Client

app = typer.Typer(no_args_is_help=True, help="SMART clients: who may use the FHIR API.")
Id = Annotated[str, typer.Argument(metavar="ID")]


@app.command("add")
def add(
    client_id: Id,
    scope: Annotated[str, typer.Option(help='SMART scopes, such as "system/*.rs" or "launch openid fhirUser patient/*.rs"')],
    jwks: Annotated[Path | None, typer.Option(help="file with the client's public keys (a JWK Set)")] = None,
    jwks_uri: Annotated[str | None, typer.Option(help="https URL where the client publishes its public keys")] = None,
    redirect_uri: Annotated[
        list[str] | None, typer.Option(help="where people are sent back to: makes it an app that people use; may be repeated")
    ] = None,
    secret: Annotated[bool, typer.Option("--secret", help="make a secret for that app, and print it once")] = False,
    launch_uri: Annotated[str | None, typer.Option(help="where an EHR session starts that app")] = None,
    name: Annotated[str, typer.Option(help="what people are shown; otherwise the ID")] = "",
    id_token_alg: Annotated[str, typer.Option(help="how its id tokens are signed: RS256 or ES384")] = "RS256",  # noqa: S107 - an algorithm
) -> None:
    """Register a client: a backend service with keys, or an app that people use, which is public without keys and secret."""
    from smart_auth.clients import ClientError, Clients, new_secret

    async def act(db: Db) -> None:
        try:
            keys = jwks.read_text() if jwks else None
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"{jwks} can't be read: {error}") from None
        made = new_secret() if secret else None
        try:
            client = await Clients(db).add(
                client_id,
                scope,
                jwks=keys,
                jwks_uri=jwks_uri,
                redirect_uris=redirect_uri or (),
                secret=made,
                launch_uri=launch_uri,
                name=name,
                id_token_alg=id_token_alg,
            )
        except ClientError as error:
            raise StartError(str(error)) from None
        typer.echo(f"client {client_id} registered: {_kind(client)}")
        if made is not None:
            typer.echo(f"its secret, which is not kept and not shown again: {made}")

    run_command(act)


@app.command("list")
def show_all() -> None:
    """List the clients."""
    from smart_auth.clients import Clients

    async def act(db: Db) -> None:
        rows = table("id", "kind", "scope", "redirect URIs", "since")
        for client in await Clients(db).list():
            uris = "\n".join(client.redirect_uris)
            rows.add_row(client.client_id, _kind(client), client.scope, uris, f"{client.created:%Y-%m-%d %H:%M}")
        print_table(rows)

    run_command(act)


@app.command("remove")
def remove(client_id: Id) -> None:
    """Remove a client, its tokens and what people granted to it, at once."""
    from smart_auth.clients import Clients

    async def act(db: Db) -> None:
        if not await Clients(db).remove(client_id):
            raise StartError(f"there is no client {client_id}")
        typer.echo(f"client {client_id} removed")

    run_command(act)


def _kind(client: "Client") -> str:
    proof = {"none": "public", "client_secret": "with a secret", "private_key_jwt": "with a key"}[client.auth_method]
    return f"app, {proof}" if client.redirect_uris else f"backend service, {proof}"
