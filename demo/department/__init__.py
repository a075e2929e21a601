"""A department to look around in: rooms, people with logins, and a day with forty patients in all states. All is invented."""

from demo.apps import App
from demo.department import people, rooms
from demo.department.day import Day
from demo.server import Server, free_port


async def furnish(server: Server, ehr_port: int) -> tuple[dict[str, list[str]], int]:
    """Fill a server at which the play was played; recovery codes by login, and how many patients came."""
    async with App("demo-department", "system/*.cruds", server.base_url) as app:
        await server.command(
            "client", "add", app.client_id, "--scope", app.scope, "--jwks", str(app.write_jwks(server.directory))
        )
        await rooms.furnish(app, ehr_port, free_port())
        codes = await people.engage(server, app)
        return codes, await Day(server, app).play()
