"""What the addresses under the FHIR base mean (FHIR R4 3.1.0), for HTTP and for the entries of a Bundle alike."""

from dataclasses import dataclass
from typing import Literal

from fhir_server import definitions
from fhir_server.outcome import FhirError, fail
from fhir_server.references import Target

Kind = Literal[
    "base", "metadata", "form", "history", "operation", "type", "instance", "version", "compartment"
]  # fmt: skip

_COMPARTMENTS = frozenset({"Patient", "Encounter", "RelatedPerson", "Practitioner", "Device"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address below the base, without its query.

    `kind` says what is there: "form" is where a search is posted, "type" a whole type. `type` and `id` are None above their
    level; of a compartment search `type` is what is searched for, None for all types (`*`).
    """

    kind: Kind
    type: str | None = None
    id: str | None = None
    version: str = ""
    operation: str = ""
    compartment: Target | None = None

    @property
    def resource_type(self) -> str:
        """The type, where the kind of address has one."""
        assert self.type is not None
        return self.type

    @property
    def resource_id(self) -> str:
        """The id, where the kind of address has one."""
        assert self.id is not None
        return self.id

    def __str__(self) -> str:
        """The address that a search or a history has, relative to the base: where its links lead."""
        if self.compartment:
            return f"{self.compartment}/{self.type or '*'}"
        place = "/".join(part for part in (self.type, self.id) if part)
        return f"{place}/_history".removeprefix("/") if self.kind == "history" else place


def parse(path: str) -> Address:
    """The address of a path below the base, such as `Patient/1/_history`. FhirError (404) for what is none."""
    match path.split("/"):
        case [""]:
            return Address("base")
        case [first]:
            return _system(first)
        case [first, second]:
            return _type(_known(first), second)
        case [first, id_, third]:
            return _instance(_known(first), id_, third)
        case [first, id_, "_history", version] if id_ and version:
            return Address("version", _known(first), id_, version)
        case [first, id_, third, "_search"] if id_ and _names_types(third):
            return _compartment("form", _known(first), id_, third)
    raise _nothing(path)


def _system(first: str) -> Address:
    if first == "metadata":
        return Address("metadata")
    if first == "_history":
        return Address("history")
    if first == "_search":
        return Address("form")
    if first.startswith("$"):
        return Address("operation", operation=first)
    return Address("type", _known(first))


def _type(resource_type: str, second: str) -> Address:
    if second == "_history":
        return Address("history", resource_type)
    if second == "_search":
        return Address("form", resource_type)
    if second.startswith("$"):
        return Address("operation", resource_type, operation=second)
    if not second:
        raise _nothing(f"{resource_type}/")
    return Address("instance", resource_type, second)


def _instance(resource_type: str, id_: str, third: str) -> Address:
    if id_ and third == "_history":
        return Address("history", resource_type, id_)
    if id_ and third.startswith("$"):
        return Address("operation", resource_type, id_, operation=third)
    if id_ and _names_types(third):
        return _compartment("compartment", resource_type, id_, third)
    raise _nothing(f"{resource_type}/{id_}/{third}")


def _names_types(segment: str) -> bool:
    return segment == "*" or segment in definitions.RESOURCE_TYPES


def _compartment(kind: Kind, name: str, id_: str, wanted: str) -> Address:
    """A search in a compartment (FHIR R4 3.1.1.4.6); a type that is never in it is refused, rather than searched as a whole."""
    if name not in _COMPARTMENTS:
        raise fail("not-supported", f"{name} is no compartment; there are: {', '.join(sorted(_COMPARTMENTS))}", status=404)
    if wanted != "*" and wanted != name and wanted not in definitions.compartment(name):
        raise fail("not-supported", f"{wanted} is never in the compartment of a {name}", status=404)
    return Address(kind, None if wanted == "*" else wanted, compartment=Target(name, id_))


def _known(resource_type: str) -> str:
    if resource_type not in definitions.RESOURCE_TYPES:
        raise fail("not-supported", f"{resource_type[:64]} is not a FHIR R4 resource type", status=404)
    return resource_type


def _nothing(path: str) -> FhirError:
    return fail("not-supported", f"there is nothing at {path[:200]}", status=404)
