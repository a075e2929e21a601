"""S-18 and S-19 for clients that publish their keys at a URL: what is fetched, how often, and what never is."""

import asyncio
import datetime as dt
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from fhir_server.public_hosts import is_public
from smart_auth.jwks_fetcher import JwksFetcher
from tests.smart_app import SmartApp
from tests.test_smart_token_endpoint import ASSERTION_TYPE, assertion

KEYS = {kid: ECKey.generate_key("P-384", {"kid": kid}) for kid in ("one", "two")}


class KeyServer:
    """An app's web server on this machine, with a key set."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.served = ["one"]
        self.headers: dict[str, str] = {}
        self.status = 200
        self.body: bytes | None = None
        self.slow = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                keys = {"keys": [KEYS[kid].as_dict(private=False) for kid in outer.served]}
                body = json.dumps(keys).encode() if outer.body is None else outer.body
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    for at in range(0, len(body), 1024):
                        time.sleep(outer.slow)
                        self.wfile.write(body[at : at + 1024])
                except OSError:
                    pass

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/jwks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    running = KeyServer()
    yield running
    running.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fetcher(keys: KeyServer, clock: Clock | None = None) -> JwksFetcher:
    return JwksFetcher(loopback=[f"127.0.0.1:{keys.port}"], clock=clock or Clock())


def kids(fetcher: JwksFetcher, url: str, kid: str = "one") -> list[str]:
    return [key["kid"] for key in asyncio.run(fetcher.keys(url, kid))]


def test_keys_are_fetched_once_and_kept_as_long_as_the_client_allows(keys: KeyServer) -> None:
    keys.headers = {"Cache-Control": "public, max-age=100"}
    clock = Clock()
    ours = fetcher(keys, clock)
    assert kids(ours, keys.url) == kids(ours, keys.url) == ["one"]
    clock.now += 99
    assert kids(ours, keys.url) == ["one"]
    assert len(keys.asked) == 1
    clock.now += 2
    assert kids(ours, keys.url) == ["one"]
    assert len(keys.asked) == 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("max-age=99999999", 3600), ("max-age=0", 10), ("no-store", 10), ("no-cache, max-age=60", 10), ("", 300)],
)
def test_how_long_is_bounded(keys: KeyServer, header: str, seconds: int) -> None:
    keys.headers = {"Cache-Control": header} if header else {}
    clock = Clock()
    ours = fetcher(keys, clock)
    kids(ours, keys.url)
    clock.now += seconds - 1
    kids(ours, keys.url)
    assert len(keys.asked) == 1
    clock.now += 2
    kids(ours, keys.url)
    assert len(keys.asked) == 2


def test_a_look_for_a_new_kid_that_fails_leaves_the_known_keys_as_good_as_they_were(keys: KeyServer) -> None:
    keys.headers = {"Cache-Control": "max-age=100"}
    clock = Clock()
    ours = fetcher(keys, clock)
    assert kids(ours, keys.url) == ["one"]
    keys.status = 500
    for _ in range(3):
        assert kids(ours, keys.url, "two") == kids(ours, keys.url) == ["one"]
    assert len(keys.asked) == 2
    clock.now += 101
    assert kids(ours, keys.url) == []


def test_an_unknown_kid_is_looked_for_once_more_and_then_not_at_each_request(keys: KeyServer) -> None:
    ours = fetcher(keys)
    assert kids(ours, keys.url) == ["one"]
    keys.served = ["one", "two"]
    assert kids(ours, keys.url, "two") == ["one", "two"]
    assert len(keys.asked) == 2
    for _ in range(5):
        kids(ours, keys.url, "three")
    assert len(keys.asked) <= 3


def test_a_failure_is_remembered_for_half_a_minute(keys: KeyServer) -> None:
    clock = Clock()
    ours = fetcher(keys, clock)
    keys.status = 500
    for _ in range(3):
        assert kids(ours, keys.url) == []
    assert len(keys.asked) == 1
    keys.status = 200
    clock.now += 31
    assert kids(ours, keys.url) == ["one"]


def test_requests_at_the_same_time_share_one_fetch(keys: KeyServer) -> None:
    keys.slow = 0.05
    ours = fetcher(keys)

    async def many() -> None:
        assert all(await asyncio.gather(*(ours.keys(keys.url, "one") for _ in range(10))))

    asyncio.run(many())
    assert len(keys.asked) == 1


def test_keys_of_other_kinds_beside_ours_are_left_out(keys: KeyServer) -> None:
    mine = KEYS["one"].as_dict(private=False)
    others: list[dict[str, Any]] = [{"kty": "OKP", "kid": "x", "crv": "Ed25519", "x": "AA"}, {"kty": "oct", "k": "AA"}, {}]
    keys.body = json.dumps({"keys": [*others, mine]}).encode()
    assert kids(fetcher(keys), keys.url) == ["one"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_s19_redirects_are_not_followed(keys: KeyServer, status: int) -> None:
    other = KeyServer()
    keys.status, keys.headers = status, {"Location": other.url}
    try:
        ours = JwksFetcher(loopback=[f"127.0.0.1:{port}" for port in (keys.port, other.port)])
        assert kids(ours, keys.url) == []
        assert other.asked == []
    finally:
        other.stop()


def test_s19_a_large_body_is_not_read(keys: KeyServer) -> None:
    keys.body = b"x" * 50_000_000
    assert kids(fetcher(keys), keys.url) == []


def test_s19_a_slow_body_is_not_waited_for(keys: KeyServer) -> None:
    keys.slow, keys.body = 1.0, b"x" * 60_000
    began = time.monotonic()
    assert kids(fetcher(keys), keys.url) == []
    assert time.monotonic() - began < 30  # it would take a minute


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"keys": 7}', b"\xff", b"[" * 60_000])
def test_s19_what_is_no_key_set_is_none(keys: KeyServer, body: bytes) -> None:
    keys.body = body
    assert kids(fetcher(keys), keys.url) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_s19_this_machine_is_never_asked(keys: KeyServer, scheme: str, host: str) -> None:
    assert kids(JwksFetcher(), f"{scheme}://{host}:{keys.port}/jwks") == []
    assert keys.asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://app.example/jwks", "gopher://app.example", "jwks", "https://"])
def test_s19_only_https_is_fetched(url: str) -> None:
    assert kids(JwksFetcher(), url) == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("192.0.2.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("2002:5db8:d822::", True),
        ("::7f00:1", False),
        ("::127.0.0.1", False),
        ("4000::1", False),
        ("fec0::1", False),
        ("192.0.0.8", False),
        ("192.0.0.9", False),
        ("192.0.0.10", False),
        ("::ffff:192.0.0.9", False),
    ],
)
def test_s19_which_addresses_are_in_the_public_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_certificate_must_be_that_of_the_host_though_the_address_is_asked(tmp_path: Path) -> None:
    for names, good in ((["localhost"], True), (["other.example"], False)):
        served, trusted = _certificate(tmp_path / names[0], names)
        keys = KeyServer(served)
        try:
            ours = JwksFetcher(loopback=[f"localhost:{keys.port}"], verify=trusted)
            assert kids(ours, f"https://localhost:{keys.port}/jwks") == (["one"] if good else [])
        finally:
            keys.stop()


def _certificate(directory: Path, names: list[str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "invented")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = directory / "cert.pem", directory / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*form))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, secret)
    return served, ssl.create_default_context(cafile=str(certificate))


# With a whole server


@pytest.fixture(scope="module")
def published() -> Iterator[KeyServer]:
    running = KeyServer()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server(mongodb_uri: str, published: KeyServer) -> Iterator[SmartApp]:
    running = SmartApp(mongodb_uri, fetcher=JwksFetcher(loopback=[f"127.0.0.1:{published.port}"]))
    yield running
    running.stop()


def backend(server: SmartApp, url: str) -> str:
    """A backend client with this JWKS URL, which the registry itself would refuse: it is on this machine."""
    name = f"backend-{uuid4().hex[:8]}"

    async def add() -> None:
        await server.clients.add(name, "system/*.rs", jwks_uri="https://app.example/jwks")
        await server.db["oauth_clients"].update_one({"_id": name}, {"$set": {"jwks_uri": url}})

    server.run(add())
    return name


def ask(server: SmartApp, client: str, kid: str, **header: Any) -> httpx.Response:
    signed = assertion(client, KEYS[kid], header=header, aud=f"{server.base}/oauth/token")
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    proof = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    return httpx.post(f"{server.base}/oauth/token", data=form | proof)


def test_a_client_with_a_jwks_url_gets_a_token_and_may_change_its_key(server: SmartApp, published: KeyServer) -> None:
    published.served = ["one"]
    client = backend(server, f"{published.url}/{uuid4().hex}")
    assert ask(server, client, "one").status_code == 200
    assert ask(server, client, "one").json()["expires_in"] == 300
    published.served = ["two"]
    assert ask(server, client, "two").status_code == 200
    assert ask(server, client, "one").json()["error"] == "invalid_client"


def test_s18_jku_must_be_the_registered_url(server: SmartApp, published: KeyServer) -> None:
    published.served = ["one"]
    url = f"{published.url}/{uuid4().hex}"
    client = backend(server, url)
    assert ask(server, client, "one", jku=url).status_code == 200
    for foreign in ("https://evil.example/jwks", f"{url}?", f"{url}/"):
        assert ask(server, client, "one", jku=foreign).json()["error"] == "invalid_client"


def test_s18_two_keys_with_the_same_kid_are_none(server: SmartApp, published: KeyServer) -> None:
    published.body = json.dumps({"keys": [KEYS["one"].as_dict(private=False)] * 2}).encode()
    try:
        assert ask(server, backend(server, f"{published.url}/{uuid4().hex}"), "one").json()["error"] == "invalid_client"
    finally:
        published.body = None


def test_s19_a_client_whose_keys_cannot_be_had_is_refused_like_an_unknown_one(server: SmartApp) -> None:
    refused = ask(server, backend(server, "https://127.0.0.1:1/jwks"), "one")
    assert refused.json() == ask(server, "nobody", "one").json()
