"""The text keys of a search index: how a value of each text-like parameter type is written into `search.t`.

    `status=active`            a code, a uri or an exact string
    `code@http://loinc.org|x`  a token with its system (`|x` when it has none, but not for those that never have one)
    `code:text~ct thorax`      the text beside a token, folded
    `identifier:of-type@s|c|v` an identifier by its type
    `subject>Patient/1`        a reference; `subject:identifier@s|v` one by its identifier
    `family~musterfrau`        a string, folded (case, accents, punctuation, space); `family^...` what of it is beyond MAX_KEY
    `family+quinones`          a person's name from a further word on (`Carreño Quiñones`)
    `code:`                    a value is there that none of these can say
    `>Patient/1`               any reference, for "what refers to this?"
Text beyond MAX_KEY is cut: a folded string ends there (it is compared by its beginning), other keys get a hash for the rest.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from fhir_server.references import target

MAX_KEY = 300
# A text that `:contains` looks for is found if it is no longer than this, wherever it stands.
OVERLAP = 100
_MOST_WORDS = 20  # of a name, beyond the first one, from which on it is found

_ASCII_PUNCTUATION = {code: None for code in range(128) if unicodedata.category(chr(code)).startswith("P")}
_NEXT_WORD = re.compile(r"(?<=[\s-])[^\s-]")

Make = Callable[[str, str, Any], Iterable[str]]


def caseless(text: str) -> str:
    """Case, accents and runs of white space removed; punctuation stays."""
    if text.isascii():
        return " ".join(text.lower().split())
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


def fold(text: str) -> str:
    """Case, accents, punctuation and runs of white space removed, as string parameters are compared (FHIR R4 Search, "string").

    What is nothing but punctuation stays.
    """
    if text.isascii():
        lower = text.lower()
        return " ".join((lower.translate(_ASCII_PUNCTUATION) or lower).split())
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(("".join(c for c in bare if not unicodedata.category(c).startswith("P")) or bare).split())


def shortened(key: str) -> str:
    """The key as it is, or what stands for one that is too long to index."""
    return key if len(key) <= MAX_KEY else f"{key[:MAX_KEY]}#{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def folded_key(name: str, text: str) -> str:
    """The key of a string, or of its beginning, for comparison by beginning."""
    return f"{name}~{fold(text)}"[:MAX_KEY]


def word_key(name: str, text: str) -> str:
    """The same from a further word of a name on."""
    return f"{name}+{fold(text)}"[:MAX_KEY]


def _token(name: str, element_type: str, value: Any) -> Iterable[str]:
    if element_type == "CodeableConcept":
        return _concept(name, value)
    if element_type == "Coding":
        return _coding(name, value)
    if element_type == "Identifier":
        return _identifier(name, value)
    if element_type == "ContactPoint":
        return coded(name, None, value.get("value"))
    if element_type == "string":
        return coded(name, None, value.casefold())
    return coded(name, None, plain(value)) if isinstance(value, (str, int)) else ()


def plain(value: Any) -> str:
    """A primitive as it is searched for."""
    return value if type(value) is str else "true" if value is True else "false" if value is False else str(value)


def _concept(name: str, concept: dict[str, Any]) -> list[str]:
    keys: list[str] = []
    for coding in concept.get("coding", ()):
        keys += _coding(name, coding)
    keys += _beside(name, concept.get("text"))
    return keys


def _coding(name: str, coding: dict[str, Any]) -> tuple[str, ...]:
    return _coding_keys(name, coding.get("system"), coding.get("code"), coding.get("display"))


@lru_cache(65_536)
def _coding_keys(name: str, system: str | None, code: str | None, display: str | None) -> tuple[str, ...]:
    return *coded(name, system, code), *_beside(name, display)


def _identifier(name: str, identifier: dict[str, Any]) -> Iterator[str]:
    value, kind = identifier.get("value"), identifier.get("type", {})
    yield from coded(name, identifier.get("system"), value)
    yield from _beside(name, kind.get("text"))
    if value is not None:
        for coding in kind.get("coding", ()):
            if "code" in coding:
                yield f"{name}:of-type@{coding.get('system', '')}|{coding['code']}|{value}"


def _beside(name: str, text: object) -> tuple[str, ...]:
    return _beside_keys(name, text) if isinstance(text, str) else ()


@lru_cache(16_384)
def _beside_keys(name: str, text: str) -> tuple[str, ...]:
    return (folded_key(f"{name}:text", text),)


def coded(name: str, system: str | None, code: str | None) -> tuple[str, ...]:
    """The keys of a code or value and its system."""
    if code is not None:
        return f"{name}={code}", f"{name}@{system or ''}|{code}"
    return (f"{name}@{system}|",) if system else ()


def _reference(name: str, element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):  # canonical and uri: found with and without its version
        yield f"{name}>{value}"
        yield f"{name}>{value.partition('|')[0]}"
    if element_type != "Reference":
        return
    to = target(value)
    if to is not None:
        yield f"{name}>{to}"
    elif isinstance(value.get("reference"), str):
        yield f"{name}>{value['reference']}"
    if isinstance(value.get("identifier"), dict):
        yield from coded(f"{name}:identifier", value["identifier"].get("system"), value["identifier"].get("value"))


def _string(name: str, element_type: str, value: Any) -> Iterator[str]:
    for text in _texts(element_type, value):
        folded = f"{name}~{fold(text)}"
        yield folded[:MAX_KEY]
        yield f"{name}={text}"
        for start in range(MAX_KEY - OVERLAP, len(folded) - OVERLAP, MAX_KEY - OVERLAP):
            yield f"{name}^{folded[start : start + MAX_KEY]}"


def _name(name: str, element_type: str, value: Any) -> Iterator[str]:
    """A person's name: who has two family names is looked for by the second one, too (FHIR R4 Patient, "Searching")."""
    yield from _string(name, element_type, value)
    for text in _texts(element_type, value):
        yield from (word_key(name, text[word.start() :]) for word in islice(_NEXT_WORD.finditer(text), _MOST_WORDS))


def _texts(element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        members = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country")
        for member in members if element_type in {"HumanName", "Address"} else ("text",):
            part = value.get(member)
            yield from (p for p in (part if isinstance(part, list) else [part]) if isinstance(p, str))


def _uri(name: str, element_type: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{name}={value}"
        if element_type == "canonical":  # found with and without its version
            yield f"{name}={value.partition('|')[0]}"


KEYS: dict[str, Make] = {"token": _token, "reference": _reference, "string": _string, "name": _name, "uri": _uri}
