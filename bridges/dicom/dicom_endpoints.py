"""Endpoints of a PACS: where performed steps are forwarded to, where studies are looked up, where images are read from.

| connectionType | address | what for |
|---|---|---|
| `urn:fhir-ris:endpoint-connection-type` `dicom-mpps` | `dicom://AETITLE@host:port`, by TLS `dicoms://` | gets each step |
| `.../endpoint-connection-type` `dicom-qido-rs` | `https://pacs.example.org/dicom-web` | is asked what has arrived |
| `.../endpoint-connection-type` `dicom-wado-rs` | the same, of WADO-RS | goes into ImagingStudy.endpoint |

Headers: `ae-title: PACS` at a `dicom-wado-rs` Endpoint says whose images it has (Retrieve AE Title); `request-timeout: 10`
(seconds, 1 to 120) at a `dicom-qido-rs` one, how long it may take to answer.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from bridges.dicom.upper_layer.requestor import Remote
from fhir_server import foresight
from fhir_server.foresight import Asked
from fhir_server.outcome import fail
from fhir_server.registry import Change, Registry, Resource
from fhir_server.tls_files import TlsFiles
from fhir_server.unit_of_work import UnitOfWork
from resources.endpoint import web_address

MPPS: Final = "dicom-mpps"
QIDO: Final = "dicom-qido-rs"
WADO: Final = "dicom-wado-rs"
_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
_OWN_SYSTEM: Final = "urn:fhir-ris:endpoint-connection-type"
_AE_TITLE: Final = re.compile(r"(?! )[\x20-\x5b\x5d-\x7e]{1,16}(?<! )")
_SECONDS: Final = re.compile(r"[1-9][0-9]?|1[01][0-9]|120")
_DEFAULT_PORTS: Final = {"dicom": 104, "dicoms": 2762}  # PS3.8 9.1.1, PS3.15 B.1


@dataclass(frozen=True, slots=True)
class Place:
    """An application entity on the network."""

    ae_title: str
    host: str
    port: int
    tls: bool = False

    def remote(self, calling: str, files: TlsFiles) -> Remote:
        """Whom to call, as `calling`. Over TLS it is judged by, and shown, what these files hold."""
        return Remote(self.host, self.port, self.ae_title, calling, files.client() if self.tls else None)


async def active(unit: UnitOfWork, kind: str) -> list[Resource]:
    """The active Endpoints of this connectionType."""
    return [e for e in await unit.ask(asked(kind)) if kind_of(e) == kind]


def asked(kind: str) -> Asked:
    """What `active` will ask for, for `View.foresee`."""
    return foresight.asked("Endpoint", {"status": "active", "connection-type": kind})


def kind_of(endpoint: Resource) -> str | None:
    """MPPS, QIDO or WADO; None for an Endpoint that is none of ours."""
    coding = endpoint.get("connectionType", {})
    system = _OWN_SYSTEM if coding.get("code") == MPPS else _SYSTEM
    return str(coding["code"]) if coding.get("system") == system and coding.get("code") in {MPPS, QIDO, WADO} else None


def place_of(endpoint: Resource) -> Place | None:
    """Where a `dicom://AETITLE@host:port` points, or `dicoms://` over TLS; None when it is no such address."""
    try:
        address = urlsplit(str(endpoint.get("address", "")))
        title, port = unquote(address.username or ""), address.port or _DEFAULT_PORTS[address.scheme]
    except (KeyError, ValueError):
        return None
    if address.scheme not in _DEFAULT_PORTS or not address.hostname or address.password or not _AE_TITLE.fullmatch(title):
        return None
    return Place(title, address.hostname, port, address.scheme == "dicoms")


def base_url(endpoint: Resource) -> str | None:
    """The base of a DICOMweb service, without a slash at its end; None when it is no address that we ask."""
    found = web_address(endpoint)
    return found[0] if found else None


def header(endpoint: Resource, name: str) -> str:
    """The value of an Endpoint's header `name: value`; empty where it has none."""
    for one in endpoint.get("header", ()):
        found, _, value = str(one).partition(":")
        if found.strip().lower() == name:
            return value.strip()
    return ""


async def check(_unit: UnitOfWork, change: Change) -> None:
    """FhirError `value` for a PACS that could never be reached."""
    endpoint = change.after
    kind = kind_of(endpoint) if endpoint is not None else None
    if endpoint is None or kind is None:
        return
    if kind == MPPS and place_of(endpoint) is None:
        text = "the address isn't dicom://AETITLE@host:port or dicoms://AETITLE@host:port"
        raise fail("value", text, "Endpoint.address", status=422)
    if kind in {QIDO, WADO} and base_url(endpoint) is None:
        text = "the address isn't an http or https URL without user, query and fragment"
        raise fail("value", text, "Endpoint.address", status=422)
    if not _SECONDS.fullmatch(header(endpoint, "request-timeout") or "10"):
        raise fail("value", "request-timeout is a number of seconds, from 1 to 120", "Endpoint.header", status=422)


async def wado(unit: UnitOfWork, retrieve_ae_title: str) -> Resource | None:
    """The Endpoint to read a study from: the one of this AE title, else the only one."""
    found = await active(unit, WADO)
    named = [e for e in found if retrieve_ae_title and header(e, "ae-title") == retrieve_ae_title]
    return named[0] if named else found[0] if len(found) == 1 and not header(found[0], "ae-title") else None


def register(registry: Registry) -> None:
    registry.rule("Endpoint", check)
