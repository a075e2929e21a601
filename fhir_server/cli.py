"""The command line: `fhir-ris serve | demo | load | client | user | keys | messages | version`.

The rooms are imported where they are needed: a command beside a server should answer at once.
"""

import functools
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_server import audit_commands, client_commands, key_commands, user_commands
from fhir_server.command import Db
from fhir_server.command import end as _end
from fhir_server.command import print_table as _print
from fhir_server.command import run as _run
from fhir_server.command import run_command as _command
from fhir_server.command import settings as _settings
from fhir_server.command import table as _table
from fhir_server.database import connect
from fhir_server.logs import configure_logging
from fhir_server.mongod import mongodb_for_command
from fhir_server.settings import Settings
from fhir_server.start_error import StartError

if TYPE_CHECKING:
    from fhir_server.interactions import Interactions

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="A radiology information system."
)
messages_app = typer.Typer(no_args_is_help=True, help="HL7 v2 messages, received and sent.")
app.add_typer(client_commands.app, name="client")
app.add_typer(key_commands.app, name="keys")
app.add_typer(user_commands.app, name="user")
app.add_typer(audit_commands.app, name="audit")
app.add_typer(messages_app, name="messages")


@app.command()
def serve(
    roles: Annotated[str, typer.Option(help="which of http,v2,dicom,delivery this process plays")] = "http,v2,dicom,delivery",
) -> None:
    """Start the server."""
    settings = _settings()
    if settings.http_workers > 1:
        _share_metrics(settings)
    from fhir_server import serve as server

    chosen = frozenset(r.strip() for r in roles.split(","))
    if unknown := chosen - set(server.ROLES):
        _end([f"--roles: {', '.join(sorted(unknown))} is none of {', '.join(server.ROLES)}"])
    configure_logging(settings.log_format)
    _run(server.serve(settings, chosen))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="stop after the last step; exit 0 only if all went well")] = False,
) -> None:
    """Play one imaging order, from the EHR's order to the report back in the EHR."""
    from demo.stage import play

    configure_logging("console", level=40)
    if not _run(play(once=once)):
        raise typer.Exit(1)


@app.command()
def load(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Bundles (.json) and .ndjson, also .gz")
    ],
    processes: Annotated[int, typer.Option(min=1, max=64, help="how many processes write")] = min(2, os.cpu_count() or 1),
    again: Annotated[bool, typer.Option("--again", help="also files that were loaded before")] = False,
) -> None:
    """Load resources; the same command again goes on where it stopped. Exit code 1: FILE.refused.ndjson says what was refused."""
    from rich.console import Console

    from fhir_server.loading.workers import are_worth, prepare

    settings = _settings()
    if are_worth(processes, files):
        prepare("fhir_server.app")
    from fhir_server.loading import load_files
    from fhir_server.loading.progress import Progress

    async def run() -> int:
        async with mongodb_for_command(settings) as uri:
            opened = functools.partial(_interactions, settings, uri)
            base_url = f"{settings.base_url}/fhir"
            total = await load_files(files, opened, Progress(Console()), base_url=base_url, processes=processes, again=again)
            return total.refused

    if _run(run()):
        raise typer.Exit(1)


async def _interactions(settings: Settings, uri: str) -> "Interactions":
    """The interactions of the whole product, in whichever process this is."""
    from fhir_server.app import interactions_over

    configure_logging(settings.log_format, level=30)
    return await interactions_over(settings, await connect(uri, settings.mongodb_database))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"fhir-ris {metadata.version('fhir-ris')}")


@messages_app.command("list")
def messages_list(
    outbound: Annotated[bool, typer.Option("--out", help="those sent, instead of those received")] = False,
    state: Annotated[str, typer.Option(help="only AA, AE, AR (received) or pending, delivered, refused (sent)")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    plain: Annotated[bool, typer.Option("--plain", help="tab-separated, for scripts")] = False,
) -> None:
    """List the newest messages."""
    from bridges.v2 import operations

    async def show(db: Db) -> None:
        rows = await operations.list_messages(db, outbound=outbound, state=state, limit=limit)
        if plain:
            for row in rows:
                typer.echo("\t".join(row))
            return
        table = _table("id", "when", "type", "control id", "partner", "state", "attempts" if outbound else "refers to", "error")
        for row in rows:
            table.add_row(*row)
        _print(table)

    _command(show)


@messages_app.command("show")
def messages_show(message_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show a message and its outcome."""
    from bridges.v2 import operations

    async def show(db: Db) -> None:
        text = await operations.show_message(db, message_id)
        if text is None:
            raise StartError(f"there is no message {message_id}")
        typer.echo(text)

    _command(show)


@messages_app.command("replay")
def messages_replay(message_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Send a message that was refused again, as it was, under the same control id."""
    from bridges.v2 import operations

    async def replay(db: Db) -> None:
        if not await operations.replay(db, message_id):
            raise StartError(f"there is no refused message {message_id} in the outbox")
        typer.echo("it will be sent again")

    _command(replay)


def _share_metrics(settings: Settings) -> None:
    """A fresh directory in which the processes of this server keep their counters."""
    directory = settings.data_dir / "metrics"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(parents=True, mode=0o700)
    except OSError as error:
        _end([f"{directory} can't be made: {error.strerror}"])
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def main() -> None:
    """The console script."""
    app()
