"""Asking a person to log in again, because what it wants needs a newer or a stronger proof of who it is (RFC 9470)."""

from fhir_server.outcome import FhirError, Issue


def challenge(text: str, max_age: int) -> FhirError:
    """401 with the `max_age` (seconds) with which the app is to send the person to authorize again (RFC 9470 3)."""
    said = f'error="insufficient_user_authentication", error_description="{text}", max_age="{max_age}"'
    return FhirError(Issue("login", text), headers={"WWW-Authenticate": f'Bearer realm="fhir", {said}'})
