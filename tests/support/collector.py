"""An OTLP collector: the gRPC service that exporters send spans to, and what it has got."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service


@dataclass
class Collector(service.TraceServiceServicer):
    """`names`: service → the names of its spans."""

    endpoint: str = ""
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            (attribute,) = resource.resource.attributes
            for scope in resource.scope_spans:
                self.names[attribute.value.string_value] += [span.name for span in scope.spans]
        return pb.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect while the context lasts, on threads: an exporter may hold a loop when it ends."""
    collector = Collector()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        service.add_TraceServiceServicer_to_server(collector, server)
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(0).wait()
