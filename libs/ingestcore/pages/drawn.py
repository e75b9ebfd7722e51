"""Which pages are drawn, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel

from ingestcore.datasets.http_source import Auth, Challenge, Idempotency, RateLimit
from ingestcore.datasets.spec import DatasetSpec, Dialect, FieldSpec, SinkSpec, SourceSpec
from ingestcore.observe.catalogue import LABELS, SECTIONS, Metric
from ingestcore.pages.fields import HEAD, rows, variables
from ingestcore.pages.regions import filled, table
from ingestcore.reasons import MEANING
from ingestcore.runtime.service import own_services
from ingestcore.settings import Platform
from ingestcore.topics import DAY_MS, TOPICS, TopicSpec

_CHECKOUT: Final = Path(__file__).resolve().parents[3]
_BOUNDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_VARIABLES: Final = ("variable", *HEAD[1:])


def configuration() -> dict[str, str]:
    """-> regions of docs/configuration.md."""
    return {
        "sources": table(HEAD, rows(SourceSpec, opened=("s3", "http"))),
        "webhook-auth": table(HEAD, rows(Auth, prefix="auth.")),
        "webhook-more": table(
            HEAD,
            [
                *rows(Idempotency, prefix="idempotency."),
                *rows(RateLimit, prefix="rate_limit."),
                *rows(Challenge, prefix="challenge."),
            ],
        ),
        "datasets": table(HEAD, rows(DatasetSpec, opened=("dedupe",))),
        "fields": table(HEAD, rows(FieldSpec)),
        "csv": table(HEAD, rows(Dialect)),
        "sinks": table(HEAD, rows(SinkSpec, opened=("parquet", "postgres"))),
        "services": "\n\n".join(
            f"**{service.name}**: {service.summary}\n\n" + table(_VARIABLES, variables(service.settings))
            for service in sorted(own_services().values(), key=lambda service: service.name)
        ),
        "environment": table(_VARIABLES, variables(Platform)),
    }


def architecture() -> dict[str, str]:
    """-> regions of docs/architecture.md."""
    return {"topics": table(("topic", "what", "key", "value", "kept"), [_topic(spec) for spec in TOPICS.values()])}


def _topic(spec: TopicSpec) -> tuple[str, ...]:
    kept = "for ever" if spec.retention_ms is None else f"{spec.retention_ms // DAY_MS} days"
    return f"`{spec.name}`", spec.summary, spec.key, spec.value, "compacted" if spec.compacted else kept


def metrics() -> dict[str, str]:
    """-> regions of docs/metrics.md."""
    head = ("name", "type", "unit", "labels", "meaning")
    sections = {name: table(head, map(_metric, section)) for name, section in SECTIONS.items()}
    labels = [(f"`{label}`", meaning) for label, meaning in LABELS.items()]
    return {**sections, "labels": table(("label", "meaning"), labels)}


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help


def troubleshooting() -> dict[str, str]:
    """-> regions of docs/troubleshooting.md."""
    reasons = [
        (f"`{reason.value}`", meaning.summary, "yes" if meaning.retryable else "no", meaning.advice)
        for reason, meaning in MEANING.items()
    ]
    return {"reasons": table(("reason", "what happened", "may pass as it is", "what to do"), reasons)}


def extending() -> dict[str, str]:
    """-> regions of docs/extending.md: files of the worked example, as they are tested."""
    example, tests = _CHECKOUT / "examples" / "extending", _CHECKOUT / "tests" / "contract" / "test_extending.py"
    _, begin, rest = tests.read_text(encoding="utf-8").partition("def test_the_sink_writes")
    test = begin + rest.partition("\n\n\n")[0]
    return {
        "package": _code(example / "pyproject.toml"),
        "sink-service": _code(example / "jsonl_sink" / "__init__.py"),
        "sink-stage": _code(example / "jsonl_sink" / "stage.py"),
        "source-service": _code(example / "manifest_source" / "__init__.py"),
        "source": _code(example / "manifest_source" / "source.py"),
        "sink-test": f"```python\n{test}\n```",
    }


def _code(path: Path) -> str:
    language = {".toml": "toml", ".py": "python"}[path.suffix]
    return f"```{language}\n{path.read_text(encoding='utf-8').rstrip()}\n```"


def spec_schema(model: type[BaseModel], name: str) -> str:
    """-> JSON Schema of a spec as `ingest.config` carries it: sizes are bytes there, durations seconds."""
    schema = model.model_json_schema(by_alias=False, mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ingest:schema:config-{name}:1",
        "title": f"Value of `{name}/…` in ingest.config",
    }
    return orjson.dumps(head | _plain(schema), option=orjson.OPT_INDENT_2).decode() + "\n"


def _plain(schema: Any) -> Any:
    """Without the titles pydantic makes of names: they say nothing (a property may be called `title`). Bounds of texts
    that become numbers come under pydantic's own names."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _plain(part) for key, part in schema.items() if key != "title" or not isinstance(part, str)}
    return {_BOUNDS.get(key, key) if isinstance(part, int | float) else key: part for key, part in kept.items()}


def _regions(of: Callable[[], dict[str, str]]) -> Callable[[str], str]:
    return lambda page: filled(page, of())


def _whole(draw: Callable[[], str]) -> Callable[[str], str]:
    return lambda page: draw()


DRAWN: Final[Mapping[str, Callable[[str], str]]] = {
    "docs/architecture.md": _regions(architecture),
    "docs/configuration.md": _regions(configuration),
    "docs/extending.md": _regions(extending),
    "docs/troubleshooting.md": _regions(troubleshooting),
    "docs/metrics.md": _regions(metrics),
    "schemas/config-source.schema.json": _whole(lambda: spec_schema(SourceSpec, "source")),
    "schemas/config-sink.schema.json": _whole(lambda: spec_schema(SinkSpec, "sink")),
    "schemas/config-dataset.schema.json": _whole(lambda: spec_schema(DatasetSpec, "dataset")),
}
"""File of the checkout -> what it should hold, given what it holds."""
