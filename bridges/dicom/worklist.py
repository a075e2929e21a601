"""Modality Worklist C-FIND (PS3.4 Annex K): answers from the rows that `worklist_rows` keeps.

Without a date in the query there is no date window: the scanner sees every step that is scheduled, whenever that is. A scanner
that names no station sees the steps of all stations. Both lists are cut at `MAX_ANSWERS`, the earliest first.
"""

import orjson
import structlog

from bridges.dicom.callers import Caller
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.matching import WorklistQuery
from bridges.dicom.worklist_rows import COLLECTION
from fhir_server import audit
from fhir_server.audit import Act
from fhir_server.interactions import Interactions

log = structlog.get_logger()

MAX_ANSWERS = 500
# PS3.4 K has no status for "too many"; the list that is cut ends with success, and the log says so.


async def find(
    interactions: Interactions, query: WorklistQuery, identifier: Attributes, caller: Caller, limit: int = MAX_ANSWERS
) -> list[Attributes]:
    """The matching rows' attributes by start, at most `limit`. Query and answers are in the audit trail before they are seen."""
    cursor = interactions.store.db[COLLECTION].find(
        query.prefilter(), {"attributes": 1, "of": 1}, sort=[("start", 1), ("_id", 1)]
    )
    found: list[Attributes] = []
    shown: dict[str, None] = {}
    async with cursor:
        async for row in cursor:
            if query.matches(row["attributes"]):
                if len(found) == limit:
                    log.warning("worklist.cut", ae_title=caller.ae_title, limit=limit)
                    break
                found.append(row["attributes"])
                shown.update(dict.fromkeys(r for r in row["of"] if r.startswith("Patient/")))
    await interactions.store.ensure("AuditEvent")
    act = Act("worklist", "dicom", f"{len(found)} answers", query=orjson.dumps(identifier).decode(), peer=caller.address)
    await interactions.reads.write(audit.audit_event(act, caller.access, audit.seen(shown)))
    return found
