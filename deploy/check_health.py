"""Container health check: exit code 0 when the gRPC server says that it is SERVING.

python check_health.py HOST:PORT [CA [CERTIFICATE KEY]]

With the PEM file of an authority it speaks TLS; the recognizer's ordinary port asks for a client's
certificate and key, too, its token port does not.
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(address: str, *files: str) -> str | None:
    """None when the server is healthy, else what is wrong."""
    with _channel(address, *files) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status
        except grpc.RpcError as error:
            return str(error)
    return None if status == health_pb2.HealthCheckResponse.SERVING else f"status {status}"


def _channel(
    address: str, ca: str | None = None, certificate: str | None = None, key: str | None = None
) -> grpc.Channel:
    if ca is None:
        return grpc.insecure_channel(address)
    own = [Path(file).read_bytes() if file else None for file in (key, certificate)]
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes(), *own)
    return grpc.secure_channel(address, credentials)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
