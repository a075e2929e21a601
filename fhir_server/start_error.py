"""Why something can't start or be done, in one clear line for the operator."""

import os


class StartError(Exception):
    """The text says what is wrong, and what to do where that isn't plain."""


def taken_address(what: str, host: str, port: int, error: OSError) -> str:
    """The line for an address that can't be listened on."""
    return f"{what} can't listen on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"
