"""What leaves for payers: a message in the outbox for each CoverageEligibilityResponse that begins to wait for its answer."""

from typing import Final

from bridges.payer import request_out
from fhir_server import fhir_json, outbox
from fhir_server.registry import Change
from fhir_server.unit_of_work import UnitOfWork
from resources.coverage import payers, submission

KIND: Final = "CoverageEligibilityRequest"


async def project(unit: UnitOfWork, changes: list[Change]) -> None:
    """The projection. A message's control id is the id of the response that waits for it."""
    for change in changes:
        waiting = change.after if change.type == "CoverageEligibilityResponse" else None
        if waiting is None or change.before is not None or not submission.is_waiting(waiting):
            continue
        request = await unit.get(waiting["request"])
        endpoint = await payers.endpoint_of(unit, waiting["insurer"])
        if request is None or endpoint is None:
            continue
        about = (f"{KIND}/{request['id']}", f"CoverageEligibilityResponse/{change.id}")
        unit.send(
            outbox.Outbound(
                destination=f"{outbox.PAYER}Endpoint/{endpoint['id']}",
                type=KIND,
                control_id=change.id,
                message=fhir_json.dumps(await request_out.message(unit, request)),
                about=about,
                patient=waiting["patient"].get("reference"),
            )
        )
