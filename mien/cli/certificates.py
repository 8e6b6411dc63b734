"""`mien certificates`: a certificate authority for development, and what it issues.

    ca                      ca.pem, ca-key.pem
    server  NAME HOST …     server-NAME.pem, server-NAME-key.pem
    device | consumer | operator  NAME

For trying TLS, and for tests. In production your own authority issues the same: one URI SAN,
spiffe://mien/ROLE/NAME, in a client's certificate; host names in a server's.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mien.errors import CertificateError, ConfigError
from mien.identity import Identity, Role
from mien.tls import TlsFiles

CA: Final = "ca"
# Clocks of devices differ; a certificate must not begin in the future of one.
SKEW: Final = timedelta(minutes=5)


class DevelopmentCa:
    """An authority in a folder. Raises CertificateError for a folder that holds none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise CertificateError(
                f"{folder} holds no authority ({type(error).__name__}): make one with "
                f"mien certificates --folder {folder} ca"
            ) from None
        if self._certificate.not_valid_after_utc <= datetime.now(UTC):
            raise CertificateError(f"the authority in {folder} has expired; make one elsewhere")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(f"{folder / 'ca-key.pem'} is no elliptic curve's key")
        self._key = key

    @classmethod
    def make(cls, folder: Path, valid: timedelta = timedelta(days=365)) -> DevelopmentCa:
        """Make one; an authority that is there is not replaced: CertificateError."""
        if (folder / "ca-key.pem").exists():
            raise CertificateError(f"{folder} holds an authority already; take another folder")
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("mien development CA")
        certificate = (
            _begun(name, name, key.public_key(), valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        _write_pair(folder, CA, certificate, key)
        return cls(folder)

    def issue_server(self, name: str, hosts: Sequence[str], valid: timedelta) -> Path:
        """A recognizer's certificate for host names and addresses; returns its file."""
        sans = [_host(host) for host in hosts]
        return self._issue(f"server-{_checked(name)}", sans, ExtendedKeyUsageOID.SERVER_AUTH, valid)

    def issue_client(self, identity: Identity, valid: timedelta) -> Path:
        """A client's certificate, ROLE-NAME.pem; an older one is replaced. Returns its file."""
        san = x509.UniformResourceIdentifier(identity.uri)
        stem = f"{identity.role.value}-{identity.name}"
        return self._issue(stem, [san], ExtendedKeyUsageOID.CLIENT_AUTH, valid)

    def files(self, certificate: Path) -> TlsFiles:
        """What the settings tls_* of whom it was issued to name."""
        key = certificate.with_name(f"{certificate.stem}-key.pem")
        return TlsFiles(self._folder / f"{CA}.pem", certificate, key)

    def _issue(
        self,
        stem: str,
        sans: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        valid: timedelta,
    ) -> Path:
        # What outlived its authority would be refused, whatever it says itself.
        valid = min(valid, self._certificate.not_valid_after_utc - datetime.now(UTC))
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _begun(_name(stem[:64]), self._certificate.subject, key.public_key(), valid)
            .add_extension(x509.SubjectAlternativeName(sans), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
            .sign(self._key, hashes.SHA256())
        )
        return _write_pair(self._folder, stem, certificate, key)


def issue(folder: Path, kind: str, name: str, hosts: Sequence[str], days: float | None) -> Path:
    """Make what `mien certificates KIND` asks for; returns the certificate's file.

    days: None for a year where it is the authority, else for 30 days. Raises ConfigError.
    """
    if days is not None and days <= 0:
        raise ConfigError(f"--days must be above 0, got {days:g}")
    valid = timedelta(days=days or (365 if kind == CA else 30))
    if kind == CA:
        DevelopmentCa.make(folder, valid)
        return folder / f"{CA}.pem"
    authority = DevelopmentCa(folder)
    if kind == "server":
        return authority.issue_server(name, hosts, valid)
    try:
        identity = Identity(Role(kind), name)
    except ValueError as error:
        raise ConfigError(f"{name!r}: {error}") from None
    return authority.issue_client(identity, valid)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, valid: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid) - SKEW)
        .not_valid_after(now + valid)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name):
        raise CertificateError(f"a server's name has letters, digits, '_' and '-', got {name!r}")
    return name


def _write_pair(
    folder: Path, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> Path:
    """Key first, then certificate, each replaced at once: who follows them sees no half file."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / f"{stem}-key.pem", private, 0o600)
    path = folder / f"{stem}.pem"
    _replace(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return path


def _replace(path: Path, data: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    partial.replace(path)
