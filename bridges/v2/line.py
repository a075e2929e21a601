"""The connection to where an Endpoint points now."""

from bridges.v2.ack import Ack
from bridges.v2.destination import ack_timeout, address, enhanced
from bridges.v2.mllp_client import MllpClient
from bridges.v2.partner import headers
from fhir_server.registry import Resource
from fhir_server.tls_files import TlsFiles


class Line:
    """`client` is None where the Endpoint points nowhere; `problem` says why."""

    def __init__(self, connect_timeout: float, ack_timeout_: float, tls: TlsFiles) -> None:
        self.client: MllpClient | None = None
        self.problem = ""
        self.late: list[Ack] = []  # refusals of messages that were accepted before
        self.application = False  # whether the application's acknowledgement is waited for
        self._connect_timeout = connect_timeout
        self._ack_timeout = ack_timeout_
        self._tls = tls
        self._to: tuple[str, int, bool, float, str] | None = None

    async def to(self, endpoint: Resource | None) -> None:
        """Follow the Endpoint, which people may change at any time."""
        place = None
        try:
            if endpoint is not None:
                said = headers(endpoint)
                self.application = enhanced(endpoint)
                patience = ack_timeout(endpoint, self._ack_timeout)
                place = (*address(endpoint), patience, said.get("tls-server-name", ""))
            self.problem = "" if endpoint else "the Endpoint is not active"
        except ValueError as error:
            self.problem = str(error)
        if place == self._to:
            return
        await self.close()
        self._to = place
        if place is not None:
            host, port, secure, patience, name = place
            self.client = MllpClient(
                host,
                port,
                ssl=self._tls.client if secure else None,
                server_name=name,
                connect_timeout=self._connect_timeout,
                ack_timeout=patience,
                late=self.late.append,
            )

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()
        self.client, self._to = None, None
