"""The few values that generated resources and generated searches are made of: few, so that a search often finds something."""

from typing import Any

from tests.search_oracle.units import SYSTEM as UCUM

CODINGS: list[dict[str, Any]] = [
    {"system": "http://loinc.org", "code": "8480-6", "display": "Systolic  pressure"},
    {"system": "http://loinc.org", "code": "8462-4"},
    {"system": "urn:example:codes", "code": "K1", "display": "Übersicht"},
    {"system": "urn:example:codes", "code": "k1"},
    {"system": "urn:example:other", "code": "K1", "display": "overview"},
    {"code": "K1"},
    {"system": "urn:example:odd|$", "code": "a,b|c$d\\e"},
    {"system": "urn:example:other"},
]

TEXTS = [
    "Müller-Lüdenscheidt",
    "MULLER",
    "mueller",
    "Éva  Maria",
    "Carreño Quiñones",
    "O'Brien-Smith",
    "...",
    "eva",
    "Straße 12",
    "STRASSE",
    "Ørsted, Jr. $ |",
    "İpek",
    "Ⅻ",
    "k1",
]

# Longer than what an index holds as it is.
LONG_TEXT = "Ausführliche Beschreibung: " + " ".join(f"Äußerung {n}" for n in range(60))
TEXTS.append(LONG_TEXT)

IDENTIFIERS: list[dict[str, Any]] = [
    {
        "system": "urn:example:mrn",
        "value": "100",
        "type": {"coding": [{"system": "urn:example:type", "code": "MR"}], "text": "Record"},
    },
    {"system": "urn:example:mrn", "value": "200"},
    {"system": "urn:example:visits", "value": "100", "type": {"coding": [{"system": "urn:example:type", "code": "VN"}]}},
    {"value": "100"},
    {"value": "A|1,2"},
    {"system": "urn:example:mrn"},
    {"system": "urn:example:long", "value": "7" * 400},
]

# Within a few days of each other and across years, and at the edges of days in several zones.
DATES = ["2013", "2013-01", "2012-12-31", "2013-01-01", "2013-01-14", "2013-01-15", "2014-06", "2016-02-29", "2021"]
TIMES = [
    "2012-12-31T23:30:00-01:00",
    "2013-01-01T00:00:00Z",
    "2013-01-14T00:00:00+02:00",
    "2013-01-14T10:00:00Z",
    "2013-01-14T11:00:00+01:00",
    "2013-01-14T10:00:00.250Z",
    "2013-01-14T23:59:59.999Z",
    "2013-01-15T00:00:00Z",
    "2016-02-29T12:00:00+14:00",
]

NUMBERS = [
    "-3",
    "0",
    "0.25",
    "0.250",
    "2.5",
    "5",
    "5.4",
    "12",
    "90",
    "94.99",
    "95",
    "99.5",
    "100",
    "100.00",
    "100.5",
    "1e2",
    "1500",
]

# Amounts of the same kind in different units; some equal, some nearly.
QUANTITIES: list[dict[str, Any]] = [
    *(
        {"value": v, "unit": u, "system": UCUM, "code": u}
        for v, u in (("1.5", "g"), ("1500", "mg"), ("1500.0", "mg"), ("0.0015", "kg"))
    ),
    *({"value": v, "system": UCUM, "code": u} for v, u in (("1501", "mg"), ("1500000", "ug"), ("2", "g"), ("5", "mg"))),
    *(
        {"value": v, "system": UCUM, "code": u}
        for v, u in (("90", "mg/dL"), ("0.9", "g/L"), ("5.4", "mmol/L"), ("0.0054", "mol/L"))
    ),
    *({"value": v, "system": UCUM, "code": u} for v, u in (("12", "cm"), ("120", "mm"), ("0.12", "m"))),
    {"value": "5", "unit": "mg"},
    {"value": "5", "system": "urn:example:units", "code": "mg"},
    {"value": "90"},
    {"unit": "mg"},
]
DURATIONS: list[dict[str, Any]] = [
    {"value": v, "system": UCUM, "code": u} for v, u in (("90", "min"), ("1.5", "h"), ("5400", "s"), ("100", "min"), ("2", "h"))
]

URLS = [
    "http://example.org/fhir",
    "http://example.org/fhir/ValueSet/1",
    "http://example.org/fhir/ValueSet/12",
    "http://example.org/fhir/ValueSet/1/more",
    "http://example.org/fhir/ActivityDefinition/1",
    "urn:oid:1.2.3",
]
LONG_URL = "http://example.org/fhir/" + "x" * 400
CANONICALS = [*URLS, *(f"{url}|{version}" for url in URLS[1:3] for version in ("1.0", "2.0"))]
VERSIONS = ["1.0", "1.0-Beta", "2.0"]

OUTSIDE = "http://elsewhere.example/fhir"
BASE_URL = "http://ris.example/fhir"

COUNTS = {
    "Patient": 8,
    "Observation": 14,
    "ServiceRequest": 7,
    "Appointment": 5,
    "Task": 7,
    "Organization": 5,
    "RiskAssessment": 6,
    "ChargeItem": 6,
    "List": 3,
    "Encounter": 6,
    "ValueSet": 5,
    "ActivityDefinition": 4,
}
"""The most resources of each type in one population. Ids are numbers from 1, the same for every type."""

CODES: dict[str, list[str]] = {
    "Patient.gender": ["male", "female", "unknown"],
    "Observation.status": ["final", "amended", "preliminary"],
    "ServiceRequest.status": ["active", "completed", "revoked"],
    "ServiceRequest.intent": ["order", "filler-order", "proposal"],
    "ServiceRequest.priority": ["routine", "urgent", "asap", "stat"],
    "Appointment.status": ["booked", "fulfilled", "cancelled"],
    "Appointment.participant.status": ["accepted", "tentative"],
    "Task.status": ["requested", "ready", "completed"],
    "Task.intent": ["plan", "order"],
    "Task.priority": ["routine", "urgent", "asap", "stat"],
    "RiskAssessment.status": ["final", "amended"],
    "ChargeItem.status": ["billable", "billed"],
    "List.status": ["current", "retired"],
    "Encounter.status": ["planned", "finished"],
    "ValueSet.status": ["draft", "active"],
    "ActivityDefinition.status": ["draft", "active"],
    "Patient.address.use": ["work", "temp"],
    "Organization.address.use": ["work", "temp"],
}
"""The codes that are used for elements of type `code`."""

IMPLIED = {
    "Patient.gender": "http://hl7.org/fhir/administrative-gender",
    "Observation.status": "http://hl7.org/fhir/observation-status",
    "Task.status": "http://hl7.org/fhir/task-status",
    "Appointment.participant.status": "http://hl7.org/fhir/participationstatus",
}
"""The code systems that some of these elements imply."""

REFERRED_TO = frozenset({"Patient", "Observation", "ServiceRequest", "Task", "Organization", "Encounter"})
LISTED = frozenset({"Patient", "Observation", "Task"})
"""The types that references, and the entries of lists, point to."""
