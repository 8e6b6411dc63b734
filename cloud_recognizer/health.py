"""The health service: whether we serve, for load balancers and orchestrators.

The one of grpcio-health-checking holds a lock while it writes, so one watcher that reads nothing
keeps the status from ever changing, for all; and it takes any number of them.
"""

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_recognizer.access import Access, share_of
from cloud_recognizer.metrics import HEALTH_WATCHES, Metrics
from cloud_recognizer.places import Places
from cloud_recognizer.status import aborting
from cloud_recognizer.writing import write

# What an orchestrator asks for before it starts a process again: a recognizer whose models fail
# their probe serves nobody, but another start would not mend them.
LIVENESS: Final = "liveness"
MAX_WATCHES: Final = 128
# Of one caller.
MAX_OWN_WATCHES: Final = 8

Status = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class Health(health_pb2_grpc.HealthServicer):
    """See grpc.health.v1. Unknown services: NOT_FOUND to Check, SERVICE_UNKNOWN to Watch.

    At first of a process that takes calls (LIVENESS) and does not serve.
    """

    def __init__(self, metrics: Metrics, access: Access | None, write_timeout_s: float) -> None:
        self._metrics = metrics
        self._access = access
        self._write_timeout_s = write_timeout_s
        self.watches = Places(
            *(metrics, HEALTH_WATCHES, "health watches"),
            capacity=MAX_WATCHES,
            each=MAX_OWN_WATCHES,
        )
        self._statuses: dict[str, int] = {
            "": Status.NOT_SERVING,
            LIVENESS: Status.SERVING,
        }
        self._stopping = False
        self._changed = asyncio.Event()  # replaced when it is set

    def say(self, service: str, status: int) -> None:
        """Tell those who ask from now on, and those who watch. Not after `stop`."""
        if not self._stopping:
            self._statuses[service] = status
            self._wake()

    def stop(self) -> None:
        """NOT_SERVING for all services, from now on."""
        self._stopping = True
        self._statuses = dict.fromkeys(self._statuses, int(Status.NOT_SERVING))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def serves(self, service: str) -> bool:
        """Whether its status is SERVING."""
        return self._statuses.get(service) == Status.SERVING

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The status now."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Status(status=status)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802
        """The status now, and whenever it has changed; what changes back meanwhile is not told."""
        async with aborting(context, self._metrics):
            with self.watches.one(share_of(self._access, context)):
                told = None
                while True:
                    changed = self._changed
                    status = self._statuses.get(request.service, Status.SERVICE_UNKNOWN)
                    if status != told:
                        await write(context, Status(status=status), self._write_timeout_s)
                        told = status
                    await changed.wait()
