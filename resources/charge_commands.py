"""`fhir-ris charges check`: the daily reconciliation of charges, for a timer or a person; exit code 1 when there is a finding."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fhir_server.command import Db, operator, run_command, settings

if TYPE_CHECKING:
    from resources.charging.reconciliation import Finding

app = typer.Typer(no_args_is_help=True, help="Charges.")


@app.callback()
def charges() -> None:
    """Charges."""


@app.command()
def check(
    day: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="yesterday where none is named")] = None,
) -> None:
    """Show what of a day is not charged, not rightly, or not with its receiver; a line each: kind, about, text."""
    from fhir_server import audit
    from fhir_server.app import interactions_over
    from fhir_server.audit import Act
    from resources.charging.reconciliation import reconcile
    from resources.charging.reconciliation_operation import bounds, day_named
    from smart_auth.access import Access

    found: list[Finding] = []
    chosen = day.date() if day else None

    async def look(db: Db) -> None:
        nonlocal chosen
        interactions = await interactions_over(settings(), db)  # which tells the charges the department's zone
        chosen = chosen or day_named(None)
        found.extend(await reconcile(interactions.store, *bounds(chosen)))
        act = Act("charges-check", source="command-line", detail=str(chosen))
        await interactions.record(Access.system(operator()), act, audit.seen(dict.fromkeys(f.about for f in found)))

    run_command(look)
    for finding in found:
        typer.echo(f"{finding.kind}\t{finding.about}\t{finding.text}")
    if found:
        raise typer.Exit(1)
    typer.echo(f"{chosen}: all charges are right")
