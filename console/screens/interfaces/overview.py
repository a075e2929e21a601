"""/interfaces: who is there and who isn't, what waits, what was refused and why, and alerts."""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from bridges import partner_states, scanner_states
from bridges.partner_states import PartnerState
from bridges.scanner_states import ScannerState
from bridges.traffic import Traffic
from console.screens.interfaces import rows
from console.screens.interfaces.charts import Chart
from console.visit import Visit
from resources import device, terms

_SHOWN: Final = 12  # refusals


@dataclass(frozen=True, slots=True)
class PartnerRow:
    state: PartnerState
    out: Chart
    came: Chart

    @property
    def path(self) -> str:
        return f"/interfaces/partners/{self.state.endpoint['id']}"


@dataclass(frozen=True, slots=True)
class ScannerRow:
    state: ScannerState
    chart: Chart

    @property
    def path(self) -> str:
        return f"/interfaces/scanners/{self.state.device['id']}" if self.state.device else ""


async def show(visit: Visit) -> Response:
    """Everything at a glance."""
    db = visit.console.interactions.store.db
    traffic = Traffic(db)
    endpoints, devices, alerts = await visit.desk.together(
        rows.endpoints(visit), visit.desk.search("Device", identifier=f"{terms.AE_TITLE}|"), rows.alerts(visit)
    )
    scanners = sorted(devices, key=lambda d: device.ae_title(d) or "")
    partners, known, unknown, refusals, strangers = await visit.desk.together(
        partner_states.of(db, endpoints),
        scanner_states.of(db, scanners),
        scanner_states.strangers(db, [t for d in scanners if (t := device.ae_title(d))]),
        traffic.refusals(most=_SHOWN),
        traffic.strangers(),
    )
    names = rows.names_of(partners)
    partners.sort(key=lambda p: partner_states.WORST.index(p.state))
    return visit.page(
        "interfaces/index.html",
        partners=[PartnerRow(p, rows.rate_chart(visit, p.out), rows.rate_chart(visit, p.came)) for p in partners],
        scanners=[ScannerRow(s, rows.days_chart(visit, s)) for s in known],
        unknown=unknown,
        strangers=strangers,
        refusals=[rows.RefusalRow(r, names.get(r.partner, r.partner)) for r in refusals[:_SHOWN]],
        alerts=alerts,
        waiting=sum(p.queue.count for p in partners if p.queue),
        aside=sum(p.aside for p in partners),
        away=sum(p.state in {"down", "silent"} for p in partners) + sum(s.state in {"silent", "refused"} for s in known),
    )


async def settle(visit: Visit) -> Response:
    """An alert is seen to."""
    reason = visit.form.text("reason")
    changes = [{"op": "replace", "path": "/status", "value": "completed"}]
    if reason:
        changes.append({"op": "add", "path": "/statusReason", "value": {"text": reason}})  # type: ignore[dict-item]
    await visit.desk.patch(f"Task/{visit.id()}", *changes, if_match=visit.form.get("version"))
    return visit.to(rows.back(visit, "/interfaces"), "interfaces-settled")
