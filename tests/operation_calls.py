"""Calls of operations over HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fhir_app import ALL, FhirApp, Resource, load


@dataclass
class Answered:
    """Status, resource and headers of an answer."""

    status: int
    resource: Resource
    headers: Mapping[str, str]

    @property
    def issues(self) -> list[tuple[str, str]]:
        """(severity, code) of each issue."""
        return [(i["severity"], i["code"]) for i in self.resource["issue"]]

    @property
    def text(self) -> str:
        return " ".join(i["diagnostics"] for i in self.resource["issue"])

    def ids(self, mode: str | None = None) -> list[str]:
        """What is in a searchset, as `Patient/1`."""
        found = [e for e in self.resource.get("entry", ()) if e["search"]["mode"] == mode or mode is None]
        return [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in found if "id" in e["resource"]]

    @property
    def next(self) -> str | None:
        """The path of the next page, below the base."""
        links = {link["relation"]: link["url"] for link in self.resource["link"]}
        return links["next"].partition("/fhir/")[2] if "next" in links else None


def operate(app: FhirApp, method: str, path: str, body: Any = None, scope: str = ALL) -> Answered:
    """Call `Type/$name`, `Type/id/$name` or `$name`, with a query perhaps."""
    answer = app.send(method, path, body, scope=scope)
    return Answered(answer.status_code, load(answer), answer.headers)
