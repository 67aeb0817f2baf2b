"""Which addresses actions by HTTP may reach."""

import ipaddress
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from adapters.calls import GuardedCalls, is_public, networks
from governor.errors import ActionError, InputError, UnrecoverableError


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # metadata of Google, AWS and Azure
        ("100.100.100.200", False),  # metadata of Alibaba
        ("fd00:ec2::254", False),  # metadata of AWS
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a9fe:a9fe", False),  # NAT64 of 169.254.169.254
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:0:127.0.0.1", False),
        ("fec0::1", False),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),  # Teredo
        ("192.0.0.192", False),  # metadata of Oracle
        ("168.63.129.16", False),  # Azure's host
    ],
)
def test_an_address_is_public_or_is_not(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://169.254.169.254/computeMetadata/v1/",
        "https://2130706433/",  # 127.0.0.1 as one number
        "https://0x7f.1/",
        "http://93.184.216.34/",  # no TLS to the world
    ],
)
def test_nothing_is_sent_to_what_is_inside(url: str) -> None:
    calls = GuardedCalls(networks("10.0.0.0/8"))

    with pytest.raises(UnrecoverableError) as refused:
        calls.post(url, {}, b"", within_s=1, most_bytes=10)
    assert refused.value.code == "ADDRESS_REFUSED"


def test_a_name_that_is_none_is_no_answer() -> None:
    with pytest.raises(ActionError) as failed:
        GuardedCalls().post("https://no.such.invalid/", {}, b"", within_s=5, most_bytes=10)
    assert failed.value.code == "CALL_FAILED"


def test_a_name_that_nobody_answers_for_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = threading.Event()

    def resolve(host: str, *_: object, **__: object) -> list[object]:
        if host == "slow.example":
            waits.wait(10)
        return [(0, 0, 0, "", ("127.0.0.1", 443))]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    calls = GuardedCalls()
    for _ in range(3):
        with pytest.raises(ActionError, match="not resolved in time"):
            calls.post("https://slow.example/", {}, b"", within_s=0.05, most_bytes=10)

    with pytest.raises(UnrecoverableError):  # it was resolved, and is inside
        calls.post("https://fast.example/", {}, b"", within_s=1, most_bytes=10)
    with pytest.raises(ActionError, match="not resolved in time"):
        calls.post("https://slow.example/", {}, b"", within_s=0.05, most_bytes=10)
    with pytest.raises(ActionError, match="too many names"):
        calls.post("https://slow.example/", {}, b"", within_s=1, most_bytes=10)
    waits.set()


def test_a_network_that_is_none_is_said() -> None:
    with pytest.raises(InputError, match="GGEN_ACTION_NETWORKS"):
        networks("10.0.0.0/8 nonsense")


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.public_bytes(Encoding.PEM)
    )
    return file


class _Well(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        pass


def test_the_certificate_is_that_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with HTTPServer(("127.0.0.1", 0), _Well) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        calls, port = GuardedCalls(networks("127.0.0.0/8 ::1/128")), server.server_port

        well = calls.post(f"https://localhost:{port}/", {}, b"", within_s=5, most_bytes=10)
        assert well.status == 204
        with pytest.raises(ActionError):
            calls.post(f"https://127.0.0.1:{port}/", {}, b"", within_s=5, most_bytes=10)
        calls.close()
        server.shutdown()
