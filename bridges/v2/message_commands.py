"""`fhir-ris messages list | show | replay | cancel`: the message store for whoever looks after the interfaces."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_server.command import Db, operator, print_table, run_command, settings, table
from fhir_server.start_error import StartError

if TYPE_CHECKING:
    from bridges.v2.operations import Operator

app = typer.Typer(no_args_is_help=True, help="HL7 v2 messages, received and sent.")
_DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
Id = Annotated[str, typer.Argument(metavar="ID")]


@app.command("list")
def messages_list(
    outbound: Annotated[bool, typer.Option("--out/--in", help="those sent; those received")] = False,
    patient: Annotated[str, typer.Option(help="of this patient: Patient/ID, ID or an identifier")] = "",
    order: Annotated[str, typer.Option(help="about this order: ServiceRequest/ID, ID or one of its numbers")] = "",
    control_id: Annotated[str, typer.Option(help="with this MSH-10")] = "",
    partner: Annotated[str, typer.Option(help="from or to it: Endpoint/ID, ID, or MSH-3 and MSH-4 as HIS|HOSP")] = "",
    since: Annotated[datetime | None, typer.Option(formats=_DAY, help="from then on, UTC")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_DAY, help="before then, UTC")] = None,
    status: Annotated[
        str,
        typer.Option(
            "--status",
            "--state",
            help="CA, AA, AE, AR, parked, held; of --out pending, delivered, refused, dead, invalid, cancelled",
        ),
    ] = "",
    kind: Annotated[str, typer.Option("--type", help="such as ADT^A04, or ADT")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    plain: Annotated[bool, typer.Option("--plain", help="tab-separated, for scripts")] = False,
) -> None:
    """List the newest messages."""
    from bridges.v2 import message_search

    wanted = message_search.Wanted(outbound, patient, order, control_id, partner, since, until, status, kind, limit)

    async def show(operator: "Operator") -> None:
        from rich.markup import escape

        rows = [message_search.row(document) for document in await operator.find(wanted)]
        if plain:
            for row in rows:
                typer.echo("\t".join(row))
            return
        found = table("id", "when", "type", "control id", "partner", "state", "attempts" if outbound else "refers to", "error")
        for row in rows:
            found.add_row(*(escape(cell) for cell in row))
        print_table(found)

    _operate(show)


@app.command("show")
def messages_show(
    message_id: Id,
    fields: Annotated[bool, typer.Option("--fields", help="a field a line")] = False,
    names: Annotated[bool, typer.Option("--names/--no-names", help="with the names of the fields")] = True,
) -> None:
    """Show a message and its outcome."""

    async def show(operator: "Operator") -> None:
        typer.echo(await operator.show(message_id, fields=fields, names=names))

    _operate(show)


@app.command("replay")
def messages_replay(message_id: Id) -> None:
    """Send a message again, as it was, under the same control id; or process again one that was received, and refused or held."""

    async def replay(operator: "Operator") -> None:
        typer.echo(await operator.replay(message_id))

    _operate(replay)


@app.command("cancel")
def messages_cancel(message_id: Id, reason: Annotated[str, typer.Option(help="why, for the record")]) -> None:
    """Don't send a message that waits, or was set aside."""

    async def cancel(operator: "Operator") -> None:
        await operator.cancel(message_id, reason)
        typer.echo("it will not be sent")

    _operate(cancel)


def _operate(act: Callable[["Operator"], Awaitable[None]]) -> None:
    async def connected(db: Db) -> None:
        from bridges.v2.operations import NotPossible, Operator
        from fhir_server.app import interactions_over
        from smart_auth.access import Access

        chosen = settings()
        interactions = await interactions_over(chosen, db)
        try:
            await act(Operator(interactions, Access.system(operator()), chosen.zone))
        except NotPossible as error:
            raise StartError(str(error)) from None

    run_command(connected)
