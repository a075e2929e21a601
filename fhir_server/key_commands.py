"""`fhir-ris keys list | rotate`: the keys that id tokens are signed with."""

from typing import TYPE_CHECKING, Annotated

import typer

from fhir_server.command import Db, print_table, run_command, settings, table
from fhir_server.start_error import StartError

if TYPE_CHECKING:
    from smart_auth.signing_keys import SigningKey

app = typer.Typer(no_args_is_help=True, help="Keys that id tokens are signed with.")


@app.command("list")
def show_all() -> None:
    """List the keys that are served."""
    from smart_auth.signing_keys import SigningKeys, signing_key_file

    async def act(db: Db) -> None:
        _show(await SigningKeys(db, signing_key_file(settings().data_dir)).served())

    run_command(act)


@app.command("rotate")
def rotate(
    at_once: Annotated[bool, typer.Option("--at-once", help="the old keys are not to be trusted any more, from now on")] = False,
) -> None:
    """Make new keys. They are published now and sign in an hour, when every client can have seen them."""
    from smart_auth.key_file import KeyFileError
    from smart_auth.signing_keys import SigningKeys, signing_key_file

    async def act(db: Db) -> None:
        try:
            _show(await SigningKeys(db, signing_key_file(settings().data_dir)).rotate(at_once=at_once))
        except KeyFileError as error:
            raise StartError(str(error)) from None

    run_command(act)


def _show(keys: "list[SigningKey]") -> None:
    rows = table("kid", "algorithm", "state", "signs from")
    for key in keys:
        rows.add_row(key.kid, key.alg, key.state, f"{key.active_from:%Y-%m-%d %H:%M}")
    print_table(rows)
