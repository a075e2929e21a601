"""Links among the entries of a transaction, rewritten to the ids that their resources get.

Source: FHIR R4 RESTful API, "Transaction Processing Rules".
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any

from fhir_server import definitions, fhir_json
from fhir_server.exchange import Patch
from fhir_server.outcome import fail
from fhir_server.references import Target, literals, target, walk
from fhir_server.registry import Resource

_URN = re.compile(rb"urn:(?:uuid|oid):[A-Za-z0-9.\-]+")
_RESTFUL = re.compile(r"(.+)/[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_LINK_IN_NARRATIVE = re.compile(r"""(?<=[\s"'])((?:href|src)\s*=\s*)(["'])(urn:[^"']+)\2""")
# Not `canonical`, whose targets are found by their own url.
_LINKING_TYPES = frozenset({"uri", "url", "oid", "uuid"})


class Links:
    """What each fullUrl of a transaction stands for. `base_url` is our own FHIR base."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._targets: dict[str, Target] = {}

    def add(self, full_url: str, to: Target, path: str) -> None:
        """Name what an entry creates or updates. FhirError when another entry has this fullUrl."""
        if full_url in self._targets:
            raise fail("invalid", f"fullUrl {full_url[:200]} is in this transaction twice", f"{path}.fullUrl", status=400)
        self._targets[full_url] = to

    def following(self, changes: Patch, path: str) -> Patch:
        """A patch whose result has its links rewritten, whichever way the patch wrote them; `path` is that of its entry."""

        def changed(before: Resource) -> Resource:
            after = changes(before)
            self.rewrite(after, None, path, set(literals(before)))
            return after

        return changed

    def rewrite(self, resource: Resource, full_url: str | None, path: str, known: AbstractSet[str] = frozenset()) -> None:
        """Turn the links of a resource into local ones, in place; `path` is that of its entry.

        `known`: references that were there before, and stay as they are. FhirError for another one to a UUID that no entry has as
        its fullUrl: nothing could ever resolve it.
        """
        base = found[1] if full_url and (found := _RESTFUL.fullmatch(full_url)) else None
        for where, element in walk(resource, f"{path}.resource"):
            if element["reference"] in known:
                continue
            to = self._target(element["reference"], base)
            if to is not None:
                element["reference"] = str(to)
            elif element["reference"].startswith("urn:uuid:"):
                raise fail("value", "no entry of this transaction has the fullUrl that this refers to", where, status=422)
        if not self._targets.keys().isdisjoint(urn.decode() for urn in _URN.findall(fhir_json.dumps(resource))):
            self._rewrite_uris(resource, resource["resourceType"])

    def _target(self, reference: str, base: str | None) -> Target | None:
        if reference in self._targets:
            return self._targets[reference]
        if base is not None and (given := self._targets.get(f"{base}/{reference}")) is not None:
            return given
        return target(reference, self._base_url) if reference.startswith(self._base_url) else None

    def _rewrite_uris(self, value: Any, path: str) -> None:
        """The same for elements of type uri, url, oid and uuid, and the links in a narrative."""
        if not isinstance(value, dict):
            return
        types = _types(path)
        for name, item in value.items():
            kind = types.get(name) or ("Element" if name.startswith("_") else "")
            for i, one in enumerate(item if isinstance(item, list) else [item]):
                new = self._rewritten(one, kind)
                if new is not one:
                    if isinstance(item, list):
                        item[i] = new
                    else:
                        value[name] = new

    def _rewritten(self, value: Any, kind: str) -> Any:
        if isinstance(value, str):
            if kind in _LINKING_TYPES and value.startswith("urn:") and value in self._targets:
                return str(self._targets[value])
            return _LINK_IN_NARRATIVE.sub(self._link, value) if kind == "xhtml" else value
        if kind == "Resource":
            kind = value.get("resourceType", "") if isinstance(value, dict) else ""
        if kind:
            self._rewrite_uris(value, kind)
        return value

    def _link(self, match: re.Match[str]) -> str:
        to = self._targets.get(match[3])
        return match[0] if to is None else f"{match[1]}{match[2]}{to}{match[2]}"


def localize(resource: Resource, base_url: str) -> None:
    """Make references that are written with our own base URL relative, in place: both mean the same (FHIR R4 2.3.0.1)."""
    for _, element in walk(resource, ""):
        if element["reference"].startswith(base_url) and (to := target(element["reference"], base_url)) is not None:
            element["reference"] = element["reference"][len(base_url) + 1 :] if "/_history/" in element["reference"] else str(to)


@cache
def _types(path: str) -> Mapping[str, str]:
    """JSON name to type, for the elements inside a type or backbone element; empty where R4 has no such type."""
    try:
        return {n: e.children or t for e in definitions.elements(path).values() for n, t in e.json_names.items()}
    except KeyError:
        return {}
