"""The Bundle of a search (FHIR R4 3.1.1.3): matches, what is included with them, and what is to be said about it."""

import json
from typing import Any
from urllib.parse import urlencode

from fhir_server.exchange import Parameters, View
from fhir_server.outcome import Issue, operation_outcome
from fhir_server.registry import Resource
from fhir_server.search.results import Found


def link(base_url: str, address: str, parameters: Parameters) -> str:
    """An address below the base, with its parameters."""
    query = urlencode(parameters, safe=":/|,")
    place = f"{base_url}/{address}" if address else base_url
    return f"{place}?{query}" if query else place


def searchset(found: Found, base_url: str, address: str) -> Resource:
    """The Bundle of a page. `address` is where the search was asked: `Patient`, `Patient/1/Observation`, or "" for all types.

    `_elements` is about the matches only, `_summary` about what is included too (FHIR R4 3.1.1.5.8, 3.1.1.5.9).
    """
    links = [{"relation": "self", "url": link(base_url, address, found.used)}]
    if found.next is not None:
        links.append({"relation": "next", "url": link(base_url, address, [("_page", found.next)])})
    matches, included = View(found.summary, found.elements), View(found.summary)
    entries = [_entry(base_url, matches.show(r), "match") for r in found.matches]
    entries += [_entry(base_url, included.show(r), "include") for r in found.included]
    entries += _remarks(found)
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if found.total is not None:
        bundle["total"] = found.total
    bundle["link"] = links
    if entries:
        bundle["entry"] = entries
    return bundle


def _entry(base_url: str, resource: Resource, mode: str) -> dict[str, Any]:
    url = f"{base_url}/{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}


def _remarks(found: Found) -> list[dict[str, Any]]:
    """What was ignored or cut short, and how the database went about it (`_explain`): each an OperationOutcome."""
    outcomes = [operation_outcome(*found.notes)] if found.notes else []
    if found.explanation is not None:
        plan = json.dumps(found.explanation, default=str)
        outcomes.append(operation_outcome(Issue("informational", plan, severity="information")))
    return [{"resource": outcome, "search": {"mode": "outcome"}} for outcome in outcomes]
