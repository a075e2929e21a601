"""By what payers know us: a file that RIS_PAYER_CREDENTIALS names, never a resource.

The file is JSON and belongs to the server's user alone (mode 0600): a list of objects, one for each FHIR base that is called with
credentials. They go to that address and no other, whoever changes an Endpoint.
    address      the FHIR base, as in Endpoint.address
    bearer       a token that was agreed with the payer; or, for SMART Backend Services:
    token_url    where tokens are had (https, or http on this machine)
    client_id    our name there
    key          our private key, a JWK: EC P-384 (ES384) or RSA (RS384), with its kid
    scope        what we ask for; system/CoverageEligibilityRequest.cruds without it
    private      true: the host may be in a private network
The file is read whenever a payer is called: a change of it counts at once.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from fhir_server.secret_file import CredentialsError, rows

__all__ = ["ASSERTION_TYPE", "Account", "CredentialsError", "accounts"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SCOPE: Final = "system/CoverageEligibilityRequest.cruds"
_ASSERTION_SECONDS: Final = 240  # SMART App Launch 2: at most five minutes
_FIELDS: Final = frozenset({"address", "bearer", "token_url", "client_id", "key", "scope", "private"})


@dataclass(frozen=True, slots=True)
class Account:
    """What one payer knows us by; all but `address` may be missing."""

    address: str
    bearer: str = field(default="", repr=False)
    token_url: str = ""
    client_id: str = ""
    key: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scope: str = _SCOPE
    private: bool = False

    def assertion(self) -> dict[str, str]:
        """The form of a token request with a client assertion (RFC 7523, SMART App Launch 2 "Backend Services")."""
        elliptic = self.key.get("kty") == "EC"
        algorithm = "ES384" if elliptic else "RS384"
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.client_id, "sub": self.client_id, "aud": self.token_url, "iat": now, "exp": now + _ASSERTION_SECONDS,
            "jti": uuid.uuid4().hex,
        }  # fmt: skip
        header = {"alg": algorithm, "typ": "JWT"} | ({"kid": self.key["kid"]} if "kid" in self.key else {})
        try:
            key = ECKey.import_key(dict(self.key)) if elliptic else RSAKey.import_key(dict(self.key))
            signed = jwt.encode(header, claims, key, algorithms=[algorithm])
        except (JoseError, ValueError, TypeError) as error:
            raise CredentialsError(f"the key for {self.address} can't sign: {type(error).__name__}") from None
        return {
            "grant_type": "client_credentials",
            "scope": self.scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": signed,
        }


def accounts(path: Path | None) -> dict[str, Account]:
    """Those in the file, by address without a slash at its end. None: there are none. Raises CredentialsError."""
    if path is None:
        return {}
    return {account.address.rstrip("/"): account for account in (_account(path, i, row) for i, row in enumerate(rows(path)))}


def _account(path: Path, number: int, row: Any) -> Account:
    if not isinstance(row, dict) or not isinstance(row.get("address"), str) or not row.keys() <= _FIELDS:
        known = ", ".join(sorted(_FIELDS))
        raise CredentialsError(f"{path}: entry {number} needs an address, and has no other fields than {known}")
    texts = all(isinstance(row.get(name, ""), str) for name in ("bearer", "token_url", "client_id", "scope"))
    if not texts or not isinstance(row.get("key", {}), dict) or not isinstance(row.get("private", False), bool):
        raise CredentialsError(f"{path}: entry {number} has a field of another type than it should")
    if row.get("token_url") and not (row.get("client_id") and row.get("key")):
        raise CredentialsError(f"{path}: entry {number} has a token_url, and so needs client_id and key")
    return Account(**row)
