"""`fhir-ris audit verify | export | prune`: the audit trail for whoever answers for it."""

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fhir_server.command import Db, end, operator, run_command, settings

app = typer.Typer(no_args_is_help=True, help="The audit trail.")
_SHOWN = 100
_DAY = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

Since = Annotated[datetime | None, typer.Option(formats=_DAY, help="stored at or after this, UTC")]
Until = Annotated[datetime | None, typer.Option(formats=_DAY, help="stored before this, UTC")]


@app.command("verify")
def verify() -> None:
    """Check every event of the trail; exit code 1 if anything was changed or is missing."""
    from fhir_server import audit_verify
    from fhir_server.audit_key import audit_key

    shown = 0

    def tell(fault: audit_verify.Fault) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN:
            typer.echo(str(fault))

    async def check(db: Db) -> None:
        found = await audit_verify.check(db, audit_key(settings().data_dir), operator(), tell=tell)
        typer.echo(f"{found.events} events in {found.chains} chains: {found.count or 'no'} faults")
        if found.others:
            typer.echo(f"{found.others} events came from clients, and are in no chain")
        if found.count:
            raise typer.Exit(1)

    run_command(check)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="NDJSON to write; - for standard output")],
    since: Since = None,
    until: Until = None,
) -> None:
    """Write AuditEvents, one a line, in the order in which they were stored."""
    from fhir_server import fhir_json
    from fhir_server.start_error import StartError

    period = {k: v for k, v in (("$gte", since), ("$lt", until)) if v is not None}

    async def write(db: Db) -> None:
        count = 0
        try:
            with contextlib.nullcontext(sys.stdout.buffer) if str(file) == "-" else file.open("wb") as out:
                found = db["AuditEvent"].find({"updated": period} if period else {}, {"resource": 1}, sort=[("updated", 1)])
                async for event in found:
                    out.write(fhir_json.dumps(event["resource"]) + b"\n")
                    count += 1
                out.flush()
        except OSError as error:
            raise StartError(f"{file} can't be written: {error.strerror}") from None
        typer.echo(f"{count} events", err=True)

    run_command(write)


@app.command("prune")
def prune(
    before: Annotated[datetime, typer.Option(formats=_DAY, help="events stored before this, UTC, are removed for good")],
    yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False,
) -> None:
    """Remove old events, so that the rest can still be verified. That it was done is an event itself."""
    from fhir_server.audit_key import audit_key

    if before >= datetime.now(UTC).replace(tzinfo=None):
        end(["--before must be in the past"])
    if not yes:
        typer.confirm(f"Remove all AuditEvents stored before {before:%Y-%m-%d %H:%M:%S} UTC?", abort=True)

    async def remove(db: Db) -> None:
        from fhir_server import audit, audit_retention
        from fhir_server.store import Store
        from smart_auth.access import Access

        key = audit_key(settings().data_dir)
        store = Store(db, audit_key=key)
        await store.ensure("AuditEvent")
        act = audit.Act("audit-prune", source="command", detail=f"events before {before:%Y-%m-%dT%H:%M:%SZ}")
        await audit.GroupCommit(store).write(audit.audit_event(act, Access.system(operator()), ()))
        await store.trail.note_heads()
        typer.echo(f"{await audit_retention.prune(db, key, before)} events removed")

    run_command(remove)
