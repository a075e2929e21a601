"""URIs: the whole text, or the levels of a path above and below it (3.1.1.4.9)."""

from typing import Any

from tests.search_oracle.asked import Asked, unescaped


def matches(asked: Asked, element_type: str, value: Any) -> bool:
    """Whether a stored URI answers the search. A canonical is found with its version and without (3.1.1.4.13)."""
    wanted = unescaped(asked.text)
    stored = {str(value), str(value).partition("|")[0]} if element_type == "canonical" else {str(value)}
    match asked.modifier:
        case "below":
            return any(lies_below(uri, wanted) for uri in stored)
        case "above":
            return any(lies_below(wanted, uri) for uri in stored)
        case _:
            return wanted in stored


def lies_below(uri: str, upper: str) -> bool:
    """Whether `uri` is `upper`, or continues it by further steps of a path."""
    return uri == upper or uri.startswith(upper.removesuffix("/") + "/")
