"""Wild card matching (PS3.4 C.2.2.2.4): `*` any run of characters, `?` any one.

A key is taken apart once, and not compiled to an expression: what a caller sends may be long, and there may be many of them.
"""

from collections.abc import Callable

Matcher = Callable[[str], bool]


def matcher(key: str) -> Matcher:
    """Whether a text is what this key asks for. It takes no longer than the lengths of both, multiplied."""
    first, *others = key.split("*")
    if not others:
        return lambda text: len(text) == len(key) and _is_at(key, text, 0)
    *between, last = others
    inner = [b for b in between if b]
    shortest = len(key) - key.count("*")

    def matches(text: str) -> bool:
        if len(text) < shortest or not _is_at(first, text, 0) or not _is_at(last, text, len(text) - len(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for part in inner:
            found = _find(part, text, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return at <= end

    return matches


def _is_at(part: str, text: str, at: int) -> bool:
    if "?" not in part:
        return text.startswith(part, at)
    return at + len(part) <= len(text) and all(p in {"?", text[at + n]} for n, p in enumerate(part))


def _find(part: str, text: str, at: int, end: int) -> int:
    """Where it comes first between two places, or -1. The first is as good as any: what follows has the more room."""
    if "?" not in part:
        return text.find(part, at, end)
    return next((n for n in range(at, end - len(part) + 1) if _is_at(part, text, n)), -1)
