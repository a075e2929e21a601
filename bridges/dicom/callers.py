"""Who is at the other end of an association."""

from dataclasses import dataclass

from smart_auth.access import Access


@dataclass(frozen=True, slots=True)
class Caller:
    """A scanner, or another system, by its AE title and address."""

    ae_title: str
    address: str

    @property
    def access(self) -> Access:
        """A scanner's rights: what its SOP classes do, no more. The audit trail shows its AE title."""
        return Access.system(f"dicom:{self.ae_title}")
