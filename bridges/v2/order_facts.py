"""What the messages about an order tell: read once in the transaction, rendered for each destination."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridges.v2.destination import Destination
from bridges.v2.message import Seg
from fhir_server.elements import codes
from fhir_server.references import Target, target
from fhir_server.registry import Resource
from fhir_server.unit_of_work import UnitOfWork
from resources import imaging_study, service_request, terms

# A message for a destination under a control id.
Render = Callable[[Destination, str], list[Seg]]


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """An order with whom and what it is about.

    procedure: the requested procedure that the message is about; people: Practitioners by their reference; study_uid: where asked
    has_others: whether the order has other requested procedures, of other codes
    """

    order: Resource
    procedure: Resource | None
    patient: Resource
    encounter: Resource | None
    requester: Resource | None
    people: Mapping[str, Resource] = field(default_factory=dict)
    study_uid: str = ""
    has_others: bool = False

    @property
    def code(self) -> Resource | None:
        """What is examined: what was ordered, or of an order of several procedures this one. Results are told apart by it."""
        found: Resource | None = (self.procedure if self.procedure and self.has_others else self.order).get("code")
        return found

    @property
    def about(self) -> tuple[str, ...]:
        """What an outbox message is found by."""
        found = [f"ServiceRequest/{self.order['id']}"]
        if self.procedure is not None:
            found.append(f"ServiceRequest/{self.procedure['id']}")
        return tuple(found)


async def facts_of(unit: UnitOfWork, request: Resource | None, *, study: bool = False) -> OrderFacts | None:
    """The facts of an order, from it or one of its requested procedures; None where there is no order or patient.

    `study`: with the Study Instance UID of the requested procedure
    """
    order = await service_request.order_of(unit, request)
    if order is None or request is None:
        return None
    patient = await unit.get(order["subject"])
    if patient is None:
        return None
    procedure = request if service_request.is_procedure(request) else None
    encounter = await unit.get(order.get("encounter"))
    requester = await unit.get(order.get("requester"))
    if requester is not None and requester["resourceType"] == "PractitionerRole":
        requester = await unit.get(requester.get("practitioner"))
    uid = await study_uid(unit, procedure) if study and procedure else ""
    has_others = (
        procedure is not None
        and procedure.get("code") != order.get("code")
        and len(await service_request.procedures_of(unit, order["id"])) > 1
    )
    return OrderFacts(order, procedure, patient, encounter, requester, await _people(unit, encounter), uid, has_others)


async def _people(unit: UnitOfWork, encounter: Resource | None) -> dict[str, Resource]:
    """The Practitioners who take part in a visit."""
    wanted: list[Target] = []
    for participant in (encounter or {}).get("participant", ()):
        to = target(participant.get("individual"))
        if to is not None and to.type == "Practitioner":
            wanted.append(to)
    found = [(str(to), await unit.read(to.type, to.id)) for to in wanted]
    return {reference: person for reference, person in found if person is not None}


async def study_uid(unit: UnitOfWork, procedure: Resource) -> str:
    """The Study Instance UID of a requested procedure, empty where it has none."""
    for change in unit.changes():  # made in this transaction, with the order: no search is needed
        if change.type == "ImagingStudy" and change.after is not None and _is_of(change.after, procedure):
            return imaging_study.study_uid(change.after) or ""
    studies = await unit.search("ImagingStudy", basedon=f"ServiceRequest/{procedure['id']}")
    return next((uid for s in studies if (uid := imaging_study.study_uid(s))), "")


def _is_of(study: Resource, procedure: Resource) -> bool:
    return any(r.get("reference") == f"ServiceRequest/{procedure['id']}" for r in study.get("basedOn", ()))


def modality(step: Resource | None) -> str:
    """The DICOM modality of a step, empty where it has none."""
    found = [codes(i.get("valueCodeableConcept"), terms.DCM) for i in (step or {}).get("input", ())]
    return next((c[0] for c in found if c), "")
