"""Code systems and assigning authorities by name: HL7 table 0396, CX and EI on one side, FHIR systems on the other."""

from typing import Any

from bridges.v2.datatypes import CWE, CX, EI, HD

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
RAW = "urn:fhir-ris:v2-raw"  # extension: a value as it came, to be echoed byte for byte


def system(name: str, facility: str = "") -> str:
    """The FHIR system of a v2 coding system; a local one (`L`, `99...`) is the facility's own."""
    known = SYSTEMS.get(name.upper())
    if known:
        return known
    return f"{_LOCAL}{facility or 'local'}" if name.upper() in {"", "L"} else f"{_NAMED}{name}"


def name(uri: str) -> str:
    """The v2 name of a FHIR system."""
    return _NAMES.get(uri) or (uri.removeprefix(_NAMED) if uri.startswith(_NAMED) else "L")


def concept(element: CWE, facility: str) -> dict[str, Any] | None:
    """The CodeableConcept of a coded element, with its alternate; None when it is empty."""
    codings = []
    for code, text, of in (
        (element.code, element.text, element.system),
        (element.alternate_code, element.alternate_text, element.alternate_system),
    ):
        if code:
            codings.append({"system": system(of, facility), "code": code.strip()} | ({"display": text} if text else {}))
    text = element.original_text or element.text or element.alternate_text
    found = ({"coding": codings} if codings else {}) | ({"text": text} if text else {})
    return found or None


def authority_system(authority: HD, default: str) -> str:
    """The identifier system of an assigning authority: its OID, else its namespace, else the sender's."""
    if authority.oid:
        return f"urn:oid:{authority.oid}"
    return f"{_AUTHORITY}{authority.namespace or default}"


def identifier(cx: CX, facility: str) -> dict[str, Any]:
    """The FHIR Identifier of a CX. An id without authority is the sending facility's."""
    namespace = cx.authority.namespace or ("" if cx.authority.oid else facility)
    found: dict[str, Any] = {"system": authority_system(cx.authority, facility), "value": cx.id}
    if cx.type:
        found = {"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": cx.type}]}} | found
    if namespace:
        found["assigner"] = {"display": namespace}
    return found


def entity_identifier(ei: EI, code: str, sender: str) -> dict[str, Any]:
    """The FHIR Identifier of an order number; `code` is its type (v2-0203). The EI is kept as it came."""
    authority = HD(ei.namespace, ei.universal_id, ei.universal_id_type)
    return {
        "extension": [{"url": RAW, "valueString": ei.raw}],
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": code}]},
        "system": authority_system(authority, sender),
        "value": ei.id,
    }


def ei_of(found: dict[str, Any] | None) -> EI:
    """The EI of an Identifier: as it came, where it came by v2."""
    if found is None:
        return EI()
    raw = next((e["valueString"] for e in found.get("extension", ()) if e.get("url") == RAW), "")
    of = str(found.get("system", ""))
    namespace = of.removeprefix(_AUTHORITY) if of.startswith(_AUTHORITY) else "" if of.startswith("urn:oid:") else "FHIR_RIS"
    oid = of.removeprefix("urn:oid:") if of.startswith("urn:oid:") else ""
    return EI(found.get("value", ""), namespace, oid, "ISO" if oid else "", raw)


def cx_of(found: dict[str, Any]) -> CX:
    """The CX of an Identifier."""
    of = str(found.get("system", ""))
    oid = of.removeprefix("urn:oid:") if of.startswith("urn:oid:") else ""
    namespace = found.get("assigner", {}).get("display") or (of.removeprefix(_AUTHORITY) if of.startswith(_AUTHORITY) else "")
    kind = next((c.get("code", "") for c in found.get("type", {}).get("coding", ())), "")
    return CX(found.get("value", ""), HD(namespace, oid, "ISO" if oid else ""), kind)
