"""FHIR R4's own definitions as typed tables: resource types, elements, search parameters, value sets, compartments.

Each table is read on its first use; only the names of the resource types are read with the import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from fhir_server.definitions.shapes import Element, base_of, elements, kind, primitive_types
from fhir_server.definitions.tables import read

__all__ = [
    "RESOURCE_TYPES",
    "Element",
    "SearchParameter",
    "base_of",
    "compartment",
    "elements",
    "kind",
    "primitive_types",
    "search_parameters",
    "value_set",
]

_BASES: dict[str, str] = read("resource_types")["resource_types"]

RESOURCE_TYPES: frozenset[str] = frozenset(_BASES)
"""The 146 concrete resource types of R4 4.0.1."""


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """One search parameter as it stands for one resource type (FHIR R4 3.1.1).

    `definition` is the canonical of HL7's SearchParameter, or of one of our own (OWN). `expression` keeps only the part that is
    about the resource type; it is empty for parameters that no element answers (`_text`, `_content`, `_query`). `components` (of
    composites) are pairs of a parameter's name on the same resource type and an expression relative to what `expression` selects.
    """

    name: str
    definition: str
    type: str
    expression: str
    targets: tuple[str, ...] = ()
    components: tuple[tuple[str, str], ...] = ()


OWN: dict[str, dict[str, dict[str, Any]]] = {
    "Task": {
        "due": {"type": "date", "expression": "Task.restriction.period.end"},
        "location": {"type": "reference", "expression": "Task.location", "targets": ["Location"]},
    },
}
"""Search parameters of our own (FHIR R4 3.1.1.1 leaves that to servers): by resource type and name, as in HL7's table."""


@cache
def _search_table() -> dict[str, dict[str, dict[str, Any]]]:
    table: dict[str, dict[str, dict[str, Any]]] = read("search_parameters")["search_parameters"]
    return table


def _search_parameter(name: str, row: dict[str, Any], resource_type: str) -> SearchParameter:
    targets = tuple(row.get("targets", ()))
    own = f"urn:fhir-ris:SearchParameter/{resource_type}-{name}"
    return SearchParameter(
        name=name,
        definition=f"http://hl7.org/fhir/SearchParameter/{row['id']}" if "id" in row else own,
        type=row["type"],
        expression=row.get("expression", ""),
        targets=tuple(sorted(RESOURCE_TYPES - {"Parameters"})) if targets == ("Resource",) else targets,
        components=tuple((component, expression) for component, expression in row.get("components", ())),
    )


@cache
def search_parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """The search parameters of a resource type by name, those of Resource and DomainResource and our own included.

    Raises KeyError when R4 has no such resource type.
    """
    levels = {"Resource", _BASES[resource_type], resource_type}
    rows = {name: row for level in levels for name, row in _search_table().get(level, {}).items()}
    rows |= OWN.get(resource_type, {})
    return MappingProxyType({name: _search_parameter(name, rows[name], resource_type) for name in sorted(rows)})


@cache
def value_set(canonical: str) -> Mapping[str, frozenset[str]] | None:
    """Code system to codes, for the value set of a required binding; None where they can't be listed (as for UCUM)."""
    systems = _value_sets().get(canonical)
    return None if systems is None else MappingProxyType({system: frozenset(codes) for system, codes in systems.items()})


@cache
def _value_sets() -> dict[str, dict[str, list[str]]]:
    table: dict[str, dict[str, list[str]]] = read("value_sets")["value_sets"]
    return table


@cache
def compartment(name: str) -> Mapping[str, tuple[str, ...]]:
    """Resource type to the search parameters that put a resource in the compartment (FHIR R4 CompartmentDefinition).

    `name` is Patient, Encounter, Practitioner, Device or RelatedPerson, else KeyError. Types that are never in it are left out;
    the resource that the compartment is named after is in it by itself, whatever its parameters say.
    """
    rows: dict[str, list[str]] = read("compartments")["compartments"][name]
    return MappingProxyType({resource_type: tuple(parameters) for resource_type, parameters in rows.items()})
