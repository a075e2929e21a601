"""Names of persons: XPN -> HumanName and back (HL7 v2-to-FHIR guide, XPN and FN)."""

from typing import Any, Final

from bridges.v2.codes import NAME_REPRESENTATION, NAME_USE
from bridges.v2.datatypes import FN, XPN
from fhir_server.elements import extension
from resources import terms

_PARTS: Final = {  # of a family name -> the extension that holds it
    "own_prefix": "http://hl7.org/fhir/StructureDefinition/humanname-own-prefix",
    "own_name": "http://hl7.org/fhir/StructureDefinition/humanname-own-name",
    "partner_prefix": "http://hl7.org/fhir/StructureDefinition/humanname-partner-prefix",
    "partner_name": "http://hl7.org/fhir/StructureDefinition/humanname-partner-name",
}


def human_name(xpn: XPN) -> dict[str, Any] | None:
    """XPN -> HumanName; None when it names nobody."""
    of_family = [{"url": url, "valueString": said} for part, url in _PARTS.items() if (said := getattr(xpn.of_family, part))]
    script = NAME_REPRESENTATION.fhir(xpn.representation)
    parts: dict[str, Any] = {
        "extension": [{"url": terms.NAME_REPRESENTATION, "valueCode": script}] if script else None,
        "use": NAME_USE.fhir(xpn.type),
        "family": xpn.family,
        "_family": {"extension": of_family} if xpn.family and of_family else None,
        "given": [g for g in (xpn.given, xpn.middle) if g],
        "prefix": [xpn.prefix] if xpn.prefix else None,
        "suffix": [s for s in (xpn.suffix, xpn.degree) if s],
    }
    found = {k: v for k, v in parts.items() if v}
    return found if found.keys() - {"use", "extension"} else None


def xpn(human: dict[str, Any]) -> XPN:
    """HumanName -> XPN."""
    given, family = human.get("given", []), human.get("_family", {})
    said = {part: str((extension(family, url) or {}).get("valueString", "")) for part, url in _PARTS.items()}
    return XPN(
        human.get("family", ""),
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(human.get("suffix", [])),
        " ".join(human.get("prefix", [])),
        "",
        NAME_USE.v2(human.get("use"), "L"),
        NAME_REPRESENTATION.v2((extension(human, terms.NAME_REPRESENTATION) or {}).get("valueCode")),
        FN(**said),
    )
