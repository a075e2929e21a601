"""/interfaces/scanners/{id}: one scanner: when it asks for its worklist, what it gets, its performed steps, refusals, a test."""

from typing import Final

from starlette.responses import Response

from bridges import connection_tests, scanner_states
from console.screens.interfaces import rows
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import worklist_preferences

STATUSES: Final = ("active", "inactive")


async def show(visit: Visit) -> Response:
    """The scanner as it is now."""
    device = await rows.read(visit, "Device")
    store = visit.console.interactions.store
    (state,), steps = await visit.desk.together(
        scanner_states.of(store.db, [device]), scanner_states.performed(store, f"Device/{device['id']}")
    )
    stored = {name: str(device.get(name, "")) for name in ("status", "url")}
    typed = {name: visit.form.text(name) for name in stored} if rows.is_refused(visit) else stored
    return visit.page(
        "interfaces/scanner.html",
        of=state,
        path=f"/interfaces/scanners/{device['id']}",
        chart=rows.days_chart(visit, state),
        alerts=await rows.alerts(visit, state.title),
        steps=steps,
        settings=_settings(device),
        fields=typed | {"version": str(device["meta"]["versionId"])},
        meanwhile=rows.meanwhile(visit, stored),
        statuses=[(s, visit.t.code("interfaces.device", s)) for s in STATUSES],
        testable=connection_tests.can_be_tested(device),
        own_title=visit.console.settings.ae_title,
    )


def _settings(device: Resource) -> list[tuple[str, str, str]]:
    """What its Device says of how it connects: name, value, meaning."""
    found = []
    for extension in device.get("extension", ()):
        name = str(extension.get("url", "")).removeprefix(worklist_preferences.PREFIX)
        known = worklist_preferences.EXTENSIONS.get(name)
        value = next((v for k, v in extension.items() if k.startswith("value")), None)
        if value is not None and extension.get("url", "").startswith(worklist_preferences.PREFIX):
            found.append((name, str(value), known.meaning if known else ""))
    return found


async def change(visit: Visit) -> Response:
    """The form of the settings: an update of the Device, if it is still the version that was shown."""
    form = visit.form
    device = await rows.read(visit, "Device")
    changed = device | {"status": form.text("status"), "url": form.text("url")}
    changed["meta"] = device["meta"] | {"versionId": form.text("version")}
    await visit.desk.update({name: value for name, value in changed.items() if value != ""})
    return visit.to(f"/interfaces/scanners/{device['id']}", "interfaces-changed")


async def test(visit: Visit) -> Response:
    """C-ECHO to the scanner, where its Device says how it is reached."""
    device = await rows.read(visit, "Device")
    if not connection_tests.can_be_tested(device):
        raise fail("not-supported", visit.t("interfaces.no-test"), status=422)
    console = visit.console
    result = await connection_tests.run(console.interactions, visit.access, device, console.settings)
    path = f"/interfaces/scanners/{device['id']}"
    return visit.to(path, "interfaces-answered" if result.ok else "interfaces-not-answered")
