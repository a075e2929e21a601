"""The settings: environment variables `RIS_...`, or the same keys in lower case in `ris.toml` in the working directory.

The environment wins over the file. A wrong or unknown setting stops the start, with one line each (see `SettingsError`).
"""

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PREFIX = "RIS_"
FILE = Path("ris.toml")
INTERNAL = {"RIS_HTTP_FD", "RIS_SUPERVISOR"}  # from the supervisor to its workers
MAY_HOLD_SECRETS = {"mongodb_uri", "base_url"}
UID_SUFFIX_LENGTH = 40  # a dot and a UUID as a decimal number, PS3.5 B.2
UID_LENGTH = 64  # PS3.5 9.1
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (these are looked for, not bound)


class SettingsError(Exception):
    """Wrong or unknown settings: `lines` has one line for each, naming the setting and what it may be, never a secret."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _no_bool(value: Any) -> Any:
    """TOML's true and false are no numbers, though Python takes them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")  # noqa: TRY004 (pydantic turns a ValueError into a refusal, not a TypeError)
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise ValueError("not a host")
    return value


def _mongodb_uri(value: str) -> str:
    if not value.startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("not a MongoDB URI")
    return value


def _base_url(value: str) -> str:
    url = urlsplit(value)
    port_is_valid = url.port is None or url.port > 0
    if (
        url.scheme not in {"http", "https"}
        or not url.hostname
        or "@" in url.netloc
        or re.search(r"[?#\s]", value)
        or not port_is_valid
    ):
        raise ValueError("not a base URL")
    return value.rstrip("/")


def _viewer_url(value: str) -> str:
    """A template of addresses with one {study}, in no place where it would name another server."""
    url = urlsplit(value.replace("{study}", "1.2"))
    before = value.partition("{study}")[0]
    if value.count("{study}") != 1 or re.search(r"[\s{}<>\"]", value.replace("{study}", "")):
        raise ValueError("not a template")
    if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc or "/" not in before.partition("://")[2]:
        raise ValueError("not a template")
    return value


def _data_dir(value: Path) -> Path:
    path = value.expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise ValueError("not a directory")
    return path


def _file(value: Path) -> Path:
    path = value.expanduser().resolve()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("not a file")
    return path


def _ae_title(value: str) -> str:
    """An application entity title (PS3.5 6.2, AE): spaces around it mean nothing, and there must be something else."""
    title = value.strip(" ")
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", title):
        raise ValueError("not an AE title")
    return title


def _uid_root(value: str) -> str:
    """An object identifier to hang UIDs under (PS3.5 9.1): no leading zeros, first arc 0 to 2, second below 40 under 0 and 1."""
    if not re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+", value) or len(value) > UID_LENGTH - UID_SUFFIX_LENGTH:
        raise ValueError("not a UID root")
    first, second = value.split(".")[:2]
    if first != "2" and int(second) >= 40:
        raise ValueError("not a UID root")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, OSError, ValueError):
        raise ValueError("not a time zone") from None
    return value


def _default_base_url(given: dict[str, Any]) -> str:
    host = given.get("http_host", "")
    host = WILDCARD_HOSTS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{given.get('http_port')}"


def _default_log_format() -> Literal["console", "json"]:
    return "console" if sys.stderr.isatty() else "json"


Host = Annotated[str, AfterValidator(_host), Field(description="must be a host name or an IP address to listen on")]
Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=65535, description="must be a port, 1 to 65535")]
PemFile = Annotated[Path, AfterValidator(_file)]


