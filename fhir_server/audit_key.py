"""Where the key is that seals the audit trail."""

from pathlib import Path

from fhir_server.start_error import StartError
from smart_auth.key_file import KeyFile, KeyFileError


def audit_key(data_dir: Path) -> bytes:
    """32 secret bytes, from a file that is made when there is none. StartError when it can't be used."""
    try:
        return KeyFile(data_dir / "keys" / "audit.key").secret("audit trail")
    except KeyFileError as error:
        raise StartError(str(error)) from None
