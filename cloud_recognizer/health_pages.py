"""Health over plain HTTP, beside /metrics: for what asks each second and has no certificate.

    GET /readyz    200 where the gRPC health service says SERVING: sound, and not draining
    GET /livez     200 where its service `liveness` does, and the event loop answers

Kubelets, Envoy and container engines ask here; where the services speak mutual TLS, they could not
ask the gRPC health service. Anything else is 503, and nothing more is said.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from grpc_health.v1 import health, health_pb2

from cloud_recognizer.grpc_server import LIVENESS

# Kubelets and Envoy wait for one or two seconds.
ANSWER_S: Final = 0.9
SERVICES: Final[Mapping[str, str]] = {"/readyz": "", "/livez": LIVENESS}


def health_pages(checks: health.aio.HealthServicer) -> Mapping[str, Callable[[], bool]]:
    """Path → whether all is well, to be asked from any thread but that of the running loop.

    checks: as `grpc_server.health_checks` makes it.
    """
    loop = asyncio.get_running_loop()

    def page(service: str) -> Callable[[], bool]:
        def well() -> bool:
            asked = asyncio.run_coroutine_threadsafe(_serves(checks, service), loop)
            try:
                return asked.result(ANSWER_S)
            except TimeoutError:
                return False  # the loop is busy with something else, or hangs

        return well

    return {path: page(service) for path, service in SERVICES.items()}


async def _serves(checks: health.aio.HealthServicer, service: str) -> bool:
    # It asks the context only where it does not know the service.
    answer = await checks.Check(
        health_pb2.HealthCheckRequest(service=service),
        None,  # type: ignore[arg-type]
    )
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
