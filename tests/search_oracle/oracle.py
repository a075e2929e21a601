"""The oracle: which resources answer a search, judged one by one."""

from fhir_server.definitions import SearchParameter, search_parameters
from tests.search_oracle import composites, dates, numbers, quantities, references, strings, tokens, uris
from tests.search_oracle.asked import Asked, Node, Resource, definition, split, unescaped, values
from tests.search_oracle.sorting import in_order

_JUDGES: dict[str, composites.Judge] = {
    "date": dates.matches,
    "number": numbers.matches,
    "quantity": quantities.matches,
    "reference": references.matches,
    "string": strings.matches,
    "token": tokens.matches,
    "uri": uris.matches,
}


class Oracle:
    """Searches among a list of resources. `base_url` is what the server calls its own FHIR base."""

    def __init__(self, resources: list[Resource], base_url: str = "") -> None:
        self._all = {(r["resourceType"], r["id"]): r for r in resources}
        self._base_url = base_url

    def search(self, resource_type: str, parameters: list[tuple[str, str]]) -> list[str]:
        """The ids of the matches, in the order of `_sort`. All parameters must be met; `_count` and `_total` don't matter."""
        criteria = [(name, text) for name, text in parameters if name not in {"_sort", "_count", "_total"}]
        found = [r for r in self._of_type(resource_type) if all(self.matches(r, name, text) for name, text in criteria)]
        return [r["id"] for r in in_order(found, dict(parameters).get("_sort", ""), self._base_url)]

    def matches(self, resource: Resource, name: str, text: str) -> bool:
        """Whether a resource meets one parameter. Of the values between its commas one is enough (3.1.1.4.17)."""
        if name.startswith("_has:"):
            return self._is_referred_to(resource, name, text)
        head, chained, rest = name.partition(".")
        parameter, _, modifier = head.partition(":")
        if chained:
            return self._leads_to_match(resource, parameter, modifier, rest, text)
        if parameter == "_list":
            return any(self._is_listed(resource, unescaped(value)) for value in split(text, ","))
        return self._has_value(resource, definition(resource["resourceType"], parameter), modifier, text)

    def _has_value(self, resource: Resource, parameter: SearchParameter, modifier: str, text: str) -> bool:
        found = values(resource, parameter)
        if modifier == "missing":
            return (not found) == (text == "true")
        if modifier in {"below", "above"} and parameter.type == "reference":
            return any(self._is_in_hierarchy(resource, parameter, modifier, unescaped(t)) for t in split(text, ","))
        if modifier == "not":  # of the resource as a whole: also true where there is no value (3.1.1.4.10)
            return not self._has_value(resource, parameter, "", text)
        offered = [Asked(resource["resourceType"], parameter, modifier, t, self._base_url) for t in split(text, ",")]
        return any(_value_matches(asked, node, resource) for asked in offered for node in found)

    def _leads_to_match(self, resource: Resource, parameter: str, target_type: str, rest: str, text: str) -> bool:
        """A chain (3.1.1.4.15): something that the parameter refers to meets the rest."""
        for target in self._referred_to(resource, parameter):
            of_type = not target_type or target["resourceType"] == target_type
            if of_type and _knows(target["resourceType"], rest) and self.matches(target, rest, text):
                return True
        return False

    def _is_referred_to(self, resource: Resource, name: str, text: str) -> bool:
        """`_has:Type:parameter:rest` (3.1.1.4.16): a resource of that type refers to this one, and meets the rest."""
        _, source_type, parameter, rest = name.split(":", 3)
        return any(
            resource in self._referred_to(source, parameter) and self.matches(source, rest, text)
            for source in self._of_type(source_type)
        )

    def _is_listed(self, resource: Resource, list_id: str) -> bool:
        """`_list` (3.1.1.4.22): an entry of the list, not marked as deleted, refers to the resource."""
        entries = self._all.get(("List", list_id), {}).get("entry", [])
        items = [entry["item"].get("reference") for entry in entries if not entry.get("deleted")]
        return (resource["resourceType"], resource["id"]) in [references.local(item, self._base_url) for item in items]

    def _is_in_hierarchy(self, resource: Resource, parameter: SearchParameter, modifier: str, text: str) -> bool:
        """`partof:below=x` (3.1.1.4.14): it refers to x, or to what is below x by the same parameter; `:above` likewise."""
        asked = references.local(text, self._base_url) or references.Local(resource["resourceType"], text)
        mine = self._locals(resource, parameter.name)
        if modifier == "above":
            return bool(mine & self._and_above(asked, parameter))
        return any(asked in self._and_above(to, parameter) for to in mine)

    def _and_above(self, start: references.Local, parameter: SearchParameter) -> set[references.Local]:
        """A resource and what it leads to, however many steps away."""
        found: set[references.Local] = set()
        level = {start}
        while level:
            found |= level
            known = [self._all[to] for to in level if to.type == start.type and to in self._all]
            level = {up for resource in known for up in self._locals(resource, parameter.name)} - found
        return found

    def _referred_to(self, resource: Resource, parameter: str) -> list[Resource]:
        """The resources among ours that a reference parameter leads to."""
        return [self._all[to] for to in self._locals(resource, parameter) if to in self._all]

    def _locals(self, resource: Resource, parameter: str) -> set[references.Local]:
        """What of this server a reference parameter points to, whether it is there or not."""
        nodes = values(resource, definition(resource["resourceType"], parameter))
        literal = [value.get("reference") for element_type, value in nodes if element_type == "Reference"]
        return {to for text in literal if (to := references.local(text, self._base_url)) is not None}

    def _of_type(self, resource_type: str) -> list[Resource]:
        return [r for (kind, _), r in self._all.items() if kind == resource_type]


def _value_matches(asked: Asked, node: Node, resource: Resource) -> bool:
    if asked.parameter.type == "composite":
        return composites.matches(asked, node, resource, _JUDGES)
    return _JUDGES[asked.parameter.type](asked, *node)


def _knows(resource_type: str, name: str) -> bool:
    """Whether the type has the parameter that the rest of a chain begins with."""
    first = name.partition(".")[0].partition(":")[0]
    return first in {"_has", "_list"} or first in search_parameters(resource_type)
