"""The patients' record, as the pages of the authorization server ask for it (smart_auth/chart.py)."""

import re
from collections.abc import Iterable

from fhir_server.audit import Act
from fhir_server.interactions import Interactions
from fhir_server.outcome import FhirError
from fhir_server.registry import Resource
from smart_auth.access import Access
from smart_auth.chart import Choice

_SHOWN = "20"
_LONGEST = 100


class RecordChart:
    """The record behind the interactions: every look is judged and recorded there, as any other."""

    def __init__(self, interactions: Interactions) -> None:
        self._interactions = interactions

    async def patients(self, access: Access, text: str) -> list[Choice]:
        """Patients by what was typed: a date of birth, an identifier (which has a digit), or parts of a name."""
        words = text[:_LONGEST].split()
        if not words:
            return []
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text.strip()):
            parameters = [("birthdate", text.strip())]
        elif any(character.isdigit() for character in text):
            parameters = [("identifier", _literal("".join(words)))]
        else:
            parameters = [("name", _literal(word)) for word in words]
        return [_patient(found) for found in await self._search(access, "Patient", parameters)]

    async def encounters(self, access: Access, patient: str) -> list[Choice]:
        found = await self._search(access, "Encounter", [("patient", f"Patient/{patient}"), ("_sort", "-date")])
        return [_encounter(encounter) for encounter in found]

    async def is_of(self, access: Access, encounter: str, patient: str) -> bool:
        found = await self._search(access, "Encounter", [("_id", encounter), ("patient", f"Patient/{patient}")])
        return len(found) == 1

    async def sees(self, access: Access, references: Iterable[str]) -> bool:
        access = await access.settled(self._interactions.store.db)
        try:
            for reference in references:
                resource_type, _, id_ = reference.partition("/")
                await self._interactions.read(access, resource_type, id_)
        except FhirError:
            return False
        return True

    async def _search(self, access: Access, resource_type: str, parameters: list[tuple[str, str]]) -> list[Resource]:
        query = "&".join(f"{name}={value}" for name, value in parameters)
        act = Act("search-type", query=f"{resource_type}?{query}")
        access = await access.settled(self._interactions.store.db)
        try:
            found = await self._interactions.search(access, resource_type, [*parameters, ("_count", _SHOWN)], act)
        except FhirError:
            return []
        return found.matches


def _literal(text: str) -> str:
    """A value in which nothing has a meaning of its own (FHIR R4 3.1.1.4.2, escaping)."""
    return re.sub(r"([\\,$|])", r"\\\1", text)


def _patient(patient: Resource) -> Choice:
    names = [_name(name) for name in patient.get("name", ()) if isinstance(name, dict)]
    identifiers = [i["value"] for i in patient.get("identifier", ()) if isinstance(i, dict) and isinstance(i.get("value"), str)]
    details = [patient.get("birthDate"), patient.get("gender"), *identifiers[:2]]
    label = next((name for name in names if name), "without a name")
    return Choice(patient["id"], label, " · ".join(str(detail) for detail in details if detail))


def _name(name: Resource) -> str:
    if isinstance(name.get("text"), str):
        return str(name["text"])
    given = " ".join(part for part in name.get("given", ()) if isinstance(part, str))
    return ", ".join(part for part in (name.get("family"), given) if part)


def _encounter(encounter: Resource) -> Choice:
    period = encounter.get("period", {})
    kind = encounter.get("class", {})
    label = " ".join(part for part in (kind.get("display") or kind.get("code"), (period.get("start") or "")[:10]) if part)
    return Choice(encounter["id"], label or "Encounter", encounter.get("status", ""))
