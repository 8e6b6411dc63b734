"""/metrics of a service, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mien.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


@contextmanager
def metrics_endpoint(
    registry: CollectorRegistry, host: str, port: int | None
) -> Iterator[int | None]:
    """Serve a registry on a thread of its own; yields the port bound, None where `port` is None.

    Raises ConfigError where the port cannot be bound.
    """
    if port is None:
        yield None
        return
    # Here, for the core is installed without it.
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(f"metrics_port {port} of {host} cannot be bound: {error}") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
