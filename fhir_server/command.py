"""What the commands of `fhir-ris` share: settings, database, tables, and how they end."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

import typer
import uvloop
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from fhir_server.database import DatabaseError, connect
from fhir_server.logs import configure_logging
from fhir_server.mongod import MongodError, mongodb_for_command
from fhir_server.settings import Settings, SettingsError, load_settings
from fhir_server.start_error import StartError

T = TypeVar("T")
Db = AsyncDatabase[dict[str, Any]]


def table(*columns: str) -> Any:
    """An empty table for `print_table`."""
    from rich.table import Column, Table

    return Table(Column(columns[0], no_wrap=True), *(Column(c, overflow="fold") for c in columns[1:]))


def print_table(rows: Any) -> None:
    """Print a table to standard output."""
    from rich.console import Console

    Console().print(rows)


def settings() -> Settings:
    """The settings; wrong ones end the command."""
    try:
        return load_settings()
    except SettingsError as error:
        end(error.lines)


def run_command(act: Callable[[Db], Awaitable[None]]) -> None:
    """Run a command on the database of a running server, or on its own."""
    chosen = settings()
    configure_logging(chosen.log_format, level=30)

    async def connected() -> None:
        async with mongodb_for_command(chosen) as uri:
            db = await connect(uri, chosen.mongodb_database)
            try:
                await act(db)
            finally:
                await db.client.close()

    run(connected())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; what can't be done ends the command with one line."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except (StartError, MongodError, DatabaseError) as error:
        end([str(error)])
    except PyMongoError as error:
        end([f"MongoDB: {type(error).__name__}"])
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def operator() -> str:
    """Who the audit trail shows for what a command does."""
    try:
        return f"command-line:{getpass.getuser()}"
    except (OSError, KeyError):  # no such user on this machine, as in some containers
        return "command-line"


def end(lines: list[str]) -> NoReturn:
    """End the command: what was wrong, on standard error, and exit code 2."""
    for line in lines:
        print(f"fhir-ris: {line}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(2)
