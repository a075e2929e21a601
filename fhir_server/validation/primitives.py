"""Checks of the primitive types (FHIR R4 2.24.0.1): JSON type, format, and for dates a day that exists."""

import binascii
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any

from fhir_server.fhir_json import fits_decimal128
from fhir_server.validation.narrative import check_xhtml
from fhir_server.validation.problems import Check, Problem, problem

MAX_STRING = 1024 * 1024
"""Characters in a string (FHIR R4 2.24.0.1)."""

_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_YEAR = r"(?!0000)[0-9]{4}"
_DAY = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))"
_MONTH = r"(?:0[1-9]|1[0-2])"


def _not_a(name: str, rule: str, value: Any) -> list[Problem]:
    if type(value) is str:
        return problem("value", f"{name}: {rule}")
    return problem("structure", f"{name}: must be a JSON string")


def _boolean(value: Any, _depth: int) -> list[Problem] | None:
    return None if value is True or value is False else problem("structure", "boolean: must be true or false, without quotes")


def _integer_between(name: str, low: int, high: int) -> Check:
    def check(value: Any, _depth: int) -> list[Problem] | None:
        if type(value) is not int:
            return problem("structure", f"{name}: must be a JSON number without fraction")
        return None if low <= value <= high else problem("value", f"{name}: must be from {low} to {high}")

    return check


def _decimal(value: Any, _depth: int) -> list[Problem] | None:
    kind = type(value)
    if kind is int:
        return None
    if kind is not Decimal:
        return problem("structure", "decimal: must be a JSON number")
    return None if fits_decimal128(value) else problem("value", "decimal: at most 34 digits, and exponents from -6176 to 6111")


def _text(name: str) -> Check:
    def check(value: Any, _depth: int) -> list[Problem] | None:
        if type(value) is str and value and not value.isspace() and len(value) <= MAX_STRING:
            return None
        return _not_a(name, f"must not be blank, nor longer than {MAX_STRING} characters", value)

    return check


def _no_space(name: str) -> Check:
    def check(value: Any, _depth: int) -> list[Problem] | None:
        if type(value) is str and value and " " not in value and "\n" not in value and "\t" not in value and "\r" not in value:
            return None
        return _not_a(name, "must not be empty, nor hold white space", value)

    return check


_CODE = re.compile(r"[^ \t\r\n]+(?: [^ \t\r\n]+)*").fullmatch


def _code(value: Any, _depth: int) -> list[Problem] | None:
    if type(value) is str:
        if value and " " not in value and "\n" not in value and "\t" not in value and "\r" not in value:
            return None
        if _CODE(value):
            return None
    return _not_a("code", "must not be empty, nor hold white space other than single spaces inside", value)


_ID_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."


def _id(value: Any, _depth: int) -> list[Problem] | None:
    if type(value) is str and 0 < len(value) <= 64 and value.isascii() and not value.encode().translate(None, _ID_CHARACTERS):
        return None
    return _not_a("id", "1 to 64 letters, digits, - and .", value)


def code_from(codes: Collection[str], value_set: str) -> Check:
    """The check of a `code` with a required binding."""
    allowed = frozenset(codes)

    def check(value: Any, depth: int) -> list[Problem] | None:
        if type(value) is str and value in allowed:
            return None
        return _code(value, depth) or problem("code-invalid", f"{value[:64]!r} is not a code of {value_set} (required binding)")

    return check


def _pattern(name: str, pattern: str, rule: str) -> Check:
    matches = re.compile(pattern).fullmatch

    def check(value: Any, _depth: int) -> list[Problem] | None:
        return None if type(value) is str and matches(value) else _not_a(name, rule, value)

    return check


def _calendar(name: str, pattern: str, rule: str) -> Check:
    """As `_pattern`, which leaves one thing open: whether the year has a 29 February."""
    matches = re.compile(pattern).fullmatch

    def check(value: Any, _depth: int) -> list[Problem] | None:
        if type(value) is not str or not matches(value):
            return _not_a(name, rule, value)
        if value[5:10] == "02-29":
            year = int(value[:4])
            if year % 4 or (year % 100 == 0 and year % 400):
                return problem("value", f"{name}: there is no 29 February in {year}")
        return None

    return check


def _base64(value: Any, _depth: int) -> list[Problem] | None:
    if type(value) is str and value:
        try:
            if binascii.a2b_base64(value, strict_mode=True):
                return None
        except ValueError:  # white space is allowed between the characters
            compact = "".join(value.split())
            try:
                if len(compact) != len(value) and binascii.a2b_base64(compact, strict_mode=True):
                    return None
            except ValueError:
                return problem("value", "base64Binary: not valid base64")
    return _not_a("base64Binary", "not valid base64", value)


_INSTANT_RULE = "YYYY-MM-DDThh:mm:ss(.s) with a time zone, on a day that exists"

CHECKS: dict[str, Check] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "canonical": _no_space("canonical"),
    "code": _code,
    "date": _calendar("date", f"{_YEAR}(?:-(?:{_DAY}|{_MONTH}))?", "YYYY, YYYY-MM or YYYY-MM-DD, a day that exists"),
    "dateTime": _calendar(
        "dateTime",
        f"{_YEAR}(?:-(?:{_DAY}(?:T{_TIME}{_ZONE})?|{_MONTH}))?",
        f"YYYY, YYYY-MM, YYYY-MM-DD or {_INSTANT_RULE}",
    ),
    "decimal": _decimal,
    "id": _id,
    "instant": _calendar("instant", f"{_YEAR}-{_DAY}T{_TIME}{_ZONE}", _INSTANT_RULE),
    "integer": _integer_between("integer", -(2**31), 2**31 - 1),
    "markdown": _text("markdown"),
    "oid": _pattern("oid", r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+", "urn:oid: and an object identifier"),
    "positiveInt": _integer_between("positiveInt", 1, 2**31 - 1),
    "string": _text("string"),
    "time": _pattern("time", _TIME, "hh:mm:ss(.s), without time zone"),
    "unsignedInt": _integer_between("unsignedInt", 0, 2**31 - 1),
    "uri": _no_space("uri"),
    "url": _no_space("url"),
    "uuid": _pattern("uuid", r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "urn:uuid: and a UUID in lower case"),
    "xhtml": check_xhtml,
}
