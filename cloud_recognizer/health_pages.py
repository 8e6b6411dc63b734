"""Health over plain HTTP, beside /metrics: for what asks each second and has no certificate.

    GET /readyz    200 where the gRPC health service says SERVING: sound, and not draining
    GET /livez     200 where its service `liveness` does, and the event loop answers

Kubelets, Envoy and container engines ask here; where the services speak mutual TLS, they could not
ask the gRPC health service. Anything else is 503, and nothing more is said.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from cloud_recognizer.health import LIVENESS, Health

# Kubelets and Envoy wait for one or two seconds.
ANSWER_S: Final = 0.9
SERVICES: Final[Mapping[str, str]] = {"/readyz": "", "/livez": LIVENESS}


def health_pages(checks: Health) -> Mapping[str, Callable[[], bool]]:
    """Path → whether all is well, to be asked from any thread but that of the running loop."""
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


async def _serves(checks: Health, service: str) -> bool:
    return checks.serves(service)
