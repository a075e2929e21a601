"""By what a PACS knows us on DICOMweb: a file that RIS_DICOMWEB_CREDENTIALS names, never a resource.

The file is JSON and belongs to the server's user alone (mode 0600): a list of objects, one for each base address that is called
with credentials. They go to that address and no other, whoever changes an Endpoint, and over https only (http on this machine).
    address         the base, as in Endpoint.address
    bearer          a token; or
    user, password  for HTTP Basic authentication
The file is read whenever a PACS is asked: a change of it counts at once.
"""

import base64
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fhir_server.public_hosts import is_loopback
from fhir_server.secret_file import CredentialsError, rows

_FIELDS: Final = frozenset({"address", "bearer", "user", "password"})


def authorization(path: Path | None, base: str) -> str:
    """The header Authorization for this base address; empty where there is none. Raises CredentialsError."""
    if path is None:
        return ""
    found = dict(_row(path, i, row) for i, row in enumerate(rows(path)))
    said = found.get(base.rstrip("/"), "")
    address = urlsplit(base)
    if said and address.scheme != "https" and not is_loopback(address.hostname or ""):
        raise CredentialsError("credentials are sent over https only")
    return said


def _row(path: Path, number: int, row: Any) -> tuple[str, str]:
    """An address, and what is said to it."""
    if not isinstance(row, dict) or not row.keys() <= _FIELDS or not all(isinstance(v, str) for v in row.values()):
        raise CredentialsError(f"{path}: entry {number} has no other fields than {', '.join(sorted(_FIELDS))}, all of them text")
    given = row.keys() - {"address"}
    if not row.get("address") or given not in ({"bearer"}, {"user", "password"}):
        raise CredentialsError(f"{path}: entry {number} needs an address, and bearer, or user and password")
    if "bearer" in row:
        said = f"Bearer {row['bearer']}"
    else:
        # Half of a surrogate pair, which JSON can hold, is none of UTF-8.
        said = "Basic " + base64.b64encode(f"{row['user']}:{row['password']}".encode(errors="replace")).decode()
    if not said.isascii() or not said.isprintable():
        raise CredentialsError(f"{path}: entry {number} has a token that no header can hold")
    return row["address"].rstrip("/"), said
