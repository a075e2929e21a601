"""Settings come from the environment and ris.toml; what is wrong or unknown is named, one line each."""

import os
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from fhir_server.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def bare_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in [name for name in os.environ if name.startswith("RIS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**overrides: object) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(**overrides)
    assert all("\n" not in line for line in refused.value.lines)
    return refused.value.lines


def test_without_any_setting_everything_stays_on_loopback_and_under_the_working_directory(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.mongodb_uri is None
    assert settings.mongodb_database == "ris"
    assert settings.data_dir == tmp_path / "ris-data"
    assert (settings.http_host, settings.http_port, settings.http_workers) == ("127.0.0.1", 8080, 1)
    assert settings.base_url == "http://127.0.0.1:8080"
    assert (settings.mllp_host, settings.mllp_port) == ("127.0.0.1", 2575)
    assert (settings.dicom_host, settings.dicom_port, settings.ae_title) == ("127.0.0.1", 11112, "FHIR_RIS")
    assert settings.uid_root == "2.25"
    assert settings.zone == ZoneInfo("UTC")
    assert settings.referential_integrity == "strict"
    assert settings.log_format == ("console" if sys.stderr.isatty() else "json")


def test_the_environment_wins_over_the_file_and_a_caller_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ris.toml").write_text('http_port = 8081\nmllp_port = 2576\ndicom_port = 11113\ntime_zone = "Europe/Amsterdam"\n')
    monkeypatch.setenv("RIS_HTTP_PORT", "8082")
    monkeypatch.setenv("RIS_MLLP_PORT", "2577")
    settings = load_settings(http_port=8083)
    assert (settings.http_port, settings.mllp_port, settings.dicom_port) == (8083, 2577, 11113)
    assert settings.zone == ZoneInfo("Europe/Amsterdam")
    assert settings.base_url == "http://127.0.0.1:8083"


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_MONGODB_URI", "")
    assert load_settings().mongodb_uri is None


def test_every_wrong_setting_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_HTTP_PORT", "eighty")
    monkeypatch.setenv("RIS_TIME_ZONE", "Europe/Nowhere")
    (tmp_path / "ris.toml").write_text('referential_integrity = "loose"\n')
    assert refusal() == [
        "RIS_HTTP_PORT (http_port): must be a port, 1 to 65535, not 'eighty'",
        "RIS_TIME_ZONE (time_zone): must be an IANA time zone, such as Europe/Amsterdam, not 'Europe/Nowhere'",
        "RIS_REFERENTIAL_INTEGRITY (referential_integrity): must be strict or lenient, not 'loose'",
    ]


def test_unknown_settings_are_refused_and_the_likely_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_HTP_PORT", "8080")
    (tmp_path / "ris.toml").write_text('ae_titel = "X"\ncolour = "blue"\n')
    assert sorted(refusal()) == [
        "RIS_HTP_PORT: there is no such setting; did you mean RIS_HTTP_PORT?",
        "ris.toml: ae_titel: there is no such setting; did you mean ae_title?",
        "ris.toml: colour: there is no such setting",
    ]


def test_what_the_supervisor_tells_its_workers_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_HTTP_FD", "7")
    load_settings()


def test_a_file_that_is_no_toml_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ris.toml").write_text("http_port: 8080\n")
    (line,) = refusal()
    assert line.startswith("ris.toml: not valid TOML")
    (tmp_path / "ris.toml").write_bytes(b'ae_title = "\xff"\n')
    assert refusal() == ["ris.toml: not valid TOML: it is not in UTF-8"]


def test_a_password_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_MONGODB_URI", "mongo://ris:geheim@db.example")
    monkeypatch.setenv("RIS_BASE_URL", "https://ris:geheim@ris.example")
    lines = refusal()
    assert [line.split()[0] for line in lines] == ["RIS_MONGODB_URI", "RIS_BASE_URL"]
    assert "geheim" not in "".join(lines)
    monkeypatch.setenv("RIS_MONGODB_URI", "mongodb://ris:geheim@db.example")
    monkeypatch.delenv("RIS_BASE_URL")
    assert "geheim" not in repr(load_settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_port", "0"),
        ("http_port", "65536"),
        ("http_port", True),
        ("http_workers", "0"),
        ("mllp_host", "two words"),
        ("mongodb_database", "a.b"),
        ("base_url", "ris.example"),
        ("base_url", "https://ris.example/?x=1"),
        ("base_url", "https://ris.example:99999"),
        ("ae_title", "SEVENTEEN_LETTERS"),
        ("ae_title", "BACK\\SLASH"),
        ("ae_title", "   "),
        ("ae_title", "RÖNTGEN"),
        ("uid_root", "2"),
        ("uid_root", "1.02.3"),
        ("uid_root", "1.40"),
        ("uid_root", "3.1"),
        ("uid_root", "1.2.826.0.1.3680043.10.999999"),
        ("time_zone", "../etc/passwd"),
        ("time_zone", "America"),
        ("log_format", "xml"),
        ("viewer_url", "https://viewer.example/"),
        ("viewer_url", "https://viewer.example/{study}/{study}"),
        ("viewer_url", "https://viewer.example/?study={study}&for={patient}"),
        ("viewer_url", "https://{study}.example/"),
        ("viewer_url", "https://viewer.example:80{study}"),
        ("viewer_url", "javascript:alert('{study}')"),
        ("viewer_url", "https://someone@viewer.example/{study}"),
        ("viewer_url", "//viewer.example/{study}"),
    ],
)
def test_what_can_not_work_is_refused(name: str, value: object) -> None:
    (line,) = refusal(**{name: value})
    assert line.startswith(f"RIS_{name.upper()} ({name}): must be ")


@pytest.mark.parametrize(
    ("name", "value", "taken_as"),
    [
        ("base_url", "https://ris.example/hospital/", "https://ris.example/hospital"),
        ("ae_title", " RIS 1 ", "RIS 1"),
        ("uid_root", "1.2.826.0.1.3680043.999", "1.2.826.0.1.3680043.999"),
        ("uid_root", "2.999", "2.999"),
        ("viewer_url", "https://viewer.example/?study={study}", "https://viewer.example/?study={study}"),
        ("viewer_url", "http://10.0.0.7:3000/viewer/{study}#first", "http://10.0.0.7:3000/viewer/{study}#first"),
        ("mongodb_uri", "mongodb://a.example,b.example/?replicaSet=rs0", "mongodb://a.example,b.example/?replicaSet=rs0"),
    ],
)
def test_what_can_work_is_taken(name: str, value: str, taken_as: str) -> None:
    assert getattr(load_settings(**{name: value}), name) == taken_as


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("ris.example", "http://ris.example:8080"),
    ],
)
def test_the_base_url_follows_the_host(host: str, base_url: str) -> None:
    assert load_settings(http_host=host).base_url == base_url


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (line,) = refusal(data_dir="file")
    assert "RIS_DATA_DIR" in line


def test_settings_do_not_change_after_the_start() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.http_port = 1


@pytest.mark.parametrize("name", ["mllp_tls_cert", "mllp_tls_key", "mllp_tls_ca"])
def test_a_tls_file_is_one_that_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "server.pem").write_text("PEM")
    assert getattr(load_settings(**{name: tmp_path / "server.pem"}), name) == (tmp_path / "server.pem").resolve()
    for wrong in (tmp_path / "nowhere.pem", tmp_path):
        with pytest.raises(SettingsError) as caught:
            load_settings(**{name: wrong})
        (line,) = caught.value.lines
        assert line.startswith(f"RIS_{name.upper()} ({name}): must be a file with ")
