"""Where a performed step is kept: the Procedure of its SOP Instance UID, and the Binary with the scanner's data set."""

import base64
from typing import Final

import orjson

from bridges.dicom import dimse
from bridges.dicom.dicom_json import Attributes
from fhir_server import foresight
from fhir_server.elements import extension
from fhir_server.foresight import Asked
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import terms
from resources.identifiers import token

DATA_SET: Final = "urn:fhir-ris:mpps-data-set"  # extension on Procedure: the Binary with the scanner's data set
MAX_DATA_SET: Final = 6 * 1024 * 1024  # bytes of its JSON form; a resource must fit into a MongoDB document


async def by_uid(unit: UnitOfWork, uid: str) -> Resource | None:
    """The Procedure of an MPPS SOP Instance UID."""
    found = await unit.ask(asked(uid))
    return found[0] if found else None


def asked(uid: str) -> Asked:
    """What `by_uid` will ask for, for `View.foresee`."""
    return foresight.asked("Procedure", {"identifier": token(terms.DICOM_UID, f"urn:oid:{uid}")})


async def of_study(unit: UnitOfWork, study_uid: str) -> list[Resource]:
    """The Procedures whose images go to a study."""
    return await unit.search("Procedure", identifier=token(terms.STUDY_OF, f"urn:oid:{study_uid}"))


def binary(data: Attributes) -> Resource:
    """The Binary of a data set. Refused when it is too large to be kept."""
    encoded = orjson.dumps(data)
    if len(encoded) > MAX_DATA_SET:
        raise dimse.Refused(dimse.RESOURCE_LIMITATION, "the data set is too large")
    return {"resourceType": "Binary", "contentType": "application/dicom+json", "data": base64.b64encode(encoded).decode()}


def content(stored: Resource | None) -> Attributes:
    """The data set in a Binary; empty where there is none."""
    found: Attributes = orjson.loads(base64.b64decode(stored["data"])) if stored else {}
    return found


async def binary_of(unit: UnitOfWork, performed: Resource) -> Resource | None:
    return await unit.get((extension(performed, DATA_SET) or {}).get("valueReference"))


async def data_set_of(unit: UnitOfWork, performed: Resource) -> Attributes:
    """The data set as it stands: what N-CREATE said, with what came since."""
    return content(await binary_of(unit, performed))
