"""Testing the connection to a partner or scanner: the smallest thing of its kind is sent, and what comes back is told.

| of | what is sent |
|---|---|
| Endpoint `hl7v2-mllp` | NMD^N02 with our clock (NCK), which is about nobody; any acknowledgement of it will do |
| Endpoint `dicom-mpps`, Device with `url` dicom(s)://AETITLE@host:port | C-ECHO |
| Endpoint `dicom-qido-rs` | a search for a study that nobody has |
| Endpoint `hl7-fhir-rest` | GET [base]/metadata |

It goes past the queue, on a connection of its own. Each test is on record, and remembered (`contacts.py`).
"""

import time
import uuid
from dataclasses import dataclass
from typing import Final

from bridges import contacts
from bridges.dicom import dicom_endpoints
from bridges.dicom.qido import NotAnswered, Qido
from bridges.dicom.upper_layer.requestor import VERIFICATION, CallFailed, associate
from bridges.payer import client as payer
from bridges.v2.destination import Destination, is_v2
from bridges.v2.line import Line
from bridges.v2.mllp import MllpError
from bridges.v2.segments_out import moment, msh, new_control_id
from bridges.v2.writing import Seg, encode
from fhir_server import clock
from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.registry import Resource
from fhir_server.settings import Settings
from fhir_server.tls_files import TlsError, dicom_tls, mllp_tls
from resources.coverage import payers
from smart_auth.access import Access

_SECONDS: Final = 10.0


class Failed(Exception):
    """There was no answer. The text says why, in a line."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a test came to: whether something answered, what it said, and after how long."""

    ok: bool
    text: str
    seconds: float


def can_be_tested(resource: Resource) -> bool:
    """Whether there is a test for this Endpoint or Device."""
    if resource["resourceType"] == "Device":
        return dicom_endpoints.place_of({"address": resource.get("url")}) is not None
    pacs = dicom_endpoints.kind_of(resource) in {dicom_endpoints.MPPS, dicom_endpoints.QIDO}
    return is_v2(resource) or pacs or resource.get("connectionType", {}).get("code") == payers.FHIR_REST


async def run(interactions: Interactions, access: Access, resource: Resource, settings: Settings) -> Result:
    """Test the connection to an Endpoint or Device that `can_be_tested`."""
    began = time.perf_counter()
    reference = f"{resource['resourceType']}/{resource['id']}"
    try:
        ok, text = True, await _answer(resource, settings)
    except (Failed, MllpError, CallFailed, NotAnswered, payer.NotAnswered, TlsError, ValueError) as error:
        ok, text = False, str(error)
    result = Result(ok, text[:300], time.perf_counter() - began)
    act = Act("connection-test", source="console", detail=f"{reference} {'answered' if ok else 'not reached'}")
    await interactions.record(access, act, [])
    by = access.user_name or access.client_id
    await contacts.note(interactions.store.db, reference, ok=ok, text=result.text, by=by)
    return result


async def _answer(resource: Resource, settings: Settings) -> str:
    """What is answered; one of the errors above where nothing is."""
    if resource["resourceType"] == "Device":
        return await _echo({"address": resource.get("url")}, settings)
    if is_v2(resource):
        return await _acknowledgement(resource, settings)
    kind = dicom_endpoints.kind_of(resource)
    if kind == dicom_endpoints.MPPS:
        return await _echo(resource, settings)
    if kind == dicom_endpoints.QIDO:
        async with Qido(resource, settings.dicomweb_credentials) as pacs:
            await pacs.study(f"2.25.{uuid.uuid4().int}")
        return "QIDO-RS"
    base = payers.base_url(resource)
    if base is None:
        raise Failed("the address is none that we call")
    return await payer.Payers(settings.payer_credentials, seconds=_SECONDS).metadata(base)


async def _acknowledgement(endpoint: Resource, settings: Settings) -> str:
    """MSA-1 and what stands beside it. AE and AR are answers too: the message is one that many receivers don't know."""
    to, now, control_id = Destination.of(endpoint, settings.zone), clock.now(), new_control_id()
    message = encode([msh(to, "NMD^N02", "NMD_N02", control_id, now), Seg("NCK", {1: moment(now, to)})], to.charset)
    line = Line(5.0, _SECONDS, mllp_tls(settings))
    try:
        await line.to(endpoint)
        if line.client is None:
            raise Failed(line.problem)
        ack = await line.client.send(message, control_id)
    finally:
        await line.close()
    return f"{ack.code} {ack.text}".strip()


async def _echo(resource: Resource, settings: Settings) -> str:
    place = dicom_endpoints.place_of(resource)
    if place is None:
        raise Failed("the address isn't dicom://AETITLE@host:port or dicoms://AETITLE@host:port")
    remote = place.remote(settings.ae_title, dicom_tls(settings))
    async with associate(remote, [VERIFICATION], timeout=_SECONDS) as client:
        status = await client.echo()
    if status:
        raise Failed(f"C-ECHO {status:04X}")
    return "C-ECHO 0000"
