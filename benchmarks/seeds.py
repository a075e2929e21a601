"""The resources that the measurements write: invented, valid R4.

The nine linked ones of the CRUD workload have the sizes of its own (0.5 to 4.9 kB); `@Patient@` and the like stand in them for
ids that the server gives.
"""

import json
from typing import Any

Resource = dict[str, Any]
TYPES = (
    "Patient", "Location", "Organization", "Practitioner", "Encounter", "Observation", "MedicationRequest", "Claim",
    "ExplanationOfBenefit",
)  # fmt: skip
_SNOMED, _LOINC, _UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"
_HL7 = "http://terminology.hl7.org/CodeSystem"
_OWN = "urn:example:bench"


def body(resource_type: str) -> bytes:
    """What is created: JSON without an id."""
    return json.dumps(_SEEDS[resource_type], ensure_ascii=False, separators=(",", ":")).encode()


def changed_body(resource_type: str) -> bytes:
    """What is put: the same with the id `@self@` and one field changed."""
    changed = {"resourceType": resource_type, "id": "@self@", **_SEEDS[resource_type], **_CHANGES[resource_type]}
    return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode()


def _concept(system: str, code: str, display: str, text: str | None = None) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": text or display}


def _identifier(name: str, value: str, kind: str | None = None) -> Resource:
    found: Resource = {"system": f"{_OWN}:{name}", "value": value}
    return {"type": _concept(f"{_HL7}/v2-0203", kind, kind), **found} if kind else found


def _ref(resource_type: str, display: str | None = None) -> Resource:
    found = {"reference": f"{resource_type}/@{resource_type}@"}
    return {**found, "display": display} if display else found


def _usd(amount: float) -> Resource:
    return {"value": amount, "currency": "USD"}


def _address(line: str, city: str) -> Resource:
    return {"use": "work", "line": [line], "city": city, "state": "XX", "postalCode": "00000", "country": "XX"}


_PERIOD = {"start": "2026-03-02T08:15:00+01:00", "end": "2026-03-02T08:45:00+01:00"}

_PATIENT: Resource = {
    "resourceType": "Patient",
    "text": {
        "status": "generated",
        "div": '<div xmlns="http://www.w3.org/1999/xhtml">Berta Bench, born on 7 May 1961, invented for a benchmark</div>',
    },
    "extension": [
        {"url": "urn:example:bench:birthsex", "valueCode": "F"},
        {"url": "urn:example:bench:mothers-maiden-name", "valueString": "Berta Example"},
        {
            "url": "urn:example:bench:birthplace",
            "valueAddress": {"city": "Exampleton", "state": "XX", "country": "XX"},
        },
        {"url": "urn:example:bench:disability-adjusted-years", "valueDecimal": 0.25},
        {"url": "urn:example:bench:quality-adjusted-years", "valueDecimal": 43.75},
    ],
    "identifier": [
        _identifier("source", "6c1f7a32-0000-4000-8000-0123456789ab"),
        _identifier("mrn", "B-000417", "MR"),
        _identifier("social-security", "999-00-0417", "SS"),
        _identifier("licence", "S9999417", "DL"),
        _identifier("passport", "X0000417X", "PPN"),
    ],
    "name": [
        {"use": "official", "family": "Bench", "given": ["Berta", "Beatrix"], "prefix": ["Ms."]},
        {"use": "maiden", "family": "Example", "given": ["Berta", "Beatrix"], "prefix": ["Ms."]},
    ],
    "telecom": [{"system": "phone", "value": "555-0100-417", "use": "home"}],
    "gender": "female",
    "birthDate": "1961-05-07",
    "address": [
        {
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/geolocation",
                    "extension": [
                        {"url": "latitude", "valueDecimal": 10.5},
                        {"url": "longitude", "valueDecimal": -20.25},
                    ],
                }
            ],
            "line": ["417 Example Street Unit 4"],
            "city": "Exampleton",
            "state": "XX",
            "postalCode": "00417",
            "country": "XX",
        }
    ],
    "maritalStatus": _concept(f"{_HL7}/v3-MaritalStatus", "M", "Married"),
    "multipleBirthBoolean": False,
    "communication": [{"language": _concept("urn:ietf:bcp:47", "en-GB", "English (Region=United Kingdom)", "English")}],
}

