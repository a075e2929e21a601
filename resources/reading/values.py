"""The value of an Observation in words (FHIR R4 Observation.value[x] and component): alike in documents and at the console."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from fhir_server.elements import codings
from fhir_server.registry import Resource
from resources import zones

_UNITY: Final = "1"  # UCUM's unit of what has none


def plain_number(number: Any) -> str:
    """A number with the digits that it was told with: 8.50."""
    return f"{number:f}" if isinstance(number, Decimal) else str(number)


@dataclass(frozen=True, slots=True)
class Manner:
    """How numbers, moments, yes and no are said; as it is: in documents."""

    number: Callable[[Any], str] = plain_number
    moment: Callable[[str], str] = zones.told
    yes: str = "yes"
    no: str = "no"


def called(concept: Any) -> str:
    """How a code is called."""
    return str((concept or {}).get("text") or next((c.get("display") or c.get("code", "") for c in codings(concept)), ""))


def in_words(observation: Resource, say: Manner) -> str:
    """The value of an Observation, or of a component, and those of its components; else why there is none. "" for nothing."""
    said = [_value(element, value, say) for element, value in observation.items() if element.startswith("value")]
    said += [f"{called(c['code'])} {text}" for c in observation.get("component", ()) if (text := in_words(c, say))]
    return "; ".join(filter(None, said)) or called(observation.get("dataAbsentReason"))


def _value(element: str, value: Any, say: Manner) -> str:
    match element:
        case "valueQuantity":
            return _quantity(value, say)
        case "valueCodeableConcept":
            return called(value)
        case "valueBoolean":
            return say.yes if value else say.no
        case "valueInteger":
            return say.number(value)
        case "valueDateTime":
            return say.moment(value)
        case "valueRange":
            return _between(*(_quantity(value.get(e, {}), say) for e in ("low", "high")))
        case "valueRatio":
            return " : ".join(_quantity(value.get(e, {}), say) for e in ("numerator", "denominator"))
        case "valuePeriod":
            return _between(*(say.moment(value[e]) if e in value else "" for e in ("start", "end")))
        case "valueSampledData":
            return " ".join(filter(None, (value.get("data", ""), _unit(value["origin"]))))
    return str(value)  # valueString, valueTime


def _quantity(quantity: Resource, say: Manner) -> str:
    number = say.number(quantity["value"]) if "value" in quantity else ""
    return " ".join(filter(None, (quantity.get("comparator", ""), number, _unit(quantity))))


def _unit(quantity: Resource) -> str:
    code = quantity.get("code", "")
    return str(quantity.get("unit") or ("" if code == _UNITY else code))


def _between(first: str, last: str) -> str:
    return f"{first} – {last}" if first and last else f"≥ {first}" if first else f"≤ {last}"
