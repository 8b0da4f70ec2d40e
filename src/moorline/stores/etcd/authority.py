"""The fleet's certificate authority: who has a certificate of it is an etcd user.

etcd takes the common name (CN) of a client's certificate for the user's name. So whatever
this authority signs with a CN is a credential, and whoever can make it sign is root.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moorline.errors import Refused, Unavailable
from moorline.secret import Secret
from moorline.stores.key_files import private, write_new

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
CLOCKS_DIFFER_SECONDS = 300
"""A certificate is valid this long before it was made: its reader's clock may be behind."""
MAX_NAME_CHARACTERS = 64
"""Characters of a CN: RFC 5280, appendix A, ub-common-name."""

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, both as PEM."""

    certificate: bytes
    key: Secret[bytes]


class Authority:
    """Signs the certificates of users and of etcd's members."""

    def __init__(self, certificate: x509.Certificate, key: _Key) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def make(cls, directory: Path, name: str = "Moorline fleet") -> Authority:
        """Make an authority, and its ``ca.pem`` and ``ca.key`` in *directory*.

        Raises Refused if there is one already, Unavailable if it cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _named(name)
        certificate = (
            _builder(issuer, issuer, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        # The key first: a certificate without its key would look like the operator's own.
        write_new(directory / "ca.key", _key_pem(key))
        write_new(directory / "ca.pem", _pem(certificate), mode=0o644)
        return cls(certificate, key)

    @classmethod
    def open(cls, certificate: Path, key: Path) -> Authority:
        """The authority that somebody made before. The key must be for its owner alone.

        Raises Denied (others can read the key), Unavailable (it cannot be read), Refused
        (it is none, or the two do not belong together).
        """
        secret = private(key)
        try:
            signed = x509.load_pem_x509_certificate(certificate.read_bytes())
            signer = serialization.load_pem_private_key(secret.reveal(), password=None)
        except OSError as e:
            raise Unavailable(f"{certificate} cannot be read: {e.strerror}") from e
        except (ValueError, TypeError):
            # The library's words could have a part of the key.
            raise Refused(f"{certificate} and {key} are not an authority in PEM") from None
        if not isinstance(signer, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise Refused(f"{key} is neither an elliptic curve key nor one of RSA")
        if signer.public_key() != signed.public_key():
            raise Refused(f"{key} is not the key of {certificate}")
        return cls(signed, signer)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return _pem(self._certificate)

    def user(self, name: str, *, days: int = CERTIFICATE_DAYS) -> Certificate:
        """Make a certificate that makes its holder the etcd user *name*.

        It is for clients alone: its holder cannot pose as a member of etcd.
        Raises Refused (no such name is possible).
        """
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise Refused(f"a user's name has 1 to {MAX_NAME_CHARACTERS} characters: {name!r}")
        return self._signed(_named(name), ExtendedKeyUsageOID.CLIENT_AUTH, (), days)

    def member(self, names: Sequence[str], *, days: int = CERTIFICATE_DAYS) -> Certificate:
        """Make the certificate of an etcd member that is reached by *names*.

        It has no CN, so nobody is its user: etcd before 3.3.11 took what came through its
        HTTP gateway for the user that its own certificate names (CVE-2018-16886).
        """
        return self._signed(x509.Name([]), ExtendedKeyUsageOID.SERVER_AUTH, names, days)

    def peer(self, names: Sequence[str], *, days: int = CERTIFICATE_DAYS) -> Certificate:
        """Make the certificate with which an etcd member speaks with the other members.

        The authority of peers must be another than that of users: whoever has a certificate
        of it can join the cluster.
        """
        return self._signed(x509.Name([]), None, names, days)

    def _signed(
        self, subject: x509.Name, use: x509.ObjectIdentifier | None, names: Sequence[str], days: int
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [use] if use else [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            # RFC 5280, 4.2.1.6: critical where there is no subject.
            builder = builder.add_extension(alternatives, critical=not list(subject))
        return Certificate(_pem(builder.sign(self._key, hashes.SHA256())), Secret(_key_pem(key)))


def valid_until(certificate: bytes) -> datetime:
    """When a certificate in PEM ends. Raises Refused if it is none."""
    try:
        return _until(x509.load_pem_x509_certificate(certificate))
    except ValueError as e:
        raise Refused("this is not a certificate in PEM") from e


def user_of(certificate: bytes) -> str:
    """Which etcd user a certificate in PEM is; '' for none. Raises Refused if it is none."""
    try:
        subject = x509.load_pem_x509_certificate(certificate).subject
    except ValueError as e:
        raise Refused("this is not a certificate in PEM") from e
    return "".join(str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME))


def belongs(certificate: bytes, key: Secret[bytes]) -> bool:
    """Whether a key is that of a certificate, both in PEM."""
    try:
        signed = x509.load_pem_x509_certificate(certificate)
        own = serialization.load_pem_private_key(key.reveal(), password=None)
    except (ValueError, TypeError):
        return False
    return bool(own.public_key() == signed.public_key())


def _until(certificate: x509.Certificate) -> datetime:
    # cryptography before 42 has the naive one only.
    aware = getattr(certificate, "not_valid_after_utc", None)
    return aware or certificate.not_valid_after.replace(tzinfo=UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=CLOCKS_DIFFER_SECONDS))
        .not_valid_after(now + timedelta(days=days))
    )


def _named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
