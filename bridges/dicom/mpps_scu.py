"""Sending a performed step to another application entity: MPPS N-CREATE and N-SET as SCU (PS3.4 annex F, PS3.7 10.1)."""

from dataclasses import dataclass
from typing import Final

from bridges.dicom import dicom_json, dimse, mpps_service
from bridges.dicom.dicom_json import Attributes
from bridges.dicom.upper_layer import command
from bridges.dicom.upper_layer.requestor import CallFailed, Remote, associate, comment, status

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


async def send(remote: Remote, operation: str, uid: str, data: Attributes, seconds: float) -> Answer:
    """Send one message in an association of its own. NotSent when there is no answer."""
    answer: Answer | None = None
    try:
        async with associate(remote, [mpps_service.SOP_CLASS], timeout=seconds) as client:
            encoded = dicom_json.encode(data, explicit=client.context(mpps_service.SOP_CLASS).explicit)
            ask = client.n_create if operation == "N-CREATE" else client.n_set
            response = await ask(mpps_service.SOP_CLASS, uid, encoded)
            told = response.command
            error_id = command.number(told, command.ERROR_ID) if command.ERROR_ID in told else None
            answer = Answer(status(response), comment(response), error_id)
    except CallFailed as error:
        if answer is None:
            raise NotSent(str(error)) from None
    assert answer is not None
    return answer
