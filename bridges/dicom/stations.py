"""Who may call: the registered, active Devices, from their addresses and with their certificates (DESIGN.md section 2.5)."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID
from pymongo.errors import PyMongoError

from bridges.dicom.callers import UNREGISTERED, Caller, Station
from bridges.dicom.upper_layer import acceptor
from bridges.dicom.upper_layer.pdu import AssociateRequest
from bridges.dicom.upper_layer.services import Admission, Peer, Rejection
from fhir_server import fhir_json
from fhir_server.registry import Resource
from fhir_server.search.query import compile_query
from fhir_server.store import Store
from resources import device, terms, worklist_preferences
from resources.identifiers import token

log = structlog.get_logger()

# PS3.8 9.3.4: by the service user (source 1), for good (result 1).
CALLING_TITLE_UNKNOWN: Final = Rejection(1, 1, 3, "the calling AE title is not registered")
WRONG_ADDRESS: Final = Rejection(1, 1, 3, "the calling AE title may not call from this address")
WRONG_CERTIFICATE: Final = Rejection(1, 1, 3, "the calling AE title needs TLS with its certificate")
CALLED_TITLE_WRONG: Final = Rejection(1, 1, 7, "the called AE title is not ours")

_CACHE_SECONDS = 1.0
_WAIT_SECONDS = 3.0  # for the database; then what is known from before counts
_MOST_KNOWN = 5_000
_THIS_MACHINE: Final = ("127.0.0.0/8", "::1/128")


@dataclass(slots=True)
class _Known:
    station: Station | None
    at: float
    ask_again: float = 0.0  # the database was away, and may be asked anew from then on


class Stations:
    """The registered AE titles. Scanners call every few seconds, so what was read serves for a second.

    own_title: ours, which callers name
    stale_seconds: for so long what was read last still counts when the database is away
    """

    def __init__(self, store: Store, own_title: str, stale_seconds: float) -> None:
        self._store = store
        self._own_title = own_title
        self._stale_seconds = stale_seconds
        self._known: dict[str, _Known] = {}

    async def admit(self, request: AssociateRequest, peer: Peer) -> Admission | Rejection:
        """Whether this caller is let in; while no station is registered, everybody on this machine is."""
        try:
            station = await self._station(request.calling)
        except (PyMongoError, TimeoutError) as error:
            log.warning("dicom.stations_unknown", reason=type(error).__name__)
            return acceptor.TEMPORARY_CONGESTION
        if station is None:
            return CALLED_TITLE_WRONG if request.called != self._own_title else CALLING_TITLE_UNKNOWN
        if station is UNREGISTERED and not _is_from(peer.address, _THIS_MACHINE):
            return CALLING_TITLE_UNKNOWN
        preferences = station.preferences
        if request.called != self._own_title and not preferences.any_called_title:
            return CALLED_TITLE_WRONG
        if preferences.addresses and not _is_from(peer.address, preferences.addresses):
            return WRONG_ADDRESS
        if preferences.certificates and not _shows(peer, preferences.certificates):
            return WRONG_CERTIFICATE
        return Admission(Caller(request.calling, peer.address, station), preferences.associations)

    async def _station(self, title: str) -> Station | None:
        """The station of this title, UNREGISTERED while none is, None when it isn't one of those that are."""
        known = self._known.get(title)
        now = time.monotonic()
        if known is not None and (now - known.at < _CACHE_SECONDS or (self._counts(known, now) and now < known.ask_again)):
            return known.station
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                station = await self._read(title)
        except (PyMongoError, TimeoutError):
            if known is None or not self._counts(known, now):
                raise
            known.ask_again = time.monotonic() + _WAIT_SECONDS
            log.warning("dicom.stations_from_memory", ae_title=title)
            return known.station
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[title] = _Known(station, now)
        return station

    def _counts(self, known: _Known, now: float) -> bool:
        return now - known.at <= self._stale_seconds

    async def _read(self, title: str) -> Station | None:
        await self._store.ensure("Device")
        if device.is_ae_title(title):
            for found in await self._find(token(terms.AE_TITLE, title)):
                if found.get("status", "active") == "active":
                    return _station_of(found)
        # One of any status: making the last active one inactive must not let everybody in.
        anyone = await self._find(f"{terms.AE_TITLE}|", limit=1)
        return None if anyone else UNREGISTERED

    async def _find(self, identifier: str, limit: int = 10) -> list[Resource]:
        query = compile_query("Device", [("identifier", identifier)])
        return [fhir_json.from_bson(d["resource"]) for d in await self._store.find(query, limit=limit)]


def _station_of(found: Resource) -> Station:
    location = str(found.get("location", {}).get("reference", ""))
    return Station(f"Device/{found['id']}", tuple(device.modalities(found)), location, worklist_preferences.of(found))


def _is_from(address: str, networks: tuple[str, ...]) -> bool:
    try:
        here = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(here in ip_network(n, strict=False) for n in networks)


def _shows(peer: Peer, wanted: tuple[str, ...]) -> bool:
    """Whether the peer's certificate is one of these. That it is valid, the TLS layer has seen to."""
    if peer.certificate is None:
        return False
    names = {f"sha256:{hashlib.sha256(peer.certificate).hexdigest()}"}
    certificate = x509.load_der_x509_certificate(peer.certificate)
    names |= {f"CN={a.value!s}" for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names |= {f"DNS={name}" for name in found.value.get_values_for_type(x509.DNSName)}
    except x509.ExtensionNotFound:
        pass
    return any((w.lower() if w.startswith("sha256:") else w) in names for w in wanted)
