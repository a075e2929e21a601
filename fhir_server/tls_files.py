"""TLS for MLLP and DICOM (RIS_MLLP_TLS_*, RIS_DICOM_TLS_*; IHE ITI TF-2 3.19, "STX: TLS 1.2 Floor using BCP195", RFC 9325)."""

import ssl as tls
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from fhir_server.settings import Settings

log = structlog.get_logger()

# RFC 9325 4.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
_LOOK: Final = 1.0  # seconds between two looks at the files


class TlsError(Exception):
    """The files can't be used. The text names the setting, and nothing secret."""


@dataclass(slots=True)
class TlsFiles:
    """Certificate (with its chain), key and certificate authority as PEM files, and the contexts made of them.

    With `ca`, whoever connects must show a certificate of it (mutual TLS), and receivers are judged by it instead of by what the
    system trusts. Files that are replaced are taken for the next connection; ones that can't be used are logged, and those before
    them stay in use. `setting` is what the settings of these files begin with.
    """

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    setting: str = "RIS_MLLP_TLS"
    _server: tls.SSLContext | None = None
    _stamp: tuple[tuple[int, int], ...] = ()
    _looked: float = field(default=float("-inf"))

    @property
    def listens(self) -> bool:
        """Whether the listener speaks TLS."""
        return self.cert is not None

    def check(self) -> None:
        """TlsError when the files can't be used, or one is missing."""
        if self.cert is None:
            if self.key or self.ca:
                raise TlsError(f"{self.setting}_{'KEY' if self.key else 'CA'} needs {self.setting}_CERT")
            return
        self._server, self._stamp = self._made(), self._stamps()

    def server(self) -> tls.SSLContext:
        """The context of the listener, as the files are now."""
        if self._server is None:
            self.check()
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            self._look()
        assert self._server is not None
        return self._server

    def client(self) -> tls.SSLContext:
        """A context for connections to receivers: our certificate is shown to those that ask for it. TlsError as for `check`."""
        try:
            context = tls.create_default_context(cafile=str(self.ca) if self.ca else None)
            _strict(context)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError):
            raise TlsError(f"{self.setting}_CERT, _KEY and _CA can't be read as they are now") from None
        return context

    def _look(self) -> None:
        try:
            if (stamp := self._stamps()) != self._stamp:
                self._server, self._stamp = self._made(), stamp
                log.info("the TLS certificate was read again")
        except (OSError, TlsError) as error:
            log.error("the TLS files can't be read again", reason=type(error).__name__)  # noqa: TRY400 - the old ones serve on

    def _made(self) -> tls.SSLContext:
        context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
        _strict(context)
        try:
            assert self.cert is not None
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError):
            text = f"{self.setting}_CERT and {self.setting}_KEY are no certificate with its key, as PEM, without a password"
            raise TlsError(text) from None
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except OSError:
                raise TlsError(f"{self.setting}_CA holds no certificates, as PEM") from None
            context.verify_mode = tls.CERT_REQUIRED
        return context

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        stats = [file.stat() for file in (self.cert, self.key, self.ca) if file is not None]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


def dicom_tls(settings: Settings) -> TlsFiles:
    """Those of RIS_DICOM_TLS_*."""
    return TlsFiles(settings.dicom_tls_cert, settings.dicom_tls_key, settings.dicom_tls_ca, "RIS_DICOM_TLS")


def mllp_tls(settings: Settings) -> TlsFiles:
    """Those of RIS_MLLP_TLS_*."""
    return TlsFiles(settings.mllp_tls_cert, settings.mllp_tls_key, settings.mllp_tls_ca)


def _strict(context: tls.SSLContext) -> None:
    context.minimum_version = tls.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)


def _no_password() -> str:
    """Nobody is there to type one."""
    return ""
