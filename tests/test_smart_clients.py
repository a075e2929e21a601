"""Registering clients: whose keys and scopes are good enough."""

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from smart_auth.clients import ClientError, Clients, new_secret
from tests.conftest import RunWithDb

Jwk = dict[str, Any]
EC = ECKey.generate_key("P-384", {"kid": "ec"})


def public(key: ECKey | RSAKey | OKPKey | OctKey, **members: Any) -> Jwk:
    return {**key.as_dict(private=False), **members}


def refusal(run_with_db: RunWithDb[str], *keys: Any, client_id: str = "reader", scope: str = "system/*.rs", **rest: Any) -> str:
    """Why the registration is refused; nothing of it is stored."""

    async def scenario(db: Any) -> str:
        with pytest.raises(ClientError) as refused:
            await Clients(db).add(client_id, scope, jwks={"keys": list(keys)}, **rest)
        assert await Clients(db).list() == []
        return str(refused.value)

    return run_with_db(scenario)


def test_a_client_is_registered_listed_and_removed(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        clients = Clients(db)
        await clients.add("viewer", "system/ImagingStudy.rs", jwks=json.dumps({"keys": [public(EC)]}))
        await clients.add("ehr", " system/*.cruds  system/*.read ", jwks={"keys": [public(EC)]})
        assert [client.client_id for client in await clients.list()] == ["ehr", "viewer"]
        found = await clients.get("ehr")
        assert found is not None
        assert found.scope == "system/*.cruds system/*.read"
        assert await clients.remove("ehr")
        assert not await clients.remove("ehr")
        assert await clients.get("ehr") is None

    run_with_db(scenario)


def test_an_id_that_is_taken_is_refused_and_the_first_client_stays(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        clients = Clients(db)
        await clients.add("ehr", "system/*.rs", jwks={"keys": [public(EC)]})
        with pytest.raises(ClientError, match="there is a client 'ehr' already"):
            await clients.add("ehr", "system/*.cruds", jwks={"keys": [public(EC)]})
        found = await clients.get("ehr")
        assert found is not None
        assert found.scope == "system/*.rs"

    run_with_db(scenario)


def test_only_the_public_members_of_a_key_are_stored(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        await Clients(db).add("ehr", "system/*.rs", jwks={"keys": [public(EC, comment="kept by nobody")]})
        stored = await db.oauth_clients.find_one({"_id": "ehr"})
        assert set(stored["keys"][0]) == {"kty", "kid", "crv", "x", "y"}

    run_with_db(scenario)


@pytest.mark.parametrize("key", [EC, RSAKey.generate_key(2048, {"kid": "rsa"})], ids=["EC", "RSA"])
def test_a_private_key_is_refused(run_with_db: RunWithDb[Any], key: ECKey | RSAKey) -> None:
    reason = refusal(run_with_db, key.as_dict(private=True))
    assert "is a private key: register public keys only" in reason
    assert str(key.as_dict(private=True)["d"]) not in reason


def test_a_symmetric_key_is_refused(run_with_db: RunWithDb[Any]) -> None:
    assert "is a symmetric key" in refusal(run_with_db, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"})


def test_two_keys_with_equal_kid_are_refused(run_with_db: RunWithDb[Any]) -> None:
    other = ECKey.generate_key("P-384", {"kid": "ec"})
    assert "two keys of the JWK Set have the kid 'ec'" in refusal(run_with_db, public(EC), public(other))


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_a_short_rsa_key_is_refused(run_with_db: RunWithDb[Any]) -> None:
    short = public(RSAKey.generate_key(1024), kid="short")
    assert "1024 bits; 2048 to 8192" in refusal(run_with_db, short)


def test_a_set_without_a_key_for_rs384_or_es384_is_refused(run_with_db: RunWithDb[Any]) -> None:
    p256 = public(ECKey.generate_key("P-256"), kid="p256")
    for_rs256 = public(RSAKey.generate_key(2048), kid="rsa", alg="RS256")
    for_encryption = public(EC, use="enc")
    for key in (p256, for_rs256, for_encryption):
        assert "no key of the JWK Set can be used for RS384 (RSA) or ES384" in refusal(run_with_db, key)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (public(OKPKey.generate_key("Ed25519"), kid="okp"), "has the key type 'OKP'"),
        (public(ECKey.generate_key("P-521"), kid="p521"), "is on the curve 'P-521'"),
        ({name: value for name, value in public(EC).items() if name != "kid"}, "has no kid"),
        (public(EC, x=public(EC)["y"]), "is not a valid EC key"),
        (public(EC, x="!"), "is not a valid EC key"),
        ("a string", "is not a JSON object"),
    ],
    ids=["OKP", "P-521", "no kid", "not on the curve", "not base64", "not an object"],
)
def test_a_key_that_is_none_for_us_is_refused(run_with_db: RunWithDb[Any], key: Any, reason: str) -> None:
    assert reason in refusal(run_with_db, key)


@pytest.mark.parametrize("jwks", ["-----BEGIN PUBLIC KEY-----", "[]", '{"keys": {}}', '{"keys": []}', "[" * 60_000, b"\xff"])
def test_what_is_no_key_set_is_refused(run_with_db: RunWithDb[Any], jwks: str | bytes) -> None:
    async def scenario(db: Any) -> None:
        with pytest.raises(ClientError, match="JWK Set"):
            await Clients(db).add("ehr", "system/*.rs", jwks=jwks)

    run_with_db(scenario)


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("", "at least one scope"),
        ("system/Observaton.rs", "'system/Observaton.rs' is not a SMART scope"),
        ("system/*.rs user/*.rs", "'user/*.rs' is for apps that people use"),
        ("openid system/*.rs", "'openid' is for apps that people use"),
        ("system/Patient.rs?no-parameter=true", "is not a SMART scope"),
        ("system/*.rs?status=active", "is not a SMART scope"),
    ],
)
def test_a_scope_that_could_not_be_granted_is_refused(run_with_db: RunWithDb[Any], scope: str, reason: str) -> None:
    assert reason in refusal(run_with_db, public(EC), scope=scope)


