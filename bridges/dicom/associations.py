"""The listening side of pynetdicom, made fit for production: nothing delayed, input bounded, errors contained."""

import socket
import socketserver
import sys
from typing import Any

import structlog
from pydicom import config as pydicom_config
from pynetdicom import _config as pynetdicom_config
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

log = structlog.get_logger()

MAX_PDU = 128 * 1024  # what we offer to receive, bytes
_MAX_PDU_READ = 1024 * 1024  # a peer that sends longer PDUs than were negotiated is cut off here
MAX_MESSAGE = 16 * 1024 * 1024  # bytes of one DIMSE message, command and data set


def configure_library() -> None:
    """Settings of pynetdicom and pydicom for the whole process: no log text is built that nobody reads or that names patients."""
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    # What scanners send is checked where it is used. The warnings of the library quote values.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


class BoundedSocket(AssociationSocket):
    """A socket that collects no more than a PDU or a message may have, whatever the peer announces or sends."""

    # Bytes since the last whole DIMSE message.
    received = 0

    def recv(self, nr_bytes: int) -> bytearray:
        self.received += nr_bytes
        if nr_bytes > _MAX_PDU_READ or self.received > MAX_MESSAGE:
            log.warning("dicom.message_too_long", pdu_bytes=nr_bytes, message_bytes=self.received)
            raise OSError("the message is longer than we take")
        return super().recv(nr_bytes)


class BoundedRequestHandler(RequestHandler):
    """Makes associations with bounded sockets."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        # The library's own constructor has announced the connection: a second socket object would do so twice.
        association.dul.socket.__class__ = BoundedSocket
        return association


class AssociationListener(ThreadedAssociationServer):
    """Accepts connections, each association in threads of its own."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        # Nagle's algorithm would hold the last packet of each answer back for 20 to 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that stops within a PDU would hold its threads for ever.
        connection.settimeout(self.ae.network_timeout)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An association that can't even begin ends alone."""
        del request
        log.warning("dicom.connection_failed", address=str(client_address[0]), reason=type(sys.exception()).__name__)

    def shutdown(self) -> None:
        """Stop accepting, and close the port."""
        socketserver.TCPServer.shutdown(self)
        self.server_close()
