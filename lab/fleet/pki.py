"""Certificates for libvirtd, which wants them to allow key encipherment."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Pki:
    """An authority, and what it signs."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("Moorline lab libvirt")
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self._ca = _signed(self._name, self._name, self._key, self._key, basic, [])

    def certify(self, at: Path, name: str, address: str) -> None:
        """Write what libvirtd and its clients show: ``cacert.pem``, ``servercert.pem``, …"""
        at.mkdir()
        (at / "cacert.pem").write_bytes(self._ca.public_bytes(serialization.Encoding.PEM))
        basic = x509.BasicConstraints(ca=False, path_length=None)
        names: list[x509.GeneralName] = [
            x509.DNSName(name),
            x509.IPAddress(ipaddress.ip_address(address)),
        ]
        for kind in ("server", "client"):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _signed(_named(name), self._name, key, self._key, basic, names)
            pem = certificate.public_bytes(serialization.Encoding.PEM)
            (at / f"{kind}cert.pem").write_bytes(pem)
            secret = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            (at / f"{kind}key.pem").touch(0o600)
            (at / f"{kind}key.pem").write_bytes(secret)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    basic: x509.BasicConstraints,
    names: list[x509.GeneralName],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=basic.ca,
        crl_sign=basic.ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 365 * _DAY)
        .add_extension(basic, critical=True)
        .add_extension(usage, critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())
