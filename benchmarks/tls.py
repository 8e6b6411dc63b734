"""TLS in front of services that speak plain text, as a proxy in production would put it there."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

READ_BYTES = 1 << 16


def throw_away_certificate(address: str, folder: Path) -> bytes:
    """Write certificate and key of an address to folder; return the certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(public)
    return public


def server_side(folder: Path) -> ssl.SSLContext:
    """TLS of the certificate in folder, for HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


def client_side(certificate: bytes) -> ssl.SSLContext:
    """TLS that trusts this certificate alone, for HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate.decode())
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def proxy(
    listen: str,
    target: tuple[str, int],
    *,
    inward: ssl.SSLContext | None = None,
    outward: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Hand on what comes to an address, while the context lasts; gives the port.

    inward, outward: TLS of the connections that come, and of those that are made.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*target, ssl=outward)
        await asyncio.gather(_hand_on(reader, far_writer), _hand_on(far_reader, writer))

    server = await asyncio.start_server(connected, listen, 0, ssl=inward)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # asyncio sets TCP_NODELAY: what comes goes at once, in a record of its own.
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
