"""Spans as a collector got them."""

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True)
class Traced:
    """The spans of one trace."""

    spans: Sequence[ReadableSpan]

    @property
    def names(self) -> set[str]:
        return {span.name for span in self.spans}

    def named(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def parent(self, name: str) -> str | None:
        """The name of a span's parent; None for a root."""
        span = self.named(name)
        if span.parent is None:
            return None
        (above,) = [x for x in self.spans if x.context.span_id == span.parent.span_id]
        return above.name

    def outcome(self, name: str) -> object:
        return (self.named(name).attributes or {}).get("outcome")


def traces(*ends: Sequence[ReadableSpan]) -> list[Traced]:
    """What the ends have sent, by trace, in the order of their first spans' ends."""
    found: dict[int, list[ReadableSpan]] = {}
    for span in (span for end in ends for span in end):
        found.setdefault(span.context.trace_id, []).append(span)
    return [Traced(spans) for spans in found.values()]
