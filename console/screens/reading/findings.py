"""The structured findings of a report: Observations with a value, beside its text."""

import re
from decimal import Decimal
from typing import Any, Final

from babel import numbers
from starlette.responses import Response

from console.asking import reference
from console.screens.reading import editor
from console.visit import Visit
from fhir_server import ucum
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms

_NUMBER: Final = re.compile(r"(?P<comparator><=|>=|<|>)?\s*(?P<value>-?\d{1,12}(?:[.,]\d{1,6})?)")
# 1,200 is 1200 to some and 1.2 to others; 0.125 and 1200.125 are what they are.
_AMBIGUOUS: Final = re.compile(r"(?P<whole>-?[1-9]\d{0,2})[.,](?P<rest>\d{3})")
_LONGEST: Final = 200


async def change(visit: Visit) -> Response:
    """Save, then add what is typed, or take one away (`remove`: its reference): once, of the version that the page shows."""
    version = await editor.save(visit)
    gone = visit.form.get("remove")
    said: dict[str, Any] = {"remove_finding": reference(gone)} if gone else {"finding": _observation(visit)}
    await visit.desk.operation(f"DiagnosticReport/{visit.id()}/$write", if_match=version, **said)
    return await editor.back(visit, "reading-finding-gone" if gone else "reading-finding", added=gone is None)


def _observation(visit: Visit) -> Resource:
    name, value, unit = (visit.form.text(f"finding.{part}")[:_LONGEST] for part in ("name", "value", "unit"))
    if not name or not value:
        raise fail("required", visit.t("reading.finding-needs"), status=400)
    made: Resource = {"resourceType": "Observation", "status": "preliminary", "code": {"text": name}}
    number = _NUMBER.fullmatch(value)
    if number is not None and (twofold := _AMBIGUOUS.fullmatch(number["value"])):
        raise fail("value", visit.t("reading.finding-ambiguous", value=value, **_meanings(visit, twofold)), status=400)
    if number is None and unit:
        raise fail("value", visit.t("reading.finding-number", value=value), status=400)
    return made | ({"valueString": value} if number is None else {"valueQuantity": _quantity(number, unit)})


def _meanings(visit: Visit, number: re.Match[str]) -> dict[str, str]:
    """How each of the two is written so that it has one meaning."""
    rest = number["rest"].rstrip("0")
    part = f"{rest}0" if len(rest) == 3 else rest
    point = numbers.get_decimal_symbol(visit.t.locale)
    return {"large": number["whole"] + number["rest"], "small": number["whole"] + (point + part if part else "")}


def _quantity(number: re.Match[str], unit: str) -> Resource:
    """`8,5` and `8.5` are the same number; a unit that UCUM knows has its code."""
    made: Resource = {"value": Decimal(number["value"].replace(",", "."))}
    if number["comparator"]:
        made["comparator"] = number["comparator"]
    if unit:
        made["unit"] = unit
    return made | ({"system": terms.UCUM, "code": unit} if unit and ucum.converter(unit) else {})
