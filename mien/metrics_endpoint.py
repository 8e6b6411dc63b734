"""/metrics of a service, for Prometheus, and what else is asked for without a certificate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from mien.bounded_server import MAX_CONNECTIONS, TIMEOUT_S, BoundedServer
from mien.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

NO_PAGES: Final[Mapping[str, Callable[[], bool]]] = MappingProxyType({})


@contextmanager
def metrics_endpoint(
    registry: CollectorRegistry,
    host: str,
    port: int | None,
    pages: Mapping[str, Callable[[], bool]] = NO_PAGES,
    *,
    on_full: Callable[[], None] = lambda: None,
    max_connections: int = MAX_CONNECTIONS,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[int | None]:
    """Serve a registry on threads of its own; yields the port bound, None where `port` is None.

    pages: path → whether it is answered with 200 or with 503; asked on those threads.
    on_full, max_connections, timeout_s: as `BoundedServer` takes them.
    Raises ConfigError where the port cannot be bound.
    """
    if port is None:
        yield None
        return
    # Here, for the core is installed without it.
    from prometheus_client import make_wsgi_app

    application = _with_pages(make_wsgi_app(registry), pages)
    try:
        server = BoundedServer(
            *(host, port, application),
            on_full=on_full,
            max_connections=max_connections,
            timeout_s=timeout_s,
        )
    except OSError as error:
        raise ConfigError(f"metrics_port {port} of {host} cannot be bound: {error}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _with_pages(
    metrics: WSGIApplication, pages: Mapping[str, Callable[[], bool]]
) -> WSGIApplication:
    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        well = pages.get(environ.get("PATH_INFO", ""))
        if well is None:
            return metrics(environ, start_response)
        status, said = ("200 OK", b"ok\n") if well() else ("503 Service Unavailable", b"no\n")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [said]

    return answered
