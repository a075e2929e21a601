"""Where the keys are that seal the audit trail and sign reports."""

from pathlib import Path

from fhir_server.start_error import StartError
from smart_auth.key_file import KeyFile, KeyFileError


def audit_key(data_dir: Path) -> bytes:
    """32 secret bytes, from a file that is made when there is none. StartError when it can't be used."""
    return _secret(data_dir / "keys" / "audit.key", "audit trail")


def report_signing_key(data_dir: Path) -> bytes:
    """The same for the key that reports are signed with, which is in a file of its own."""
    return _secret(data_dir / "keys" / "report-signing.key", "report signatures")


def _secret(path: Path, about: str) -> bytes:
    try:
        return KeyFile(path).secret(about)
    except KeyFileError as error:
        raise StartError(str(error)) from None
