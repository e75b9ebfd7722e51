"""OpenTelemetry: a tracer where OTLP is configured, by the standard variables; else nothing is even imported."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ingestcore.stage import OperatorNeeded

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_FLUSH_SECONDS: Final = 2.0
"""At the end of the process: a collector that is away must not hold up a drain."""


@dataclass(frozen=True)
class Tracing:
    """A tracer and the provider behind it."""

    tracer: Tracer
    _provider: Any

    def close(self) -> None:
        """Send what is left, within a moment."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(_FLUSH_SECONDS)


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for spans over OTLP."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(environ.get(name) for name in _ENDPOINTS)


def open_tracing(environ: Mapping[str, str], service: str, replica: str) -> Tracing | None:
    """-> None where no OTLP endpoint is set. Sampling, headers, timeouts and batch sizes follow the standard variables.

    Raises OperatorNeeded: the packages are missing, or another protocol is asked for.
    """
    if not is_wanted(environ):
        return None
    asked = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if asked != _PROTOCOL:
        raise OperatorNeeded(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={asked}: spans are sent as {_PROTOCOL} (usually port 4318); write that"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise OperatorNeeded(
            f"{next(name for name in _ENDPOINTS if environ.get(name))} is set and {error.name} is not installed: "
            "install the extra `otel` (pip install 'ingest-platform[otel]'), or unset it"
        ) from error
    named = {} if environ.get("OTEL_SERVICE_NAME") else {"service.name": f"ingest-{service}"}
    resource = Resource.create({**named, "service.namespace": "ingest", "service.instance.id": replica})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("ingestcore"), provider)