@pytest.mark.parametrize("client_id", ["", "-x", "a b", 'a"b', "x" * 129, "é"])
def test_an_odd_client_id_is_refused(run_with_db: RunWithDb[Any], client_id: str) -> None:
    assert "a client id is" in refusal(run_with_db, public(EC), client_id=client_id)


@pytest.mark.parametrize("given", [{"secret": "x"}, {"launch_uri": "https://app.example"}])
def test_a_secret_or_a_launch_uri_makes_an_app_which_needs_a_redirect_uri(run_with_db: RunWithDb[Any], given: Any) -> None:
    async def scenario(db: Any) -> None:
        with pytest.raises(ClientError, match="needs a redirect URI"):
            await Clients(db).add("app", "openid", **given)

    run_with_db(scenario)


@pytest.mark.parametrize(
    "given",
    [
        {"secret": "x", "jwks": {"keys": [public(EC)]}},
        {"secret": "x", "jwks_uri": "https://app.example/jwks"},
        {"jwks": {"keys": [public(EC)]}, "jwks_uri": "https://app.example/jwks"},
    ],
)
def test_a_client_proves_itself_in_one_way(run_with_db: RunWithDb[Any], given: Any) -> None:
    async def scenario(db: Any) -> None:
        with pytest.raises(ClientError, match="in one way"):
            await Clients(db).add("app", "openid", redirect_uris=["https://app.example/cb"], **given)

    run_with_db(scenario)


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/cb",
        "https:///cb",
        "app.example/cb",
        "javascript:alert(1)",
        "myapp://cb",
        "https://app.example/cb#part",
        "https://user@app.example/cb",
        "https://app.example/a/../cb",
        "https://app.example/a/%2e%2E/cb",
        "https://app.example:0/cb",
        "https://app.example:99999/cb",
        "https://app.example/c b",
        "https://app.example/*",
        "https://app.example/" + "x" * 2000,
    ],
)
def test_a_redirect_uri_must_be_https_or_loopback_and_whole(run_with_db: RunWithDb[Any], uri: str) -> None:
    async def scenario(db: Any) -> None:
        if uri.endswith("*"):  # a star is a character like any other: it stands for nothing else
            client = await Clients(db).add("app", "openid", redirect_uris=[uri])
            assert not client.may_return_to("https://app.example/anything")
            return
        with pytest.raises(ClientError, match="redirect URI"):
            await Clients(db).add("app", "openid", redirect_uris=[uri])

    run_with_db(scenario)


@pytest.mark.parametrize(
    ("registered", "asked", "public_client", "allowed"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", True, True),
        ("http://127.0.0.1:8000/cb", "http://127.0.0.1:49152/cb", True, True),
        ("http://[::1]/cb", "http://[::1]:49152/cb", True, True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb", False, False),
        ("http://localhost/cb", "http://localhost:49152/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152/cb/", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:49152@evil.example/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.2/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65535/cb", True, True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:0/cb", True, False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:\u0664\u0662/cb", True, False),
        ("https://app.example/cb", "https://app.example:8443/cb", True, False),
    ],
)
def test_the_port_is_free_for_native_apps_on_a_loopback_address_only(
    run_with_db: RunWithDb[Any], registered: str, asked: str, public_client: bool, allowed: bool
) -> None:
    async def scenario(db: Any) -> None:
        secret = None if public_client else new_secret()
        client = await Clients(db).add("app", "openid", redirect_uris=[registered], secret=secret)
        assert client.may_return_to(registered)
        assert client.may_return_to(asked) is allowed

    run_with_db(scenario)


def test_a_secret_is_stored_as_a_hash_and_compared_by_it(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        secret = new_secret()
        await Clients(db).add("app", "openid", redirect_uris=["https://app.example/cb"], secret=secret)
        assert secret not in str(await db.oauth_clients.find_one({"_id": "app"}))
        client = await Clients(db).get("app")
        assert client is not None
        assert client.has_secret(secret)
        assert not client.has_secret("")
        assert not client.has_secret(secret[:-1])

    run_with_db(scenario)


def test_the_origins_of_redirect_uris_are_known_as_browsers_write_them(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        uris = ["https://App.Example/cb", "https://app.example:443/x", "https://app.example:8443/", "http://127.0.0.1:3000/"]
        await Clients(db).add("app", "openid", redirect_uris=uris)
        assert sorted(await Clients(db).origins()) == ["http://127.0.0.1:3000", "https://app.example", "https://app.example:8443"]

    run_with_db(scenario)


def test_a_jwks_url_must_be_https(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        for url in ("http://app.example/jwks", "http://127.0.0.1/jwks", "file:///etc/passwd", "ftp://app.example/jwks"):
            with pytest.raises(ClientError, match="JWKS URL"):
                await Clients(db).add("backend", "system/*.rs", jwks_uri=url)

    run_with_db(scenario)


def test_a_client_without_keys_is_refused(run_with_db: RunWithDb[Any]) -> None:
    async def scenario(db: Any) -> None:
        with pytest.raises(ClientError, match="needs its public keys"):
            await Clients(db).add("ehr", "system/*.rs")

    run_with_db(scenario)
