"""`fhir-ris numbers rebuild`: the rows that figures are made of, made anew from resources and history."""

import typer

from fhir_server.command import Db, run_command, settings

app = typer.Typer(no_args_is_help=True, help="Figures for managers.")


@app.callback()
def _numbers() -> None:
    """Figures for managers."""


@app.command("rebuild")
def rebuild() -> None:
    """Make the rows anew; beside a running server, or without. Once after an upgrade from a version without figures."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    from fhir_server.app import interactions_over
    from resources.numbers import bookings, exam_projection

    async def act(db: Db) -> None:
        interactions = await interactions_over(settings(), db)
        with Progress(TextColumn("{task.description}"), MofNCompleteColumn(), console=Console(), transient=True) as bars:
            for what, rows in (("examinations", exam_projection.rebuild), ("bookings", bookings.rebuild)):
                bar, done = bars.add_task(what, total=None), 0
                async for done in rows(interactions):
                    bars.update(bar, completed=done)
                typer.echo(f"{done} {what}")

    run_command(act)
