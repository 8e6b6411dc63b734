"""The files of one end's TLS: read, checked, followed while they are rotated. TLS is gRPC's."""

import ipaddress
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mien.errors import CertificateError, ConfigError
from mien.followed import MAX_FILE_BYTES, Followed
from mien.whole_file import read_bounded

if TYPE_CHECKING:
    import grpc
    from cryptography.x509 import Certificate


@dataclass(frozen=True)
class TlsMaterial:
    """PEM bytes of authorities to trust, own certificate chain and its key.

    expires_unix_s: the end of our own certificate, or of the last authority where that is sooner;
    None without a certificate.
    """

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    expires_unix_s: float | None = None

    @property
    def expired(self) -> bool:
        """Whether nobody takes it any more."""
        return self.expires_unix_s is not None and self.expires_unix_s <= time.time()

    def channel_credentials(self) -> "grpc.ChannelCredentials":
        """What a client dials with."""
        import grpc

        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


@dataclass(frozen=True)
class TlsFiles:
    """Where the PEM files are. A client with a token instead of a certificate has the first."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(
        cls, ca: Path | None, certificate: Path | None, key: Path | None, settings: str = "tls"
    ) -> "TlsFiles | None":
        """What the settings tls_ca, tls_certificate, tls_key mean; None is plaintext.

        settings: what their names begin with. Raises ConfigError where one is missing.
        """
        if ca is None and certificate is None and key is None:
            return None
        if ca is None:
            raise ConfigError(
                f"{settings}_ca, the authorities' PEM file, is needed beside the others"
            )
        if (certificate is None) != (key is None):
            raise ConfigError(
                f"{settings}_certificate and {settings}_key belong together: give both"
            )
        return cls(ca, certificate, key)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)

    def read(self, now_unix_s: float | None = None) -> TlsMaterial:
        """Read and check all of it. Raises CertificateError, which names the file and the fault."""
        now_s = time.time() if now_unix_s is None else now_unix_s
        ca = _read(self.ca)
        ca_expires_s = max(
            authority.not_valid_after_utc.timestamp() for authority in _certificates(self.ca, ca)
        )
        if ca_expires_s <= now_s:
            raise CertificateError(f"every authority in {self.ca} has expired: get its successor")
        if self.certificate is None or self.key is None:
            return TlsMaterial(ca)
        chain, key = _read(self.certificate), _read(self.key)
        own = _certificates(self.certificate, chain)[0]
        _check_pair(own, self.certificate, key, self.key)
        if now_s < own.not_valid_before_utc.timestamp():
            raise CertificateError(
                f"{self.certificate} is valid from {own.not_valid_before_utc:%Y-%m-%d %H:%M:%S} "
                "UTC on only: wait, or set this machine's clock"
            )
        expires_s = own.not_valid_after_utc.timestamp()
        if expires_s <= now_s:
            raise CertificateError(
                f"{self.certificate} expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: "
                "put a new certificate in its place"
            )
        return TlsMaterial(ca, chain, key, min(expires_s, ca_expires_s))


FollowedTls = Followed[TlsMaterial]


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written in a setting, is this machine; nothing is looked up."""
    bare = host.removeprefix("dns:").lstrip("/").strip("[]")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def check_plaintext(
    host: str, *, insecure: bool, remedy: str, insistence: str = "insecure"
) -> None:
    """Raise ConfigError for plaintext beyond loopback that nobody has insisted upon.

    insistence: the setting that does.
    """
    if not insecure and not is_loopback(host):
        raise ConfigError(
            f"without TLS only loopback is spoken to, and {host} is not: {remedy}, or insist on "
            f"plaintext with {insistence}"
        )


def _certificates(path: Path, data: bytes) -> "list[Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate in PEM form: {error}") from error


def _check_pair(own: "Certificate", certificate: Path, key: bytes, key_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        # Not chained: what the library says of a key it cannot read is no business of a log.
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError):
        raise CertificateError(
            f"{key_path} holds no private key in PEM form that needs no password"
        ) from None
    if public != own.public_key():
        raise CertificateError(f"the key in {key_path} is not that of {certificate}")


def _read(path: Path) -> bytes:
    return read_bounded(path, MAX_FILE_BYTES, CertificateError)
