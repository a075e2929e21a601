"""TLS in and out with certificates made here: who is let in, who is not, and what happens when certificates are renewed."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bridges.v2.delivery import Delivery
from bridges.v2.mllp import MllpServer
from fhir_server.app import assemble
from fhir_server.settings import load_settings
from fhir_server.start_error import StartError
from fhir_server.tls_files import TlsError, TlsFiles
from tests.department import Department, code, condition, text, unused, v2
from tests.test_delivery import QUICK, Line, until
from tests.test_v2_mllp import ack
from tests.v2_door import calling, door, registered

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, as one PEM file, and the fingerprint that a partner's Endpoint names."""

    pem: Path
    fingerprint: str


class Authority:
    """A certificate authority of this test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        now = dt.datetime.now(dt.UTC)
        own = _builder(self._name, self._name, self._key, now - DAY, now + 10 * DAY)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = folder / f"{unused('ca')}.pem"
        self.pem.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, expired: bool = False, host: str = "127.0.0.1") -> Identity:
        """A certificate for this common name, good as client and as server `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        start = now - 3 * DAY if expired else now - DAY
        alternative: x509.GeneralName = x509.DNSName(host)
        if host[0].isdigit():
            alternative = x509.IPAddress(ipaddress.ip_address(host))
        certificate = (
            _builder(_name(name), self._name, key, start, start + 2 * DAY)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = self.folder / f"{unused('id')}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return Identity(pem, certificate.fingerprint(hashes.SHA256()).hex())

    def trusting(self, identity: Identity | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority and shows `identity`."""
        context = ssl.create_default_context(cafile=self.pem)
        if identity:
            context.load_cert_chain(identity.pem)
        return context


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _builder(subject, issuer, key, start, end) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), start, end)


def adt() -> bytes:
    head = "MSH|^~\\&|HIS|HOSP|RIS|RAD|20260907081500||ADT^A04|{id}|P|2.5.1||||||UNICODE UTF-8"
    return v2(head, f"PID|1||{unused('P')}^^^HOSP||Muster^Mara||19700131|F")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "Example CA")


async def cut_off(server: MllpServer, context: ssl.SSLContext | None) -> bool:
    """Whether a connection ends without an answer. In TLS 1.3 a client hears of it with its first read."""
    try:
        async with calling(server, context=context) as caller:
            await caller.ask(adt())
    except OSError:
        return True
    return False


# In


def test_with_an_authority_only_who_shows_a_certificate_of_it_is_let_in(ris, authority):
    other = Authority(authority.folder, "Other CA")
    files = TlsFiles(authority.issue("ris").pem, None, authority.pem)

    async def scenario():
        async with door(ris, files) as server:
            async with calling(server, context=authority.trusting(authority.issue("his"))) as caller:
                assert code(await caller.ask(adt())) == "AA"
            before = await ris.db["AuditEvent"].count_documents({"resource.subtype.code": "connection"})
            assert await cut_off(server, authority.trusting())
            assert await cut_off(server, authority.trusting(other.issue("his")))
            assert await cut_off(server, authority.trusting(authority.issue("his", expired=True)))
            assert await cut_off(server, None)
            events = ris.db["AuditEvent"].find({"resource.subtype.code": "connection"})
            told = [e["resource"]["outcomeDesc"] async for e in events]
            assert (before, told) == (0, ["connection refused: tls"])  # once a minute and address

    ris.run(scenario())


def test_what_is_older_than_tls_1_2_or_has_no_forward_secrecy_is_not_spoken(ris, authority):
    files = TlsFiles(authority.issue("ris").pem)

    async def scenario():
        context = authority.trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with door(ris, files) as server:
            async with calling(server, context=context) as caller:
                assert code(await caller.ask(adt())) == "AA"
                assert caller.writer.get_extra_info("cipher")[0].startswith("ECDHE-")
            context.set_ciphers("AES256-SHA:AES128-SHA256:ECDHE-ECDSA-AES128-SHA")
            assert await cut_off(server, context)

    ris.run(scenario())


@pytest.mark.parametrize("said", ["fingerprint", "colons", "name", "another", "name of another"])
def test_a_partner_is_known_by_its_certificate(ris, authority, said):
    own, other = authority.issue("his.example.org"), authority.issue("ehr.example.org")
    pairs = [own.fingerprint[i : i + 2].upper() for i in range(0, 64, 2)]
    names = {
        "fingerprint": f"{other.fingerprint}, {own.fingerprint}",
        "colons": ":".join(pairs),
        "name": "his.example.org",
        "another": other.fingerprint,
        "name of another": "ehr.example.org",
    }
    files = TlsFiles(authority.issue("ris").pem, None, authority.pem)

    async def scenario():
        async with registered(ris, "accept-application: HIS", f"accept-certificate: {names[said]}"), door(ris, files) as server:
            async with calling(server, context=authority.trusting(own)) as caller:
                ack = await caller.ask(adt())
            if "another" in said:
                assert (code(ack), condition(ack)) == ("AR", "103")
                assert text(ack) == "this sender doesn't show the certificate that was agreed"
            else:
                assert code(ack) == "AA"

    ris.run(scenario())


def test_sockets_that_never_begin_tls_keep_nobody_out(ris, authority):
    async def scenario():
        files = TlsFiles(authority.issue("ris").pem, None, authority.pem)
        async with door(ris, files) as server:
            server.max_of_one = 5
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
            async with calling(server, context=authority.trusting(authority.issue("his"))) as caller:
                assert code(await caller.ask(adt())) == "AA"
                assert server.connections <= 6
            for _, writer in silent:
                writer.close()

    ris.run(scenario())


def test_a_partner_that_is_known_by_its_certificate_can_t_come_without_tls(ris, authority):
    async def scenario():
        agreed = registered(ris, "accept-application: HIS", "accept-certificate: his.example.org")
        async with agreed, door(ris) as server, calling(server) as caller:
            assert code(await caller.ask(adt())) == "AR"

    ris.run(scenario())


def test_a_renewed_certificate_is_shown_to_the_next_that_connects_and_a_broken_one_is_not_taken(ris, authority):
    pem = authority.folder / "renewed.pem"
    pem.write_bytes(authority.issue("old").pem.read_bytes())
    files = TlsFiles(pem)

    def shown(caller) -> str:
        return caller.writer.get_extra_info("peercert")["subject"][0][0][1]

    async def scenario():
        async with door(ris, files) as server:
            async with calling(server, context=authority.trusting()) as first:
                assert shown(first) == "old"
                pem.write_bytes(authority.issue("new").pem.read_bytes())
                files._looked = float("-inf")  # a second later
                async with calling(server, context=authority.trusting()) as second:
                    assert shown(second) == "new"
                assert code(await first.ask(adt())) == "AA"
            pem.write_bytes(b"nothing")
            files._looked = float("-inf")
            async with calling(server, context=authority.trusting()) as third:
                assert shown(third) == "new"

    ris.run(scenario())


@pytest.mark.parametrize("wrong", ["key without certificate", "authority without certificate", "no PEM", "no authority"])
def test_files_that_can_t_be_used_stop_the_start_with_the_setting_s_name(authority, wrong):
    own, junk = authority.issue("ris").pem, authority.folder / "junk.pem"
    junk.write_text("junk")
    files, named = {
        "key without certificate": (TlsFiles(None, own), "RIS_MLLP_TLS_CERT"),
        "authority without certificate": (TlsFiles(None, None, own), "RIS_MLLP_TLS_CA"),
        "no PEM": (TlsFiles(junk, None), "RIS_MLLP_TLS_CERT"),
        "no authority": (TlsFiles(own, None, junk), "RIS_MLLP_TLS_CA"),
    }[wrong]
    with pytest.raises(TlsError, match=named):
        files.check()


def test_a_server_with_tls_settings_that_can_t_be_used_doesn_t_start(ris, authority, tmp_path):
    async def scenario():
        settings = load_settings(data_dir=tmp_path, mllp_tls_key=authority.issue("ris").pem)
        with pytest.raises(StartError, match="RIS_MLLP_TLS_KEY needs RIS_MLLP_TLS_CERT"):
            await assemble(settings, ris.db)

    ris.run(scenario())


# Out


async def send_to(ris: Department, server: ssl.SSLContext, tls: TlsFiles, *headers: str, delivered: bool) -> str:
    """The error of a message to a receiver with this context; empty when it was delivered."""

    async def answer(message: bytes, _peer: object) -> bytes:
        return ack(message.split(b"|")[9].decode())

    receiver = MllpServer("127.0.0.1", 0, answer, ssl=server)
    await receiver.start()
    try:
        async with Delivery(ris.interactions, QUICK, tls).running():
            to = Line(ris, await ris.destination("ORU^R01"))
            said = [*headers] or ["hl7-version: 2.5.1"]
            await ris.update(await ris.read(to.endpoint), address=f"mllps://127.0.0.1:{receiver.port}", header=said)
            await to.post()

            async def tried() -> bool:
                return (await to.documents())[0]["attempts"] > 0

            await until(tried)
            if delivered:
                await until(to.settled)
            (document,) = await to.documents()
            return "" if document["state"] == "delivered" else document["error"]
    finally:
        await receiver.stop(1)


def serving(identity: Identity, clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients.pem if clients else None)
    context.load_cert_chain(identity.pem)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_receiver_with_mutual_tls_is_shown_our_certificate(ris, authority):
    tls = TlsFiles(authority.issue("ris").pem, None, authority.pem)
    assert ris.run(send_to(ris, serving(authority.issue("ehr"), authority), tls, delivered=True)) == ""


def test_a_receiver_that_we_can_t_trust_gets_nothing(ris, authority):
    other = Authority(authority.folder, "Other CA")
    tls = TlsFiles(authority.issue("ris").pem, None, authority.pem)

    async def scenario():
        for identity in (other.issue("ehr"), authority.issue("ehr", expired=True), authority.issue("ehr", host="192.0.2.1")):
            assert "no connection" in await send_to(ris, serving(identity), tls, delivered=False)
        # Without an authority of our own it is the system's that count.
        assert "no connection" in await send_to(ris, serving(authority.issue("ehr")), TlsFiles(), delivered=False)

    ris.run(scenario())


def test_an_endpoint_names_the_host_of_its_certificate_where_that_is_another(ris, authority):
    tls = TlsFiles(authority.issue("ris").pem, None, authority.pem)
    context = serving(authority.issue("ehr", host="ehr.example.org"))
    assert ris.run(send_to(ris, context, tls, "tls-server-name: ehr.example.org", delivered=True)) == ""
