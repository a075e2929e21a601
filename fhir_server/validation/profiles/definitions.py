"""A StructureDefinition's elements as a tree, slices beside what they slice (FHIR R4 5.1.0.13, ElementDefinition 2.28).

Elements are placed by path, slice name and order, as R4 demands them to be ordered; `id`s are not needed.
"""

from dataclasses import dataclass, field
from typing import Any

from fhir_server.definitions import elements
from fhir_server.fhirpath.nodes import is_type

STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"
FHIRPATH_TYPE = "http://hl7.org/fhirpath/"
_IMPLICIT = {"extension": ("value", "url"), "modifierExtension": ("value", "url")}


_ABSTRACT = frozenset({"Resource", "DomainResource", "Element", "BackboneElement"})


def is_allowed(type_name: str, wanted: str) -> bool:
    """Whether a type is the one that a profile names; what is derived from it will not do, unless the named type is abstract."""
    return type_name == wanted or (wanted in _ABSTRACT and is_type(type_name, wanted))


@dataclass(slots=True)
class Rule:
    """What a profile says of one element, or of one slice of it. `name` is the FHIRPath name: a choice is without `[x]`."""

    name: str
    definition: dict[str, Any] = field(default_factory=dict)
    children: dict[str, "Rule"] = field(default_factory=dict)
    slices: list["Rule"] = field(default_factory=list)
    slice_name: str = ""
    choice_key: str = ""  # the JSON name of a slice that is one type of a choice, such as valueQuantity

    @property
    def types(self) -> list[str]:
        """The codes of the types that are allowed; empty when the profile says nothing of types."""
        codes = [str(row.get("code", "")) for row in self.definition.get("type", ())]
        return [] if any(code.startswith(FHIRPATH_TYPE) for code in codes) else codes

    @property
    def slicing(self) -> dict[str, Any]:
        found: dict[str, Any] = self.definition.get("slicing", {})
        return found

    @property
    def discriminators(self) -> list[tuple[str, str]]:
        """Type and path of each; extensions are sliced by url, and choices by type, when nothing is said."""
        given = [(str(d.get("type")), str(d.get("path"))) for d in self.slicing.get("discriminator", ())]
        if given:
            return given
        if self.name in _IMPLICIT:
            return [_IMPLICIT[self.name]]
        return [("type", "$this")] if any(s.choice_key for s in self.slices) else []

    def value(self, prefix: str) -> Any:
        """The content of `fixed[x]`, `pattern[x]`, `minValue[x]` and so on, by their prefix; None when it is not given."""
        return next(
            (v for key, v in self.definition.items() if key.startswith(prefix) and key[len(prefix) :][:1].isupper()), None
        )


def rule_tree(structure: dict[str, Any]) -> Rule | None:
    """The root of a profile's tree: of its snapshot, else of its differential. None when there is neither."""
    rows = structure.get("snapshot", structure.get("differential", {})).get("element", [])
    if not rows:
        return None
    type_name = str(structure.get("type", ""))
    root = Rule(type_name)
    current: dict[str, Rule] = {type_name: root}
    for row in rows:
        path = str(row.get("path", ""))
        if path == type_name:
            root.definition = row
            continue
        if not path.startswith(f"{type_name}."):
            continue
        rule = _place(row, path, current)
        for stale in [other for other in current if other.startswith(f"{path}.")]:
            del current[stale]
        current[path] = rule
    for row, rule in [(rule.definition, rule) for rule in _all_rules(root)]:
        target = row.get("contentReference", "").rpartition("#")[2]
        if target and not rule.children:
            rule.children = _at(root, target.split(".")[1:]).children
    return root


def _place(row: dict[str, Any], path: str, current: dict[str, Rule]) -> Rule:
    parent_path, _, last = path.rpartition(".")
    if parent_path not in current:
        current[parent_path] = _place({"path": parent_path}, parent_path, current)
    parent = current[parent_path]
    name = last.removesuffix("[x]")
    choice = _choice_of(path, name)
    base = parent.children.setdefault(choice or name, Rule(choice or name))
    if choice or row.get("sliceName"):
        rule = Rule(base.name, row, slice_name=str(row.get("sliceName", name)), choice_key=name if choice else "")
        base.slices.append(rule)
        return rule
    base.definition = row
    return base


def _choice_of(path: str, name: str) -> str:
    """`value` for a path that says `valueQuantity`, the short form of a slice by type; else empty."""
    try:
        known = elements(path.rpartition(".")[0])
    except KeyError:
        return ""
    return next((e.name for e in known.values() if e.choice and name in e.json_names), "") if name not in known else ""


def _all_rules(rule: Rule) -> list[Rule]:
    return [rule] + [r for inner in (*rule.children.values(), *rule.slices) for r in _all_rules(inner)]


def _at(rule: Rule, names: list[str]) -> Rule:
    for name in names:
        rule = rule.children.get(name.removesuffix("[x]"), Rule(name))
    return rule
