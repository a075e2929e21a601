"""Where an app may be sent back to, and from which origins its scripts may call (RFC 6749 3.1.2, RFC 8252 7.3, RFC 9700 4.1).

https anywhere, or http on the machine of the user (loopback). What is registered and what is asked for must be the same text;
only the port is free for a public client on a loopback address, as native apps take whichever port they get.
"""

import re
from urllib.parse import SplitResult, urlsplit

_LONGEST = 2000
_LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")
_LOOPBACK = (*_LOOPBACK_ADDRESSES, "localhost")
_LAST_PORT = 65535
_DEFAULT_PORTS = {"https": 443, "http": 80}
# RFC 3986: unreserved, reserved (without # and brackets but for an IPv6 host) and percent-encoded octets.
_ALLOWED = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})+")
_LOOPBACK_URI = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::([0-9]{1,5}))?(/.*)?")


class UriError(ValueError):
    """The URI can't be registered; the text says why."""


def checked_uri(uri: str, what: str) -> str:
    """A URI of an app as it may be registered. Raises UriError; `what` names it there."""
    url = _split(uri)
    if url is None or not _ALLOWED.fullmatch(uri) or len(uri) > _LONGEST:
        raise UriError(f"{uri[:200]!r} is not an absolute URI for a {what}")
    if not url.hostname or url.scheme not in _DEFAULT_PORTS:
        raise UriError(f"the {what} {uri!r} must begin with https:// and a host")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise UriError(f"the {what} {uri!r} must be https; http is for 127.0.0.1, [::1] and localhost only")
    if "#" in uri or "@" in url.netloc:
        raise UriError(f"the {what} {uri!r} must have neither a fragment nor a user name in it")
    if {".", ".."} & set(re.split(r"/", re.sub("%2[eE]", ".", url.path))):
        raise UriError(f"the {what} {uri!r} must not go up with '..'")
    return uri


def is_registered(uri: str, registered: tuple[str, ...], *, native: bool) -> bool:
    """Whether an app may be sent to `uri`. `native`: the port on a loopback address is free (RFC 8252 7.3)."""
    if uri in registered:
        return True
    if not native or (asked := _portless(uri)) is None:
        return False
    return any(_portless(known) == asked for known in registered)


def origin(uri: str) -> str:
    """Scheme, host and port of a registered URI, as browsers write an origin (RFC 6454 6.1)."""
    url = urlsplit(uri)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    port = "" if url.port in (None, _DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    return f"{url.scheme}://{host}{port}"


def any_port(origin_of_caller: str) -> str | None:
    """An origin on a loopback address without its port; None for others."""
    return _portless(origin_of_caller)


def _portless(uri: str) -> str | None:
    match = _LOOPBACK_URI.fullmatch(uri)
    if match is None or not 0 < int(match[2] or 1) <= _LAST_PORT:
        return None
    return match[1] + (match[3] or "")


def _split(uri: str) -> SplitResult | None:
    try:
        url = urlsplit(uri)
        return url if url.port is None or url.port > 0 else None
    except ValueError:
        return None
