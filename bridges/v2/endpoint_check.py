"""What an Endpoint of HL7 v2 may say: each header that is wrong is refused with its name and what it may be."""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final
from zoneinfo import available_timezones

from bridges.v2 import destination
from bridges.v2.charset import codec_of
from bridges.v2.destination import KINDS, MESSAGE, VERSIONS, address
from bridges.v2.partner import IDENTITY, VALIDATION, Partner, duration, headers, listed
from fhir_server.elements import codings
from fhir_server.outcome import FhirError, fail
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources.order_verdict import RULES

CONNECTION_TYPE: Final = "hl7v2-mllp"
_NAME = 227  # characters of an HD (HL7 v2.5.1 2.A.33)


def _any_of(*values: str) -> Callable[[str], bool]:
    return lambda text: text in values


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


def _each(good: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: bool(listed(text)) and all(good(item) for item in listed(text))


def _network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _duration(text: str) -> bool:
    try:
        return bool(duration(text))
    except ValueError:
        return False


def _zone(text: str) -> bool:
    return text in available_timezones()


def _charset(text: str) -> bool:
    return codec_of(text) is not None


_RULE = (_any_of(*RULES), f"is one of {', '.join(RULES)}")
# Header -> whether a text is one of its values, and what it may be. Headers that aren't here may be anything. Those of a
# destination are a table of their own (`destination.HEADERS`).
HEADERS: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    **{h.name: (h.takes, f"is {h.says}") for h in destination.HEADERS},
    "accept-application": (lambda t: 0 < len(t) <= _NAME, f"is the text of MSH-3, of at most {_NAME} characters"),
    "accept-facility": (lambda t: 0 < len(t) <= _NAME, f"is the text of MSH-4, of at most {_NAME} characters"),
    "accept-address": (_each(_network), "is a list of addresses and networks such as 192.0.2.7, 2001:db8::/32"),
    "accept-certificate": (_each(bool), "is a list of SHA-256 fingerprints or common names"),
    "accept-messages": (_each(_matches(r"[A-Z]{3}\^([A-Z][A-Z0-9]{2}|\*)")), "is a list such as ADT^*, ORM^O01"),
    "accept-rate": (_matches(r"(?=.*[1-9])[0-9]{1,5}(\.[0-9]{1,3})?"), "is a number of messages a second"),
    "accept-time-zone": (_zone, "is no IANA time zone"),
    "accept-character-set": (_charset, "is none of HL7 table 0211"),
    "accept-processing": (_each(_any_of("P", "T", "D")), "is a list of P, T, D (table 0103)"),
    "accept-validation": (_any_of(*VALIDATION), f"is one of {', '.join(VALIDATION)}"),
    "accept-response": (_any_of("ack", "order"), "is `ack` or `order`"),
    "accept-unknown-order": (_any_of("refuse", "park"), "is `refuse` or `park`"),
    "accept-unknown-order-hours": (_matches("[1-9][0-9]{0,2}"), "is a number of hours, from 1 to 999"),
    "accept-duplicate-days": (_matches("[0-9]{1,3}"), "is a number of days, from 0 to 999"),
    "accept-protocol-field": (_any_of("OBR-4.4"), "is `OBR-4.4`"),
    "accept-station-field": (_any_of("ORC-18"), "is `ORC-18`"),
    "accept-unknown-procedure": _RULE,
    "accept-missing-reason": _RULE,
    "accept-duplicate-order": _RULE,
    "accept-implausible-date": _RULE,
    "accept-identity": (_any_of(*IDENTITY), f"is one of {', '.join(IDENTITY)}"),
    "accept-authority": (
        _each(_matches(r"[^=,]{1,227}=[^=,]{1,227}")),
        "is a list such as HOSP=1.2.276.0.76.1, KH=CLINIC",
    ),
    "accept-section-codes": (
        _matches(r"[^,=]+=[0-9]+-[0-9](?: *, *[^,=]+=[0-9]+-[0-9])*"),
        "is a list such as `BEF=59776-5, BEU=19005-8`",
    ),
    "accept-concept-map": (_matches(r"ConceptMap/[A-Za-z0-9.-]{1,64}"), "is a reference such as ConceptMap/1"),
    "expect-every": (_duration, "is a time such as 30m, 12h or 2d"),
}