SMALL_PATIENT: Resource = {
    "resourceType": "Patient",
    "identifier": [_identifier("mrn", "B-000418", "MR")],
    "active": True,
    "name": [{"use": "official", "family": "Bench", "given": ["Bruno", "Basil"], "prefix": ["Mr."]}],
    "telecom": [
        {"system": "phone", "value": "555-0100-418", "use": "home"},
        {"system": "email", "value": "bruno.bench@bench.example", "use": "home"},
    ],
    "gender": "male",
    "birthDate": "1958-11-23",
    "address": [_address("418 Example Street Unit 5", "Exampleton") | {"use": "home"}],
    "maritalStatus": _concept(f"{_HL7}/v3-MaritalStatus", "M", "Married"),
    "communication": [{"language": _concept("urn:ietf:bcp:47", "en-GB", "English (Region=United Kingdom)", "English")}],
}

_LOCATION: Resource = {
    "resourceType": "Location",
    "identifier": [_identifier("location", "L-417")],
    "status": "active",
    "name": "Examination rooms of the first floor",
    "description": "Three rooms with ultrasound and one with a CT scanner, invented for a benchmark",
    "mode": "instance",
    "type": [_concept(f"{_HL7}/v3-RoleCode", "RADDX", "Radiology diagnostics or therapeutics unit")],
    "telecom": [{"system": "phone", "value": "555-0100-001"}],
    "address": _address("1 Example Square", "Exampleton"),
    "position": {"longitude": -20.25, "latitude": 10.5},
}

_ORGANIZATION: Resource = {
    "resourceType": "Organization",
    "identifier": [_identifier("organization", "O-417")],
    "active": True,
    "type": [_concept(f"{_HL7}/organization-type", "prov", "Healthcare Provider")],
    "name": "Exampleton General Hospital of Benchmarks",
    "telecom": [{"system": "phone", "value": "555-0100-002"}],
    "address": [_address("1 Example Square", "Exampleton")],
}

_PRACTITIONER: Resource = {
    "resourceType": "Practitioner",
    "extension": [{"url": "urn:example:bench:encounters", "valueInteger": 417}],
    "identifier": [_identifier("practitioner", "9999999417")],
    "active": True,
    "name": [{"family": "Referrer", "given": ["Rolf"], "prefix": ["Dr."]}],
    "telecom": [{"system": "email", "value": "rolf.referrer@bench.example", "use": "work"}],
    "address": [_address("1 Example Square", "Exampleton")],
    "gender": "male",
}

_ENCOUNTER: Resource = {
    "resourceType": "Encounter",
    "identifier": [{"use": "official", **_identifier("encounter", "E-000417")}],
    "status": "finished",
    "class": {"system": f"{_HL7}/v3-ActCode", "code": "AMB", "display": "ambulatory"},
    "type": [_concept(_SNOMED, "185349003", "Encounter for check up (procedure)")],
    "subject": _ref("Patient", "Ms. Berta Bench"),
    "participant": [
        {
            "type": [_concept(f"{_HL7}/v3-ParticipationType", "PPRF", "primary performer")],
            "period": _PERIOD,
            "individual": _ref("Practitioner", "Dr. Rolf Referrer"),
        }
    ],
    "period": _PERIOD,
    "reasonCode": [_concept(_SNOMED, "49727002", "Cough (finding)")],
    "location": [
        {"location": _ref("Location", "Examination rooms of the first floor"), "status": "completed", "period": _PERIOD}
    ],
    "serviceProvider": _ref("Organization", "Exampleton General Hospital of Benchmarks"),
}

_OBSERVATION: Resource = {
    "resourceType": "Observation",
    "status": "final",
    "category": [_concept(f"{_HL7}/observation-category", "vital-signs", "Vital signs")],
    "code": _concept(_LOINC, "8302-2", "Body Height"),
    "subject": _ref("Patient"),
    "encounter": _ref("Encounter"),
    "effectiveDateTime": "2026-03-02T08:15:00+01:00",
    "issued": "2026-03-02T08:15:00.417+01:00",
    "performer": [_ref("Practitioner", "Dr. Rolf Referrer")],
    "valueQuantity": {"value": 171.4, "unit": "cm", "system": _UCUM, "code": "cm"},
}

