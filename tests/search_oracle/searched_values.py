"""Random values for search parameters, by the type of the parameter: mostly such as something in a population has."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from fhir_server.definitions import SearchParameter, search_parameters
from fhir_server.search.paths import compile_path
from tests.search_oracle import pools
from tests.search_oracle.asked import PREFIXES
from tests.search_oracle.strings import fold
from tests.search_oracle.units import SYSTEM as UCUM

Texts = Callable[[Random], str]
"""Makes the text of one value."""


def escaped(text: str) -> str:
    r"""The text with a backslash before each separator and backslash."""
    return re.sub(r"([\\,$|])", r"\\\1", text)


def one_of(items: Sequence[str]) -> Texts:
    return lambda random: random.choice(items)


def prefixed(plain: Texts, prefixes: Sequence[str] = PREFIXES) -> Texts:
    """With one of the prefixes, or none."""
    return lambda random: random.choice(["", "", *prefixes]) + plain(random)


@cache
def kinds(resource_type: str, parameter: SearchParameter) -> frozenset[str]:
    """The types of the elements that a parameter looks at."""
    return compile_path(parameter.expression, resource_type).types


@cache
def targets(parameter: SearchParameter) -> tuple[str, ...]:
    """Those of our types that a reference parameter leads to."""
    only = re.findall(r"resolve\(\) is (\w+)", parameter.expression)
    return tuple(t for t in (only or parameter.targets) if t in pools.COUNTS)


# Values without modifier


def plain(resource_type: str, parameter: SearchParameter) -> Texts:
    """One value of a parameter."""
    match parameter.type:
        case "token":
            return _token(resource_type, parameter)
        case "string":
            return part_of_text
        case "reference":
            return _reference(resource_type, parameter)
        case "date":
            if parameter.name == "_lastUpdated":  # about so short a time ago, `ap` depends on how fast we are
                return prefixed(one_of(_MOMENTS), [p for p in PREFIXES if p != "ap"])
            return prefixed(one_of(_DATES))
        case "number":
            return prefixed(one_of(_NUMBERS))
        case "quantity":
            return prefixed(one_of(_quantities(resource_type, parameter)))
        case "composite":
            known = search_parameters(resource_type)
            parts = [plain(resource_type, known[name]) for name, _ in parameter.components]
            return lambda random: "$".join(part(random) for part in parts)
    return one_of([*_URIS, pools.LONG_URL])


_DATES = [*pools.DATES, *pools.TIMES, "2013-01-14T10:00Z", "2013-01-14T10:00", "2012-12", "1990", "2030"]
_MOMENTS = ["@0", "@1", "@2"]  # when the parts of the population were written, to be put in when it is known
_NUMBERS = [*pools.NUMBERS, "0.2", "1.5e2", "2.5e-1", "1.50e3", "54e-1", "100.0", "-3.0"]
_URIS = [*pools.CANONICALS, *(f"{url}/" for url in pools.URLS[:2]), "http://example.org/fhir/Value"]


@cache
def coded(key: str) -> Texts:
    """The four ways to ask for a system and a code (of a Coding) or value (of an Identifier)."""
    items = pools.CODINGS if key == "code" else pools.IDENTIFIERS
    pairs = [(escaped(i.get("system", "")), escaped(i[key])) for i in items if key in i]
    codes, systems = ({code for _, code in pairs}, {system for system, _ in pairs if system})
    some = [*codes, *(f"{s}|{c}" for s, c in pairs), *(f"|{c}" for c in codes), *(f"{s}|" for s in systems)]
    return one_of(sorted([*some, *some, f"{max(systems)}|{min(codes)}", "nothing"]))


@cache
def _token(resource_type: str, parameter: SearchParameter) -> Texts:
    found = kinds(resource_type, parameter)
    if "id" in found:
        return one_of("123456789")
    if "boolean" in found:
        return one_of(["true", "false"])
    if "ContactPoint" in found:
        return one_of(["100", "a@example.org", "A@example.org"])
    if "Identifier" in found:
        return coded("value")
    if "code" in found:
        codes = pools.CODES.get(parameter.expression, ["en", "home"])
        implied = [f"{pools.IMPLIED[parameter.expression]}|{c}" for c in codes] if parameter.expression in pools.IMPLIED else []
        return one_of([*codes, *codes, *implied, codes[0].upper(), f"|{codes[0]}", f"urn:example:codes|{codes[0]}"])
    if found & {"string", "uri"}:
        return one_of([*pools.VERSIONS, "1.0-beta"])
    return coded("code")


_CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, fold]


def part_of_text(random: Random) -> str:
    """What somebody may type who looks for one of our texts: all or a part of it, in some case."""
    text = random.choice(pools.TEXTS)
    start, end = random.choice([(0, len(text)), (0, random.randint(1, len(text))), (random.randrange(len(text)), len(text))])
    changed = random.choice(_CASES)(text[start:end][:90])
    return escaped(changed if fold(changed) else text[:90])


@cache
def _reference(resource_type: str, parameter: SearchParameter) -> Texts:
    """Ids, types with ids, URLs of ours and of others; of canonicals the URL, which keeps its bar."""
    if "Reference" not in kinds(resource_type, parameter):
        return one_of(pools.CANONICALS)
    literal = [f"{t}/{i}" for t in targets(parameter) or ("Patient",) for i in range(1, 8)]
    urls = [f"{pools.BASE_URL}/{literal[0]}", f"{pools.OUTSIDE}/{literal[0]}"]
    return one_of([*literal, *"1234567" * 2, *urls])


@cache
def _quantities(resource_type: str, parameter: SearchParameter) -> list[str]:
    """A number alone, with a coded unit, or with what the unit may be called."""
    found = kinds(resource_type, parameter)
    if "Money" in found:
        return [f"{n}{unit}" for n in pools.NUMBERS for unit in ("", "||EUR", "|urn:iso:std:iso:4217|CHF")]
    items: list[dict[str, Any]] = pools.DURATIONS if "Duration" in found else pools.QUANTITIES
    numbers = sorted({i["value"] for i in items if "value" in i} | {"1.5e3", "1.50", "0.90", "1.5e2"})
    codes = sorted({i["code"] for i in items if "code" in i})
    stored = [f"{i['value']}|{UCUM}|{i['code']}" for i in items if "value" in i and "code" in i]
    mixed = [f"{n}|{UCUM}|{c}" for n in numbers for c in codes] + [f"{n}||{c}" for n in numbers for c in codes]
    return [*stored * 10, *numbers * 10, *mixed, *["5|urn:example:units|mg"] * 10]


# Values with a modifier

ONE_VALUE = {"missing", "below", "above"}
"""The modifiers that are given one value only."""


@cache
def modified(resource_type: str, parameter: SearchParameter) -> dict[str, Texts]:
    """The modifiers of a parameter, and what makes values for each."""
    found: dict[str, Texts] = {} if parameter.type == "composite" else {"missing": one_of(["true", "false"])}
    looked_at = kinds(resource_type, parameter)
    match parameter.type:
        case "token":
            found["not"] = plain(resource_type, parameter)
            if looked_at & {"CodeableConcept", "Coding", "Identifier"}:
                found["text"] = part_of_text
            if "Identifier" in looked_at:
                found["of-type"] = one_of([f"urn:example:type|{kind}|{value}" for kind in ("MR", "VN") for value in (100, 200)])
        case "string":
            found |= {"exact": one_of([escaped(t) for t in (*pools.TEXTS, "Dr.", "K1")]), "contains": part_of_text}
        case "uri":
            found |= {"below": one_of(_URIS), "above": one_of(_URIS)}
        case "reference" if "Reference" in looked_at:
            found["identifier"] = coded("value")
            found |= dict.fromkeys(targets(parameter), one_of("1234567"))
            if parameter.targets == (resource_type,):  # a hierarchy
                found |= dict.fromkeys(ONE_VALUE & {"below", "above"}, one_of("1234567"))
    return found
