"""Which pages are drawn, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, SinkSpec, SourceSpec
from ingestcore.pages.fields import HEAD, rows, variables
from ingestcore.pages.regions import table
from ingestcore.reasons import MEANING
from ingestcore.runtime.service import discover
from ingestcore.settings import Platform
from ingestcore.topics import DAY_MS, TOPICS, TopicSpec

_VARIABLES: Final = ("variable", *HEAD[1:])


def configuration() -> dict[str, str]:
    """-> regions of docs/configuration.md."""
    return {
        "sources": table(HEAD, rows(SourceSpec, opened=("s3",))),
        "datasets": table(HEAD, rows(DatasetSpec, opened=("dedupe",))),
        "fields": table(HEAD, rows(FieldSpec)),
        "csv": table(HEAD, rows(Dialect)),
        "sinks": table(HEAD, rows(SinkSpec, opened=("parquet",))),
        "services": "\n\n".join(
            f"**{service.name}**: {service.summary}\n\n" + table(_VARIABLES, variables(service.settings))
            for service in sorted(discover().values(), key=lambda service: service.name)
        ),
        "environment": table(_VARIABLES, variables(Platform)),
    }


def architecture() -> dict[str, str]:
    """-> regions of docs/architecture.md."""
    return {"topics": table(("topic", "what", "key", "value", "kept"), [_topic(spec) for spec in TOPICS.values()])}


def _topic(spec: TopicSpec) -> tuple[str, ...]:
    kept = "for ever" if spec.retention_ms is None else f"{spec.retention_ms // DAY_MS} days"
    return f"`{spec.name}`", spec.summary, spec.key, spec.value, "compacted" if spec.compacted else kept


def troubleshooting() -> dict[str, str]:
    """-> regions of docs/troubleshooting.md."""
    reasons = [
        (f"`{reason.value}`", meaning.summary, "yes" if meaning.retryable else "no", meaning.advice)
        for reason, meaning in MEANING.items()
    ]
    return {"reasons": table(("reason", "what happened", "may pass as it is", "what to do"), reasons)}


PAGES: Final[Mapping[str, Callable[[], dict[str, str]]]] = {
    "architecture.md": architecture,
    "configuration.md": configuration,
}
"""File in `docs/` -> its regions."""
