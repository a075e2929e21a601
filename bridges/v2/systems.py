"""Code systems and assigning authorities by name: HL7 table 0396, CX and EI on one side, FHIR systems on the other."""

from typing import Any
from urllib.parse import quote, unquote

from bridges.v2.datatypes import CWE, CX, EI, HD
from resources.terms import FILLER_ORDER_NUMBER, V2_0203

SYSTEMS = {
    "LN": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "C4": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "RADLEX": "http://radlex.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
}
_NAMES = {uri: name for name, uri in SYSTEMS.items()} | {"http://www.ama-assn.org/go/cpt": "C4"}
_NAMED = "urn:fhir-ris:v2-system:"
_LOCAL = "urn:fhir-ris:v2-local:"
_AUTHORITY = "urn:fhir-ris:v2-authority:"
OWN = "FHIR_RIS"  # our own name, as namespace and as sending application
RAW = "urn:fhir-ris:v2-raw"  # extension: a value as it came, to be echoed byte for byte


def system(name: str, facility: str = "") -> str:
    """The FHIR system of a v2 coding system; an unnamed or local one (`L`) is the facility's own."""
    known = SYSTEMS.get(name.strip().upper())
    if known:
        return known
    return _uri(_LOCAL, facility or "local") if name.strip().upper() in {"", "L"} else _uri(_NAMED, name)


def name(uri: str) -> str:
    """The v2 name of a FHIR system."""
    return _NAMES.get(uri) or _name(_NAMED, uri) or "L"


def _uri(prefix: str, name: str) -> str:
    """A URI has no white space; names of partners do."""
    return prefix + quote(name.strip(), safe="/:@!$&'()*+,;=")


def _name(prefix: str, uri: str) -> str:
    return unquote(uri.removeprefix(prefix)) if uri.startswith(prefix) else ""


def concept(element: CWE, facility: str) -> dict[str, Any] | None:
    """The CodeableConcept of a coded element, with its alternate; None when it is empty."""
    codings = []
    for code, text, of in (
        (element.code, element.text, element.system),
        (element.alternate_code, element.alternate_text, element.alternate_system),
    ):
        if code.strip():
            codings.append({"system": system(of, facility), "code": " ".join(code.split())} | ({"display": text} if text else {}))
    text = element.original_text or element.text or element.alternate_text
    found = ({"coding": codings} if codings else {}) | ({"text": text} if text else {})
    return found or None


def authority_system(authority: HD, default: str) -> str:
    """The identifier system of an assigning authority: its universal id where that is a URI, else its name, else the sender's."""
    universal, kind = authority.universal_id.strip(), authority.universal_id_type.upper()
    if authority.oid:
        return _uri("urn:oid:", universal)
    if kind == "URI" and ":" in universal and not universal.startswith("urn:fhir-ris:"):
        return _uri("", universal)
    return _uri(_AUTHORITY, authority.namespace or universal or default)


def _authority(identifier: dict[str, Any]) -> HD:
    """The reverse: HD of an identifier's system and assigner."""
    of = str(identifier.get("system", ""))
    namespace = identifier.get("assigner", {}).get("display") or _name(_AUTHORITY, of)
    if of.startswith("urn:oid:"):
        return HD(namespace, of.removeprefix("urn:oid:"), "ISO")
    return HD(namespace) if namespace or not of else HD("", of, "URI")


def identifier(cx: CX, facility: str) -> dict[str, Any]:
    """The FHIR Identifier of a CX. An id without authority is the sending facility's."""
    found: dict[str, Any] = {"type": typed(cx.type.strip())} if cx.type.strip() else {}
    return found | _assigned(cx.id, cx.authority, facility)


def entity_identifier(ei: EI, code: str, sender: str) -> dict[str, Any]:
    """The FHIR Identifier of an order number; `code` is its type (v2-0203). The EI is kept as it came."""
    authority = HD(ei.namespace, ei.universal_id, ei.universal_id_type)
    return {"extension": [{"url": RAW, "valueString": ei.raw}], "type": typed(code)} | _assigned(ei.id, authority, sender)


def typed(code: str) -> dict[str, Any]:
    """An identifier type of table 0203."""
    return {"coding": [{"system": V2_0203, "code": code}]}


def _assigned(value: str, authority: HD, default: str) -> dict[str, Any]:
    found: dict[str, Any] = {"system": authority_system(authority, default), "value": value.strip()}
    nameless = authority.oid or authority.universal_id
    if namespace := authority.namespace or ("" if nameless else default):
        found["assigner"] = {"display": namespace}
    return found


def ei_of(found: dict[str, Any] | None) -> EI:
    """The EI of an Identifier: as it came, where it came by v2."""
    if found is None:
        return EI()
    raw = next((e["valueString"] for e in found.get("extension", ()) if e.get("url") == RAW), "")
    of = HD(OWN) if found.get("system") == FILLER_ORDER_NUMBER else _authority(found)
    return EI(found.get("value", ""), of.namespace, of.universal_id, of.universal_id_type, raw)


def cx_of(found: dict[str, Any]) -> CX:
    """The CX of an Identifier."""
    kind = next((c.get("code", "") for c in found.get("type", {}).get("coding", ())), "")
    return CX(found.get("value", ""), _authority(found), kind)
