"""Who changes where messages go, or from whom they are taken, is told to those who look after the interfaces."""

from typing import Final

import structlog

from bridges.v2.endpoint_check import CONNECTION_TYPE
from fhir_server import metrics
from fhir_server.registry import Change, Registry, Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.alerts import ALERT
from resources.work_items import raise_once

log = structlog.get_logger()

# What makes a route: whether it is used, where it leads, what takes it, and under which names and rules.
_ROUTE: Final = ("status", "connectionType", "address", "payloadType", "header")


async def follow(unit: UnitOfWork, change: Change) -> None:
    """An alert when an HL7 v2 Endpoint is changed or deleted. A new one is none: it is in the audit trail."""
    before, after = change.before, change.after
    if before is None or not (_is_ours(before) or _is_ours(after)):
        return
    changed = [e for e in _ROUTE if after is None or before.get(e) != after.get(e)]
    if not changed:
        return
    what = "deleted" if after is None else f"changed ({', '.join(changed)})"
    who = unit.access.user_name or unit.access.client_id
    moved = f"; it led to {before.get('address')}" if "address" in changed else ""
    route = f"Endpoint/{change.id}"
    await raise_once(unit, ALERT, f"route {route}", f"The route {route} was {what} by {who}{moved}")
    metrics.ALERTS.labels("route").inc()
    log.warning("alert", subject=f"route {route}", changed=changed, by=who)


def _is_ours(endpoint: Resource | None) -> bool:
    return bool((endpoint or {}).get("connectionType", {}).get("code") == CONNECTION_TYPE)


def register(registry: Registry) -> None:
    registry.reaction("Endpoint", follow)
