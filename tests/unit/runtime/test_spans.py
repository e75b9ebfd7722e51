"""Spans: who is whose parent, what is linked, and that nothing is imported where no OTLP endpoint is set."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from ingestcore.observe.traces import open_tracing
from ingestcore.runtime.recording import Delivery, headers
from ingestcore.runtime.spans import OtelSpans, Spans
from ingestcore.stage import At, Emit, Fate, Input, Line, OperatorNeeded, Origin, Step
from ingestcore.testing.span_receiver import Received, SpanReceiver, receiving

ORIGIN = Origin("a" * 32, "acme", "s3-main", "orders@3", "s3://lake/a.csv")


def input_of(offset: int, made_of: dict[str, str], topic: str = "blocks") -> Input:
    return Input(At(topic, 0, offset), b"x" * 10, {**made_of, "rows": "5"})


def step_over(*inputs: Input, resume: str | None = None) -> Step:
    tally = tuple(Line(input.at, ORIGIN, Fate.EMITTED, 5) for input in inputs)
    return Step([input.at for input in inputs], tally, (Emit("typed", b"", rows=5 * len(inputs)),), resume=resume)


def produced(spans: Spans, step: Step, *inputs: Input) -> dict[str, str]:
    """-> the headers of a step's messages."""
    made = headers(step, [Delivery(input, "pass", 0) for input in inputs], "2025-01-01T00:00:00Z")
    spans.stepped(step, made, "csv-parser")
    return made


def exported(receiver: SpanReceiver, count: int) -> dict[str, Received]:
    deadline = time.monotonic() + 20
    while len(receiver.spans) < count:
        assert time.monotonic() < deadline, receiver.spans
        time.sleep(0.02)
    return receiver.by_id()


def span_id(made: dict[str, str]) -> str:
    return made["traceparent"].split("-")[2]


def test_one_trace_leads_from_the_listing_through_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, "csv-parser", "1")
        assert tracing is not None
        found = headers(Step((), ()), (), "2025-01-01T00:00:00Z")
        OtelSpans(tracing.tracer, "s3-lister").found("s3-main", found)
        reads = OtelSpans(tracing.tracer, "csv-parser", "ingest.blocks")
        first, second = input_of(1, found), input_of(2, found)
        for input in (first, second):
            reads.taken(input)
        made = produced(reads, step_over(first, second), first, second)
        reads.committed([first.at, second.at])
        writes = OtelSpans(tracing.tracer, "lake", "ingest.normalized")
        last = input_of(9, made, "normalized")
        writes.taken(last)
        produced(writes, step_over(last), last)
        writes.committed([last.at])
        tracing.close()
        known = exported(receiver, 6)
    assert {span.trace for span in known.values()} == {found["traceparent"].split("-")[1]}
    listed, step = known[span_id(found)], known[span_id(made)]
    assert (listed.name, listed.parent, listed.attributes["ingest.source"]) == ("s3-lister found", "", "s3-main")
    taken = [span for span in known.values() if span.name == "csv-parser process"]
    assert {span.parent for span in taken} == {listed.id}
    assert {step.parent, *step.links} == {span.id for span in taken}
    assert step.attributes["ingest.rows.emitted"] == 10 and step.attributes["ingest.dataset"] == "orders@3"
    (delivered,) = (span for span in known.values() if span.name == "lake process")
    assert delivered.parent == step.id
    assert delivered.attributes["messaging.destination.name"] == "ingest.normalized"
    assert delivered.attributes["messaging.kafka.offset"] == 9
    assert {span.service for span in known.values()} == {"ingest-csv-parser"}


def test_an_input_that_is_rolled_back_ends_failed_and_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, "csv-parser", "0")
        assert tracing is not None
        spans, input = OtelSpans(tracing.tracer, "csv-parser", "ingest.blocks"), input_of(1, {})
        spans.taken(input)
        spans.rolled_back("S3 is away")
        spans.taken(input)
        spans.committed([input.at])
        tracing.close()
        known = exported(receiver, 2).values()
    assert sorted(span.failed for span in known) == [False, True]
    assert len({span.trace for span in known}) == 2, "without a traceparent a new trace begins"


def test_a_trace_that_is_not_sampled_stays_so_downstream(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, "csv-parser", "0")
        assert tracing is not None
        spans = OtelSpans(tracing.tracer, "csv-parser", "ingest.blocks")
        input = input_of(1, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})
        spans.taken(input)
        made = produced(spans, step_over(input), input)
        spans.committed([input.at])
        tracing.close()
        assert receiver.spans == []
    version, trace, span, flags = made["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "a" * 32, "00")
    assert len(span) == 16 and span != "b" * 16


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_there_is_no_tracing(environ: dict[str, str]) -> None:
    assert open_tracing(environ, "csv-parser", "0") is None


def test_another_protocol_is_refused_with_what_to_write() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(OperatorNeeded, match="http/protobuf"):
        open_tracing(environ, "csv-parser", "0")


def test_without_an_endpoint_the_packages_are_not_even_imported() -> None:
    program = (
        "import sys; from ingestcore.runtime import loop, process, source; from ingestcore.observe import traces;"
        "traces.open_tracing({}, 'x', '0'); sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_missing_packages_are_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(OperatorNeeded, match=r"ingest-platform\[otel\]"):
        open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "csv-parser", "0")