class Settings(BaseSettings):
    """What can be set, with its default. Each field's description says what is allowed. Make it with `load_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, toml_file=FILE, frozen=True, extra="forbid")

    mongodb_uri: Annotated[str, AfterValidator(_mongodb_uri)] | None = Field(
        default=None, repr=False, description="must be mongodb://... or mongodb+srv://... of a replica set or a sharded cluster"
    )
    mongodb_database: str = Field(
        default="ris",
        pattern=r"^[A-Za-z0-9_-]{1,63}$",
        description="must be a database name: 1 to 63 of the letters A-Z and a-z, digits, _ and -",
    )
    data_dir: Annotated[Path, AfterValidator(_data_dir)] = Field(
        default=Path("ris-data"), description="must be a directory, or a place where one can be made"
    )
    http_host: Host = "127.0.0.1"
    http_port: Port = 8080
    http_workers: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=1, ge=1, le=256, description="must be a number of processes, 1 to 256"
    )
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        default_factory=_default_base_url, description="must be http://... or https://..., without user, query and fragment"
    )
    mllp_host: Host = "127.0.0.1"
    mllp_port: Port = 2575
    mllp_tls_cert: PemFile | None = Field(default=None, description="must be a file with a certificate and its chain, as PEM")
    mllp_tls_key: PemFile | None = Field(default=None, description="must be a file with the certificate's key, as PEM")
    mllp_tls_ca: PemFile | None = Field(default=None, description="must be a file with certificates of authorities, as PEM")
    dicom_host: Host = "127.0.0.1"
    dicom_port: Port = 11112
    ae_title: Annotated[str, AfterValidator(_ae_title)] = Field(
        default="FHIR_RIS", description="must be an AE title: 1 to 16 printable ASCII characters, no backslash"
    )
    sign_second_factor_minutes: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=0,
        ge=0,
        le=720,
        description="must be minutes since a login with a second factor that still sign reports, 0 to 720",
    )
    dicom_tls_port: Port = 2762
    dicom_tls_cert: PemFile | None = Field(default=None, description="must be a file with a certificate and its chain, as PEM")
    dicom_tls_key: PemFile | None = Field(default=None, description="must be a file with the certificate's key, as PEM")
    dicom_tls_ca: PemFile | None = Field(default=None, description="must be a file with certificates of authorities, as PEM")
    dicom_max_associations: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=400, ge=1, le=10_000, description="must be a number of associations, 1 to 10000"
    )
    dicom_idle_seconds: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=60, ge=5, le=3600, description="must be seconds without a message that end an association, 5 to 3600"
    )
    dicom_association_seconds: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=3600, ge=10, le=86_400, description="must be seconds that an association may last, 10 to 86400"
    )
    dicom_last_worklist_seconds: Annotated[int, BeforeValidator(_no_bool)] = Field(
        default=300, ge=0, le=3600, description="must be seconds, 0 to 3600"
    )
    dicomweb_credentials: Annotated[Path, AfterValidator(_file)] | None = Field(
        default=None, description="must be a file with what a PACS knows us by, as JSON"
    )
    payer_credentials: Annotated[Path, AfterValidator(_file)] | None = Field(
        default=None, description="must be a file with what payers know us by, as JSON"
    )
    viewer_url: Annotated[str, AfterValidator(_viewer_url)] | None = Field(
        default=None, description="must be http://... or https://... with {study} once, where the Study Instance UID goes"
    )
    uid_root: Annotated[str, AfterValidator(_uid_root)] = Field(
        default="2.25",
        description=f"must be an object identifier such as 2.25, of at most {UID_LENGTH - UID_SUFFIX_LENGTH} characters",
    )
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="must be an IANA time zone, such as Europe/Amsterdam"
    )
    referential_integrity: Literal["strict", "lenient"] = Field(default="strict", description="must be strict or lenient")
    log_format: Literal["console", "json"] = Field(default_factory=_default_log_format, description="must be console or json")

    @property
    def zone(self) -> ZoneInfo:
        """The department's time zone."""
        return ZoneInfo(self.time_zone)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins: what the caller gives, the environment, the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (by field name, as from a command line) win over environment and file.

    Raises `SettingsError`.
    """
    lines = list(_unknown_variables())
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        # A default that follows from a wrong setting is no second problem.
        problems = [problem for problem in error.errors() if problem["type"] != "default_factory_not_called"]
        lines += [_line(problem["loc"], problem["type"], problem["input"]) for problem in problems]
    except tomllib.TOMLDecodeError as error:
        lines.append(f"{FILE}: not valid TOML: {error}")
    except UnicodeDecodeError:
        lines.append(f"{FILE}: not valid TOML: it is not in UTF-8")
    except OSError as error:
        lines.append(f"{FILE}: can't be read: {error.strerror}")
    else:
        if not lines:
            return settings
    raise SettingsError(lines)


def _unknown_variables() -> Iterator[str]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted(os.environ):
        if variable.upper().startswith(PREFIX) and variable.upper() not in known | INTERNAL:
            yield f"{variable}: there is no such setting{_meant(variable.upper(), known)}"


def _meant(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""


def _line(location: tuple[int | str, ...], kind: str, value: Any) -> str:
    """One problem as one line for the operator."""
    name = str(location[0]) if location else ""
    if kind == "extra_forbidden":
        return f"{FILE}: {name}: there is no such setting{_meant(name, set(Settings.model_fields))}"
    allowed = Settings.model_fields[name].description
    got = "" if name in MAY_HOLD_SECRETS else f", not {str(value)[:80]!r}"
    return f"{PREFIX}{name.upper()} ({name}): {allowed}{got}"
