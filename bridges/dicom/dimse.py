"""What a DIMSE service answers when it can't do what is asked."""

from bridges.dicom.upper_layer.services import Response

SUCCESS = 0x0000
# PS3.7 Annex C
NO_SUCH_ATTRIBUTE = 0x0105
INVALID_ATTRIBUTE_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_SOP_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
RESOURCE_LIMITATION = 0x0213
# Warnings: done, but not all of it as it was sent.
ATTRIBUTE_LIST_ERROR = 0x0107
ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
# PS3.4 C.4.1.1.4, K.4.1.1.4
OUT_OF_RESOURCES = 0xA700
CANCELLED = 0xFE00
PENDING = 0xFF00
PENDING_WITH_UNSUPPORTED_KEYS = 0xFF01
IDENTIFIER_DOES_NOT_MATCH = 0xA900
# PS3.4 C.4.1.1.4 leaves Cxxx to us.
UNABLE_TO_MATCH = 0xC001
UNABLE_TO_PROCESS = 0xC002
# PS3.4 F.7.2.2.2: the Error ID that goes with PROCESSING_FAILURE.
MAY_NO_LONGER_BE_UPDATED = 0xA710

_COMMENT_LENGTH = 64  # Error Comment is an LO


class Refused(Exception):
    """A request that is not done. `comment` is for the people at the scanner and carries no patient data."""

    def __init__(self, status: int, comment: str, error_id: int | None = None) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment.encode("ascii", "replace").decode().replace("\\", "/")[:_COMMENT_LENGTH]
        self.error_id = error_id

    def response(self) -> Response:
        """The response, with Error Comment and Error ID (PS3.7 C)."""
        return Response(self.status, self.comment, self.error_id)
