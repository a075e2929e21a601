"""`fhir-ris demo`: a server in a temporary directory, the play in front of an audience, and a short account of it."""

import asyncio
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from demo import department
from demo.department.people import LOGINS, PASSWORD
from demo.ehr import Listener
from demo.play import Play, StepFailed
from demo.server import Server

_WIDTH = 150


async def play(*, once: bool) -> bool:
    """Play the order; True if every step was checked. Without `once` stay up until Ctrl-C."""
    console = Console(highlight=False, soft_wrap=True)
    directory = Path(tempfile.mkdtemp(prefix="fhir-ris-demo-"))
    server, listener = Server(directory, preferred_ports=True), Listener()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    performance = asyncio.create_task(_perform(console, server, listener))
    interrupted = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Task[Any]] = [performance, interrupted]
    try:
        await asyncio.wait({performance, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if not performance.done():
            return False
        good = performance.result()
        if good and not once:
            tasks.append(furnished := asyncio.create_task(_furnished(console, server, listener)))
            await asyncio.wait({furnished, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if furnished.done():
                console.print(_where(server, furnished.result()))
                await interrupted
        return good
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.stop()
        if server.process is not None:
            await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _perform(console: Console, server: Server, listener: Listener) -> bool:
    console.print("[bold]fhir-ris demo[/]: one imaging order, from the EHR's order to the report back in the EHR\n")
    began = time.perf_counter()
    await listener.start()
    await server.start_somewhere()
    console.print(f"   server and embedded MongoDB ready in {time.perf_counter() - began:.1f} s: {server.base_url}, "
                  f"MLLP {server.mllp_port}, DICOM {server.dicom_port}\n")  # fmt: skip

    def show(channel: str, text: str) -> None:
        for line in text.splitlines():
            console.print(f"      [dim]{channel:>11}[/]  {escape(line[:_WIDTH])}")

    drama = Play(server, listener, show)
    acts = [
        ("The department is set up: apps, scanner, catalogue, the EHR's address, another patient", drama.prepare),
        *drama.steps,
    ]
    try:
        for number, (title, act) in enumerate(acts):
            console.print(f"[bold]{number:2}. {title}[/]")
            began = time.perf_counter()
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the audience is told which step
                reason = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
                console.print(f"    [red bold]step {number} failed[/]: {escape(reason)}")
                return False
            done = "checked" if number else "done"
            console.print(f"    [green]{done}[/] in {(time.perf_counter() - began) * 1000:.0f} ms\n")
        console.print("[green bold]All ten steps were checked.[/]")
        return True
    finally:
        await drama.close()


async def _furnished(console: Console, server: Server, listener: Listener) -> dict[str, list[str]]:
    """Fill the department for who wants to look around; the recovery codes of its people."""
    console.print("\n[bold]A department to look around in[/]: five scanners, and a day with forty patients")
    began = time.perf_counter()
    codes, patients = await department.furnish(server, listener.port)
    console.print(f"    [green]done[/] in {time.perf_counter() - began:.0f} s: {patients} patients, {len(LOGINS)} logins")
    return codes


def _where(server: Server, codes: dict[str, list[str]]) -> str:
    people = "".join(f"      {login.name:6} {login.role:16} {_second_factor(codes.get(login.name))}\n" for login in LOGINS)
    return (
        f"\n[bold]Open {server.base_url}/[/] and log in. Everybody's password is: {PASSWORD}\n{people}"
        f"   The server stays up until Ctrl-C.\n"
        f"   capabilities   curl {server.base_url}/fhir/metadata\n"
        f"   health         curl {server.base_url}/readyz\n"
        f"   worklist       findscu -W -aet CT1 -aec FHIR_RIS 127.0.0.1 {server.dicom_port} ...\n"
        f"   its log        {server.log}\n"
    )


def _second_factor(codes: list[str] | None) -> str:
    """How to pass the second factor without a phone: each recovery code does once."""
    return f'then "use a recovery code": {" or ".join(codes[:3])}' if codes else ""
