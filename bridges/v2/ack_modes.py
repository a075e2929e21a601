"""Who is answered when: original and enhanced acknowledgement (HL7 v2.5.1 2.9.2, 2.9.3; table 0155)."""

from dataclasses import dataclass
from typing import Final

from bridges.v2.message import Message

_CONDITIONS: Final = frozenset({"AL", "NE", "ER", "SU"})
_POSITIVE: Final = frozenset({"AA", "CA"})


@dataclass(frozen=True, slots=True)
class AckMode:
    """What MSH-15 (accept acknowledgement) and MSH-16 (application acknowledgement) ask for: AL, NE, ER or SU. Empty is NE.

    What isn't in table 0155 never means silence: beside a value that is, it is read as AL; alone, as empty.
    """

    accept: str = ""
    application: str = ""

    @classmethod
    def of(cls, message: Message) -> "AckMode":
        asked = [message.msh.field(number).strip().upper() for number in (15, 16)]
        other = "AL" if any(value in _CONDITIONS for value in asked) else ""
        return cls(*(value if not value or value in _CONDITIONS else other for value in asked))

    @property
    def is_enhanced(self) -> bool:
        """With both empty the mode is the original one: a single answer, the application's."""
        return bool(self.accept or self.application)

    def wants_accept(self, code: str) -> bool:
        """Whether CA, CE or CR is to be sent."""
        return _wanted(self.accept, code)

    def wants_application(self, code: str) -> bool:
        """Whether AA, AE or AR is to be sent."""
        return _wanted(self.application, code)


def _wanted(condition: str, code: str) -> bool:
    return condition == "AL" or condition == ("SU" if code in _POSITIVE else "ER")