_MEDICATION_REQUEST: Resource = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": _concept(f"{_OWN}:drug", "D417", "Examplomycin 250 mg oral tablet"),
    "subject": _ref("Patient"),
    "encounter": _ref("Encounter"),
    "authoredOn": "2026-03-02T08:40:00+01:00",
    "requester": _ref("Practitioner", "Dr. Rolf Referrer"),
    "dosageInstruction": [{"sequence": 1, "text": "one tablet twice a day with water", "asNeededBoolean": False}],
}

_CLAIM: Resource = {
    "resourceType": "Claim",
    "status": "active",
    "type": _concept(f"{_HL7}/claim-type", "pharmacy", "Pharmacy"),
    "use": "claim",
    "patient": _ref("Patient", "Ms. Berta Bench"),
    "billablePeriod": _PERIOD,
    "created": "2026-03-02T08:45:00+01:00",
    "provider": _ref("Organization", "Exampleton General Hospital of Benchmarks"),
    "priority": _concept(f"{_HL7}/processpriority", "normal", "Normal"),
    "prescription": _ref("MedicationRequest"),
    "insurance": [{"sequence": 1, "focal": True, "coverage": {"display": "Example Mutual"}}],
    "item": [
        {
            "sequence": 1,
            "productOrService": _concept(_SNOMED, "185349003", "Encounter for check up (procedure)"),
            "encounter": [_ref("Encounter")],
        }
    ],
    "total": _usd(41.7),
}


def _benefit_item(sequence: int) -> Resource:
    kinds = (("paidbypatient", 4.17), ("deductible", 0.0), ("coinsurance", 8.34), ("paidtoprovider", 33.36), ("submitted", 41.7))
    return {
        "sequence": sequence,
        "category": _concept(f"{_OWN}:service-type", "1", "Medical care"),
        "productOrService": _concept(_SNOMED, "185349003", "Encounter for check up (procedure)"),
        "servicedPeriod": _PERIOD,
        "locationCodeableConcept": _concept(f"{_HL7}/ex-serviceplace", "19", "Off Campus-Outpatient Hospital"),
        "encounter": [_ref("Encounter")],
        "net": _usd(41.7),
        "adjudication": [
            {"category": _concept(f"{_OWN}:adjudication", code, f"Amount: {code}"), "amount": _usd(amount)}
            for code, amount in kinds
        ],
    }


_EXPLANATION: Resource = {
    "resourceType": "ExplanationOfBenefit",
    "contained": [
        {
            "resourceType": "Coverage",
            "id": "coverage",
            "status": "active",
            "type": {"text": "Example Mutual"},
            "beneficiary": _ref("Patient"),
            "payor": [{"display": "Example Mutual"}],
        }
    ],
    "identifier": [_identifier("claim", "C-000417"), _identifier("claim-group", "99999999417")],
    "status": "active",
    "type": _concept(f"{_HL7}/claim-type", "professional", "Professional"),
    "use": "claim",
    "patient": _ref("Patient"),
    "billablePeriod": _PERIOD,
    "created": "2026-03-02T08:46:00+01:00",
    "insurer": {"display": "Example Mutual"},
    "provider": _ref("Practitioner"),
    "facility": _ref("Location", "Examination rooms of the first floor"),
    "claim": _ref("Claim"),
    "outcome": "complete",
    "careTeam": [
        {
            "sequence": 1,
            "provider": _ref("Practitioner"),
            "role": _concept(f"{_HL7}/claimcareteamrole", "primary", "Primary provider"),
        }
    ],
    "insurance": [{"focal": True, "coverage": {"reference": "#coverage", "display": "Example Mutual"}}],
    "item": [_benefit_item(1), _benefit_item(2)],
    "total": [{"category": _concept(f"{_HL7}/adjudication", "submitted", "Submitted Amount"), "amount": _usd(83.4)}],
    "payment": {"amount": _usd(66.72)},
}

