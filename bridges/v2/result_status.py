"""What a result's status (OBR-25) makes of a report that we have: results come late, twice, and in the wrong order.

| we have | it says registered | partial, preliminary | final | corrected | cancelled |
|---|---|---|---|---|---|
| nothing, registered | that | that | final | corrected | cancelled |
| partial, preliminary | refused | that | final | corrected | cancelled |
| final | refused | refused | same content: nothing; else amended | corrected, appended | cancelled |
| a changed final | refused | refused | the same, where OBR-22 is later; else refused | corrected, appended | cancelled |

A result whose OBR-22 lies before the report's is refused whatever it says.
"""

from typing import Final

SIGNED: Final = frozenset({"final", "amended", "corrected", "appended"})
_BEGUN: Final = frozenset({"partial", "preliminary"})


class Older(Exception):
    """The report that we have is further than what the message says."""


def next_status(known: str, said: str, *, changed: bool, adds: bool, newer: bool | None) -> str | None:
    """The status that a report takes; None where the message changes nothing. Raises Older.

    known: the report's status, empty where there is none; said: what OBR-25 means
    changed: whether the content differs; adds: whether it differs by an addendum only
    newer: whether OBR-22 lies after the report's; None where that can't be told
    """
    if not known:
        return said
    if newer is False:
        raise Older(f"the report here is {known}, and newer than this result")
    if said == "cancelled":
        return None if known == said else said
    if known in SIGNED:
        return _of_signed(known, said, changed=changed, adds=adds, newer=newer)
    if said == "registered" and known in _BEGUN:
        raise Older(f"the report here is {known} already")
    return said if changed or said != known else None


def _of_signed(known: str, said: str, *, changed: bool, adds: bool, newer: bool | None) -> str | None:
    if said not in SIGNED:
        raise Older(f"the report here is {known} already")
    if not changed:
        return None
    if said == "final" and known != "final" and not newer:
        raise Older(f"the report here is {known} already, and this result doesn't say that it is newer")
    return "appended" if adds else "amended" if said == "final" else "corrected"
