"""S-28 and Inferno's OpenID group: id tokens, the keys that sign them, and their rotation."""

import hashlib
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from joserfc.util import urlsafe_b64encode

from smart_auth.key_file import KeyFileError
from smart_auth.signing_keys import SigningKeys, signing_key_file
from tests.conftest import RunWithDb
from tests.smart_app import SmartApp, department

Claims = dict[str, Any]


@pytest.fixture(scope="module")
def server(mongodb_uri: str) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri)
    department(running)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def user(server: SmartApp) -> str:
    return server.user()


def verified(server: SmartApp, id_token: str) -> tuple[Claims, Claims]:
    """Header and claims of an id token, its signature verified with the published keys."""
    found = httpx.get(f"{server.base}/.well-known/openid-configuration").json()
    keys = KeySet.import_key_set(httpx.get(found["jwks_uri"]).json())
    token = jwt.decode(id_token, keys, algorithms=found["id_token_signing_alg_values_supported"])
    return token.header, token.claims


@pytest.mark.parametrize("alg", ["RS256", "ES384"])
def test_an_id_token_says_who_logged_in(server: SmartApp, user: str, alg: str) -> None:
    app = server.client(id_token_alg=alg)
    nonce = uuid4().hex
    body = app.tokens(server.browser(user), "openid fhirUser", request={"nonce": nonce})
    header, claims = verified(server, body["id_token"])
    now = time.time()
    assert header["alg"] == alg
    assert header["kid"]
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (server.base, app.id, nonce)
    assert 0 < len(claims["sub"]) <= 255
    assert now < claims["exp"] <= now + 3600
    assert now - 60 < claims["iat"] <= now + 1
    assert claims["auth_time"] <= claims["iat"]
    assert claims["amr"] == ["pwd"]
    half = hashlib.new(f"sha{alg[2:]}", body["access_token"].encode()).digest()[: int(alg[2:]) // 16]
    assert claims["at_hash"] == urlsafe_b64encode(half).decode()


def test_fhir_user_is_a_resource_that_the_app_can_read_even_with_patient_scopes_only(server: SmartApp, user: str) -> None:
    body = server.client().tokens(server.browser(user), "openid fhirUser launch/patient patient/Patient.rs")
    _, claims = verified(server, body["id_token"])
    assert claims["fhirUser"] == f"{server.fhir}/Practitioner/rita"
    found = httpx.get(claims["fhirUser"], headers={"Authorization": f"Bearer {body['access_token']}"})
    assert (found.status_code, found.json()["resourceType"]) == (200, "Practitioner")


def test_without_the_scopes_there_is_neither_id_token_nor_fhir_user(server: SmartApp, user: str) -> None:
    app = server.client()
    assert "id_token" not in app.tokens(server.browser(user), "user/*.rs")
    body = app.tokens(server.browser(user), "openid")
    assert not {"fhirUser", "profile"} & set(verified(server, body["id_token"])[1])


def test_a_user_has_the_same_subject_for_every_app_and_no_other_user_has(server: SmartApp, user: str) -> None:
    subjects = []
    for who in (user, user, server.user()):
        body = server.client().tokens(server.browser(who), "openid")
        subjects.append(verified(server, body["id_token"])[1]["sub"])
    assert subjects[0] == subjects[1] != subjects[2]


def test_s28_a_new_key_is_published_before_it_signs_and_an_old_one_while_its_tokens_live(server: SmartApp, user: str) -> None:
    app = server.client()

    def kid() -> str:
        token = app.tokens(server.browser(user), "openid")["id_token"]
        return str(verified(server, token)[0]["kid"])

    def age(hours: float) -> None:
        """Let time pass for the keys."""

        async def shift() -> None:
            async for key in server.db["oauth_keys"].find():
                moved = {"active_from": key["active_from"] - timedelta(hours=hours)}
                await server.db["oauth_keys"].update_one({"_id": key["_id"]}, {"$set": moved})

        server.run(shift())

    def published() -> set[str]:
        return {key["kid"] for key in httpx.get(f"{server.base}/oauth/jwks").json()["keys"]}

    keys = SigningKeys(server.db, signing_key_file(server.data_dir))
    first, before = kid(), published()
    old_token = app.tokens(server.browser(user), "openid")["id_token"]
    server.run(keys.rotate())
    new = published() - before
    assert len(new) == 2
    assert kid() == first
    age(1.01)
    second = kid()
    assert second in new
    assert verified(server, old_token)[0]["kid"] == first
    age(1.01)
    assert first in published()
    age(1)
    assert first not in published()
    server.run(keys.rotate(at_once=True))
    third = kid()
    assert third not in {first, second}
    assert second not in published()


def test_keys_are_made_once_however_many_processes_need_them(run_with_db: RunWithDb[Any], tmp_path: Path) -> None:
    async def scenario(db: Any) -> None:
        import asyncio

        found = await asyncio.gather(*(SigningKeys(db, signing_key_file(tmp_path)).jwks() for _ in range(4)))
        assert len({str(keys) for keys in found}) == 1
        assert len(found[0]["keys"]) == 2

    run_with_db(scenario)


def test_private_keys_are_sealed_with_a_key_that_only_the_owner_can_read(run_with_db: RunWithDb[Any], tmp_path: Path) -> None:
    async def scenario(db: Any) -> None:
        signer = await SigningKeys(db, signing_key_file(tmp_path)).signer("ES384")
        secret = signer.as_dict(private=True)["d"]
        stored = str([document async for document in db["oauth_keys"].find()])
        assert signer.thumbprint() in stored
        assert str(secret) not in stored
        file = tmp_path / "keys" / "signing.key"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        other = signing_key_file(tmp_path / "elsewhere")
        with pytest.raises(KeyFileError, match="is not the key that this was sealed with"):
            await SigningKeys(db, other).signer("ES384")

    run_with_db(scenario)


def test_a_kid_is_the_thumbprint_of_its_key(server: SmartApp) -> None:
    keys = httpx.get(f"{server.base}/oauth/jwks").json()
    for key in KeySet.import_key_set(keys).keys:
        assert key.kid == key.thumbprint()


def test_how_somebody_logged_in_is_kept_from_an_earlier_moment(server: SmartApp, user: str) -> None:
    browser = server.browser(user)
    app = server.client()
    first = verified(server, app.tokens(browser, "openid")["id_token"])[1]["auth_time"]
    assert datetime.fromtimestamp(first, UTC) <= datetime.now(UTC)
    assert verified(server, app.tokens(browser, "openid")["id_token"])[1]["auth_time"] == first


def test_a_refresh_gives_an_id_token_of_the_same_login(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), "openid fhirUser offline_access", request={"nonce": uuid4().hex})
    first = verified(server, body["id_token"])[1]
    time.sleep(1.1)
    renewed = app.refresh(body["refresh_token"]).json()
    again = verified(server, renewed["id_token"])[1]
    same = ("iss", "sub", "aud", "auth_time", "amr", "fhirUser")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert again["iat"] > first["iat"]
    assert "nonce" not in again
    half = hashlib.sha256(renewed["access_token"].encode()).digest()[:16]
    assert again["at_hash"] == urlsafe_b64encode(half).decode()


