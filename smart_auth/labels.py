"""Confidentiality labels (`meta.security`): who sees what is restricted (R) or very restricted (V).

HL7 v3 Confidentiality, ordered: U L M N R V (http://terminology.hl7.org/CodeSystem/v3-Confidentiality). A label on a Patient is
one on the whole record; on any other resource it is about that resource.
"""

from smart_auth.roles import Confidentiality

SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_ABOVE: dict[Confidentiality, tuple[str, ...]] = {"N": ("R", "V"), "R": ("V",), "V": ()}


def key(system: str, code: str) -> str:
    """The index key of a security label."""
    return f"_security@{system}|{code}"


def above(clearance: Confidentiality) -> tuple[str, ...]:
    """The index keys of the labels that this clearance doesn't reach. One without its system counts: better hidden than shown."""
    return tuple(key(system, code) for code in _ABOVE[clearance] for system in (SYSTEM, ""))
