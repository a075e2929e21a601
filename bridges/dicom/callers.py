"""Who is at the other end of an association, and what is known of its scanner."""

from dataclasses import dataclass, field

from resources.worklist_preferences import Preferences
from smart_auth.access import Access


@dataclass(frozen=True, slots=True)
class Station:
    """A registered scanner (Device) as the bridge needs it. `location`: the reference to its room."""

    device: str = ""
    modalities: tuple[str, ...] = ()
    location: str = ""
    preferences: Preferences = field(default_factory=Preferences)


UNREGISTERED = Station()


@dataclass(frozen=True, slots=True)
class Caller:
    """A scanner, or another system, by its AE title and address."""

    ae_title: str
    address: str
    station: Station = UNREGISTERED

    @property
    def access(self) -> Access:
        """A scanner's rights: what its SOP classes do, no more. The audit trail shows its AE title."""
        return Access.system(f"dicom:{self.ae_title}")
