"""Hosts that a server may call because somebody gave it their address: those in the public internet alone (no SSRF)."""

import asyncio
import ipaddress
import socket

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has assigned for it (RFC 4291 2.4)
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")


class NotPublic(Exception):
    """The host can't be called. The text names no more than the reason."""


async def resolved(host: str, port: int, *, check: bool) -> str:
    """The address to connect to. If one of several is not public, none is used: the name is not to be trusted.

    Raises NotPublic, and OSError where the name isn't known. `check` False: any address is taken.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if check and not all(map(is_public, addresses)):
        raise NotPublic("the host is not in the public internet")
    if not addresses:
        raise NotPublic("the host has no address")
    return addresses[0]


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_public(address: str) -> bool:
    """Whether an IP address is in the public internet: not of this machine, a private or link-local network, or a group."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        return ip in _GLOBAL_UNICAST and ip.is_global
    # Python takes some of the protocol assignments (RFC 6890 2.2.2) for global.
    return ip.is_global and not ip.is_multicast and ip not in _PROTOCOLS
