"""Container health check: exit code 0 when the gRPC server says that it is SERVING.

python check_health.py HOST:PORT
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(address: str) -> str | None:
    """None when the server is healthy, else what is wrong."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status
        except grpc.RpcError as error:
            return str(error)
    return None if status == health_pb2.HealthCheckResponse.SERVING else f"status {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
