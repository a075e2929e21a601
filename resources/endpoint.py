"""Endpoint: the address at which a system of the web is asked."""

from urllib.parse import SplitResult, urlsplit

from fhir_server.registry import Resource


def web_address(endpoint: Resource) -> tuple[str, SplitResult] | None:
    """The base of what it serves, without a slash at its end, and its parts; None for what is no plain address.

    Plain: http or https, a host, no credentials, query or fragment.
    """
    given = str(endpoint.get("address", ""))
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError:
        return None
    plain = parts.hostname and not (parts.username or parts.password or parts.query or parts.fragment)
    return (given.rstrip("/"), parts) if plain and parts.scheme in {"http", "https"} else None
