"""What of the interfaces waits for somebody: letters that were set aside, and partners and scanners that are silent."""

from typing import Final

from console.screens.home.count import Count
from console.visit import Visit
from fhir_server import outbox
from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources import terms, work_items
from resources.alerts import ALERT

SET_ASIDE: Final = ("refused", "dead", "invalid")  # what is sent no more until somebody has seen to it
_MOST: Final = 1000
_SILENT: Final = {"silent": "silent-partners", "scanner-silent": "silent-scanners"}


async def counts(visit: Visit) -> list[Count]:
    """For those who look after the interfaces, the dead letters and who is silent; for technologists, the silent scanners."""
    keeper = visit.can("Endpoint.u")
    if not keeper and not (visit.can("$start") and not visit.can("$claim")):
        return []
    names = list(_SILENT.values()) if keeper else ["silent-scanners"]
    to = "/interfaces" if keeper else "/rooms"
    raised = [kind(task) for task in await alerts(visit)]
    if not visit.allows("Task", "s"):
        names = []
    silent = {name: sum(_SILENT.get(k) == name for k in raised) for name in names}
    told = [Count(name, to, n, kind="bad" if n else "") for name, n in silent.items()]
    return [await _letters(visit), *told] if keeper else told


async def alerts(visit: Visit) -> list[Resource]:
    """The alerts about interfaces that nobody has settled, those raised last first."""
    if not visit.allows("Task", "s"):
        return []
    found = await visit.desk.search(
        "Task", code=f"{terms.TASK_CODE}|{ALERT}", status="requested", _sort="-authored-on", _count="100"
    )
    return found.matches


def kind(alert: Resource) -> str:
    """What is not as usual: the first word of what the alert is about."""
    own = [i["value"] for i in alert.get("identifier", ()) if i.get("system") == work_items.SUBJECT and "value" in i]
    told = [c.get("code", "") for c in codings(alert.get("code"))]
    subject = next(iter(own), "").removeprefix(next(iter(told), "")).split()
    return subject[0] if subject else ""


async def _letters(visit: Visit) -> Count:
    db = visit.console.interactions.store.db
    n = await db[outbox.COLLECTION].count_documents({"state": {"$in": SET_ASIDE}}, limit=_MOST)
    return Count("letters", f"/interfaces/messages?way=out&state={','.join(SET_ASIDE)}", n, kind="bad" if n else "")
