"""Random searches: every parameter of the populations' types with every modifier and prefix, chains, `_has`, sorts and pages.

They are made by a random generator and not by hypothesis, which likes to draw the same few values again and again; a search that
fails is made smaller by `smaller`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import TypeVar

from fhir_server.definitions import SearchParameter, search_parameters
from tests.search_oracle import pools
from tests.search_oracle.asked import Resource, split, values
from tests.search_oracle.searched_values import ONE_VALUE, Texts, kinds, modified, one_of, plain, targets

T = TypeVar("T")
Criterion = tuple[str, str]
Parameters = dict[str, list[SearchParameter]]
"""By resource type."""

# No element answers these, or only what sounds alike.
_WITHOUT_RULE = frozenset({"_text", "_content", "_query", "phonetic"})
_SORTABLE = frozenset({"date", "string", "token", "reference", "uri", "number"})
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Expression:
    """A search, and how many matches there are to be on a page."""

    type: str
    criteria: tuple[Criterion, ...]
    sort: tuple[str, ...]
    page: int

    @property
    def parameters(self) -> list[Criterion]:
        """As it is sent, but for `_count`."""
        return [*self.criteria, *([("_sort", ",".join(self.sort))] if self.sort else [])]


def smaller(expression: Expression) -> Iterator[Expression]:
    """The same with one thing less: a criterion, an alternative, a sort key, the pages."""
    for i, (name, text) in enumerate(expression.criteria):
        before, after = expression.criteria[:i], expression.criteria[i + 1 :]
        yield replace(expression, criteria=(*before, *after))
        parts = split(text, ",")
        for left_out in range(len(parts)) if len(parts) > 1 else ():
            kept = ",".join(parts[:left_out] + parts[left_out + 1 :])
            yield replace(expression, criteria=(*before, (name, kept), *after))
    for i in range(len(expression.sort)):
        yield replace(expression, sort=expression.sort[:i] + expression.sort[i + 1 :])
    if expression.page < 100:
        yield replace(expression, page=100)


@cache
def searchable(resource_type: str) -> list[SearchParameter]:
    """The parameters of a type that the oracle has a rule for."""
    return [p for name, p in search_parameters(resource_type).items() if name not in _WITHOUT_RULE and p.expression]


def with_values(population: list[Resource]) -> Parameters:
    """The parameters that something in the population has a value for."""
    found: Parameters = {}
    for kind in pools.COUNTS:
        ours = [r for r in population if r["resourceType"] == kind]
        found[kind] = [p for p in searchable(kind) if any(values(r, p) for r in ours)]
    return found


def is_reference(resource_type: str, parameter: SearchParameter) -> bool:
    """Whether resources can be had through the parameter (which they can't through a canonical)."""
    return parameter.type == "reference" and "Reference" in kinds(resource_type, parameter)


def is_sortable(resource_type: str, parameter: SearchParameter) -> bool:
    """Whether there is an order to judge: not of canonicals (their version may count or not), nor of two parameters in one."""
    known = parameter.type in _SORTABLE and "canonical" not in kinds(resource_type, parameter)
    return known and not parameter.name.startswith("combo-")


class Searches:
    """Makes searches for a population, mostly by parameters that have a value somewhere in it."""

    def __init__(self, random: Random, population: list[Resource]) -> None:
        self._random = random
        self._filled = with_values(population)

    def expression(self) -> Expression:
        """A search for one type."""
        resource_type = self._one_of([kind for kind in _TYPES if self._filled[kind]])
        criteria = tuple(self._criterion(resource_type, 0) for _ in range(self._one_of((0, 1, 1, 1, 1, 2, 2, 3))))
        return Expression(resource_type, criteria, self._sort(resource_type), self._one_of((1, 2, 3, 7, 100)))

    def _one_of(self, items: Sequence[T]) -> T:
        return self._random.choice(items)

    def _parameter(self, resource_type: str) -> SearchParameter:
        """One that has a value somewhere, mostly; each parameter type has its turn, however few parameters are of it."""
        filled = self._filled[resource_type]
        known = filled if filled and self._random.random() < 0.9 else searchable(resource_type)
        kind = self._one_of([kind for kind in _KINDS if any(p.type == kind for p in known)])
        return self._one_of([p for p in known if p.type == kind])

    def _criterion(self, resource_type: str, depth: int) -> Criterion:
        """One parameter: of the type itself, of what it refers to, or of what refers to it."""
        form = self._one_of(_FORMS) if depth < _DEPTH else "plain"
        if form == "chain" and (heads := self._links(resource_type)):
            head, target = self._one_of(heads)
            name, text = self._criterion(target, depth + 1)
            return f"{head}.{name}", text
        if form == "has" and (tails := self._referrers(resource_type)):
            source, parameter = self._one_of(tails)
            name, text = self._criterion(source, depth + 1)
            return f"_has:{source}:{parameter}:{name}", text
        if form == "list" and resource_type in pools.LISTED:
            return "_list", self._alternatives(one_of("1234"))
        return self._plain(resource_type)

    def _plain(self, resource_type: str) -> Criterion:
        parameter = self._parameter(resource_type)
        modifiers = modified(resource_type, parameter)
        modifier = self._one_of(["", *modifiers]) if self._random.random() < 0.5 else ""
        if not modifier:
            return parameter.name, self._alternatives(plain(resource_type, parameter))
        text = modifiers[modifier](self._random) if modifier in ONE_VALUE else self._alternatives(modifiers[modifier])
        return f"{parameter.name}:{modifier}", text

    def _alternatives(self, one: Texts) -> str:
        """Mostly one value, sometimes two or three."""
        return ",".join(one(self._random) for _ in range(self._one_of((1, 1, 1, 2, 3))))

    def _links(self, resource_type: str) -> list[tuple[str, str]]:
        """Parameters that lead to our types, as the head of a chain: `subject:Patient`, or `patient` where there is no choice."""
        found = []
        for parameter in self._filled[resource_type]:
            if is_reference(resource_type, parameter):
                only = "resolve() is" in parameter.expression or len(parameter.targets) == 1
                led_to = [t for t in targets(parameter) if t in pools.REFERRED_TO]
                found += [(parameter.name if only else f"{parameter.name}:{t}", t) for t in led_to]
        return found

    def _referrers(self, resource_type: str) -> list[tuple[str, str]]:
        """Types and their parameters that lead to a type."""
        if resource_type not in pools.REFERRED_TO:
            return []
        named = [(source, p) for source, parameters in self._filled.items() for p in parameters if is_reference(source, p)]
        return [(source, p.name) for source, p in named if resource_type in targets(p)]

    def _sort(self, resource_type: str) -> tuple[str, ...]:
        """No sort, or up to three keys in any direction."""
        drawn = [self._parameter(resource_type) for _ in range(self._one_of((0, 1, 1, 2, 3)))]
        keys = dict.fromkeys(p.name for p in drawn if is_sortable(resource_type, p))
        return tuple(self._one_of(("", "-")) + key for key in keys)


# Those with more of the rarer parameter types have more turns.
_TYPES = (*pools.COUNTS, "Observation", "Observation", "RiskAssessment", "ChargeItem", "ValueSet")
_KINDS = (*"string token reference uri date number".split(), *["quantity"] * 2, *["composite"] * 3)
_FORMS = ("plain",) * 7 + ("chain", "chain", "has", "has", "list")
