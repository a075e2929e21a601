"""`fhir-ris client` and `fhir-ris keys`: what an operator types, and what then is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey
from typer.testing import CliRunner, Result

from fhir_server.cli import app
from smart_auth.clients import Client, Clients
from tests.conftest import RunWithDb


@pytest.fixture
def settings(mongodb_uri: str, database_name: str, tmp_path: Path) -> dict[str, str]:
    return {
        "RIS_MONGODB_URI": mongodb_uri,
        "RIS_MONGODB_DATABASE": database_name,
        "RIS_DATA_DIR": str(tmp_path),
        "COLUMNS": "200",
    }


def command(settings: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=settings)


def registered(run_with_db: RunWithDb[Any], client_id: str) -> Client:
    async def get(db: Any) -> Client | None:
        return await Clients(db).get(client_id)

    client: Client | None = run_with_db(get)
    assert client is not None
    return client


def test_an_app_is_public_with_redirect_uris_only(run_with_db: RunWithDb[Any], settings: dict[str, str]) -> None:
    uris = ("--redirect-uri", "https://app.example/cb", "--redirect-uri", "http://127.0.0.1/cb")
    more = ("--launch-uri", "https://app.example/launch", "--name", "Example viewer")
    done = command(settings, "client", "add", "viewer", "--scope", "launch openid patient/*.rs", *uris, *more)
    assert (done.exit_code, done.output) == (0, "client viewer registered: app, public\n")
    client = registered(run_with_db, "viewer")
    assert client.redirect_uris == ("https://app.example/cb", "http://127.0.0.1/cb")
    assert (client.launch_uri, client.title, client.auth_method) == ("https://app.example/launch", "Example viewer", "none")
    shown = command(settings, "client", "list").output
    assert "app, public" in shown
    assert "https://app.example/cb" in shown


def test_a_secret_is_made_and_shown_once(run_with_db: RunWithDb[Any], settings: dict[str, str]) -> None:
    done = command(settings, "client", "add", "app", "--scope", "openid", "--redirect-uri", "https://app.example/cb", "--secret")
    found = re.search(r"not shown again: (\S+)\n", done.output)
    assert found
    assert registered(run_with_db, "app").has_secret(found[1])
    assert found[1] not in command(settings, "client", "list").output


def test_an_app_may_prove_itself_by_a_key_and_have_id_tokens_its_way(
    run_with_db: RunWithDb[Any], settings: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [ECKey.generate_key("P-384", {"kid": "one"}).as_dict(private=False)]}))
    given = ("--redirect-uri", "https://app.example/cb", "--jwks", str(file), "--id-token-alg", "ES384")
    assert command(settings, "client", "add", "app", "--scope", "openid system/*.rs", *given).exit_code == 0
    client = registered(run_with_db, "app")
    assert (client.auth_method, client.id_token_alg) == ("private_key_jwt", "ES384")
    assert client.grant_types == {"authorization_code", "refresh_token", "client_credentials"}


def test_a_backend_service_may_publish_its_keys(run_with_db: RunWithDb[Any], settings: dict[str, str]) -> None:
    given = ("--scope", "system/*.rs urn:fhir-ris:launch", "--jwks-uri", "https://ehr.example/jwks")
    done = command(settings, "client", "add", "ehr", *given)
    assert "backend service, with a key" in done.output
    assert registered(run_with_db, "ehr").jwks_uri == "https://ehr.example/jwks"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--scope", "system/*.rs"], "needs its public keys"),
        (["--scope", "openid", "--redirect-uri", "http://app.example/cb"], "must be https"),
        (["--scope", "openid", "--secret"], "needs a redirect URI"),
        (["--scope", "openid", "--redirect-uri", "https://a.example/", "--id-token-alg", "none"], "RS256 or ES384"),
        (["--scope", "system/*.rs", "--redirect-uri", "https://a.example/"], "with a key"),
        (["--scope", "system/*.rs", "--jwks-uri", "http://a.example/jwks"], "must begin with https://"),
    ],
)
def test_what_cannot_be_registered_is_said_in_one_line(settings: dict[str, str], given: list[str], said: str) -> None:
    done = command(settings, "client", "add", "x", *given)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.splitlines()) == 1


def test_keys_are_listed_and_rotated(settings: dict[str, str]) -> None:
    first = command(settings, "keys", "list").output
    assert (first.count("active"), first.count("published")) == (2, 0)
    second = command(settings, "keys", "rotate").output
    assert (second.count("active"), second.count("published")) == (2, 2)
    third = command(settings, "keys", "rotate", "--at-once").output
    assert (third.count("active"), third.count("published"), third.count("retired")) == (2, 0, 0)