_SEEDS: dict[str, Resource] = {
    r["resourceType"]: r
    for r in (
        _PATIENT, _LOCATION, _ORGANIZATION, _PRACTITIONER, _ENCOUNTER, _OBSERVATION, _MEDICATION_REQUEST, _CLAIM, _EXPLANATION,
    )
}  # fmt: skip
_CHANGES: dict[str, Resource] = {
    "Patient": {"birthDate": "1961-05-08"},
    "Location": {"name": "Examination rooms of the second floor"},
    "Organization": {"name": "Exampleton University Hospital of Benchmarks"},
    "Practitioner": {"gender": "other"},
    "Encounter": {"status": "in-progress"},
    "Observation": {"status": "amended"},
    "MedicationRequest": {"status": "completed"},
    "Claim": {"total": _usd(47.1)},
    "ExplanationOfBenefit": {"payment": {"amount": _usd(67.62)}},
}


def service_request(patient: str, number: int) -> Resource:
    """An order of about 1.1 kB, not imaging: what is measured is the FHIR server, not the department's reactions."""
    return {
        "resourceType": "ServiceRequest",
        "identifier": [{"system": "urn:example:bench", "value": f"B{number:07d}"}],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": _SNOMED, "code": "108252007", "display": "Laboratory procedure"}]}],
        "priority": "routine",
        "code": {
            "coding": [
                {"system": _LOINC, "code": "24627-2", "display": "CT Chest"},
                {"system": "urn:example:local", "code": "CTTHX", "display": "CT thorax without contrast"},
            ],
            "text": "CT chest without contrast",
        },
        "subject": {"reference": f"Patient/{patient}", "display": "Bench, Berta"},
        "occurrenceDateTime": f"2026-09-{number % 28 + 1:02d}T10:00:00+02:00",
        "authoredOn": "2026-09-01T08:30:00+02:00",
        "requester": {"display": "Referrer, Rolf"},
        "reasonCode": [
            {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R05", "display": "Cough"}], "text": "Cough"}
        ],
        "note": [{"text": "Please compare with the previous examination. " * 4}],
        "bodySite": [{"coding": [{"system": _SNOMED, "code": "51185008", "display": "Thoracic structure"}]}],
    }


def observation(patient: str, number: int) -> Resource:
    """A measurement of about 0.8 kB. `patient` is an id, or a `urn:uuid:` of the same Bundle."""
    reference = patient if patient.startswith("urn:") else f"Patient/{patient}"
    return {
        "resourceType": "Observation",
        "identifier": [_identifier("observation", f"{number:08d}")],
        "status": "final",
        "category": [_concept(f"{_HL7}/observation-category", "vital-signs", "Vital signs")],
        "code": _concept(_LOINC, "8867-4", "Heart rate"),
        "subject": {"reference": reference, "display": "Bench, Berta"},
        "effectiveDateTime": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T{number % 24:02d}:15:00+01:00",
        "issued": "2026-12-31T08:15:00.417+01:00",
        "performer": [{"display": "Dr. Rolf Referrer"}],
        "valueQuantity": {"value": 60 + number % 60, "unit": "/min", "system": _UCUM, "code": "/min"},
        "note": [{"text": "Measured at rest, while the patient was sitting."}],
    }


def imaging_study(patient: str, series: int, instances: int) -> Resource:
    """A study of `series` times `instances` images; 20 times 100 make about 400 kB."""
    root = "2.25.999999999417"
    sop_class = {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"}
    modality = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT", "display": "Computed Tomography"}
    return {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{root}"}],
        "status": "available",
        "modality": [modality],
        "subject": {"reference": f"Patient/{patient}"},
        "started": "2026-03-02T09:00:00+01:00",
        "numberOfSeries": series,
        "numberOfInstances": series * instances,
        "series": [
            {
                "uid": f"{root}.{s}",
                "number": s,
                "modality": modality,
                "description": f"Invented series number {s}",
                "numberOfInstances": instances,
                "started": "2026-03-02T09:05:00+01:00",
                "instance": [
                    {
                        "uid": f"{root}.{s}.{i}",
                        "sopClass": sop_class,
                        "number": i,
                        "title": f"ORIGINAL\\PRIMARY\\AXIAL image number {i} of this series",
                    }
                    for i in range(1, instances + 1)
                ],
            }
            for s in range(1, series + 1)
        ],
    }
