"""The command line: `fhir-ris serve | demo | load | client | user | keys | messages | charges | version`.

The rooms are imported where they are needed: a command beside a server should answer at once.
"""

import functools
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridges.v2 import message_commands
from fhir_server import audit_commands, client_commands, key_commands, user_commands
from fhir_server.command import end as _end
from fhir_server.command import run as _run
from fhir_server.command import settings as _settings
from fhir_server.database import connect
from fhir_server.logs import configure_logging
from fhir_server.mongod import mongodb_for_command
from fhir_server.settings import Settings
from resources import charge_commands, number_commands

if TYPE_CHECKING:
    from fhir_server.interactions import Interactions

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="A radiology information system."
)
app.add_typer(client_commands.app, name="client")
app.add_typer(key_commands.app, name="keys")
app.add_typer(user_commands.app, name="user")
app.add_typer(audit_commands.app, name="audit")
app.add_typer(message_commands.app, name="messages")
app.add_typer(charge_commands.app, name="charges")
app.add_typer(number_commands.app, name="numbers")


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
