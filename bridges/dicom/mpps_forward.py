"""MPPS forwarding: what a scanner told us, goes on to whoever wants it, under the same SOP Instance UID, from the outbox.

A destination is an active Endpoint with this connectionType:
    {"system": "urn:fhir-ris:endpoint-connection-type", "code": "dicom-mpps"}, address `dicom://PACS@pacs.example.org:104`
A message in the outbox: destination `dicom:Endpoint/pacs`, type N-CREATE or N-SET, control_id the SOP Instance UID, message the
data set as it came, in the DICOM JSON model.
"""

from typing import Final

import orjson

from bridges.dicom import dicom_endpoints
from bridges.dicom.dicom_json import CHARACTER_SET, Attributes, Element
from fhir_server import outbox
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork

N_CREATE: Final = "N-CREATE"
N_SET: Final = "N-SET"


async def forward(unit: UnitOfWork, operation: str, uid: str, data: Attributes, performed: Resource, sender: str) -> None:
    """Put a performed step's message into the outbox of this transaction, for each destination but the one that it came from."""
    endpoints = await dicom_endpoints.active(unit, dicom_endpoints.MPPS)
    message = orjson.dumps(without_character_sets(data))
    subject = performed["subject"].get("reference")
    for endpoint in sorted(endpoints, key=lambda e: str(e["id"])):
        place = dicom_endpoints.place_of(endpoint)
        if place is None or place.ae_title == sender:
            continue
        about = (f"Procedure/{performed['id']}", *(r["reference"] for r in performed.get("basedOn", ()) if "reference" in r))
        unit.send(
            outbox.Outbound(
                destination=f"{outbox.DICOM}Endpoint/{endpoint['id']}",
                type=operation,
                control_id=uid,
                message=message,
                about=about,
                patient=subject,
            )
        )


def without_character_sets(data: Attributes) -> Attributes:
    """The data set without its character sets: all of it is text here, and is encoded anew as a whole."""
    return {name: _inner(one) for name, one in data.items() if name != CHARACTER_SET}


def _inner(one: Element) -> Element:
    if one["vr"] != "SQ" or "Value" not in one:
        return one
    return one | {"Value": [without_character_sets(item) for item in one["Value"]]}
