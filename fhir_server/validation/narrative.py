"""The narrative's XHTML: an allow-list of elements, attributes and link schemes (FHIR R4 2.4.0, invariants txt-1 and txt-2).

A narrative is shown to people in a browser, ours or an app's: what could run or load something there is refused, not cleaned.
"""

import re
from typing import Any
from xml.parsers import expat

from fhir_server.validation.problems import Problem, problem

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_NESTING = 100
XHTML = "http://www.w3.org/1999/xhtml"

ELEMENTS = frozenset(
    """
    a abbr acronym b big blockquote br caption cite code col colgroup dd dfn div dl dt em h1 h2 h3 h4 h5 h6 hr i img li ol p pre q
    samp small span strong sub sup table tbody td tfoot th thead tr tt ul var
    """.split()
)
ATTRIBUTES = frozenset(
    """
    abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset cite class
    colspan compact coords dir frame headers height href hreflang hspace id lang longdesc name nowrap rel rev rowspan rules scope
    shape span src start style summary tabindex title type valign value vspace width xml:lang xmlns
    """.split()
)
_LINKS = frozenset({"cite", "href", "longdesc"})
_LINK_SCHEMES = frozenset({"ftp", "http", "https", "mailto", "tel", "urn"})
_IMAGE_SCHEMES = frozenset({"http", "https"})
_IMAGE_DATA = re.compile(r"data:image/(?:png|gif|jpeg|webp|bmp);base64,[a-z0-9+/=]+")
_SCHEME = re.compile(r"([^/?#]*?):")
_IGNORED_IN_URLS = re.compile(r"[\x00-\x20\x7f-\x9f]")
_STYLE_IMAGE = re.compile(r"url\(data: ?image/(?:png|gif|jpeg|webp|bmp);base64,[A-Za-z0-9+/=]+\)")
_ACTIVE_STYLE = re.compile(r"[\\@<]|/\*|url\s*\(|expression\s*\(|image-set\s*\(|behavior|binding|script:", re.IGNORECASE)


class _RefusedError(Exception):
    """The narrative holds what it may not."""


def _check_url(name: str, value: str) -> None:
    url = _IGNORED_IN_URLS.sub("", value).lower()
    scheme = _SCHEME.match(url)
    if scheme is None or (name in _LINKS and scheme[1] in _LINK_SCHEMES):
        return
    if name == "src" and (scheme[1] in _IMAGE_SCHEMES or _IMAGE_DATA.fullmatch(url)):
        return
    raise _RefusedError(f"{name} has a scheme that is not allowed")


def _check_attributes(attributes: dict[str, str]) -> None:
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise _RefusedError(f"the attribute {name[:40]!r} is not allowed")
        if name == "src" or name in _LINKS:
            _check_url(name, value)
        elif name == "style" and _ACTIVE_STYLE.search(_STYLE_IMAGE.sub("", value)):
            raise _RefusedError("the style loads or runs something")
        elif name == "xmlns" and value != XHTML:
            raise _RefusedError("an element is not XHTML")


class _Reader:
    """One pass of the parser over a narrative; `has_content` is txt-2."""

    def __init__(self) -> None:
        self.has_content = False
        self._depth = 0
        self._parser = parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse_markup
        parser.ProcessingInstructionHandler = self._refuse_markup
        parser.XmlDeclHandler = self._refuse_markup

    def read(self, text: str) -> None:
        self._parser.Parse(text, True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0 and (name != "div" or attributes.get("xmlns") != XHTML):
            raise _RefusedError(f'the root must be <div xmlns="{XHTML}">')
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise _RefusedError(f"elements nest deeper than {MAX_NESTING} levels")
        if name not in ELEMENTS:
            raise _RefusedError(f"the element {name[:40]!r} is not allowed")
        if attributes:
            _check_attributes(attributes)
            if name == "img" and "src" in attributes:
                self.has_content = True

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _characters(self, text: str) -> None:
        if not text.isspace():
            self.has_content = True
            self._parser.CharacterDataHandler = None

    def _refuse_markup(self, *_: Any) -> None:
        raise _RefusedError("a document type, an XML declaration or a processing instruction is not allowed")


def check_xhtml(value: Any, _depth: int) -> list[Problem] | None:
    """The check of `Narrative.div`."""
    if type(value) is not str:
        return problem("structure", "xhtml: must be a JSON string")
    if len(value) > MAX_CHARACTERS:
        return problem("value", f"xhtml: longer than {MAX_CHARACTERS} characters")
    reader = _Reader()
    try:
        reader.read(value)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset}"
        return problem("value", f"xhtml: not well-formed: {expat.ErrorString(error.code)} ({where})")
    except UnicodeEncodeError:
        return problem("value", "xhtml: half of a surrogate pair")
    except _RefusedError as refused:
        return problem("invariant", f"xhtml: {refused} (txt-1)")
    return None if reader.has_content else problem("invariant", "xhtml: there is no text and no image (txt-2)")
