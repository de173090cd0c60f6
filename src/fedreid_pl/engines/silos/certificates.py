"""Issues the certificates of a federation: one for its own authority, the coordinator and each silo."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedreid_pl.engines.silos.keys import pem_of
from fedreid_pl.errors import FedReIDError, printable

AUTHORITY_DAYS, PARTY_DAYS = 3650, 397
EARLIER = timedelta(hours=1)  # certificates start earlier, because the clocks of the parties differ


@dataclass(frozen=True)
class Credentials:
    """Private key, certificate and the authority's certificate of one end of a connection, each as PEM."""

    key: bytes
    certificate: bytes
    authority: bytes


def new_tls_key() -> tuple[bytes, str]:
    """Draws a key for connections (ECDSA, P-256); returns the private and the public half as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return pem_of(key), _public_pem(key.public_key())


class Authority:
    """Signs the certificates of one federation.

    Args:
        key: private key of the authority, PEM.
        certificate: certificate of the authority, PEM.
    """

    def __init__(self, key: bytes, certificate: bytes) -> None:
        try:
            self._key = serialization.load_pem_private_key(key, None)
            self._certificate = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError) as error:
            raise FedReIDError("the federation's authority cannot be read; restore ca.pem and ca.crt") from error
        self.pem = certificate

    @classmethod
    def new(cls, federation: str) -> tuple[Authority, bytes]:
        """Returns a new authority and its private key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"fedreid_pl federation {federation}")
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return cls(pem_of(key), certificate), pem_of(key)

    def for_silo(self, name: str, public: str, days: float = PARTY_DAYS) -> str:
        """Returns a client certificate for a silo's connections, PEM.

        Args:
            name: name of the silo.
            public: public half of the silo's key for connections, PEM.
            days: days that the certificate is valid; a negative number gives an expired certificate.

        Raises:
            FedReIDError: if `public` is not a P-256 key.
        """
        try:
            key = serialization.load_pem_public_key(public.encode())
        except ValueError as error:
            raise FedReIDError(f"silo {name}: its card contains no key for connections") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise FedReIDError(f"silo {name}: its key for connections is not a P-256 key")
        return self._issued(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name)], days).decode()

    def for_coordinator(self, hosts: list[str], days: float = PARTY_DAYS) -> Credentials:
        """Returns a new key and server certificate of the coordinator for these host names and IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_host(host) for host in hosts]
        issued = self._issued("coordinator", key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, names, days)
        return Credentials(pem_of(key), issued, self.pem)

    def _issued(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
        days: float,
    ) -> bytes:
        builder = _builder(_name(name), self._certificate.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def key_digest(certificate: bytes) -> str:
    """Returns the SHA-256 of the public key in a certificate (PEM); the coordinator identifies a silo by it."""
    return public_key_digest(_public_pem(x509.load_pem_x509_certificate(certificate).public_key()))


def public_key_digest(public: str) -> str:
    """Returns the SHA-256 of a public key (PEM), without its white space."""
    return hashlib.sha256("".join(public.split()).encode()).hexdigest()


def check_certificate(certificate: bytes) -> datetime:
    """Returns the time at which a silo's certificate (PEM) expires.

    Raises:
        FedReIDError: if the certificate has expired or is not valid yet.
    """
    found, now = x509.load_pem_x509_certificate(certificate), datetime.now(timezone.utc)
    if now > found.not_valid_after_utc:
        raise FedReIDError(
            f"the certificate expired on {found.not_valid_after_utc:%Y-%m-%d}; ask the coordinator for a new "
            "invitation (fedreid-pl federation add), or correct this machine's clock"
        )
    if now < found.not_valid_before_utc:
        raise FedReIDError(
            f"the certificate is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and this machine's clock "
            f"is at {now:%Y-%m-%d %H:%M}; correct the clock"
        )
    return found.not_valid_after_utc


def check_authority(authority: bytes, certificate: bytes) -> None:
    """Checks that a federation's authority signed a certificate, both as PEM.

    Raises:
        ValueError: if `authority` is not a certificate, or is another authority's.
    """
    try:
        signer = x509.load_pem_x509_certificate(authority)
        x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(signer)
    except (InvalidSignature, TypeError) as error:
        raise ValueError("another authority signed the certificate") from error


def public_half(key: bytes) -> str:
    """Returns the public half of a private key, both as PEM.

    Raises:
        ValueError: if `key` is not a private key without a password.
    """
    try:
        return _public_pem(serialization.load_pem_private_key(key, None).public_key())
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("not a private key without a password") from error


def _builder(subject: x509.Name, issuer: x509.Name, key: object, days: float) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    start = now - EARLIER if days > 0 else now + timedelta(days=2 * days) - EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise FedReIDError(f"host={printable(host)}: is not a valid host name; write it in ASCII") from error


def _public_pem(key: object) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()  # type: ignore[attr-defined]
