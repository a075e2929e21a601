"""What administrators look after: for each kind its table's columns and its form's fields, with their FHIR elements.

A text of a kind is `administration.<kind>.title`, one of a field `administration.field.<field>`; those of choices are
`administration.<choices>.<code>`, where a code has a text at all. What a form has no field for is kept as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from resources import charge_item, numbering, terms
from resources.activity_definition import PREPARATION, PREPARATION_TIME, REASON_REQUIRED
from resources.charging import catalogue

How = Literal["text", "long", "code", "boolean", "flag", "reference", "integer", "decimal", "date", "time", "lines", "words"]
_UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Field:
    """A field, or a column.

    `choices`: codes to choose from, whose texts are `administration.<called>.<code>`; `to`: the types that it refers to;
    `also`: where the same is said again; `beside`: what is written too where there is a value, by path; `listed`: the values
    are plain ones in a list (`daysOfWeek`).
    """

    name: str
    path: str
    how: How = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    called: str = ""
    to: tuple[str, ...] = ()
    also: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Fields that may be there several times, each in an element of the list that the path ends with."""

    name: str
    path: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What a form has to say from here on; its fields are those for which what is usual is good."""

    heading: str


@dataclass(frozen=True, slots=True)
class Kind:
    """`find`: the search parameter that the search box asks; `begin`: what a new one begins with."""

    name: str
    type: str
    columns: tuple[Field, ...]
    fields: tuple[Field | Group | Section, ...] = ()
    find: str = ""
    sort: str = ""
    begin: Mapping[str, Any] = field(default_factory=dict)


_PUBLICATION = ("draft", "active", "retired")
_ACTIVE = Field("active", "active", "boolean", choices=("true", "false"), called="activity")
_MODALITIES = ("CT", "MR", "CR", "DX", "MG", "US", "NM", "PT", "XA", "RF", "BMD")


def _status(*choices: str) -> Field:
    return Field("status", "status", "code", required=True, choices=choices, called="status")


def _dicom(name: str, how: How, *choices: str) -> Field:
    """A preference of a scanner (docs/dicom.md): an extension, which `name` tells."""
    value = {"code": "valueCode", "integer": "valueInteger", "flag": "valueBoolean"}.get(how, "valueString")
    several = "*" if how == "lines" else ""
    return Field(name, f"extension[url=urn:fhir-ris:{name}]{several}.{value}", how, choices=choices, called=f"choice.{name}")


_DEVICE = Kind(
    "scanners",
    "Device",
    columns=(
        Field("name", "deviceName[type=user-friendly-name].name"),
        Field("ae-title", "identifier[system=urn:fhir-ris:ae-title].value"),
        Field("modality", f"type.coding[system={terms.DCM}].code"),
        Field("location", "location.reference", "reference"),
        _status(),
    ),
    fields=(
        Field("name", "deviceName[type=user-friendly-name].name"),
        Field("ae-title", "identifier[system=urn:fhir-ris:ae-title].value"),
        Field("modality", f"type.coding[system={terms.DCM}].code", "code", choices=_MODALITIES),
        Field("location", "location.reference", "reference", to=("Location",)),
        _status("active", "inactive", "entered-in-error"),
        Section("connections"),
        _dicom("dicom-address", "lines"),
        _dicom("dicom-certificate", "lines"),
        _dicom("dicom-associations", "integer"),
        _dicom("dicom-any-called-title", "flag"),
        Section("worklist"),
        _dicom("worklist-view", "code", "everything", "station", "modality", "location"),
        _dicom("worklist-days-back", "integer"),
        _dicom("worklist-days-ahead", "integer"),
        _dicom("worklist-limit", "integer"),
        _dicom("worklist-over-limit", "code", "cut", "refuse"),
        Section("answers"),
        _dicom("character-set", "text"),
        _dicom("query-character-set", "text"),
        _dicom("name-groups", "code", "all", "alphabetic"),
        _dicom("name-length", "integer"),
        _dicom("empty-sequences", "code", "send", "omit"),
        Section("mpps"),
        _dicom("mpps-checks", "code", "strict", "normal", "lenient"),
        _dicom("examination-end", "code", "mpps", "availability", "study-stable"),
        _dicom("stable-minutes", "integer"),
        _dicom("abandoned-after-hours", "integer"),
    ),
    find="device-name",
    sort="device-name",
    begin={"status": "active"},
)
_LOCATION = Kind(
    "locations",
    "Location",
    columns=(Field("name", "name"), Field("part-of", "partOf.reference", "reference"), _status()),
    fields=(
        Field("name", "name", required=True),
        Field("description", "description"),
        Field("part-of", "partOf.reference", "reference", to=("Location",)),
        Field("organization", "managingOrganization.reference", "reference", to=("Organization",)),
        Field("site", f"identifier[system={numbering.SITE}].value"),
        Field("status", "status", "code", choices=("active", "suspended", "inactive"), called="status"),
    ),
    find="name",
    sort="name",
    begin={"status": "active"},
)
_HOURS = Kind(
    "hours",
    "HealthcareService",
    columns=(Field("name", "name"), Field("location", "location[0].reference", "reference"), _ACTIVE),
    fields=(
        Field("name", "name", required=True),
        Field("location", "location[0].reference", "reference", to=("Location",)),
        _ACTIVE,
        Group(
            "open",
            "availableTime",
            (
                Field("days", "daysOfWeek", "words", listed=True),
                Field("from", "availableStartTime", "time"),
                Field("until", "availableEndTime", "time"),
            ),
        ),
        Group(
            "closed",
            "notAvailable",
            (
                Field("description", "description"),
                Field("first-day", "during.start"),
                Field("last-day", "during.end"),
            ),
        ),
    ),
    find="name",
    sort="name",
    begin={"active": True},
)
_SLOTS = "extension[url=urn:fhir-ris:slot-generation].extension"
_OVER = "extension[url=urn:fhir-ris:overbooking].extension"
_SCHEDULE = Kind(
    "schedules",
    "Schedule",
    columns=(
        Field("of", "actor[0].reference", "reference"),
        Field("minutes", f"{_SLOTS}[url=minutes].valuePositiveInt"),
        Field("made-until", "planningHorizon.end", "date"),
        _ACTIVE,
    ),
    fields=(
        Group("actors", "actor", (Field("of", "reference", "reference", to=("Device", "Practitioner", "HealthcareService")),)),
        _ACTIVE,
        Field("minutes", f"{_SLOTS}[url=minutes].valuePositiveInt", "integer"),
        Field("days-ahead", f"{_SLOTS}[url=days].valuePositiveInt", "integer"),
        Field("overbooking", f"{_OVER}[url=count].valuePositiveInt", "integer"),
        Field("overbooking-by", f"{_OVER}[url=role]*.valueCode", "words"),
        Field("comment", "comment", "long"),
    ),
    begin={"active": True},
)
_CODED = "valueCodeableConcept.coding[0]"
_PROCEDURE = Kind(
    "procedures",
    "ActivityDefinition",
    columns=(
        Field("title", "title"),
        Field("code", "code.coding[0].code"),
        Field("modality", f"topic[0].coding[system={terms.DCM}].code"),
        Field("duration", "timingDuration.value", "integer"),
        _status(),
    ),
    fields=(
        Field("title", "title", required=True),
        Field("code-system", "code.coding[0].system", required=True, also="identifier[0].system"),
        Field("code", "code.coding[0].code", required=True, also="identifier[0].value"),
        Field("code-display", "code.coding[0].display"),
        Field("modality", f"topic[0].coding[system={terms.DCM}].code", "code", choices=_MODALITIES, required=True),
        Field(
            "duration",
            "timingDuration.value",
            "decimal",
            beside={"timingDuration.unit": "min", "timingDuration.system": _UCUM, "timingDuration.code": "min"},
        ),
        _status(*_PUBLICATION),
        Field("location", "location.reference", "reference", to=("Location",)),
        Field("body-site-system", "bodySite[0].coding[0].system"),
        Field("body-site", "bodySite[0].coding[0].code"),
        Field("body-site-display", "bodySite[0].coding[0].display"),
        Section("rules"),
        Field("reason-required", f"extension[url={REASON_REQUIRED}].valueBoolean", "flag"),
        Field("authorization-required", "extension[url=urn:fhir-ris:authorization-required].valueBoolean", "flag"),
        Field("not-charged", f"extension[url={catalogue.NOT_CHARGED}].valueBoolean", "flag"),
        Field("preparation", f"extension[url={PREPARATION}].valueString", "long"),
        Field(
            "preparation-time",
            f"extension[url={PREPARATION_TIME}].valueDuration.value",
            "decimal",
            beside={
                f"extension[url={PREPARATION_TIME}].valueDuration.{name}": value
                for name, value in (("unit", "h"), ("system", _UCUM), ("code", "h"))
            },
        ),
        Group(
            "charges",
            f"extension[url={charge_item.CHARGE}]",
            (
                Field("component", "extension[url=component].valueCode", "code", choices=("technical", "professional"),
                      called="component"),
                Field("code-system", f"extension[url=code].{_CODED}.system"),
                Field("code", f"extension[url=code].{_CODED}.code"),
                Field("quantity", "extension[url=quantity].valueDecimal", "decimal"),
                Field("per", "extension[url=per].valueCode", "code", choices=("examination", "step"), called="per"),
                Field("maximum", "extension[url=maximum].valueDecimal", "decimal"),
            ),
        ),
    ),
    find="title",
    sort="title",
    begin={"status": "active", "kind": "ServiceRequest"},
)  # fmt: skip
_QUESTIONNAIRE = Kind(
    "questionnaires",
    "Questionnaire",
    columns=(
        Field("title", "title"),
        Field("use", "code[0].code", "code", called="use"),
        Field("version", "version"),
        Field("changed", "date", "date"),
        _status(),
    ),
    fields=(
        Field("title", "title", required=True),
        Field("version", "version"),
        _status(*_PUBLICATION),
        Field("description", "description", "long"),
    ),
    find="title",
    sort="title",
)
_NUMBERS = f"extension[url={numbering.NUMBERING}].extension"
_NUMBERING = Kind(
    "number-patterns",
    "NamingSystem",
    columns=(
        Field("name", "name"),
        Field("numbers", "uniqueId[0].value", "code", called="numbers"),
        Field("pattern", f"{_NUMBERS}[url=pattern].valueString"),
        _status(),
    ),
    fields=(
        Field("name", "name", required=True),
        Field(
            "numbers", "uniqueId[0].value", "code", required=True, choices=tuple(numbering.ASSIGNED), called="numbers",
            beside={"uniqueId[0].type": "uri"},
        ),
        Field("pattern", f"{_NUMBERS}[url=pattern].valueString", required=True),
        Field("gapless", f"{_NUMBERS}[url=gapless].valueBoolean", "flag"),
        Field("per-year", f"{_NUMBERS}[url=per-year].valuePositiveInt", "integer"),
        Field("site", f"{_NUMBERS}[url=site].valueString"),
        Field("since", "date", "date", required=True),
        _status(*_PUBLICATION),
    ),
    find="name",
    sort="name",
    begin={"status": "draft", "kind": "identifier"},
)  # fmt: skip
_STAFF = Kind(
    "staff",
    "Practitioner",
    columns=(Field("family", "name[0].family"), Field("given", "name[0].given", "lines", listed=True), _ACTIVE),
    fields=(
        Field("family", "name[0].family", required=True),
        Field("given", "name[0].given", "lines", listed=True),
        Field("prefix", "name[0].prefix", "lines", listed=True),
        Field("phone", "telecom[system=phone].value"),
        Field("email", "telecom[system=email].value"),
        _ACTIVE,
    ),
    find="name",
    sort="family",
    begin={"active": True},
)
_ORGANIZATION = Kind(
    "organizations",
    "Organization",
    columns=(Field("name", "name"), Field("part-of", "partOf.reference", "reference"), _ACTIVE),
    fields=(
        Field("name", "name", required=True),
        Field("part-of", "partOf.reference", "reference", to=("Organization",)),
        Field("site", f"identifier[system={numbering.SITE}].value"),
        _ACTIVE,
    ),
    find="name",
    sort="name",
    begin={"active": True},
)
_ENDPOINT = Kind(
    "endpoints",
    "Endpoint",
    columns=(
        Field("name", "name"),
        Field("connection", "connectionType.code"),
        Field("address", "address"),
        _status(),
    ),
    find="name",
    sort="name",
)

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _DEVICE, _LOCATION, _HOURS, _SCHEDULE, _PROCEDURE, _QUESTIONNAIRE, _NUMBERING, _STAFF, _ORGANIZATION, _ENDPOINT,
    )
}  # fmt: skip
