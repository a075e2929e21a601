"""Endpoint -> who may send us HL7 v2, from where, and in which dialect (DESIGN.md 2.5; docs/decisions/0020).

A partner that sends is an active Endpoint of connectionType `hl7v2-mllp` with a header `accept-application`. One Endpoint may
be both: a destination, and a partner that sends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from zoneinfo import ZoneInfo

from fhir_server.registry import Resource
from resources.order_verdict import Rule

DEFAULT_CHARSET: Final = "utf-8"
VALIDATION: Final = ("none", "warn", "strict")
IDENTITY: Final = ("master", "follow")
_UNITS: Final = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Partner:
    """One sender and what we agreed with it. The defaults are those of a sender that no Endpoint describes.

    Headers of its Endpoint, one `name: value` each:
        accept-application    MSH-3 of what it sends; marks the Endpoint as a partner
        accept-facility       MSH-4; any when left out
        accept-address        addresses and networks it may come from, comma between; any when left out
        accept-certificate    SHA-256 fingerprint (hex) or subject common name of its TLS certificate, comma between
        accept-messages       what it may send: `ADT^*, ORM^O01`; anything we take when left out
        accept-rate           messages a second, on the average of some seconds; more wait
        accept-time-zone      IANA zone of its times without an offset; the department's
        accept-character-set  of messages whose MSH-18 is empty; UTF-8
        accept-processing     the processing ids it may use (MSH-11.1), comma between; P
        accept-validation     `none`, `warn` or `strict`: the structure, by HL7's message definitions
        accept-response       `ack`, or `order` for ORR, ORG and ORI as the answer to orders
        accept-unknown-order  what a message about an order that we don't have does: `refuse`, or `park` until it comes
        accept-unknown-order-hours  how long such a message waits; 24
        accept-duplicate-days how near two alike orders are duplicates; 30
        accept-protocol-field `OBR-4.4` when OBR-4.4 to 4.6 are the protocol, not another code for the procedure
        accept-station-field  `ORC-18` when that is the AE title of the station that is wanted
        accept-unknown-procedure, accept-missing-reason, accept-duplicate-order, accept-implausible-date:
                              `accept`, `work-item`, `hold` or `refuse`
        accept-identity       `master`: its ADT messages are believed; `follow`: they change nothing of a patient that is known
        accept-authority      its names of assigning authorities and what all call them, `NAME=1.2.276.0.76.1, OTHER=CLINIC`: an
                              OID, a URI or another name, comma between
        accept-section-codes  its names (OBX-3.1) for the sections of a report: `BEF=59776-5, BEU=19005-8`
        accept-concept-map    the ConceptMap (`ConceptMap/1`) from its procedure codes to ours
        expect-every          the longest silence that is usual (`30m`, `12h`, `2d`); learned from its past when left out

    since: when the Endpoint became what it is
    """

    reference: str = ""
    application: str = ""
    facility: str = ""
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    certificates: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    rate: float | None = None
    zone: tzinfo | None = None
    charset: str = DEFAULT_CHARSET
    processing: frozenset[str] = frozenset({"P"})
    validation: str = "none"
    response: str = "ack"
    unknown_order: str = "refuse"
    unknown_procedure: Rule = "work-item"
    missing_reason: Rule = "accept"
    duplicate_order: Rule = "work-item"
    implausible_date: Rule = "work-item"
    concept_map: str = ""
    unknown_order_hours: float = 24
    duplicate_days: int = 30
    protocol_field: str = ""
    station_field: str = ""
    identity: str = "master"
    authorities: Mapping[str, str] = field(default_factory=dict)
    section_codes: dict[str, str] = field(default_factory=dict, hash=False)
    expect_every: timedelta | None = None
    since: datetime | None = None

    @property
    def is_master(self) -> bool:
        """Whether its ADT messages are the master's."""
        return self.identity != "follow"

    @property
    def name(self) -> str:
        """How it is called in the message store and the metrics: the reference of its Endpoint, empty for one that has none."""
        return self.reference

    @property
    def specificity(self) -> tuple[bool, bool, bool]:
        """Who is described more closely comes first where several descriptions fit."""
        return bool(self.facility), bool(self.addresses), bool(self.certificates)

    def may_come_from(self, host: str) -> bool:
        """Whether its connections may come from this address."""
        if not self.addresses:
            return True
        address = address_of(host)
        return address is not None and any(address in network for network in self.addresses)

    def is_called(self, application: str, facility: str) -> bool:
        """Whether MSH-3 and MSH-4 are its names."""
        return application == self.application and self.facility in {"", facility}

    def shows(self, certificate_names: frozenset[str]) -> bool:
        """Whether one of these names of a certificate (fingerprint, common name) is agreed; any where none is."""
        return not self.certificates or not self.certificates.isdisjoint(certificate_names)

    def may_send(self, kind: str, event: str) -> bool:
        """Whether this message is agreed, by `ADT^A04` or `ADT^*`."""
        return not self.messages or not self.messages.isdisjoint({f"{kind}^{event}", f"{kind}^*", kind})

    @classmethod
    def of(cls, endpoint: Resource) -> "Partner | None":
        """The partner of a checked Endpoint; None when it only receives."""
        said = headers(endpoint)
        if "accept-application" not in said:
            return None
        given: dict[str, Any] = {
            "addresses": tuple(ip_network(a, strict=False) for a in listed(said.get("accept-address", ""))),
            "certificates": frozenset(certificate_name(c) for c in listed(said.get("accept-certificate", ""))),
            "messages": frozenset(listed(said.get("accept-messages", ""))),
            "since": datetime.fromisoformat(at) if (at := endpoint.get("meta", {}).get("lastUpdated")) else None,
            "rate": float(said["accept-rate"]) if "accept-rate" in said else None,
            "zone": ZoneInfo(said["accept-time-zone"]) if "accept-time-zone" in said else None,
            "processing": frozenset(listed(said.get("accept-processing", "P"))),
            "authorities": dict(_pair(p) for p in listed(said.get("accept-authority", "")) if "=" in p),
            "expect_every": duration(said["expect-every"]) if "expect-every" in said else None,
            "section_codes": dict(map(_pair, listed(said.get("accept-section-codes", "")))),
        }
        numbers = {"unknown_order_hours": "unknown-order-hours", "duplicate_days": "duplicate-days"}
        given |= {name: int(said[f"accept-{header}"]) for name, header in numbers.items() if f"accept-{header}" in said}
        texts = {
            "charset": "character-set",
            "validation": "validation",
            "response": "response",
            "unknown_order": "unknown-order",
            "unknown_procedure": "unknown-procedure",
            "missing_reason": "missing-reason",
            "duplicate_order": "duplicate-order",
            "implausible_date": "implausible-date",
            "concept_map": "concept-map",
            "protocol_field": "protocol-field",
            "station_field": "station-field",
            "identity": "identity",
        }
        given |= {name: said[f"accept-{header}"] for name, header in texts.items() if f"accept-{header}" in said}
        return cls(
            f"Endpoint/{endpoint['id']}", said["accept-application"], said.get("accept-facility", ""), **given
        )  # fmt: skip


def headers(endpoint: Resource) -> dict[str, str]:
    """The headers of an Endpoint by name, in lower case."""
    pairs = (str(header).partition(":") for header in endpoint.get("header", ()))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def listed(text: str) -> list[str]:
    """The items of a list with commas between."""
    return [item.strip() for item in text.split(",") if item.strip()]


def certificate_name(text: str) -> str:
    """A fingerprint as plain lower-case hex, however it was written; a common name as it is."""
    plain = text.replace(":", "").replace(" ", "").lower()
    return plain if re.fullmatch("[0-9a-f]{64}", plain) else text


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address of a peer; an IPv4 one that came in over IPv6 as what it is. None for what is no address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `12h`, `2d`. ValueError for others."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text.strip())
    if found is None:
        raise ValueError("not a time such as 30m, 12h or 2d")
    return (
        int(found[1])
        * {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(1)}[found[2]]
    )
