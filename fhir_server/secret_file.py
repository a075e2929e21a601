"""Files of credentials for calling others: a JSON list that only the server's user can read, never a resource."""

import json
from pathlib import Path
from typing import Any


class CredentialsError(Exception):
    """The file can't be used. The text is for the operator and holds nothing of what is in it."""


def rows(path: Path) -> list[Any]:
    """The list in the file. Raises CredentialsError."""
    try:
        if path.stat().st_mode & 0o077:
            raise CredentialsError(f"{path} can be read by others than the server's user: it must have mode 0600")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise CredentialsError(f"{path} can't be read: {error.strerror}") from None
    except ValueError:
        raise CredentialsError(f"{path} is not JSON") from None
    if not isinstance(found, list):
        raise CredentialsError(f"{path} is not a list")
    return found
