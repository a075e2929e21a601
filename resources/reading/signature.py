"""Electronic signatures of reports: a JWS (RFC 7515, Ed25519) in Provenance.signature, made with a key of this server.

What is signed is a small JSON text: who signs, when, as what, and the SHA-256 of the canonical form of each version that it
stands for (FHIR R4 2.6.3, `json#static`: without narrative and meta, names in order, no white space): the report and its
Observations. Whoever has these versions and the public key can check it; `$verify` does.

The private key follows from the server's key file (`keys/report-signing.key` under the data directory), which all machines over
one database share. The public keys that have signed are in the collection `report_keys`: {_id: thumbprint (RFC 7638), jwk}.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pymongo import UpdateOne

from fhir_server import clock, fhir_json
from fhir_server.elements import concept
from fhir_server.references import target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.security_labels import labelled

KEYS: Final = "report_keys"
CANONICAL: Final = "http://hl7.org/fhir/canonicalization/json#static"
_ALGORITHM: Final = "Ed25519"
_ASTM: Final = "urn:iso-astm:E1762-95:2013"
_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
# What a signature is for: ASTM E1762 code and name, and who signs then (Provenance.agent.type).
AUTHOR: Final = ("1.2.840.10065.1.12.1.1", "Author's Signature", "author")
VERIFICATION: Final = ("1.2.840.10065.1.12.1.5", "Verification Signature", "verifier")
ADDENDUM: Final = ("1.2.840.10065.1.12.1.15", "Addendum Signature", "author")
MODIFICATION: Final = ("1.2.840.10065.1.12.1.16", "Modification Signature", "author")
ADMINISTRATIVE: Final = ("1.2.840.10065.1.12.1.17", "Administrative Signature", "author")

Kind = tuple[str, str, str]


def canonical(resource: Resource) -> bytes:
    """The canonical form of a resource."""
    return fhir_json.dumps(_in_order({k: v for k, v in resource.items() if k not in {"text", "meta"}}))


def _in_order(element: Any) -> Any:
    if isinstance(element, dict):
        return {k: _in_order(element[k]) for k in sorted(element)}
    return [_in_order(e) for e in element] if isinstance(element, list) else element


def digest(resource: Resource) -> str:
    """SHA-256 of the canonical form, base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(canonical(resource)).digest()).decode().rstrip("=")


def version_of(resource: Resource) -> str:
    """The reference to this version: `DiagnosticReport/1/_history/2`."""
    return f"{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What of a signature is so. `valid`: it is by the key that it names, which has signed here. versions: version -> digest."""

    valid: bool
    who: str
    when: str
    kid: str
    versions: dict[str, str]


class Signer:
    """Signs with a key that follows from a secret of 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        private = Ed25519PrivateKey.from_private_bytes(secret)
        self._key = OKPKey.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.kid = self._key.thumbprint()

    async def sign(self, unit: UnitOfWork, kind: Kind, signed: list[Resource], who: str, reason: str = "") -> Resource:
        """Store the Provenance of a report and its Observations, as they are in this transaction."""
        moment = clock.instant(unit.now)
        code, display, role = kind
        versions = {version_of(r): digest(r) for r in signed}
        payload = {"canonicalization": CANONICAL, "signed": versions, "who": who, "when": moment, "as": code}
        token = jws.serialize_compact(
            {"alg": _ALGORITHM, "kid": self.kid}, json.dumps(payload, sort_keys=True).encode(), self._key, algorithms=[_ALGORITHM]
        )
        public = {"$setOnInsert": {"jwk": self._key.as_dict(private=False)}}
        unit.keep(KEYS, UpdateOne({"_id": self.kid}, public, upsert=True))
        signature = {
            "type": [{"system": _ASTM, "code": code, "display": display}],
            "when": moment,
            "who": {"reference": who},
            "targetFormat": "application/fhir+json",
            "sigFormat": "application/jose",
            "data": base64.b64encode(token.encode()).decode(),
        }
        made: Resource = {
            "resourceType": "Provenance",
            "target": [{"reference": version} for version in versions],
            "occurredDateTime": moment,
            "recorded": moment,
            "agent": [{"type": concept(_PARTICIPANT, role), "who": {"reference": who}}],
            "signature": [signature],
        }
        if reason:
            made["reason"] = [{"text": reason}]
        return await unit.create(labelled(made, signed[0]))


async def check(unit: UnitOfWork, signature: Resource) -> Checked | None:
    """What a Provenance.signature says; None for one that is not of our kind."""
    try:
        token = base64.b64decode(signature.get("data", ""), validate=True).decode("ascii")
        parsed = jws.extract_compact(token.encode())
        kid = str(parsed.headers().get("kid", ""))
        payload = json.loads(parsed.payload)
        found = Checked(False, payload["who"], payload["when"], kid, dict(payload["signed"]))
    except (ValueError, KeyError, TypeError, JoseError):
        return None
    known = await unit.db[KEYS].find_one({"_id": kid}, session=unit.session)
    if known is None:
        return found
    try:
        jws.deserialize_compact(token, OKPKey.import_key(known["jwk"]), algorithms=[_ALGORITHM])
    except JoseError:
        return found
    agrees = signature.get("when") == found.when and signature.get("who", {}).get("reference") == found.who
    return Checked(agrees, found.who, found.when, kid, found.versions)


async def stands(unit: UnitOfWork, versions: dict[str, str]) -> bool:
    """Whether each of these versions is still stored as it was signed."""
    for version, wanted in versions.items():
        to, _, number = version.partition("/_history/")
        place = target(to)
        if place is None:
            return False
        stored = [v.resource async for v in unit.versions(place.type, place.id) if str(v.version) == number]
        if not stored or stored[0] is None or digest(stored[0]) != wanted:
            return False
    return True
