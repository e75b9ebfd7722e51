"""Spans of a stage: one per input, from its delivery to its commit, and one per step below it.

A step's span is what its messages name in `traceparent`, so the input span of the next stage is its child and one trace
leads from the listing of an object to its Parquet file. A step that covers many inputs is a child of the first and
links the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ingestcore.stage import At, Input, Step

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

Place = tuple[int, int]
"""Partition and offset."""


class Spans:
    """Told what happens; this one keeps nothing."""

    def taken(self, input: Input) -> None:
        """Work on an input begins."""

    def stepped(self, step: Step, headers: dict[str, str], service: str) -> None:
        """A step of this service is about to be produced under these headers; sets `traceparent`."""

    def found(self, source: str, headers: dict[str, str]) -> None:
        """A source is about to hand something on under these headers; sets `traceparent`."""

    def committed(self, finished: Iterable[At]) -> None: ...

    def rolled_back(self, why: str) -> None:
        """What is not committed is dropped; the inputs come again."""


class OtelSpans(Spans):
    """Over an OpenTelemetry tracer.

    topic  full name of the input topic; "" of a source

    Inputs are known by partition and offset: those of an inner stage have the place of the outer one's.
    """

    def __init__(self, tracer: Tracer, service: str, topic: str = "") -> None:
        # Imported here: without OTLP the packages need not be there.
        from opentelemetry import trace

        self._trace, self._tracer, self._service, self._topic = trace, tracer, service, topic
        self._open: dict[Place, Span] = {}
        self._since: dict[Place, int] = {}

    def taken(self, input: Input) -> None:
        parent = self._remote(input.headers.get("traceparent", ""))
        self._since[input.at[1:]] = now = time.time_ns()
        self._open[input.at[1:]] = self._tracer.start_span(
            f"{self._service} process",
            parent,
            self._trace.SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._topic,
                "messaging.destination.partition.id": str(input.at.partition),
                "messaging.kafka.offset": input.at.offset,
                "messaging.message.body.size": len(input.value),
                "ingest.rows": input.rows or 0,
            },
            start_time=now,
        )

    def stepped(self, step: Step, headers: dict[str, str], service: str) -> None:
        places = dict.fromkeys(at[1:] for at in step.covers)
        covered = [self._open[place] for place in places if place in self._open]
        parent = self._trace.set_span_in_context(covered[0]) if covered else None
        now = time.time_ns()
        span = self._tracer.start_span(
            f"{service} step",
            parent,
            self._trace.SpanKind.PRODUCER,
            _attributes(step),
            [self._trace.Link(other.get_span_context()) for other in covered[1:]],
            start_time=max((self._since.get(place, now) for place in places), default=now),
        )
        span.end(now)
        self._since |= dict.fromkeys(places, now)
        headers["traceparent"] = _traceparent(span)

    def found(self, source: str, headers: dict[str, str]) -> None:
        span = self._tracer.start_span(
            f"{self._service} found", None, self._trace.SpanKind.PRODUCER, {"ingest.source": source}
        )
        span.end()
        headers["traceparent"] = _traceparent(span)

    def committed(self, finished: Iterable[At]) -> None:
        for at in finished:
            self._since.pop(at[1:], None)
            span = self._open.pop(at[1:], None)
            if span is not None:
                span.end()

    def rolled_back(self, why: str) -> None:
        for span in self._open.values():
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, f"rolled back: {why}"))
            span.end()
        self._open.clear()
        self._since.clear()

    def _remote(self, traceparent: str) -> Any:
        """-> a context whose current span is the producer's; None: there is none, a new trace begins."""
        parts = traceparent.split("-")
        try:
            _, trace_id, span_id, flags = parts
            context = self._trace.SpanContext(
                int(trace_id, 16), int(span_id, 16), True, self._trace.TraceFlags(int(flags, 16))
            )
        except ValueError:
            return None
        if not context.is_valid:
            return None
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(context))


def _attributes(step: Step) -> dict[str, Any]:
    """-> whose rows, how many by fate, and how many messages; never values of rows."""
    counted: dict[str, Any] = {"messaging.batch.message_count": len(step.emits) + len(step.rejects)}
    for line in step.tally:
        name = f"ingest.rows.{line.fate.value}"
        counted[name] = counted.get(name, 0) + line.rows
    if step.tally:
        origin = step.tally[0].origin
        counted |= {"ingest.tenant": origin.tenant, "ingest.source": origin.source, "ingest.dataset": origin.dataset}
        counted["ingest.objects"] = len({line.origin.id for line in step.tally})
        counted["ingest.object"] = origin.uri
    return counted


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
