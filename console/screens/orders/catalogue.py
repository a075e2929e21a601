"""The procedure catalogue, to choose an examination from, and the sides of the body."""

from dataclasses import dataclass
from typing import Final

from console.formats import concept
from console.texts import Texts
from console.visit import Visit
from fhir_server.elements import codes, extension
from fhir_server.outcome import fail
from fhir_server.registry import Resource
from resources import terms
from resources.activity_definition import needs_reason
from resources.coverage.authorized import REQUIRED

_SIDES: Final = {"left": "7771000", "right": "24028007", "both": "51440002"}  # SNOMED CT
SIDES: Final = tuple(_SIDES)


@dataclass(frozen=True, slots=True)
class Entry:
    """An examination of the catalogue. `codes`: what an order may name it by (`resources/activity_definition.py`)."""

    id: str
    text: str
    modality: str
    needs_reason: bool
    needs_authorization: bool
    codes: frozenset[tuple[str, str]]


async def entries(visit: Visit) -> list[Entry]:
    """The examinations that are done here, by modality and name."""
    elements = "identifier,title,name,code,topic,extension"
    found = await visit.desk.search("ActivityDefinition", status="active", _elements=elements)
    listed = [_entry(e) for e in found if "code" in e]
    return sorted(listed, key=lambda e: (e.modality, e.text.casefold()))


def _entry(entry: Resource) -> Entry:
    required = extension(entry, REQUIRED) or {}
    return Entry(
        entry["id"],
        concept(entry["code"]) if concept(entry["code"]) != "–" else str(entry.get("title", "")),
        next(iter(codes(entry.get("topic"), terms.DCM)), ""),
        needs_reason(entry),
        bool(required.get("valueBoolean")),
        frozenset(
            [(c.get("system", ""), c["code"]) for c in entry["code"].get("coding", ()) if "code" in c]
            + [(i.get("system", ""), i["value"]) for i in entry.get("identifier", ()) if "value" in i]
        ),
    )


async def entry(visit: Visit, id_: str) -> Resource:
    """The entry that was chosen. FhirError for none."""
    if not id_:
        raise fail("required", visit.t("orders.no-examination"), status=422)
    return await visit.desk.read(f"ActivityDefinition/{id_}")


def of(request: Resource, listed: list[Entry]) -> Entry | None:
    """The entry that an order is for."""
    coded = ((c.get("system", ""), c.get("code")) for c in request.get("code", {}).get("coding", ()))
    return next((e for code in coded for e in listed if code in e.codes), None)


def side(name: str, t: Texts) -> Resource | None:
    """The body site that a side is; None for no side."""
    if name not in _SIDES:
        return None
    return {"coding": [{"system": terms.SNOMED, "code": _SIDES[name], "display": name.title()}], "text": t(f"orders.side.{name}")}
