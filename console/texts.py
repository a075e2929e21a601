"""The texts of the pages: one catalogue a language (`texts/*.toml`), a section a screen; formats of dates and numbers by Babel.

A text is named `section.name`, such as `orders.accept`; `{name}` in it stands for a value. Of a text about a number there are
two, `name.one` and `name.other` (`Texts.count`). A test holds the catalogues to the same names.
"""

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.localedata import locale_identifiers

_FOLDER = Path(__file__).parent / "texts"
LANGUAGES = ("en", "de")
_DEFAULT = "en_GB"


class Texts:
    """The texts of one language: `t("orders.accept")`, `t("orders.of", name=...)`."""

    def __init__(self, language: str, locale: Locale) -> None:
        self.language, self.locale = language, locale
        self._texts = catalogue(language)

    def __call__(self, name: str, /, **values: object) -> str:
        text = self._texts[name]
        return text.format_map(values) if values else text

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def count(self, name: str, number: int, /, **values: object) -> str:
        """The text about a number of things; `{n}` in it is the number."""
        plural = self.locale.plural_form(number)
        return self(f"{name}.{plural if plural == 'one' else 'other'}", n=number, **values)

    def code(self, section: str, code: str | None) -> str:
        """What a code is called, such as `status.active`; the code itself where it has no name here."""
        return self._texts.get(f"{section}.{code}", code or "")


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language by their full names."""
    found: dict[str, str] = {}

    def walk(place: str, table: Mapping[str, object]) -> None:
        for name, value in table.items():
            if isinstance(value, Mapping):
                walk(f"{place}{name}.", value)
            else:
                found[f"{place}{name}"] = str(value)

    walk("", tomllib.loads((_FOLDER / f"{language}.toml").read_text("utf-8")))
    return found


@functools.cache
def texts(locale: str) -> Texts:
    """The texts for a locale such as `de_AT`."""
    parsed = Locale.parse(locale)
    return Texts(parsed.language, parsed)


@functools.cache
def locales() -> tuple[Locale, ...]:
    """Every locale that a reader may have: `locale_of` answers no other."""
    known = (Locale.parse(name) for name in locale_identifiers() if name.partition("_")[0] in LANGUAGES)
    return tuple(locale for locale in known if not locale.script and not locale.variant)


def locale_of(accepted: str, chosen: str = "") -> str:
    """The locale for an Accept-Language header (RFC 9110 12.5.4); `chosen` is the language that the person has picked."""
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(",")[:20]:
        tag, _, weight = part.strip().partition(";")
        try:
            quality = float(weight.partition("q=")[2] or 1)
        except ValueError:
            continue
        wanted.append((-quality, tag.strip()))
    for _, tag in sorted(wanted, key=lambda pair: pair[0]):
        found = _known(tag)
        if found and chosen in ("", found.partition("_")[0]):
            return found
    return {"en": _DEFAULT, "de": "de_DE"}.get(chosen, _DEFAULT)


def _known(tag: str) -> str | None:
    language, _, territory = tag.replace("-", "_").partition("_")
    if language.lower() not in LANGUAGES:
        return None
    plain = {"en": _DEFAULT, "de": "de_DE"}[language.lower()]
    try:
        return str(Locale(language.lower(), territory.upper())) if territory.isalpha() and len(territory) == 2 else plain
    except UnknownLocaleError:
        return plain
