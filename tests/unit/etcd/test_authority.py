"""Certificates: who has one is that user of etcd, and nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from moorline.errors import Denied, Refused, Unavailable
from moorline.stores.etcd.authority import Authority, Certificate, user_of, valid_until
from moorline.stores.key_files import write_new


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


def test_it_is_made_once_for_its_owner_alone(authority: Authority, tmp_path: Path) -> None:
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="there already"):
        Authority.make(tmp_path)
    again = Authority.open(tmp_path / "ca.pem", tmp_path / "ca.key")
    assert again.pem == authority.pem
    assert "PRIVATE" not in repr(again.user("root"))


def test_an_operator_s_authority_can_be_of_rsa(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Ours")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    from cryptography.hazmat.primitives import hashes

    write_new(
        tmp_path / "pem",
        certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
    )
    write_new(tmp_path / "key", pem(key))
    made = Authority.open(tmp_path / "pem", tmp_path / "key").user("host:h1:1")
    assert user_of(made.certificate) == "host:h1:1"


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_what_is_no_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    with pytest.raises(Unavailable):
        Authority.open(certificate, tmp_path / "none")
    for number, content in enumerate(
        (
            b"",
            b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n",
            pem(ed25519.Ed25519PrivateKey.generate()),
            pem(rsa.generate_private_key(65537, 2048)),
        )
    ):
        write_new(tmp_path / f"key{number}", content)
        with pytest.raises(Refused) as told:
            Authority.open(certificate, tmp_path / f"key{number}")
        assert "c2VjcmV0" not in f"{told.value!r}{told.value.__cause__!r}"
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(Denied):
        Authority.open(certificate, tmp_path / "ca.key")


def test_it_tells_whose_it_is_and_until_when(authority: Authority) -> None:
    made = authority.user("host:h1:7", days=10)
    assert user_of(made.certificate) == "host:h1:7"
    left = valid_until(made.certificate) - datetime.now(UTC)
    assert timedelta(days=9, hours=23) < left <= timedelta(days=10)
    for name in ("", "x" * 65):
        with pytest.raises(Refused, match="characters"):
            authority.user(name)
    for question in (user_of, valid_until):
        with pytest.raises(Refused, match="not a certificate"):
            question(b"something")


def test_a_member_s_certificate_makes_nobody_a_user(authority: Authority) -> None:
    """etcd's HTTP gateway once took what came through it for the user of that certificate."""
    for made in (authority.member(["etcd1", "127.0.0.1"]), authority.peer(["etcd1"])):
        assert user_of(made.certificate) == ""


def test_a_host_cannot_pose_as_etcd(authority: Authority, tmp_path: Path) -> None:
    member, user = authority.member(["etcd1"]), authority.user("host:h1:1")
    assert accepted(tmp_path, member, user, "etcd1")
    assert not accepted(tmp_path, user, user, "host:h1:1")
    assert not accepted(tmp_path, member, member, "etcd1")


def accepted(directory: Path, server: Certificate, client: Certificate, name: str) -> bool:
    """Whether the two ends of a connection take each other for what they say they are."""
    contexts = []
    for purpose, made, file in (
        (ssl.Purpose.CLIENT_AUTH, server, "server"),
        (ssl.Purpose.SERVER_AUTH, client, "client"),
    ):
        (directory / file).write_bytes(made.certificate + made.key.reveal())
        context = ssl.create_default_context(purpose, cafile=str(directory / "ca.pem"))
        context.load_cert_chain(directory / file)
        context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)
    near, far = socket.socketpair()

    def serve() -> None:
        with suppress(OSError), contexts[0].wrap_socket(far, server_side=True) as tls:
            tls.send(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with contexts[1].wrap_socket(near, server_hostname=name) as tls:
            return tls.recv(1) == b"x"
    except OSError:
        return False
    finally:
        near.close()
        thread.join()
        far.close()
