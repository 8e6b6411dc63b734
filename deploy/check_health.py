"""Health check: exit code 0 when the recognizer says that it is SERVING.

python check_health.py HOST:PORT [CA [CERTIFICATE KEY]]
python check_health.py http://127.0.0.1:9464/readyz

The second asks beside its metrics, as containers do of themselves, for that needs no certificate.
The first asks the gRPC server. With the PEM file of an authority it speaks TLS; the recognizer's
ordinary port asks for a client's certificate and key, too, its token port does not.
"""

import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


def main(address: str, *files: str) -> str | None:
    """None when the server is healthy, else what is wrong."""
    return _page(address) if address.startswith("http://") else _grpc(address, *files)


def _page(url: str) -> str | None:
    try:
        urllib.request.urlopen(url, timeout=2).close()  # noqa: S310  # http, see `main`
    except OSError as error:
        return f"{url}: {error}"
    return None


def _grpc(address: str, *files: str) -> str | None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with _channel(address, *files) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status
        except grpc.RpcError as error:
            return str(error)
    return None if status == health_pb2.HealthCheckResponse.SERVING else f"status {status}"


def _channel(
    address: str, ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> "grpc.Channel":
    import grpc

    if ca is None:
        return grpc.insecure_channel(address)
    own = [Path(file).read_bytes() if file else None for file in (key, certificate)]
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes(), *own)
    return grpc.secure_channel(address, credentials)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
