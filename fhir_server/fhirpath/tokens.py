"""The words and signs of a FHIRPath expression (FHIRPath N1, appendix B: grammar)."""

import re
from typing import NamedTuple

MAX_LENGTH = 4000
"""Characters in an expression: R4's longest has 500."""


class FhirPathError(ValueError):
    """The expression is not FHIRPath, uses what this server does not have, or does not fit what it is evaluated on."""


class Token(NamedTuple):
    """`kind` is one of: temporal, number, text, quoted (a name in backticks), environment, special, word, sign, end."""

    kind: str
    text: str
    position: int


_TOKEN = re.compile(
    r"""
    (?:\s+ | //[^\n]* | /\*.*?\*/)*
    (?:
        (?P<temporal>@(?:T[0-9:.]+ | [0-9]{4}(?:-[0-9]{2}){0,2}(?:T(?:[0-9]{2}[0-9:.]*)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?))
      | (?P<number>[0-9]+(?:\.[0-9]+)?)
      | (?P<text>'(?:[^'\\]|\\.)*')
      | (?P<quoted>`(?:[^`\\]|\\.)*`)
      | (?P<environment>%(?:[A-Za-z_][A-Za-z0-9_]* | `[^`\\]*` | '[^'\\]*'))
      | (?P<special>\$[A-Za-z]+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign><=|>=|!=|!~|[-+*/&|=~<>().,\[\]{}])
      | (?P<end>\Z)
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "\\": "\\", "/": "/", "'": "'", '"': '"', "`": "`"}


def tokens(expression: str) -> list[Token]:
    """The tokens of an expression, with one of kind `end` behind them. Raises FhirPathError."""
    if len(expression) > MAX_LENGTH:
        raise FhirPathError(f"an expression has at most {MAX_LENGTH} characters")
    found: list[Token] = []
    end = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(expression, end)
        if match is None or match.lastgroup is None:
            raise FhirPathError(f"nothing understood at character {end + 1}")
        found.append(_token(match.lastgroup, match))
        end = match.end()
    return found


def _token(kind: str, match: re.Match[str]) -> Token:
    text = match[kind]
    if kind in {"text", "quoted"}:
        text = _ESCAPE.sub(_unescaped, text[1:-1])
    elif kind == "environment":
        text = text[1:].strip("`'")
    return Token(kind, text, match.start(kind))


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        return chr(int(code[1:], 16))
    if code not in _ESCAPED:
        raise FhirPathError(f"\\{code} is not an escape in a FHIRPath string")
    return _ESCAPED[code]
