"""Calls others: an association as SCU, for performed steps that are passed on, and to test a connection (C-ECHO)."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from bridges.dicom.upper_layer import command
from bridges.dicom.upper_layer.acceptor import IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION, MAX_LENGTH
from bridges.dicom.upper_layer.association import Association, Times
from bridges.dicom.upper_layer.command import Command
from bridges.dicom.upper_layer.items import UserInformation
from bridges.dicom.upper_layer.messages import Message
from bridges.dicom.upper_layer.pdu import AssociateRequest, ProposedContext
from bridges.dicom.upper_layer.provider import AssociationEnded
from bridges.dicom.upper_layer.services import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Context

VERIFICATION: Final = "1.2.840.10008.1.1"
_RELEASE_SECONDS = 5.0


class CallFailed(Exception):
    """The peer can't be reached, refuses, or ends the association. The text is one line for an operator.

    permanent: the peer has said that it will not change its mind (A-ASSOCIATE-RJ, result 1)
    """

    def __init__(self, text: str, *, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Remote:
    """Whom we call, and as whom."""

    host: str
    port: int
    called: str
    calling: str
    tls: ssl.SSLContext | None = None


class Client:
    """An established association with the peer as SCP. Each call raises CallFailed when there is no response in time."""

    def __init__(self, association: Association, timeout: float) -> None:
        self.association = association
        self._timeout = timeout

    def context(self, sop_class: str) -> Context:
        """The context of a SOP class: `explicit` says how its data sets are encoded. CallFailed when the peer refused it."""
        found = self.association.context_of(sop_class)
        if found is None:
            raise CallFailed("the peer does not support the SOP class", permanent=True)
        return found

    async def echo(self) -> int:
        """C-ECHO; the status."""
        response = await self._ask(
            VERIFICATION, {command.COMMAND_FIELD: command.C_ECHO, command.AFFECTED_SOP_CLASS: VERIFICATION}
        )
        return status(response)

    async def n_create(self, sop_class: str, instance: str, data: bytes) -> Message:
        """N-CREATE; the response."""
        told: Command = {
            command.COMMAND_FIELD: command.N_CREATE,
            command.AFFECTED_SOP_CLASS: sop_class,
            command.AFFECTED_SOP_INSTANCE: instance,
        }
        return await self._ask(sop_class, told, data)

    async def n_set(self, sop_class: str, instance: str, data: bytes) -> Message:
        """N-SET; the response."""
        told: Command = {
            command.COMMAND_FIELD: command.N_SET,
            command.REQUESTED_SOP_CLASS: sop_class,
            command.REQUESTED_SOP_INSTANCE: instance,
        }
        return await self._ask(sop_class, told, data)

    async def c_find(self, sop_class: str, identifier: bytes) -> AsyncIterator[Message]:
        """C-FIND; the responses as they come, the last of which isn't pending."""
        told: Command = {
            command.COMMAND_FIELD: command.C_FIND,
            command.AFFECTED_SOP_CLASS: sop_class,
            command.PRIORITY: 0,
        }
        try:
            async with asyncio.timeout(self._timeout):
                async for message in self.association.responses(self.context(sop_class), told, identifier):
                    yield message
        except (AssociationEnded, TimeoutError) as error:
            raise CallFailed(self._why(error)) from None

    async def _ask(self, sop_class: str, told: Command, data: bytes | None = None) -> Message:
        try:
            return await self.association.request(self.context(sop_class), told, data, timeout=self._timeout)
        except (AssociationEnded, TimeoutError) as error:
            raise CallFailed(self._why(error)) from None

    def _why(self, error: Exception) -> str:
        return "no response in time" if isinstance(error, TimeoutError) else self.association.end_reason or "it has ended"


def status(response: Message) -> int:
    """The status of a response."""
    return command.number(response.command, command.STATUS)


def comment(response: Message) -> str:
    """The Error Comment of a response."""
    return command.text(response.command, command.ERROR_COMMENT)


@contextlib.asynccontextmanager
async def associate(remote: Remote, sop_classes: Iterable[str], *, timeout: float = 30.0) -> AsyncIterator[Client]:
    """An association for these SOP classes, released at the end, aborted when the caller fails. CallFailed when there is none.

    timeout: seconds for the connection, for the association, and for each response
    """
    syntaxes = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    contexts = tuple(ProposedContext(2 * n + 1, s, syntaxes) for n, s in enumerate(dict.fromkeys(sop_classes)))
    user = UserInformation(MAX_LENGTH, IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION)
    request = AssociateRequest(remote.called, remote.calling, contexts, user)
    association = Association({}, Times(negotiation=timeout, idle=2 * timeout), request=request)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(lambda: association.provider, remote.host, remote.port, ssl=remote.tls)
            await association.established()
    except TimeoutError:
        association.abort()
        raise CallFailed("no answer in time") from None
    except OSError as error:
        raise CallFailed(f"no connection: {error.strerror or type(error).__name__}") from None
    except AssociationEnded:
        rejection = association.rejection
        raise CallFailed(association.end_reason, permanent=rejection is not None and rejection.result == 1) from None
    try:
        yield Client(association, timeout)
    except BaseException:
        association.abort()
        raise
    await association.release(_RELEASE_SECONDS)