def test_a_refresh_without_openid_gives_none(server: SmartApp, user: str) -> None:
    app = server.client()
    plain = app.tokens(server.browser(user), "launch/patient patient/*.rs offline_access")
    assert "id_token" not in app.refresh(plain["refresh_token"]).json()
    body = app.tokens(server.browser(user), "openid launch/patient patient/*.rs offline_access")
    assert "id_token" not in app.refresh(body["refresh_token"], scope="launch/patient patient/*.rs").json()


def test_a_lost_signing_key_does_not_keep_apps_from_refreshing(server: SmartApp, user: str) -> None:
    app = server.client()
    body = app.tokens(server.browser(user), "openid offline_access")
    server.run(SigningKeys(server.db, signing_key_file(server.data_dir)).rotate(at_once=True))
    keys = server.db["oauth_keys"]
    sealed = {d["_id"]["alg"]: d for d in server.run(keys.find({"revoked": False}).to_list())}
    server.run(keys.update_many({"revoked": False}, {"$set": {"sealed": b"with another key"}}))
    renewed = app.refresh(body["refresh_token"])
    for document in sealed.values():
        server.run(keys.replace_one({"_id": document["_id"]}, document))
    assert renewed.status_code == 200, renewed.text
    assert "id_token" not in renewed.json()
    assert server.read(renewed.json()["access_token"], "Practitioner/rita").status_code in {200, 403}
    assert "id_token" in app.refresh(renewed.json()["refresh_token"]).json()
