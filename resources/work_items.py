"""Work items that are opened once: one open Task for a subject, however often what it tells happens; closed when it is over."""

from typing import Final

from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.task import OPEN, open_work_item

SUBJECT: Final = "urn:fhir-ris:work-item"
_OPEN: Final = ",".join(sorted(OPEN))


async def raise_once(
    unit: UnitOfWork, code: str, subject: str, description: str, *, about: str | None = None, patient: str | None = None
) -> Resource:
    """The open Task of this kind (`interface-alert`, `message-refused`) and subject, made if there is none.

    subject: what it is about, in words that stay the same: `silent Endpoint/his`
    description: for people; no patient's data. Where it has changed, the open Task gets the new one.
    """
    await unit.lock(f"work-item:{code}:{subject}")
    if known := await _open(unit, code, subject):
        same = known[0].get("description") == description
        return known[0] if same else await unit.update(known[0] | {"description": description})
    own = {"system": SUBJECT, "value": f"{code} {subject}"}
    return await open_work_item(unit, code, description, about, patient, subject=own)


async def close(unit: UnitOfWork, code: str, subject: str, reason: str) -> int:
    """Complete the open Task of this kind and subject, with the reason; how many there were."""
    items = await _open(unit, code, subject)
    for item in items:
        await unit.update(item | {"status": "completed", "statusReason": {"text": reason}})
    return len(items)


async def _open(unit: UnitOfWork, code: str, subject: str) -> list[Resource]:
    return await unit.search("Task", identifier=f"{SUBJECT}|{code} {subject}".replace(",", "\\,"), status=_OPEN)
