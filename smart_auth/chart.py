"""What the pages and launches of the authorization server need of the patients' record; app.py gives it to them.

Everything is asked for with the rights of a user or a client: nothing shows here that the FHIR API would not show to them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from smart_auth.access import Access
from smart_auth.scopes import parse_scopes
from smart_auth.users import User

PICKER = "fhir-ris pages"  # as a client, in the audit trail
_PICKER_SCOPES = parse_scopes("user/*.rs")


@dataclass(frozen=True, slots=True)
class Choice:
    """A patient or an encounter to choose: its logical id, and how people know it."""

    id: str
    label: str
    detail: str


class Chart(Protocol):
    """The record, as somebody sees it."""

    async def patients(self, access: Access, text: str) -> list[Choice]:
        """The first patients that fit what was typed: a name, a date of birth or an identifier."""

    async def encounters(self, access: Access, patient: str) -> list[Choice]:
        """The newest encounters of a patient."""

    async def is_of(self, access: Access, encounter: str, patient: str) -> bool:
        """Whether an encounter that may be read is this patient's (logical ids)."""

    async def sees(self, access: Access, references: Iterable[str]) -> bool:
        """Whether all of these (`Type/id`) exist and may be read."""


def access_of(user: User) -> Access:
    """What a user sees on our own pages: what the role allows, and no app's scopes."""
    return Access(PICKER, _PICKER_SCOPES, "", user=user.fhir_user, user_name=user.name, role=user.role)
