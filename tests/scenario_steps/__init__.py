"""What the lines of scenarios do: through HL7 v2, DICOM and FHIR, as the persons and systems that they name would."""

from tests.scenario_steps import charges, examination, orders, outcome, reading, safety, scheduling
from tests.scenario_steps.catalogue import furnish
from tests.scenario_steps.staff import engage
from tests.scenario_steps.world import World

__all__ = ["World", "charges", "engage", "examination", "furnish", "orders", "outcome", "reading", "safety", "scheduling"]
