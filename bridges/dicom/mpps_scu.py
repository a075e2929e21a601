"""Sending a performed step to another application entity: MPPS N-CREATE and N-SET as SCU (PS3.4 annex F, PS3.7 10.1)."""

import io
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at run time from a table

from bridges.dicom import dicom_json, dimse
from bridges.dicom.dicom_endpoints import Place
from bridges.dicom.dicom_json import Attributes

_WARNINGS: Final = frozenset({0x0001, dimse.ATTRIBUTE_LIST_ERROR, dimse.ATTRIBUTE_VALUE_OUT_OF_RANGE})


class NotSent(Exception):
    """The other side can't be reached, or hasn't answered. Nobody knows whether it has the message."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of the response."""

    status: int
    comment: str = ""
    error_id: int | None = None

    @property
    def positive(self) -> bool:
        return self.status == dimse.SUCCESS or self.status in _WARNINGS


def send(place: Place, own_title: str, operation: str, uid: str, data: Attributes, seconds: float) -> Answer:
    """Send one message in an association of its own; blocks. NotSent when there is no answer."""
    entity = AE(ae_title=own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    entity.connection_timeout = seconds
    entity.add_requested_context(ModalityPerformedProcedureStep, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = entity.associate(place.host, place.port, ae_title=place.ae_title)
    if not association.is_established:
        raise NotSent("it rejects the association" if association.is_rejected else "it can't be reached")
    try:
        if not association.accepted_contexts:
            raise NotSent("it doesn't take performed procedure steps")
        sent = association.send_n_create if operation == "N-CREATE" else association.send_n_set
        status, _ = sent(_dataset(data), ModalityPerformedProcedureStep, uid)
    finally:
        if association.is_established:
            association.release()
    if "Status" not in status:
        raise NotSent("it has not answered")
    error_id = int(status.ErrorID) if "ErrorID" in status else None
    return Answer(int(status.Status), str(status.get("ErrorComment", "")), error_id)


def _dataset(data: Attributes) -> Dataset:
    encoded = dicom_json.encode(data, explicit=True)
    return read_dataset(io.BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)
