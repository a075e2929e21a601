"""AuditEvents as people read them: filters, rows, and all of one event."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import unquote

from console.asking import Found
from console.formats import human_name
from console.visit import Visit
from fhir_server.outcome import fail
from fhir_server.registry import Resource

FILTERS: Final = ("from", "until", "who", "kind", "outcome")  # these may stand in an address; the patient may not
OUTCOMES: Final = ("0", "4", "8")
# Kinds of events: the search that finds each.
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "seen": ("subtype", "read,vread,search-type,search-system,history-instance,history-type,history-system"),
    "changed": ("subtype", "create,update,patch,delete,transaction,batch"),
    "operations": ("subtype", "operation"),
    "logins": ("type", "110114"),
    "alerts": ("type", "110113"),
    "apps": ("type", "urn:fhir-ris:audit|oauth"),
    "hl7v2": ("type", "urn:fhir-ris:audit|v2,urn:fhir-ris:audit|v2-out"),
    "dicom": ("type", "urn:fhir-ris:audit|dicom"),
}
_SHOWN = 3  # of the resources that an event is about


@dataclass(frozen=True, slots=True)
class Row:
    """An event in the list. `about` are references, at most a few of them; `more` are left out; `query` is a search's."""

    id: str
    at: str
    who: str
    role: str
    by: str
    event: str
    about: list[tuple[str, str]]
    more: int
    query: str
    outcome: str
    text: str
    peer: str


def asked(visit: Visit) -> dict[str, str]:
    """The filter, from the form or from the address."""
    given = {name: visit.form.text(name) or ("" if visit.form.fields else visit.asked(name)) for name in FILTERS}
    return given | {"patient": visit.form.text("patient")}


async def query(visit: Visit, given: Mapping[str, str], patients: list[str]) -> list[tuple[str, str]]:
    """The search for a filter. FhirError for what can't be read."""
    found: list[tuple[str, str]] = []
    for name, prefix, days in (("from", "ge", 0), ("until", "lt", 1)):
        if given[name]:
            found.append(("date", f"{prefix}{_begin(visit, given[name], days)}"))
    if given["who"]:
        found.append(("agent:identifier", given["who"].replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|")))
    if given["kind"] in KINDS:
        found.append(KINDS[given["kind"]])
    if given["outcome"] in OUTCOMES:
        found.append(("outcome", given["outcome"]))
    if patients:
        found.append(("patient", ",".join(patients)))
    # Of a key's events those made last are the last of its index; of a period's, those of the index of times.
    keyed = any(name != "date" for name, _ in found)
    return [*found, ("_sort", "-_id" if keyed or not found else "-date")]


def _begin(visit: Visit, day: str, later: int) -> str:
    """When a day (or the one after it) begins in the department."""
    try:
        begun = date.fromisoformat(day) + timedelta(days=later)
    except (ValueError, OverflowError):
        raise fail("value", visit.t("trail.not-a-day", text=day[:20]), status=422) from None
    return visit.moment(f"{begun.isoformat()}T00:00").isoformat().replace("+00:00", "Z")


async def patients_of(visit: Visit, text: str) -> list[str]:
    """The references of the patients that are meant: by id, or for who may see patients by number or name."""
    if not text:
        return []
    if text.startswith("Patient/") or not visit.allows("Patient", "s"):
        return [text if text.startswith("Patient/") else f"Patient/{text}"]
    plain = text.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$")
    by_number, by_name = await visit.desk.together(
        visit.desk.search("Patient", identifier=plain, _count="20"), visit.desk.search("Patient", name=plain, _count="20")
    )
    found = [f"Patient/{p['id']}" for p in [*by_number, *by_name]]
    return list(dict.fromkeys(found)) or [f"Patient/{text.replace(',', '')[:64]}"]


async def rows(visit: Visit, found: Found) -> list[Row]:
    """The events of a page, patients by name for who may see them."""
    events = list(found)
    names: dict[str, str] = {}
    if visit.allows("Patient", "s"):
        ids = {r.partition("/")[2] for e in events for r in _references(e) if r.startswith("Patient/")}
        if ids:
            listed = await visit.desk.search("Patient", _id=",".join(sorted(ids)), _elements="name")
            names = {f"Patient/{p['id']}": human_name(p) for p in listed}
    return [_row(event, names) for event in events]


def _references(event: Resource) -> list[str]:
    return [str(e["what"]["reference"]) for e in event.get("entity", ()) if e.get("what", {}).get("reference")]


def _row(event: Resource, names: Mapping[str, str]) -> Row:
    agents = event.get("agent", ())
    person = next((a for a in agents if a.get("requestor")), agents[0] if agents else {})
    others = [_who(a) for a in agents if a is not person]
    about = sorted(_references(event), key=lambda r: not r.startswith("Patient/"))
    return Row(
        id=event["id"],
        at=event["recorded"],
        who=_who(person),
        role=_role(person),
        by=", ".join(dict.fromkeys(o for o in others if o)),
        event=_event(event),
        about=[(reference, names.get(reference, reference)) for reference in about[:_SHOWN]],
        more=max(0, len(about) - _SHOWN),
        query=_query(event),
        outcome=event.get("outcome", ""),
        text=event.get("outcomeDesc", ""),
        peer=next((a["network"]["address"] for a in agents if a.get("network", {}).get("address")), ""),
    )


def _who(agent: Mapping[str, Any]) -> str:
    who = agent.get("who", {})
    told = (agent.get("name"), who.get("display"), who.get("identifier", {}).get("value"), who.get("reference"))
    return next((str(text) for text in told if text), "")


def _role(agent: Mapping[str, Any]) -> str:
    return next((c["code"] for r in agent.get("role", ()) for c in r.get("coding", ()) if "code" in c), "")


def _event(event: Resource) -> str:
    """The code of what was done."""
    codes = [s.get("code") for s in event.get("subtype", ())] + [event.get("type", {}).get("code")]
    return next((str(code) for code in codes if code), "")


def _query(event: Resource) -> str:
    """The search as it was asked."""
    for entity in event.get("entity", ()):
        if "query" in entity:
            try:
                return unquote(base64.b64decode(entity["query"]).decode("utf-8", "replace"))
            except (binascii.Error, ValueError):
                return ""
    return ""


async def row(visit: Visit, event: Resource) -> Row:
    """One event, as in the list."""
    return (await rows(visit, Found([event])))[0]