def check_endpoint(endpoint: Resource) -> None:
    """FhirError when no message could be written for an HL7 v2 Endpoint, or sent to it, or when its partner can't be told."""
    if endpoint.get("connectionType", {}).get("code") != CONNECTION_TYPE:
        return
    try:
        address(endpoint)
    except ValueError as error:
        raise fail("value", str(error), "Endpoint.address", status=422) from None
    said = headers(endpoint)
    for name, (good, allowed) in HEADERS.items():
        if name in said and not good(said[name]):
            raise _wrong(f"{name} {allowed}")
    if "accept-application" not in said and (lone := next((n for n in said if n.startswith(("accept-", "expect-"))), None)):
        raise _wrong(f"{lone} says something of a sender, whose name is in no accept-application")
    if unknown := next((n for n in said if n.startswith(("accept-", "expect-")) and n not in HEADERS), None):
        raise _wrong(f"{unknown[:60]} is no header of a partner that sends")
    _check_wants(endpoint, said.get("hl7-version", "2.5.1"))
    _check_role(endpoint, said.get("role", ""))


def _check_wants(endpoint: Resource, version: str) -> None:
    """What an Endpoint wants is something that we send, and exists in its version."""
    for i, payload in enumerate(endpoint.get("payloadType", ())):
        for coding in codings(payload):
            code = coding.get("code", "")
            if coding.get("system") != MESSAGE and "^" not in code:
                continue
            place = f"Endpoint.payloadType[{i}]"
            if code not in KINDS and code != "none":
                raise fail("value", f"{code} is not sent. What is sent: {', '.join(sorted(KINDS))}", place, status=422)
            since = KINDS.get(code, "2.1")
            if VERSIONS.index(version) < VERSIONS.index(since):
                raise fail("value", f"HL7 {version} has no {code}, which came with {since}", place, status=422)


def _check_role(endpoint: Resource, role: str) -> None:
    """OMI^O23 tells of the steps of a study: a placer, who is told of orders, gets ORM^O01 or OMG^O19."""
    wanted = {c.get("code", "") for payload in endpoint.get("payloadType", ()) for c in codings(payload)}
    if destination.PLACER in listed(role) and "OMI^O23" in wanted and not wanted & {"ORM^O01", "OMG^O19"}:
        raise _wrong("role: a placer gets ORM^O01 or OMG^O19; OMI^O23 is for an image manager")


def _wrong(text: str) -> FhirError:
    return fail("value", text, "Endpoint.header", status=422)


async def check_concept_map(unit: UnitOfWork, endpoint: Resource) -> None:
    """FhirError when the ConceptMap that an Endpoint names isn't there."""
    reference = headers(endpoint).get("concept-map")
    if reference and endpoint.get("connectionType", {}).get("code") == CONNECTION_TYPE and await unit.get(reference) is None:
        raise _wrong(f"concept-map: there is no {reference}")


async def check_alone(unit: UnitOfWork, endpoint: Resource) -> None:
    """FhirError when another active Endpoint describes the same sender: nobody could say whose rules count."""
    partner = Partner.of(endpoint) if is_active(endpoint) else None
    if partner is None:
        return
    await unit.lock("v2-partners")
    for other in await unit.search("Endpoint", status="active", connection_type=CONNECTION_TYPE):
        known = Partner.of(other)
        if known is not None and known.reference != partner.reference and _same(known, partner):
            raise _wrong(f"{known.reference} describes this sender already: other names, addresses or certificates are needed")


def is_active(endpoint: Resource) -> bool:
    """Whether an Endpoint is one of HL7 v2, and in use."""
    return endpoint.get("status") == "active" and endpoint.get("connectionType", {}).get("code") == CONNECTION_TYPE


def _same(one: Partner, other: Partner) -> bool:
    if (one.application, one.facility) != (other.application, other.facility) or one.specificity != other.specificity:
        return False
    addresses = not one.addresses or any(a.version == b.version and a.overlaps(b) for a in one.addresses for b in other.addresses)
    return addresses and (not one.certificates or not one.certificates.isdisjoint(other.certificates))
