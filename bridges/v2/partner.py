"""Endpoint -> who may send us HL7 v2, from where, and in which dialect (DESIGN.md 2.5; docs/decisions/0020).

A partner that sends is an active Endpoint of connectionType `hl7v2-mllp` with a header `accept-application`. One Endpoint may
be both: a destination, and a partner that sends.
"""

from dataclasses import dataclass, field
from datetime import tzinfo
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from fhir_server.registry import Resource

Rule = Literal["accept", "work-item", "hold", "refuse"]
RULES: Final = ("accept", "work-item", "hold", "refuse")
VALIDATION: Final = ("none", "warn", "strict")


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
        accept-unknown-procedure, accept-missing-reason, accept-duplicate-order, accept-implausible-date:
                              `accept`, `work-item`, `hold` or `refuse`
        accept-section-codes  its names (OBX-3.1) for the sections of a report: `BEF=59776-5, BEU=19005-8`
        accept-concept-map    the ConceptMap (`ConceptMap/1`) from its procedure codes to ours
    """

    reference: str = ""
    application: str = ""
    facility: str = ""
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    certificates: frozenset[str] = frozenset()
    messages: frozenset[str] = frozenset()
    rate: float | None = None
    zone: tzinfo | None = None
    charset: str = "utf-8"
    processing: frozenset[str] = frozenset({"P"})
    validation: str = "none"
    response: str = "ack"
    unknown_order: str = "refuse"
    unknown_procedure: Rule = "work-item"
    missing_reason: Rule = "accept"
    duplicate_order: Rule = "work-item"
    implausible_date: Rule = "work-item"
    concept_map: str = ""
    section_codes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoint: Resource) -> "Partner | None":
        """The partner of a checked Endpoint; None when it only receives."""
        said = headers(endpoint)
        if "accept-application" not in said:
            return None
        given: dict[str, Any] = {
            "addresses": tuple(ip_network(a, strict=False) for a in listed(said.get("accept-address", ""))),
            "certificates": frozenset(listed(said.get("accept-certificate", ""))),
            "messages": frozenset(listed(said.get("accept-messages", ""))),
            "rate": float(said["accept-rate"]) if "accept-rate" in said else None,
            "zone": ZoneInfo(said["accept-time-zone"]) if "accept-time-zone" in said else None,
            "processing": frozenset(listed(said.get("accept-processing", "P"))),
            "section_codes": dict(map(_pair, listed(said.get("accept-section-codes", "")))),
        }
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
        }
        given |= {name: said[f"accept-{header}"] for name, header in texts.items() if f"accept-{header}" in said}
        return cls(
            f"Endpoint/{endpoint['id']}", said["accept-application"], said.get("accept-facility", ""), **given
        )  # fmt: skip


def _pair(item: str) -> tuple[str, str]:
    name, _, code = item.partition("=")
    return name.strip(), code.strip()


def headers(endpoint: Resource) -> dict[str, str]:
    """The headers of an Endpoint by name, in lower case."""
    pairs = (str(header).partition(":") for header in endpoint.get("header", ()))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def listed(text: str) -> list[str]:
    """The items of a list with commas between."""
    return [item.strip() for item in text.split(",") if item.strip()]
